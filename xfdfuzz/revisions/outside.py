"""What is outside the tree: a Python file, or an installed package, that has a series (series.py).

Such a file defines one Series; `xfdfuzz new revision` writes one.  A package offers its own through the entry-point
group ``xfdfuzz.revisions``: each entry names a Series.
"""

from __future__ import annotations

import importlib.metadata
import sys
from abc import abstractmethod
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from xfdfuzz.extensions import execute, line_of, place_of
from xfdfuzz.revisions.queue import RevisionError
from xfdfuzz.revisions.table import NAMED, Named

if TYPE_CHECKING:
    from xfdfuzz.revisions.labels import Revision


class Outside(Named):
    """A kernel from outside the tree, with the name that it gives itself, and the one that it stands on."""

    name: str
    below: Revision

    @abstractmethod
    def check(self, place: str) -> None:
        """Raise RevisionError for patches that would change nothing; ``place`` is where it was found."""


def load_file(file: Path) -> str:
    """The name of the series that a file defines, executed once; RevisionError, with the line where it broke, if there
    is none."""
    path = file.resolve()
    known = next((name for name, about in NAMED.items() if about.file == path), None)
    if known is not None:
        return known
    series = _series_of(_execute(file), file)
    _register(series, str(file))
    series.file = path
    return series.name


def series_files() -> set[Path]:
    """Where there are functions of series from outside the tree: the files that :func:`load_file` has executed, and
    modules of installed packages, as absolute paths."""
    outside = [about for about in NAMED.values() if isinstance(about, Outside)]
    modules = [sys.modules.get(patch.cls.__module__) for about in outside for patch in about.patches]
    named = [about.file for about in outside] + [getattr(module, "__file__", None) for module in modules]
    return {Path(file).resolve() for file in named if file}


def load_entries() -> None:
    """Load what installed packages offer; RevisionError for one that cannot be used."""
    for entry in importlib.metadata.entry_points(group="xfdfuzz.revisions"):
        place = f"entry point {entry.name} = {entry.value}"
        try:
            series = entry.load()
        except (Exception, SystemExit) as error:
            raise RevisionError(f"{place_of(error)}{place}: {_described(error)}") from error
        if not isinstance(series, Outside):
            raise RevisionError(f"{place}: expected a Series, not a value of type {type(series).__name__}")
        _register(series, place)


def _register(series: Outside, place: str) -> None:
    series.check(place)
    if NAMED.setdefault(series.name, series) is not series:
        raise RevisionError(f"{place}: revision {series.name} exists already")


def _execute(file: Path) -> ModuleType:
    try:
        return execute(file, "revision")
    except OSError as error:
        raise RevisionError(f"{file}: {error.strerror}") from None
    except (Exception, SystemExit) as error:
        raise RevisionError(f"{file}:{line_of(error, file)}: {_described(error)}") from None


def _described(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return error.msg
    return str(error) if isinstance(error, RevisionError) else f"{type(error).__name__}: {error}"


def _series_of(module: ModuleType, file: Path) -> Outside:
    found = {id(value): value for value in vars(module).values() if isinstance(value, Outside)}
    if len(found) != 1:
        raise RevisionError(f"{file}:1: expected one Series in the file, found {len(found) or 'none'}")
    return next(iter(found.values()))
