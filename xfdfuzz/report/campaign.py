"""A campaign of `fuzz` on one revision: what was found, a line each, and the sum of it last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.search.report import Report
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.invariants.sometimes import GOALS
from xfdfuzz.program.ops import OPS
from xfdfuzz.report import finding, goals, known, search
from xfdfuzz.report.console import line, prose, table


def terminal(
    out: Console,
    report: Report[Finding],
    repeat: str,
    invariants: Sequence[Path] = (),
    verbose: bool = False,
    flat: bool = False,
) -> None:
    """What it came to; ``repeat`` is the command that does it again.  If ``verbose``, the coverage and every finding
    with its trace come first; if ``flat``, consequences are listed as their roots are."""
    if verbose:
        _coverage(out, report.stats)
    finding.several(out, report.found, invariants, verbose, {} if flat else report.roots)
    known.terminal(out, report.known, report.met)
    search.terminal(out, report, "finding", repeat)


def _coverage(out: Console, stats: Stats) -> None:
    """How often each op gave each result, and the ops that never ran: those are a gap in the campaign."""
    seen = stats.coverage
    line(out)
    line(out, (f"coverage: {stats.pairs} pairs of op and result", "bold"))
    rows = [
        (op, "  ".join(f"{result} {count}" for result, count in seen[op].most_common())) for op in OPS if seen.get(op)
    ]
    table(out, (), rows)
    never = [op for op in OPS if not seen.get(op)]
    if never:
        prose(out, f"never executed: {', '.join(never)}", indent="")
    goals.terminal(out, _goals(stats))


def _goals(stats: Stats) -> dict[str, int]:
    """Every goal that there is: a campaign has all rules."""
    return {name: stats.goals[name] for name in GOALS}


def as_object(report: Report[Finding]) -> dict[str, Any]:
    """The whole campaign as one object."""
    return {
        "revision": report.label,
        **search.as_object(report),
        "engines": {name: effort._asdict() for name, effort in report.stats.engines.items()},
        "goals": goals.as_object(_goals(report.stats)),
        "findings": [finding.as_object(found) | {"root": _root(report, found)} for found in report.found],
        **known.as_object(report.known, report.met),
    }


def _root(report: Report[Finding], found: Finding) -> str | None:
    """The bucket of what it follows from."""
    return report.roots[found].bucket if found in report.roots else None
