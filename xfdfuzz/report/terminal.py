"""What people read: traces, findings, verdicts, coverage and lists, 80 columns wide on a terminal.

No boxes and no non-ASCII characters of our own, so the same text goes into a mail.  Programs contain square brackets,
hence rich's markup is off everywhere.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.verdict import Judged, Verdict, judge
from xfdfuzz.engines.search.report import Report
from xfdfuzz.invariants.vocabulary import INVARIANTS, SEVERITIES, Violation
from xfdfuzz.kernel.event import IRQ_FPU, USER_COPY, Event
from xfdfuzz.program.ops import OPS
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import PANIC, Step
from xfdfuzz.program.text import format_op
from xfdfuzz.report import findings
from xfdfuzz.report.changes import changes
from xfdfuzz.report.listing import COLUMNS, Row, cell

#: Prose is not set wider than this: long lines are hard to read.
_PROSE = 100
_INDENT = " " * 6
_SEVERITY = {"panic": "bold red", "corruption": "red", "leak": "red", "warn": "yellow", "abi": "yellow"}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the caller decide the exit code; rich would exit with 1, which says that there was a violation."""
        raise BrokenPipeError


def console(stream: TextIO) -> Console:
    """A console that colours on a terminal only (NO_COLOR is honoured) and never alters what it prints."""
    return _Console(file=stream, markup=False, highlight=False, emoji=False)


def line(out: Console, *parts: str | tuple[str, str] | Text) -> None:
    """Print one line, a (text, style) pair at a time; long ones are left to the terminal, so they can be searched."""
    out.print(Text.assemble(*parts), soft_wrap=True)


def prose(out: Console, text: str, indent: str = "  ", style: str = "") -> None:
    """Print a sentence or two, wrapped."""
    width = min(out.width, _PROSE)
    for row in textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False):
        line(out, (row, style))


# -- traces ------------------------------------------------------------------------------------------------------------


def trace(out: Console, program: Program, judged: Iterable[Judged]) -> None:
    """The program as it ran: each op with its result, what it broke, what the kernel reported, what it changed."""
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
        line(out, (head, _SEVERITY[violation.severity]), violation.message)


def _event(out: Console, event: Event) -> None:
    trace = " <- ".join(event.trace[1:])
    line(out, (f"{_INDENT}{event.kind} in {event.site}", "yellow"), (f" <- {trace}" if trace else "", "dim"))


# -- findings ----------------------------------------------------------------------------------------------------------


def finding(out: Console, found: Finding, invariants: Sequence[Path] = ()) -> None:
    """What was broken, why that is bad, the shortest way there, where it is saved and how to see it again."""
    violation = found.violation
    line(out)
    line(out, (violation.invariant, "bold"), f" on {found.revision.label}: ", severity(violation))
    prose(out, f"{violation.message}.")
    line(out, f"  bucket {violation.bucket}")
    line(out, f"  found by {found.engine}")
    line(out)
    line(out, ("  Why this is bad", "bold"))
    prose(out, INVARIANTS[violation.invariant].doc)
    line(out)
    trace(out, found.program, judge(found.program, found.revision, expectations=False).trace)
    line(out)
    if found.file is None:
        line(out, ("  not saved", "bold red"))
        return
    line(out, "  saved   ", (str(found.file), "green"))
    line(out, "  replay  ", (findings.replay_command(found, invariants), "green"))


def severity(violation: Violation) -> Text:
    """The severity in its colour."""
    return Text(violation.severity, _SEVERITY[violation.severity])


def campaign(out: Console, report: Report[Finding], repeat: str, invariants: Sequence[Path] = ()) -> None:
    """A whole fuzz run: coverage, findings, and the sum of it last, where a terminal shows it."""
    coverage(out, report)
    for found in report.found:
        finding(out, found, invariants)
    if report.found:
        _overview(out, report.found)
    total(out, report, "finding")
    line(out, f"repeat: {repeat}")


