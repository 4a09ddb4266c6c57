"""Against what something was held that was not found: scopes with their states, steps of the fuzzer's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xfdfuzz.engines.review.survival import Break, Checked
from xfdfuzz.report import steps


def text(checked: Iterable[Checked]) -> str:
    """``tiny (8,828 states), the first 13,028 states of small and 121,821 fuzzed steps``."""
    return _joined([_text(one) for one in checked])


def _text(one: Checked) -> str:
    if one.where == "fuzz":
        return f"{one.count:,} fuzzed steps"
    return f"{one.where} ({one.count:,} states)" if one.exhausted else f"the first {one.count:,} states of {one.where}"


def _joined(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)


def as_object(checked: Iterable[Checked]) -> list[dict[str, Any]]:
    """``where`` is a scope, or ``fuzz``; ``count`` its states, or steps."""
    return [vars(one) for one in checked]


def broken(one: Break | None) -> dict[str, Any] | None:
    """What broke it: ``where``, the ``program``, and what that breaks before which leaves nothing to go on from."""
    if one is None:
        return None
    return {"where": one.where, "program": steps.as_object(one.program), "behind": one.behind or None}
