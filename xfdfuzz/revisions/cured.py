"""Candidate cures for the open findings (docs/fidelity.md): PROPOSED by this project, posted and merged nowhere.

With them a kernel has nothing left that is known to be wrong, so whatever fuzzing finds there is new.  Each is what a
kernel developer might write; the docstring names the finding, the function and what its C would do.
"""

from __future__ import annotations

from itertools import takewhile

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import load_component
from xfdfuzz.arch.xsave import MXCSR_RESERVED, XsaveArea
from xfdfuzz.kernel.errno import EINVAL
from xfdfuzz.kernel.fork import Fork
from xfdfuzz.kernel.fpu.core import FpuCore
from xfdfuzz.kernel.fpu.regset import Regset
from xfdfuzz.kernel.fpu.signal import FpuSignal
from xfdfuzz.kernel.fpu.xstate import Xstate
from xfdfuzz.kernel.kvm.x86 import KvmX86
from xfdfuzz.kernel.kvm.xsave import KvmFpu, KvmXsave
from xfdfuzz.kernel.locking import PREEMPT_MASK
from xfdfuzz.kernel.power import Power
from xfdfuzz.kernel.process import Process
from xfdfuzz.kernel.shstk import ARCH_SHSTK_UNLOCK, Shstk
from xfdfuzz.kernel.signal import Signals
from xfdfuzz.kernel.state import FIRST_VALLOC, NULL, VM_SEV_ES, Fpstate, FpuGuest, LbrXsave, SigFrame, Vcpu
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

    def fpu_flush_thread_reset(self, old: int) -> None:
        """(fpu/core.c, fpu_flush_thread())."""
        super().fpu_flush_thread_reset(old)
        if old >= FIRST_VALLOC:
            self.vfree(old)


@propose("open-5-exec-resets-at-once", "x86/fpu: Do not let exec be preempted between its two resets")
class ExecResetsAtOnce(FpuCore):
    """Finding 5: until TIF_NEED_FPU_LOAD is set, the loaded registers are saved by fpstate_reset()'s XFD and sizes.

    fpu_flush_thread(): fpregs_lock() around fpstate_reset() and fpu_reset_fpregs().  So there is no middle of it in
    which an op could stop, and it ends before the one that `execve ...` stops in.
    """

    def fpu_flush_thread_reset(self, old: int) -> None:
        """(fpu/core.c, fpu_flush_thread()); what frees the old fpstate, and may sleep, comes behind."""
        self.fpu_reset_fpregs()
        super().fpu_flush_thread_reset(old)

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


@propose("open-11-set-fpu-marks", "KVM: x86: Mark x87 and SSE as in use in KVM_SET_FPU")
class SetFpuMarks(KvmXsave):
    """Finding 11: the next XRSTORS goes by XSTATE_BV, which KVM_SET_FPU leaves alone.

    kvm_arch_vcpu_ioctl_set_fpu(), as xfpregs_set() does for ptrace: ``if (use_xsave()) xsave->header.xfeatures |=
    XFEATURE_MASK_FPSSE``.  What becomes of MXCSR then is what lies in memory, so before that ``if (!(xfeatures &
    XFEATURE_MASK_SSE)) fxsave->mxcsr = MXCSR_DEFAULT``.
    """

    def kvm_arch_vcpu_ioctl_set_fpu(self, vcpu: Vcpu, fpu: KvmFpu) -> int:
        """(x86.c)."""
        ret = super().kvm_arch_vcpu_ioctl_set_fpu(vcpu, fpu)
        regs = self.deref(vcpu.arch.guest_fpu.fpstate).regs
        if not ret and self.use_xsave and self.confidential(vcpu) is None:
            if not regs.xstate_bv & xf.MASK_SSE:
                regs.data[xf.MXCSR] = 0
            regs.xstate_bv |= xf.MASK_FPSSE
        return ret


