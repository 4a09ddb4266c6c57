"""Protected guests: SEV-ES VMs, of a type of their own too, what KVM and their VMM may know, SEV-SNP, and TDX."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import LEAF_XSTATE
from xfdfuzz.arch.registers import MSR_IA32_XSS, load_component
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.errno import EINVAL, EPERM
from xfdfuzz.kernel.fpu.xstate import Value
from xfdfuzz.kernel.kvm.cpuid import KvmCpuid
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.kvm.x86 import KvmX86
from xfdfuzz.kernel.state import Vcpu, Vm
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

    def sync_vmsa_fpu(self, vcpu: Vcpu) -> None:
        """Legacy region as it lies in memory, AVX by XSTATE_BV; not of the default type (arch/x86/kvm/svm/sev.c,
        sev_es_sync_vmsa())."""
        if self.vms[vcpu.vm].type != st.VM_SEV_ES:
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


#: include/uapi asm/kvm.h and asm/svm.h: an attribute of /dev/kvm of KVM_X86_GRP_SEV, and its bit.
KVM_X86_GRP_SEV, KVM_X86_SEV_VMSA_FEATURES = 1, 0
SVM_SEV_FEAT_DEBUG_SWAP = 1 << 5


@patch("ac5c48027bac", "KVM: SEV: publish supported VMSA features", version="v6.10", neutral="a feature")
class VmsaFeatures(KvmCpuid):
    """KVM_X86_SEV_VMSA_FEATURES: what KVM_SEV_INIT2 may ask for; the vendor op of 546d714b0880 is a part of it here.

    A processor with SEV-ES is taken to swap debug registers (DebugSwap), as a Zen 4 does (INFERRED).
    """

    def kvm_x86_dev_get_attr(self, group: int, attr: int, pointer_ok: bool) -> Value:
        """(arch/x86/kvm/svm/sev.c, sev_dev_get_attr())."""
        if self._has_vmsa_features(group, attr):
            return self.put_user(SVM_SEV_FEAT_DEBUG_SWAP, pointer_ok)
        return super().kvm_x86_dev_get_attr(group, attr, pointer_ok)

    def kvm_x86_dev_has_attr(self, group: int, attr: int) -> int:
        """(arch/x86/kvm/svm/sev.c, sev_dev_get_attr())."""
        return 0 if self._has_vmsa_features(group, attr) else super().kvm_x86_dev_has_attr(group, attr)

    def _has_vmsa_features(self, group: int, attr: int) -> bool:
        return self.machine.amd and (group, attr) == (KVM_X86_GRP_SEV, KVM_X86_SEV_VMSA_FEATURES)


@patch("4f5defae7089", "KVM: SEV: introduce KVM_SEV_INIT2 operation", version="v6.10", neutral="a feature")
class SevEsType(KvmX86):
    """VMs of the type KVM_X86_SEV_ES_VM, whose ioctls say that they cannot (with has_protected_state)."""

    def kvm_is_vm_type_supported(self, vm_type: int) -> bool:
        """(arch/x86/kvm/x86.c)."""
        return super().kvm_is_vm_type_supported(vm_type) or vm_type == st.VM_X86_SEV_ES_VM

    def has_protected_state(self, vcpu: Vcpu) -> bool:
        """(arch/x86/kvm/svm/svm.c, svm_vm_init())."""
        return self.vms[vcpu.vm].type == st.VM_X86_SEV_ES_VM or super().has_protected_state(vcpu)


@patch("27bd5fdc24c0", "KVM: SEV-ES: Prevent MSR access post VMSA encryption", version="v6.10")
class MsrsOfVmsa(KvmX86):
    """MSRs that the processor loads from the VMSA are kept from the VMM of a sealed guest."""

    def protected_msr(self, vcpu: Vcpu, index: int) -> int | None:
        """sev_es_prevent_msr_access(), of svm_get_msr() and svm_set_msr() (arch/x86/kvm/svm/svm.c)."""
        if self.sev_es_sealed(vcpu) and self.vmsa_switches(vcpu, index):
            return -EINVAL
        return super().protected_msr(vcpu, index)


@patch(
    "cf6d9d2d243f",
    "KVM: SEV-ES: Fix svm_get_msr()/svm_set_msr() for KVM_SEV_ES_INIT guests",
    version="v6.10",
    fixes=("27bd5fdc24c0",),
)
class MsrsOfDefaultType(KvmX86):
    """For a VM of the default type nothing fails: old VMMs take it for an error of their own."""

    def protected_msr(self, vcpu: Vcpu, index: int) -> int | None:
        """(arch/x86/kvm/svm/svm.c, svm_get_msr(), svm_set_msr())."""
        ret = super().protected_msr(vcpu, index)
        return 0 if ret and self.sev_es_sealed(vcpu) and not self.has_protected_state(vcpu) else ret


@patch("ad27ce155566", "KVM: SEV: Add KVM_SEV_SNP_LAUNCH_FINISH command", version="v6.11", neutral="a feature")
class SnpType(KvmX86):
    """VMs of the type KVM_X86_SNP_VM, with what else came of them in 6.11."""

    def kvm_is_vm_type_supported(self, vm_type: int) -> bool:
        """(arch/x86/kvm/x86.c)."""
        return super().kvm_is_vm_type_supported(vm_type) or vm_type == st.VM_X86_SNP_VM

    def has_protected_state(self, vcpu: Vcpu) -> bool:
        """(arch/x86/kvm/svm/svm.c, svm_vm_init())."""
        return self.vms[vcpu.vm].type == st.VM_X86_SNP_VM or super().has_protected_state(vcpu)

    def sev_command_refused(self, vm: Vm, snp: bool) -> int:
        """An SNP guest has SNP's commands alone: EPERM (arch/x86/kvm/svm/sev.c, sev_mem_enc_ioctl())."""
        return -EPERM if self.sev_snp_guest(vm) and not snp else 0


