"""Structures that note what of them is read and written: the footprint of a function that works on them.

A deterministic function that finds the same bytes in all that it reads does the same again, whatever stands elsewhere.

A traced structure looks like the one that it stands for (:mod:`~xfdfuzz.memory.cstruct`), and :func:`bytes`,
:func:`~xfdfuzz.memory.cstruct.copy_of`, :func:`~xfdfuzz.memory.cstruct.assign` and
:class:`~xfdfuzz.memory.cstruct.Regions` take it.  It is no ctypes structure, so that nothing reads its memory
unnoticed: whatever would (``ctypes.memmove()``, a memoryview) raises TypeError.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable, Iterator
from struct import Struct as Layout
from typing import Any, ClassVar

from xfdfuzz.memory.cstruct import Noted

#: A place in a memory: where it begins, and its size, in bytes.
Place = tuple[int, int]

#: Marks for as many bytes as anybody reads or writes at once.
_ONES = b"\x01" * 65536


class Footprint:
    """A memory as it is :attr:`now` and as it was :attr:`before`, and what was read and written in between.

    ``reads`` are the places of the state before that what was done depends on, in the order in which they were first
    read, each byte once; what was written before it was read is none of them.
    """

    def __init__(self, size: int) -> None:
        self.reads: list[Place] = []
        self.before = Side(self, size)
        self.now = _Now(self, size)
        self._size = size

    def begin(self, state: bytes) -> None:
        """Let the memory be in that state, of which nothing was read."""
        self.reads.clear()
        nowhere = bytes(self._size)
        self.before.memory[:] = self.now.memory[:] = state
        self.before.known[:] = self.now.known[:] = self.now.written[:] = nowhere

    def note(self, at: int, size: int) -> None:
        """Somebody reads what is there, and not known."""
        self.reads.append((at, size))
        self.before.known[at : at + size] = self.now.known[at : at + size] = _ONES[:size]

    def written(self, at: int, size: int) -> list[Place]:
        """The places in that one that were written, neighbours as one, in their order."""
        return [(start, end - start) for start, end in _runs(self.now.written, 1, at, at + size)]

    def changes(self) -> list[Place]:
        """The places that were written; as one where what is between two of them is known."""
        found: list[Place] = []
        for start, size in self.written(0, self._size):
            end = sum(found[-1]) if found else 0
            if found and self.now.known.find(0, end, start) < 0:
                start, size = found[-1][0], start + size - found[-1][0]
                found.pop()
            found.append((start, size))
        return found


class Side:
    """The memory of a footprint at one time; ``known`` marks the bytes there that follow from what was read."""

    def __init__(self, footprint: Footprint, size: int) -> None:
        self.memory = bytearray(size)
        self.known = bytearray(size)
        self.note = footprint.note

    def read(self, at: int, size: int) -> bytes:
        """The bytes at a place."""
        for start, end in _runs(self.known, 0, at, at + size):
            self.note(start, end - start)
        return bytes(self.memory[at : at + size])

    def write(self, at: int, data: bytes) -> None:
        """Let these bytes be there."""
        raise TypeError("the state before a step is nobody's to change")


class _Now(Side):
    """The memory as it is, which can be written."""

    def __init__(self, footprint: Footprint, size: int) -> None:
        super().__init__(footprint, size)
        self.written = bytearray(size)

    def write(self, at: int, data: bytes) -> None:
        """Let these bytes be there; where they are sure to be there already, that counts for nothing."""
        end = at + len(data)
        if self.memory[at:end] == data and self.known.find(0, at, end) < 0:
            return
        self.memory[at:end] = data
        self.known[at:end] = self.written[at:end] = _ONES[: len(data)]


class Watched(Footprint):
    """The same, where every access to one of some ``places`` is told of, not the first one alone.

    ``tell`` gets the place, and what is about to be written there, or None where it is read; whoever is told finds in
    :attr:`now` what still stands there.
    """

    def __init__(self, size: int, places: Iterable[Place], tell: Callable[[Place, bytes | None], None]) -> None:
        super().__init__(size)
        self.places = tuple(places)
        self.tell = tell
        self.mask = bytearray(size)
        for at, length in self.places:
            self.mask[at : at + length] = _ONES[:length]
        #: What an unwatched one would know; of what is watched, ``known`` never says so, or nobody would ask here.
        self.noted = bytearray(size)
        self.now = _WatchedNow(self, size)

    def begin(self, state: bytes) -> None:
        """Let the memory be in that state, of which nothing was read."""
        super().begin(state)
        self.noted[:] = bytes(len(self.noted))

    def note(self, at: int, size: int) -> None:
        """Somebody reads what is there, and not known, or watched."""
        for start, end in [*_runs(self.noted, 0, at, at + size)]:
            super().note(start, end - start)
            self.noted[start:end] = _ONES[: end - start]
        for place in self.touched(at, size):
            self.tell(place, None)
            self.forget(place)

    def touched(self, at: int, size: int) -> list[Place]:
        """The watched places that have a byte there."""
        if self.mask.find(1, at, at + size) < 0:
            return []
        return [place for place in self.places if place[0] < at + size and sum(place) > at]

    def forget(self, place: Place) -> None:
        """Let the next access be noted, too."""
        self.now.known[place[0] : sum(place)] = bytes(place[1])


class _WatchedNow(_Now):
    """The memory of a watched footprint as it is."""

    def __init__(self, footprint: Watched, size: int) -> None:
        super().__init__(footprint, size)
        self._footprint = footprint

    def write(self, at: int, data: bytes) -> None:
        """Let these bytes be there."""
        footprint, end = self._footprint, at + len(data)
        touched = footprint.touched(at, len(data))
        for place in touched:
            start = place[0] - at
            if start >= 0 and start + place[1] <= len(data):
                footprint.tell(place, data[start : start + place[1]])
        self.known[at:end] = footprint.noted[at:end]
        super().write(at, data)
        footprint.noted[at:end] = self.known[at:end]
        for place in touched:
            footprint.forget(place)


def _runs(mask: bytearray, value: int, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Where bytes of that value stand side by side between ``at`` and ``end``: start and end of each run."""
    start = mask.find(value, at, end)
    while start >= 0:
        stop = mask.find(1 - value, start, end)
        stop = end if stop < 0 else stop
        yield start, stop
        start = mask.find(value, stop, end)