@propose("open-12-get-fpu-initial", "KVM: x86: Show x87 and SSE in KVM_GET_FPU as initial where XSTATE_BV lacks them")
class GetFpuInitial(KvmXsave):
    """Finding 12: what XSTATE_BV lacks the guest does not have, whatever lies there in memory.

    kvm_arch_vcpu_ioctl_get_fpu(): copy from init_fpstate then, as copy_xstate_to_uabi_buf(XSTATE_COPY_FX) does.
    """

    def kvm_arch_vcpu_ioctl_get_fpu(self, vcpu: Vcpu) -> tuple[int, KvmFpu]:
        """(x86.c)."""
        ret, fpu = super().kvm_arch_vcpu_ioctl_get_fpu(vcpu)
        if self.use_xsave and self.confidential(vcpu) is None:
            held = self.deref(vcpu.arch.guest_fpu.fpstate).regs.xstate_bv
            fpu = fpu._replace(
                x87=fpu.x87 if held & xf.MASK_X87 else 0,
                sse=fpu.sse if held & xf.MASK_SSE else 0,
            )
        return ret, fpu


@propose("open-13-mxcsr-in-kvm-fpu", "KVM: x86: Give and take MXCSR in KVM_GET_FPU and KVM_SET_FPU")
class MxcsrInKvmFpu(KvmXsave):
    """Finding 13: struct kvm_fpu has a mxcsr, which neither ioctl looks at.

    kvm_arch_vcpu_ioctl_set_fpu(): -EINVAL for reserved bits, else ``fxsave->mxcsr = fpu->mxcsr``; _get_fpu() the other
    way, MXCSR_DEFAULT where XSTATE_BV lacks SSE.  Who gives back what an older kernel gave would set it to 0, which
    unmasks all exceptions, so a capability has to ask for it.
    """

    def kvm_arch_vcpu_ioctl_get_fpu(self, vcpu: Vcpu) -> tuple[int, KvmFpu]:
        """(x86.c)."""
        ret, fpu = super().kvm_arch_vcpu_ioctl_get_fpu(vcpu)
        regs = self.deref(vcpu.arch.guest_fpu.fpstate).regs
        if self.confidential(vcpu) is not None:
            return ret, fpu
        held = not self.compacted or regs.xstate_bv & xf.MASK_SSE
        return ret, fpu._replace(mxcsr=regs.data[xf.MXCSR] if held else 0)

    def kvm_arch_vcpu_ioctl_set_fpu(self, vcpu: Vcpu, fpu: KvmFpu) -> int:
        """(x86.c)."""
        if fpu.mxcsr == MXCSR_RESERVED:
            return -EINVAL
        ret = super().kvm_arch_vcpu_ioctl_set_fpu(vcpu, fpu)
        if self.confidential(vcpu) is None:
            self.deref(vcpu.arch.guest_fpu.fpstate).regs.data[xf.MXCSR] = fpu.mxcsr
        return ret


@propose("open-14-mxcsr-by-sse", "x86/fpu: Copy MXCSR to user space only where XSAVES has stored it")
class MxcsrBySse(Xstate):
    """Finding 14: in the compacted format MXCSR is a part of SSE, and AVX says nothing of it.

    __copy_xstate_to_uabi_buf(): with XSAVES or XSAVEC, ``copy_feature(header.xfeatures & XFEATURE_MASK_SSE, ...)`` for
    MXCSR.
    """

    def uabi_has_mxcsr(self, header: int) -> bool:
        """(fpu/xstate.c)."""
        return bool(header & xf.MASK_SSE) if self.compacted else super().uabi_has_mxcsr(header)


@propose("open-15-mxcsr-without-sse", "x86/fpu: Load the MXCSR of an image that has AVX and not SSE")
class MxcsrWithoutSse(Xstate):
    """Finding 15: "SSE and YMM require MXCSR", but XRSTORS loads it with SSE alone.

    copy_uabi_to_xstate(), at its end: if the image has AVX and not SSE, and MXCSR is not MXCSR_DEFAULT, zero the XMM
    registers and add XFEATURE_MASK_SSE to the header.
    """

    def copy_uabi_to_xstate(self, fpstate: Fpstate, image: XsaveArea, size: int) -> int:
        """(fpu/xstate.c)."""
        ret = super().copy_uabi_to_xstate(fpstate, image, size)
        regs = fpstate.regs
        if not ret and image.xstate_bv & xf.MASK_WITH_MXCSR == xf.MASK_YMM and regs.data[xf.MXCSR]:
            regs.data[xf.SSE] = 0
            regs.xstate_bv |= xf.MASK_SSE
        return ret


