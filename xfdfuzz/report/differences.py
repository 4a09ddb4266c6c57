"""A search for what differs between two revisions: every difference in a line, and the sum of it last."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from xfdfuzz.engines.judge.finding import Discrepancy
from xfdfuzz.engines.judge.lockstep import Compared, run
from xfdfuzz.engines.search.report import Report
from xfdfuzz.program.text import format_op
from xfdfuzz.report import files, search
from xfdfuzz.report.console import line
from xfdfuzz.report.finding import saved


def terminal(out: Console, report: Report[Discrepancy], repeat: str, verbose: bool = False) -> None:
    """What it came to, a line for each difference; one that is alone is told whole.

    So are those that no file has and, if ``verbose``, all.  ``repeat`` is the command that does it again.
    """
    for found in report.found:
        if verbose or len(report.found) == 1 or found.file is None:
            explanation(out, found)
            saved(out, found)
    ranked = sorted(report.found, key=lambda found: len(found.program.ops))
    rows = [(str(len(found.program.ops)), found.difference.bucket, _again(found)) for found in ranked]
    search.found(out, ("ops", "difference", "see it again"), rows if len(rows) > 1 else ())
    search.terminal(out, report, "difference", repeat)


def _again(found: Discrepancy) -> str:
    return files.replay_command(found) if found.file else "not saved; its program stands above"


def explanation(out: Console, found: Discrepancy) -> None:
    """What each revision shows, and the way there."""
    first, second = found.pair
    line(out)
    line(out, (found.difference.bucket, "bold"))
    width = max(len(first.label), len(second.label))
    line(out, f"  {first.label:{width}}  {found.difference.first}")
    line(out, f"  {second.label:{width}}  {found.difference.second}")
    for other in found.also:
        line(out, f"  also: {other.what}")
    line(out)
    line(out, (" ".join(("  machine", *found.program.machine.words())), "dim"))
    for compared in run(found.program, found.pair):
        _step(out, compared)
    line(out)


def _step(out: Console, compared: Compared) -> None:
    first, second = (str(step.result) for step in (compared.first, compared.second))
    result = first if first == second else f"{first} | {second}"
    style = "bold red" if compared.differences else ""
    line(out, (f"{compared.first.number:4}  ", "dim"), (format_op(compared.first.op), "bold"), " = ", (result, style))


def as_object(report: Report[Discrepancy]) -> dict[str, Any]:
    """The whole search as one object."""
    return {
        "revisions": [revision.label for revision in report.revisions],
        **search.as_object(report),
        "differences": [difference(found) for found in report.found],
    }


def difference(found: Discrepancy) -> dict[str, Any]:
    """One of them as an object."""
    return {
        "bucket": found.difference.bucket,
        "op": found.difference.op,
        "what": found.difference.what,
        "first": found.difference.first,
        "second": found.difference.second,
        "also": [other.what for other in found.also],
        "program": files.text(found),
        "file": None if found.file is None else str(found.file),
    }
