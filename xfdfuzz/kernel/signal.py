"""Signals: delivery in its preemptible halves, rt_sigreturn and sigaltstack (arch/x86/kernel/signal.c, v5.16).

Handlers nest: no signal is blocked.  A user stack is modelled as the frames on it, so the stack pointer is where the
innermost handler is.  A handler is taken to have called one function when something interrupts it, and to have nothing
else on its stack.  A frame that a task makes itself lies in memory of its own.  rt_sigreturn() is cut where its XRSTOR
meets a page that is not there, and delivery where its XSAVE does.
"""

from __future__ import annotations

from typing import NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.errno import ENOMEM, EPERM
from xfdfuzz.kernel.fpu.init import ZEROED
from xfdfuzz.kernel.fpu.signal import FREGS_SIZE
from xfdfuzz.kernel.shstk import Shstk
from xfdfuzz.kernel.state import (
    REDZONE_SIZE,
    RETURN_ADDRESS_SIZE,
    UNWRITABLE_RT_SIGFRAME,
    SigFrame,
    Task,
    handlers_of,
    innermost_handlers_frame,
    on_sig_stack,
    own_sigframe_of,
    sigframes_of,
)
from xfdfuzz.memory.cstruct import assign

#: sizeof(struct rt_sigframe) of a 64-bit task, in bytes.
RT_SIGFRAME_SIZE = 440
#: The smallest alternate signal stack, in bytes (arch/x86/include/uapi/asm/signal.h).
MINSIGSTKSZ = 2048
#: sizeof(struct rt_sigframe_ia32), in bytes.
RT_SIGFRAME_IA32_SIZE = 268


class Place(NamedTuple):
    """Where a frame begins: on an alternate stack in bytes from the lowest address, elsewhere less than 0; of that
    stack, whether SS_AUTODISARM has taken it away, and whether a protection key is known to guard it."""

    sp: int
    disarmed: bool
    pkey: bool