@propose(
    "open-16-mxcsr-of-standard-format", "x86/fpu: Copy MXCSR whatever XSTATE_BV says where images are not compacted"
)
class MxcsrOfStandardFormat(Regset):
    """Finding 16: in the standard format MXCSR counts even where XSTATE_BV has neither SSE nor AVX.

    Without X86_FEATURE_XCOMPACTED: __copy_xstate_to_uabi_buf() says that SSE is there, with XMM registers of zeros,
    where MXCSR is not MXCSR_DEFAULT, as XSAVEC would; copy_uabi_to_xstate() sets it to MXCSR_DEFAULT where the image
    has neither, nor x87, with which it is copied.
    """

    def copy_xstate_to_uabi_buf(self, fpstate: Fpstate, xfeatures: int, pkru: int, size: int) -> XsaveArea:
        """(fpu/xstate.c)."""
        image = super().copy_xstate_to_uabi_buf(fpstate, xfeatures, pkru, size)
        mxcsr = fpstate.regs.data[xf.MXCSR]
        if mxcsr and not self.compacted and xfeatures & xf.MASK_SSE:
            if not image.xstate_bv & xf.MASK_SSE:
                image.data[xf.SSE] = 0
            image.xstate_bv |= xf.MASK_SSE
            image.data[xf.MXCSR] = mxcsr
        return image

    def xfpregs_get(self, nr: int) -> XsaveArea:
        """(fpu/regset.c, by __copy_xstate_to_uabi_buf())."""
        copy = super().xfpregs_get(nr)
        if not self.compacted:
            copy.data[xf.MXCSR] = self.deref(self.tasks[nr].fpu.fpstate).regs.data[xf.MXCSR]
        return copy

    def copy_uabi_to_xstate(self, fpstate: Fpstate, image: XsaveArea, size: int) -> int:
        """(fpu/xstate.c)."""
        ret = super().copy_uabi_to_xstate(fpstate, image, size)
        if not ret and not self.compacted and not image.xstate_bv & (xf.MASK_WITH_MXCSR | xf.MASK_X87):
            fpstate.regs.data[xf.MXCSR] = 0
        return ret


@propose("open-17-init-keeps-mxcsr", "x86/fpu: Keep the MXCSR of a signal frame when the rest is initialised")
class InitKeepsMxcsr(FpuSignal):
    """Finding 17: XRSTOR of the standard format loads MXCSR with AVX, from init_fpstate too.

    __restore_fpregs_from_user(): call os_xrstor(&init_fpstate, init_bv) before the frame is restored.  Here MXCSR is
    put back behind it, which comes to the same.
    """

    def initialise_others(self, init_bv: int) -> None:
        """(fpu/signal.c)."""
        mxcsr = self.regs.data[xf.MXCSR]
        super().initialise_others(init_bv)
        if not self.compacted:
            self.regs.data[xf.MXCSR] = mxcsr


@propose(
    "open-18-vmsa-by-xstate-bv",
    "KVM: SEV: Seal x87 and SSE as initial where XSTATE_BV lacks them",
    fixes=("eb4441864e03",),
)
class VmsaByXstateBv(KvmX86):
    """Finding 18: what XSTATE_BV lacks the guest does not have, whatever lies there in memory, as for AVX.

    sev_es_sync_vmsa(): copy x87 and the XMM registers from init_fpstate then, and MXCSR, which XRSTORS has with SSE.
    """

    def sync_vmsa_fpu(self, vcpu: Vcpu) -> None:
        """(arch/x86/kvm/svm/sev.c, sev_es_sync_vmsa())."""
        super().sync_vmsa_fpu(vcpu)
        if self.vms[vcpu.vm].type == VM_SEV_ES:
            return
        held = self.deref(vcpu.arch.guest_fpu.fpstate).regs.xstate_bv
        for i in (xf.X87, xf.SSE):
            if self.use_xsave and not held >> i & 1:
                self.vmsa_component(vcpu, i, 0)
        if self.compacted and not held & xf.MASK_SSE:
            self.vmsa_component(vcpu, xf.MXCSR, 0)


