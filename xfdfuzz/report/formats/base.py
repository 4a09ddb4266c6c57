"""What every format is: a listener that keeps what it has heard, and a file that is whole after each event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from xfdfuzz.engines.stream.events import Event
from xfdfuzz.report.files import save_bytes
from xfdfuzz.report.formats.ledger import Ledger


class Format(ABC):
    """A report in a file, or on standard output without one, where it is printed when it is closed.

    ``publish``: a format that the public reads shows what may be a vulnerability, too.  ``failure`` is why the file is
    not up to date, None if it is.
    """

    def __init__(self, path: Path | None, publish: bool = False) -> None:
        self.path = path
        self.publish = publish
        self.failure: OSError | None = None
        self.ledger = Ledger()

    def begin(self) -> None:
        """Write the report of nothing, so that none of an earlier run can be taken for this one's; raises OSError."""
        if self.path:
            self._save(self.path)

    def take(self, event: Event) -> None:
        """Keep what it says and bring the file up to date.  A full disk ends no search: see ``failure``."""
        if self.ledger.take(event):
            self._update()

    def close(self) -> None:
        """Nothing more will come."""
        if self.failure:
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
            self.failure = None
        except OSError as error:
            self.failure = error

    def _save(self, path: Path) -> None:
        # a message of a user's invariant may hold anything, also what UTF-8 has no bytes for
        save_bytes(path.name, lambda file: file.write(self.text().encode(errors="replace")), path.parent)
