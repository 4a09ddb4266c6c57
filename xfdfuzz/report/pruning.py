"""What is left of the programs that searches of a revision saved and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.report.console import counted, line


class Result(NamedTuple):
    """``kept`` is a finding for each bucket; ``silent`` files do not violate their invariant any more and are left
    alone; the databases had ``programs``, of which ``dropped`` many added nothing."""

    label: str
    kept: Sequence[Finding]
    removed: Sequence[Path]
    silent: Sequence[Path]
    programs: int
    dropped: int


def terminal(out: Console, result: Result) -> None:
    """A line for each file that is worth one, then the sum."""
    for file in result.silent:
        line(
            out, ("silent ", "yellow"), f"{file}: does not violate on {result.label} what it is named after; left alone"
        )
    for file in result.removed:
        line(out, f"removed {file}")
    sums = f"{counted(len(result.kept), 'bucket')}, a program each, {len(result.removed)} removed"
    kept = f"; databases: {result.dropped} of {counted(result.programs, 'program')} dropped" if result.programs else ""
    line(out, (f"{result.label}: ", "bold"), f"{sums}{kept}")


def as_object(result: Result) -> dict[str, Any]:
    """The whole of it as one object."""
    return {
        "revision": result.label,
        "kept": {finding.bucket: str(finding.file) if finding.file else None for finding in result.kept},
        "removed": [str(file) for file in result.removed],
        "silent": [str(file) for file in result.silent],
        "database_programs": result.programs,
        "database_dropped": result.dropped,
    }
