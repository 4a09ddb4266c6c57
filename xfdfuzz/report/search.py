"""What a search did, whatever it looked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from xfdfuzz.engines.search.report import Report
from xfdfuzz.report import reach
from xfdfuzz.report.console import counted, line, table
from xfdfuzz.report.privacy import not_shown


def terminal(out: Console, report: Report[Any], noun: str, repeat: str) -> None:
    """How far it came into a change, what it found and did in a line, then the command that repeats it; ``noun`` is
    what it looked for."""
    stats, count = report.stats, len(report.found)
    line(out)
    if report.reach:
        reach.terminal(out, report.reach)
    line(
        out,
        (f"{report.label}: ", "bold"),
        (counted(count, noun), "bold red" if count else "bold green"),
        f" in {counted(stats.examples, 'example')}, {counted(stats.steps, 'step')}, ",
        f"{stats.seconds:.1f} s; seed {report.plan.seed}",
        (" (interrupted)" if report.interrupted else "", "yellow"),
    )
    if report.withheld:
        line(out, (not_shown(report.withheld), "bold red"))
    if len(stats.engines) > 1:
        line(
            out,
            ", ".join(
                f"{name}: {counted(done.examples, 'example')}, {counted(done.steps, 'step')}"
                for name, done in stats.engines.items()
            ),
        )
    line(out, f"repeat: {repeat}")


def found(out: Console, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """What was found, a row each; the last column is the command that shows it again.

    Where a terminal is too narrow for that, it stands below, so that it can be copied.
    """
    if not rows:
        return
    line(out)
    *widths, longest = (max(map(len, column)) for column in zip(header, *rows, strict=True))
    if not out.is_terminal or sum(widths) + 2 * len(widths) + longest <= out.width:
        table(out, header, rows)
        return
    for row in (header, *rows):
        *cells, command = row
        style = "bold" if row is header else ""
        line(out, ("  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip(), style))
        line(out, (f"  {command}", style or "green"))


def as_object(report: Report[Any]) -> dict[str, Any]:
    """The keys that every search has."""
    stats = report.stats
    return {
        "seed": report.plan.seed,
        "examples": stats.examples,
        "steps": stats.steps,
        "seconds": round(stats.seconds, 3),
        "interrupted": report.interrupted,
        "withheld": report.withheld,
        "doubts": list(report.doubts),
        "reach": reach.as_object(report.reach),
        "coverage": {op: dict(results) for op, results in stats.coverage.items()},
    }
