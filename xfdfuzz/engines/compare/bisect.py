"""Along a patch queue, or the list of posted series: what introduces a violation, and what cures it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from xfdfuzz.engines.judge.verdict import judge, revisions_for
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Patch, Revision, RevisionError, posted_between, queue_between, with_stack


@dataclass(frozen=True)
class Point:
    """A kernel on the way: the revision or the last patch that it has, and what the program breaks there."""

    label: str
    patch: Patch | None
    broken: frozenset[str]


@dataclass(frozen=True)
class Bisection:
    """What was found out about one invariant.

    ``change`` is ``introduces`` or ``cures``, and ``at`` the point that did it; both are empty where the ends agree.
    ``verified`` says how that was checked; it is empty if it could not be, and then ``doubts`` say why.
    """

    invariant: str
    change: str = ""
    at: Point | None = None
    verified: str = ""
    doubts: tuple[str, ...] = ()


@dataclass
class Line:
    """The kernels from one revision to another, made and judged when they are asked for.

    A patch that is None stands for a whole revision, a posted series.
    """

    program: Program
    labels: Sequence[str]
    patches: Sequence[Patch | None]
    first: Revision
    last: Revision
    judged: dict[int, Point] = field(default_factory=dict)

    def point(self, number: int) -> Point:
        """Judge the program there."""
        if number not in self.judged:
            broken = _broken(self.program, self._revision(number))
            self.judged[number] = Point(self.labels[number], self.patches[number], broken)
        return self.judged[number]

    def _revision(self, number: int) -> Revision:
        if number in (0, len(self.labels) - 1):
            return self.first if number == 0 else self.last
        if self.posted:
            return revisions_for(self.program, [self.labels[number]])[0]
        # a series from outside knows its own patches
        name = self.last.name if self.last.file else self.first.name
        return with_stack(name, [*self.first.patches, *(p for p in self.patches[1 : number + 1] if p)])

    @property
    def posted(self) -> bool:
        """Whether it goes over posted series."""
        return not any(self.patches)

    @property
    def ends(self) -> tuple[Point, Point]:
        """The first and the last kernel."""
        return self.point(0), self.point(len(self.labels) - 1)

    @property
    def tried(self) -> list[Point]:
        """What was judged so far, in the order of the line."""
        return [self.judged[number] for number in sorted(self.judged)]

    def broken_between(self) -> frozenset[str]:
        """What is broken on the way and not at the ends; this judges every point."""
        everywhere = frozenset().union(*(self.point(number).broken for number in range(len(self.labels))))
        return everywhere.difference(*(end.broken for end in self.ends))

    def every_change(self, invariant: str) -> Iterator[Point]:
        """Every point at which the verdict on one invariant is another than before; this judges them all."""
        for number in range(1, len(self.labels)):
            if (invariant in self.point(number).broken) != (invariant in self.point(number - 1).broken):
                yield self.point(number)


def line_between(program: Program, first: str, last: str) -> Line:
    """The line from ``first`` to ``last``, with the patches that the program's header applies and reverts.

    Raises RevisionError for an unknown revision, and where neither a queue of patches nor the list of posted series
    leads from one to the other.
    """
    ((one,), (other,)) = (revisions_for(program, [name]) for name in (first, last))
    posted = posted_between(one.name, other.name)
    if posted:
        return Line(program, posted, [None] * len(posted), one, other)
    patches = queue_between(one, other)
    return Line(program, [one.label, *(p.commit for p in patches)], [None, *patches], one, other)


def bisect(line: Line, invariant: str = "") -> list[Bisection]:
    """Where the verdict changes, for each invariant that is broken at one end only, or for the one that is asked for.

    Where the ends agree about everything, those that are broken somewhere between are reported as not monotonic.
    Every posted series between two of them is tried.  A queue of patches is searched by halves, and the patch that was
    found is then taken out, or put in, alone.
    """
    first, last = line.ends
    names = [invariant] if invariant else sorted(first.broken ^ last.broken or line.broken_between())
    return [_bisect(line, name) for name in names]


def _bisect(line: Line, invariant: str) -> Bisection:
    first, last = (invariant in end.broken for end in line.ends)
    if first == last:
        both = f"both ends {'break it' if first else 'are clean'}"
        return Bisection(invariant, doubts=(both, *_wavering(line, invariant)))
    change = "introduces" if last else "cures"
    if line.posted:
        changes = list(line.every_change(invariant))
        doubts = _wavering(line, invariant)
        return Bisection(invariant, change, changes[-1], "" if doubts else "every posting between was tried", doubts)
    found = line.point(_by_halves(line, invariant))
    assert found.patch is not None
    verified, doubts = _alone(line, found.patch, invariant)
    return Bisection(invariant, change, found, verified, () if verified else (*doubts, *_wavering(line, invariant)))


def _by_halves(line: Line, invariant: str) -> int:
    """The number of a point whose verdict is that of the end, while the one before it has that of the beginning."""
    low, high = 0, len(line.labels) - 1
    there = invariant in line.point(high).broken
    while high - low > 1:
        middle = (low + high) // 2
        if (invariant in line.point(middle).broken) == there:
            high = middle
        else:
            low = middle
    return high


def _wavering(line: Line, invariant: str) -> tuple[str, ...]:
    """What happens on the whole way, if the verdict changes more often than a search by halves can see."""
    changes = list(line.every_change(invariant))
    if len(changes) < 2:
        return ()
    told = ", ".join(f"{'broken' if invariant in p.broken else 'clean'} from {p.label} on" for p in changes)
    return (f"not monotonic: {told}",)


def _alone(line: Line, patch: Patch, invariant: str) -> tuple[str, tuple[str, ...]]:
    """Check one patch on its own: how that succeeded, or why it did not."""
    before, after = (invariant in end.broken for end in line.ends)
    doubts = []
    without = [p for p in line.last.patches if p != patch]
    for revision, stack, word, expected in (
        (line.last, without, "without", before),
        (line.first, [*line.first.patches, patch], "with", after),
    ):
        try:
            broken = invariant in _broken(line.program, with_stack(revision.name, stack))
        except RevisionError as error:
            doubts.append(str(error))
            continue
        told = f"{revision.label} {word} it {'breaks it' if broken else 'is clean'}"
        if broken == expected:
            return told, ()
        doubts.append(told)
    return "", tuple(doubts)


def _broken(program: Program, revision: Revision) -> frozenset[str]:
    return frozenset(judge(program, revision, expectations=False).broken)