@patch("161d34609f9b", "KVM: TDX: Make TDX VM type supported", version="v6.16", neutral="a feature")
class TdxType(KvmX86):
    """VMs of the type KVM_X86_TDX_VM, whose vCPUs are protected from their creation on."""

    def kvm_is_vm_type_supported(self, vm_type: int) -> bool:
        """Of kvm_intel.ko (arch/x86/kvm/vmx/main.c)."""
        td = vm_type == st.VM_X86_TDX_VM and not self.is_svm()
        return super().kvm_is_vm_type_supported(vm_type) or td

    def has_protected_state(self, vcpu: Vcpu) -> bool:
        """(arch/x86/kvm/vmx/tdx.c, tdx_vm_init())."""
        return self.vms[vcpu.vm].type == st.VM_X86_TDX_VM or super().has_protected_state(vcpu)

    def protected_msr(self, vcpu: Vcpu, index: int) -> int | None:
        """Of those that are modelled none is emulated for a TD (arch/x86/kvm/vmx/tdx.c, tdx_has_emulated_msr())."""
        td = self.vms[vcpu.vm].type == st.VM_X86_TDX_VM
        return 1 if td else super().protected_msr(vcpu, index)

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
    "4135a9a8ccba",
    "KVM: SEV: Validate XCR0 provided by guest in GHCB",
    version="v6.18",
    neutral="a guest that has in XCR0 what its CPUID lacks is beyond KVM's help",
)
class GhcbXcr0Checked(KvmX86):
    """What the guest says of its XCR0 counts where KVM_SET_XCRS could set it; else KVM goes by the one before."""

    def sev_es_sync_from_ghcb(self, vcpu: Vcpu) -> None:
        """Nobody looks at what __kvm_set_xcr() returns (arch/x86/kvm/svm/sev.c)."""
        self._kvm_set_xcr(vcpu, 0, self.ghcb_get_xcr0(vcpu))


@patch(
    "b5fa221f7b08",
    "KVM: SEV: Synchronize MSR_IA32_XSS from the GHCB when it's valid",
    version="v6.18",
    neutral="IA32_XSS of a sealed guest stays as it is: its WRMSR is not modelled",
)
class GhcbXss(Kernel):
    """Of IA32_XSS a guest tells KVM, too, so the VMM may access KVM's copy of it."""

    def vmsa_switches(self, vcpu: Vcpu, index: int) -> bool:
        """(arch/x86/kvm/svm/svm.c, sev_es_prevent_msr_access())."""
        return index != MSR_IA32_XSS and super().vmsa_switches(vcpu, index)

    def sev_es_sync_from_ghcb(self, vcpu: Vcpu) -> None:
        """A Linux guest with shadow stacks tells of IA32_XSS where it asks for CPUID.0xD.1 (arch/x86/kvm/svm/sev.c)."""
        super().sev_es_sync_from_ghcb(vcpu)
        if (vcpu.exit_value, vcpu.exit_msr) == (LEAF_XSTATE, 1) and self.guest_cpu_cap_has_shstk(vcpu):
            self.kvm_set_msr_ignored_check(vcpu, MSR_IA32_XSS, vcpu.vmsa.xss, False)


@patch(
    "9b9f7962e3e8",
    "KVM: SEV: Reject attempts to sync VMSA of an already-launched/encrypted vCPU",
    version="v7.1",
    fixes=("ad27ce155566",),
    stable=("..v6.12.117",),
)
class VmsaSyncedOnce(KvmX86):
    """KVM does not touch a VMSA that is encrypted; with SEV-SNP that was the end of the host."""

    def sev_es_sync_vmsa(self, vcpu: Vcpu) -> int:
        """EINVAL (arch/x86/kvm/svm/sev.c)."""
        return -EINVAL if vcpu.arch.guest_state_protected else super().sev_es_sync_vmsa(vcpu)