@propose("open-19-workers-without-shstk", "x86/shstk: Give a worker no shadow stack", fixes=("2fab02b25ae7",))
class WorkersWithoutShstk(Fork):
    """Finding 19: a thread that never leaves the kernel has no registers to hold a shadow stack pointer.

    copy_thread(): where it now calls shstk_alloc_thread_stack(), for ``args->io_thread`` or ``p->flags &
    PF_USER_WORKER`` clear p->thread.features and p->thread.shstk instead.  Posted in August 2025 as 4/5 of "x86/fpu:
    don't abuse x86_task_fpu(PF_USER_WORKER) in .regset_get() paths" (20250822153603.GA27103@redhat.com).
    """

    def create_io_thread(self) -> tuple[int, int]:
        """(arch/x86/kernel/process.c, copy_thread())."""
        ret, child = super().create_io_thread()
        if not ret:
            self.tasks[child].shstk = 0
        return ret, child


@propose("open-20-fsave-header-of-registers", "x86/fpu: Take the header of a 32-bit signal frame from the registers")
class FsaveHeaderOfRegisters(FpuSignal):
    """Finding 20: once the registers were saved, what is initial in them is not in the buffer.

    save_fsave_header(), before it calls fxsave(): ``if (test_thread_flag(TIF_NEED_FPU_LOAD))
    fpregs_restore_userregs();``, as copy_fpstate_to_sigframe() has it.
    """

    def fsave_header_regs(self, fpstate: Fpstate) -> None:
        """(fpu/signal.c, save_fsave_header())."""
        if self.current.tif_need_fpu_load:
            self.fpregs_restore_userregs()
        super().fsave_header_regs(fpstate)


@propose("open-21-exec-forgets-pasid", "x86/fpu: Clear pasid_activated on exec, as IA32_PASID is", ("7c1ef59145f1",))
class ExecForgetsPasid(FpuCore):
    """Finding 21: the flag says of a thread of the new program that it has the PASID which the old one had.

    fpu_flush_thread(): ``current->pasid_activated = 0``, under CONFIG_ARCH_HAS_CPU_PASID, as in dup_task_struct().
    """

    def fpu_flush_thread_regs(self) -> None:
        """(fpu/core.c, fpu_flush_thread())."""
        super().fpu_flush_thread_regs()
        self.current.pasid_activated = 0


@propose(
    "open-22-lbr-by-msr", "perf/x86/intel: Read the LBRs by MSRs where IA32_XSS lacks them", fixes=("11df586d774f",)
)
class LbrByMsr(Process):
    """Finding 22: under the IA32_XSS of a guest XSAVES stores nothing of LBR, and says so in XCOMP_BV.

    intel_pmu_arch_lbr_read_xsave(), behind xsaves(): ``if (!(xsave->xsave.header.xcomp_bv & XFEATURE_MASK_LBR))
    intel_pmu_store_lbr(cpuc, NULL)``, which reads the MSRs, and return.
    """

    def intel_pmu_arch_lbr_read_xsave(self, buffer: LbrXsave) -> None:
        """(arch/x86/events/intel/lbr.c)."""
        super().intel_pmu_arch_lbr_read_xsave(buffer)
        if not buffer.xcomp_bv:
            self.intel_pmu_store_lbr(self.regs.data[xf.LBR])


@propose(
    "open-23-irq-fpu-with-rt",
    "x86/fpu: Let no hard interrupt use the FPU in fpregs_lock() with PREEMPT_RT",
    fixes=("59f5ede3bc0f",),
)
class IrqFpuWithRt(FpuCore):
    """Finding 23: with PREEMPT_RT fpregs_lock() is preempt_disable(), of which softirq_count() says nothing.

    irq_fpu_usable(), at its end: ``return !(IS_ENABLED(CONFIG_PREEMPT_RT) ? preempt_count() & PREEMPT_MASK :
    softirq_count())``.  kernel_fpu_begin_mask() has to ask it before it disables preemption itself.
    """

    def kernel_fpu_lock(self) -> None:
        """(fpu/core.c, kernel_fpu_begin_mask())."""
        super().kernel_fpu_check()
        super().kernel_fpu_lock()

    def kernel_fpu_check(self) -> None:
        """It was asked (fpu/core.c, kernel_fpu_begin_mask())."""

    def irq_fpu_usable(self) -> bool:
        """(fpu/core.c)."""
        locked = self.config.rt and self.in_hardirq() and self.this_cpu.preempt_count & PREEMPT_MASK
        return super().irq_fpu_usable() and not locked


