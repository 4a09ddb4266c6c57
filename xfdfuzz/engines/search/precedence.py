"""What was broken before what, in all that a search has executed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set


class Precedence:
    """For each bucket, or kind, that showed: what was broken in every program that showed it, by the same op or by one
    before it.

    A program that shows one thing without the other ends such a relation for good, so it gets the truer the more was
    executed, and nothing is lost by looking at each occurrence once.
    """

    def __init__(self) -> None:
        self.always: dict[str, frozenset[str]] = {}

    def note(self, broken: Collection[str], before: Set[str]) -> None:
        """One op broke these at once, behind those."""
        there = frozenset(before).union(broken)
        for key in broken:
            self.always[key] = self.always.get(key, there) & there

    def add(self, other: Precedence) -> None:
        """What another process has seen."""
        for key, there in other.always.items():
            self.always[key] = self.always.get(key, there) & there

    def among(self, keys: Iterable[str]) -> dict[str, set[str]]:
        """For each of the keys, which of the others were always broken by then."""
        chosen = set(keys)
        return {key: set(self.always.get(key, frozenset()) & chosen) - {key} for key in chosen}
