"""Python files from outside the tree: somebody's series, or invariants."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType


def execute(file: Path, kind: str) -> ModuleType:
    """Execute a file as a module of its own; files of one name in two folders are two modules.

    Raises ImportError for a name that does not end in ``.py``, OSError for a file that cannot be read, and whatever the
    file raises.
    """
    path = file.resolve()
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


def line_of(error: BaseException, file: Path) -> int:
    """The line of the file that an error which :func:`execute` let through comes from; 1 if it has none there."""
    path = str(file.resolve())
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno or 1
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    return (lines[-1] if lines else None) or 1
