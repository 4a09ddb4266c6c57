"""Protected guests: SEV-ES VMs, of a type of their own too, and TDX."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_XSS, load_component
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.errno import EINVAL
from xfdfuzz.kernel.kvm.x86 import KvmX86
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.revisions.queue import patch


@patch(
    "eb4441864e03",
    "KVM: SEV: sync FPU and AVX state at LAUNCH_UPDATE_VMSA time",
    version="v6.10",
)
class FpuIntoVmsa(KvmX86):
    """What KVM_SET_XSAVE gave a VM of SEV-ES' type is sealed with the rest, and only then confidential."""

    def vcpu_create_protected(self, vcpu: Vcpu) -> None:
        """Nothing (arch/x86/kvm/svm/svm.c, svm_vcpu_create())."""

    def sev_es_sync_vmsa(self, vcpu: Vcpu) -> None:
        """Legacy region as it lies in memory, AVX by XSTATE_BV; not of the default type (arch/x86/kvm/svm/sev.c)."""
        super().sev_es_sync_vmsa(vcpu)
        if self.vms[vcpu.vm].type == st.VM_X86_SEV_ES_VM:
            regs = self.deref(vcpu.arch.guest_fpu.fpstate).regs
            for i in (xf.X87, xf.SSE, xf.MXCSR):
                self.vmsa_component(vcpu, i, regs.data[i])
            if regs.xstate_bv & xf.MASK_YMM:
                self.vmsa_component(vcpu, xf.YMM, regs.data[xf.YMM])

    def _sev_launch_update_vmsa(self, vcpu: Vcpu) -> int:
        """(arch/x86/kvm/svm/sev.c)."""
        ret = super()._sev_launch_update_vmsa(vcpu)
        if not ret:
            self.deref(vcpu.arch.guest_fpu.fpstate).is_confidential = 1
        return ret


@patch("4f5defae7089", "KVM: SEV: introduce KVM_SEV_INIT2 operation", version="v6.10", neutral="a feature")
class SevEsType(KvmX86):
    """VMs of the type KVM_X86_SEV_ES_VM, whose ioctls say that they cannot (with has_protected_state)."""

    def kvm_is_vm_type_supported(self, vm_type: int) -> bool:
        """(arch/x86/kvm/x86.c)."""
        return super().kvm_is_vm_type_supported(vm_type) or vm_type == st.VM_X86_SEV_ES_VM

    def has_protected_state(self, vcpu: Vcpu) -> bool:
        """(arch/x86/kvm/svm/svm.c, svm_vm_init())."""
        return self.vms[vcpu.vm].type == st.VM_X86_SEV_ES_VM or super().has_protected_state(vcpu)


@patch("161d34609f9b", "KVM: TDX: Make TDX VM type supported", version="v6.16", neutral="a feature")
class TdxType(KvmX86):
    """VMs of the type KVM_X86_TDX_VM, whose vCPUs are protected from their creation on."""

    def kvm_is_vm_type_supported(self, vm_type: int) -> bool:
        """(arch/x86/kvm/vmx/main.c)."""
        return super().kvm_is_vm_type_supported(vm_type) or vm_type == st.VM_X86_TDX_VM

    def has_protected_state(self, vcpu: Vcpu) -> bool:
        """(arch/x86/kvm/vmx/tdx.c, tdx_vm_init())."""
        return self.vms[vcpu.vm].type == st.VM_X86_TDX_VM or super().has_protected_state(vcpu)

    def vcpu_create_protected(self, vcpu: Vcpu) -> None:
        """(arch/x86/kvm/vmx/tdx.c, tdx_vcpu_create())."""
        super().vcpu_create_protected(vcpu)
        if self.vms[vcpu.vm].type == st.VM_X86_TDX_VM:
            self.deref(vcpu.arch.guest_fpu.fpstate).is_confidential = 1
            vcpu.arch.guest_state_protected = 1
            vcpu.vmsa.xcr0 = xf.MASK_X87


@patch(
    "6bfa6d8509ad",
    "KVM: TDX: restore host xsave state when exit from the guest TD",
    version="v6.16",
)
class TdxRestoresHost(KvmX86):
    """The TDX module leaves XCR0, IA32_XSS and PKRU as the TD had them, or initial."""

    def tdx_vcpu_run_exited(self, vcpu: Vcpu) -> None:
        """tdx_load_host_xsave_state() (arch/x86/kvm/vmx/tdx.c)."""
        xfam = self.td_xfam(vcpu)
        if xfam is None:
            return
        if self.ospke and vcpu.arch.host_pkru:
            load_component(self.regs, xf.PKRU, vcpu.arch.host_pkru)
        if self.host_xcr0 != xfam & self.supported_xcr0:
            self.xsetbv(self.host_xcr0)
        if self.host_xss:
            self.wrmsrl(MSR_IA32_XSS, self.host_xss)


@patch(
    "9b9f7962e3e8",
    "KVM: SEV: Reject attempts to sync VMSA of an already-launched/encrypted vCPU",
    version="v7.1",
    stable=("..v6.12.117",),
    neutral="what a second KVM_SEV_LAUNCH_UPDATE_VMSA returns, which no invariant speaks of",
)
class VmsaSyncedOnce(KvmX86):
    """KVM does not touch a VMSA that is encrypted; with SEV-SNP that would be the end of the host."""

    def _sev_launch_update_vmsa(self, vcpu: Vcpu) -> int:
        """EINVAL of sev_es_sync_vmsa() (arch/x86/kvm/svm/sev.c)."""
        return -EINVAL if vcpu.arch.guest_state_protected else super()._sev_launch_update_vmsa(vcpu)
