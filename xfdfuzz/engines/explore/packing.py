"""A state as few bytes: of a whole system, only what can differ in a scope."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, chain, groupby
from operator import itemgetter
from struct import Struct as Layout
from typing import Any

from xfdfuzz.arch.traced import Place
from xfdfuzz.kernel import state as st
from xfdfuzz.strategies.scopes import Scope


class ScopeError(Exception):
    """A state went beyond what its scope says can change: the scope is declared too small, which is a bug of ours."""


class Packing:
    """Packs systems' bytes and unpacks them; ``first`` is one of them, which has what never differs."""

    def __init__(self, scope: Scope, first: bytes) -> None:
        self._ranges = _ranges(scope)
        self._parts = itemgetter(*(slice(start, end) for start, end in self._ranges))
        self._rest = _complement(self._ranges)
        self._constant = self._outside(first)
        sizes = [end - start for start, end in self._ranges]
        self._split = Layout("".join(f"{size}s" for size in sizes)).unpack
        # where the bytes of a system are in a packed state, -1 if they are not
        self._where = [-1] * len(first)
        for (start, end), position in zip(self._ranges, accumulate(sizes, initial=0), strict=False):
            self._where[start:end] = range(position, position + end - start)

    def pack(self, raw: bytes | bytearray) -> bytes:
        """What can differ, of a system's bytes."""
        return b"".join(self._parts(raw))

    def unpack(self, packed: bytes) -> bytes:
        """The system's bytes again."""
        return b"".join(chain.from_iterable(zip(self._split(packed), self._constant, strict=True)))

    def packed(self, places: Iterable[Place]) -> list[Place]:
        """Where in a packed state the bytes of a system's places are, as far as they can differ."""
        found: list[Place] = []
        where = self._where
        for start, size in places:
            first, last = where[start], where[start + size - 1]
            if first >= 0 and last - first == size - 1:
                found.append((first, size))
            else:
                found += self._parts_of(start, size)
        return found

    def _parts_of(self, start: int, size: int) -> Iterator[Place]:
        """The same for a place that is not, or not as a whole, in packed states."""
        where = enumerate(self._where[start : start + size])
        for _, run in groupby(where, key=lambda one: (one[1] < 0, one[1] - one[0])):
            positions = [position for _, position in run]
            if positions[0] >= 0:
                yield positions[0], len(positions)

    def check(self, raw: bytes | bytearray) -> None:
        """Raise ScopeError if anything differs that is not packed."""
        if self._outside(raw) != self._constant:
            raise ScopeError("a state differs from the first one in what its scope says cannot change")

    def _outside(self, raw: bytes | bytearray) -> list[bytes]:
        return [bytes(raw[start:end]) for start, end in self._rest]


class Patch:
    """What is written to a state, whatever is in the rest of it; ``size`` is that of all states.

    ``changes`` are offsets and what is written there, in their order.
    """

    def __init__(self, size: int, changes: Iterable[tuple[int, bytes]]) -> None:
        layout, end, found = "", 0, []
        for at, data in changes:
            layout += f"{at - end}s{len(data)}x"
            end = at + len(data)
            found += [b"", data]
        self._kept = _unpack(f"{layout}{size - end}s")
        self._pieces = [*found, b""]

    def __call__(self, state: bytes) -> bytes:
        """The state with it."""
        pieces = self._pieces[:]
        pieces[::2] = self._kept(state)
        return b"".join(pieces)


@functools.lru_cache(maxsize=10_000)
def _unpack(layout: str) -> Callable[[bytes], tuple[bytes, ...]]:
    # patches write to the same places again and again
    return Layout(layout).unpack


def _ranges(scope: Scope) -> list[tuple[int, int]]:
    """The bytes that can differ, merged, in order."""
    cpus = range(scope.machine.cpus)
    tasks = [*range(scope.tasks), *(st.USER_TASKS + cpu for cpu in cpus)]
    members: dict[str, list[int]] = {
        "cpus": [*cpus],
        "tasks": tasks,
        "sigframes": [*range(scope.tasks)],
        "fpstates": [
            *(st.FIRST_EMBEDDED + task for task in tasks),
            *range(st.FIRST_VALLOC, st.FIRST_VALLOC + scope.slots),
        ],
        "vms": [0],
        "vcpus": [*range(scope.vcpus)],
    }
    found = [(0, _descriptor(st.System, "cpus").offset)]
    for name, indices in members.items():
        found += [_element(st.System, name, index) for index in indices]
    ghost = _descriptor(st.System, "ghost").offset
    for name, count in (("tasks", scope.tasks), ("vcpus", scope.vcpus)):
        found += [_moved(_element(st.Ghost, name, index), ghost) for index in range(count)]
    return _merged(sorted(found))


def _moved(place: tuple[int, int], by: int) -> tuple[int, int]:
    """A range further on."""
    return place[0] + by, place[1] + by


def _descriptor(struct: Any, name: str) -> Any:
    return getattr(struct, name)


def _element(struct: Any, name: str, index: int) -> tuple[int, int]:
    """Where element ``index`` of an array member lies."""
    array = dict(struct._fields_)[name]
    size = ctypes.sizeof(array._type_)
    start = _descriptor(struct, name).offset + index * size
    return start, start + size


def _merged(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged = [places[0]]
    for start, end in places[1:]:
        if start == merged[-1][1]:
            merged[-1] = merged[-1][0], end
        else:
            merged.append((start, end))
    return merged


def _complement(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What lies behind each of them."""
    ends = [end for _, end in places]
    starts = [start for start, _ in places]
    return list(zip(ends, [*starts[1:], ctypes.sizeof(st.System)], strict=True))  # type: ignore[arg-type]
