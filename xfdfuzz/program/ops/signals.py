"""Signals: delivery in its preemptible halves, what the handler does to its frame, and sigreturn."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.fpu.init import FXSAVE_SIZE
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import SigFrame
from xfdfuzz.program import ghost, images
from xfdfuzz.program.fields import FrameSize, Nr, SwReserved, UserImage, Xfeatures
from xfdfuzz.program.ops.base import OK, TaskOp, op
from xfdfuzz.program.step import Result, SwBytes, image_of


@op("t{task} signal ...")
class Signal(TaskOp):
    """A signal is about to be handled: the frame is set up, on the alternate stack if there is one.

    The value is the image in it; SIGSEGV where the alternate stack is too small.  Signals are delivered on the way to
    user mode, so what is pending there is not finished first.
    """

    task: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        in_handler = k.system.sigframes[self.task].valid
        return TaskOp.hindrance(self, k) or (f"t{self.task} is in a signal handler already" if in_handler else "")

    def run(self, k: Kernel) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        k.current.user_mode = 0
        if not k.setup_rt_frame():
            return Result("SIGSEGV")
        return Result("ok", image_of(k.system.sigframes[self.task].area))


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


def no_frame(k: Kernel, nr: int) -> str:
    """That a task is in no signal handler; nothing if it is in one."""
    return "" if k.system.sigframes[nr].valid else f"t{nr} is in no signal handler"


class _HandlerOp(TaskOp):
    __slots__ = ()

    def hindrance(self, k: Kernel) -> str:
        return TaskOp.hindrance(self, k) or no_frame(k, self.task)

    def frame(self, k: Kernel) -> SigFrame:
        """The handler runs and looks at its frame."""
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        k.exit_to_user_mode()
        return k.system.sigframes[self.task]


@op("t{task} sigframe")
class SigframeRead(_HandlerOp):
    """The handler looks at what surrounds the image in its frame: magics, features, size."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        frame = self.frame(k)
        there = bool(frame.magic2) and frame.magic2 == frame.xstate_size
        return Result("ok", SwBytes(bool(frame.magic1), frame.xfeatures, frame.xstate_size, there))


@op("t{task} sigframe({image})")
class SigframeWrite(_HandlerOp):
    """The handler writes the header of the image in its frame, the components in XSTATE_BV and what is named."""

    task: Nr = 0
    image: UserImage = UserImage(xf.MASK_YMM, 1)

    def run(self, k: Kernel) -> Result:
        images.write(self.frame(k).area, self.image, partial(ghost.task_token, self.task))
        return OK


@op("t{task} sigframe(sw_reserved, {sw})")
class SigframeSwReserved(_HandlerOp):
    """The handler writes what surrounds the image in its frame: sw_reserved, and the second magic where it likes."""

    task: Nr = 0
    sw: SwReserved = SwReserved(magic1=0)

    def run(self, k: Kernel) -> Result:
        frame = self.frame(k)
        for name, value in self.sw._asdict().items():
            if value is not None:
                setattr(frame, name, value)
        return OK

    def without_effect(self, machine: Machine) -> Iterator[str]:
        if self.sw == SwReserved():
            yield "{}: has no effect: it names nothing"


@op("t{task} sigframe(copy, {size})")
class SigframeCopy(_HandlerOp):
    """The handler copies the first ``size`` bytes of the image to memory of zeros, and comes back by that frame."""

    task: Nr = 0
    size: FrameSize = FXSAVE_SIZE

    def run(self, k: Kernel) -> Result:
        images.cut(self.frame(k), self.size, k.machine.cpuid)
        return OK


@op("t{task} siglongjmp")
class Siglongjmp(_HandlerOp):
    """The handler is left by siglongjmp(): nobody looks at its frame any more, and the registers stay as they are."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.frame(k).valid = 0
        return OK


class _Sigreturn(TaskOp):
    """What becomes of the ideal task where rt_sigreturn() ends."""

    __slots__ = ()

    def end(self, k: Kernel, expected: tuple[dict[int, int], int], success: bool) -> Result:
        """The registers are those of the frame, as ``expected`` before (ghost.of_sigframe()), or initial."""
        ghost.initialise(k, self.task)
        if not success:
            ghost.default_pkru(k, self.task)
            return Result("SIGSEGV")
        ideal = k.system.ghost.tasks[self.task]
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


class _SigreturnBegins(_Sigreturn):
    __slots__ = ()

    def hindrance(self, k: Kernel) -> str:
        return TaskOp.hindrance(self, k) or no_frame(k, self.task)

    def sigreturn(self, k: Kernel) -> Result:
        """A task that was preempted before is taken to have been inside the system call already."""
        frame = k.system.sigframes[self.task]
        expected = ghost.of_sigframe(k, frame)
        success = k.rt_sigreturn()
        return Result("#PF") if k.current.in_sigreturn else self.end(k, expected, success)


@op("t{task} sigreturn")
class Sigreturn(_SigreturnBegins):
    """The handler returns: the registers become those of the frame, or, with SIGSEGV, initial if it is bad."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        k.current.user_mode = 0
        return self.sigreturn(k)


@op("t{task} sigreturn(absent, {loadable}) ...")
class SigreturnFaults(_SigreturnBegins):
    """The handler returns, and the page behind the header of the image in its frame is not there.

    XRSTOR faults, and by then has loaded or initialised the components of ``loadable``, which is the processor's
    choice; a frame without its magic, or a bad header, is noticed before.
    """

    task: Nr = 0
    loadable: Xfeatures = xf.MASK_YMM

    def run(self, k: Kernel) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        k.current.user_mode = 0
        frame = k.system.sigframes[self.task]
        frame.absent, frame.loadable = 1, self.loadable
        return self.sigreturn(k)


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
        expected = ghost.of_sigframe(k, k.system.sigframes[self.task])
        return self.end(k, expected, k.rt_sigreturn_fault_in(present))


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