class Traced(Noted):
    """A structure, or an array of integers, at a place of a memory."""

    __slots__ = ("_at", "_side")
    kind: ClassVar[Any]
    size: ClassVar[int]

    def __init__(self, side: Side, at: int) -> None:
        self._side = side
        self._at = at

    def __bytes__(self) -> bytes:
        return self._side.read(self._at, self.size)

    @property
    def place(self) -> Place:
        """Where it is."""
        return self._at, self.size

    def part(self, start: int, size: int) -> bytes:
        """Some of its bytes."""
        return self._side.read(self._at + start, size)

    def become(self, raw: bytes) -> None:
        """``memcpy()``."""
        self._side.write(self._at, raw)

    @classmethod
    def from_buffer_copy(cls, value: Traced) -> Any:
        """An ordinary structure with its bytes."""
        return cls.kind.from_buffer_copy(bytes(value))


def traced(kind: Any, side: Side, at: int = 0) -> Any:
    """The structure of type ``kind`` at a place of a memory, with everything in it."""
    return _maker(kind)(side, at)


@functools.cache
def _maker(kind: Any) -> Callable[[Side, int], Any]:
    if not issubclass(kind, ctypes.Array):
        return _structure(kind)
    item, size = kind._type_, ctypes.sizeof(kind._type_)
    if not issubclass(item, ctypes.Structure):
        return _array(kind)
    make, places = _maker(item), range(0, size * kind._length_, size)
    return lambda side, at: tuple([make(side, at + place) for place in places])


def _structure(kind: Any) -> Callable[[Side, int], Any]:
    """The class of a structure's type: nested ones are attributes, numbers are properties."""
    nested = {name: of for name, of in kind._fields_ if issubclass(of, ctypes.Array | ctypes.Structure)}
    makers = [(name, _maker(of), getattr(kind, name).offset) for name, of in nested.items()]
    numbers = {name: _number(of, getattr(kind, name).offset) for name, of in kind._fields_ if name not in nested}

    def init(self: Any, side: Side, at: int) -> None:
        Traced.__init__(self, side, at)
        for name, make, offset in makers:
            setattr(self, name, make(side, at + offset))

    body = {"__slots__": tuple(nested), "__init__": init, "kind": kind, "size": ctypes.sizeof(kind), **numbers}
    return type(kind.__name__, (Traced,), body)


def _number(kind: Any, offset: int) -> property:
    """An integer of a structure; as in C, what is written is cut to its size."""
    size, mask = ctypes.sizeof(kind), (1 << 8 * ctypes.sizeof(kind)) - 1
    letter = {1: "b", 2: "h", 4: "i", 8: "q"}[size]
    value_at = Layout("<" + (letter if kind(-1).value < 0 else letter.upper())).unpack_from

    def get(self: Traced) -> int:
        side, at = self._side, self._at + offset
        if not side.known[at]:  # an integer is read and written as a whole
            side.note(at, size)
        value: int = value_at(side.memory, at)[0]
        return value

    def put(self: Traced, value: int) -> None:
        self._side.write(self._at + offset, (value & mask).to_bytes(size, "little"))

    return property(get, put)


def _array(kind: Any) -> Callable[[Side, int], Any]:
    """The class of an array of integers."""
    size, length = ctypes.sizeof(kind._type_), kind._length_
    elements = [_number(kind._type_, place * size) for place in range(length)]

    def get(self: Traced, index: int) -> int:
        number: int = elements[index].__get__(self)
        return number

    def put(self: Traced, index: int, value: int) -> None:
        elements[index].__set__(self, value)

    body = {
        "__slots__": (),
        "kind": kind,
        "size": size * length,
        "__getitem__": get,
        "__setitem__": put,
        "__len__": lambda self: length,
        "__iter__": lambda self: (get(self, index) for index in range(length)),
    }
    return type(kind.__name__, (Traced,), body)
