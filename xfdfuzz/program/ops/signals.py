"""Signals: delivery in its preemptible halves, what the handler does to its frame, and sigreturn."""

from __future__ import annotations

from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.fpu.init import FXSAVE_SIZE
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import SigFrame
from xfdfuzz.program import ghost, images
from xfdfuzz.program.fields import FrameSize, Nr, SwReserved, UserImage
from xfdfuzz.program.ops.base import OK, TaskOp, op
from xfdfuzz.program.step import Result, SwBytes, image_of


@op("t{task} signal ...")
class Signal(TaskOp):
    """A signal is about to be handled: the frame is set up, on the alternate stack if there is one.

    The value is the image in it; SIGSEGV where the alternate stack is too small.  Signals are delivered on the way to
    user mode, so what is pending there is not finished first.
    """

    task: Nr = 0

    def enabled(self, k: Kernel) -> bool:
        return TaskOp.enabled(self, k) and not k.system.sigframes[self.task].valid

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

    def enabled(self, k: Kernel) -> bool:
        task = k.tasks[self.task]
        return bool(task.on_cpu and task.in_signal)

    def run(self, k: Kernel) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        k.handle_signal_clear()
        ghost.initialise(k, self.task)
        ghost.default_pkru(k, self.task)
        return OK


class _HandlerOp(TaskOp):
    __slots__ = ()

    def enabled(self, k: Kernel) -> bool:
        return TaskOp.enabled(self, k) and bool(k.system.sigframes[self.task].valid)

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


@op("t{task} sigreturn")
class Sigreturn(TaskOp):
    """The handler returns: the registers become those of the frame, or, with SIGSEGV, initial if it is bad.

    A task that was preempted before is taken to have been inside the system call already.
    """

    task: Nr = 0

    def enabled(self, k: Kernel) -> bool:
        return TaskOp.enabled(self, k) and bool(k.system.sigframes[self.task].valid)

    def run(self, k: Kernel) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        k.current.user_mode = 0
        expected, unsaid = ghost.of_sigframe(k, k.system.sigframes[self.task])
        success = k.rt_sigreturn()
        ghost.initialise(k, self.task)
        if success:
            ideal = k.system.ghost.tasks[self.task]
            for i, token in expected.items():
                ghost.define(ideal, i, token)
            ideal.undefined |= xf.mask_of(*expected) & self.not_enabled(k) | unsaid
        else:
            ghost.default_pkru(k, self.task)
        return OK if success else Result("SIGSEGV")

    def not_enabled(self, k: Kernel) -> int:
        """Dynamic features that a frame from before a fork may have and the child not yet: nobody promises them.

        restore_fpregs_from_user(): "Restore enabled features only."
        """
        return k.machine.xfd_xfeatures & ~k.fpstates[k.tasks[self.task].fpu.fpstate].user_xfeatures
