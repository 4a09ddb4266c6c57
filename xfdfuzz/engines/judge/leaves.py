"""The single numbers of the system, and which of them are at a place that was read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from xfdfuzz.arch.kinds import COUNT, FLAG, TOKEN, Enumeration, Mask, Reference
from xfdfuzz.kernel.fields import Field, fields
from xfdfuzz.kernel.state import FIRST_VALLOC
from xfdfuzz.memory.traced import Place

#: Whether something is there at all, and where: everything follows from it, so it explains nothing.
_THERE = ("exists", "allocated", "user_mode", "mode")


class Leaf(NamedTuple):
    """A number of the system: a field, or what one ``component`` holds in a field of register contents."""

    field: Field
    component: int | None = None

    @property
    def place(self) -> Place:
        """Where it is."""
        if self.component is None:
            return self.field.start, self.field.size
        return self.field.start + self.component, 1

    def of(self, state: bytes | bytearray) -> int:
        """The number there, in that state."""
        start, size = self.place
        return int.from_bytes(state[start : start + size], "little", signed=self.field.signed)

    def put(self, state: bytearray, value: int) -> None:
        """Let that number be there."""
        start, size = self.place
        state[start : start + size] = value.to_bytes(size, "little", signed=self.field.signed)

    @property
    def structural(self) -> bool:
        """Whether it says what there is, where it is and what belongs to whom, rather than what stands in it."""
        return isinstance(self.field.kind, Reference) or self.field.kind == Mask("vm") or self._name in _THERE

    def alike(self, other: Leaf) -> bool:
        """Whether the same might stand in both, by their kinds and by what they are called: IA32_XFD and its shadow."""
        kind = self.field.kind
        if self == other or (kind, self.component) != (other.field.kind, other.component):
            return False
        if isinstance(kind, Enumeration | Reference) or kind in (FLAG, COUNT):  # equal by chance
            return False
        return self._name.startswith(other._name) or other._name.startswith(self._name)

    @property
    def _name(self) -> str:
        return self.field.member.rpartition(".")[2]


@cache
def _pointers() -> tuple[Leaf, ...]:
    """Those to fpstates, of vCPUs first: a task has theirs lent."""
    found = [Leaf(field) for field in fields() if field.kind == Reference("fpstate")]
    return tuple(sorted(found, key=lambda leaf: not leaf.field.path.startswith("v")))


def owner(leaf: Leaf, state: bytes) -> str:
    """What points to the buffer from vzalloc() that a leaf belongs to, in that state: ``v0.guest_fpu.fpstate``."""
    element = leaf.field.member.partition("]")[0].partition("[")
    if element[0] != "fpstates" or int(element[2]) < FIRST_VALLOC:
        return ""
    return next((one.field.path for one in _pointers() if one.of(state) == int(element[2])), "")


def leaves(places: Iterable[Place]) -> list[Leaf]:
    """The numbers at those places of the system, each once, in the order of the places."""
    found: dict[Leaf, None] = {}
    for start, size in places:
        first = bisect_right(_starts(), start) - 1
        for field in fields()[first : bisect_right(_starts(), start + size - 1)]:
            found.update(dict.fromkeys(_within(field, start, start + size)))
    return list(found)


@cache
def _starts() -> list[int]:
    return [field.start for field in fields()]


def _within(field: Field, start: int, end: int) -> Iterator[Leaf]:
    """The leaves of a field between two places."""
    several = field.kind == TOKEN and field.size > 1
    for leaf in [Leaf(field, component) for component in range(field.size)] if several else [Leaf(field)]:
        if leaf.place[0] < end and sum(leaf.place) > start:
            yield leaf
