"""Which reachability goals were met: what was checked says nothing about a corner that was never reached."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from xfdfuzz.report.console import prose


def terminal(out: Console, counts: Mapping[str, int]) -> None:
    """``Goals: 18 of 20 are met; never met: ...``"""
    never = [name for name, count in counts.items() if not count]
    met = f"Goals: {len(counts) - len(never)} of {len(counts)} are met"
    prose(out, f"{met}; never met: {', '.join(never)}." if never else f"{met}.", indent="")


def as_object(counts: Mapping[str, int]) -> dict[str, int]:
    """How often each was met."""
    return dict(counts)
