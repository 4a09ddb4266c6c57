"""A campaign of `fuzz` on one revision: coverage, findings, and the sum of it last, where a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.search.report import Report
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.invariants.sometimes import GOALS
from xfdfuzz.invariants.vocabulary import SEVERITIES
from xfdfuzz.program.ops import OPS
from xfdfuzz.report import finding, goals, known, search
from xfdfuzz.report.console import line, prose, table


def terminal(out: Console, report: Report[Finding], repeat: str, invariants: Sequence[Path] = ()) -> None:
    """All of it; ``repeat`` is the command that does it again."""
    _coverage(out, report.stats)
    for found in report.found:
        finding.terminal(out, found, invariants)
    if report.found:
        _overview(out, report.found)
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


def _overview(out: Console, found: Sequence[Finding]) -> None:
    """One line a finding, worst first: they may be many."""
    ranked = sorted(found, key=lambda f: SEVERITIES.index(f.violation.severity))
    line(out)
    rows = [(f.violation.severity, str(len(f.program.ops)), f.violation.bucket) for f in ranked]
    table(out, ("severity", "ops", "bucket"), rows)


def as_object(report: Report[Finding]) -> dict[str, Any]:
    """The whole campaign as one object."""
    return {
        "revision": report.label,
        **search.as_object(report),
        "engines": {name: effort._asdict() for name, effort in report.stats.engines.items()},
        "goals": goals.as_object(_goals(report.stats)),
        "findings": [finding.as_object(found) for found in report.found],
        **known.as_object(report.known, report.met),
    }
