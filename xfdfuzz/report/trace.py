"""A program as it ran: each op with its result, what it broke, what the kernel reported, what it changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console

from xfdfuzz.engines.judge.verdict import Judged
from xfdfuzz.invariants.core import Violation
from xfdfuzz.kernel.event import IRQ_FPU, USER_COPY, Event
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import PANIC, Step
from xfdfuzz.program.text import format_op
from xfdfuzz.report.changes import changes
from xfdfuzz.report.console import SEVERITY, line

_INDENT = " " * 6


def terminal(out: Console, program: Program, judged: Iterable[Judged]) -> None:
    """The machine, then an op a line with what belongs to it below."""
    line(out, (" ".join(("  machine", *program.machine.words())), "dim"))
    for item in judged:
        if item.step is not None:
            _step(out, item.step, item.violations)
        elif item.violations:
            line(out, ("  at the end, when everything that was pending has come to its end", "bold"))
            _violations(out, item.violations)


def _step(out: Console, step: Step, violations: Sequence[Violation]) -> None:
    style = "bold red" if step.result.ret == PANIC else ""
    line(out, (f"{step.number:4}  ", "dim"), (format_op(step.op), "bold"), " = ", (str(step.result), style))
    _violations(out, violations)
    told = " ".join(violation.message for violation in violations)
    for event in step.events:
        # a softirq's use of the FPU is no defect in itself, and the op says that it happened
        if event.kind not in (IRQ_FPU, USER_COPY) and " <- ".join(event.trace) not in told:
            _event(out, event)
    for path, before, after in changes(step.before, step.after):
        line(out, (f"{_INDENT}{path}  ", "cyan"), (f"{before} -> {after}", "dim"))


def _violations(out: Console, violations: Sequence[Violation]) -> None:
    for violation in violations:
        head = f"{_INDENT}! {violation.invariant} ({violation.severity}): "
        line(out, (head, SEVERITY[violation.severity]), violation.message)


def _event(out: Console, event: Event) -> None:
    trace = " <- ".join(event.trace[1:])
    line(out, (f"{_INDENT}{event.kind} in {event.site}", "yellow"), (f" <- {trace}" if trace else "", "dim"))
