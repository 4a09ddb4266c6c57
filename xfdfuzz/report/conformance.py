"""The score of recorded results: how the operations of real kernels came out on the model."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from xfdfuzz.engines.conform.score import OUTCOMES, Difference, Score
from xfdfuzz.program.step import format_ret
from xfdfuzz.program.text import format_program
from xfdfuzz.report.console import line

#: Numbers below it are counts and sizes, those from it on masks and contents.
_HEX_FROM = 1 << 16


def as_object(total: Score) -> dict[str, Any]:
    """One object for all recordings."""
    return {
        **total.counts(),
        "kernels": {kernel: total.counts(kernel) for kernel in total.kernels()},
        "not_compared": dict(total.not_compared.most_common()),
        "differences": [_difference(difference) for difference in total.differences],
    }


def _difference(found: Difference) -> dict[str, Any]:
    return {
        "file": found.recording.file,
        "line": found.recording.line,
        "kernel": found.recording.kernel,
        "recording": found.recording.program,
        "op": found.operation.index,
        "operation": found.operation.text,
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
    """A line a kernel, what was not compared, and every difference; with a program for those that nobody explained."""
    for kernel in (*total.kernels(), ""):
        counts = total.counts(kernel)
        numbers = "  ".join(f"{counts[name]:6} {name}" for name in OUTCOMES)
        line(out, f"{kernel or 'all':10}", numbers)
    for kind, count in total.not_compared.most_common():
        line(out, f"{count:6} not compared: {kind}")
    shown: set[tuple[str, int]] = set()
    for found in total.differences:
        place = (found.recording.file, found.recording.line)
        _print(out, found, first=place not in shown)
        if not found.reason:
            shown.add(place)


def _print(out: Console, found: Difference, first: bool) -> None:
    recording, operation = found.recording, found.operation
    verdict = ("explained", "dim") if found.reason else ("different", "bold red")
    where = f"  {recording.file}:{recording.line}  {recording.program}  op {operation.index}: {operation.text}"
    line(out, verdict, where)
    said = f"{found.field.name}: recorded {_written(found.field.recorded)}, model {_written(found.field.model)}"
    line(out, f"      {said}{'; ' + found.reason if found.reason else ''}")
    if first and not found.reason:
        for row in format_program(found.program).splitlines():
            line(out, f"      {row}")
