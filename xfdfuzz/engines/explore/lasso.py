"""A lasso: a program that leads to a loop, and why the loop is bad: what each of its ops leaves pending."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from xfdfuzz.engines.judge.because import Because, Reasons
from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.invariants.vocabulary import Invariant, View
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision


class Turn(NamedTuple):
    """One op of a loop, with its result as text.

    ``progress``: it is one of those that must not happen again and again while something waits; ``pending`` says in a
    sentence each what waits behind it, ``because`` what that follows from.
    """

    op: Op
    result: str
    progress: bool
    pending: tuple[str, ...]
    because: Reasons = ()


@dataclass(frozen=True)
class Lasso:
    """What stays pending for ever: a program that leads there, whose last ops, the ``loop``, can be repeated for ever.

    ``finding`` has the program of both.
    """

    finding: Finding
    loop: tuple[Turn, ...]

    @property
    def stem(self) -> tuple[Op, ...]:
        """The ops that lead to the loop."""
        ops = self.finding.program.ops
        return ops[: len(ops) - len(self.loop)]


def turns(program: Program, stem: int, inv: Invariant, revision: Revision) -> tuple[Turn, ...]:
    """The ops of a program behind the first ``stem`` ones, with what the invariant says after each."""
    executor = Executor(revision.kernel, program.machine)
    found, steps = [], []
    for step in executor.run(program.ops):
        steps.append(step.kept())
        if step.number > stem:
            view = View(executor.kernel, step, program.ops[: step.number])
            pending = tuple([broken.message for broken in inv.look(view)])
            found.append(Turn(step.op, str(step.result), isinstance(step.op, inv.progress), pending))
    because = Because(program, revision, steps)
    reasons = [
        (reason for message in turn.pending for reason in because.waiting(number, inv, message))
        for number, turn in enumerate(found, stem + 1)
    ]
    return tuple([turn._replace(because=tuple(some)) for turn, some in zip(found, reasons, strict=True)])
