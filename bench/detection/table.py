"""How a measurement of detection is shown: a table for the terminal, Markdown for docs/detection.md, JSON."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console

from bench.detection.search import Effort, Row
from xfdfuzz.report.console import line, markdown_table, table

COLUMNS = ("bug", "kernel", "found", "median s", "slowest s", "examples", "with the fix", "violation")
_HEADINGS = {
    "fix": "Fixes of the queue, reverted",
    "open": "Open findings, their proposed cures left out",
    "series": "Posted series",
    "bug": "Programs of corpus/bugs",
}


def progress(row: Row) -> str:
    """One row in a line, for progress."""
    seconds = "not found" if row.seconds is None else f"{row.seconds:.1f} s"
    return f"{row.subject.name}: {seconds}"


def summary(rows: Sequence[Row]) -> str:
    """How many were found in how much time, by their medians."""
    times = [row.seconds for row in rows if row.seconds is not None]
    within = [sum(seconds <= limit for seconds in times) for limit in (10, 60)]
    return f"{len(times)} of {len(rows)} found: {within[0]} within 10 s, {within[1]} within 60 s"


def terminal(console: Console, rows: Sequence[Row]) -> None:
    """A table for each kind of subject."""
    for kind, heading in _HEADINGS.items():
        chosen = [_cells(row) for row in rows if row.subject.kind == kind]
        if chosen:
            line(console, heading)
            table(console, COLUMNS, chosen)
            line(console, "")
    line(console, summary(rows))


def markdown(rows: Sequence[Row], effort: Effort) -> str:
    """The same as a page of its own."""
    parts = [
        "# Detection: does the fuzzer find the known bugs?",
        f"Written by `python -m bench.detection --engine {effort.engine} --seeds {effort.seeds} "
        f"--time {effort.seconds:g} --control {effort.control:g} --format markdown` with Python "
        f"{platform.python_version()} on {platform.machine()}, in CPU seconds. "
        "[performance.md](performance.md#detection) says what the columns mean.",
        f"**{summary(rows)}.**",
    ]
    for kind, heading in _HEADINGS.items():
        chosen = [_cells(row) for row in rows if row.subject.kind == kind]
        if chosen:
            parts += [f"## {heading}", markdown_table(COLUMNS, chosen)]
    return "\n\n".join(parts) + "\n"


def _cells(row: Row) -> list[str]:
    found = row.found
    slowest = f"{max(d.seconds for d in found):.1f}" if found else "-"
    return [
        row.subject.name,
        row.subject.broken,
        f"{len(found)} of {len(row.detections)}",
        "-" if row.seconds is None else f"{row.seconds:.1f}",
        slowest,
        f"{median(d.examples for d in found):.0f}" if found else "-",
        ", ".join(row.still) or "-",
        ", ".join(row.buckets) or "-",
    ]


def as_object(row: Row) -> dict[str, Any]:
    """One row as an object."""
    subject = row.subject
    return {
        "kind": subject.kind,
        "name": subject.name,
        "title": subject.title,
        "broken": subject.broken,
        "sound": subject.sound,
        "median_seconds": row.seconds,
        "searches": [
            {"seed": d.seed, "seconds": round(d.seconds, 3), "examples": d.examples, "bucket": d.bucket or None}
            for d in row.detections
        ],
        "found_with_the_fix": list(row.still),
    }
