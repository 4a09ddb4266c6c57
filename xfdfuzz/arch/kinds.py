"""What the number in a field of a structure means.

A field's kind stands where the field is declared, in its annotation: ``xfd: Xfd`` is a ``c_uint64`` that holds a value
of IA32_XFD.  What reports print, what canonical states rename and what lists show of a field follows from it
(:mod:`xfdfuzz.kernel.fields`).  Here are the kinds of kinds, and those that the processor has; the kernel's are in
:mod:`xfdfuzz.kernel.state`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from xfdfuzz.memory.cstruct import U8, U32, U64


@dataclass(frozen=True)
class Kind:
    """One kind of number.  Only numbers of one kind can be compared in a way that means something."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Mask(Kind):
    """A bitmap with a bit for each ``name``."""

    def __str__(self) -> str:
        return f"mask of {self.name}s"


@dataclass(frozen=True)
class MsrMask(Mask):
    """Such a bitmap that is the value of an MSR; it is written as a number."""

    def __str__(self) -> str:
        return f"MSR value, {super().__str__()}"


@dataclass(frozen=True)
class Reference(Kind):
    """The number of a ``name`` in its pool, plus ``offset``; where that is 1, 0 refers to none."""

    offset: int = 0

    def __str__(self) -> str:
        return f"{self.name}+{self.offset}" if self.offset else self.name


@dataclass(frozen=True)
class Enumeration(Kind):
    """One of a few values, which have names."""

    names: Mapping[int, str] = field(hash=False)


XFEATURES = Mask("component")
XFD = MsrMask("component")
TOKEN = Kind("register content")
FLAG = Kind("flag")
COUNT = Kind("count")
SIZE = Kind("size in bytes")
REGISTER_INDEX = Kind("register index")
REGISTER_VALUE = Kind("register value")

#: A set of state components.
Xfeatures = Annotated[U64, XFEATURES]
#: A value of IA32_XFD, or of IA32_XFD_ERR: the components that are disabled, or that a #NM was about.
Xfd = Annotated[U64, XFD]
#: What a register, or its place in memory, holds; 0 is the initial configuration.
Token = Annotated[U8, TOKEN]
#: 0 or 1.
Flag = Annotated[U8, FLAG]
#: How many, or how deep.
Count = Annotated[U8, COUNT]
#: A size, or an offset, in bytes.
Size = Annotated[U32, SIZE]
#: What RDMSR and WRMSR have in ECX, and CPUID as the subleaf.
RegisterIndex = Annotated[U32, REGISTER_INDEX]
#: What an instruction writes to XCR0 or to an MSR, or what it reads.
RegisterValue = Annotated[U64, REGISTER_VALUE]
