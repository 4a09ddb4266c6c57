"""The events of a search, in the order in which they come; all reports are made from them.

An engine gives each event to one listener, at once: a finding before the search goes on, so that nothing that was found
is lost if the process dies at its next step.  ``label`` says which search it is of where a command makes several
(``v7.3``, ``v5.17 | v5.18``, ``amx-v1 tiny``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision


class Outcome(Protocol):
    """What a search hands out for each discovery: a finding, or a discrepancy."""

    @property
    def bucket(self) -> str:
        """What makes it the same again."""

    @property
    def program(self) -> Program:
        """The plainest program that shows it."""

    @property
    def file(self) -> Path | None:
        """Where it was saved, None if it was not."""


@dataclass(frozen=True)
class Began:
    """A search begins; ``options`` are what it was asked for, such as its seed; ``known`` counts known buckets."""

    label: str
    revisions: tuple[Revision, ...]
    options: Mapping[str, Any]
    known: int = 0


@dataclass(frozen=True)
class Replayed:
    """The search begins with so many programs from databases; ``skipped`` values there were none that can be read."""

    label: str
    programs: int
    skipped: int


@dataclass(frozen=True)
class DatabaseLost:
    """A database failed, as ``reason`` says in a line; the search goes on without it."""

    label: str
    reason: str


@dataclass(frozen=True)
class Progressed:
    """How far the search has come, several times a second: ``counts`` by name, such as examples, steps and pairs (of op
    and result), or depth, states, transitions and waiting (states)."""

    label: str
    seconds: float
    counts: Mapping[str, int]
    found: int


@dataclass(frozen=True)
class Found:
    """Something new, with the plainest program that shows it.  A saved one has its file when a report gets it."""

    label: str
    outcome: Outcome


@dataclass(frozen=True)
class Withheld:
    """Something was found that is not shown here, because it may be a vulnerability of a current kernel.

    ``place`` is the directory that it was saved in, empty where it was not.
    """

    label: str
    place: str


@dataclass(frozen=True)
class KnownMet:
    """A bucket that was known before showed: when its program was replayed, or for the first time in this search.

    ``reason`` is what its baseline says of it.
    """

    label: str
    bucket: str
    reason: str = ""


@dataclass(frozen=True)
class Gone:
    """A bucket that was known before did not show when its ``program``, by its place, was replayed."""

    label: str
    bucket: str
    program: str
    reason: str = ""


@dataclass(frozen=True)
class Expired:
    """A bucket that is known showed although it was to be gone by the date ``since``, as 2027-01-31."""

    label: str
    bucket: str
    since: str
    reason: str = ""


@dataclass(frozen=True)
class Confirmed:
    """A fresh process saw the same bucket."""

    label: str
    bucket: str


@dataclass(frozen=True)
class Doubted:
    """A fresh process did not confirm the bucket, or could not be asked, as ``reason`` says in a line."""

    label: str
    bucket: str
    reason: str


@dataclass(frozen=True)
class WorkerLost:
    """A process died, and with it what it had not reported; another one has its place.

    ``seed`` is what it began to search with; None where nothing is drawn and another process does the same work again.
    """

    label: str
    seed: int | None
    reason: str


@dataclass(frozen=True)
class Waiting:
    """Somebody ended the search; what the workers have not reported yet is waited for, a few seconds at most."""

    label: str


@dataclass(frozen=True)
class Stuck:
    """A user's function did not return; the search ends with that.

    ``reason`` names it and its place in a line; ``program`` is what leads there, None where nobody knows it;
    ``file`` is where it was saved.
    """

    label: str
    reason: str
    program: Program | None
    file: Path | None = None


@dataclass(frozen=True)
class Ended:
    """The search is over; ``result`` is what it came to, ``interrupted`` whether somebody ended it."""

    label: str
    result: Any
    interrupted: bool


@dataclass(frozen=True)
class ProgramJudged:
    """A program was held against what is expected of it, on the revision with that label.

    ``ok`` is None where there was nothing to judge; ``text`` says in a line what came out, ``trace`` how it ran, where
    that is shown; ``severity`` is the worst of what it broke, empty for nothing.
    ``name`` tells the programs of one file apart; empty where it has one.
    """

    label: str
    file: str
    ok: bool | None
    text: str
    trace: str = ""
    severity: str = ""
    name: str = ""


Event: TypeAlias = (
    Began
    | Replayed
    | DatabaseLost
    | Progressed
    | Found
    | Withheld
    | KnownMet
    | Gone
    | Expired
    | Confirmed
    | Doubted
    | WorkerLost
    | Waiting
    | Stuck
    | Ended
    | ProgramJudged
)
Listener: TypeAlias = Callable[[Event], None]


def unheard(event: Event) -> None:
    """The listener of a search that nobody listens to."""
