"""The fields of the modelled system: where each of them is, what reports call it, and what its number means.

Nothing is declared here: names and kinds stand in the annotations of :mod:`~xfdfuzz.kernel.state` and of the structs
that it nests.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from xfdfuzz.arch.kinds import Kind
from xfdfuzz.kernel.state import (
    FIRST_EMBEDDED,
    FIRST_VALLOC,
    INIT_FPSTATE,
    NULL,
    OWN_SIGFRAME,
    USER_TASKS,
    Ghost,
    System,
)


class Field(NamedTuple):
    """One number, or what all components hold, which is one field: a byte each.

      ``path`` is what reports call it, ``member`` its place among the attributes (as
    :class:`~xfdfuzz.arch.cstruct.Regions` takes it), ``struct`` the type that declares it, ``size`` in bytes,
    ``signed`` whether it may be less than 0.  Path, member and ``start`` begin at what was asked for its fields:
    ``guest_fpu.xfd`` of a Vcpu, ``v0.guest_fpu.xfd`` of the system.
    """

    path: str
    member: str
    kind: Kind
    struct: Any
    start: int
    size: int
    signed: bool = False

    def inside(self, path: str, member: str, start: int) -> Field:
        """The same field, seen from the structure that holds its own at ``member`` and ``start``."""
        path = ".".join(part for part in (path, self.path) if part)
        return self._replace(path=path, member=f"{member}.{self.member}", start=start + self.start)


class Element(NamedTuple):
    """One of the structures that the system has several of; ``pool`` is ``cpus``, ``ghost.tasks`` and so on."""

    path: str
    pool: str
    nr: int
    struct: Any
    start: int

    def fields(self) -> Iterator[Field]:
        """Its fields, as fields of the system."""
        return (field.inside(self.path, f"{self.pool}[{self.nr}]", self.start) for field in fields_of(self.struct))


@functools.cache
def fields() -> tuple[Field, ...]:
    """Every field of the system, in the order of the memory: ``host.dead``, ``cpu0.xfd_state``, ``t0.fpu.fpstate``,
    ``v0.guest_fpu.realloc_request``, ``ghost.v0.xfd``."""
    host = (field._replace(path=f"host.{field.path}") for field in fields_of(System))
    return (*host, *(field for element in elements() for field in element.fields()))


def elements() -> Iterator[Element]:
    """The members of all pools, in the order of the memory."""
    yield from _elements(System, "", 0)
    yield from _elements(Ghost, "ghost.", _descriptor(System, "ghost").offset)


@functools.cache
def fields_of(struct: Any) -> tuple[Field, ...]:
    """The fields of a struct and of those nested in it, but of no element of an array of structs."""
    return tuple(_fields_of(struct))


def task_name(nr: int) -> str:
    """``t0``, or ``k0``: the kernel thread of CPU 0."""
    return f"t{nr}" if nr < USER_TASKS else f"k{nr - USER_TASKS}"


def sigframe_name(nr: int) -> str:
    """``t0.sigframe``, or ``t0.sigframe1``: the one of the handler that interrupted the handler of that.

    ``t0.sigframe-own`` is the one that the task has made itself.
    """
    depth, task = divmod(nr, USER_TASKS)
    if depth == OWN_SIGFRAME:
        return f"t{task}.sigframe-own"
    return f"t{task}.sigframe{depth or ''}"


def fpstate_name(nr: int) -> str:
    """``init_fpstate``, a task's ``t0.fpu.__fpstate``, ``fpstate#11`` of those from vzalloc(), or ``NULL``."""
    if nr == NULL:
        return "NULL"
    if nr == INIT_FPSTATE:
        return "init_fpstate"
    if nr < FIRST_VALLOC:
        return f"{task_name(nr - FIRST_EMBEDDED)}.fpu.__fpstate"
    return f"fpstate#{nr}"


#: What reports call an element of a pool.
_ELEMENT_NAMES: dict[str, Callable[[int], str]] = {
    "cpus": "cpu{}".format,
    "tasks": task_name,
    "sigframes": sigframe_name,
    "fpstates": fpstate_name,
    "vms": "vm{}".format,
    "vcpus": "v{}".format,
    "vmms": "vmm{}".format,
    "tracers": "tracer{}".format,
}


def _elements(struct: Any, prefix: str, base: int) -> Iterator[Element]:
    for name, ctype in struct._fields_:
        if _is_pool(ctype):
            start = base + _descriptor(struct, name).offset
            for nr in range(ctype._length_):
                path = f"{prefix}{_ELEMENT_NAMES[name](nr)}"
                yield Element(path, f"{prefix}{name}", nr, ctype._type_, start + nr * ctypes.sizeof(ctype._type_))


def _fields_of(struct: Any) -> Iterator[Field]:
    hints = get_type_hints(struct, include_extras=True)
    for name, ctype in struct._fields_:
        start, marks = _descriptor(struct, name).offset, list(_marks(hints[name]))
        path = next((mark for mark in marks if isinstance(mark, str)), name)
        if issubclass(ctype, ctypes.Structure):
            yield from (field.inside(path, name, start) for field in fields_of(ctype))
        elif not _is_pool(ctype):
            kind = next((mark for mark in marks if isinstance(mark, Kind)), None)
            if kind is None:
                raise TypeError(f"{struct.__name__}.{name}: its type says nothing of the kind of number")
            signed = not issubclass(ctype, ctypes.Array) and ctype(-1).value < 0
            yield Field(path, name, kind, struct, start, ctypes.sizeof(ctype), signed)


def _marks(hint: Any) -> Iterator[Any]:
    """What an annotation says beside the type, of an array also what it says of its numbers."""
    if get_origin(hint) is Annotated:
        for mark in get_args(hint)[1:]:
            yield from _marks(mark) if get_origin(mark) is Annotated else (mark,)


def _is_pool(ctype: Any) -> bool:
    return issubclass(ctype, ctypes.Array) and issubclass(ctype._type_, ctypes.Structure)


def _descriptor(struct: Any, name: str) -> Any:
    """The descriptor of a member, which ctypes' stubs do not know."""
    return getattr(struct, name)
