"""What an op's fields may be given: the one declaration that rules draw from, Hypothesis too, and minimise() tries.

The type of a field says what *kind* of value it takes (:mod:`xfdfuzz.program.fields`), :func:`domains` which values of
that kind are likely to matter on a machine, plainest first, and everything else now and then.  One small number is
drawn for a value, so a draw shrinks towards the first and plainest one, and means the same on every revision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, lru_cache, partial
from typing import Any, Generic, TypeVar, get_type_hints

from hypothesis import strategies as st

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import HEADER_END, LEAF_FEATURES, LEAF_TILES, LEAF_TMUL, LEAF_XSTATE
from xfdfuzz.arch.registers import (
    CET_MSRS,
    MSR_IA32_PL0_SSP,
    MSR_IA32_U_CET,
    MSR_IA32_XFD,
    MSR_IA32_XFD_ERR,
    MSR_IA32_XSS,
)
from xfdfuzz.kernel.fpu.init import FXSAVE_SIZE
from xfdfuzz.kernel.fpu.signal import FP_XSTATE_MAGIC2_SIZE
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.kvm.msrs import MSR_KVM_INTERNAL_GUEST_SSP
from xfdfuzz.kernel.kvm.xsave import KVM_MAX_XCRS, KVM_XSAVE_SIZE, UserBuffer
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import (
    DF_VECTOR,
    GP_VECTOR,
    KVM_MP_STATE_RUNNABLE,
    MP_STATE_NAMES,
    NM_VECTOR,
    VM_X86_SEV_ES_VM,
    VM_X86_SNP_VM,
    VM_X86_TDX_VM,
)
from xfdfuzz.program.fields import (
    BEYOND,
    DATA,
    NULL_FPSTATE,
    RESERVED,
    UNALIGNED,
    ZERO,
    Cr4,
    Events,
    FpuChange,
    FpuImage,
    ImageChange,
    IovLen,
    Mapped,
    Msrs,
    Nested,
    Sregs,
    SsSize,
    Switch,
    SwReserved,
    Undefined,
    UserImage,
)
from xfdfuzz.program.ghost import CONTENT_MSRS
from xfdfuzz.program.ops.base import OPS, Op

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """The numbers that one argument of a rule is drawn from, both bounds included."""

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


#: For a domain that is larger than its table.
picks = Range(0, 255)
#: For one of those who can do something: enough that nobody is left out.
targets = Range(0, 15)
#: Register contents.
tokens = Range(1, 3)
flags = Range(0, 1)


#: The MSRs that programs know, those of every machine first.
_MSRS = (MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS, MSR_IA32_U_CET, MSR_IA32_PL0_SSP)
#: The same with what else CET has, which comes less often.
_CET_MSRS = (*_MSRS, *_MSRS, *(msr for msr in CET_MSRS if msr not in _MSRS))


@dataclass(frozen=True)
class Domain(Generic[T]):
    """The values of one kind: a table, plainest first, and what the other picks give.

    ``spread`` of 256 picks go to the table, the rest, counted from 0, to ``arbitrary``.  Without that there is nothing
    but the table, which then has the same length on every machine.
    """

    table: Sequence[T]
    arbitrary: Callable[[int], T] | None = None
    spread: int = 230

    @property
    def numbers(self) -> Range:
        """What is drawn for a value."""
        return Range(0, len(self.table) - 1) if self.arbitrary is None else picks

    def value(self, number: int) -> T:
        """The value that a drawn number stands for."""
        if self.arbitrary is None or number < self.spread:
            return self.table[number % len(self.table)]
        return self.arbitrary(number - self.spread)

    def plainer(self, value: T) -> list[T]:
        """What stands before a value in the table: all of it, if the value does not stand there."""
        before = self.table[: self.table.index(value)] if value in self.table else self.table
        return [*dict.fromkeys(before)]


def scatter(pick: int) -> int:
    """A 64-bit value that looks like nothing in particular (splitmix64's finaliser), fixed for each pick."""
    z = (pick * 0x9E3779B97F4A7C15) & xf.U64_MAX
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & xf.U64_MAX
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & xf.U64_MAX
    return z ^ z >> 31


def neighbour(mask: int) -> Callable[[int], int]:
    """``mask`` with one bit flipped, those of components first, or an arbitrary 64-bit value every eighth time."""
    return lambda pick: scatter(pick) if pick % 8 == 7 else mask ^ 1 << (pick - pick // 8) % 64


def kinds(op: type[Op], known: Mapping[str, Any]) -> dict[str, object]:
    """The kind of value that each field of an op takes, where the fields ``known`` have these values."""
    declared = _declared(op.__name__)
    return {name: (DATA, known["msr"]) if kind == DATA else kind for name, kind in declared.items()}


@cache
def _declared(op: str) -> dict[str, object]:
    """The last text in the field's ``Annotated``, or its class."""
    cls: Any = OPS[op]
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: getattr(hints[f.name], "__metadata__", (hints[f.name],))[-1] for f in fields(cls)}


#: The domains on one machine, by kind.
Domains = Mapping[object, Domain[Any]]


@lru_cache(maxsize=128)
def domains(machine: Machine) -> Domains:
    """By kind: boundary masks of the machine, their single-bit neighbours, arbitrary 64-bit values, invalid indices.

    A field of a kind that is not there is left as it is by default.
    """
    full = machine.user_xfeatures or xf.MASK_FPSSE
    plain = full & ~(xf.MASK_XTILE | xf.MASK_DYN2)
    dynamic = machine.xfd_xfeatures
    xfd = _xfd(dynamic)
    plain_size, full_size = (machine.cpuid.standard_size(mask) for mask in (plain, machine.user_xfeatures))
    return {
        **_EVERYWHERE,
        "xcr0": _xcr0(full, plain),
        "xfeatures": Domain((full, dynamic or full, xf.MASK_YMM, plain, 0, xf.MASK_XTILE), neighbour(full), 200),
        "msr": Domain(_CET_MSRS if machine.cet else _MSRS[:2], lambda pick: _MSRS[pick % 2]),
        (DATA, MSR_IA32_XFD): xfd,
        (DATA, MSR_IA32_XFD_ERR): xfd,
        "facility": _facility(machine),
        Msrs: _msrs(dynamic, machine.cet),
        CpuidEntries: _cpuid(full, plain, machine.supervisor_xfeatures & xf.MASK_CET),
        "xcomp_bv": _xcomp_bv(full),
        UserImage: _image(full, dynamic),
        ImageChange: _change(full, dynamic, ImageChange()),
        "frame change": _change(full, dynamic, ImageChange(((xf.SSE, 1),))),
        UserBuffer: _buffer(machine),
        IovLen: Domain(
            [IovLen()] * 12 + [IovLen(size) for size in (full_size, plain_size, KVM_XSAVE_SIZE, FXSAVE_SIZE)],
            lambda pick: IovLen(scatter(pick) & 0x3FFF),
        ),
        Mapped: _mapped(full_size, machine.cpuid.standard_size(xf.MASK_FPSSE | xf.MASK_YMM)),
        "frame size": Domain((FXSAVE_SIZE, HEADER_END, plain_size, full_size, 0), lambda pick: scatter(pick) & 0x3FFF),
        SwReserved: _sw_reserved(full, (plain_size, full_size)),
    }


#: The domains that are the same on every machine.
_EVERYWHERE: dict[object, Domain[Any]] = {
    "token": Domain(tokens.values),
    "pkru": Domain(range(4)),
    "contents": Domain((1, 2, 3, 0, 1, 2, 3, ZERO)),
    "sse contents": Domain((1, 2, 3, 0)),
    FpuImage: Domain(
        (
            FpuImage(1),
            FpuImage(2),
            FpuImage(1, ((xf.X87, 0),)),
            FpuImage(2, ((xf.SSE, 0),)),
            FpuImage(1, ((xf.MXCSR, 2),)),
            FpuImage(1, ((xf.MXCSR, RESERVED),)),
            FpuImage(1, ((xf.X87, ZERO), (xf.MXCSR, ZERO))),
        )
    ),
    FpuChange: Domain([FpuChange(), *(FpuChange(((i, token),)) for token in (1, 0) for i in xf.LEGACY)]),
    "mxcsr": Domain((0, 0, 0, 1, 2, ZERO, 3, RESERVED)),
    "xcr": Domain((*[0] * 15, 1)),
    "nr_xcrs": Domain((*[1] * 14, 0, KVM_MAX_XCRS + 1)),
    "flags": Domain((*[0] * 15, 1)),
    "ssp": Domain((2, 3, 1, UNALIGNED, BEYOND)),
    "bit": Domain((0, 1)),
    # sizes, the components, one more
    "subleaf": Domain(range(xf.COMPONENTS + 1)),
    "cpuid leaf": Domain((*[LEAF_XSTATE] * 4, LEAF_FEATURES, LEAF_TILES, LEAF_TMUL)),
    "vm type": Domain((VM_X86_SEV_ES_VM, VM_X86_TDX_VM, VM_X86_SNP_VM)),
    "mp state": Domain((KVM_MP_STATE_RUNNABLE, *(nr for nr in MP_STATE_NAMES if nr), KVM_MP_STATE_RUNNABLE)),
    "init2": Domain((1, 1, 1, 0)),
    "failures": Domain((1, 0, 2)),
    "points": Domain((1, 2, 3, 4)),
    "vcpu id": Domain((0, 1, 0, 2, 4, 255), lambda pick: pick),
    "stack size": Domain((0, 8192, 65536, 2048, 12000), lambda pick: scatter(pick) & 0xFFFF),
    "legacy part": Domain((xf.SSE, xf.X87, xf.MXCSR)),
    "fpstate": Domain((NULL_FPSTATE, 16, 8, 32, 0)),
    SsSize: Domain((SsSize(), SsSize(8192), SsSize(0), SsSize(65536), SsSize(1024))),
    "attribute group": Domain((0, 0, 1)),
    "attribute": Domain((0, 1, 0), lambda pick: scatter(pick) & 0xFFFFFFFF),
    "host msr": Domain((MSR_IA32_XFD, MSR_IA32_XFD_ERR)),
    (DATA, MSR_IA32_XSS): Domain((0, xf.MASK_CET)),
    **{(DATA, msr): Domain(tokens.values) for msr in CONTENT_MSRS},
    "one reg": Domain((*[MSR_KVM_INTERNAL_GUEST_SSP] * 3, MSR_IA32_U_CET, MSR_IA32_XFD)),
    "room": Domain((1, 0)),
    Switch("drop"): Domain((False, True)),
    Switch("NULL"): Domain((False, True)),
    Switch("autodisarm"): Domain((False, True)),
    Switch("wrss"): Domain((False, True)),
    "shstk features": Domain((1, 2, 3)),
    Sregs: Domain((Sregs(True), Sregs(False), Sregs(True, no_lme=True), Sregs(True, True), Sregs(True, False, True))),
    Cr4: Domain((Cr4(True), Cr4(False), Cr4(True, True))),
    Events: Domain((Events(), Events(NM_VECTOR), Events(GP_VECTOR), Events(DF_VECTOR), Events(no_latched_init=True))),
    Nested: Domain((Nested(), Nested(True), Nested(True, True))),
    Undefined: Domain((Undefined(), Undefined(7))),
}


def _xcr0(full: int, plain: int) -> Domain[int]:
    without_tiles, half_tiles = full & ~xf.MASK_XTILE, full & ~xf.MASK_XTILE_DATA
    table = (full, plain, full & ~xf.MASK_DYN2, xf.MASK_X87, full, 0x7, without_tiles, half_tiles, 3)
    flipped = neighbour(full)
    # a part of what XCR0 has as a whole or not at all, or what stands on something without it
    torn = [part for i in xf.components_in(full) if not xf.legal_xcr0(part := full & ~(1 << i))]
    return Domain(table, lambda pick: torn[pick // 2 % len(torn)] if pick % 2 else flipped(pick // 2), 208)


def _xcomp_bv(full: int) -> Domain[int]:
    compacted = 1 << 63 | full
    return Domain((0, compacted), neighbour(compacted))


def _facility(machine: Machine) -> Domain[int]:
    dyn2 = xf.DYN2 if machine.dyn2 else xf.XTILE_DATA
    return Domain((xf.XTILE_DATA, dyn2, xf.XTILE_CFG, xf.DYN2, 19, 0, 63, 64, xf.U64_MAX), scatter)


def _buffer(machine: Machine) -> Domain[UserBuffer]:
    """Mostly enough room; now and then struct kvm_xsave, or the image of what the machine has, to the byte."""
    sizes = (KVM_XSAVE_SIZE, machine.cpuid.standard_size(machine.user_xfeatures))
    table = [UserBuffer()] * 12 + [UserBuffer(size, guarded) for guarded in (True, False) for size in sizes]
    return Domain(table, lambda pick: UserBuffer(scatter(pick) & 0x3FFF, pick % 2 == 0))


def _mapped(full: int, avx: int) -> Domain[Mapped]:
    """Mostly all that anybody looks at; now and then an image of the processor's, one of AVX, or a header."""
    ends = [Mapped(size + FP_XSTATE_MAGIC2_SIZE + 63 & -64) for size in (avx, HEADER_END, full)]
    return Domain([Mapped()] * 9 + ends + [Mapped(HEADER_END)])


def _sw_reserved(full: int, sizes: Sequence[int]) -> Domain[SwReserved]:
    """Frames without extended state, smaller ones that are whole, and parts that do not fit together."""
    table = [SwReserved(magic1=0), SwReserved(magic2=0), SwReserved(xfeatures=xf.MASK_FPSSE | xf.MASK_YMM)]
    for size in (*sizes, HEADER_END):
        end = size + FP_XSTATE_MAGIC2_SIZE
        table += [SwReserved(1, end, None, size, size), SwReserved(xstate_size=size), SwReserved(magic2=size)]
    table += [SwReserved(extended_size=0), SwReserved(xfeatures=xf.MASK_YMM), SwReserved(xfeatures=full)]

    def odd(pick: int) -> SwReserved:
        size = scatter(pick) & 0x3FFF
        return SwReserved(1, size + pick % 8, neighbour(full)(pick), size, size if pick % 2 else 0)

    return Domain(table, odd)


def _xfd(dynamic: int) -> Domain[int]:
    bits = [1 << i for i in xf.components_in(dynamic)]
    table = [0, dynamic, *bits, 0, dynamic, xf.MASK_XTILE_DATA, xf.MASK_XTILE_CFG]
    return Domain(table, neighbour(dynamic))


def _msrs(dynamic: int, cet: bool) -> Domain[Msrs]:
    xfd = _xfd(dynamic)

    def one(pick: int) -> Msrs:
        return Msrs(((MSR_IA32_XFD, neighbour(dynamic)(pick)),))

    table = [Msrs(((MSR_IA32_XFD, value),)) for value in xfd.table]
    table += [Msrs(((MSR_IA32_XFD_ERR, value),)) for value in (0, dynamic)]
    table += [Msrs(((MSR_IA32_XFD, value), (MSR_IA32_XFD_ERR, dynamic))) for value in (0, dynamic)]
    if cet:
        table += [Msrs(((index, token),)) for index in CET_MSRS for token in (1, 2)]
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
        CpuidEntries(full, True, True, xss, leaves=full & ~xf.MASK_FPSSE),
        CpuidEntries(full, True, True, xss, other=1),
        CpuidEntries(plain, False, False, no_xsaves=True),
        CpuidEntries(0, False, False, no_xsave=True),
        CpuidEntries(full, True, True, xss, no_palettes=True, no_tmul=True),
        CpuidEntries(plain, False, False, no_xsaves=True, no_xsavec=True),
        *(
            [CpuidEntries(plain, False, False, xss, **{lacking: True}) for lacking in ("no_shstk", "no_ibt")]
            if xss
            else []
        ),
    )
    return Domain(table, lambda pick: CpuidEntries(neighbour(full)(pick), pick % 2 == 0, pick % 3 == 0))


def _image(full: int, dynamic: int) -> Domain[UserImage]:
    defaults = full & ~dynamic
    masks = (xf.MASK_YMM, full & (xf.MASK_XTILE | dynamic), full, defaults, 0, xf.MASK_FPSSE, dynamic)
    plain = [UserImage(mask, token if mask else 0) for token in (1, 2) for mask in masks]
    return Domain([*plain, *_with_contents(full, dynamic)], partial(_odd_image, full), 220)


def _with_contents(full: int, dynamic: int) -> Iterator[UserImage]:
    """Images whose parts hold different contents, among them MXCSR and what XSTATE_BV lacks."""
    for mask in (xf.MASK_YMM, xf.MASK_FPSSE, full & ~dynamic, 0):
        yield UserImage(mask, 3 if mask else 0, ((xf.MXCSR, 1),))
    yield UserImage(xf.MASK_FPSSE | xf.MASK_YMM, 1, ((xf.SSE, 0), (xf.MXCSR, 2)))
    yield UserImage(0, 0, ((xf.X87, 2), (xf.SSE, 3), (xf.MXCSR, 1)))
    # a struct that nobody has filled in
    yield UserImage(xf.MASK_FPSSE, 0, ((xf.X87, ZERO), (xf.MXCSR, ZERO)))


def _change(full: int, dynamic: int, plainest: ImageChange) -> Domain[ImageChange]:
    """Components with the bit in XSTATE_BV that they need and without it, MXCSR, and what goes."""
    parts = [i for i in (xf.SSE, xf.X87, xf.YMM, xf.PKRU) if full >> i & 1]
    table = [plainest]
    table += [ImageChange(((i, token),), set=1 << i) for token in (1, 2) for i in parts]
    table += [ImageChange(((i, 3),)) for i in parts]
    table += [ImageChange(clear=1 << i) for i in parts]
    table += [ImageChange(((xf.MXCSR, 1),), set=added) for added in (0, xf.MASK_SSE)]
    table += [ImageChange(((xf.X87, ZERO), (xf.MXCSR, 0)), set=xf.MASK_FPSSE), ImageChange((), xf.U64_MAX, full)]
    table += [ImageChange(tuple((i, 1) for i in xf.components_in(dynamic)), set=dynamic)] if dynamic else []

    def odd(pick: int) -> ImageChange:
        return ImageChange(((xf.MXCSR, RESERVED),) if pick % 3 == 0 else (), set=neighbour(0)(pick))

    return Domain(table, odd, 240)


def _odd_image(full: int, pick: int) -> UserImage:
    """One that mostly is refused."""
    mxcsr = ((xf.MXCSR, RESERVED),) if pick % 3 == 0 else ()
    return UserImage(neighbour(full)(pick), pick % 7 + 1, mxcsr, reserved=pick % 5 == 0)
