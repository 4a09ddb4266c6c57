"""A program as it ran: each op with its result, what it broke, what the kernel reported, what it changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from rich.console import Console

from xfdfuzz.engines.judge import windows
from xfdfuzz.engines.judge.because import Reasons
from xfdfuzz.engines.judge.verdict import Judged
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.kernel.errno import EINVAL
from xfdfuzz.kernel.event import Event
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.ops.kvm import KvmSetSregs
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import PANIC, Step, format_ret
from xfdfuzz.program.text import format_op
from xfdfuzz.report import because, leaks
from xfdfuzz.report.changes import changes
from xfdfuzz.report.console import SEVERITY, counted, hanging, line
from xfdfuzz.report.folding import Folding, in_short
from xfdfuzz.report.sources import UNASKED
from xfdfuzz.report.sources import terminal as where
from xfdfuzz.revisions.sources import Source

_INDENT = " " * 6
#: What messages and ops call registers.
_REGISTER = re.compile(r"\b(?:IA32_\w+|XCR0|PKRU)\b")
#: What stands in place of a step for what is broken behind them all.
AT_END = "at the end, when everything that was pending has come to its end"


class Notes(NamedTuple):
    """What is said of a trace beside what happened: what its violations follow from, where kernel functions stand.

    ``about`` is the bucket of the finding that the trace is shown for, if it is for one.  ``stories`` are told of what
    no field explains; a trace has those of its own leaks.  Without ``full`` the trace is folded, to fit a screen; with
    ``results`` :func:`results` is meant instead.  ``windows`` are where calls were interrupted, or were not.
    """

    because: Mapping[Violation, Reasons] = because.UNEXPLAINED
    sources: Mapping[str, Source] = UNASKED
    full: bool = True
    results: bool = False
    about: str = ""
    stories: Mapping[Violation, str] = MappingProxyType({})
    windows: Mapping[int, Sequence[windows.Said]] = MappingProxyType({})


def terminal(out: Console, program: Program, judged: Sequence[Judged], notes: Notes = Notes()) -> None:  # noqa: B008
    """The machine, then an op a line with what belongs to it below; an arrow marks those that the finding follows from,
    or any violation, if it is of none; a lesser one those that only others follow from."""
    line(out, (" ".join(("  machine", *program.machine.words())), "dim"))
    marks = _Marks(judged, notes)
    notes = notes._replace(stories=leaks.stories(judged), windows=windows.said(judged))

    def matters(item: Judged) -> bool:
        if item.step is None:
            return bool(item.violations)
        step = item.step
        told = item.violations or step.number in notes.windows
        return bool(told or marks.of(step.number) or marks.names(step) or step.defects)

    def asked(item: Judged) -> bool:
        return item.step is not None and _is_asked(item.step, program.results[item.step.number - 1])

    folding = Folding([] if notes.full else judged, notes.because, matters, asked)
    for item in judged:
        if item.step is None and item.violations:
            line(out, (f"  {AT_END}", "bold"))
            _violations(out, item.violations, (), notes, folding, len(program.ops))
        elif item.step is not None and item.step.number in folding.runs:
            _folded(out, folding.runs[item.step.number])
        elif item.step is not None and item.step.number not in folding.hidden:
            _step(out, program.machine, item, item.step, marks.of(item.step.number), notes, folding)


def results(out: Console, program: Program, judged: Sequence[Judged]) -> None:
    """An op a line with its result, what of it has no effect, and the buckets of what it breaks; no states."""
    interrupted = windows.said(judged)
    for item in judged:
        broken = "".join(f"  ! {bucket}" for bucket in dict.fromkeys(v.bucket for v in item.violations))
        text = f"{item.step.number:4}  {format_op(item.step.op)} = {result(item.step)}" if item.step else f"  {AT_END}"
        if item.step or broken:
            hanging(out, len(_INDENT) + 2, text, (broken, "bold red"))
        if item.step:
            _remarks(out, program.machine, item, item.step, interrupted)


def _is_asked(step: Step, text: str | None) -> bool:
    """Whether the program's text says what the op reads, or something that it did not come to."""
    return text is not None and text != format_ret(step.result.ret)


class _Marks:
    """The steps that the finding is about, and those that other violations are."""

    def __init__(self, judged: Sequence[Judged], notes: Notes) -> None:
        violations = [violation for item in judged for violation in item.violations]
        main = next((one for one in violations if one.bucket == notes.about), None)
        chosen = notes.because if main is None else {main: notes.because.get(main, ())}
        self._main, self._all = because.steps(chosen), because.steps(notes.because)
        self._registers = set(_REGISTER.findall(main.message if main else ""))

    def of(self, number: int) -> str:
        """The arrow in front of a step, if it has one."""
        if number in self._main:
            return "->"
        return " >" if number in self._all else ""

    def names(self, step: Step) -> bool:
        """Whether the op names a register that the finding is about."""
        return not self._registers.isdisjoint(_REGISTER.findall(format_op(step.op)))


