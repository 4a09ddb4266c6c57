"""What is known of one revision before a search begins, so that it is no news."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from xfdfuzz.engines.stream.events import Expired, Gone, KnownMet, Listener
from xfdfuzz.invariants.vocabulary import Violation


class Absent(NamedTuple):
    """What was known and did not show: its bucket, where its program stands, and what was said of it."""

    bucket: str
    program: str
    reason: str = ""


class Overdue(NamedTuple):
    """What is known for longer than it was to be: its bucket, the day on which that ended, what was said of it."""

    bucket: str
    since: str
    reason: str = ""


@dataclass(frozen=True)
class Known:
    """What is no news.

    ``reasons`` has the known buckets, with what is said of each, and ``keys`` what hides a violation: its bucket or, of
    what was ``replayed`` on this revision, its kind.  Then a bucket in another shape is news, and what the search finds
    is known by its kind, too.
    """

    reasons: Mapping[str, str] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    gone: tuple[Absent, ...] = ()
    expired: tuple[Overdue, ...] = ()
    replayed: bool = False

    @classmethod
    def of(cls, known: Known | Collection[str]) -> Known:
        """Of buckets: they are known in every shape."""
        return known if isinstance(known, Known) else cls(dict.fromkeys(known, ""), frozenset(known))

    def __len__(self) -> int:
        return len(self.reasons)

    def hides(self, violation: Violation) -> bool:
        """Whether it is no news."""
        return not self.keys.isdisjoint((violation.bucket, violation.kind))

    def key(self, violation: Violation) -> str:
        """What it is known by once it was found."""
        return violation.kind if self.replayed else violation.bucket

    def tell(self, label: str, tell: Listener) -> None:
        """Say what the replay has come to."""
        for absent in self.gone:
            tell(Gone(label, *absent))
        for bucket, reason in self.reasons.items() if self.replayed else ():
            tell(KnownMet(label, bucket, reason))
        for overdue in self.expired:
            tell(Expired(label, *overdue))


#: Where there is none.
NOTHING = Known()
