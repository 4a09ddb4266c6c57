"""Signals: delivery in its preemptible halves, what the handler does to its frame, and sigreturn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.fpu.init import FXSAVE_SIZE
from xfdfuzz.kernel.fpu.signal import FP_XSTATE_MAGIC2_SIZE
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import (
    NR_SIGFRAMES,
    UNWRITABLE_ALL,
    UNWRITABLE_RT_SIGFRAME,
    SigFrame,
    System,
    altstack_begins_anew,
    enters_altstack,
    handlers_of,
    may_overflow,
    own_sigframe_of,
    sigframes_of,
)
from xfdfuzz.program import ghost, images
from xfdfuzz.program.fields import (
    INNERMOST,
    NULL_FPSTATE,
    OWN,
    Contents,
    Fpstate,
    FrameChange,
    FrameNr,
    FrameSize,
    ImageChange,
    LegacyPart,
    Mapped,
    Nr,
    SsSize,
    SwReserved,
    UserImage,
    Xfeatures,
)
from xfdfuzz.program.ops.base import OK, TaskOp, op
from xfdfuzz.program.step import FpuState, Result, SwBytes, image_of


class _SignalFrame(TaskOp):
    """A frame is set up for a signal."""

    __slots__ = ()

    def end(self, k: Kernel, stands: bool) -> Result:
        """What has become of it: the image in it, or the registers that FXSAVE stores."""
        if k.current.in_sigframe:
            return Result("#PF")
        if not stands:
            return Result("SIGSEGV")
        frame = k.innermost_frame()
        frame.legacy, area = xf.MASK_FPSSE, frame.area
        # FXSAVE writes no header
        return Result("ok", image_of(area) if k.use_xsave else FpuState(tuple((i, area.data[i]) for i in xf.LEGACY)))


class _SignalBegins(_SignalFrame):
    __slots__ = ()
    SA_ONSTACK: ClassVar[bool] = True

    def hindrance(self, k: Kernel) -> str:
        if why := TaskOp.hindrance(self, k):
            return why
        if k.handlers_of(self.task) == NR_SIGFRAMES:
            return f"t{self.task} is in {NR_SIGFRAMES} signal handlers, and more are not modelled"
        if may_overflow(k.system, self.task):
            return f"the frame might lie below the stack that t{self.task}'s handler runs on, which is not modelled"
        anew = f"the frame would lie over those on t{self.task}'s alternate stack, which is not modelled"
        return anew if self.SA_ONSTACK and altstack_begins_anew(k.system, self.task) else ""

    def deliver(self, k: Kernel, absent: int = 0, unwritable: int = 0, pkey: int = 0) -> Result:
        """Set the frame up in memory in which this is the matter, unless the alternate stack has no room."""
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        k.current.user_mode = 0
        there = k.sigframes_of(self.task)[k.handlers_of(self.task)]
        before = there.pkey
        there.absent, there.unwritable, there.pkey = absent, unwritable, pkey
        result = self.end(k, k.setup_rt_frame(self.SA_ONSTACK))
        if not k.current.in_sigframe:
            there.absent = there.unwritable = 0
        if there.stale:  # nothing was written: it is the frame that was there
            there.pkey = before
        return result


@op("t{task} signal ...")
class Signal(_SignalBegins):
    """A signal is about to be handled: the frame is set up, on the alternate stack if there is one.

    The task may be in a handler already, which is interrupted then.  The value is the image in the frame, or the
    registers that FXSAVE stores; SIGSEGV where the alternate stack is too small.  Signals are delivered on the way to
    user mode, so what is pending there is not finished first.
    """

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.deliver(k)


@op("t{task} signal(not-onstack) ...")
class SignalNotOnstack(_SignalBegins):
    """The same of a signal whose handler lacks SA_ONSTACK: the frame is below the stack pointer, wherever that is."""

    SA_ONSTACK = False
    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.deliver(k)


@op("t{task} signal(absent) ...")
class SignalFaults(_SignalBegins):
    """A signal is about to be handled, and of the pages that its frame goes to one is not there, behind the header of
    the image: XSAVE, or FXSAVE, faults, and no register has changed."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.deliver(k, absent=1)


