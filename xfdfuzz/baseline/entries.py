"""A baseline: what is known to be broken, each with a program that shows it, and what of it shows on a revision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property

from xfdfuzz.engines.judge.verdict import judge, revisions_for
from xfdfuzz.engines.stream.known import Absent, Known, Overdue
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision, concerns, names, selects


class BaselineError(Exception):
    """A baseline that cannot be used; as text it is one line with its place."""


@dataclass(frozen=True)
class Entry:
    """One bucket that is known on some revisions, as in `expect:` lines, and a program that shows it.

    ``place`` is where it stands, FILE:LINE.  ``expires`` is the last day on which it may show.
    """

    place: str
    program: Program
    bucket: str
    revisions: str = "*"
    reason: str = ""
    first_seen: date | None = None
    last_seen: date | None = None
    expires: date | None = None

    def expired(self, today: date) -> bool:
        """Whether it is to be gone."""
        return self.expires is not None and self.expires < today

    @cached_property
    def named(self) -> list[str]:
        """The named revisions that it is about."""
        return [name for name in names() if selects(self.revisions, name)]

    def concerns(self, revision: Revision) -> bool:
        """Whether it is about the revision, or about one that the revision stands on."""
        return concerns(self.revisions, revision.name)

    def buckets(self, kinds: Mapping[str, str]) -> list[str]:
        """What it says is known, of the kinds that its program shows."""
        return [self.bucket] if self.bucket in kinds.values() else []

    def missing(self, kinds: Mapping[str, str], revision: Revision) -> list[str]:
        """What it says is known, and its program does not show."""
        return [] if self.bucket in kinds.values() else [self.bucket]


class LooseProgram(Entry):
    """A program outside of any list: all that it violates is known, and it is gone if its `expect:` lines say so.

    What they name are invariants; ``bucket`` is empty.
    """

    def concerns(self, revision: Revision) -> bool:
        """It is judged on every revision."""
        return True

    def buckets(self, kinds: Mapping[str, str]) -> list[str]:
        """All of them."""
        return list(dict.fromkeys(kinds.values()))

    def missing(self, kinds: Mapping[str, str], revision: Revision) -> list[str]:
        """The invariants that it is expected to break on this very revision, and does not."""
        broken = {bucket.partition("@")[0] for bucket in kinds.values()}
        expected = (e for e in self.program.expect if selects(e.revisions, revision.name))
        return list(dict.fromkeys(name for e in expected for name in e.invariants if name not in broken))

    @cached_property
    def named(self) -> list[str]:
        """Those of which its `expect:` lines say that it breaks something."""
        lines = [e.revisions for e in self.program.expect if e.invariants]
        return [name for name in names() if any(selects(spec, name) for spec in lines)]


def kinds_of(program: Program, revision: Revision) -> dict[str, str]:
    """What the program violates on the revision, as it is: kind -> bucket."""
    return {one.kind: one.bucket for one in judge(program, revision, expectations=False).violations}


@dataclass(frozen=True)
class Baseline:
    """All entries of some files, in order; ``sources`` names the files, ``absent`` those that do not exist yet or have
    nothing in them."""

    entries: tuple[Entry, ...] = ()
    sources: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def known_on(self, revision: Revision, today: date) -> Known:
        """What of it shows on the revision, what is gone and what has expired."""
        found = _Replayed(today)
        for entry in self.entries:
            if entry.concerns(revision):
                found.add(entry, kinds_of(entry.program, revision), revision)
        return found.known()

    def __add__(self, other: Baseline) -> Baseline:
        entries = tuple(dict.fromkeys(self.entries + other.entries))  # a file may be named twice
        return Baseline(entries, self.sources + other.sources, self.absent + other.absent)


def _is_meant(program: Program, revision: Revision) -> bool:
    """Whether the patches that the program names are those of the revision."""
    if not (program.apply or program.revert):
        return True
    return revisions_for(program, [revision.name])[0].label == revision.label


@dataclass
class _Replayed:
    """What replaying the entries has come to so far."""

    today: date
    reasons: dict[str, str] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    gone: dict[Absent, None] = field(default_factory=dict)
    expired: dict[str, Overdue] = field(default_factory=dict)

    def add(self, entry: Entry, kinds: Mapping[str, str], revision: Revision) -> None:
        shown = entry.buckets(kinds)
        self.keys.update(kind for kind, bucket in kinds.items() if bucket in shown)
        for bucket in shown:
            self.reasons[bucket] = self.reasons.get(bucket) or entry.reason
            if entry.expires is not None and entry.expired(self.today):
                self.expired.setdefault(bucket, Overdue(bucket, entry.expires.isoformat(), entry.reason))
        for bucket in entry.missing(kinds, revision) if _is_meant(entry.program, revision) else ():
            self.gone[Absent(bucket, entry.place, entry.reason)] = None

    def known(self) -> Known:
        return Known(self.reasons, frozenset(self.keys), tuple(self.gone), tuple(self.expired.values()), replayed=True)


# -- an entry on all its revisions -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Looked:
    """An entry on the revisions that it is about: the kinds of its bucket in which it shows on each, empty: gone."""

    entry: Entry
    shapes: Mapping[str, frozenset[str]]

    @property
    def shows(self) -> list[str]:
        """Where it does."""
        return [name for name, shapes in self.shapes.items() if shapes]

    @property
    def gone(self) -> list[str]:
        """Where it does not."""
        return [name for name, shapes in self.shapes.items() if not shapes]

    def covers(self, other: Looked) -> bool:
        """Whether the other one says nothing that this one does not."""
        return self.entry.bucket == other.entry.bucket and all(
            name in self.shapes and shapes <= self.shapes[name] for name, shapes in other.shapes.items()
        )


def look(entry: Entry, only: Sequence[Revision] = ()) -> Looked:
    """Replay an entry on all its revisions, with the patches that its program names, or on those of ``only`` that it
    concerns.  Raises RevisionError where the patches do not fit."""
    if only:
        revisions = [revision for revision in only if entry.concerns(revision)]
    else:
        revisions = revisions_for(entry.program, entry.named) if entry.named else []
    return Looked(entry, {revision.label: _shapes(entry, revision) for revision in revisions})


def _shapes(entry: Entry, revision: Revision) -> frozenset[str]:
    kinds = kinds_of(entry.program, revision)
    if entry.missing(kinds, revision):
        return frozenset()
    shown = entry.buckets(kinds)
    return frozenset(kind for kind, bucket in kinds.items() if bucket in shown)


def superfluous(looked: Iterable[Looked]) -> Iterator[tuple[int, str]]:
    """The places of entries that can go, and why: gone everywhere, or said by one that stays."""
    kept: list[Looked] = []
    for number, one in enumerate(looked):
        first = next((other for other in kept if other.covers(one)), None)
        if not one.shows:
            yield number, "does not show on any of its revisions" if one.shapes else "is about no revision"
        elif first is not None:
            yield number, f"says nothing that {first.entry.place} does not"
        else:
            kept.append(one)
