"""The Hypothesis state machine: one rule per op.

A rule draws small numbers only; which vCPU, task or value they mean is looked up in the state, so that a rule is never
drawn in vain and its arguments shrink towards the first of everything.  :class:`Situation` is that look-up, made once
per step, and the preconditions read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from xfdfuzz.engines.campaign import Campaign, Run
from xfdfuzz.engines.situation import Situation
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.boots import BOOTS
from xfdfuzz.strategies.machines import MACHINES
from xfdfuzz.strategies.values import domains

tokens = st.integers(1, 3)
flags = st.booleans()


#: Which list of the situation each rule needs.
CONDITIONS: dict[str, str] = {}

_F = TypeVar("_F", bound=Callable[..., None])


def on(condition: str, **arguments: st.SearchStrategy[Any]) -> Callable[[_F], _F]:
    """A rule that is enabled while the situation's list named ``condition`` is not empty."""

    def declare(function: _F) -> _F:
        CONDITIONS[function.__name__] = condition
        needed = precondition(lambda self: bool(getattr(self.now, condition)))
        declared: _F = needed(rule(**arguments)(function))  # type: ignore[call-overload]
        return declared

    return declare


class Rules(RuleBasedStateMachine):
    """What the rules of every area stand on: the running program, and who can do what now.

    ``campaign`` says what is under test, counts, and decides what is news; a subclass sets it
    (:func:`xfdfuzz.engines.fuzz.state_machine`).
    """

    campaign: ClassVar[Campaign[Any]]
    #: How much of the time an area gets beside the others that have an enabled rule.
    SHARE: ClassVar[int] = 1

    def __init__(self) -> None:
        super().__init__()
        self.run: Run | None = None
        self.now = Situation.nothing()

    @initialize(machine=st.sampled_from(MACHINES), boot=st.sampled_from(BOOTS))
    def power_on(self, machine: Any, boot: Any) -> None:
        """Boot the kernel on a machine, with a first stretch of a program."""
        self.run = self.campaign.start(machine)
        self.domains = domains(machine)
        for op in boot(machine):
            self.run.execute(op)
        self.now = self.run.situation()

    def do(self, op: Op) -> None:
        """Execute and judge one op; a violation that is news raises."""
        assert self.run is not None
        self.run.execute(op)
        self.now = self.run.situation()

    def teardown(self) -> None:
        """Drain the program and count it."""
        if self.run is not None:
            self.run.finish()

    def task(self, n: int) -> int:
        """A task that can make a system call."""
        return self.now.tasks[n % len(self.now.tasks)]

    def vmm(self, n: int) -> int:
        """A task that shares a VM's address space, or once in a while one that does not."""
        choice = self.now.tasks if n == 3 else self.now.vm_tasks
        return choice[n % len(choice)]

    def idle_vcpu(self, n: int) -> int:
        """A vCPU outside KVM_RUN."""
        return self.now.idle[n % len(self.now.idle)]

    def guest(self, n: int) -> int:
        """A vCPU that executes its guest."""
        return self.now.guests[n % len(self.now.guests)]

    @on("dead")
    def host_is_dead(self) -> None:
        """Nothing happens any more."""
