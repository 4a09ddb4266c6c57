"""Series from outside the tree: a Python file, or an installed package, that puts patches on a named revision.

Such a file defines one :class:`Series` and declares its patches with it; `xfdfuzz new revision` writes one.  A package
offers its own through the entry-point group ``xfdfuzz.revisions``: each entry names a Series.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from xfdfuzz.kernel.base import KernelBase
from xfdfuzz.revisions.queue import PATCHES, Patch, RevisionError, check_applies

#: Every series from outside by its name, and those that came from a file by its resolved path.
OUTSIDE: dict[str, Series] = {}
_FILES: dict[Path, Series] = {}

_NAME = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
_C = TypeVar("_C", bound=type[KernelBase])


class Series:
    """A revision from outside: patches, in the order of their declaration, on top of the revision ``base``.

    Raises RevisionError for a name or a base that cannot be used.
    """

    def __init__(self, name: str, *, base: str, title: str, source: str = "") -> None:
        from xfdfuzz.revisions import resolve  # the package imports this module

        if not _NAME.fullmatch(name):
            raise RevisionError(f"revision {name}: expected lower-case words joined by -, such as my-series-v2")
        self.name = name
        self.title = title
        self.source = source
        self.base = resolve(base)
        self.patches: list[Patch] = []
        self.file: Path | None = None

    def patch(self, commit: str, title: str, fixes: tuple[str, ...] = ()) -> Callable[[_C], _C]:
        """Declare the next patch: a class that replaces just the functions that the patch changes.

        It subclasses the class whose methods it replaces; ``commit`` is what --revert names it by.
        """

        def declare(cls: _C) -> _C:
            if len(commit) < 6 or commit in PATCHES or any(commit == p.commit for p in self.patches):
                raise RevisionError(f"patch {commit}: expected a name of its own, of at least 6 characters")
            patch = Patch(commit, title, self.name, fixes, (), cls)
            check_applies(self.base.kernel, patch)
            self.patches.append(patch)
            return cls

        return declare


def load_file(file: Path) -> Series:
    """The series that a file defines, executed once; RevisionError, with the line where it broke, if there is none."""
    path = file.resolve()
    if path not in _FILES:
        series = _series_of(_execute(file, path), file)
        _register(series, str(file))
        series.file = path
        _FILES[path] = series
    return _FILES[path]


def loaded_series() -> list[Path]:
    """The files that :func:`load_file` has executed, as absolute paths."""
    return list(_FILES)


def load_entries() -> None:
    """Load what installed packages offer; RevisionError for one that cannot be used."""
    for entry in importlib.metadata.entry_points(group="xfdfuzz.revisions"):
        place = f"entry point {entry.name} = {entry.value}"
        try:
            series = entry.load()
        except (Exception, SystemExit) as error:
            raise RevisionError(f"{place}: {_described(error)}") from error
        if not isinstance(series, Series):
            raise RevisionError(f"{place}: expected a Series, not a value of type {type(series).__name__}")
        _register(series, place)


def _register(series: Series, place: str) -> None:
    from xfdfuzz.revisions import names  # the package imports this module

    if series.name in names() and OUTSIDE.get(series.name) is not series:
        raise RevisionError(f"{place}: revision {series.name} exists already")
    OUTSIDE[series.name] = series


def _execute(file: Path, path: Path) -> ModuleType:
    # files of one name in two folders are two modules
    name = f"xfdfuzz_user_revision_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RevisionError(f"{file}: expected a Python file, *.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except OSError as error:
        raise RevisionError(f"{file}: {error.strerror}") from None
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise RevisionError(f"{file}:{_line(error, path)}: {_described(error)}") from None
    return module


def _line(error: BaseException, path: Path) -> int:
    """The line of the file that the error comes from."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 1
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return (lines[-1] if lines else None) or 1


def _described(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return error.msg
    return str(error) if isinstance(error, RevisionError) else f"{type(error).__name__}: {error}"


def _series_of(module: ModuleType, file: Path) -> Series:
    found = {id(value): value for value in vars(module).values() if isinstance(value, Series)}
    if len(found) != 1:
        raise RevisionError(f"{file}:1: expected one Series in the file, found {len(found) or 'none'}")
    return next(iter(found.values()))
