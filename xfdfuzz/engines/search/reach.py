"""How far a search came into what a change is about: its functions, its lines, and which of them made a difference."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import FunctionType
from typing import NamedTuple

from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.engines.search.watched import Place, Statement, place_of, statements
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.revisions.differing import Differing, differing


class Line(NamedTuple):
    """A statement of a function."""

    function: str
    statement: Statement


@dataclass(frozen=True)
class Reach:
    """``calls`` is how often each function ran that differs from the kernel ``base``, ``unexecuted`` which of their
    lines never did, ``idle`` which were executed by no program that shows a difference.

    ``left_out`` are lines of the base that the second kernel lacks, with none in their place: where that one alone is
    executed, nobody can tell whether they would have mattered.  ``partings`` is how often the two kernels came into
    different states, seen by a user or not; None where only one was executed.
    """

    base: str
    calls: Mapping[str, int]
    unexecuted: tuple[Line, ...]
    idle: tuple[Line, ...] = ()
    left_out: tuple[Line, ...] = ()
    partings: int | None = None

    @property
    def never(self) -> list[str]:
        """The functions that never ran."""
        return [name for name, count in self.calls.items() if not count]


@dataclass(frozen=True)
class Change:
    """What differs between two kernels; ``compared``: both are executed, not the second one alone."""

    first: type[Kernel]
    second: type[Kernel]
    compared: bool = False
    functions: tuple[Differing, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "functions", differing(self.first, self.second))

    @property
    def watched(self) -> list[FunctionType]:
        """The definitions to watch while it is searched."""
        return [
            definition
            for one in self.functions
            for definition in (*self._called(one), *one.added, *(one.removed if self.compared else ()))
        ]

    def reach(self, stats: Stats, different: Set[Place] = frozenset()) -> Reach:
        """How far a search came; ``different`` are the lines that programs execute which show a difference."""
        calls = {
            one.name: max(stats.calls[place] for place in places)
            for one in self.functions
            if (places := [place for place in map(place_of, self._called(one)) if place in stats.calls])
        }
        lines = [line for one in self.functions if one.name in calls for line in self._lines(one)]
        executed = [line for line in lines if line.statement.place in stats.lines]
        idle = [line for line in executed if self.compared and line.statement.place not in different]
        unexecuted = tuple(line for line in lines if line not in executed)
        left_out = () if self.compared else tuple(line for one in self.functions for line in self._left_out(one))
        partings = stats.partings if self.compared else None
        return Reach(self.first.revision, calls, unexecuted, tuple(idle), left_out, partings)

    def _called(self, one: Differing) -> Sequence[FunctionType]:
        """What a call executes first."""
        return (*(one.first[:1] if self.compared else ()), *one.second[:1])

    def _lines(self, one: Differing) -> Iterator[Line]:
        """The lines of the second kernel's own definitions; where both are executed, those that differ."""
        if not self.compared:
            yield from (Line(one.name, line) for each in one.added for line in statements(each))
            return
        for _, removed, added in _changes(one):
            yield from (Line(one.name, line) for line in (*removed, *added))

    def _left_out(self, one: Differing) -> Iterator[Line]:
        for tag, removed, _ in _changes(one):
            if tag == "delete" and one.added:
                yield from (Line(one.name, line) for line in removed)


def _changes(one: Differing) -> Iterator[tuple[str, Sequence[Statement], Sequence[Statement]]]:
    """What was done to a function's statements: the word of difflib, those that are gone and those that are new."""
    removed, added = ([line for each in part for line in statements(each)] for part in (one.removed, one.added))
    matcher = difflib.SequenceMatcher(None, [line.text for line in removed], [line.text for line in added], False)
    for tag, begin, end, start, stop in matcher.get_opcodes():
        if tag != "equal":
            yield tag, removed[begin:end], added[start:stop]
