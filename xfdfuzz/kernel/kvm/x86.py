"""The x86 vCPU: MSRs, XCR0, KVM_RUN and VM entry (arch/x86/kvm/x86.c, v5.16).

KVM_RUN is cut where interrupts are on: :meth:`kvm_arch_vcpu_ioctl_run` up to vcpu_run()'s loop, then per iteration
:meth:`vcpu_enter_guest` up to VM entry, :meth:`vcpu_enter_guest_exited` from VM exit until interrupts are on again,
:meth:`vcpu_enter_guest_handle_exit`, and at the end :meth:`kvm_arch_vcpu_ioctl_run_out`.
"""

from __future__ import annotations

from typing import NamedTuple

from xfdfuzz.arch import registers as arch
from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import CR4_OSXSAVE, CR4_PKE, MSR_IA32_XSS, load_component
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.errno import EAGAIN, EEXIST, EINTR, EINVAL, ENOMEM
from xfdfuzz.kernel.event import OOPS
from xfdfuzz.kernel.kvm.msrs import KVM_MSR_RET_INVALID, KvmMsrs
from xfdfuzz.kernel.kvm.xsave import KVM_MAX_XCRS, KvmXcrs
from xfdfuzz.kernel.state import Vcpu, Vm

_LAST_EXCEPTION = 31


class KvmVcpuEvents(NamedTuple):
    """struct kvm_vcpu_events: the vector of an exception, or 0, and whether it is pending, not injected; whether an
    INIT is latched, or None without KVM_VCPUEVENT_VALID_SMM."""

    vector: int = 0
    pending: bool = False
    latched_init: bool | None = None


def read_cr4(vcpu: Vcpu) -> int:
    """What of CR4 is modelled."""
    return (CR4_OSXSAVE if vcpu.arch.cr4_osxsave else 0) | (CR4_PKE if vcpu.arch.cr4_pke else 0)