@op("t{task} signal(unwritable)")
class SignalUnwritable(_SignalBegins):
    """A signal cannot be handled, as nothing may be written where its frame goes, behind the end of a stack: SIGSEGV.

    The task keeps its registers.
    """

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.deliver(k, unwritable=UNWRITABLE_ALL)


@op("t{task} signal(unwritable, rt_sigframe)")
class SignalHalfUnwritable(_SignalBegins):
    """The same where the stack ends between the image and struct rt_sigframe, which is below it and written last."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.deliver(k, unwritable=UNWRITABLE_RT_SIGFRAME)


@op("t{task} signal(pkey) ...")
class SignalPkey(_SignalBegins):
    """A signal is about to be handled, on an alternate stack that a protection key guards which each PKRU but 0 denies:
    so does the one that a handler begins with, which has to write its PKRU before it uses its stack."""

    task: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        if why := _SignalBegins.hindrance(self, k):
            return why
        if not k.ospke:
            return "there are no protection keys"
        return "" if enters_altstack(k.system, self.task) else f"t{self.task}'s frame begins no alternate stack"

    def run(self, k: Kernel) -> Result:
        return self.deliver(k, pkey=1)


class _SignalGoesOn(_SignalFrame):
    __slots__ = ()

    def hindrance(self, k: Kernel) -> str:
        task = k.tasks[self.task]
        if not task.in_sigframe:
            return f"t{self.task} waits for no page that a signal frame goes to"
        return "" if task.on_cpu else f"t{self.task} is on no CPU"

    def fault_in(self, k: Kernel, present: bool) -> Result:
        """The page fault is over."""
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        return self.end(k, k.sigframe_fault_in(present))


@op("t{task} ... signal(present) ...")
class SignalFaultIn(_SignalGoesOn):
    """The page is there, and XSAVE is tried again: the frame is set up."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.fault_in(k, True)


@op("t{task} ... signal(gone)")
class SignalGone(_SignalGoesOn):
    """The page cannot be had: SIGSEGV, and the task keeps its registers."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.fault_in(k, False)


@op("t{task} ... signal")
class SignalDelivered(TaskOp):
    """The registers get their initial values and the handler begins."""

    task: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        task = k.tasks[self.task]
        if not task.in_signal:
            return f"t{self.task} is not about to handle a signal"
        return "" if task.on_cpu else f"t{self.task} is on no CPU"

    def run(self, k: Kernel) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        k.handle_signal_clear()
        ghost.initialise(k, self.task)
        ghost.default_pkru(k, self.task)
        return OK


def not_there(k: Kernel, nr: int, frame: int) -> str:
    """Why a task does not have that signal frame; nothing if it has."""
    handlers = k.handlers_of(nr)
    if frame == INNERMOST:
        return "" if handlers else f"t{nr} is in no signal handler"
    one = frame_of(k, nr, frame)
    if not (one.valid or one.stale):
        return f"t{nr} has made no frame of its own" if frame == OWN else f"t{nr} has no frame{frame} on its stack"
    if k.tasks[nr].shstk and frame != handlers - 1:
        return f"t{nr} has a shadow stack, on which only the innermost frame can be returned by"
    return ""


def number_of(k: Kernel, nr: int, frame: int) -> int:
    """The number of that signal frame of a task's: how many handlers are outside its own."""
    return k.handlers_of(nr) - 1 if frame == INNERMOST else frame


def frame_of(k: Kernel, nr: int, frame: int) -> SigFrame:
    """That signal frame of a task's."""
    return k.own_sigframe_of(nr) if frame == OWN else k.sigframes_of(nr)[number_of(k, nr, frame)]


