"""A cache of what a deterministic function came to, by its footprint: the few bytes of a state that it read.

The function's first read is of the same place every time, and what it finds in the places so far decides which one
comes next.  So what it did is a path in a tree: a node has the places that are read in any case, and by what stands
there the next node, or in the end the outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from xfdfuzz.engines.judge.finding import NotReproducibleError
from xfdfuzz.memory.cstruct import merged, reader
from xfdfuzz.memory.traced import Place

T = TypeVar("T")
#: The bytes at a node's places.
_Key = tuple[bytes, ...]


class _Node(Generic[T]):
    """Places that are read one after another, and what follows by what stands there."""

    __slots__ = ("follows", "key", "next", "places")

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places
        self.key = reader(merged(places))
        self.follows: dict[_Key, _Node[T] | T] = {}
        self.next = self.follows.get


class FootprintCache(Generic[T]):
    """The outcomes of one function of a state's bytes; none of them is None."""

    def __init__(self) -> None:
        self._tree: _Node[T] | T | None = None

    def find(self, state: bytes) -> T | None:
        """What the function comes to in a state, if it has found the same in all that it read before."""
        tree = self._tree
        while type(tree) is _Node:
            tree = tree.next(tree.key(state))
        return tree  # type: ignore[return-value]

    def learn(self, state: bytes, reads: Sequence[Place], outcome: T) -> None:
        """Keep what it came to in a state for which nothing was found; ``reads``: the places that it read, in order.

        Raises NotReproducibleError where another outcome is known for what it read, or its first read is elsewhere.
        """
        self._tree = self._with(self._tree, state, reads, outcome)

    def _with(self, tree: _Node[T] | T | None, state: bytes, reads: Sequence[Place], outcome: T) -> _Node[T] | T:
        if tree is None:
            if not reads:
                return outcome
            tree = _Node(reads)
        if not isinstance(tree, _Node):
            raise NotReproducibleError("something does not depend on the state alone")
        common = _common(tree.places, reads)
        if common < len(tree.places):
            tree = _divided(tree, common)
        key = tree.key(state)
        tree.follows[key] = self._with(tree.follows.get(key), state, reads[common:], outcome)
        return tree


def _common(places: Sequence[Place], reads: Sequence[Place]) -> int:
    """How many of both are the same, from the first one on."""
    if places == reads[: len(places)]:
        return len(places)
    pairs = enumerate(zip(places, reads, strict=False))
    found = next((number for number, (one, other) in pairs if one != other), min(len(places), len(reads)))
    if not found:
        raise NotReproducibleError("something does not depend on the state alone")
    return found


def _divided(node: _Node[T], count: int) -> _Node[T]:
    """The same in two nodes, one after the other, of which the first has ``count`` places."""
    upper: _Node[T] = _Node(node.places[:count])
    size = 1 + max(start + size for start, size in node.places)
    for key, follows in node.follows.items():
        state = bytearray(size)
        for (start, length), found in zip(merged(node.places), key, strict=True):
            state[start : start + length] = found
        lower = upper.follows.setdefault(upper.key(state), _Node(node.places[count:]))
        assert isinstance(lower, _Node)
        lower.follows[lower.key(state)] = follows
    return upper
