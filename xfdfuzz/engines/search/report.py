"""What a whole search came to; nothing here imports an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Self, TypeVar

from xfdfuzz.engines.judge.confirm import without_names
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.reach import Reach
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.engines.stream.events import Outcome
from xfdfuzz.engines.stream.known import NOTHING, Known
from xfdfuzz.revisions import Revision

F = TypeVar("F", bound=Outcome)


@dataclass(frozen=True)
class Report(Generic[F]):
    """What a search of one revision, or of two held against each other, came to.

    ``doubts``: a line for each reason not to rely on what was found, because a fresh process did not confirm it.
    ``known`` is what was no news, ``met`` the buckets of it that the search came across.
    ``withheld``: how many findings are left out here, because they are not for everybody.
    ``roots``: for each of them that is a consequence of another one, that one (roots.py).  ``reach``: how far it came
    into what was changed; None where nothing was.
    """

    revisions: tuple[Revision, ...]
    plan: Plan
    stats: Stats
    found: tuple[F, ...]
    interrupted: bool
    doubts: tuple[str, ...] = ()
    known: Known = NOTHING
    met: frozenset[str] = frozenset()
    withheld: int = 0
    roots: Mapping[F, F] = field(default_factory=dict)
    reach: Reach | None = None

    @property
    def label(self) -> str:
        """What was searched."""
        return label_of(self.revisions)

    def with_each(self, change: Callable[[F], F]) -> Self:
        """The same with everything that was found changed, such as saved."""
        changed = {one: change(one) for one in self.found}
        roots = {changed[one]: changed[root] for one, root in self.roots.items()}
        return replace(self, found=tuple(changed[one] for one in self.found), roots=roots)

    def without(self, private: Callable[[F], bool]) -> Self:
        """The same without what is private, and without its name in the doubts."""
        hidden = [one for one in self.found if private(one)]
        rest = tuple(one for one in self.found if one not in hidden)
        doubts = without_names(self.doubts, [one.bucket for one in hidden])
        roots = {one: root for one, root in self.roots.items() if one not in hidden and root not in hidden}
        return replace(self, found=rest, doubts=doubts, withheld=len(hidden), roots=roots)


def label_of(revisions: Sequence[Revision]) -> str:
    """``v7.3``; of two that are held against each other ``v5.17 | v5.18``."""
    return " | ".join(revision.label for revision in revisions)
