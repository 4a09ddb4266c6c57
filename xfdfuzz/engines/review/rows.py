"""A state as rows: one for each object of a pool, with its own fields and those of what it points to.

A column is called by the name of the pool's objects and the path that reports have: ``v.guest_fpu.perm`` of a vCPU,
``v.guest_fpu.fpstate.xfd`` of the buffer that it points to, ``v.cpu.xfd_state`` of the CPU that it is loaded on.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from struct import Struct as Layout
from typing import Any, NamedTuple

from xfdfuzz.arch.kinds import FLAG, Kind, Reference
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.fields import Element, Field, elements, fields_of
from xfdfuzz.memory.traced import Place

#: The pools by what their objects are called; ``host`` is the system itself.
POOLS = {
    "v": "vcpus",
    "t": "tasks",
    "t.sigframe": "sigframes",
    "cpu": "cpus",
    "vm": "vms",
    "fpstate": "fpstates",
    "host": "",
}
_POINTED_TO = {"cpu": "cpus", "task": "tasks", "vcpu": "vcpus", "vm": "vms", "fpstate": "fpstates"}
#: The pools whose objects may not exist, which their first byte says.
_MAY_BE_MISSING = frozenset({"vcpus", "tasks", "sigframes", "vms", "fpstates"})
_NUMBERS = {1: "b", 4: "i", 8: "q"}

#: What stands in a column: a number, the bytes of register contents, or None where no pointer leads there.
Value = int | bytes | None
Row = tuple[Value, ...]


class Column(NamedTuple):
    """A field, of the object itself or, by the pointer ``via``, of what it points to."""

    path: str
    field: Field
    via: Field | None = None

    @property
    def kind(self) -> Kind:
        """What the number means."""
        return self.field.kind

    @property
    def several(self) -> bool:
        """Whether it has the contents of all registers, which are no number."""
        return self.field.size not in _NUMBERS

    @property
    def compared(self) -> bool:
        """Whether it is no field, but says whether two pointers are equal."""
        return not self.field.member


class _Record:
    """The fields of one struct, read at once."""

    def __init__(self, struct: Any) -> None:
        self.fields = fields_of(struct)
        layout, end = "<", 0
        for field in self.fields:
            letter = _NUMBERS.get(field.size, f"{field.size}s")
            layout += f"{field.start - end}x{letter if field.signed or field.size not in _NUMBERS else letter.upper()}"
            end = field.start + field.size
        self.read = Layout(layout).unpack_from
        self.nothing: Row = (None,) * len(self.fields)


@functools.cache
def _record(struct: Any) -> _Record:
    return _Record(struct)


class Pool(NamedTuple):
    """Objects of one type: its record, and where each is that can be asked about."""

    name: str
    struct: Any
    starts: tuple[int, ...]


@functools.cache
def pool(name: str) -> Pool:
    """The pool with that name; of the tasks, those of user space."""
    if not name:
        return Pool(name, st.System, (0,))
    members: list[Element] = [one for one in elements() if one.pool == name]
    chosen = members[: st.USER_TASKS] if name == "tasks" else members
    return Pool(name, members[0].struct, tuple(one.start for one in chosen))


class _Hop(NamedTuple):
    """A pointer among the fields of a row: its place there, and what it may point to."""

    place: int
    offset: int
    null: bool
    record: _Record
    starts: Sequence[int]

    def leads_to(self, pointer: Value) -> int | None:
        """The number of the object, None for NULL and for what does not exist here, such as a kernel thread."""
        assert isinstance(pointer, int)
        at = pointer - self.offset
        return None if (self.null and pointer == st.NULL) or not 0 <= at < len(self.starts) else at


class Rows:
    """The rows of a pool's objects; ``host``, ``v``, ``t`` and so on say which, ``cpus`` how many the machine has."""

    def __init__(self, name: str, cpus: int) -> None:
        self.pool = pool(POOLS[name])
        self._record = _record(self.pool.struct)
        self._may_be_missing = self.pool.name in _MAY_BE_MISSING
        self._starts = self.pool.starts[:cpus] if self.pool.name == "cpus" else self.pool.starts
        self.columns, self._hops, self._compared = _columns(name)
        self.places = {column.path: place for place, column in enumerate(self.columns)}

    def of(self, raw: bytes) -> Iterator[tuple[int, Row]]:
        """The number of each object that there is, with its row."""
        for nr, start in enumerate(self._starts):
            if raw[start] or not self._may_be_missing:
                yield nr, self._row(raw, start)

    # -- where a column is in the memory -------------------------------------------------------------------------------

    def possible_places(self, column: Column) -> list[Place]:
        """Where it may be, of any object."""
        there = points_to(column.via, self.pool.name) if column.via else None
        return [(start + column.field.start, column.field.size) for start in (there or self.pool).starts]

    def places_now(self, column: Column, memory: bytes | bytearray) -> list[Place]:
        """Where it is, of each object that there is."""
        starts = [start for start in self._starts if memory[start] or not self._may_be_missing]
        if column.via is not None:
            hop = next(hop for hop in self._hops if self.columns[hop.place].field == column.via)
            pointers = [self._record.read(memory, start)[hop.place] for start in starts]
            starts = [hop.starts[at] for at in map(hop.leads_to, pointers) if at is not None]
        return [(start + column.field.start, column.field.size) for start in dict.fromkeys(starts)]

    def decisive(self, column: Column, memory: bytes | bytearray) -> Iterator[Place]:
        """What decides where it is and what stands there."""
        if self._may_be_missing:
            yield from ((start, 1) for start in self._starts)
        if column.via is not None:
            yield from ((start + column.via.start, column.via.size) for start in self._starts)
        yield from self.places_now(column, memory)

    # -- rows ----------------------------------------------------------------------------------------------------------

    def _row(self, raw: bytes, start: int) -> Row:
        row: Row = self._record.read(raw, start)
        for hop in self._hops:
            at = hop.leads_to(row[hop.place])
            row += hop.record.nothing if at is None else hop.record.read(raw, hop.starts[at])
        return row + tuple([None if row[b] is None else int(row[a] == row[b]) for a, b in self._compared])


