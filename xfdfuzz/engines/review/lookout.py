"""A search for something that a function sees: a relation that does not hold, a WARN that fires.

It is the fuzzer's search, with its rules and its engines; what is seen is made a minimal program as any violation is.
No invariant is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from xfdfuzz.engines.judge.minimise import reduce, with_results
from xfdfuzz.engines.search.campaign import Campaign, Run
from xfdfuzz.engines.search.hunt import Shrunk, hunt
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED, Step


@dataclass(frozen=True)
class Sight:
    """Something that was seen; two of one bucket are the same."""

    bucket: str
    message: str

    @property
    def kind(self) -> str:
        """It has no shapes."""
        return self.bucket


#: What is seen in a step.
Look = Callable[[Kernel, Step], Iterable[Sight]]


@dataclass(kw_only=True)
class Lookout(Campaign[Sight]):
    """One kernel, and a function that looks at each step on it."""

    kernel: type[Kernel]
    look: Look
    error_name = "Seen"

    def start(self, machine: Machine) -> LookoutRun:
        """Boot the kernel."""
        return LookoutRun(self, machine)

    def shown(self, program: Program) -> Sequence[Sight]:
        """All that is seen, in order."""
        executor = Executor(self.kernel, program.machine)
        return [
            sight
            for step in executor.run(program.ops)
            if step.result.ret != NOT_ENABLED
            for sight in self.look(executor.kernel, step)
        ]

    def minimise(self, program: Program, key: str) -> Program:
        """The plainest program in which that is seen, up to the op in which it is."""
        smallest = reduce(program, lambda one: self.in_time() and any(sight.bucket == key for sight in self.shown(one)))
        results = [str(step.result) for step in Executor(self.kernel, smallest.machine).run(smallest.ops)]
        return with_results(smallest, results)


class _Saved(NamedTuple):
    state: bytes
    ops: tuple[Op, ...]


class LookoutRun(Run):
    """One example: a booted kernel, looked at after each op."""

    campaign: Lookout

    def __init__(self, campaign: Lookout, machine: Machine) -> None:
        super().__init__(campaign, machine)
        self._executor = Executor(campaign.kernel, machine)
        self._look = campaign.look

    @property
    def kernel(self) -> Kernel:
        """The kernel that is looked at."""
        return self._executor.kernel

    def execute(self, op: Op) -> None:
        """Execute ``op`` and look."""
        step = self._executor.execute(op)
        if step.result.ret == NOT_ENABLED:
            return
        self.done(step)
        self.judge(self._look(self._executor.kernel, step))

    def save(self) -> _Saved:
        """Where the run is."""
        return _Saved(self._executor.kernel.state, tuple(self.ops))

    def restore(self, saved: Any) -> None:
        """Go back to where a run on the same machine was."""
        self._executor.load(saved.state, len(saved.ops))
        self.go_back(saved.ops)


class Looked(NamedTuple):
    """What became of a search."""

    stats: Stats
    interrupted: bool

    def end_if_interrupted(self) -> None:
        """Raise the KeyboardInterrupt that ended it, now that what it has seen is noted."""
        if self.interrupted:
            raise KeyboardInterrupt


def look_out(
    kernel: type[Kernel], look: Look, plan: Plan, on_sight: Callable[[Shrunk[Sight]], None] = lambda shrunk: None
) -> Looked:
    """Search as planned, or until Ctrl-C; ``on_sight`` is given each new thing with its minimal program at once."""
    campaign = Lookout(kernel=kernel, look=look)
    interrupted = hunt(campaign, plan, lambda: None, on_sight)
    return Looked(campaign.stats, interrupted)
