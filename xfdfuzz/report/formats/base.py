"""What every format is: a listener that keeps what it has heard, and a file that is whole after each event."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path

from xfdfuzz.engines.stream.events import Event, ProgramJudged
from xfdfuzz.report.files import clear_parts, save_bytes
from xfdfuzz.report.formats.ledger import Case, Ledger, Suite
from xfdfuzz.report.formats.privacy import CURRENT

#: How long a verdict that is as expected may wait to be written, in seconds: thousands come in a row.
PAUSE = 1.0


class Format(ABC):
    """A report in a file, or on standard output without one.

    ``publish``: a format that the public reads shows what may be a vulnerability, too.  ``failure`` is why the file is
    not up to date, None if it is: a full disk ends no search.
    """

    def __init__(self, path: Path | None, publish: bool = False) -> None:
        self.path = path
        self.publish = publish
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

    def __init__(self, path: Path | None, publish: bool = False) -> None:
        super().__init__(path, publish)
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

    def shown(self) -> list[tuple[Suite, Case]]:
        """The cases that a format shows whose readers are the public, worst first."""
        return [pair for pair in self.ledger.cases() if self.publish or not pair[1].private]

    def hidden(self) -> str:
        """How many cases such a format does not show, why, and how to read them; empty for none."""
        private = [suite for suite, case in self.ledger.cases() if case.private]
        if self.publish or not private:
            return ""
        seeds = "".join(f"; {suite.label}: seed {suite.options['seed']}" for suite in _seeded(private))
        return (
            f"{len(private)} finding{'' if len(private) == 1 else 's'} not shown, which may be a vulnerability of "
            f"{CURRENT}. SECURITY.md says what to do; repeat the run where nobody else reads to see more, "
            f"or publish it with --publish{seeds}"
        )

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


def _seeded(suites: list[Suite]) -> list[Suite]:
    """Each once, of those whose search has a seed."""
    return [suite for suite in {suite.label: suite for suite in suites}.values() if "seed" in suite.options]