@propose(
    "open-24-snp-is-confidential",
    "KVM: SEV: Mark the FPU state of a sealed SNP guest as confidential",
    fixes=("ad27ce155566",),
)
class SnpIsConfidential(KvmX86):
    """Finding 24: what KVM has of the guest's FPU is not the guest's, so nobody may read, set, save or restore it.

    snp_launch_update_vmsa(), where it sets guest_state_protected: ``fpstate_set_confidential(&vcpu->arch.guest_fpu)``,
    as __sev_launch_update_vmsa() has it.
    """

    def snp_launch_update_vcpu(self, vcpu: Vcpu) -> int:
        """(arch/x86/kvm/svm/sev.c, snp_launch_update_vmsa())."""
        ret = super().snp_launch_update_vcpu(vcpu)
        if not ret:
            self.deref(vcpu.arch.guest_fpu.fpstate).is_confidential = 1
        return ret


@propose(
    "open-25-error-pointers-of-loaded-frames",
    "x86/fpu: Clear x87's error pointers wherever a frame or init_fpstate is loaded",
)
class ErrorPointersOfLoadedFrames(FpuSignal):
    """Finding 25: of X86_BUG_FXSAVE_LEAK restore_fpregs_from_fpstate() alone takes care.

    Its FNCLEX, EMMS and FILD become a function, which __restore_fpregs_from_user(), os_xrstor_safe(), fxrstor_safe()
    and restore_fpregs_from_init_fpstate() call, too.
    """

    def _restore_fpregs_from_user(self, frame: SigFrame, ufeatures: int, xrestore: int, fx_only: bool) -> bool:
        """(fpu/signal.c)."""
        self.clear_error_pointers()
        return super()._restore_fpregs_from_user(frame, ufeatures, xrestore, fx_only)

    def os_xrstor_safe(self, fpstate: Fpstate, mask: int) -> bool:
        """(fpu/xstate.h)."""
        self.clear_error_pointers()
        return super().os_xrstor_safe(fpstate, mask)

    def fxrstor_safe(self, area: XsaveArea) -> bool:
        """(fpu/legacy.h)."""
        self.clear_error_pointers()
        return super().fxrstor_safe(area)

    def restore_fpregs_from_init_fpstate(self, mask: int) -> None:
        """(fpu/core.c)."""
        self.clear_error_pointers()
        super().restore_fpregs_from_init_fpstate(mask)


@propose(
    "open-26-pkru-of-failed-signals",
    "x86/pkeys: Restore PKRU wherever a signal frame cannot be set up",
    fixes=("70044df250d0",),
)
class PkruOfFailedSignals(Signals):
    """Finding 26: get_sigframe() restores PKRU where the image cannot be written, nobody where the rest cannot.

    handle_signal(): ``u32 pkru = read_pkru();`` before setup_rt_frame(), ``if (failed) write_pkru(pkru);`` behind it,
    as in v4 of the series (20240528144331.2758104-4-aruna.ramakrishna@oracle.com).
    """

    def setup_rt_frame_failed(self) -> None:
        """(arch/x86/kernel/signal.c, handle_signal())."""
        if self.ospke:
            load_component(self.regs, xf.PKRU, self.current.sig_pkru)
        super().setup_rt_frame_failed()


@propose(
    "open-27-moved-is-confidential",
    "KVM: SEV: Mark the FPU state of a vCPU that takes over an SEV-ES guest as confidential",
    fixes=("4f5defae7089",),
)
class MovedIsConfidential(KvmX86):
    """Finding 27: as 24, of a vCPU whose VM has taken over the guest of another one.

    sev_migrate_from(), where it sets guest_state_protected: ``fpstate_set_confidential(&dst_vcpu->arch.guest_fpu)``.
    It is the same since 0b020f5af092 (5.16); until there are VMs whose ioctls have to say so, they are 0 either way.
    """

    def sev_migrate_vcpu(self, vcpu: Vcpu, source: Vcpu) -> None:
        """(arch/x86/kvm/svm/sev.c, sev_migrate_from())."""
        super().sev_migrate_vcpu(vcpu, source)
        self.deref(vcpu.arch.guest_fpu.fpstate).is_confidential = 1


