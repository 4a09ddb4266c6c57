"""The types of op fields.  To the type checker they are plain ints, bools and tuples; the marker says how a program
writes them.

It also names the kind of value that the field takes (:mod:`xfdfuzz.strategies.values`), unless a second text does.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

#: The number in ``t0``, ``v1``, ``vm0``, ``cpu2``.
Nr = Annotated[int, "nr"]
#: A set of state components: ``x87|sse|avx``.
Xfeatures = Annotated[int, "xfeatures"]
#: The same, for XCR0.
Xcr0 = Annotated[int, "xfeatures", "xcr0"]
#: Says that the kind depends on the MSR that the op's field ``msr`` holds.
DATA = "data"
#: What is written to that MSR: ``0x40000``.
MsrData = Annotated[int, "hex", DATA]
#: A decimal number of 32 bits: bytes of an alternate signal stack, a group of KVM's attributes, one of them.
StackSize = Annotated[int, "count", "stack size"]
AttributeGroup = Annotated[int, "count", "attribute group"]
Attribute = Annotated[int, "count", "attribute"]
#: A decimal number from 0 to 255: a vCPU's id, a subleaf of CPUID, how many allocations fail, at
#: which point a call is preempted.
VcpuId = Annotated[int, "small", "vcpu id"]
Subleaf = Annotated[int, "small", "subleaf"]
Failures = Annotated[int, "small", "failures"]
Points = Annotated[int, "small", "points"]
#: 0 or 1.
Bit = Annotated[int, "bit"]
#: A component number as arch_prctl() takes it: ``XTILEDATA``, ``5``.
Facility = Annotated[int, "facility"]
#: IA32_XFD or IA32_XFD_ERR.
MsrIndex = Annotated[int, "msr"]
#: The same, of the host's.
HostMsrIndex = Annotated[int, "msr", "host msr"]
#: Register contents: a token from 1 to :data:`TOKENS`.
Token = Annotated[int, "token"]
#: A value of PKRU: a token, or 0, which is the initial one.
Pkru = Annotated[int, "pkru"]
#: What an x87 or SSE instruction leaves in its component: a token, or 0, the initial configuration.
Contents = Annotated[int, "contents"]
#: The format of an image to restore: XCOMP_BV.
XcompBv = Annotated[int, "xcomp_bv"]


class Switch(NamedTuple):
    """Marks a word that stands for true, and is left out for false."""

    word: str


#: The caller passes a bad pointer.
Null = Annotated[bool, Switch("NULL")]
#: The VMM leaves a new vCPU's CR4 as it is, so OSXSAVE is clear until KVM_SET_SREGS.
Reset = Annotated[bool, Switch("reset")]
#: A VM exit interrupts an XSAVE; on a processor with erratum SPR4 its TILEDATA comes out as zeros.
Torn = Annotated[bool, Switch("torn")]
#: The processor forgets the data of a component at the moment that XFD disables it, which it may.
Drop = Annotated[bool, Switch("drop")]

#: Highest token that a program can write.
TOKENS = 7


class Msrs(NamedTuple):
    """``{IA32_XFD: 0x40000}``: the entries of KVM_SET_MSRS, in order."""

    entries: tuple[tuple[int, int], ...]


class UserImage(NamedTuple):
    """``{xstate_bv: avx|xtile, data: 3}``: an image for KVM_SET_XSAVE; every component in it holds token ``data``.

    Those in ``init`` hold their initial values instead, although XSTATE_BV has them.  ``xcomp_bv`` is the header's, 0
    in the standard format.  ``reserved``: reserved bytes of the header are not 0; ``mxcsr``: MXCSR has reserved bits.
    """

    xstate_bv: int
    data: int
    init: int = 0
    xcomp_bv: int = 0
    reserved: bool = False
    mxcsr: bool = False


class FpuImage(NamedTuple):
    """``{data: 3}``: what KVM_SET_FPU gives x87 and SSE; those in ``init`` get their initial values instead."""

    data: int
    init: int = 0


class Sregs(NamedTuple):
    """``{osxsave}``: CR4.OSXSAVE of KVM_SET_SREGS, or ``{}`` without it; everything else is a flat 64-bit state."""

    osxsave: bool


class Undefined(NamedTuple):
    """``undefined=7``: what an uninitialised variable returns, where the modelled code returns one; 0 if left out."""

    value: int = 0