@functools.cache
def _columns(name: str) -> tuple[tuple[Column, ...], tuple[_Hop, ...], tuple[tuple[int, int], ...]]:
    here = pool(POOLS[name])
    own = fields_of(here.struct)
    columns, hops = [Column(f"{name}.{field.path}", field) for field in own], []
    for place, field in enumerate(own):
        there = points_to(field, here.name)
        if there is not None:
            kind = field.kind
            assert isinstance(kind, Reference)
            record = _record(there.struct)
            hops.append(_Hop(place, kind.offset, kind.name == "fpstate" or kind.offset == 1, record, there.starts))
            columns += [Column(f"{name}.{field.path}.{inner.path}", inner, field) for inner in record.fields]
    compared = [*_buffers(columns)]
    columns += [_comparison(columns[one], columns[other]) for one, other in compared]
    return tuple(columns), tuple(hops), tuple(compared)


def _buffers(columns: Sequence[Column]) -> Iterator[tuple[int, int]]:
    """The places of two pointers to buffers, the object's own and another object's."""
    places = [place for place, column in enumerate(columns) if column.kind == Reference("fpstate")]
    for one in places:
        yield from ((one, other) for other in places if columns[one].via is None and columns[other].via is not None)


def _comparison(one: Column, other: Column) -> Column:
    path = f"({one.path} == {other.path})"
    return Column(path, Field(path, "", FLAG, None, 0, 1), other.via)


def points_to(field: Field, owner: str) -> Pool | None:
    """The pool of what a field points to, if that is another kind of object; a number that is kept for later, such as
    where a vCPU ran last, is signed and no pointer."""
    kind = field.kind
    there = _POINTED_TO.get(kind.name) if isinstance(kind, Reference) else None
    return None if there is None or there == owner or field.signed else pool(there)
