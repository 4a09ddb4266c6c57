"""A bisection: where a verdict changes between two kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from xfdfuzz.engines.compare.bisect import Bisection, Line
from xfdfuzz.report.console import line, table


def terminal(out: Console, way: Line, found: Sequence[Bisection]) -> None:
    """The kernels that were judged, then what changed where and how sure that is."""
    rows = [(p.label, p.patch.version if p.patch else "", ", ".join(sorted(p.broken)) or "clean") for p in way.tried]
    table(out, ("up to", "version", "verdict"), rows)
    line(out, (f"{len(way.tried)} of {len(way.labels)} kernels judged", "dim"))
    for one in found:
        line(out)
        _bisection(out, one)


def _bisection(out: Console, one: Bisection) -> None:
    if one.at is None:
        line(out, (one.invariant, "bold"), ": no change found way the ends")
    else:
        line(out, (one.at.label, "bold"), f" {one.change} ", (one.invariant, "bold"))
        if one.at.patch:
            patch = one.at.patch
            first = f"first in {patch.version}" if patch.version else "in no kernel"
            fixes = f"; fixes {', '.join(patch.fixes)}" if patch.fixes else ""
            line(out, f"  {patch.title}")
            line(out, f"  {first}{fixes}")
    if one.verified:
        line(out, ("  verified: ", "green"), one.verified)
    elif one.at is not None:
        line(out, ("  not verified", "bold yellow"))
    for doubt in one.doubts:
        line(out, f"  {doubt}")


def as_object(file: str, way: Line, found: Sequence[Bisection]) -> dict[str, Any]:
    """The whole search as one object."""
    return {
        "file": file,
        "from": way.first.label,
        "to": way.last.label,
        "kernels": len(way.labels),
        "tried": [{"label": p.label, "violations": sorted(p.broken)} for p in way.tried],
        "changes": [_change(one) for one in found],
    }


def _change(one: Bisection) -> dict[str, Any]:
    patch = one.at.patch if one.at else None
    return {
        "invariant": one.invariant,
        "change": one.change,
        "at": one.at.label if one.at else None,
        "title": patch.title if patch else None,
        "version": patch.version if patch else None,
        "fixes": list(patch.fixes) if patch else [],
        "verified": one.verified,
        "doubts": list(one.doubts),
    }
