"""Files from outside the tree: somebody's series or invariants, programs, recordings."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

#: Bytes.  No text that a person wrote is larger, but a device such as /dev/zero is.
LARGEST = 64 << 20


def read_file(file: Path) -> bytes:
    """What is in a file; OSError for one that cannot be read or is larger than :data:`LARGEST`."""
    with file.open("rb") as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise OSError(errno.EFBIG, f"larger than {LARGEST >> 20} MiB", str(file))
    return data


def read_lines(file: Path) -> Iterator[bytes]:
    """The lines of a file, with their ends; OSError for one that cannot be read or where a line is larger than
    :data:`LARGEST`."""
    with file.open("rb") as stream:
        while line := stream.readline(LARGEST + 1):
            if len(line) > LARGEST:
                raise OSError(errno.EFBIG, f"a line is larger than {LARGEST >> 20} MiB", str(file))
            yield line


def execute(file: Path, kind: str) -> ModuleType:
    """Execute a file as a module of its own; files of one name in two folders are two modules.

    Raises ImportError for a name that does not end in ``.py``, OSError for a file that cannot be read, and whatever the
    file raises.
    """
    path = file.resolve()
    read_file(path)  # Python itself would read for ever
    name = f"xfdfuzz_user_{kind}_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file}: expected a Python file, *.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def place_of(error: BaseException) -> str:
    """``FILE:LINE: `` of the module whose import let the error through; empty if no module was being executed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno or 1}: "
    frames = traceback.extract_tb(error.__traceback__)
    imports = [nr for nr, frame in enumerate(frames) if frame.filename.startswith("<frozen importlib")]
    executed = frames[imports[-1] + 1 :] if imports else []
    return f"{executed[0].filename}:{executed[0].lineno}: " if executed else ""


def line_of(error: BaseException, file: Path) -> int:
    """The line of the file that an error which :func:`execute` let through comes from; 1 if it has none there."""
    path = str(file.resolve())
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno or 1
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    return (lines[-1] if lines else None) or 1
