"""Nested guests as far as #NM and XFD need them (arch/x86/kvm/vmx/nested.c, v5.16).

L1 launches an L2 that shares its registers, XCR0, CR0.TS and XFD: what differs is who gets an exit.
"""

from __future__ import annotations

from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.errno import EINVAL
from xfdfuzz.kernel.kvm.x86 import KvmX86
from xfdfuzz.kernel.state import Vcpu


class KvmNested(KvmX86):
    """VM entry and exit between L1 and L2."""

    def nested_vmx_run(self, vcpu: Vcpu, nm: int) -> int:
        """VMLAUNCH by L1; ``nm``: its exception bitmap has #NM.  The next VM entry enters L2."""
        vcpu.arch.guest_mode = 1
        vcpu.arch.vmcs12_nm = nm
        return 1

    def nested_vmx_reflect_vmexit(self, vcpu: Vcpu, kind: int) -> bool:
        """Whether the exit went to L1."""
        if not vcpu.arch.guest_mode or not self.nested_vmx_l1_wants_exit(vcpu, kind):
            return False
        self.nested_vmx_vmexit(vcpu)
        return True

    def nested_vmx_l1_wants_exit(self, vcpu: Vcpu, kind: int) -> bool:
        """#NM if vmcs12 says so; CPUID and XSETBV always; L1 is taken to intercept nothing else, and L0
        wants none of them first.

        With SVM, CPUID and XSETBV are vmcb12's choice (svm/nested.c, nested_svm_intercept()): L1 is taken to make it,
        as KVM does (svm/svm.c, init_vmcb()).
        """
        if kind == st.EXIT_NM:
            return bool(vcpu.arch.vmcs12_nm)
        return kind in (st.EXIT_CPUID, st.EXIT_XSETBV, st.EXIT_USER_XSETBV)

    @phase_of("__nested_vmx_vmexit")
    def nested_vmx_vmexit(self, vcpu: Vcpu) -> None:
        """L1 goes on behind its VMLAUNCH; events that were queued for L2 are dropped.

        As in 6.1; that v5.16 drops them too is INFERRED.
        """
        vcpu.arch.guest_mode = 0
        self.kvm_clear_exception_queue(vcpu)

    def vmx_set_nested_state(self, vcpu: Vcpu, guest_mode: bool, nm: bool) -> int:
        """KVM_SET_NESTED_STATE of one that is whole; ``nm``: vmcs12's exception bitmap has #NM; EINVAL.

        A guest in L2 leaves it first, whatever comes then.  Whether L1 is in VMX operation is not modelled: what has L2
        run has a VMXON region, and what has not has none.
        """
        if guest_mode and not self.nested_vmx_allowed(vcpu):
            return -EINVAL
        self.vmx_leave_nested(vcpu)
        if guest_mode:
            self.nested_vmx_run(vcpu, int(nm))
        return 0

    def nested_vmx_allowed(self, vcpu: Vcpu) -> bool:
        """guest_cpuid_has(vcpu, X86_FEATURE_VMX): taken to be in every CPUID that user space gives (vmx/vmx.c).

        svm_set_nested_state() asks for EFER.SVME, which is taken to be set where the guest's CPUID has SVM.
        """
        return bool(vcpu.arch.cpuid_set)

    def vmx_leave_nested(self, vcpu: Vcpu) -> None:
        """As an exit to L1 of which L1 is told nothing; svm_leave_nested(), of svm/nested.c, is none."""
        if vcpu.arch.guest_mode and self.leaving_l2_drops_events():
            self.nested_vmx_vmexit(vcpu)
        vcpu.arch.guest_mode = 0

    @seam
    def leaving_l2_drops_events(self) -> bool:
        """Whether what waits in L2 is dropped where L2 is left without an exit: svm_leave_nested() leaves it."""
        return not self.is_svm()

    @seam
    def nm_intercepted(self, vcpu: Vcpu) -> bool:
        """Bit 7 of the exception bitmap in the current VMCS: vmcs02 has what L0 or L1 wants."""
        arch = vcpu.arch
        return bool(arch.nm_intercept or (arch.guest_mode and arch.vmcs12_nm))