def _changes_its_stack(k: Kernel, nr: int) -> str:
    """Whether the task's own frame brings back another alternate stack than the one on which its handler runs."""
    handlers, own = [frame for frame in k.sigframes_of(nr) if frame.valid], k.own_sigframe_of(nr)
    if own.ss_size == k.tasks[nr].sas_ss_size:
        return ""
    if any(frame.disarmed for frame in handlers) and own.ss_size:
        return f"t{nr}'s handler may run on the alternate stack that comes back, which is not modelled"
    running = any(frame.on_altstack and not frame.disarmed for frame in handlers)
    return f"t{nr}'s handler runs on the alternate stack that goes, which is not modelled" if running else ""


class FrameOp(TaskOp):
    """The task looks at one of its frames, in a handler or behind it."""

    __slots__ = ()
    frame: int

    def hindrance(self, k: Kernel) -> str:
        return TaskOp.hindrance(self, k) or not_there(k, self.task, self.frame)

    def run(self, k: Kernel) -> Result:
        self.enter_user(k)
        frame = frame_of(k, self.task, self.frame)
        beyond = frame.mapped and self.touched(k, frame) > frame.mapped
        return Result("SIGSEGV") if beyond or k.pkey_denies(frame) else self.access(k, frame)

    def touched(self, k: Kernel, frame: SigFrame) -> int:
        """How many bytes of the image the task looks at, or writes."""
        return FXSAVE_SIZE

    def access(self, k: Kernel, frame: SigFrame) -> Result:
        """The task runs and looks at its frame."""
        raise NotImplementedError


@op("t{task} sigframe(new, {ss_size}, {mapped})")
class SigframeNew(TaskOp):
    """The task makes a frame of its own, in memory of its own, which is all 0: an image without anything in it.

    It leads to where the task is, whenever it is returned by.  A frame that it has made before is no more.  The memory
    may end behind some bytes of the image: who goes further has a SIGSEGV.
    """

    task: Nr = 0
    ss_size: SsSize = SsSize()
    mapped: Mapped = Mapped()

    def run(self, k: Kernel) -> Result:
        self.enter_user(k)
        k.make_sigframe(self.ss_size.size, self.mapped.size)
        return OK


@op("t{task} sigframe {frame}")
class SigframeRead(FrameOp):
    """The handler looks at what surrounds the image in its frame: magics, features, size."""

    task: Nr = 0
    frame: FrameNr = INNERMOST

    def access(self, k: Kernel, frame: SigFrame) -> Result:
        there = bool(frame.magic2) and frame.magic2 == frame.xstate_size
        fsave = frame.fsave if k.tasks[self.task].ia32 else None
        return Result("ok", SwBytes(bool(frame.magic1), frame.xfeatures, frame.xstate_size, there, fsave))


@op("t{task} sigframe({image}) {frame}")
class SigframeWrite(FrameOp):
    """The handler writes the header of the image in its frame, the components in XSTATE_BV and what is named."""

    task: Nr = 0
    image: UserImage = UserImage(xf.MASK_YMM, 1)
    frame: FrameNr = INNERMOST

    def touched(self, k: Kernel, frame: SigFrame) -> int:
        return images.size_of(self.image.contents, self.image.xstate_bv, k.machine.cpuid)

    def access(self, k: Kernel, frame: SigFrame) -> Result:
        owner = partial(ghost.task_token, self.task)
        images.write_frame(frame, self.image, owner, k.machine.cpuid)
        return OK


@op("t{task} sigframe(changed, {change}) {frame}")
class SigframeChange(FrameOp):
    """The handler changes some of the image in its frame, as code that emulates an instruction does: XSTATE_BV, MXCSR,
    components; all else stays.  sigreturn loads x87 and SSE as behind ``legacy`` while XSTATE_BV is the kernel's."""

    task: Nr = 0
    change: FrameChange = ImageChange(((xf.YMM, 1),), 0, xf.MASK_YMM)
    frame: FrameNr = INNERMOST

    def touched(self, k: Kernel, frame: SigFrame) -> int:
        return images.size_of(self.change.contents, 0, k.machine.cpuid)

    def access(self, k: Kernel, frame: SigFrame) -> Result:
        images.change_frame(frame, self.change, partial(ghost.task_token, self.task), k.machine.cpuid)
        return OK

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from images.idle_change(self.change)


