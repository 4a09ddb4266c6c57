"""What happened: results and steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import Leaf
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel import errno
from xfdfuzz.kernel.event import HARMLESS, Event
from xfdfuzz.kernel.state import MP_STATE_NAMES, System
from xfdfuzz.memory.cstruct import Regions, copy_of, from_bytes
from xfdfuzz.program.fields import Events, Nested, Sregs
from xfdfuzz.program.ghost import CONTENT_MSRS, content

if TYPE_CHECKING:
    from xfdfuzz.program.ops.base import Op

#: The op cannot happen in this state (a vCPU that is not in the guest executes nothing); it was left out.
NOT_ENABLED = "not-enabled"
#: Why nothing can happen any more.
DEAD = "the host is dead"
#: The host kernel died in this op.
PANIC = "panic"


class Content(int):
    """A register content, by its token; as text ``v0:3``."""

    def __str__(self) -> str:
        return content(self)


class Mask(int):
    """A mask of components, as text ``x87|sse``."""

    def __str__(self) -> str:
        return xf.format_mask(self)


class MsrMask(Mask):
    """One that an MSR holds: it is written as a number, as arguments have it, and read by names too."""

    def __str__(self) -> str:
        return f"{self:#x}"


class MpState(int):
    """A vCPU's MP state; as text ``KVM_MP_STATE_RUNNABLE``."""

    def __str__(self) -> str:
        return MP_STATE_NAMES[self]


def msr_value(index: int, value: int) -> int:
    """What an MSR holds, a register content or a mask of components."""
    return Content(value) if index in CONTENT_MSRS else MsrMask(value)


class Image(NamedTuple):
    """An XSAVE image as user space or the guest sees it: its header, the tokens of the components in it, and those of
    MXCSR and of CET's other registers where they are not initial.

    ``xcomp_bv`` is 0 in the standard format.  ``iov_len`` is how many bytes were copied to a tracer that said
    how many it takes.
    """

    xstate_bv: int
    tokens: tuple[tuple[int, int], ...] = ()
    xcomp_bv: int = 0
    iov_len: int | None = None

    def __str__(self) -> str:
        parts = [f"xstate_bv: {xf.format_mask(self.xstate_bv)}"]
        if self.xcomp_bv:
            parts.append(f"xcomp_bv: {xf.format_mask(self.xcomp_bv)}")
        parts += [f"{xf.CONTENTS[i]}: {content(token)}" for i, token in self.tokens]
        parts += [] if self.iov_len is None else [f"iov_len: {self.iov_len}"]
        return f"{{{', '.join(parts)}}}"


class FpuState(NamedTuple):
    """What KVM_GET_FPU or a tracer's NT_PRFPREG gives: the tokens of x87, SSE and MXCSR, as far as they were copied."""

    tokens: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return f"{{{', '.join(f'{xf.CONTENTS[i]}: {content(token)}' for i, token in self.tokens)}}}"


class SwBytes(NamedTuple):
    """What software left in a signal frame (struct _fpx_sw_bytes); of the magics only whether they are intact.

    ``fsave`` is x87 in the header of a 32-bit frame.
    """

    magic1: bool
    xfeatures: int
    xstate_size: int
    magic2: bool
    fsave: int | None = None

    def __str__(self) -> str:
        parts = [f"xfeatures: {xf.format_mask(self.xfeatures)}", f"xstate_size: {self.xstate_size}"]
        header = [] if self.fsave is None else [f"fsave: {content(self.fsave)}"]
        return f"{{{', '.join(['magic1'] * self.magic1 + parts + ['magic2'] * self.magic2 + header)}}}"


class Layout(NamedTuple):
    """Where the extended components of an image lie, as NT_X86_XSAVE_LAYOUT of a core file says: (component, size,
    offset) in bytes."""

    components: tuple[tuple[int, int, int], ...]

    def __str__(self) -> str:
        return f"{{{', '.join(f'{xf.CONTENTS[i]}: {size} at {offset}' for i, size, offset in self.components)}}}"


def image_of(area: XsaveArea) -> Image:
    """What the reader of a stored image sees."""
    tokens = tuple((i, area.data[i]) for i in xf.components_in(area.xstate_bv))
    others = (xf.MXCSR, *(i for i in xf.registers_of(area.xstate_bv & xf.MASK_CET) if i > xf.MXCSR))
    return Image(area.xstate_bv, (*tokens, *((i, area.data[i]) for i in others if area.data[i])), area.xcomp_bv)


class Result(NamedTuple):
    """What an op returned.

    ``ret``: a number (0, a count, -errno) or a word (``ok``, ``exit``, ``#NM``, ``vm0`` ...); ``out``: a 64-bit value,
    a register content, a mask of components, an image, what surrounds one or where its components lie, an exception,
    whether L2 runs, or CR4 and CR0.TS, that it wrote to its caller, if it did.
    """

    ret: int | str
    out: int | Image | FpuState | SwBytes | Layout | Leaf | Events | Nested | Sregs | None = None

    def __str__(self) -> str:
        text = format_ret(self.ret)
        if self.out is None:
            return text
        if isinstance(self.out, Content | Mask | MpState):
            return f"{text} [{self.out}]"
        return f"{text} [{self.out:#x}]" if isinstance(self.out, int) else f"{text} {self.out}"


def format_ret(ret: int | str) -> str:
    """``-EINVAL`` for a known negative errno, the number or the word itself otherwise."""
    if isinstance(ret, int) and ret < 0:
        return f"-{errno.NAMES.get(-ret, -ret)}"
    return str(ret)


def result_class(ret: int | str) -> str:
    """A result without its details: a number stays, a new object (``vm0``) is ``ok``."""
    text = format_ret(ret)
    return "ok" if text.rstrip("0123456789") in ("vm", "v", "t") else text


@dataclass(slots=True)
class Step:
    """One executed op: the system before, the op, its result, what the kernel reported, the system after.

    ``hindrance`` says why it could not happen, if it could not.

    ``state`` is the system before, as its bytes.  ``after`` is the live system of the run: copy it if it is to outlive
    the next step.  Nobody changes a step; a frozen dataclass would take as long to make as a plain op to execute.
    """

    number: int
    op: Op
    state: bytes
    after: System
    result: Result
    events: tuple[Event, ...]
    hindrance: str = ""
    _before: System | None = None

    @property
    def before(self) -> System:
        """The system before; few of those who look at a step want it."""
        if self._before is None:
            self._before = from_bytes(System, self.state)
        return self._before

    @property
    def defects(self) -> list[Event]:
        """What the kernel reported that is a defect; what only says that something happened the op says already."""
        return [event for event in self.events if event.kind not in HARMLESS]

    @property
    def few(self) -> str:
        """``of 1`` where KVM took fewer MSRs than the call asked for, which looks like success; else nothing."""
        ret, asked = self.result.ret, self.op.asked(self.before)
        return f"of {asked}" if isinstance(ret, int) and 0 <= ret < asked else ""

    @property
    def failed(self) -> bool:
        """Whether it is a call that the kernel refused, or of which it did a part; a signal ends KVM_RUN as a rule."""
        ret = self.result.ret
        return isinstance(ret, int) and ((ret < 0 and ret != -errno.EINTR) or bool(self.few))

    def kept(self) -> Step:
        """The same, with a copy of its own of the system after it, to outlive the next step."""
        return Step(self.number, self.op, self.state, copy_of(self.after), self.result, self.events, self.hindrance)

    def changed(self, where: Regions | None = None) -> bool:
        """Whether anything is not what it was before, or anything there."""
        if where is None:
            return bytes(self.after) != self.state
        return where(self.after) != where(self.state)
