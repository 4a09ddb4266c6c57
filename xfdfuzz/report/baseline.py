"""The entries of a baseline, replayed, and what was done with each."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from xfdfuzz.baseline.entries import Looked
from xfdfuzz.report.console import line


def terminal(out: Console, looked: Looked, what: str) -> None:
    """One line."""
    entry = looked.entry
    reason = f" ({entry.reason})" if entry.reason and entry.bucket else ""
    line(
        out, f"{entry.place}: ", (entry.bucket or ", ".join(_buckets(looked)) or "nothing", "bold"), f": {what}{reason}"
    )


def as_object(looked: Looked, what: str) -> dict[str, Any]:
    """Where it shows and where it does not, by the labels of revisions; ``result`` is what was done or is wrong."""
    return {
        "place": looked.entry.place,
        "buckets": _buckets(looked),
        "revisions": looked.entry.revisions,
        "reason": looked.entry.reason,
        "shows": looked.shows,
        "gone": looked.gone,
        "result": what,
    }


def _buckets(looked: Looked) -> list[str]:
    if looked.entry.bucket:
        return [looked.entry.bucket]
    return sorted({kind.partition(" in ")[0] for shapes in looked.shapes.values() for kind in shapes})