@op("t{task} sigframe(legacy, {part}, {contents}) {frame}")
class SigframeLegacy(FrameOp):
    """The handler writes x87, SSE or MXCSR in its frame as programs do that know nothing of XSAVE, and leaves the
    header alone: sigreturn loads it, unless the header is one that the task has written, which decides then."""

    task: Nr = 0
    part: LegacyPart = xf.SSE
    contents: Contents = 1
    frame: FrameNr = INNERMOST

    def hindrance(self, k: Kernel) -> str:
        ia32 = self.part == xf.X87 and k.tasks[self.task].ia32
        instead = "sigreturn takes it from: `sigframe(fsave, 1)`; the image's own is `sigframe(changed, {x87: 1})`"
        other = f"t{self.task}'s frame, a 32-bit one, has x87 in the header before, which {instead}" if ia32 else ""
        return FrameOp.hindrance(self, k) or other

    def access(self, k: Kernel, frame: SigFrame) -> Result:
        frame.area.data[self.part] = ghost.contents_of(self.contents, partial(ghost.task_token, self.task))
        return OK


@op("t{task} sigframe(sw_reserved, {sw}) {frame}")
class SigframeSwReserved(FrameOp):
    """The handler writes what surrounds the image in its frame: sw_reserved, and the second magic where it likes."""

    task: Nr = 0
    sw: SwReserved = SwReserved(magic1=0)
    frame: FrameNr = INNERMOST

    def touched(self, k: Kernel, frame: SigFrame) -> int:
        return max(FXSAVE_SIZE, self.sw.magic2 + FP_XSTATE_MAGIC2_SIZE if self.sw.magic2 else 0)

    def access(self, k: Kernel, frame: SigFrame) -> Result:
        for name, value in self.sw._asdict().items():
            if value is not None:
                setattr(frame, name, value)
        return OK

    def without_effect(self, machine: Machine) -> Iterator[str]:
        if self.sw == SwReserved():
            yield "{}: has no effect: it names nothing"


@op("t{task} sigframe(fsave, {contents}) {frame}")
class SigframeFsave(FrameOp):
    """The handler of a 32-bit program writes x87 in the header of its frame, where sigreturn takes it from."""

    task: Nr = 0
    contents: Contents = 1
    frame: FrameNr = INNERMOST

    def hindrance(self, k: Kernel) -> str:
        other = "" if k.tasks[self.task].ia32 else f"t{self.task}'s frame, a 64-bit one, has no such header"
        return FrameOp.hindrance(self, k) or other

    def access(self, k: Kernel, frame: SigFrame) -> Result:
        frame.fsave = ghost.contents_of(self.contents, partial(ghost.task_token, self.task))
        return OK


@op("t{task} sigframe(copy, {size}) {frame}")
class SigframeCopy(FrameOp):
    """The handler copies the first ``size`` bytes of the image to memory of zeros, and comes back by that frame."""

    task: Nr = 0
    size: FrameSize = FXSAVE_SIZE
    frame: FrameNr = INNERMOST

    def touched(self, k: Kernel, frame: SigFrame) -> int:
        return self.size

    def access(self, k: Kernel, frame: SigFrame) -> Result:
        images.cut(frame, self.size, k.machine.cpuid)
        return OK


