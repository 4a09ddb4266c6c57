"""What the rules of every area stand on: their declaration, and the look-up of what a drawn number means now.

Nothing here belongs to an engine.  A rule gets small numbers and executes ops; which engine of
:mod:`xfdfuzz.engines.search` draws the numbers makes no difference to it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol

from xfdfuzz.engines.rules.situation import Situation
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import Domains, Range, domains, kinds, targets

#: Every rule by its name, in the order of definition.
RULES: dict[str, Rule] = {}


@dataclass(eq=False)
class Rule:
    """A rule, by the name that its class has for it.

    It is enabled while the situation's list named ``condition`` is not empty.  ``arguments`` are the numbers that it
    may be given, in their order; ``method`` takes the :class:`Rules` and one number for each.
    """

    condition: str
    arguments: dict[str, Range]
    method: Callable[..., None]
    name: str = field(default="", init=False)

    def __set_name__(self, owner: type[Rules], name: str) -> None:
        self.name = name
        RULES[name] = self

    @cached_property
    def values(self) -> tuple[Sequence[int], ...]:
        """What each argument may be."""
        return tuple(argument.values for argument in self.arguments.values())


def one(op: type[Op], on: str, **given: object) -> Rule:
    """The rule that executes an op on one of the situation's list ``on``, whose elements are the numbers of all that
    the op is about (its ``Nr`` fields).  Its other fields are ``given``, or drawn, if there are values of their kind.
    """
    anywhere = domains(Machine())
    fields = {name: kind for name, kind in kinds(op, given).items() if name not in given}
    drawn = {name: kind for name, kind in fields.items() if kind in anywhere}
    several = [*fields.values()].count("nr") > 1
    names = [name for name, kind in fields.items() if kind == "nr" or name in drawn]

    def by_name(*values: object) -> Op:
        return op(**dict(zip(names, values, strict=True)), **given)

    make: Callable[..., Op] = by_name if given else op

    def method(rules: Rules, n: int, *numbers: int) -> None:
        chosen, known = rules.choice(on, n), rules.domains
        who = chosen if several else (chosen,)
        values = [known[kind].value(number) for kind, number in zip(drawn.values(), numbers, strict=True)]
        rules.do(make(*who, *values))

    return Rule(on, {"n": targets} | {name: anywhere[kind].numbers for name, kind in drawn.items()}, method)


def on(condition: str, **arguments: Range) -> Callable[[Callable[..., Iterable[Op]]], Rule]:
    """The rule that executes what a function yields, until the host dies of it.

    It gets the :class:`Rules` and one number for each of the ``arguments``.  An op must be possible when it is yielded.
    """

    def declare(ops: Callable[..., Iterable[Op]]) -> Rule:
        _, *parameters = inspect.signature(ops).parameters
        if parameters != [*arguments]:
            raise TypeError(f"rule {ops.__name__} takes {parameters}, {[*arguments]} are declared")

        def method(rules: Rules, *numbers: int) -> None:
            for op in ops(rules, *numbers):
                rules.do(op)
                if not rules.run.alive:
                    return

        return Rule(condition, arguments, method)

    return declare


class Running(Protocol):
    """The program that rules append ops to."""

    @property
    def machine(self) -> Machine:
        """What it runs on."""

    def execute(self, op: Op) -> None:
        """Execute and judge an op; may raise to end the program."""

    @property
    def alive(self) -> bool:
        """Whether anything can still happen."""

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

    def choice(self, name: str, n: int) -> Any:
        """The one of the situation's list of that name that a number stands for."""
        some: list[Any] = getattr(self.now, name)
        return some[n % len(some)]

    def another(self, cpu: int, n: int) -> int | None:
        """The user task that a number stands for, of those that the CPU can be given to; None if there is none."""
        others = [task for on, task in self.now.schedulable if on == cpu]
        return others[n % len(others)] if others else None

    @on("dead")
    def host_is_dead(self) -> Iterable[Op]:
        """Nothing happens any more."""
        return ()
