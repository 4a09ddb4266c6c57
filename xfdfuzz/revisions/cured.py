"""Candidate cures for the open findings (docs/fidelity.md): PROPOSED by this project, posted and merged nowhere.

With them a kernel has nothing left that is known to be wrong, so whatever fuzzing finds there is new.  Each is what a
kernel developer might write; the docstring names the finding, the function and what its C would do.
"""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.fpu.core import FpuCore
from xfdfuzz.kernel.fpu.signal import FpuSignal
from xfdfuzz.kernel.fpu.xstate import Xstate
from xfdfuzz.kernel.power import Power
from xfdfuzz.kernel.state import FIRST_VALLOC, Fpstate, FpuGuest, SigFrame
from xfdfuzz.memory.cstruct import assign, copy_of
from xfdfuzz.revisions.amx_series import AmxSeries
from xfdfuzz.revisions.amx_v6 import AmxV6
from xfdfuzz.revisions.queue import PROPOSED, propose


@propose("open-1-clear-unloaded", "x86/fpu: Clear XSTATE_BV[i] of a guest that is not loaded", fixes=("b45f72177594",))
class ClearUnloaded(AmxV6):
    """Finding 1: in an ioctl the guest's state is in memory, whatever the calling thread's TIF_NEED_FPU_LOAD says.

    fpu_update_guest_xfd(): ``if (xfd && (!fpstate->in_use || test_thread_flag(TIF_NEED_FPU_LOAD)))``.
    """

    def fpu_update_guest_xfd(self, guest_fpu: FpuGuest, xfd: int) -> None:
        """(fpu/core.c)."""
        fpstate = self.deref(guest_fpu.fpstate)
        if not fpstate.in_use:
            fpstate.regs.xstate_bv &= ~xfd
        super().fpu_update_guest_xfd(guest_fpu, xfd)


@propose(
    "open-2-write-xfd-when-loaded",
    "x86/fpu: Write a guest's XFD to the MSR only under its own registers",
    fixes=("8eb9a48ac1e8",),
)
class WriteXfdWhenLoaded(AmxV6):
    """Finding 2: IA32_XFD goes with the registers, so both wait for the restore, which must not be skipped.

    fpu_update_guest_xfd(), of an fpstate in use: ``if (test_thread_flag(TIF_NEED_FPU_LOAD))
    __fpu_invalidate_fpregs_state(&current->thread.fpu); else xfd_update_state(fpstate);``.
    """

    def fpu_update_guest_xfd_in_use(self, fpstate: Fpstate) -> None:
        """(fpu/core.c)."""
        if self.current.tif_need_fpu_load:
            self.current.fpu.last_cpu = -1
        else:
            super().fpu_update_guest_xfd_in_use(fpstate)


@propose(
    "open-3-realloc-copies",
    "x86/fpu: Copy the state of a guest that is not loaded to its new fpstate",
    fixes=("c270ce393dfd",),
)
class ReallocCopies(AmxSeries):
    """Finding 3: the registers carry over what is loaded, and only that.

    fpstate_realloc(), behind xstate_init_xcomp_bv(): ``if (!in_use)`` copy the legacy region and
    ``header.xfeatures``, and from one __raw_xsave_addr() to the other each feature that is there.
    """

    def fpstate_realloc_guest(self, xfeatures: int, ksize: int, usize: int, guest_fpu: FpuGuest) -> int:
        """(fpu/xstate.c)."""
        image: XsaveArea = copy_of(self.deref(guest_fpu.fpstate).regs)
        in_use = self.current.fpu.fpstate == guest_fpu.fpstate
        ret = super().fpstate_realloc_guest(xfeatures, ksize, usize, guest_fpu)
        if not ret and not in_use:
            new = self.deref(guest_fpu.fpstate).regs
            image.xcomp_bv = new.xcomp_bv
            assign(new, image)
        return ret


@propose("open-4-exec-frees-fpstate", "x86/fpu: Free the fpstate that exec leaves behind")
class ExecFreesFpstate(FpuCore):
    """Finding 4: fpstate_reset() forgets an fpstate that was allocated for the old program.

    fpu_flush_thread(): keep the pointer, and vfree() it if it is not &fpu->__fpstate, outside fpregs_lock().
    """

    def fpu_flush_thread(self) -> None:
        """(fpu/core.c)."""
        old = self.current.fpu.fpstate
        super().fpu_flush_thread()
        if old >= FIRST_VALLOC:
            self.vfree(old)