class KvmX86(KvmMsrs):
    """The vCPU path."""

    # -- vendor calls, defined by vmx.c -----------------------------------------------------------------------------

    def kvm_x86_vcpu_create(self, vcpu: Vcpu) -> None:
        """vmx_create_vcpu()."""
        raise NotImplementedError

    def kvm_x86_vcpu_reset(self, vcpu: Vcpu) -> None:
        """vmx_vcpu_reset()."""
        raise NotImplementedError

    def kvm_x86_handle_exit_irqoff(self, vcpu: Vcpu, kernel_fpu: bool) -> None:
        """vmx_handle_exit_irqoff()."""
        raise NotImplementedError

    def kvm_x86_handle_exit(self, vcpu: Vcpu) -> int:
        """vmx_handle_exit()."""
        raise NotImplementedError

    # -- life cycle ----------------------------------------------------------------------------------------------

    def kvm_arch_vcpu_create(self, vcpu: Vcpu) -> int:
        """Allocate the guest fpstate and reset the vCPU, of which application processors wait for INIT; ENOMEM."""
        if not self.kvm_vcpu_is_bsp(vcpu):
            vcpu.arch.mp_state = st.KVM_MP_STATE_UNINITIALIZED
        if not self.fpu_alloc_guest_fpstate(vcpu.arch.guest_fpu):
            return -ENOMEM
        self.kvm_x86_vcpu_create(vcpu)
        self.vcpu_create_protected(vcpu)
        self.vcpu_load(vcpu)
        self.kvm_vcpu_reset(vcpu)
        self.vcpu_put(vcpu)
        return 0

    def kvm_vcpu_reset(self, vcpu: Vcpu) -> None:
        """Power-on state: XCR0 = 1.  CR4.OSXSAVE is 0 then, but is taken to be set at once wherever it can be."""
        vcpu.arch.xcr0 = xf.MASK_X87
        vcpu.arch.cr4_osxsave = self.use_xsave

    @phase_of("kvm_vcpu_reset")
    def kvm_vcpu_reset_init(self, vcpu: Vcpu) -> None:
        """kvm_vcpu_reset(vcpu, init_event = true): CR0.TS and CR4 go; XCR0, IA32_XSS, XFD and most of XSTATE stay."""
        arch = vcpu.arch
        self.kvm_clear_exception_queue(vcpu)
        self.kvm_xstate_reset(vcpu)
        self.kvm_x86_vcpu_reset(vcpu)
        arch.cr0_ts = 0
        self.kvm_x86_set_cr4(vcpu, 0)
        if arch.complete_userspace_io == st.COMPLETE_FAST_PIO:
            # complete_fast_pio_out() sees that RIP has moved
            arch.complete_userspace_io = st.COMPLETE_NONE

    @phase_of("kvm_vcpu_reset")
    def kvm_xstate_reset(self, vcpu: Vcpu) -> None:
        """Clear the components that INIT clears, in memory: "all paths that lead to INIT are required to load the
        guest's FPU state", so it is put and loaded again."""
        features = self.kvm_init_xfeatures()
        if features:
            self.kvm_put_guest_fpu(vcpu)
            self.fpstate_clear_xstate_components(vcpu, features)
            self.kvm_load_guest_fpu(vcpu)

    @seam
    def kvm_init_xfeatures(self) -> int:
        """Which components INIT clears: MPX."""
        return xf.MASK_MPX if self.kvm_mpx_supported() else 0

    @phase_of("fpstate_clear_xstate_component")
    def fpstate_clear_xstate_components(self, vcpu: Vcpu, features: int) -> None:
        """Zero them where XSTATE_BV says that they are there; XSTATE_BV stays (fpu/xstate.c)."""
        regs = self.deref(vcpu.arch.guest_fpu.fpstate).regs
        for i in xf.registers_of(features & regs.xstate_bv):
            regs.data[i] = 0

    def kvm_vcpu_is_bsp(self, vcpu: Vcpu) -> bool:
        """By its id, which is KVM_SET_BOOT_CPU_ID's by default."""
        return st.is_bsp(self.system, vcpu)

    def kvm_apic_accept_events(self, vcpu: Vcpu) -> None:
        """INIT, if one is pending, behind which all but the bootstrap processor wait for SIPI; SIPI (lapic.c)."""
        arch = vcpu.arch
        if arch.init_pending:
            arch.init_pending = 0
            self.kvm_vcpu_reset_init(vcpu)
            bsp = self.kvm_vcpu_is_bsp(vcpu)
            arch.mp_state = st.KVM_MP_STATE_RUNNABLE if bsp else st.KVM_MP_STATE_INIT_RECEIVED
        if arch.sipi_pending:
            arch.sipi_pending = 0
            if arch.mp_state == st.KVM_MP_STATE_INIT_RECEIVED:
                arch.mp_state = st.KVM_MP_STATE_RUNNABLE

    def kvm_arch_vcpu_destroy(self, vcpu: Vcpu) -> None:
        """Free what belongs to the vCPU."""
        self.fpu_free_guest_fpstate(vcpu.arch.guest_fpu)
        self.kvfree_cpuid_entries(vcpu)

    def kvm_arch_vcpu_load(self, vcpu: Vcpu) -> None:
        """The vCPU's state moves to this CPU."""
        vcpu.cpu = self.cpu + 1
        vcpu.arch.host_pkru = self.regs.data[xf.PKRU] if self.ospke else 0

    def kvm_arch_vcpu_put(self, vcpu: Vcpu) -> None:
        """The vCPU leaves this CPU."""
        vcpu.cpu = 0

    # -- exceptions ----------------------------------------------------------------------------------------------

    def kvm_queue_exception(self, vcpu: Vcpu, vector: int) -> None:
        """kvm_multiple_exception(): #GP on top of #GP is #DF, a benign exception replaces the first.

        The triple fault of a third #GP is not modelled: #DF stays.
        """
        arch = vcpu.arch
        queued = arch.exception_pending or arch.exception_injected
        if queued and vector == st.GP_VECTOR and arch.exception_vector != st.NM_VECTOR:
            vector = st.DF_VECTOR
        arch.exception_pending, arch.exception_injected = 1, 0
        arch.exception_vector = vector

    def kvm_clear_exception_queue(self, vcpu: Vcpu) -> None:
        """Nothing is to be delivered any more (x86.h)."""
        vcpu.arch.exception_pending = vcpu.arch.exception_injected = 0

    def kvm_inject_gp(self, vcpu: Vcpu) -> None:
        """Queue #GP(0)."""
        self.kvm_queue_exception(vcpu, st.GP_VECTOR)

    @phase_of("kvm_vm_ioctl_enable_cap")
    def kvm_vm_ioctl_enable_cap_exception_payload(self, vm: Vm, enable: int) -> int:
        """KVM_CAP_EXCEPTION_PAYLOAD, which can be taken back (x86.c)."""
        vm.exception_payload_enabled = enable
        return 0

    def kvm_vcpu_ioctl_x86_get_vcpu_events(self, vcpu: Vcpu) -> KvmVcpuEvents:
        """KVM_GET_VCPU_EVENTS as far as exceptions and INIT go, always with KVM_VCPUEVENT_VALID_SMM.

        Without KVM_CAP_EXCEPTION_PAYLOAD what is pending is given as injected, too (x86.c).
        """
        arch = vcpu.arch
        vector = arch.exception_vector if arch.exception_injected or arch.exception_pending else 0
        pending = arch.exception_pending and self.vms[vcpu.vm].exception_payload_enabled
        return KvmVcpuEvents(vector, bool(pending), self.kvm_lapic_latched_init(vcpu))

    def kvm_lapic_latched_init(self, vcpu: Vcpu) -> bool:
        """Whether an INIT is pending in a local APIC of KVM's (lapic.h)."""
        return self.lapic_in_kernel(vcpu) and bool(vcpu.arch.init_pending)

    def kvm_vcpu_ioctl_x86_set_vcpu_events(self, vcpu: Vcpu, events: KvmVcpuEvents) -> int:
        """KVM_SET_VCPU_EVENTS; EINVAL.

        ``pending`` goes with KVM_VCPUEVENT_VALID_PAYLOAD, without which none is.  With KVM_VCPUEVENT_VALID_SMM the INIT
        that is pending, or none, is what it says; there is no SMM here (x86.c).
        """
        vector, pending, latched_init = events
        if pending and not self.vms[vcpu.vm].exception_payload_enabled:
            return -EINVAL
        if vector > _LAST_EXCEPTION or vector == st.NMI_VECTOR:
            return -EINVAL
        vcpu.arch.exception_injected = bool(vector) and not pending
        vcpu.arch.exception_pending = bool(vector) and pending
        vcpu.arch.exception_vector = vector
        if latched_init is not None and self.lapic_in_kernel(vcpu):
            vcpu.arch.init_pending = latched_init
        return 0

    def kvm_skip_emulated_instruction(self, vcpu: Vcpu) -> int:
        """Advance RIP over the instruction that exited."""
        vcpu.arch.insn_skips += 1
        return 1

    # -- XCR0 ----------------------------------------------------------------------------------------------------

    def _kvm_set_xcr(self, vcpu: Vcpu, index: int, xcr: int) -> int:
        """__kvm_set_xcr(): 1 for an illegal value, else commit."""
        if index != 0:
            return 1
        if not xcr & xf.MASK_X87:
            return 1
        if xcr & xf.MASK_YMM and not xcr & xf.MASK_SSE:
            return 1
        if xcr & ~(self.kvm_guest_supported_xcr0(vcpu) | xf.MASK_X87):
            return 1
        if bool(xcr & 1 << xf.BNDREGS) != bool(xcr & 1 << xf.BNDCSR):
            return 1
        if xcr & xf.MASK_AVX512:
            if not xcr & xf.MASK_YMM:
                return 1
            if xcr & xf.MASK_AVX512 != xf.MASK_AVX512:
                return 1
        return self.kvm_set_xcr_tail(vcpu, xcr)

    @seam
    def kvm_set_xcr_tail(self, vcpu: Vcpu, xcr0: int) -> int:
        """The end of __kvm_set_xcr(): nothing else to check, commit; CPUID follows XCR0."""
        changed = vcpu.arch.xcr0 ^ xcr0
        vcpu.arch.xcr0 = xcr0
        if changed & ~xf.MASK_FPSSE:
            self.kvm_cpuid_runtime_changed(vcpu)
        return 0

    @seam
    def kvm_cpuid_runtime_changed(self, vcpu: Vcpu) -> None:
        """What __kvm_set_xcr() and vmx_set_cr4() do when the guest's CPUID has to follow: update it at once."""
        self.kvm_update_cpuid_runtime(vcpu)

    # -- general registers ---------------------------------------------------------------------------------------

    def kvm_arch_vcpu_ioctl_set_regs(self, vcpu: Vcpu) -> int:
        """KVM_SET_REGS, which moves RIP: __set_regs() drops a pending exception, not an injected one (x86.c)."""
        if self.refuses_protected(vcpu):
            return -EINVAL
        self.vcpu_load(vcpu)
        vcpu.arch.exception_pending = 0
        if vcpu.arch.complete_userspace_io == st.COMPLETE_FAST_PIO:
            # complete_fast_pio_out() sees that RIP has moved
            vcpu.arch.complete_userspace_io = st.COMPLETE_NONE
        self.vcpu_put(vcpu)
        return 0

    # -- special registers ---------------------------------------------------------------------------------------

    @phase_of("kvm_arch_vcpu_ioctl_get_sregs")
    def kvm_vcpu_ioctl_get_sregs(self, vcpu: Vcpu) -> tuple[int, bool]:
        """KVM_GET_SREGS of a guest that KVM can see: CR4 and CR0.TS of __get_sregs_common() (x86.c)."""
        return read_cr4(vcpu), bool(vcpu.arch.cr0_ts)

    @phase_of("kvm_arch_vcpu_ioctl_set_sregs")
    def kvm_vcpu_ioctl_set_sregs(self, vcpu: Vcpu, cr4: int, ts: bool, lme: bool) -> int:
        """KVM_SET_SREGS of a flat 64-bit state (EFER.LME and LMA), or of one in real mode with an EFER of 0, of which
        CR4 and CR0.TS are kept; EINVAL.

        __set_sregs_common() (x86.c).
        """
        if self.refuses_protected(vcpu) or not self.kvm_is_valid_sregs(vcpu, cr4, lme):
            return -EINVAL
        if vcpu.arch.guest_state_protected:
            return 0
        vcpu.arch.cr0_ts = ts
        self.kvm_x86_set_cr4(vcpu, cr4)
        return 0

    def kvm_set_cr4(self, vcpu: Vcpu, cr4: int) -> int:
        """MOV to CR4: 1 for an illegal value (x86.c)."""
        if not self.kvm_is_valid_cr4(vcpu, cr4):
            return 1
        self.kvm_x86_set_cr4(vcpu, cr4)
        return 0

    @phase_of("vmx_set_cr4")
    def kvm_x86_set_cr4(self, vcpu: Vcpu, cr4: int) -> None:
        """OSXSAVE and PKE, which the guest's CPUID shows (vmx/vmx.c)."""
        old, vcpu.arch.cr4_osxsave, vcpu.arch.cr4_pke = read_cr4(vcpu), bool(cr4 & CR4_OSXSAVE), bool(cr4 & CR4_PKE)
        if cr4 != old:
            self.kvm_cpuid_runtime_changed(vcpu)

    def kvm_is_valid_sregs(self, vcpu: Vcpu, cr4: int, lme: bool) -> bool:
        """EFER is held against CR0.PG, CR4.PAE and CS.L, with which it agrees here, not against CPUID."""
        return self.kvm_is_valid_cr4(vcpu, cr4)

    def kvm_is_valid_cr4(self, vcpu: Vcpu, cr4: int) -> bool:
        """OSXSAVE and PKE where the host and the guest have XSAVE and PKU: the guest's reserved bits are 0 before
        KVM_SET_CPUID2.

        cr4_guest_rsvd_bits is __cr4_reserved_bits(guest_cpuid_has, vcpu) after it (cpuid.c, x86.h).  A CPUID with PKRU
        in leaf 0xD has 7.0 ECX[3] (PKU) too.
        """
        arch = vcpu.arch
        osxsave = self.use_xsave and not arch.cpuid_no_xsave
        pke = self.ospke and (not arch.cpuid_set or arch.cpuid_xcr0 & xf.MASK_PKRU)
        return not cr4 & ~((CR4_OSXSAVE if osxsave else 0) | (CR4_PKE if pke else 0))

    def kvm_emulate_xsetbv(self, vcpu: Vcpu, index: int, value: int, cpl: int = 0) -> int:
        """XSETBV exit: commit and skip, or #GP."""
        if cpl or self._kvm_set_xcr(vcpu, index, value):
            self.kvm_inject_gp(vcpu)
            return 1
        return self.kvm_skip_emulated_instruction(vcpu)

    def kvm_vcpu_ioctl_x86_set_xcrs(self, vcpu: Vcpu, xcrs: KvmXcrs) -> int:
        """KVM_SET_XCRS: of the entries the first one that is for XCR0 counts, the others are passed over; EINVAL."""
        if self.refuses_protected(vcpu) or not self.use_xsave:
            return -EINVAL
        if xcrs.nr_xcrs > KVM_MAX_XCRS or xcrs.flags:
            return -EINVAL
        for xcr, value in [(xcrs.xcr, xcrs.value), (0, 0)][: xcrs.nr_xcrs]:
            if not xcr:
                return -EINVAL if self._kvm_set_xcr(vcpu, 0, value) else 0
        return 0

    def kvm_vcpu_ioctl_x86_get_xcrs(self, vcpu: Vcpu) -> tuple[int, int | None]:
        """KVM_GET_XCRS: XCR0; no entry without XSAVE; EINVAL."""
        if self.refuses_protected(vcpu):
            return -EINVAL, None
        return 0, vcpu.arch.xcr0 if self.use_xsave else None

    # -- MSRs ----------------------------------------------------------------------------------------------------

    def kvm_set_msr_common(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        """IA32_XFD and IA32_XFD_ERR: neither is known."""
        return KVM_MSR_RET_INVALID

    def kvm_get_msr_common(self, vcpu: Vcpu, index: int, host_initiated: bool) -> tuple[int, int]:
        """Return code (0: known) and value."""
        return KVM_MSR_RET_INVALID, 0

    def kvm_emulate_wrmsr(self, vcpu: Vcpu, index: int, data: int) -> int:
        """WRMSR exit: 0 leaves to user space, 1 goes on, negative ends KVM_RUN."""
        r = self.kvm_set_msr_ignored_check(vcpu, index, data, False)
        if r and self.kvm_msr_user_space(r):
            return 0
        if r < 0:
            return r
        return self.kvm_complete_insn_gp(vcpu, r)

    def kvm_emulate_rdmsr(self, vcpu: Vcpu, index: int) -> int:
        """RDMSR exit; the value goes to the guest's EDX:EAX, here to exit_value."""
        r, vcpu.exit_value = self.kvm_get_msr_ignored_check(vcpu, index, False)
        return self.kvm_complete_insn_gp(vcpu, r)

    def kvm_msr_user_space(self, r: int) -> bool:
        """Whether user space is to see the failed access; no filter is set in the model."""
        return False

    def kvm_complete_insn_gp(self, vcpu: Vcpu, err: int) -> int:
        """#GP on error, else skip."""
        if err:
            self.kvm_inject_gp(vcpu)
            return 1
        return self.kvm_skip_emulated_instruction(vcpu)

    # -- MP state ------------------------------------------------------------------------------------------------

    def kvm_mpx_supported(self) -> bool:
        """(x86.h)."""
        return self.supported_xcr0 & xf.MASK_MPX == xf.MASK_MPX

    def kvm_arch_vcpu_ioctl_get_mpstate(self, vcpu: Vcpu) -> int:
        """KVM_GET_MP_STATE accepts a pending INIT, which clears MPX state, so the guest FPU is loaded around it."""
        self.vcpu_load(vcpu)
        if self.kvm_mpx_supported():
            self.kvm_load_guest_fpu(vcpu)
        self.kvm_apic_accept_events(vcpu)
        if self.kvm_mpx_supported():
            self.kvm_put_guest_fpu(vcpu)
        self.vcpu_put(vcpu)
        return 0

    def kvm_arch_vcpu_ioctl_set_mpstate(self, vcpu: Vcpu, mp_state: int) -> int:
        """KVM_SET_MP_STATE: EINVAL but for a runnable one without a local APIC in the kernel.

        That INIT and SIPI are blocked, in SMM or in VMX root mode, does not happen here.
        """
        ret = -EINVAL
        self.vcpu_load(vcpu)
        if mp_state == st.KVM_MP_STATE_RUNNABLE or self.lapic_in_kernel(vcpu):
            if mp_state == st.KVM_MP_STATE_SIPI_RECEIVED:
                vcpu.arch.mp_state = st.KVM_MP_STATE_INIT_RECEIVED
                vcpu.arch.sipi_pending = 1
            else:
                vcpu.arch.mp_state = mp_state
            ret = 0
        self.vcpu_put(vcpu)
        return ret

    def lapic_in_kernel(self, vcpu: Vcpu) -> bool:
        """Whether KVM has its local APIC."""
        return bool(self.vms[vcpu.vm].irqchip_in_kernel)

    @phase_of("kvm_arch_vm_ioctl")
    def kvm_vm_ioctl_create_irqchip(self, vm_nr: int) -> int:
        """KVM_CREATE_IRQCHIP: EEXIST, EINVAL once there are vCPUs (x86.c).

        A TD has one from the start, KVM_CAP_SPLIT_IRQCHIP's, without which it has no vCPUs.
        """
        vm = self.vms[vm_nr]
        if vm.irqchip_in_kernel or vm.type == st.VM_X86_TDX_VM:
            return -EEXIST
        if any(vcpu.exists and vcpu.vm == vm_nr for vcpu in self.vcpus):
            return -EINVAL
        vm.irqchip_in_kernel = 1
        return 0

    # -- KVM_RUN -------------------------------------------------------------------------------------------------

    def kvm_arch_vcpu_ioctl_run(self, vcpu: Vcpu) -> None:
        """KVM_RUN until vcpu_run() would enter the guest for the first time."""
        self.vcpu_load(vcpu)
        vcpu.run_over = 0
        vcpu.run_ret = 0
        self.kvm_load_guest_fpu(vcpu)
        if vcpu.arch.mp_state == st.KVM_MP_STATE_UNINITIALIZED:
            return  # kvm_vcpu_block(), with the guest FPU loaded
        if vcpu.arch.complete_userspace_io:  # either callback skips the instruction
            vcpu.arch.complete_userspace_io = st.COMPLETE_NONE
            self.vcpu_run_result(vcpu, self.kvm_skip_emulated_instruction(vcpu))
        if not vcpu.run_over:
            self.vcpu_run_result(vcpu, self.vcpu_pre_run(vcpu))

    @seam
    def vcpu_run_result(self, vcpu: Vcpu, r: int) -> None:
        """vcpu_run()'s `if (r <= 0) break`."""
        if r <= 0:
            vcpu.run_over = 1
            vcpu.run_ret = r

    @phase_of("kvm_arch_vcpu_ioctl_run")
    def kvm_arch_vcpu_ioctl_run_out(self, vcpu: Vcpu) -> int:
        """The `out:` label: a pending signal ended the loop unless an exit did; put the guest FPU and the vCPU."""
        r = vcpu.run_ret
        if vcpu.arch.mp_state == st.KVM_MP_STATE_UNINITIALIZED and (vcpu.arch.init_pending or vcpu.arch.sipi_pending):
            self.kvm_apic_accept_events(vcpu)
            r = -EAGAIN
        elif not vcpu.run_over:
            vcpu.run.exit_reason = st.KVM_EXIT_INTR
            r = -EINTR
        r = self.kvm_run_merge_put(r, self.kvm_put_guest_fpu(vcpu))
        self.vcpu_put(vcpu)
        return r

    @seam
    def kvm_run_merge_put(self, r: int, put_ret: int) -> int:
        """kvm_put_guest_fpu()'s result is not looked at."""
        return r

    def vcpu_run(self, vcpu: Vcpu) -> None:
        """Its loop, once, where it comes to no VM entry."""
        if self.kvm_vcpu_running(vcpu):
            self.vcpu_enter_guest(vcpu)
        else:
            self.vcpu_block(vcpu)

    def kvm_vcpu_running(self, vcpu: Vcpu) -> bool:
        """Whether it does not wait."""
        return vcpu.arch.mp_state == st.KVM_MP_STATE_RUNNABLE

    def vcpu_block(self, vcpu: Vcpu) -> None:
        """Past kvm_vcpu_block(), where something has come: INIT, SIPI, or an interrupt for one that is halted."""
        self.kvm_apic_accept_events(vcpu)
        if vcpu.arch.mp_state in (st.KVM_MP_STATE_HALTED, st.KVM_MP_STATE_AP_RESET_HOLD):
            vcpu.arch.mp_state = st.KVM_MP_STATE_RUNNABLE

    def vcpu_enter_guest(self, vcpu: Vcpu) -> None:
        """Pending events, then from `preempt_disable()` to VM entry, unless the vCPU has to wait for SIPI."""
        self.kvm_apic_accept_events(vcpu)
        if vcpu.arch.mp_state == st.KVM_MP_STATE_INIT_RECEIVED:
            return
        self.kvm_clear_exception_queue(vcpu)
        self.preempt_disable()
        self.local_irq_disable()
        self.fpregs_assert_state_consistent()
        if self.current.tif_need_fpu_load:
            self.switch_fpu_return()
        # the rest of the way is without interrupts, too, and moves no register of an fpstate's
        self.local_irq_enable()
        self.vcpu_enter_guest_xfd_err(vcpu)
        self.kvm_load_guest_xsave_state(vcpu)

    @seam
    def vcpu_enter_guest_xfd_err(self, vcpu: Vcpu) -> None:
        """Load the guest's IA32_XFD_ERR; nothing before the series."""

    @phase_of("vcpu_enter_guest")
    def vcpu_enter_guest_exited(self, vcpu: Vcpu, kernel_fpu: bool = False, nmi: bool = False) -> None:
        """From VM exit to `local_irq_enable()` and `preempt_enable()`.

        ``kernel_fpu``: the exit is an external interrupt whose handling uses the FPU in softirq context; ``nmi``: it is
        a NMI, that of a PMI.
        """
        if nmi:
            self.vmx_vcpu_enter_exit_nmi()
        self.tdx_vcpu_run_exited(vcpu)
        self.kvm_load_host_xsave_state(vcpu)
        self.vcpu_exited_before_irqoff(vcpu)
        vcpu.last_vmentry_cpu = self.cpu
        self.kvm_x86_handle_exit_irqoff(vcpu, kernel_fpu)
        if nmi:
            self.handle_nmi_irqoff()
        self.vcpu_exited_after_irqoff(vcpu)
        if kernel_fpu and self.is_svm():
            self.raise_softirq()  # "any pending interrupts, including the possible source of VM-Exit on SVM"
        self.preempt_enable()

    @phase_of("vmx_vcpu_enter_exit")
    def vmx_vcpu_enter_exit_nmi(self) -> None:
        """Right behind VM exit; NMIs are handled later until 11df586d774f (vmx/vmx.c)."""

    @phase_of("handle_exception_nmi_irqoff")
    def handle_nmi_irqoff(self) -> None:
        """The NMI handler, among the vendor's (vmx/vmx.c)."""
        self.intel_pmu_handle_irq()

    @seam
    def vcpu_exited_before_irqoff(self, vcpu: Vcpu) -> None:
        """Between VM exit and the vendor's interrupts-off handlers; nothing before the series."""

    @seam
    def vcpu_exited_after_irqoff(self, vcpu: Vcpu) -> None:
        """Between those handlers and `local_irq_enable()`; nothing before the series."""

    def kvm_load_guest_xsave_state(self, vcpu: Vcpu) -> None:
        """XCR0 and IA32_XSS, if CR4.OSXSAVE is set, and PKRU of the guest."""
        if not self.use_xsave or vcpu.arch.guest_state_protected:
            return
        if vcpu.arch.cr4_osxsave and vcpu.arch.xcr0 != self.host_xcr0:
            self.xsetbv(vcpu.arch.xcr0)
        if self.xsaves_enabled(vcpu) and vcpu.arch.ia32_xss != self.host_xss:
            self.wrmsrl(MSR_IA32_XSS, vcpu.arch.ia32_xss)
        if self.guest_uses_pkru(vcpu) and vcpu.arch.pkru != vcpu.arch.host_pkru:
            self.write_pkru(vcpu.arch.pkru)

    def kvm_load_host_xsave_state(self, vcpu: Vcpu) -> None:
        """Back to the host's."""
        if not self.use_xsave or vcpu.arch.guest_state_protected:
            return
        if self.guest_uses_pkru(vcpu):
            vcpu.arch.pkru = self.rdpkru()
            if vcpu.arch.pkru != vcpu.arch.host_pkru:
                self.write_pkru(vcpu.arch.host_pkru)
        if vcpu.arch.cr4_osxsave and vcpu.arch.xcr0 != self.host_xcr0:
            self.xsetbv(self.host_xcr0)
        if self.xsaves_enabled(vcpu) and vcpu.arch.ia32_xss != self.host_xss:
            self.wrmsrl(MSR_IA32_XSS, self.host_xss)

    def rdpkru(self) -> int:
        """RDPKRU is #UD while CR4.PKE is clear; no exception table has it (arch/x86/include/asm/special_insns.h)."""
        if not self.ospke:
            self.die(OOPS)
        return self.regs.data[xf.PKRU]

    def write_pkru(self, pkru: int) -> None:
        """Nothing without X86_FEATURE_OSPKE (arch/x86/include/asm/pkru.h)."""
        if self.ospke:
            load_component(self.regs, xf.PKRU, pkru)

    @seam
    def guest_uses_pkru(self, vcpu: Vcpu) -> bool:
        """By XSAVE and XRSTOR, or by RDPKRU and WRPKRU: the condition of both of them."""
        return bool(self.machine.pku and (vcpu.arch.xcr0 & xf.MASK_PKRU or vcpu.arch.cr4_pke))

    @seam
    def xsaves_enabled(self, vcpu: Vcpu) -> bool:
        """vcpu->arch.xsaves_enabled, looked at under CR4.OSXSAVE."""
        return bool(vcpu.arch.cr4_osxsave) and self.guest_cpu_cap_has_xsaves(vcpu)

    def xsetbv(self, value: int) -> None:
        """xsetbv(); the kernel has no exception table entry there."""
        try:
            arch.xsetbv(self.regs, self.machine, value)
        except arch.GeneralProtection:
            self.die(OOPS, value)

    # -- exits ---------------------------------------------------------------------------------------------------

    @phase_of("vcpu_enter_guest")
    def vcpu_enter_guest_handle_exit(self, vcpu: Vcpu) -> None:
        """Its end, with interrupts on: handle the pending exit (static_call(kvm_x86_handle_exit))."""
        self.vcpu_run_result(vcpu, self.kvm_x86_handle_exit(vcpu))

    def kvm_emulate_cpuid(self, vcpu: Vcpu) -> int:
        """CPUID; EDX:EAX goes to exit_value, where the leaf's number was, and ECX:EBX to exit_value2 (cpuid.c)."""
        leaf = self.kvm_cpuid(vcpu, vcpu.exit_value, vcpu.exit_msr)
        vcpu.exit_value = leaf.edx << 32 | leaf.eax
        vcpu.exit_value2 = leaf.ecx << 32 | leaf.ebx
        return self.kvm_skip_emulated_instruction(vcpu)

    def x86_emulate_instruction(self, vcpu: Vcpu, kind: int) -> int:
        """MOVUPS from memory to a register, or MOVUPS or FNSTCW to memory, here to exit_value; RIP goes on.

        A register is fetched as an operand is decoded, whether it is read or written
        (arch/x86/kvm/emulate.c, decode_register_operand(), em_fnstcw(), writeback()).
        """
        read = self.kvm_read_fpu_reg(vcpu.exit_msr)
        if kind == st.EXIT_EMULATED_LOAD:
            self.kvm_write_sse_reg(vcpu.exit_value)
        else:
            vcpu.exit_value = read
        return self.kvm_skip_emulated_instruction(vcpu)

    @phase_of("kvm_read_sse_reg")
    def kvm_read_fpu_reg(self, component: int) -> int:
        """A register of SSE or, in em_fnstcw(), x87 (arch/x86/kvm/fpu.h)."""
        self.kvm_fpu_get()
        data = self.regs.data[component]
        self.kvm_fpu_put()
        return data

    def kvm_write_sse_reg(self, data: int) -> None:
        """(arch/x86/kvm/fpu.h)."""
        self.kvm_fpu_get()
        arch.load_component(self.regs, xf.SSE, data)
        self.kvm_fpu_put()

    def kvm_hv_hypercall(self, vcpu: Vcpu) -> int:
        """A fast hypercall whose input is in XMM registers, here for exit_value (arch/x86/kvm/hyperv.c)."""
        vcpu.exit_value = self.kvm_hv_hypercall_read_xmm()
        return self.kvm_skip_emulated_instruction(vcpu)

    def kvm_hv_hypercall_read_xmm(self) -> int:
        """XMM0 to XMM5 (arch/x86/kvm/hyperv.c)."""
        return self.kvm_read_fpu_reg(xf.SSE)

    def kvm_emulate_halt(self, vcpu: Vcpu) -> int:
        """HLT: skip, and without a local APIC in the kernel leave to user space.

        6.12 lets one for which an event is pending stay runnable; halted, it is woken at once.
        """
        self.kvm_skip_emulated_instruction(vcpu)
        if self.lapic_in_kernel(vcpu):
            vcpu.arch.mp_state = st.KVM_MP_STATE_HALTED
            return 1
        vcpu.run.exit_reason = st.KVM_EXIT_HLT
        return 0

    def kvm_fast_pio_out(self, vcpu: Vcpu) -> int:
        """OUT: user space handles it, the next KVM_RUN skips it."""
        vcpu.run.exit_reason = st.KVM_EXIT_IO
        vcpu.arch.complete_userspace_io = st.COMPLETE_FAST_PIO
        return 0
