"""Because: the fields that a violation follows from, and the step that left each of them as it is.

Of all that the invariant reads, and the step itself, only those fields are named that pass a trial: with what stood
there before the step that wrote it last, the violation ends or becomes another one
(:mod:`~xfdfuzz.engines.judge.trial`).  So a field that is named matters.  One that is not named may matter, too,
together with others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from xfdfuzz.engines.judge.leaves import Leaf, owner
from xfdfuzz.engines.judge.trial import Bench, Case
from xfdfuzz.engines.judge.verdict import Judged
from xfdfuzz.invariants.vocabulary import INVARIANTS, Invariant, Violation
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import Step
from xfdfuzz.revisions import Revision


@dataclass(frozen=True)
class Reason:
    """A field that a violation follows from.

    ``step`` wrote it last, counted from 1; 0: it is as it was when the machine had booted.  ``value`` stands there
    since, ``was`` stood there before.  ``found``: the violation's step found it so; else it is so behind that step.
    ``contradicts``: with the value of another one, in which the same should stand, the violation ends or changes.
    ``owner`` is what points to the buffer that the field is in, if it was allocated.
    """

    leaf: Leaf
    value: int
    was: int
    step: int
    found: bool
    contradicts: bool = False
    owner: str = ""


#: What contradicts first, then by step.
Reasons = tuple[Reason, ...]


class Because:
    """What the violations of a run of a program follow from; worked out when it is asked for.

    It takes as long as executing some dozens of steps, so it is for what is reported, and no part of a search.
    """

    def __init__(self, program: Program, revision: Revision, steps: Sequence[Step]) -> None:
        self._program, self._revision, self._steps = program, revision, steps
        self._bench = Bench(program, revision)

    def of(self, judged: Judged, bucket: str = "") -> dict[Violation, Reasons]:
        """For each violation of a step, or of the drained end, with a ``bucket`` for those of that one; no reasons for
        those that no field passes for, as where the invariant looks at the program and at no state."""
        asked = [one for one in judged.violations if bucket in ("", one.bucket)]
        if not asked:
            return {}
        at_end = judged.step is None
        history = _History([*self._steps, *self._drained()] if at_end else self._steps[: judged.violations[0].step])
        ops = self._program.ops if at_end else ()
        return {
            violation: self._reasons(
                Case(INVARIANTS[violation.invariant], violation.message, history.steps[-1], ops), history
            )
            for violation in asked
        }

    def waiting(self, number: int, invariant: Invariant, message: str) -> Reasons:
        """Why the invariant, which looks at the end of a program, says that behind the step with that number."""
        history = _History(self._steps[:number])
        return self._reasons(Case(invariant, message, history.steps[-1], self._program.ops[:number]), history)

    def _drained(self) -> Iterator[Step]:
        """The steps that let what is pending behind the program come to its end."""
        executor = Executor(self._revision.kernel, self._program.machine)
        executor.load(bytes(self._steps[-1].after), len(self._steps))
        return (step.kept() for step in executor.draining())

    def _reasons(self, case: Case, history: _History) -> Reasons:
        read = self._bench.read(case)
        named: dict[Leaf, Reason] = {}
        untouched: dict[Leaf, Reason] = {}
        read_before = {*read.before}
        for reason in history.reasons(read.behind, [*read.before, *read.found]):
            leaf = reason.leaf
            if not reason.step:
                if not reason.found or leaf in read_before:
                    untouched[leaf] = reason
            elif leaf not in named and not leaf.structural and self._matters(case, reason, reason.was):
                named[leaf] = reason
        ordered = self._ordered(case, [*named.values()], [*untouched.values()])
        return tuple(history.owned(reason) for reason in ordered)

    def _ordered(self, case: Case, named: Sequence[Reason], untouched: Sequence[Reason]) -> list[Reason]:
        """What contradicts first, then by step; of what no step wrote only what contradicts."""
        at_odds: set[Leaf] = set()
        for one, other in _pairs(named, untouched):
            # a trial takes as long as all else here
            if one.leaf in at_odds and other.leaf in at_odds:
                continue
            if self._matters(case, one, other.value) and self._matters(case, other, one.value):
                at_odds |= {one.leaf, other.leaf}
        marked = [replace(one, contradicts=one.leaf in at_odds) for one in (*named, *untouched) if _kept(one, at_odds)]
        return sorted(marked, key=lambda one: (not one.contradicts, one.step))

    def _matters(self, case: Case, reason: Reason, value: int) -> bool:
        # with what stands there already the violation is the one that it is
        return value != reason.value and self._bench.matters(case, reason.leaf, value, found=reason.found)


def _kept(reason: Reason, at_odds: set[Leaf]) -> bool:
    return bool(reason.step) or reason.leaf in at_odds


def _pairs(named: Sequence[Reason], untouched: Sequence[Reason]) -> Iterator[tuple[Reason, Reason]]:
    """Two in which the same might stand; the first one is named."""
    by_kind: dict[object, list[Reason]] = {}
    for reason in (*named, *untouched):
        by_kind.setdefault((reason.leaf.field.kind, reason.leaf.component), []).append(reason)
    for one in named:
        for other in by_kind[one.leaf.field.kind, one.leaf.component]:
            if one.leaf.alike(other.leaf):
                yield one, other


class _History:
    """The steps up to the one that is looked at."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self._states = [*(step.state for step in steps), bytes(steps[-1].after)]

    def reasons(self, behind: Sequence[Leaf], found: Sequence[Leaf]) -> Iterator[Reason]:
        """What stands in those fields behind the last step, and what it found in these; by what it was written."""
        for leaf in behind:
            yield self._reason(leaf, len(self.steps), found=False)
        for leaf in dict.fromkeys(found):
            yield self._reason(leaf, len(self.steps) - 1, found=True)

    def _reason(self, leaf: Leaf, last: int, found: bool) -> Reason:
        start, size = leaf.place
        end, states = start + size, self._states
        now = states[last][start:end]
        value = leaf.of(states[last])
        for number in range(last, 0, -1):
            if states[number - 1][start:end] != now:
                return Reason(leaf, value, leaf.of(states[number - 1]), number, found)
        return Reason(leaf, value, value, 0, found)

    def owned(self, reason: Reason) -> Reason:
        """The same with what points to its buffer."""
        state = self._states[-2 if reason.found else -1]
        return replace(reason, owner=owner(reason.leaf, state))
