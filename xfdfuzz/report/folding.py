"""What of a run is told on one screen: the steps that matter, with what matters of them.

A step matters if it breaks something, if the kernel reports something there, or if a violation follows from it.  One
of which the program says what it reads stands there as well, and one that came to something else than it says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from xfdfuzz.engines.judge.because import Reasons
from xfdfuzz.engines.judge.leaves import Leaf
from xfdfuzz.engines.judge.verdict import Judged
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.program.ops import Op
from xfdfuzz.program.step import Step
from xfdfuzz.program.text import format_op
from xfdfuzz.report import because
from xfdfuzz.report.changes import Change, changes

#: So many steps in a row that do not matter are told in a line.
_LONG = 3
#: So many changes are told of a step that breaks something of which nobody knows what it follows from.
_UNEXPLAINED = 3


#: Fields, each with the step that left it so.
_Key = frozenset[tuple[Leaf, int]]


class Group(NamedTuple):
    """Violations of a step that follow from the same: from ``reasons``, or from what was told of ``told`` already, but
    for these fields."""

    violations: Sequence[Violation]
    reasons: Reasons
    told: Violation | None
    left_out: tuple[str, ...] = ()


class Folding:
    """What is told of a run; ``matters`` is whether a step does, ``asked`` whether the program asks what came of it.

    ``runs`` are the steps that are told in one line, by the number of the first one, and ``hidden`` the others of them.
    """

    def __init__(
        self,
        judged: Sequence[Judged],
        explained: Mapping[Violation, Reasons],
        matters: Callable[[Judged], bool],
        asked: Callable[[Judged], bool] = lambda item: False,
    ) -> None:
        self._explained = explained
        self._told: dict[_Key, Violation] = {}
        self._named: dict[int, set[str]] = {}
        for violation, reasons in explained.items():
            for reason in reasons:
                field = because.words(reason, violation.step).field
                self._named.setdefault(reason.step, set()).add(field)
        self._any = any(map(matters, judged))
        runs = _runs(judged, lambda item: matters(item) or asked(item)) if self._any else []
        self.runs = {run[0].number: run for run in runs}
        self.hidden = {step.number for run in runs for step in run[1:]}

    def groups(self, violations: Sequence[Violation]) -> list[Group]:
        """The violations of a step, those together that follow from the same."""
        found: dict[_Key, list[Violation]] = {}
        for violation in violations:
            key = frozenset((one.leaf, one.step) for one in self._explained.get(violation, ()))
            found.setdefault(key, []).append(violation)
        return [self._group(key, same) for key, same in found.items()]

    def _group(self, key: _Key, violations: Sequence[Violation]) -> Group:
        if not key:
            return Group(violations, (), None)
        reasons = self._explained[violations[0]]
        told = next((one for known, one in self._told.items() if key <= known and len(known - key) < len(key)), None)
        self._told.setdefault(key, violations[0])
        if told is None:
            return Group(violations, reasons, None)
        left_out = [one for one in self._explained[told] if (one.leaf, one.step) not in key]
        return Group(violations, (), told, tuple(because.words(one, told.step).field for one in left_out))

    def changes(self, item: Judged) -> tuple[list[Change], int]:
        """What is told of what a step changed, and how many changes are not."""
        assert item.step is not None
        every = [*changes(item.step.before, item.step.after)]
        if not self._any:  # nothing is broken: what happens is all that there is to tell
            return every, 0
        named = [change for change in every if self._is_named(change, item.step.number)]
        if not named and not any(map(self._explained.get, item.violations)):
            named = every[: _UNEXPLAINED if item.violations else 0]
        return named, len(every) - len(named)

    def _is_named(self, change: Change, step: int) -> bool:
        return any(f"{field}.".startswith(f"{change.path}.") for field in self._named.get(step, ()))


def _runs(judged: Sequence[Judged], matters: Callable[[Judged], bool]) -> list[list[Step]]:
    """Those that are long enough of steps that do not matter and did what they should."""
    runs: list[list[Step]] = [[]]
    for item in judged:
        if item.step is None or matters(item) or str(item.step.result).startswith(("-", "not-", "#")):
            runs.append([])
        else:
            runs[-1].append(item.step)
    return [run for run in runs if len(run) >= _LONG]


def in_short(op: Op) -> str:
    """What an op does, in a word or two: ``KVM_SET_CPUID2``, ``wrmsr``, ``schedule(t1)``."""
    line = format_op(op).partition(" ")[2]
    call = re.match(r"(?:ioctl|arch_prctl|ptrace)\(.*?\b([A-Z0-9]+(?:_[A-Z0-9]+)+)", line)
    if call:
        return call[1]
    return line if len(line) <= 20 else line.partition("(")[0]
