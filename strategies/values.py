"""Argument values: what is likely to matter for a machine, and everything else now and then.

A rule draws one small number, a *pick*; :meth:`Domain.value` maps it to a value.  So a draw costs one integer, shrinks
towards the first and plainest value, and means the same on every revision.  Picks beyond the table give arbitrary
values of the argument's whole range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

from hypothesis import strategies as st

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_U_CET, MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS, XSTATE_MSRS
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.kvm.xsave import KVM_XSAVE_SIZE, UserBuffer
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.fields import Msrs, UserImage

T = TypeVar("T")


class Argument(Protocol):
    """What a rule may be given for one of its parameters: the one declaration that every engine draws from."""

    @property
    def values(self) -> Sequence[int]:
        """All of it, plainest first."""

    @property
    def strategy(self) -> st.SearchStrategy[int]:
        """How Hypothesis draws one: a single choice, which is the value itself."""


@dataclass(frozen=True)
class Range:
    """A whole number, both bounds included."""

    lowest: int
    highest: int

    @property
    def values(self) -> range:
        """All of them."""
        return range(self.lowest, self.highest + 1)

    @property
    def strategy(self) -> st.SearchStrategy[int]:
        """One integer."""
        return st.integers(self.lowest, self.highest)


@dataclass(frozen=True)
class Flag:
    """A switch, off or on."""

    values = (False, True)

    @property
    def strategy(self) -> st.SearchStrategy[int]:
        """One boolean."""
        return st.booleans()


#: Every value of a :class:`Domain` is drawn as one of these.
picks = Range(0, 255)
#: For targets (which vCPU, which task): a few are enough, the machine knows how many there are.
targets = Range(0, 3)
#: Of CPUID leaf 0xD: sizes, the components, one more.
subleaves = Range(0, xf.COMPONENTS)
#: Register contents.
tokens = Range(1, 3)
flags = Flag()


#: The MSRs that programs know, those of every machine first.
_MSRS = (MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS, *XSTATE_MSRS)


@dataclass(frozen=True)
class Domain(Generic[T]):
    """The values of one argument: a table, plainest first, and what the other picks give.

    ``spread`` of 256 picks go to the table, the rest to ``arbitrary``.
    """

    table: Sequence[T]
    arbitrary: Callable[[int], T]
    spread: int = 230

    def value(self, pick: int) -> T:
        """The value for a pick of 0 to 255."""
        if pick < self.spread:
            return self.table[pick % len(self.table)]
        return self.arbitrary(pick)


def scatter(pick: int) -> int:
    """A 64-bit value that looks like nothing in particular (splitmix64's finaliser), fixed for each pick."""
    z = (pick * 0x9E3779B97F4A7C15) & xf.U64_MAX
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & xf.U64_MAX
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & xf.U64_MAX
    return z ^ z >> 31


def neighbour(mask: int) -> Callable[[int], int]:
    """``mask`` with one bit flipped, or an arbitrary 64-bit value every eighth time."""
    return lambda pick: scatter(pick) if pick % 8 == 0 else mask ^ 1 << pick % 64


@dataclass(frozen=True)
class Domains:
    """The domains of all arguments on one machine."""

    xcr0: Domain[int]
    xfd: Domain[int]
    msrs: Domain[Msrs]
    msr: Domain[int]
    cpuid: Domain[CpuidEntries]
    image: Domain[UserImage]
    xfeatures: Domain[int]
    facility: Domain[int]
    altstack: Domain[int]
    vcpu_id: Domain[int]
    buffer: Domain[UserBuffer]
    device_attr: Domain[tuple[int, int]]


@lru_cache(maxsize=128)
def domains(machine: Machine) -> Domains:
    """Boundary masks of the machine, their single-bit neighbours, arbitrary 64-bit values, invalid indices."""
    full = machine.user_xfeatures or xf.MASK_FPSSE
    plain = full & ~(xf.MASK_XTILE | xf.MASK_DYN2)
    dynamic = machine.xfd_xfeatures
    without_tiles, half_tiles = full & ~xf.MASK_XTILE, full & ~xf.MASK_XTILE_DATA
    xcr0 = (full, plain, full & ~xf.MASK_DYN2, xf.MASK_X87, full, 0x7, without_tiles, half_tiles, 3)
    return Domains(
        xcr0=Domain(xcr0, neighbour(full)),
        xfd=_xfd(dynamic),
        msrs=_msrs(dynamic, machine.cet),
        msr=Domain(_MSRS if machine.cet else _MSRS[:2], lambda pick: _MSRS[pick % 2]),
        cpuid=_cpuid(full, plain, machine.supervisor_xfeatures & xf.MASK_CET),
        image=_image(full, dynamic),
        xfeatures=Domain((full, dynamic or full, xf.MASK_YMM, plain, 0, xf.MASK_XTILE), neighbour(full), 200),
        facility=Domain(
            (
                xf.XTILE_DATA,
                xf.DYN2 if machine.dyn2 else xf.XTILE_DATA,
                xf.XTILE_CFG,
                xf.DYN2,
                19,
                0,
                63,
                64,
                xf.U64_MAX,
            ),
            scatter,
        ),
        altstack=Domain((0, 8192, 65536, 2048, 12000), lambda pick: scatter(pick) & 0xFFFF),
        vcpu_id=Domain((0, 1, 0, 2, 4, 255), lambda pick: pick),
        buffer=_buffer(machine),
        device_attr=Domain(((0, 0), (0, 1), (1, 0)), lambda pick: (0, scatter(pick) & 0xFFFFFFFF)),
    )


def _buffer(machine: Machine) -> Domain[UserBuffer]:
    """Mostly enough room; now and then struct kvm_xsave, or the image of what the machine has, to the byte."""
    sizes = (KVM_XSAVE_SIZE, machine.cpuid.standard_size(machine.user_xfeatures))
    table = [UserBuffer()] * 12 + [UserBuffer(size, guarded) for guarded in (True, False) for size in sizes]
    return Domain(table, lambda pick: UserBuffer(scatter(pick) & 0x3FFF, pick % 2 == 0))


def _xfd(dynamic: int) -> Domain[int]:
    bits = [1 << i for i in xf.components_in(dynamic)]
    table = [0, dynamic, *bits, 0, dynamic, xf.MASK_XTILE_DATA, xf.MASK_XTILE_CFG]
    return Domain(table, neighbour(dynamic))


def _msrs(dynamic: int, cet: bool) -> Domain[Msrs]:
    xfd = _xfd(dynamic)

    def one(pick: int) -> Msrs:
        return Msrs(((MSR_IA32_XFD, xfd.arbitrary(pick)),))

    table = [Msrs(((MSR_IA32_XFD, value),)) for value in xfd.table]
    table += [Msrs(((MSR_IA32_XFD_ERR, value),)) for value in (0, dynamic)]
    table += [Msrs(((MSR_IA32_XFD, value), (MSR_IA32_XFD_ERR, dynamic))) for value in (0, dynamic)]
    if cet:
        table += [Msrs(((index, token),)) for index in XSTATE_MSRS for token in (1, 2)]
        table += [Msrs(((MSR_IA32_U_CET, 1), (MSR_IA32_XFD, dynamic))), Msrs(((MSR_IA32_XSS, xf.MASK_CET),))]
    return Domain(table, one)


def _cpuid(full: int, plain: int, xss: int) -> Domain[CpuidEntries]:
    table = (
        CpuidEntries(full, True, True, xss),
        CpuidEntries(plain, False, False),
        CpuidEntries(full, True, True, xss),
        CpuidEntries(full, True, False),
        CpuidEntries(full & ~xf.MASK_DYN2, True, True),
        CpuidEntries(full & ~xf.MASK_XTILE_DATA, True, True),
        CpuidEntries(full, False, True),
        CpuidEntries(plain, True, True),
        CpuidEntries(0, False, False),
        CpuidEntries(full & (xf.MASK_FPSSE | xf.MASK_YMM), False, False),
    )
    return Domain(table, lambda pick: CpuidEntries(neighbour(full)(pick), pick % 2 == 0, pick % 3 == 0))


def _image(full: int, dynamic: int) -> Domain[UserImage]:
    defaults = full & ~dynamic
    masks = (xf.MASK_YMM, full & (xf.MASK_XTILE | dynamic), full, defaults, 0, xf.MASK_FPSSE, dynamic)
    return Domain(
        [UserImage(mask, token) for token in (1, 2) for mask in masks],
        lambda pick: UserImage(neighbour(full)(pick), pick % 7 + 1, reserved=pick % 5 == 0, mxcsr=pick % 3 == 0),
    )
