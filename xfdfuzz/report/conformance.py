"""The score of recorded results: how the operations of real kernels came out on the model."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from xfdfuzz.engines.conform.score import OUTCOMES, Difference, Judgement, RecordedViolation, Score
from xfdfuzz.engines.stream.events import KnownMet, ProgramJudged
from xfdfuzz.invariants.vocabulary import SEVERITIES
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import format_ret
from xfdfuzz.program.text import format_program
from xfdfuzz.report.console import console, line

#: Numbers below it are counts and sizes, those from it on masks and contents.
_HEX_FROM = 1 << 16


def as_object(total: Score) -> dict[str, Any]:
    """One object for all recordings."""
    return {
        **total.counts(),
        "kernels": {kernel: total.counts(kernel) for kernel in total.kernels()},
        "models": total.models(),
        "schedules": [_schedule(judgement) for judgement in total.judgements if judgement.schedule],
        "not_judged": total.not_judged,
        "not_compared": dict(total.not_compared.most_common()),
        "differences": [_difference(difference) for difference in total.differences],
        "known_violations": dict(total.known.most_common()),
        "violations": [_violation(violation) for violation in total.violations],
    }


def as_events(judgement: Judgement) -> Iterator[KnownMet | ProgramJudged]:
    """One recording as all formats tell it, and what it broke that was known."""
    recording, label = judgement.recording, judgement.revision
    for bucket in judgement.known:
        yield KnownMet(label, bucket)
    different = [found for found in judgement.differences if not found.reason]
    name = f"{recording.file}:{recording.line} {recording.program}"
    text = f"{judgement.compared} compared, {judgement.different} different, {len(judgement.violations)} violations"
    severity = min((one.violation.severity for one in judgement.violations), key=SEVERITIES.index, default="")
    out = io.StringIO()
    for difference in different:
        _print_difference(console(out), difference, first=difference is different[0])
    for violation in judgement.violations:
        _print_violation(console(out), violation, first=violation is judgement.violations[0])
    ok = not (different or judgement.violations) if judgement.compared else None
    yield ProgramJudged(label, recording.file, ok, text, out.getvalue(), severity, name)


def _schedule(judgement: Judgement) -> dict[str, Any]:
    recording = judgement.recording
    return {
        "file": recording.file,
        "line": recording.line,
        "kernel": recording.kernel,
        "recording": recording.program,
        "schedule": list(judgement.schedule),
    }


def _place(found: Difference | RecordedViolation) -> dict[str, Any]:
    return {
        "file": found.recording.file,
        "line": found.recording.line,
        "kernel": found.recording.kernel,
        "recording": found.recording.program,
        "op": found.operation.index if found.operation else None,
        "operation": found.operation.text if found.operation else None,
    }


def _violation(found: RecordedViolation) -> dict[str, Any]:
    return {
        **_place(found),
        "invariant": found.violation.invariant,
        "severity": found.violation.severity,
        "bucket": found.violation.bucket,
        "message": found.violation.message,
        "program": format_program(found.program),
    }


def _difference(found: Difference) -> dict[str, Any]:
    return {
        **_place(found),
        "field": found.field.name,
        "recorded": _written(found.field.recorded),
        "model": _written(found.field.model),
        "reason": found.reason or None,
        "program": format_program(found.program),
    }


def _written(value: object) -> str:
    """``-EINVAL``, ``4096``, ``0x602e7``, ``#NM``."""
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    return hex(value) if value >= _HEX_FROM else format_ret(value)


def terminal(out: Console, total: Score) -> None:
    """A line a kernel, what was not compared, and every difference and violation; with a program for the first
    difference of a recording that nobody explained, and for the first violation of a bucket."""
    for kernel in (*total.kernels(), ""):
        counts = total.counts(kernel)
        numbers = "  ".join(f"{counts[name]:6} {name}" for name in OUTCOMES)
        line(out, f"{kernel or 'all':10}", numbers)
    for kernel, revisions in total.models().items():
        if revisions != [f"v{kernel}"]:
            line(out, f"{kernel:10}", f"judged on {', '.join(revisions)}")
    if total.not_judged:
        line(out, f"{len(total.not_judged):6} not judged: recordings that standard error names")
    for kind, count in total.not_compared.most_common():
        line(out, f"{count:6} not compared: {kind}")
    for bucket, count in total.known.most_common():
        line(out, f"{count:6} known violation: {bucket}")
    for judgement in total.judgements:
        if judgement.schedule:
            recording = judgement.recording
            line(out, ("schedule", "dim"), f"  {recording.file}:{recording.line}  {recording.program}")
            for decision in judgement.schedule:
                line(out, f"      {decision}")
    shown: set[object] = set()
    for found in total.differences:
        place = (found.recording.file, found.recording.line)
        _print_difference(out, found, first=place not in shown)
        if not found.reason:
            shown.add(place)
    for broken in total.violations:
        _print_violation(out, broken, first=broken.violation.bucket not in shown)
        shown.add(broken.violation.bucket)


def _print_difference(out: Console, found: Difference, first: bool) -> None:
    _head(out, found, ("explained", "dim") if found.reason else ("different", "bold red"))
    said = f"{found.field.name}: recorded {_written(found.field.recorded)}, model {_written(found.field.model)}"
    line(out, f"      {said}{'; ' + found.reason if found.reason else ''}")
    if first and not found.reason:
        _program(out, found.program)


def _print_violation(out: Console, found: RecordedViolation, first: bool) -> None:
    violation = found.violation
    _head(out, found, ("violation", "bold red"))
    line(out, f"      {violation.invariant} ({violation.severity}): {violation.message}")
    if first:
        _program(out, found.program)


def _head(out: Console, found: Difference | RecordedViolation, verdict: tuple[str, str]) -> None:
    recording, operation = found.recording, found.operation
    where = f"op {operation.index}: {operation.text}" if operation else "at the end"
    line(out, verdict, f"  {recording.file}:{recording.line}  {recording.program}  {where}")


def _program(out: Console, program: Program) -> None:
    for row in format_program(program).splitlines():
        line(out, f"      {row}")
