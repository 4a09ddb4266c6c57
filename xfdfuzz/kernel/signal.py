"""Signals: delivery in its preemptible halves, and rt_sigreturn (arch/x86/kernel/signal.c, v5.16).

At most one signal is handled at a time; a handler runs with all others blocked.  rt_sigreturn() is cut where its XRSTOR
meets a page that is not there.
"""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.fpu.signal import FREGS_SIZE
from xfdfuzz.kernel.shstk import Shstk
from xfdfuzz.kernel.state import SigFrame
from xfdfuzz.memory.cstruct import assign

#: sizeof(struct rt_sigframe) of a 64-bit task, in bytes.
RT_SIGFRAME_SIZE = 440
#: sizeof(struct rt_sigframe_ia32), in bytes.
RT_SIGFRAME_IA32_SIZE = 268


class Signals(Shstk):
    """Signal frames, on the alternate stack where there is one (SA_ONSTACK)."""

    @phase_of("handle_signal")
    def setup_rt_frame(self) -> bool:
        """handle_signal() as far as the frame stands; False when the alternate stack is too small (SIGSEGV)."""
        if not self.get_sigframe():
            return False
        self.current.in_signal = 1
        return True

    def get_sigframe(self) -> bool:
        """Find the place, then save the registers there."""
        size = self.current.sas_ss_size
        if size and not self.on_sig_stack(size):
            return False
        frame = self.system.sigframes[self.current_nr]
        frame.valid = 1
        frame.on_altstack = bool(size)
        self.get_sigframe_save(frame)
        return True

    @seam
    def on_sig_stack(self, size: int) -> bool:
        """fpu__alloc_mathframe() and the rest of the frame: is the stack pointer still on the stack of ``size`` bytes?

        Its end is taken to be aligned to 64 bytes.
        """
        fpstate = self.deref(self.current.fpu.fpstate)
        sp = size - self.xstate_sigframe_size(fpstate) & -64
        if self.current.ia32:
            sp -= FREGS_SIZE
            sp = (sp - RT_SIGFRAME_IA32_SIZE + 4 & -16) - 4
        else:
            sp = (sp - RT_SIGFRAME_SIZE & -16) - 8
        return sp > 0

    @seam
    def get_sigframe_save(self, frame: SigFrame) -> None:
        """The end of get_sigframe()."""
        self.copy_fpstate_to_sigframe(frame, self.sig_prepare_pkru())

    def sig_prepare_pkru(self) -> int:
        """The task's PKRU, which stays in the register until 70044df250d0 (6.12; arch/x86/kernel/signal.c)."""
        pkru: int = self.regs.data[xf.PKRU]
        return pkru

    @phase_of("handle_signal")
    def handle_signal_clear(self) -> None:
        """handle_signal(), its end: the handler starts with the new FPU state."""
        self.fpu_clear_user_states()
        self.current.in_signal = 0

    def rt_sigreturn(self) -> bool:
        """rt_sigreturn(2); False: the frame was bad, and the task gets SIGSEGV.

        Where XRSTOR meets a page that is not there it is False as well, with ``in_sigreturn`` set: the fault is
        handled, and :meth:`rt_sigreturn_fault_in` goes on.
        """
        frame = self.system.sigframes[self.current_nr]
        success = self._fpu_restore_sig(frame)
        if self.current.in_sigreturn:
            return False
        return self.rt_sigreturn_end(frame, success)

    @phase_of("rt_sigreturn")
    def rt_sigreturn_fault_in(self, present: bool) -> bool:
        """restore_fpregs_from_user() once more if fault_in_readable() found the page, which may sleep.

        What comes before it in __fpu_restore_sig() is done once in the kernel; again, it comes to the same.
        """
        frame = self.system.sigframes[self.current_nr]
        self.current.in_sigreturn = 0
        self.might_fault()
        if present:
            frame.absent = 0
        return self.rt_sigreturn_end(frame, present and self._fpu_restore_sig(frame))

    @phase_of("rt_sigreturn")
    def rt_sigreturn_end(self, frame: SigFrame, success: bool) -> bool:
        """The end of fpu__restore_sig(), and the frame is gone."""
        self.fpu_restore_sig_end(success)
        assign(frame, SigFrame())
        return success