class Signals(Shstk):
    """Signal frames, on the alternate stack where there is one, if the handler has SA_ONSTACK."""

    @phase_of("handle_signal")
    def setup_rt_frame(self, sa_onstack: bool) -> bool:
        """handle_signal() as far as the frame stands; False: it cannot, and the task gets SIGSEGV.

        Where XSAVE meets a page that is not there it is False as well, with ``in_sigframe`` set: the fault is handled,
        and :meth:`sigframe_fault_in` goes on.
        """
        return self.get_sigframe(sa_onstack) and self.setup_rt_frame_end()

    @phase_of("__setup_rt_frame")
    def setup_rt_frame_end(self) -> bool:
        """What comes behind get_sigframe(): struct rt_sigframe, below the image, with page faults enabled.

        In 6.12 they are x64_setup_rt_frame() and ia32_setup_rt_frame().
        """
        if self.innermost_frame().unwritable == UNWRITABLE_RT_SIGFRAME:
            self.might_fault()
            self.setup_rt_frame_failed()
            return False
        self.current.in_signal = 1
        self.current.sig_pkru = 0
        return True

    @phase_of("handle_signal")
    def setup_rt_frame_failed(self) -> None:
        """signal_setup_done() sends SIGSEGV, and nobody looks at what stands of the frame."""
        assign(self.innermost_frame(), SigFrame())
        self.current.sig_pkru = 0

    def get_sigframe(self, sa_onstack: bool) -> bool:
        """Find the place, then save the registers there; False as for :meth:`setup_rt_frame`."""
        place = self.get_sigframe_place(sa_onstack)
        if place is None:
            return False
        frame = self.new_sigframe(place)
        frame.disarmed = place.disarmed
        frame.pkey = frame.pkey or place.pkey
        self.save_altstack(frame)
        self.current.sig_pkru = self.sig_prepare_pkru()
        return self.get_sigframe_end(self.copy_fpstate_to_sigframe(frame, self.current.sig_pkru))

    @phase_of("get_sigframe")
    def get_sigframe_end(self, saved: bool) -> bool:
        """What it makes of the answer, once there is one."""
        if not saved and not self.current.in_sigframe:
            self.get_sigframe_pkru()
            self.setup_rt_frame_failed()
        return saved

    @seam
    def get_sigframe_place(self, sa_onstack: bool) -> Place | None:
        """Where the frame will begin, None where the alternate stack has no room.

        A handler with SA_ONSTACK gets the alternate stack, below what is there if the stack pointer is on it already.
        Not asked where :func:`~xfdfuzz.kernel.state.altstack_begins_anew`, or
        :func:`~xfdfuzz.kernel.state.may_overflow`.
        """
        ia32_frame = self.current.ia32
        nested_altstack = self.on_sig_stack()
        entering_altstack = sa_onstack and bool(self.current.sas_ss_size) and not nested_altstack
        below = self.user_stack_pointer() - (0 if ia32_frame else REDZONE_SIZE)
        above = self.current.sas_ss_size if entering_altstack else below
        frame_size = RT_SIGFRAME_IA32_SIZE if ia32_frame else RT_SIGFRAME_SIZE
        sp = self.align_sigframe(self.fpu_alloc_mathframe(above) - frame_size)
        overflows = (nested_altstack or entering_altstack) and not 0 < sp <= self.current.sas_ss_size
        if overflows:
            return None
        below_it = None if entering_altstack else self._handlers_frame()
        return Place(sp, bool(below_it and below_it.disarmed), bool(below_it and below_it.pkey))

    def _handlers_frame(self) -> SigFrame | None:
        return innermost_handlers_frame(self.system, self.current_nr)

    def save_altstack(self, frame: SigFrame) -> None:
        """Into uc_stack (kernel/signal.c)."""
        frame.ss_size, frame.ss_disable = self.current.sas_ss_size, self.current.sas_ss_disable
        frame.ss_autodisarm = self.current.sas_ss_autodisarm

    def fpu_alloc_mathframe(self, sp: int) -> int:
        """fpu__alloc_mathframe(): where what the FPU needs below ``sp`` begins: the image, in front of it the header
        of a 32-bit frame (arch/x86/kernel/fpu/signal.c)."""
        buf_fx = sp - self.xstate_sigframe_size(self.deref(self.current.fpu.fpstate)) & -64
        return buf_fx - FREGS_SIZE if self.current.ia32 else buf_fx

    def align_sigframe(self, sp: int) -> int:
        """Where a frame begins that has room from ``sp`` on: as if a function was called there."""
        return (sp + 4 & -16) - 4 if self.current.ia32 else (sp & -16) - 8

    # -- the user's stack ----------------------------------------------------------------------------------------

    @seam
    def sigframes_of(self, task: int) -> list[SigFrame]:
        """A user task's frames, the outermost first, whether there is anything in them or not."""
        return sigframes_of(self.system, task)

    @seam
    def handlers_of(self, task: int) -> int:
        """In how many handlers a task is, each of which interrupted the one before."""
        return handlers_of(self.system, task)

    @seam
    def own_sigframe_of(self, task: int) -> SigFrame:
        """The one that a user task has made itself, whether there is anything in it or not."""
        return own_sigframe_of(self.system, task)

    @seam
    def innermost_frame(self) -> SigFrame:
        """That of the handler that current is in, of which there has to be one, or, while the stack pointer is at it,
        the one that it has made itself."""
        own = self.own_sigframe_of(self.current_nr)
        return own if own.valid else self.sigframes_of(self.current_nr)[self.handlers_of(self.current_nr) - 1]

    @seam
    def user_stack_pointer(self) -> int:
        """current_user_stack_pointer(): on the alternate stack in bytes from its lowest address; 0 is far away."""
        pushed = RETURN_ADDRESS_SIZE // 2 if self.current.ia32 else RETURN_ADDRESS_SIZE
        frame = None if self.own_sigframe_of(self.current_nr).valid else self._handlers_frame()
        return frame.altstack_sp - pushed if frame and frame.on_altstack else 0

    def on_sig_stack(self) -> bool:
        """Whether the stack pointer is on the alternate stack, which nobody can be on by construction if it has
        SS_AUTODISARM (include/linux/sched/signal.h).

        While the stack pointer is there the stack stays the same.
        """
        own = self.own_sigframe_of(self.current_nr)
        return not own.valid and on_sig_stack(self.system, self.current_nr)

    @seam
    def new_sigframe(self, place: Place) -> SigFrame:
        """One more on the stack; what is left of others below the stack pointer is taken to be overwritten by it.

        What is the matter with the memory there stays, and where an older frame lay in the same place its image does,
        until something is written.
        """
        frames = self.sigframes_of(self.current_nr)
        depth = self.handlers_of(self.current_nr)
        there, new, image = frames[depth], SigFrame(), XsaveArea()
        new.valid, new.absent, new.unwritable, new.pkey = 1, there.absent, there.unwritable, there.pkey
        new.on_altstack, new.altstack_sp = place.sp > 0, max(place.sp, 0)
        new.user_size = self.deref(self.current.fpu.fpstate).user_size
        if self.is_left_there(there, new):
            assign(image, there.area)
        for frame in frames[depth:]:
            assign(frame, SigFrame())
        assign(there, new)
        assign(there.area, image)
        return there

    @seam
    def is_left_there(self, older: SigFrame, new: SigFrame) -> bool:
        """Whether the image of a frame whose handler has ended lies where that of the new one is about to.

        The frames around it are the same, and so is the rest of the stack.  Elsewhere there are zeros for whatever is
        there.
        """
        same_stack = (older.on_altstack, older.altstack_sp) == (new.on_altstack, new.altstack_sp)
        return bool(older.stale and same_stack and older.user_size == new.user_size and not older.misaligned)

    @seam
    def set_stack_pointer(self, handlers: int) -> None:
        """The stack pointer is where that many of the outermost handlers run: those inside them have ended, and these
        go on even if they had ended."""
        for depth, frame in enumerate(self.sigframes_of(self.current_nr)):
            there = frame.valid or frame.stale
            frame.valid = there and depth < handlers
            frame.stale = there and depth >= handlers
        self.own_sigframe_of(self.current_nr).valid = 0

    @seam
    def make_sigframe(self, ss_size: int | None, mapped: int) -> None:
        """Current fills memory of its own with zeros, and makes a frame of it that leads to where it is now.

        That ends behind ``mapped`` bytes of the image, or, 0, behind all that anybody looks at.  Its uc_stack is an
        alternate stack of ``ss_size`` bytes, SS_DISABLE for 0, or the one that there is, as sigaltstack() tells of it.
        """
        frame = self.own_sigframe_of(self.current_nr)
        assign(frame, SigFrame())
        frame.stale = 1
        frame.mapped = mapped
        for i in (xf.X87, xf.MXCSR):
            frame.area.data[i] = ZEROED
        frame.fsave = ZEROED
        frame.ss_size = self.current.sas_ss_size if ss_size is None else ss_size
        frame.ss_disable = not frame.ss_size
        frame.ss_autodisarm = frame.ss_size == self.current.sas_ss_size and self.current.sas_ss_autodisarm

    @seam
    def point_at_own_sigframe(self) -> None:
        """The stack pointer is at the frame that current has made, so on no other stack."""
        self.own_sigframe_of(self.current_nr).valid = 1

    @seam
    def restore_stack_pointer(self) -> None:
        """restore_sigcontext() has restored the general registers: the stack pointer is where the signal came, or where
        it was before the task let it point at a frame of its own."""
        inside = 0 if self.own_sigframe_of(self.current_nr).valid else 1
        self.set_stack_pointer(self.handlers_of(self.current_nr) - inside)

    @seam
    def forget_sigframes(self, task: int) -> None:
        """The stack is gone, or something else stands there."""
        for frame in (*self.sigframes_of(task), self.own_sigframe_of(task)):
            assign(frame, SigFrame())

    @seam
    def forget_altstack(self, task: int) -> None:
        """What is left of frames on the alternate stack is no more, nor of those in handlers that ran there."""
        there = False
        for frame in self.sigframes_of(task):
            there |= bool(frame.stale and frame.on_altstack)
            if there:
                assign(frame, SigFrame())

    @seam
    def copy_sigframes(self, child: int) -> None:
        """A child has a copy of current's stack, and of what else it has in memory."""
        for frame, copy in zip(self.sigframes_of(self.current_nr), self.sigframes_of(child), strict=True):
            assign(copy, frame)
        assign(self.own_sigframe_of(child), self.own_sigframe_of(self.current_nr))

    # -- delivery ------------------------------------------------------------------------------------------------

    @phase_of("copy_fpstate_to_sigframe")
    def sigframe_fault_in(self, present: bool) -> bool:
        """XSAVE once more if __clear_user() found all pages of the image, which may sleep; then as setup_rt_frame().

        So of what XSAVE does not write there is nothing left of an older frame.
        """
        frame = self.innermost_frame()
        self.current.in_sigframe = frame.absent = 0
        self.might_fault()
        assign(frame.area, XsaveArea())
        saved = present and self.copy_fpstate_retry(frame, self.current.sig_pkru)
        return self.get_sigframe_end(saved) and self.setup_rt_frame_end()

    def sig_prepare_pkru(self) -> int:
        """The task's PKRU, which stays in the register until 70044df250d0 (6.12; arch/x86/kernel/signal.c)."""
        pkru: int = self.regs.data[xf.PKRU]
        return pkru

    @seam
    def get_sigframe_pkru(self) -> None:
        """The image could not be written: PKRU is as it was, until 70044df250d0 (6.12; arch/x86/kernel/signal.c)."""

    @phase_of("handle_signal")
    def handle_signal_clear(self) -> None:
        """handle_signal(), its end: the handler starts with the new FPU state."""
        self.fpu_clear_user_states()
        self.current.in_signal = 0
        self.signal_delivered()

    def signal_delivered(self) -> None:
        """A stack with SS_AUTODISARM is the task's no more, until sigreturn (kernel/signal.c)."""
        if self.current.sas_ss_autodisarm:
            self.innermost_frame().disarmed = self.innermost_frame().on_altstack
            self.sas_ss_reset(self.current)

    def sas_ss_reset(self, task: Task) -> None:
        """No alternate stack (include/linux/sched/signal.h)."""
        task.sas_ss_size, task.sas_ss_disable, task.sas_ss_autodisarm = 0, 1, 0

    # -- rt_sigreturn and sigaltstack ------------------------------------------------------------------------------

    def rt_sigreturn(self) -> bool:
        """rt_sigreturn(2) with the stack pointer at the innermost frame; False: it was bad, and the task gets SIGSEGV.

        Where XRSTOR meets a page that is not there it is False as well, with ``in_sigreturn`` set: the fault is
        handled, and :meth:`rt_sigreturn_fault_in` goes on.
        """
        if self.pkey_denies(self.innermost_frame()):
            return False  # __get_user() of the signal mask
        success = self.fpu_restore_sig_begin(self.innermost_frame())
        if self.current.in_sigreturn:
            return False
        return self.rt_sigreturn_end(success)

    @phase_of("rt_sigreturn")
    def rt_sigreturn_fault_in(self, present: bool) -> bool:
        """restore_fpregs_from_user() once more if fault_in_readable() found all pages, which may sleep.

        What comes before it in __fpu_restore_sig() is done once in the kernel; again, it comes to the same.  False with
        ``in_sigreturn`` set where XRSTOR meets a page once more.
        """
        frame = self.innermost_frame()
        self.current.in_sigreturn = 0
        self.might_fault()
        if present:
            frame.absent = 0
        present = present and not self.pkey_denies(frame) and self.readable(frame, self.sigframe_fault_in_size(frame))
        success = present and self._fpu_restore_sig(frame)
        return not self.current.in_sigreturn and self.rt_sigreturn_end(success)

    @phase_of("rt_sigreturn")
    def rt_sigreturn_end(self, success: bool) -> bool:
        """The end of fpu__restore_sig(), and what comes behind it."""
        self.fpu_restore_sig_end(success)
        frame = self.innermost_frame()
        frame.absent = frame.loadable = 0
        self.restore_stack_pointer()
        return success and self.rt_sigreturn_altstack(frame)

    @seam
    def rt_sigreturn_altstack(self, frame: SigFrame) -> bool:
        """Behind restore_sigcontext(), unless the frame was bad, until d10b554919d4 (6.12)."""
        return self.restore_altstack(frame)

    def restore_altstack(self, frame: SigFrame) -> bool:
        """The alternate stack is what it was when the signal came; where it cannot be, it stays (kernel/signal.c).

        do_sigaltstack() takes no lock where nothing changes (6c3118c32129, 5.17).  False: uc_stack cannot be read.
        """
        self.might_fault()
        if self.pkey_denies(frame):
            return False
        there = self.current.sas_ss_size, self.current.sas_ss_disable, self.current.sas_ss_autodisarm
        if (frame.ss_size, frame.ss_disable, frame.ss_autodisarm) != there:
            self.do_sigaltstack(frame.ss_size, bool(frame.ss_disable), bool(frame.ss_autodisarm))
        return True

    def sigaltstack(self, size: int, autodisarm: bool) -> int:
        """sigaltstack(2) with a stack of ``size`` bytes in memory of its own; SS_DISABLE for 0 (kernel/signal.c)."""
        return self.do_sigaltstack(size, not size, autodisarm)

    def do_sigaltstack(self, size: int, ss_disable: bool, ss_autodisarm: bool) -> int:
        """(kernel/signal.c).

        EPERM from a handler that runs on it.  The rest is under siglock, which serialises it with a request for
        permission (sigaltstack_lock()).
        """
        if self.on_sig_stack():
            return -EPERM
        self.spin_lock_irq()
        valid = ss_disable or (size >= MINSIGSTKSZ and self.sigaltstack_size_valid(size))
        if valid:
            self.current.sas_ss_size, self.current.sas_ss_disable = size, ss_disable
            self.current.sas_ss_autodisarm = ss_autodisarm
        self.spin_unlock_irq()
        return 0 if valid else -ENOMEM