@op("t{task} sigframe(copy, frame{source}) {frame}")
class SigframeCopyOf(FrameOp):
    """The handler gives its frame a copy of another one's image, whole, with what surrounds it."""

    task: Nr = 0
    source: Nr = 0
    frame: FrameNr = INNERMOST

    def hindrance(self, k: Kernel) -> str:
        return FrameOp.hindrance(self, k) or not_there(k, self.task, self.source)

    def touched(self, k: Kernel, frame: SigFrame) -> int:
        source = frame_of(k, self.task, self.source)
        return max(images.size_of((), source.area.xstate_bv, k.machine.cpuid), source.magic2 + FP_XSTATE_MAGIC2_SIZE)

    def access(self, k: Kernel, frame: SigFrame) -> Result:
        source = frame_of(k, self.task, self.source)
        if k.pkey_denies(source):
            return Result("SIGSEGV")
        images.copy(source, frame)
        return OK

    def without_effect(self, machine: Machine) -> Iterator[str]:
        if self.source == self.frame:
            yield f"frame{self.source}: has no effect: it is the frame itself"


@op("t{task} sigframe(fpstate, {fpstate}) {frame}")
class SigframeFpstate(FrameOp):
    """The handler says where the image of its frame lies: nowhere (NULL), or ``fpstate`` bytes above a multiple of 64,
    to which it is moved, with what surrounds it."""

    task: Nr = 0
    fpstate: Fpstate = NULL_FPSTATE
    frame: FrameNr = INNERMOST

    def touched(self, k: Kernel, frame: SigFrame) -> int:
        return 0

    def access(self, k: Kernel, frame: SigFrame) -> Result:
        frame.null = self.fpstate == NULL_FPSTATE
        if not frame.null:
            frame.misaligned = self.fpstate
        return OK


@op("t{task} siglongjmp {frame}")
class Siglongjmp(FrameOp):
    """The handler is left by siglongjmp(): nobody looks at its frame any more, and the registers stay as they are.

    All handlers inside it are left with it.
    """

    task: Nr = 0
    frame: FrameNr = INNERMOST

    def hindrance(self, k: Kernel) -> str:
        why = FrameOp.hindrance(self, k)
        return why or ("" if frame_of(k, self.task, self.frame).valid else f"t{self.task} is not in that handler")

    def run(self, k: Kernel) -> Result:
        self.enter_user(k)
        k.set_stack_pointer(number_of(k, self.task, self.frame))
        return OK


class _Sigreturn(TaskOp):
    """What becomes of the ideal task where rt_sigreturn() ends."""

    __slots__ = ()

    def returns(self, k: Kernel, part: Callable[[], bool], denied: bool = False) -> Result:
        """rt_sigreturn(), or what goes on with it, by the frame at which the stack pointer is.

        ``denied``: the frame cannot be read at all, so a call that fails has changed nothing.  If a frame that the task
        has made itself brings another alternate stack, what was left on the one before is lost.
        """
        task, by = k.tasks[self.task], k.innermost_frame()
        expected, guarded, stack = ghost.of_sigframe(k, by), by.pkey, task.sas_ss_size
        made = k.own_sigframe_of(self.task).valid
        success = part()
        if made and task.sas_ss_size != stack:
            k.forget_altstack(self.task)
        if denied and not success:
            return Result("SIGSEGV")
        return Result("#PF") if k.current.in_sigreturn else self.end(k, expected, success, guarded)

    def end(self, k: Kernel, expected: tuple[dict[int, int], int], success: bool, guarded: int) -> Result:
        """The registers are those of the frame, as ``expected`` before (ghost.of_sigframe()), or initial."""
        ghost.initialise(k, self.task)
        ideal = k.system.ghost.tasks[self.task]
        if not success:
            ghost.default_pkru(k, self.task)
            if guarded:  # uc_stack may have been denied by the PKRU that was restored, behind all other registers
                for i, token in expected[0].items():
                    ghost.define(ideal, i, token)
                ideal.undefined |= k.machine.user_xfeatures | xf.MASK_MXCSR
            return Result("SIGSEGV")
        loaded, unsaid = expected
        for i, token in loaded.items():
            ghost.define(ideal, i, token)
        ideal.undefined |= xf.mask_of(*loaded) & self.not_enabled(k) | unsaid
        return OK

    def not_enabled(self, k: Kernel) -> int:
        """Dynamic features that a frame from before a fork may have and the child not yet: nobody promises them.

        restore_fpregs_from_user(): "Restore enabled features only."
        """
        return k.machine.xfd_xfeatures & ~k.fpstates[k.tasks[self.task].fpu.fpstate].user_xfeatures


