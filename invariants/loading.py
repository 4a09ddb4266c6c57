"""Where invariants come from: the modules of this folder, entry points of installed packages, and files."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import xfdfuzz.invariants as package
from xfdfuzz.extensions import execute, place_of
from xfdfuzz.invariants.vocabulary import INVARIANTS, Invariant, InvariantError

#: Every file that load_file() has executed, by its resolved path.
_FILES: dict[Path, ModuleType] = {}


def load(files: Iterable[Path] = ()) -> dict[str, Invariant]:
    """Import the modules of this folder, the entry points of installed packages and the given files.

    Raises OSError for a file that cannot be read, whatever a file raises when it is executed, and InvariantError for a
    file without an invariant and for a package that cannot be loaded.
    """
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for entry in importlib.metadata.entry_points(group="xfdfuzz.invariants"):
        _load_entry(entry)
    for file in files:
        load_file(file)
    return INVARIANTS


@functools.cache
def load_once() -> None:
    """:func:`load`, unless this process has done so: looking for entry points takes longer than judging a program."""
    load()


def _load_entry(entry: importlib.metadata.EntryPoint) -> None:
    try:
        entry.load()
    except (Exception, SystemExit) as error:
        package_name = f" of the package {entry.dist.name}" if entry.dist else ""
        raise InvariantError(
            f"{place_of(error)}entry point {entry.name} = {entry.value}{package_name}: {type(error).__name__}: {error}"
        ) from error


def load_file(file: Path) -> None:
    """Execute a file that defines invariants; :func:`loaded_files` remembers it."""
    before = dict(INVARIANTS)
    module = execute(file, "invariants")
    # executed again, it need not say again what it imports
    if file.resolve() not in _FILES and all(before.get(name) is known for name, known in INVARIANTS.items()):
        raise InvariantError(f"{file}:1: expected an @invariant in the file, found none")
    _FILES[file.resolve()] = module


def users_files() -> set[Path]:
    """Where there are invariants from outside the tree: the files that :func:`load_file` has executed, and modules of
    installed packages, as absolute paths."""
    outside = [inv.predicate for inv in INVARIANTS.values() if not _of_the_tree(inv)]
    return {*_FILES, *(Path(predicate.__code__.co_filename).resolve() for predicate in outside)}


def _of_the_tree(inv: Invariant) -> bool:
    code = getattr(inv.predicate, "__code__", None)
    return code is None or str(inv.predicate.__module__).startswith(f"{package.__name__}.")


def loaded_files() -> list[Path]:
    """The files that :func:`load_file` has executed, in that order, as absolute paths."""
    return list(_FILES)
