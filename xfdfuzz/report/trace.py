"""A program as it ran: each op with its result, what it broke, what the kernel reported, what it changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rich.console import Console

from xfdfuzz.engines.judge.because import Reasons
from xfdfuzz.engines.judge.verdict import Judged
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.kernel.event import IRQ_FPU, USER_COPY, Event
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import PANIC, Step
from xfdfuzz.program.text import format_op
from xfdfuzz.report import because
from xfdfuzz.report.changes import changes
from xfdfuzz.report.console import SEVERITY, counted, hanging, line
from xfdfuzz.report.folding import Folding, in_short
from xfdfuzz.report.sources import UNASKED
from xfdfuzz.report.sources import terminal as where
from xfdfuzz.revisions.sources import Source

_INDENT = " " * 6
#: What stands in place of a step for what is broken behind them all.
AT_END = "at the end, when everything that was pending has come to its end"


class Notes(NamedTuple):
    """What is said of a trace beside what happened: what its violations follow from, where kernel functions stand.

    Without ``full`` the trace is folded, to fit a screen.
    """

    because: Mapping[Violation, Reasons] = because.UNEXPLAINED
    sources: Mapping[str, Source] = UNASKED
    full: bool = True


def terminal(out: Console, program: Program, judged: Sequence[Judged], notes: Notes = Notes()) -> None:  # noqa: B008
    """The machine, then an op a line with what belongs to it below; an arrow marks those that a violation follows
    from."""
    line(out, (" ".join(("  machine", *program.machine.words())), "dim"))
    marked = because.steps(notes.because)

    def matters(item: Judged) -> bool:
        if item.step is None:
            return bool(item.violations)
        return bool(item.violations or item.step.number in marked or _defects(item.step))

    folding = Folding([] if notes.full else judged, notes.because, matters)
    for item in judged:
        if item.step is None and item.violations:
            line(out, (f"  {AT_END}", "bold"))
            _violations(out, item.violations, (), notes, folding)
        elif item.step is not None and item.step.number in folding.runs:
            _folded(out, folding.runs[item.step.number])
        elif item.step is not None and item.step.number not in folding.hidden:
            _step(out, item, item.step, item.step.number in marked, notes, folding)


def _folded(out: Console, steps: Sequence[Step]) -> None:
    first, last = steps[0].number, steps[-1].number
    short = ", ".join(in_short(step.op) for step in steps)
    hanging(out, len(_INDENT), (f"{f'{first}-{last}':>4}  ", "dim"), f"{short} ", ("(--full)", "dim"))


def _step(out: Console, item: Judged, step: Step, marked: bool, notes: Notes, folding: Folding) -> None:
    style = "bold red" if step.result.ret == PANIC else ""
    number = (f"->{step.number:2}  ", "bold red") if marked else (f"{step.number:4}  ", "dim")
    hanging(out, len(_INDENT) + 2, number, (format_op(step.op), "bold"), " = ", (str(step.result), style))
    _violations(out, item.violations, step.events, notes, folding)
    for event in _untold(step, item.violations):
        _event(out, event, notes.sources)
    shown, left = ([*changes(step.before, step.after)], 0) if notes.full else folding.changes(item)
    for path, before, after in shown:
        hanging(out, len(_INDENT) + 2, (f"{_INDENT}{path}  ", "cyan"), (f"{before} -> {after}", "dim"))
    if left and not any(map(notes.because.get, item.violations)) and item.violations:
        line(out, (f"{_INDENT}and {counted(left, 'change')} more (--full)", "dim"))


def untold(step: Step, violations: Sequence[Violation]) -> list[str]:
    """What the kernel reported and no violation tells, a text each."""
    return [f"{event.kind} in {' <- '.join(event.trace)}" for event in _untold(step, violations)]


def _untold(step: Step, violations: Sequence[Violation]) -> list[Event]:
    told = " ".join(violation.message for violation in violations)
    return [event for event in _defects(step) if " <- ".join(event.trace) not in told]


def _defects(step: Step) -> list[Event]:
    """What the kernel reported; a softirq's use of the FPU is no defect in itself, and the op says that it happened."""
    return [event for event in step.events if event.kind not in (IRQ_FPU, USER_COPY)]


def _violations(
    out: Console, violations: Sequence[Violation], events: Sequence[Event], notes: Notes, folding: Folding
) -> None:
    for violation in violations:
        head = f"{_INDENT}! {violation.invariant} ({violation.severity}): "
        hanging(out, len(_INDENT) + 4, (head, SEVERITY[violation.severity]), violation.message)
        where(out, _named(violation, events), notes.sources)
        if notes.full:
            because.terminal(out, notes.because.get(violation, ()), violation.step)
    if not notes.full and violations:
        reasons, told = folding.reasons(violations)
        because.terminal(out, reasons, violations[0].step)
        if told and not reasons:
            line(out, (f"{_INDENT}  because of the same", "dim"))


def _event(out: Console, event: Event, sources: Mapping[str, Source]) -> None:
    head = f"{_INDENT}{event.kind} in {event.site}"
    hanging(out, len(_INDENT) + 4, (head, "yellow"), ("".join(f" <- {name}" for name in event.trace[1:]), "dim"))
    where(out, event.trace, sources)


def _named(violation: Violation, events: Sequence[Event]) -> list[str]:
    """The kernel functions that the message names: those of the call traces, and whatever is written ``name()``."""
    traced = {name for event in events for name in event.trace}
    words = re.findall(r"(\w+)(\(\))?", violation.message)
    return list(dict.fromkeys(word for word, call in words if call or word in traced))


def functions(judged: Iterable[Judged]) -> list[str]:
    """The kernel functions that a trace names, each once, in its order."""
    found: list[str] = []
    for item in judged:
        events = item.step.events if item.step else ()
        for violation in item.violations:
            found += _named(violation, events)
        for event in _defects(item.step) if item.step else ():
            found += event.trace
    return list(dict.fromkeys(found))