def _folded(out: Console, steps: Sequence[Step]) -> None:
    first, last = steps[0].number, steps[-1].number
    short = ", ".join(in_short(step.op) for step in steps)
    hanging(out, len(_INDENT), (f"{f'{first}-{last}':>4}  ", "dim"), f"{short} ", ("(--full)", "dim"))


def _step(out: Console, machine: Machine, item: Judged, step: Step, mark: str, notes: Notes, folding: Folding) -> None:
    style = "bold red" if step.result.ret == PANIC else ""
    number = (f"{mark:2}{step.number:2}  ", "bold red" if mark == "->" else "dim")
    hanging(out, len(_INDENT) + 2, number, (format_op(step.op), "bold"), " = ", (result(step), style))
    _remarks(out, machine, item, step, notes.windows)
    _violations(out, item.violations, step.events, notes, folding, step.number)
    for event in _untold(step, item.violations):
        _event(out, event, notes.sources)
    shown, left = ([*changes(step.before, step.after)], 0) if notes.full else folding.changes(item)
    for path, before, after in shown:
        hanging(out, len(_INDENT) + 2, (f"{_INDENT}{path}  ", "cyan"), (f"{before} -> {after}", "dim"))
    if left and not any(map(notes.because.get, item.violations)) and item.violations:
        line(out, (f"{_INDENT}and {counted(left, 'change')} more (--full)", "dim"))


def _remarks(
    out: Console, machine: Machine, item: Judged, step: Step, interrupted: Mapping[int, Sequence[windows.Said]]
) -> None:
    """What of an op has no effect, where calls were interrupted, and what is kept that need not be."""
    kept = [f"{content} is as the VMM means it, and nothing promises that" for content in item.unpromised]
    stopped = [one.text for one in interrupted.get(step.number, ())]
    for text in (*step.op.without_effect(machine), *_refusals(step), *stopped, *kept):
        hanging(out, len(_INDENT) + 2, (f"{_INDENT}{text}", "yellow"))


def _refusals(step: Step) -> Iterator[str]:
    """Why KVM_SET_SREGS is EINVAL, where it can be EFER alone."""
    op = step.op
    if isinstance(op, KvmSetSregs) and step.result.ret == -EINVAL and not (op.sregs.no_lme or op.sregs.cr4):
        arch = step.before.vcpus[op.vcpu].arch
        if not arch.cpuid_set and not arch.guest_state_protected:
            yield "EFER.LME before KVM_SET_CPUID2: with no_lme it is a state in real mode, as after a reset"


def result(step: Step) -> str:
    """The result as people read it: ``0 (of 1)`` where KVM takes none of the MSRs, which looks like success, and
    ``not-enabled (t1 is on no CPU)``."""
    more = step.hindrance or step.few
    return f"{step.result} ({more})" if more else str(step.result)


def untold(step: Step, violations: Sequence[Violation]) -> list[str]:
    """What the kernel reported and no violation tells, a text each."""
    return [f"{event.kind} in {' <- '.join(event.trace)}" for event in _untold(step, violations)]


def _untold(step: Step, violations: Sequence[Violation]) -> list[Event]:
    told = " ".join(violation.message for violation in violations)
    return [event for event in step.defects if " <- ".join(event.trace) not in told]


def _violations(
    out: Console, violations: Sequence[Violation], events: Sequence[Event], notes: Notes, folding: Folding, ops: int
) -> None:
    """Those that follow from the same stand together, with that below the last of them."""
    for group in folding.groups(violations):
        for violation in group.violations:
            head = f"{_INDENT}! {violation.invariant} ({violation.severity}): "
            hanging(out, len(_INDENT) + 4, (head, SEVERITY[violation.severity]), violation.message)
            where(out, _named(violation, events), notes.sources)
            if story := notes.stories.get(violation):
                hanging(out, len(_INDENT) + 4, (f"{_INDENT}  {story}", "dim"))
        count = len(group.violations)
        head = "because" if count == 1 else "both because" if count == 2 else f"all {count} because"
        because.terminal(out, group.reasons, violations[0].step, ops, head)
        if group.told:
            step = "" if group.told.step == violations[0].step else f" of step {group.told.step}"
            but = f", but not {' and '.join(group.left_out)}" if group.left_out else ""
            said = f"{_INDENT}  {head} of the same as {group.told.invariant}{step}{but}"
            hanging(out, len(_INDENT) + 4, (said, "dim"))


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
        for event in item.step.defects if item.step else ():
            found += event.trace
    return list(dict.fromkeys(found))