@propose("open-5-exec-resets-at-once", "x86/fpu: Do not let exec be preempted between its two resets")
class ExecResetsAtOnce(FpuCore):
    """Finding 5: until TIF_NEED_FPU_LOAD is set, the loaded registers are saved by fpstate_reset()'s XFD and sizes.

    fpu_flush_thread(): fpregs_lock() around fpstate_reset() and fpu_reset_fpregs().  So there is no middle of it in
    which an op could stop, and it ends before the one that `execve ...` stops in.
    """

    def fpu_flush_thread(self) -> None:
        """(fpu/core.c)."""
        super().fpu_flush_thread()
        self.fpu_reset_fpregs()

    def fpu_flush_thread_regs(self) -> None:
        """Nothing is left to do."""


@propose("open-6-resume-sets-shadow", "x86/fpu: Keep xfd_state in sync with MSR_IA32_XFD on resume", ("672365477ae8",))
class ResumeSetsShadow(Power):
    """Finding 6: what 10e4b5166df9 cured in fpu__init_cpu_xstate().

    fpu__resume_cpu(): ``xfd_set_state(current->thread.fpu.fpstate->xfd)`` for the wrmsrl().
    """

    def fpu_resume_cpu(self) -> None:
        """(fpu/xstate.c)."""
        super().fpu_resume_cpu()
        if self.fpu_state_size_dynamic:
            self.this_cpu.xfd_state = self.deref(self.current.fpu.fpstate).xfd


@propose("open-7-sigreturn-initialises-all", "x86/fpu: Initialise in sigreturn what the task may not use, too")
class SigreturnInitialisesAll(FpuSignal):
    """Finding 7: registers that become current's must not hold the previous task's features, permitted or not.

    restore_fpregs_from_user(): pass ``fpu_user_cfg.max_features`` as ufeatures, not ``fpstate->user_xfeatures``, which
    undoes that part of 20211013145323.285696382@linutronix.de.  XRSTOR of an initial state does not care for XFD.
    """

    def _restore_fpregs_from_user(self, frame: SigFrame, ufeatures: int, xrestore: int, fx_only: bool) -> bool:
        """(fpu/signal.c)."""
        return super()._restore_fpregs_from_user(frame, self.fpu_user_cfg.max_features, xrestore, fx_only)


@propose("open-8-9-pkru-in-copies", "x86/fpu: Show PKRU in every copy that is given its value")
class PkruInCopies(Xstate):
    """Findings 8 and 9, which have one cause: PKRU's value is the task's or the guest's, from thread.pkru or
    vcpu->arch.pkru, and whether there is one is read from an image that says nothing about that.

    __copy_xstate_to_uabi_buf(): ``if (cpu_feature_enabled(X86_FEATURE_OSPKE)) header.xfeatures |=
    XFEATURE_MASK_PKRU``, before it is masked by what the copy is to have.
    """

    def uabi_xfeatures(self, fpstate: Fpstate) -> int:
        """(fpu/xstate.c)."""
        pkru = xf.MASK_PKRU if self.ospke else 0
        return super().uabi_xfeatures(fpstate) | pkru


@propose("open-10-larger-sigframe", "x86/fpu: Take a signal frame that is larger than the task's own")
class LargerSigframe(FpuSignal):
    """Finding 10: a frame that the parent of a forked task wrote has the parent's size.

    check_xstate_in_sigframe(): hold xstate_size against ``fpu_user_cfg.max_size``, as before
    20211013145323.285696382@linutronix.de.  It says where the second magic word is; what is loaded is limited to
    fpstate->user_xfeatures in any case.
    """

    def sigframe_max_xstate_size(self) -> int:
        """(fpu/signal.c)."""
        return self.fpu_user_cfg.max_size


#: The cures of what the AMX series brought, of which v5.16 has nothing.
_OF_THE_SERIES = (ClearUnloaded, WriteXfdWhenLoaded, ReallocCopies)

#: What is PROPOSED for v7.3, and for v5.16, in the order of the findings.
CURES = tuple(PROPOSED)
CURES_OF_V5_16 = tuple(p.commit for p in PROPOSED.values() if p.cls not in _OF_THE_SERIES)