def total(out: Console, report: Report[Any], noun: str) -> None:
    """What a search found and did, in a line."""
    stats, count = report.stats, len(report.found)
    line(out)
    line(
        out,
        (f"{report.label}: ", "bold"),
        (f"{count} {noun}{'' if count == 1 else 's'}", "bold red" if count else "bold green"),
        f" in {stats.examples} examples, {stats.steps} steps, {stats.seconds:.1f} s; seed {report.plan.seed}",
        (" (interrupted)" if report.interrupted else "", "yellow"),
    )
    if len(stats.engines) > 1:
        line(
            out,
            ", ".join(f"{name}: {done.examples} examples, {done.steps} steps" for name, done in stats.engines.items()),
        )


def _overview(out: Console, found: Sequence[Finding]) -> None:
    """One line a finding, worst first: they may be many."""
    ranked = sorted(found, key=lambda f: SEVERITIES.index(f.violation.severity))
    line(out)
    rows = [(f.violation.severity, str(len(f.program.ops)), f.violation.bucket) for f in ranked]
    table(out, ("severity", "ops", "bucket"), rows)


def coverage(out: Console, report: Report[Any]) -> None:
    """How often each op gave each result, and the ops that never ran: those are a gap in the campaign."""
    seen = report.stats.coverage
    line(out)
    line(out, (f"coverage: {report.stats.pairs} pairs of op and result", "bold"))
    rows = [
        (op, "  ".join(f"{result} {count}" for result, count in seen[op].most_common())) for op in OPS if seen.get(op)
    ]
    table(out, (), rows)
    never = [op for op in OPS if not seen.get(op)]
    if never:
        prose(out, f"never executed: {', '.join(never)}", indent="")


# -- replay ------------------------------------------------------------------------------------------------------------


def verdict(out: Console, file: str, program: Program, judged: Verdict, traced: bool) -> None:
    """One line; with ``traced`` the annotated trace above it."""
    if traced:
        line(out)
        line(out, (program.title or file, "bold"), f" on {judged.revision.label}")
        trace(out, program, judged.trace)
        line(out)
    state = Text("ok  ", "bold green") if judged.ok else Text("FAIL", "bold red")
    line(out, state, f"  {file}  {judged.revision.label}  {_conclusion(judged)}")


def _conclusion(judged: Verdict) -> str:
    """What came out, and how much of the program that speaks for."""
    if judged.failures:
        text = "; ".join(judged.failures)
    else:
        text = f"violates {', '.join(judged.broken)}" if judged.broken else "clean"
    left_out = f"{judged.left_out} of {len(judged.results)} ops could not happen"
    if not judged.happened:
        return f"nothing was executed: {left_out}"
    return f"{text}; {left_out}" if judged.left_out else text


# -- lists -------------------------------------------------------------------------------------------------------------


def listing(out: Console, kind: str, rows: Sequence[Row]) -> None:
    """The columns of a list that fit a terminal; JSON has the others."""
    columns = [column for column in COLUMNS[kind] if rows and column in rows[0]]
    table(out, columns, [tuple(cell(row, column) for column in columns) for row in rows])


def table(out: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns without a box.  The last one is wrapped on a terminal; piped, a row is a line, for grep."""
    every = [tuple(header), *rows] if header else list(rows)
    if not every:
        return
    widths = [max(map(len, column)) for column in list(zip(*every, strict=True))[:-1]]
    indent = sum(widths) + 2 * len(widths)
    for nr, row in enumerate(every):
        start = "".join(f"{cell:{width}}  " for cell, width in zip(row, widths, strict=False))
        wide = max(out.width - indent, 20)
        last = (textwrap.wrap(row[-1], wide, break_on_hyphens=False) or [""]) if out.is_terminal else [row[-1]]
        for part_nr, part in enumerate(last):
            head = start if part_nr == 0 else " " * indent
            line(out, (f"{head}{part}", "bold" if header and nr == 0 else ""))