def _cannot_return(k: Kernel, op: TaskOp, frame: int) -> str:
    """Why a task cannot return by a frame; nothing if it can."""
    why = TaskOp.hindrance(op, k) or not_there(k, op.task, frame)
    return why or (_changes_its_stack(k, op.task) if frame == OWN else "")


class _SigreturnBegins(_Sigreturn):
    __slots__ = ()

    def sigreturn(self, k: Kernel, frame: int) -> Result:
        """A task that was preempted before is taken to have been inside the system call already."""
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        if frame == OWN:
            k.point_at_own_sigframe()
        else:
            k.set_stack_pointer(number_of(k, self.task, frame) + 1)
        k.current.user_mode = 0
        return self.returns(k, k.rt_sigreturn, k.pkey_denies(k.innermost_frame()))


@op("t{task} sigreturn {frame}")
class Sigreturn(_SigreturnBegins):
    """The handler returns: the registers become those of the frame, or, with SIGSEGV, initial if it is bad.

    By the frame of another handler the task goes on where that one's signal came, by a frame that is done with once
    more, by one that it has made itself where it is.  Where memory ends before XRSTOR has all that it loads, `#PF`: the
    call goes on behind ``... sigreturn``.
    """

    task: Nr = 0
    frame: FrameNr = INNERMOST

    def hindrance(self, k: Kernel) -> str:
        return _cannot_return(k, self, self.frame)

    def run(self, k: Kernel) -> Result:
        return self.sigreturn(k, self.frame)


@op("t{task} sigreturn(absent, {loadable}) {frame} ...")
class SigreturnFaults(_SigreturnBegins):
    """The handler returns, and the page behind the header of the image in its frame is not there.

    XRSTOR faults, and by then has loaded or initialised the components of ``loadable``, which is the processor's
    choice; a frame without its magic, or a bad header, is noticed before.
    """

    task: Nr = 0
    loadable: Xfeatures = xf.MASK_YMM
    frame: FrameNr = INNERMOST

    def hindrance(self, k: Kernel) -> str:
        copied = f"t{self.task}'s frame, a 32-bit one, is read in before it is restored"
        return _cannot_return(k, self, self.frame) or (copied if k.tasks[self.task].ia32 else "")

    def run(self, k: Kernel) -> Result:
        frame = frame_of(k, self.task, self.frame)
        frame.absent, frame.loadable = 1, self.loadable
        return self.sigreturn(k, self.frame)


class _SigreturnEnds(_Sigreturn):
    __slots__ = ()

    def hindrance(self, k: Kernel) -> str:
        task = k.tasks[self.task]
        if not task.in_sigreturn:
            return f"t{self.task} waits for no page of a signal frame"
        return "" if task.on_cpu else f"t{self.task} is on no CPU"

    def fault_in(self, k: Kernel, present: bool) -> Result:
        """The page fault is over."""
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        return self.returns(k, partial(k.rt_sigreturn_fault_in, present))


@op("t{task} ... sigreturn")
class SigreturnFaultIn(_SigreturnEnds):
    """The page is read in, and XRSTOR tried again."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.fault_in(k, True)


@op("t{task} ... sigreturn(gone)")
class SigreturnGone(_SigreturnEnds):
    """The page cannot be read in: SIGSEGV, and initial registers."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.fault_in(k, False)


def returned_by(before: System, op: Sigreturn | SigreturnFaults | SigreturnFaultIn) -> SigFrame:
    """The frame that such an op returns by, as it was."""
    own, frames = own_sigframe_of(before, op.task), sigframes_of(before, op.task)
    inside = OWN if own.valid else INNERMOST
    frame = inside if isinstance(op, SigreturnFaultIn) else op.frame
    if frame == OWN:
        return own
    return frames[handlers_of(before, op.task) - 1 if frame == INNERMOST else frame]
