"""What a search knew before it began: what of it still shows, what is gone, what should be gone by now."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rich.console import Console

from xfdfuzz.engines.stream.known import Known
from xfdfuzz.report.console import line, table

#: What is said of what is known and nobody has said why.
UNSAID = "known before"


def terminal(out: Console, known: Known, met: Collection[str]) -> None:
    """A line for each; nothing of what only the caller knows, which was not replayed, unless it was ``met``."""
    told = known.reasons if known.replayed else {bucket: known.reasons[bucket] for bucket in sorted(met)}
    rows = [("known", bucket, reason or UNSAID) for bucket, reason in told.items()]
    rows += [("gone", one.bucket, f"{one.program} does not show it any more") for one in known.gone]
    rows += [("expired", one.bucket, overdue(one.since, one.reason)) for one in known.expired]
    if rows:
        line(out)
        table(out, (), rows)


def overdue(since: str, reason: str) -> str:
    """What is said of what was to be gone by a day."""
    return f"expired since {since}: {reason or UNSAID}"


def as_object(known: Known, met: Collection[str]) -> dict[str, Any]:
    """``met``: whether the search itself came across it; all else is what replaying it has come to."""
    return {
        "known": [
            {"bucket": bucket, "reason": reason, "met": bucket in met} for bucket, reason in known.reasons.items()
        ],
        "gone": [one._asdict() for one in known.gone],
        "expired": [one._asdict() for one in known.expired],
    }
