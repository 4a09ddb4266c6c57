"""Which goals a campaign meets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from xfdfuzz.invariants.sometimes import Goal
from xfdfuzz.invariants.vocabulary import View
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.program.ops import OPS
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import NOT_ENABLED, PANIC, Step

#: So many steps that meet a goal are counted: looking on would cost a tenth of a campaign.
ENOUGH = 10


class GoalCounter:
    """Counts by a goal's name the steps that meet it, up to :data:`ENOUGH`.

    So the goals that are met often soon cost nothing, and what a campaign hardly reaches is looked for to its end.
    """

    def __init__(self, goals: Iterable[Goal]) -> None:
        self.goals = tuple(goals)
        self.met: Counter[str] = Counter()
        wanted = {cls: [goal for goal in self.goals if issubclass(cls, goal.ops)] for cls in OPS.values()}
        self._wanted: dict[type[Op], list[Goal]] = {cls: goals for cls, goals in wanted.items() if goals}

    @property
    def never(self) -> list[str]:
        """The names of the goals that no step has met."""
        return [goal.name for goal in self.goals if not self.met[goal.name]]

    def look(self, kernel: Kernel, step: Step) -> Sequence[Goal]:
        """Count and return what a step meets of what is still looked for; ``kernel`` is in the state after it."""
        goals = self._wanted.get(type(step.op))
        if goals is None or step.result.ret in (NOT_ENABLED, PANIC):
            return ()
        view = View(kernel, step)
        met = [goal for goal in goals if goal.predicate(view)]
        for goal in met:
            self.met[goal.name] += 1
            if self.met[goal.name] == ENOUGH:
                self._close(goal)
        return met

    def _close(self, goal: Goal) -> None:
        for cls, goals in [*self._wanted.items()]:
            if goal in goals:
                goals.remove(goal)
            if not goals:
                del self._wanted[cls]