@propose(
    "open-28-restored-lbrs-are-anothers",
    "perf/x86/intel: Forget whose LBRs were saved last when others are restored",
    fixes=("8b077e4a69be",),
)
class RestoredLbrsAreAnothers(Process):
    """Finding 28: LBRs that were restored for one task are taken for those of the task that was saved before it.

    __intel_pmu_lbr_restore(), behind x86_pmu.lbr_restore(): ``cpuc->last_task_ctx = NULL``.
    """

    def lbr_restore(self, context: LbrXsave) -> None:
        """(arch/x86/events/intel/lbr.c, __intel_pmu_lbr_restore())."""
        super().lbr_restore(context)
        self.this_cpu.last_task_ctx = NULL


@propose("open-29-pkru-of-who-dumps", "x86/fpu: Show the PKRU of the task that dumps core", ("e84ba47e313d",))
class PkruOfWhoDumps(Regset):
    """Finding 29: thread.pkru is that of a task which is switched out.

    xstateregs_get(): beside sync_fpstate(), for current ``target->thread.pkru = read_pkru()``.
    """

    def xstateregs_pkru(self, nr: int) -> int:
        """(fpu/regset.c)."""
        if nr == self.current_nr and self.ospke:
            self.current.pkru = self.regs.data[xf.PKRU]
        return super().xstateregs_pkru(nr)


@propose("open-30-no-unlock-of-ones-own", "x86/shstk: Refuse ARCH_SHSTK_UNLOCK of the caller itself", ("680ed2f15e70",))
class NoUnlockOfOnesOwn(Shstk):
    """Finding 30: of a task's own, what is not ARCH_SHSTK_DISABLE is taken for ARCH_SHSTK_ENABLE.

    shstk_prctl(), behind ``if (task != current)``: ``if (option == ARCH_SHSTK_UNLOCK) return -EINVAL``.
    """

    def shstk_prctl_unknown(self, option: int) -> bool:
        """(arch/x86/kernel/shstk.c)."""
        return option == ARCH_SHSTK_UNLOCK


@propose(
    "open-31-fault-in-what-is-read",
    "x86/fpu: Fault in no more of a signal frame than XRSTOR may read",
    fixes=("d877550eaf2d",),
)
class FaultInWhatIsRead(FpuSignal):
    """Finding 31: a frame of fewer features than the task has ends before fpstate->user_size, and so may its memory.

    restore_fpregs_from_user(): ``fault_in_readable(buf, xstate_calculate_size(xrestore, false))``; FXRSTOR has in one
    page all that it reads.  fd14edd82077 (tip, for 7.4) is about the same; its text was not read.
    """

    def sigframe_fault_in_size(self, frame: SigFrame) -> int:
        """(fpu/signal.c)."""
        enabled = self.deref(self.current.fpu.fpstate).user_xfeatures
        size: int = super().sigframe_fault_in_size(frame)
        return min(size, self.machine.cpuid.standard_size(frame.xfeatures & enabled)) if self.use_xsave else size


#: The cures of what came after v5.16: the AMX series, sealed guests, shadow stacks, ENQCMD, NMIs handled early.
_LATER = (
    *(ClearUnloaded, WriteXfdWhenLoaded, ReallocCopies, VmsaByXstateBv, WorkersWithoutShstk),
    *(ExecForgetsPasid, LbrByMsr, SnpIsConfidential, MovedIsConfidential, NoUnlockOfOnesOwn),
)

#: What is PROPOSED for v7.3, and for v5.16, in the order of the findings.
CURES = tuple(PROPOSED)
CURES_OF_V5_16 = tuple(p.commit for p in PROPOSED.values() if p.cls not in _LATER)


def findings_of(cure: str) -> tuple[int, ...]:
    """The numbers of the open findings that a proposed cure is for (docs/fidelity.md), which its name begins with."""
    return tuple(int(part) for part in takewhile(str.isdecimal, cure.removeprefix("open-").split("-")))
