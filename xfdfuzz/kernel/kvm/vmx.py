"""The vendor's side: MSR bitmap, exception bitmap, exits (arch/x86/kvm/vmx/vmx.c, v5.16).

What SVM does otherwise (arch/x86/kvm/svm/svm.c) goes by is_svm().
"""

from __future__ import annotations

from xfdfuzz.arch.registers import (
    CET_MSRS,
    MSR_IA32_INT_SSP_TAB,
    MSR_IA32_XFD,
    MSR_IA32_XFD_ERR,
    MSR_IA32_XSS,
    CetState,
)
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.kvm.msrs import MSR_KVM_INTERNAL_GUEST_SSP
from xfdfuzz.kernel.kvm.nested import KvmNested
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.memory.cstruct import assign

#: What kvm_set_supervisor_msr() and kvm_get_supervisor_msr() see to.
SUPERVISOR_MSRS = (MSR_IA32_XSS, *CET_MSRS, MSR_KVM_INTERNAL_GUEST_SSP)


class Kernel(KvmNested):
    """v5.16 whole: every method of the FPU core and KVM, before the series.

    The name is that of the concept: a revision is a subclass of it, or a stack of patches on one.
    """

    revision = "v5.16"

    @phase_of("vmx_create_vcpu")
    def kvm_x86_vcpu_create(self, vcpu: Vcpu) -> None:
        """All MSRs are intercepted, #NM is not (vmx_create_vcpu())."""
        arch = vcpu.arch
        arch.xfd_read_intercept = arch.xfd_write_intercept = 1
        arch.xfd_err_read_intercept = arch.xfd_err_write_intercept = 1

    @phase_of("vmx_vcpu_reset")
    def kvm_x86_vcpu_reset(self, vcpu: Vcpu) -> None:
        """What the VMCS has of CET, which is 0 where KVM does not know CET (vmx/vmx.c, e140467bbdaf).

        init_vmcb() does not clear it (svm/svm.c, a tree of 2026; that others do not is INFERRED).
        """
        if not self.is_svm():
            assign(vcpu.arch.vmcs, CetState())

    @phase_of("vmx_vcpu_after_set_cpuid")
    def kvm_x86_vcpu_after_set_cpuid(self, vcpu: Vcpu) -> None:
        """vmx_vcpu_after_set_cpuid(): nothing for XFD; refreshes the exception bitmap."""
        self.vmx_update_exception_bitmap(vcpu)

    @phase_of("vmx_set_msr")
    def kvm_x86_set_msr(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        """vmx_set_msr(): 0, or the code of a refused access; that of a protected guest has a vendor call of its own."""
        if (nothing := self.protected_msr(vcpu, index)) is not None:
            return nothing
        if index in SUPERVISOR_MSRS:
            return self.kvm_set_supervisor_msr(vcpu, index, data, host_initiated)
        return self.kvm_set_msr_common(vcpu, index, data, host_initiated)

    @phase_of("vmx_get_msr")
    def kvm_x86_get_msr(self, vcpu: Vcpu, index: int, host_initiated: bool) -> tuple[int, int]:
        """vmx_get_msr(), likewise."""
        if (nothing := self.protected_msr(vcpu, index)) is not None:
            return nothing, 0
        if index in SUPERVISOR_MSRS:
            return self.kvm_get_supervisor_msr(vcpu, index, host_initiated)
        return self.kvm_get_msr_common(vcpu, index, host_initiated)

    @seam
    def msr_intercepted(self, vcpu: Vcpu, index: int, write: bool) -> bool:
        """What the MSR bitmap says: the MSRs of CET are passed through to guests that have them, but IA32_INT_SSP_TAB,
        IA32_XSS never is (25f3840483e6); of SVM the same (38c46bdbf998), without the MSRs of XFD, which no guest has
        there (svm/svm.c, direct_access_msrs[]).

        vmcs02 passes neither IA32_XFD nor IA32_XFD_ERR through (nested.c, nested_vmx_prepare_msr_bitmap()).
        """
        arch = vcpu.arch
        if arch.guest_mode and index in (MSR_IA32_XFD, MSR_IA32_XFD_ERR):
            return True
        if index == MSR_IA32_XFD:
            return bool(arch.xfd_write_intercept if write else arch.xfd_read_intercept)
        if index == MSR_IA32_XFD_ERR:
            return bool(arch.xfd_err_write_intercept if write else arch.xfd_err_read_intercept)
        return index in (MSR_IA32_XSS, MSR_IA32_INT_SSP_TAB) or not self.guest_has_cet_msr(vcpu, index)

    def vmx_update_exception_bitmap(self, vcpu: Vcpu) -> None:
        """Which exceptions exit; of those that matter here none."""
        vcpu.arch.nm_intercept = 0

    @phase_of("vmx_handle_exit_irqoff")
    def kvm_x86_handle_exit_irqoff(self, vcpu: Vcpu, kernel_fpu: bool) -> None:
        """vmx_handle_exit_irqoff(): the host's interrupt handler runs here, softirqs on its way out.

        svm_handle_exit_irqoff() has nothing to do: an interrupt is pending until interrupts are on.
        """
        if self.is_svm():
            return
        if vcpu.exit_pending == st.EXIT_NM:
            self.handle_exception_nmi_irqoff(vcpu)
        elif kernel_fpu:
            self.handle_external_interrupt_irqoff()

    def handle_external_interrupt_irqoff(self) -> None:
        """An interrupt whose softirq uses the FPU."""
        self.raise_softirq()

    def handle_exception_nmi_irqoff(self, vcpu: Vcpu) -> None:
        """Nothing to save before the series."""

    @phase_of("vmx_handle_exit")
    def kvm_x86_handle_exit(self, vcpu: Vcpu) -> int:
        """vmx_handle_exit(): L1 has its exits first, the others their handlers (kvm_vmx_exit_handlers[]).

        Positive goes on, 0 leaves to user space, an errno ends KVM_RUN.
        """
        kind, vcpu.exit_pending = vcpu.exit_pending, st.EXIT_NONE
        if kind == st.EXIT_CPUID and self.sev_es_sealed(vcpu):
            self.sev_es_sync_from_ghcb(vcpu)
        if self.nested_vmx_reflect_vmexit(vcpu, kind):
            return 1
        match kind:
            case st.EXIT_NM:
                return self.handle_exception_nmi(vcpu)
            case st.EXIT_CPUID:
                return self.kvm_emulate_cpuid(vcpu)
            case st.EXIT_MSR_READ:
                return self.kvm_emulate_rdmsr(vcpu, vcpu.exit_msr)
            case st.EXIT_MSR_WRITE:
                return self.kvm_emulate_wrmsr(vcpu, vcpu.exit_msr, vcpu.exit_value)
            case st.EXIT_HLT:
                return self.kvm_emulate_halt(vcpu)
            case st.EXIT_VMLAUNCH:
                return self.nested_vmx_run(vcpu, vcpu.exit_value)
            case st.EXIT_CR4_WRITE:
                return self.handle_set_cr4(vcpu, vcpu.exit_value)
            case st.EXIT_XSETBV:
                return self.kvm_emulate_xsetbv(vcpu, vcpu.exit_msr, vcpu.exit_value)
            case st.EXIT_USER_XSETBV:
                return self.kvm_emulate_xsetbv(vcpu, vcpu.exit_msr, vcpu.exit_value, cpl=3)
            case st.EXIT_EMULATED_LOAD | st.EXIT_EMULATED_STORE:
                return self.x86_emulate_instruction(vcpu, kind)
            case st.EXIT_HYPERCALL:
                return self.kvm_hv_hypercall(vcpu)
            case st.EXIT_SHUTDOWN:
                return self.handle_triple_fault(vcpu)
            case _:
                return self.kvm_fast_pio_out(vcpu)

    def handle_set_cr4(self, vcpu: Vcpu, cr4: int) -> int:
        """MOV to CR4, where the guest changes a bit that is the host's (handle_cr()); any with SVM
        (cr_interception())."""
        return self.kvm_complete_insn_gp(vcpu, self.kvm_set_cr4(vcpu, cr4))

    def handle_triple_fault(self, vcpu: Vcpu) -> int:
        """A triple fault: user space is told (vmx/vmx.c).

        A VMCB is undefined behind that, so SVM clears it and gives the vCPU an INIT (svm/svm.c,
        shutdown_interception(); read in 6.1 and 6.12).
        """
        if self.is_svm():
            assign(vcpu.arch.vmcs, CetState())  # clear_page(svm->vmcb)
            self.kvm_vcpu_reset_init(vcpu)
        vcpu.run.exit_reason = st.KVM_EXIT_SHUTDOWN
        return 0

    def handle_exception_nmi(self, vcpu: Vcpu) -> int:
        """An exception that nobody asked to intercept: KVM_EXIT_EXCEPTION in the kernel; unreachable here."""
        return 1
