"""What was broken before what, in all that a search has executed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set


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


def nearest_roots(after: Mapping[str, set[str]], ranked: Sequence[str]) -> dict[str, str]:
    """The root of each that has one.  Of those that never show without each other the first in rank stands for all."""

    def ahead(name: str) -> Iterator[str]:
        for other in ranked:
            if other in after[name] and (name not in after[other] or ranked.index(other) < ranked.index(name)):
                yield other

    alone = {name for name in ranked if not any(ahead(name))}
    found: dict[str, str] = {}
    for name in ranked:
        seen, level = {name}, [name]
        while name not in alone and level:
            level = [other for one in level for other in ahead(one) if other not in seen]
            seen.update(level)
            nearest = next((other for other in level if other in alone), None)
            if nearest is not None:
                found[name] = nearest
                break
    return found
