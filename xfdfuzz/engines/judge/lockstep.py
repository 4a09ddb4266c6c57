"""Two revisions in lockstep: the same ops on both, and what a user sees differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.invariants.checker import Checker, Memory
from xfdfuzz.invariants.vocabulary import INVARIANTS, Violation
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED, Image, Result, Step, format_ret
from xfdfuzz.revisions import Revision, RevisionError


class Pair(NamedTuple):
    """Two revisions that are compared."""

    first: Revision
    second: Revision


@dataclass(frozen=True)
class Difference:
    """What one op shows on one revision and not on the other.

    ``what`` differs, without the details that vary from program to program; ``first`` and ``second`` are what each
    revision shows.  ``step`` counts from 1.  ``broken``: an invariant is, which after one op or another is the same.
    """

    op: str
    what: str
    first: str
    second: str
    step: int
    broken: bool = False

    @property
    def bucket(self) -> str:
        """What makes it the same difference again."""
        return self.what if self.broken else f"{self.op}: {self.what}"

    @property
    def kind(self) -> str:
        """The bucket: a difference has no shape."""
        return self.bucket

    @property
    def message(self) -> str:
        """Both sides in a line."""
        return f"{self.first} | {self.second}"


class Compared(NamedTuple):
    """One op on both revisions.  ``diverged``: the two went different ways, what follows would tell nothing."""

    first: Step
    second: Step
    differences: tuple[Difference, ...]
    diverged: bool


#: The state of each system, and what its checker remembers.
Halves = tuple[tuple[bytes, Memory], ...]


class Lockstep:
    """Two freshly booted systems that get the same ops."""

    def __init__(self, pair: Pair, machine: Machine) -> None:
        self._labels = (pair.first.label, pair.second.label)
        self.executors = tuple(Executor(revision.kernel, machine) for revision in pair)
        self._checkers = [
            Checker(executor.kernel, revision.name, vmms=False)
            for executor, revision in zip(self.executors, pair, strict=True)
        ]
        self._comparable = comparable(pair)

    def save(self) -> Halves:
        """Where both are."""
        return tuple(
            (executor.kernel.state, checker.memory())
            for executor, checker in zip(self.executors, self._checkers, strict=True)
        )

    def restore(self, halves: Halves, count: int) -> None:
        """Go on from where two of the same revisions were, after ``count`` ops."""
        for executor, checker, (state, memory) in zip(self.executors, self._checkers, halves, strict=True):
            executor.load(state, count)
            checker.remember(memory)

    @property
    def same(self) -> bool:
        """Whether both are in the same state."""
        first, second = (executor.kernel.state for executor in self.executors)
        return first == second

    def execute(self, op: Op) -> Compared:
        """Execute the op on both and compare."""
        first, second = (executor.execute(op) for executor in self.executors)
        found = [
            *self._results(first, second),
            *self._on_one_side(first, *({(e.kind, e.site) for e in step.defects} for step in (first, second))),
            *self._violations(first, second),
        ]
        return Compared(first, second, tuple(found), first.result.ret != second.result.ret)

    def _results(self, first: Step, second: Step) -> Iterator[Difference]:
        one, other = first.result, second.result
        if one != other:
            yield self._difference(first, _what_differs(one, other, self._labels), str(one), str(other))

    def _violations(self, first: Step, second: Step) -> Iterator[Difference]:
        """Invariants that are broken on one side; those that judge reports are left to the reports themselves."""
        sides = (
            {(v.bucket, "broken") for v in checker.check(step) if self._counts(v)}
            for checker, step in zip(self._checkers, (first, second), strict=True)
        )
        for difference in self._on_one_side(first, *sides):
            yield replace(difference, broken=True)

    def _counts(self, violation: Violation) -> bool:
        return violation.invariant in self._comparable and not INVARIANTS[violation.invariant].events

    def _on_one_side(self, step: Step, *sides: set[tuple[str, str]]) -> Iterator[Difference]:
        for nr, (here, there) in enumerate((sides, sides[::-1])):
            for kind, site in sorted(here - there):
                text = f"{kind} {site}" if site == "broken" else f"{kind} in {site}"
                both = (text, "nothing") if nr == 0 else ("nothing", text)
                yield self._difference(step, f"{text} on {self._labels[nr]} only", *both)

    def _difference(self, step: Step, what: str, first: str, second: str) -> Difference:
        return Difference(type(step.op).__name__, what, first, second, step.number)


def run(program: Program, pair: Pair) -> Iterator[Compared]:
    """The program on both, an op at a time, up to where they diverge."""
    lockstep = Lockstep(pair, program.machine)
    for op in program.ops:
        compared = lockstep.execute(op)
        yield compared
        if compared.diverged:
            return


def differences(program: Program, pair: Pair) -> list[Difference]:
    """Everything that differs, up to where the two diverge."""
    return [difference for compared in run(program, pair) for difference in compared.differences]


def comparable(pair: Pair) -> frozenset[str]:
    """The invariants that both revisions have to keep."""
    return frozenset(inv.name for inv in INVARIANTS.values() if all(_applies(inv.name, r) for r in pair))


def _applies(invariant: str, revision: Revision) -> bool:
    try:
        return INVARIANTS[invariant].applies_to(revision.name)
    except RevisionError:  # it names a series that is not loaded
        return False


def _what_differs(one: Result, other: Result, labels: tuple[str, str]) -> str:
    """The kind of a difference of two results."""
    if NOT_ENABLED in (one.ret, other.ret):
        return f"possible on {labels[one.ret == NOT_ENABLED]} only"
    if one.ret != other.ret:
        kinds = [_kind(result) for result in (one, other)]
        return f"gives {kinds[0]} | {kinds[1]}" if kinds[0] != kinds[1] else f"gives another {kinds[0]}"
    if isinstance(one.out, Image) and isinstance(other.out, Image):
        return _what_differs_in(one.out, other.out)
    return "value"


def _kind(result: Result) -> str:
    """``-EINVAL``, ``0``, ``a number``, ``exit``, ``#NM``, ``vm``: a result without what varies."""
    if isinstance(result.ret, int):
        return format_ret(result.ret) if result.ret <= 0 else "number"
    return result.ret.rstrip("0123456789")


def _what_differs_in(one: Image, other: Image) -> str:
    """The first component that does: others with it would make a bucket of every combination."""
    bits = one.xstate_bv ^ other.xstate_bv
    if bits:
        lowest = (bits & -bits).bit_length() - 1
        return f"xstate_bv of the image, {xf.NAMES.get(lowest, lowest)}"
    if one.xcomp_bv != other.xcomp_bv:
        return "xcomp_bv of the image"
    return f"content of the image, {xf.CONTENTS[min(set(one.tokens) ^ set(other.tokens))[0]]}"
