"""The types of op fields.  To the type checker they are plain ints, bools and tuples; the marker says how a program
writes them.

It also names the kind of value that the field takes (:mod:`xfdfuzz.strategies.values`), unless a second text does.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from xfdfuzz.arch.registers import CR4_OSXSAVE, CR4_PKE
from xfdfuzz.kernel.state import OWN_SIGFRAME, VECTORS

#: The number in ``t0``, ``v1``, ``vm0``, ``cpu2``.
Nr = Annotated[int, "nr"]
#: One of a task's signal frames, the outermost one's number is 0: ``frame1``; left out for the innermost handler's;
#: ``own`` is the one that the task has made itself.
FrameNr = Annotated[int, "frame"]
INNERMOST = -1
OWN = OWN_SIGFRAME
#: A set of state components: ``x87|sse|avx``.
Xfeatures = Annotated[int, "xfeatures"]
#: The same, for XCR0.
Xcr0 = Annotated[int, "xfeatures", "xcr0"]
#: Says that the kind depends on the MSR that the op's field ``msr`` holds.
DATA = "data"
#: What is written to that MSR: ``0x40000``, which may be read as ``xtiledata``.
MsrData = Annotated[int, "msr data", DATA]
#: A decimal number of 32 bits: bytes of an alternate signal stack, a group of KVM's attributes, one of them.
StackSize = Annotated[int, "count", "stack size"]
#: How many bytes of a signal frame's image are copied.
FrameSize = Annotated[int, "count", "frame size"]
#: Where a frame's context says that its image lies: in bytes above a multiple of 64, or :data:`NULL_FPSTATE`.
Fpstate = Annotated[int, "fpstate"]
NULL_FPSTATE = 64
AttributeGroup = Annotated[int, "count", "attribute group"]
Attribute = Annotated[int, "count", "attribute"]
#: A leaf of CPUID: 1, 0xd, 0x1d or 0x1e.
CpuidLeaf = Annotated[int, "cpuid leaf"]
#: An MP state: ``KVM_MP_STATE_HALTED``.
MpStateOf = Annotated[int, "mp state"]
#: A type of KVM_CREATE_VM other than the default one: ``KVM_X86_SEV_ES_VM``.
VmTypeOf = Annotated[int, "vm type"]
#: Whether KVM_SEV_INIT2 follows.
Init2 = Annotated[int, "init2"]
#: A decimal number from 0 to 255: a vCPU's id, a subleaf of CPUID, how many allocations fail.
VcpuId = Annotated[int, "small", "vcpu id"]
Subleaf = Annotated[int, "small", "subleaf"]
Failures = Annotated[int, "small", "failures"]
#: At which point a call is interrupted: 1 to 255.
Points = Annotated[int, "points"]
#: 0 or 1.
Bit = Annotated[int, "bit"]
#: Which extended control register: 0 is XCR0, and there is no other one to write.
Xcr = Annotated[int, "index", "xcr"]
EntryXcr = Annotated[int, "xcr", "xcr"]
#: The header of struct kvm_xcrs: how many entries there are, of which the first is said and others are 0; its flags.
NrXcrs = Annotated[int, "nr_xcrs"]
XcrsFlags = Annotated[int, "flags"]
#: A component number as arch_prctl() takes it: ``XTILEDATA``, ``5``.
Facility = Annotated[int, "facility"]
#: IA32_XFD or IA32_XFD_ERR.
MsrIndex = Annotated[int, "msr"]
#: A register of KVM_GET_ONE_REG: an MSR, or SSP.
OneRegIndex = Annotated[int, "one reg"]
#: How many registers a list has room for.
Room = Annotated[int, "small", "room"]
#: An MSR of the host's.
HostMsrIndex = Annotated[int, "msr", "host msr"]
#: Register contents: a token from 1 to :data:`TOKENS`.
Token = Annotated[int, "token"]
#: A value of PKRU: a token, or 0, which is the initial one.
Pkru = Annotated[int, "pkru"]
#: What an instruction leaves in x87 or MXCSR: a token, 0, the initial configuration, or :data:`ZERO`.
Contents = Annotated[int, "contents"]
#: x87, SSE or MXCSR.
LegacyPart = Annotated[int, "legacy part"]
#: What an SSE instruction leaves: a token, or 0, the initial configuration, in which no bit is set.
SseContents = Annotated[int, "sse contents"]
#: The format of an image to restore: XCOMP_BV.
XcompBv = Annotated[int, "xcomp_bv"]
#: What an image to restore has for MXCSR: contents, or :data:`RESERVED`.
Mxcsr = Annotated[int, "mxcsr"]

#: What a tracer writes to a shadow stack pointer: a token, :data:`UNALIGNED` or :data:`BEYOND`.
Ssp = Annotated[int, "ssp"]


class Switch(NamedTuple):
    """Marks a word that stands for true, and is left out for false."""

    word: str


#: Features of shadow stacks that arch_prctl() locks: ``shstk``, ``wrss`` or ``all``.
ShstkFeatures = Annotated[int, "shstk features"]
#: What ARCH_SHSTK_WRSS is about, not ARCH_SHSTK_SHSTK.
Wrss = Annotated[bool, Switch("wrss")]
#: An alternate stack is the task's no more while a handler runs (SS_AUTODISARM).
Autodisarm = Annotated[bool, Switch("autodisarm")]
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


#: What stand for a MXCSR with reserved bits, and for an x87 or MXCSR without a bit, beside the tokens.
RESERVED, ZERO = TOKENS + 1, TOKENS + 2
#: What stand for shadow stack pointers that the kernel refuses, likewise.
UNALIGNED, BEYOND = TOKENS + 1, TOKENS + 2

#: What contents an argument names, by component or :data:`~xfdfuzz.arch.xfeatures.MXCSR`, in their order: tokens, 0 for
#: the initial configuration, of x87 and MXCSR also :data:`ZERO`, of MXCSR :data:`RESERVED`.
Named = tuple[tuple[int, int], ...]


class UserImage(NamedTuple):
    """``{xstate_bv: avx|xtile, data: 3, xtilecfg: init, mxcsr: 2}``: an image in the caller's memory.

    Every component in XSTATE_BV holds token ``data``, but for those that ``contents`` names; these hold what it says,
    also where XSTATE_BV lacks them.  MXCSR is initial if it is not named.  ``xcomp_bv`` is the header's, 0 in the
    standard format.  ``reserved``: reserved bytes of the header are not 0.
    """

    xstate_bv: int
    data: int = 0
    contents: Named = ()
    xcomp_bv: int = 0
    reserved: bool = False

    @property
    def filled(self) -> int:
        """The components in XSTATE_BV whose contents are not initial."""
        named = dict(self.contents)
        return sum(1 << i for i in range(64) if self.xstate_bv >> i & 1 and named.get(i, self.data))


class IovLen(NamedTuple):
    """``iov_len=4096``: how many bytes a tracer says that its buffer has; None: as many as there can be."""

    size: int | None = None

    def bytes_of(self, whole: int) -> int:
        """How many they are for a register set of so many."""
        return whole if self.size is None else self.size


class SsSize(NamedTuple):
    """``ss_size=8192``: the alternate stack that a frame brings back, 0 for none; None: the one that there is."""

    size: int | None = None


class FpuImage(NamedTuple):
    """``{data: 3, x87: init, mxcsr: 2}``: what KVM_SET_FPU gets.

    x87 and SSE hold token ``data`` unless ``contents`` says otherwise; MXCSR is initial if it is not named.
    """

    data: int = 0
    contents: Named = ()


class ImageChange(NamedTuple):
    """``{xstate_bv: +sse, sse: 2, mxcsr: init}``: what of an image that was read is changed before it is written.

    ``contents`` are written over what is there, whatever XSTATE_BV has; of that the bits of ``clear`` go and then those
    of ``set`` come.  All else stays.
    """

    contents: Named = ()
    clear: int = 0
    set: int = 0

    def bits(self, xstate_bv: int) -> int:
        """XSTATE_BV behind it."""
        return xstate_bv & ~self.clear | self.set


#: The same of a signal frame's image; it is not left out.
FrameChange = Annotated[ImageChange, "frame change"]


class FpuChange(NamedTuple):
    """``{sse: 2, mxcsr: init}``: likewise, of what has no header."""

    contents: Named = ()


class Meant(NamedTuple):
    """``{sse: 2, mxcsr: init}``: contents that a guest or a task has to find."""

    contents: Named = ()


class SwReserved(NamedTuple):
    """``{magic1: 0, xstate_size: 576}``: what a handler writes around the image in its frame; None: it stays.

    ``magic1`` is 1 for FP_XSTATE_MAGIC1 and 0 for anything else; ``magic2`` is where FP_XSTATE_MAGIC2 stands, in bytes
    from the image's start, or 0 where it stands nowhere.  The others are as in struct _fpx_sw_bytes.
    """

    magic1: int | None = None
    extended_size: int | None = None
    xfeatures: int | None = None
    xstate_size: int | None = None
    magic2: int | None = None


class Sregs(NamedTuple):
    """``{osxsave, ts, pke}``: CR4.OSXSAVE, CR0.TS and CR4.PKE of KVM_SET_SREGS, as far as they are set; everything else
    is a flat 64-bit state or, with ``no_lme``, one in real mode, with an EFER of 0 as after a reset."""

    osxsave: bool
    ts: bool = False
    pke: bool = False
    no_lme: bool = False

    @classmethod
    def of(cls, cr4: int, ts: bool) -> Sregs:
        """With that CR4 and that CR0.TS."""
        return cls(bool(cr4 & CR4_OSXSAVE), ts, bool(cr4 & CR4_PKE))

    @property
    def cr4(self) -> int:
        """CR4."""
        return Cr4(self.osxsave, self.pke).value

    def __str__(self) -> str:
        names = [name for name, there in self._asdict().items() if there]
        return f"{{{', '.join(names)}}}"


class Cr4(NamedTuple):
    """``{osxsave, pke}``: what of CR4 a guest sets, or ``{}`` where it clears both."""

    osxsave: bool
    pke: bool = False

    @property
    def value(self) -> int:
        """The register."""
        return (CR4_OSXSAVE if self.osxsave else 0) | (CR4_PKE if self.pke else 0)


class Events(NamedTuple):
    """``{injected: #NM}``: the exception in struct kvm_vcpu_events, by its vector; ``{pending: #NM}``, which user space
    can say with KVM_CAP_EXCEPTION_PAYLOAD; or ``{}`` without one.  ``{latched_init}`` and ``{no_latched_init}``: with
    KVM_VCPUEVENT_VALID_SMM, and an INIT that is pending or none; one of them at most."""

    injected: int = 0
    pending: int = 0
    latched_init: bool = False
    no_latched_init: bool = False

    @classmethod
    def of(cls, vector: int, pending: bool, latched: bool | None = None) -> Events:
        """With that exception, or none, and that INIT, or none, or no word about it."""
        found = cls(pending=vector) if pending else cls(vector)
        return found._replace(latched_init=latched is True, no_latched_init=latched is False)

    @property
    def latched(self) -> bool | None:
        """Whether an INIT is latched, or None where nothing is said of that."""
        return self.latched_init if self.latched_init or self.no_latched_init else None

    @property
    def vector(self) -> int:
        """The exception; one that is pending goes before one that is injected."""
        return self.pending or self.injected

    def __str__(self) -> str:
        said = {"injected": self.injected, "pending": self.pending}
        entries = [f"{name}: {VECTORS[vector]}" for name, vector in said.items() if vector]
        flags = {"latched_init": self.latched_init, "no_latched_init": self.no_latched_init}
        return f"{{{', '.join(entries + [name for name, there in flags.items() if there])}}}"


class Nested(NamedTuple):
    """``{guest_mode, intercept_nm}``: of struct kvm_nested_state whether L2 runs, and whether its #NM exits to L1; or
    ``{}`` where L1 runs."""

    guest_mode: bool = False
    intercept_nm: bool = False

    def __str__(self) -> str:
        names = [name for name, there in self._asdict().items() if there]
        return f"{{{', '.join(names)}}}"


class Mapped(NamedTuple):
    """``mapped=896``: behind how many bytes of a frame's image the memory ends in which it lies; 0: it does not.

    A mapping ends with a page, and an image is aligned to 64 bytes.
    """

    size: int = 0


class Undefined(NamedTuple):
    """``undefined=7``: what an uninitialised variable returns, where the modelled code returns one; 0 if left out."""

    value: int = 0
