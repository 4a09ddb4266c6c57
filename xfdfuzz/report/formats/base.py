"""What every format is: a listener that keeps what it has heard, and a file that is whole after each event."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from enum import Enum
from pathlib import Path
from typing import ClassVar

from xfdfuzz.engines.stream.events import Event, ProgramJudged
from xfdfuzz.report.files import clear_parts, save_bytes
from xfdfuzz.report.formats.ledger import Ledger

#: How long a verdict that is as expected may wait to be written, in seconds: thousands come in a row.
PAUSE = 1.0


class Audience(Enum):
    """Who reads a report: all who see the project, those who get the file, or those who may write to the project."""

    PUBLIC, ASKED, TRUSTED = range(3)


class Format(ABC):
    """A report in a file, or on standard output without one.

    ``failure`` is why the file is not up to date, None if it is: a full disk ends no search.
    """

    #: Who reads it.
    audience: ClassVar[Audience] = Audience.ASKED

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.failure: OSError | None = None

    @abstractmethod
    def begin(self) -> None:
        """Write the report of nothing, so that none of an earlier run can be taken for this one's; raises OSError."""

    @abstractmethod
    def take(self, event: Event) -> None:
        """Keep what it says and bring the file up to date."""

    @abstractmethod
    def close(self) -> None:
        """Nothing more will come."""


class Document(Format):
    """A report that is written anew after each event that changes it, and printed when it is closed.

    Only verdicts that are as expected may wait for a moment.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__(path)
        self.ledger = Ledger()
        self._stale = False
        self._due = 0.0

    def begin(self) -> None:
        """Write the empty document, and clear what a killed run has left half written of it."""
        if self.path:
            clear_parts(self.path.parent, self.path.name)
            self._save(self.path)

    def take(self, event: Event) -> None:
        """Note it, and write the document if it says anything new."""
        self._stale |= self.ledger.take(event)
        patient = isinstance(event, ProgramJudged) and event.ok is not False
        if self._stale and not (patient and time.monotonic() < self._due):
            self._update()

    def close(self) -> None:
        """Write what has waited or could not be written, and print what has no file."""
        if self._stale:
            self._update()
        if self.path is None:
            print(self.text(), end="", flush=True)

    @abstractmethod
    def text(self) -> str:
        """The whole report so far; ends with a newline unless it is empty."""

    def _update(self) -> None:
        if self.path is None:
            return
        try:
            self._save(self.path)
            self._stale, self.failure = False, None
        except OSError as error:
            self.failure = error
        self._due = time.monotonic() + PAUSE

    def _save(self, path: Path) -> None:
        # a message of a user's invariant may hold anything, also what UTF-8 has no bytes for
        save_bytes(path.name, lambda file: file.write(self.text().encode(errors="replace")), path.parent)
