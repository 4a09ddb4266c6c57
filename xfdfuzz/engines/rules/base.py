"""What the rules of every area stand on: their declaration, and the look-up of what a drawn number means now.

Nothing here belongs to an engine.  A rule is a method that gets small numbers and executes ops; which engine of
:mod:`xfdfuzz.engines.search` draws the numbers makes no difference to it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeVar

from xfdfuzz.engines.rules.situation import Situation
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import Argument, Domains, domains


@dataclass(frozen=True, eq=False)
class Rule:
    """A declared rule.

    It is enabled while the situation's list named ``condition`` is not empty.  ``arguments`` are what its parameters
    may be given, in their order; ``method`` takes the :class:`Rules` and one value for each.
    """

    name: str
    condition: str
    arguments: dict[str, Argument]
    method: Callable[..., None]

    @cached_property
    def values(self) -> tuple[Sequence[int], ...]:
        """What each parameter may be given."""
        return tuple(argument.values for argument in self.arguments.values())


#: Every rule by its name, in the order of definition.
RULES: dict[str, Rule] = {}

_F = TypeVar("_F", bound=Callable[..., None])


def on(condition: str, **arguments: Argument) -> Callable[[_F], _F]:
    """Declare a rule that is enabled while the situation's list named ``condition`` is not empty."""

    def declare(method: _F) -> _F:
        _, *parameters = inspect.signature(method).parameters
        if parameters != [*arguments]:
            raise TypeError(f"rule {method.__name__} takes {parameters}, {[*arguments]} are declared")
        RULES[method.__name__] = Rule(method.__name__, condition, arguments, method)
        return method

    return declare


class Running(Protocol):
    """The program that rules append ops to."""

    @property
    def machine(self) -> Machine:
        """What it runs on."""

    def execute(self, op: Op) -> None:
        """Execute and judge an op; may raise to end the program."""

    def situation(self) -> Situation:
        """Who can do what now."""

    def finish(self) -> None:
        """The program is over: judge what it leaves behind; may raise as :meth:`execute` does."""


class Rules:
    """The running program, and who can do what now."""

    #: How much of the time an area gets beside the others, in the programs that shares are for (selection.py).
    SHARE: ClassVar[int] = 1

    run: Running
    domains: Domains

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._now: Situation | None = Situation.nothing()

    @property
    def now(self) -> Situation:
        """Who can do what."""
        if self._now is None:
            self._now = self.run.situation()
        return self._now

    def go_on(self, run: Running) -> None:
        """Be where a run is."""
        self.run = run
        self.domains = domains(run.machine)
        self._now = None

    def do(self, op: Op) -> None:
        """Execute and judge one op; something new raises."""
        self.run.execute(op)
        self._now = None

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
