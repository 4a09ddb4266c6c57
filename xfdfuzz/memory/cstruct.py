"""C structures declared once, as annotations.

A field is written ``xfd: U64`` and is an ``int`` to the type checker and a ``c_uint64`` at run time; the decorator
:func:`struct` derives ``_fields_`` from the annotations.  (``__init_subclass__`` would run too early: ctypes fixes the
layout when it first sees ``_fields_``.)  Every structure has empty ``__slots__``, so that a mistyped assignment raises
instead of landing in ``__dict__`` and being lost on copy.  ``Annotated`` may say more of a field, for others.

ctypes cuts a value to the size of its field without a word: check ranges where values enter.

ctypes also makes a new object each time that a nested structure is looked at.  What is looked at all the time is
therefore :func:`bound`: the objects of everything in it are made once.  :func:`resident` is one whose bytes can also be
read and set as a whole, which takes no longer than the copy.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from struct import Struct as Layout
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from typing import Generic

    U8 = int
    I8 = int
    U32 = int
    U64 = int

    _T = TypeVar("_T")

    class Struct:
        """One C structure; equality is identity, compare ``bytes()``."""

        def __init__(self, **fields: int) -> None: ...
        def __bytes__(self) -> bytes: ...

    class Array(Generic[_T]):
        """A fixed-size C array of integers or structures."""

        def __getitem__(self, index: int) -> _T: ...
        def __setitem__(self, index: int, value: _T) -> None: ...
        def __iter__(self) -> Iterator[_T]: ...
        def __len__(self) -> int: ...
        def __bytes__(self) -> bytes: ...

else:
    U8 = Annotated[int, ctypes.c_uint8]
    I8 = Annotated[int, ctypes.c_int8]
    U32 = Annotated[int, ctypes.c_uint32]
    U64 = Annotated[int, ctypes.c_uint64]

    class Struct(ctypes.Structure):  # noqa: D101 - described above, for the type checker
        __slots__ = ()

    class Array:  # noqa: D101
        def __class_getitem__(cls, item: Any) -> Any:
            return Annotated[list, item]


_S = TypeVar("_S", bound="type[Struct]")
_V = TypeVar("_V", bound="Struct")


def _ctype(hint: Any) -> Any:
    if get_origin(hint) is not Annotated:
        return hint
    plain, ctype, *_ = get_args(hint)
    return plain if issubclass(plain, Struct) else ctype


def struct(**lengths: int) -> Any:
    """Derive ``_fields_`` of the decorated class; ``lengths`` gives the length of each ``Array`` field."""

    def derive(cls: _S) -> _S:
        hints = get_type_hints(cls, vars(sys.modules[cls.__module__]), include_extras=True)
        own = inspect.get_annotations(cls)
        fields = []
        for name in own:
            ctype = _ctype(hints[name])
            if name in lengths:
                ctype = _ctype(ctype) * lengths[name]
            fields.append((name, ctype))
        cls._fields_ = fields  # type: ignore[attr-defined]
        return cls

    return derive


def copy_of(value: Any) -> Any:
    """A copy of a structure that shares nothing with it."""
    return type(value).from_buffer_copy(value)


def from_bytes(kind: type[_V], raw: bytes) -> _V:
    """The structure with those bytes."""
    made: _V = kind.from_buffer_copy(raw)  # type: ignore[attr-defined]
    return made


class Noted:
    """A structure that notes who reads and writes it (:mod:`~xfdfuzz.memory.traced`)."""

    __slots__ = ()

    def __bytes__(self) -> bytes:
        raise NotImplementedError

    def part(self, start: int, size: int) -> bytes:
        """Some of its bytes."""
        raise NotImplementedError

    def become(self, raw: bytes) -> None:
        """Let its bytes be these."""
        raise NotImplementedError


def assign(target: Any, source: Any) -> None:
    """``*target = *source`` for two structures of one type."""
    if isinstance(target, Noted):
        target.become(bytes(source))
    elif isinstance(source, Noted):
        ctypes.memmove(ctypes.addressof(target), bytes(source), ctypes.sizeof(target))
    else:
        ctypes.memmove(ctypes.addressof(target), ctypes.addressof(source), ctypes.sizeof(source))


def bound(value: _V, *plain: type[Struct]) -> _V:
    """``value`` in the same memory, with every structure in it ready to hand: looking at one costs next to nothing.

    An array of structures is a tuple there.  Change the content of a nested structure, or :func:`assign` to it; the
    name that it has in its parent stays bound to it.  What is in structures of the types ``plain`` is left as it is:
    making an object takes as long as a few looks.
    """
    owner: Any = value
    kind: Any = type(owner)
    made: _V = _binder(kind, plain)(ctypes.addressof(owner), owner)
    return made


def resident(kind: type[_V], *plain: type[Struct]) -> tuple[_V, memoryview]:
    """A new structure, :func:`bound`, and the memory that it is in."""
    memory = bytearray(ctypes.sizeof(kind))  # type: ignore[arg-type]
    made: Any = kind
    return bound(made.from_buffer(memory), *plain), memoryview(memory)


@functools.cache
def _binder(ctype: Any, plain: tuple[Any, ...]) -> Callable[[int, object], Any]:
    """What makes the bound object of a type, given its address and who owns the memory."""
    fields = [] if ctype in plain else getattr(ctype, "_fields_", [])
    nested = [(name, of) for name, of in fields if issubclass(of, ctypes.Array | ctypes.Structure)]
    members = [(name, _member(of, plain), getattr(ctype, name).offset) for name, of in nested]
    body = {
        "__doc__": ctype.__doc__,
        # these slots hide the nested members; the owner of the memory must not go before those who look at it
        "__slots__": (*(name for name, *_ in members), "_owner"),
        # a copy is an ordinary structure
        "from_buffer_copy": staticmethod(ctype.from_buffer_copy),
    }
    at = type(ctype.__name__, (ctype,), body).from_address  # type: ignore[attr-defined]

    def bind(address: int, owner: object) -> Any:
        made = at(address)
        made._owner = owner
        for name, member, offset in members:
            setattr(made, name, member(address + offset, owner))
        return made

    return bind


def _member(ctype: Any, plain: tuple[Any, ...]) -> Callable[[int, object], Any]:
    """The same for a member: an array of structures becomes a tuple."""
    if not issubclass(ctype, ctypes.Array) or not issubclass(ctype._type_, ctypes.Structure):
        return _binder(ctype, plain)
    bind, size = _binder(ctype._type_, plain), ctypes.sizeof(ctype._type_)
    offsets = range(0, size * ctype._length_, size)
    return lambda address, owner: tuple([bind(address + offset, owner) for offset in offsets])


class Regions:
    """Reads many fields of a structure at once, as bytes: ten times faster than one after another.

    A path is ``dead``, ``cpus[].guest`` (of every element), ``tasks[:5].mm`` (of the first five), ``vcpus[2]`` (one of
    them) or ``vcpus[].arch.xcr0``.  Neighbours come as one region.
    """

    def __init__(self, cls: Any, *paths: str) -> None:
        self.places = merged(place for path in paths for place in _places(cls, path.split(".")))
        self._unpack = reader(self.places)

    def __call__(self, value: Any) -> tuple[bytes, ...]:
        """The regions, in the order of their addresses."""
        try:
            return self._unpack(value)
        except TypeError:  # nobody pays for the question who reads ordinary memory
            if not isinstance(value, Noted):
                raise
        return tuple([value.part(*place) for place in self.places])


def merged(places: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Places (start and size), in their order, with neighbours taken together."""
    found: list[tuple[int, int]] = []
    for start, size in sorted(places):
        if found and sum(found[-1]) == start:
            found[-1] = found[-1][0], found[-1][1] + size
        else:
            found.append((start, size))
    return found


def reader(places: Iterable[tuple[int, int]]) -> Callable[[Any], tuple[bytes, ...]]:
    """What gives the bytes at those places, which do not overlap and are in their order."""
    layout, end = "<", 0
    for start, size in places:
        layout += f"{start - end}x{size}s"
        end = start + size
    return Layout(layout).unpack_from


def _places(cls: Any, path: list[str], base: int = 0) -> Iterator[tuple[int, int]]:
    """Offset and size of what the path names."""
    head, *rest = path
    name, _, elements = head.partition("[")
    field = getattr(cls, name)
    inner, base = dict(cls._fields_)[name], base + field.offset
    chosen = slice(1)
    if elements:
        limits = elements.removesuffix("]")
        chosen = slice(int(limits), int(limits) + 1) if limits.isdigit() else slice(int(limits[1:] or inner._length_))
        inner = inner._type_
    for index in range(chosen.start or 0, chosen.stop):
        start = base + index * ctypes.sizeof(inner)
        if rest:
            yield from _places(inner, rest, start)
        else:
            yield start, ctypes.sizeof(inner)
