"""A state as few bytes: of a whole system, only what can differ in a scope."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby
from struct import Struct as Layout

from xfdfuzz.kernel import state as st
from xfdfuzz.memory.cstruct import Regions
from xfdfuzz.memory.traced import Place
from xfdfuzz.strategies.scopes import Scope


class ScopeError(Exception):
    """A state went beyond what its scope says can change: the scope is declared too small, which is a bug of ours."""


class Packing:
    """Packs systems' bytes and unpacks them; ``first`` is one of them, which has what never differs."""

    def __init__(self, scope: Scope, first: bytes) -> None:
        self._parts = _parts(scope)
        places = self._parts.places
        ends = [start + size for start, size in places]
        self._rest = list(zip(ends, [*(start for start, _ in places[1:]), len(first)], strict=True))
        self._constant = self._outside(first)
        self._split = _unpack("".join(f"{size}s" for _, size in places))
        # where the bytes of a system are in a packed state, -1 if they are not
        self._where = [-1] * len(first)
        position = 0
        for start, size in places:
            self._where[start : start + size] = range(position, position + size)
            position += size

    def pack(self, raw: bytes | bytearray) -> bytes:
        """Of a system's bytes, those that can differ."""
        return b"".join(self._parts(raw))

    def unpack(self, packed: bytes) -> bytes:
        """All of a system's bytes: those of a packed state, and the first system's where nothing differs."""
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


class Delta:
    """What an op writes to a packed state, whatever is in the rest of it.

    ``size`` is that of all packed states, in bytes; ``changes`` are offsets and what is written there, in their order.
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
        """The packed state with the changes made."""
        pieces = self._pieces[:]
        pieces[::2] = self._kept(state)
        return b"".join(pieces)


@functools.lru_cache(maxsize=10_000)
def _unpack(layout: str) -> Callable[[bytes], tuple[bytes, ...]]:
    # many ops write to the same places
    return Layout(layout).unpack


def _parts(scope: Scope) -> Regions:
    """The bytes that can differ, from the first one of a system on."""
    cpus, tasks, vcpus = f"[:{scope.machine.cpus}]", f"[:{scope.tasks}]", f"[:{scope.vcpus}]"
    kthreads = [st.USER_TASKS + cpu for cpu in range(scope.machine.cpus)]
    fpstates = [
        *(st.FIRST_EMBEDDED + task for task in (*range(scope.tasks), *kthreads)),
        *range(st.FIRST_VALLOC, st.FIRST_VALLOC + scope.slots),
    ]
    return Regions(
        st.System,
        *("dead", "alloc_failures", f"cpus{cpus}", f"tasks{tasks}", "vms[0]", f"vcpus{vcpus}"),
        *(f"sigframes[{nr}]" for nr in scope.sigframes),
        *(f"tasks[{nr}]" for nr in kthreads),
        *(f"fpstates[{nr}]" for nr in fpstates),
        *(f"ghost.tasks{tasks}", f"ghost.vcpus{vcpus}", f"ghost.vmms{vcpus}", f"ghost.tracers{tasks}"),
    )
