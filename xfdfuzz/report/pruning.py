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
    alone.  ``untold`` counts findings, removed and silent files that are not shown.  The databases had ``programs``, of
    which ``dropped`` many added nothing."""

    label: str
    kept: Sequence[Finding] = ()
    removed: Sequence[Path] = ()
    silent: Sequence[Path] = ()
    untold: tuple[int, int, int] = (0, 0, 0)
    programs: int = 0
    dropped: int = 0

    def counted(self) -> Result:
        """The same without names."""
        return Result(self.label, untold=(len(self.kept), len(self.removed), len(self.silent)))

    def joined(self, other: Result) -> Result:
        """Both in one."""
        kept, removed, silent = (
            (*self.kept, *other.kept),
            (*self.removed, *other.removed),
            (*self.silent, *other.silent),
        )
        counts = [a + b for a, b in zip(self.untold, other.untold, strict=True)]
        return self._replace(kept=kept, removed=removed, silent=silent, untold=(counts[0], counts[1], counts[2]))

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind, shown or not."""
        told = (len(self.kept), len(self.removed), len(self.silent))
        return dict(zip(("kept", "removed", "silent"), map(sum, zip(told, self.untold, strict=True)), strict=True))


def terminal(out: Console, result: Result) -> None:
    """A line for each file that is worth one, then the sum."""
    for file in result.silent:
        line(
            out, ("silent ", "yellow"), f"{file}: does not violate on {result.label} what it is named after; left alone"
        )
    for file in result.removed:
        line(out, f"removed {file}")
    counts = result.counts
    sums = f"{counted(counts['kept'], 'finding')} kept, {counts['removed']} removed, {counts['silent']} silent"
    kept = f"; databases: {result.dropped} of {counted(result.programs, 'program')} dropped" if result.programs else ""
    line(out, (f"{result.label}: ", "bold"), f"{sums}{kept}")


def as_object(result: Result) -> dict[str, Any]:
    """The whole of it as one object."""
    return {
        "revision": result.label,
        "kept": [
            {
                "bucket": finding.bucket,
                "shape": finding.violation.shape,
                "file": str(finding.file) if finding.file else None,
            }
            for finding in result.kept
        ],
        "removed": [str(file) for file in result.removed],
        "silent": [str(file) for file in result.silent],
        "counts": result.counts,
        "database_programs": result.programs,
        "database_dropped": result.dropped,
    }
