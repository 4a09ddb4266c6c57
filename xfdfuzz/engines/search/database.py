"""Programs that outlive a search, in a database of Hypothesis' that several searches may share.

They are kept as texts: what Hypothesis itself keeps, the choices that it made, means something else as soon as anything
changes that is drawn.  Whoever writes into the database can do no more than have programs executed on the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from hypothesis.database import ExampleDatabase
from hypothesis.errors import HypothesisWarning

from xfdfuzz.engines.search.report import label_of
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import ProgramError, format_program, parse
from xfdfuzz.revisions import Revision

T = TypeVar("T")

#: Whether a program of a search of those revisions may be kept where others read.
Rule = Callable[[Program, Sequence[Revision]], bool]

#: What is kept under another one is not looked at.
_VERSION = 1
#: Bytes of the longest text that is read; a search's own are a hundredth of it.
_LONGEST = 200_000


class Database:
    """A database that is done without from its first failure on: a server that is gone ends no search.

    ``name`` is what messages call it, ``takes`` says what may be kept there.
    """

    def __init__(self, name: str, database: ExampleDatabase, takes: Rule = lambda program, revisions: True) -> None:
        self.name, self.takes = name, takes
        self._database: ExampleDatabase | None = database

    def fetch(self, key: bytes, on_lost: Callable[[str], None]) -> list[bytes]:
        """All values, sorted; none from a database that fails, of which ``on_lost`` is told in a line."""
        return sorted(self._tried(lambda database: [*database.fetch(key)], on_lost) or ())

    def save(self, key: bytes, value: bytes, on_lost: Callable[[str], None]) -> None:
        """Keep a value; ``on_lost`` as for :meth:`fetch`."""
        self._tried(lambda database: database.save(key, value), on_lost)

    def delete(self, key: bytes, value: bytes, on_lost: Callable[[str], None]) -> None:
        """Forget a value; ``on_lost`` as for :meth:`fetch`."""
        self._tried(lambda database: database.delete(key, value), on_lost)

    def _tried(self, use: Callable[[ExampleDatabase], T], on_lost: Callable[[str], None]) -> T | None:
        """What ``use`` gives.  Hypothesis' own databases tell some failures by warnings, go on and give nothing."""
        if self._database is None:
            return None
        result, failures = None, []
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                result = use(self._database)
            except Exception as error:  # of whichever library
                failures = [f"{type(error).__name__}: {error}"]
        failures += [str(told.message) for told in warned if issubclass(told.category, HypothesisWarning)]
        if failures:
            self._database = None
            on_lost(" ".join(f"{self.name}: {' '.join(failures)}; going on without it".split()))
        return result


class ProgramFiles(ExampleDatabase):
    """The programs of a directory, for a search of whatever; nothing is kept there."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def fetch(self, key: bytes) -> Iterator[bytes]:
        """The texts of all ``*.xfd``; raises OSError."""
        for path in sorted(self._directory.glob("*.xfd")):
            yield path.read_bytes()

    def save(self, key: bytes, value: bytes) -> None:
        """Do nothing."""

    def delete(self, key: bytes, value: bytes) -> None:
        """Do nothing."""


class Kept:
    """The programs of one search, by its label, in all of its databases."""

    def __init__(
        self, databases: Sequence[Database], revisions: Sequence[Revision], on_lost: Callable[[str], None]
    ) -> None:
        self._databases, self._revisions = databases, revisions
        self._key = f"xfdfuzz/{_VERSION}/{label_of(revisions)}".encode()
        self._on_lost = on_lost
        self._texts: dict[Program, list[bytes]] = {}
        #: How many values were no program.
        self.skipped = 0

    def programs(self) -> list[Program]:
        """Those that can be read, each once, always in the same order."""
        values = {value for database in self._databases for value in database.fetch(self._key, self._on_lost)}
        self._texts = {}
        self.skipped = 0
        for value in sorted(values):
            program = _read(value)
            if program is None:
                self.skipped += 1
            else:
                self._texts.setdefault(program, []).append(value)
        return list(self._texts)

    def misplaced(self) -> list[Program]:
        """Those of :meth:`programs` that would not be kept now."""
        return [
            program
            for program in self._texts
            if not all(database.takes(program, self._revisions) for database in self._databases)
        ]

    def drop(self, program: Program) -> None:
        """Forget one of :meth:`programs`."""
        for value in self._texts.pop(program):
            for database in self._databases:
                database.delete(self._key, value, self._on_lost)

    def keep(self, program: Program) -> None:
        """Keep its machine and ops where it may be."""
        text = format_program(Program(program.machine, program.ops))
        for database in self._databases:
            if database.takes(program, self._revisions):
                database.save(self._key, text.encode(), self._on_lost)


def _read(value: bytes) -> Program | None:
    """The machine and ops of a program; None for anything else, such as one of a version that had other ops."""
    if len(value) > _LONGEST:
        return None
    try:
        program = parse(value.decode())
    except (ProgramError, UnicodeDecodeError):
        return None
    return Program(program.machine, program.ops)
