"""VMs whose guests' registers KVM cannot see (arch/x86/kvm/svm/sev.c, v5.16; arch/x86/kvm/{x86.c,svm/svm.c})."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import CET_MSRS, MSR_IA32_INT_SSP_TAB, MSR_IA32_XSS, CpuRegs, load_cet_state, load_component
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.errno import EINVAL, EIO, ENOTTY
from xfdfuzz.kernel.event import OOPS
from xfdfuzz.kernel.fpu.init import ZEROED
from xfdfuzz.kernel.kvm.main import KvmMain
from xfdfuzz.kernel.state import Vcpu, Vm
from xfdfuzz.memory.cstruct import assign

#: sev_es_guest(): an SNP guest is one, too.
_SEV_ES = (st.VM_SEV_ES, st.VM_X86_SEV_ES_VM, st.VM_X86_SNP_VM)


class KvmProtected(KvmMain):
    """What KVM's common code does for them."""

    def kvm_is_vm_type_supported(self, vm_type: int) -> bool:
        """Of KVM_CREATE_VM: the default type alone (arch/x86/kvm/x86.c, kvm_arch_init_vm())."""
        return vm_type == st.VM_DEFAULT

    @phase_of("kvm_dev_ioctl_create_vm")
    def kvm_dev_ioctl_create_vm_of_type(self, vm_type: int, init: bool = True) -> tuple[int, int]:
        """KVM_CREATE_VM of a type, and KVM_SEV_INIT2 of an SEV one if ``init``: EINVAL, ENOMEM (arch/x86/kvm/x86.c;
        svm_vm_init())."""
        if not self.kvm_is_vm_type_supported(vm_type):
            return -EINVAL, 0
        ret, nr = self.kvm_dev_ioctl_create_vm()
        if not ret:
            vm = self.vms[nr]
            vm.type = vm_type
            vm.es_active = vm_type in _SEV_ES and init
            vm.need_init = vm_type in _SEV_ES and not init
        return ret, nr

    def sev_guest_init(self, vm: Vm) -> int:
        """KVM_SEV_ES_INIT of a VM without vCPUs: EINVAL (arch/x86/kvm/svm/sev.c)."""
        if vm.type != st.VM_DEFAULT or vm.vcpus_0:
            return -EINVAL
        vm.type, vm.es_active = st.VM_SEV_ES, 1
        return 0

    @phase_of("sev_mem_enc_op")
    def sev_command_refused(self, vm: Vm, snp: bool) -> int:
        """What is said of a command before its own function is called: none of SNP's is known before 6.11, EINVAL
        (arch/x86/kvm/svm/sev.c)."""
        return -EINVAL if snp else 0

    def sev_launch_update_vmsa(self, vm_nr: int) -> int:
        """KVM_SEV_LAUNCH_UPDATE_VMSA: ENOTTY, or what a vCPU gives (arch/x86/kvm/svm/sev.c)."""
        if not self.vms[vm_nr].es_active:
            return -ENOTTY
        for vcpu in self.vcpus_of(vm_nr):
            if ret := self._sev_launch_update_vmsa(vcpu):
                return ret
        return 0

    @seam
    def vcpus_of(self, vm_nr: int) -> Iterator[Vcpu]:
        """kvm_for_each_vcpu()."""
        return (vcpu for vcpu in self.vcpus if vcpu.exists and vcpu.vm == vm_nr)

    def _sev_launch_update_vmsa(self, vcpu: Vcpu) -> int:
        """__sev_launch_update_vmsa(): from here on the vCPU's registers are encrypted; EIO (arch/x86/kvm/svm/sev.c).

        Of a VMSA that is encrypted already the firmware wants to know nothing.
        """
        if ret := self.sev_es_sync_vmsa(vcpu):
            return ret
        if vcpu.arch.guest_state_protected:
            return -EIO
        vcpu.arch.guest_state_protected = 1
        return 0

    def sev_es_sync_vmsa(self, vcpu: Vcpu) -> int:
        """XCR0, IA32_XSS, PKRU and what the VMCB has are KVM's; nothing else is written to the zeroed page
        (arch/x86/kvm/svm/sev.c).

        An encrypted VMSA of an SNP guest is the guest's page, where a write of the host's is a #PF (RMP violation) that
        nothing handles (9b9f7962e3e8); what a write does to that of an SEV-ES guest is not modelled.
        """
        if vcpu.arch.guest_state_protected:
            if self.vms[vcpu.vm].type == st.VM_X86_SNP_VM:
                self.die(OOPS)
            return 0
        assign(vcpu.vmsa, CpuRegs(xcr0=vcpu.arch.xcr0, xss=vcpu.arch.ia32_xss))
        self.vmsa_component(vcpu, xf.X87, ZEROED)
        self.vmsa_component(vcpu, xf.MXCSR, ZEROED)
        self.vmsa_component(vcpu, xf.PKRU, vcpu.arch.pkru)
        load_cet_state(vcpu.vmsa, vcpu.arch.vmcs)
        self.sync_vmsa_fpu(vcpu)
        return 0

    @phase_of("sev_es_sync_vmsa")
    def sync_vmsa_fpu(self, vcpu: Vcpu) -> None:
        """Nothing of the FPU is KVM's to copy, until eb4441864e03 (arch/x86/kvm/svm/sev.c)."""

    # -- intra-host migration, of 5.16 ------------------------------------------------------------------------------

    def sev_vm_move_enc_context_from(self, vm_nr: int, source_nr: int) -> int:
        """KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM: the VM takes the guest over, and the source is dead; EINVAL
        (arch/x86/kvm/svm/sev.c, b56639318bb2, 0b020f5af092).

        Types are compared since there are several (6.10).
        """
        vm, source = self.vms[vm_nr], self.vms[source_nr]
        if vm_nr == source_nr or vm.es_active or not source.es_active:
            return -EINVAL
        if self.arch_vm_type(vm) != self.arch_vm_type(source):
            return -EINVAL
        ret = self.sev_check_source_vcpus(vm_nr, source_nr)
        if not ret:
            self.sev_migrate_from(vm_nr, source_nr)
            source.vm_dead = 1
        return ret

    @seam
    def arch_vm_type(self, vm: Vm) -> int:
        """kvm->arch.vm_type."""
        return st.VM_DEFAULT if vm.type == st.VM_SEV_ES else vm.type

    def sev_check_source_vcpus(self, vm_nr: int, source_nr: int) -> int:
        """As many vCPUs, and all that have the guest's state sealed: EINVAL (arch/x86/kvm/svm/sev.c)."""
        sources = list(self.vcpus_of(source_nr))
        if len(sources) != len(list(self.vcpus_of(vm_nr))):
            return -EINVAL
        return 0 if all(vcpu.arch.guest_state_protected for vcpu in sources) else -EINVAL

    def sev_migrate_from(self, vm_nr: int, source_nr: int) -> None:
        """need_init is left as it is (arch/x86/kvm/svm/sev.c)."""
        vm, source = self.vms[vm_nr], self.vms[source_nr]
        # of the default type there is but a number that stands for this
        vm.type, vm.es_active, source.es_active = source.type, 1, 0
        for vcpu, source_vcpu in zip(self.vcpus_of(vm_nr), self.vcpus_of(source_nr), strict=True):
            self.sev_migrate_vcpu(vcpu, source_vcpu)

    @phase_of("sev_migrate_from")
    def sev_migrate_vcpu(self, vcpu: Vcpu, source: Vcpu) -> None:
        """The VMSA goes to the vCPU of the same index (arch/x86/kvm/svm/sev.c).

        Nobody calls fpstate_set_confidential(), as at KVM_SEV_LAUNCH_UPDATE_VMSA, or KVM_CREATE_VCPU before 6.10.
        svm_vcpu_after_set_cpuid() has opened IA32_XSS to SEV-ES guests alone (sev_vcpu_after_set_cpuid()).
        """
        assign(vcpu.vmsa, source.vmsa)
        assign(source.vmsa, CpuRegs())
        vcpu.arch.guest_state_protected, source.arch.guest_state_protected = 1, 0
        vcpu.arch.xss_intercept = vcpu.arch.cpuid_set

    @seam
    def vcpu_pre_run(self, vcpu: Vcpu) -> int:
        """svm_vcpu_pre_run(): 1, or EINVAL where KVM_SEV_INIT2 is missing (with the VM types, 6.10)."""
        return -EINVAL if self.vms[vcpu.vm].need_init else 1

    # -- SEV-SNP, of 6.11: nothing below is reached before ---------------------------------------------------------

    def sev_snp_guest(self, vm: Vm) -> bool:
        """Of SNP's type, and not without KVM_SEV_INIT2 (arch/x86/kvm/svm/svm.h)."""
        return vm.type == st.VM_X86_SNP_VM and bool(vm.es_active)

    def snp_launch_start(self, vm: Vm) -> int:
        """KVM_SEV_SNP_LAUNCH_START: ENOTTY, EINVAL where there is a context (arch/x86/kvm/svm/sev.c)."""
        if not self.sev_snp_guest(vm):
            return -ENOTTY
        if vm.snp_context:
            return -EINVAL
        vm.snp_context = st.SNP_LAUNCHING
        return 0

    def snp_launch_finish(self, vm_nr: int) -> int:
        """KVM_SEV_SNP_LAUNCH_FINISH: ENOTTY, EINVAL, EIO; it seals all vCPUs first (arch/x86/kvm/svm/sev.c)."""
        vm = self.vms[vm_nr]
        if not self.sev_snp_guest(vm):
            return -ENOTTY
        if not vm.snp_context:
            return -EINVAL
        ret = self.snp_launch_update_vmsa(vm_nr) or self.snp_firmware_refuses(vm)
        if not ret:
            vm.snp_context = st.SNP_RUNNING
        return ret

    def snp_launch_update_vmsa(self, vm_nr: int) -> int:
        """What a vCPU gives; it does not stop at one that is sealed (arch/x86/kvm/svm/sev.c)."""
        for vcpu in self.vcpus_of(vm_nr):
            if ret := self.snp_launch_update_vcpu(vcpu):
                return ret
        return 0

    @phase_of("snp_launch_update_vmsa")
    def snp_launch_update_vcpu(self, vcpu: Vcpu) -> int:
        """Unlike __sev_launch_update_vmsa() it does not call fpstate_set_confidential() (arch/x86/kvm/svm/sev.c)."""
        ret = self.sev_es_sync_vmsa(vcpu) or self.snp_firmware_refuses(self.vms[vcpu.vm])
        if not ret:
            vcpu.arch.guest_state_protected = 1
        return ret

    @seam
    def snp_firmware_refuses(self, vm: Vm) -> int:
        """EIO: SNP_LAUNCH_UPDATE and SNP_LAUNCH_FINISH are for a guest that was not launched (SEV-SNP ABI, 8.17 and
        8.18)."""
        return -EIO if vm.snp_context == st.SNP_RUNNING else 0

    @seam
    def vmsa_component(self, vcpu: Vcpu, component: int, token: int) -> None:
        """The guest will find that in the component, or in MXCSR."""
        load_component(vcpu.vmsa, component, token)

    @seam
    def vcpu_create_protected(self, vcpu: Vcpu) -> None:
        """svm_vcpu_create(): nobody is to save or restore the FPU of an SEV-ES guest, until eb4441864e03 (6.10)."""
        if self.vms[vcpu.vm].es_active:
            self.deref(vcpu.arch.guest_fpu.fpstate).is_confidential = 1

    @seam
    def has_protected_state(self, vcpu: Vcpu) -> bool:
        """kvm->arch.has_protected_state: ioctls say that they cannot; never before 6.10."""
        return False

    @seam
    def refuses_protected(self, vcpu: Vcpu) -> bool:
        """Whether ioctls on the vCPU's registers are EINVAL."""
        return bool(vcpu.arch.guest_state_protected) and self.has_protected_state(vcpu)

    @seam
    def confidential(self, vcpu: Vcpu) -> int | None:
        """What ioctls on a vCPU's FPU return without doing anything; None: they do something."""
        if not self.deref(vcpu.arch.guest_fpu.fpstate).is_confidential:
            return None
        return -EINVAL if self.has_protected_state(vcpu) else 0

    @seam
    def protected_msr(self, vcpu: Vcpu, index: int) -> int | None:
        """What access to an MSR of a protected guest returns without doing anything; None: it is as that of others."""
        return None

    @seam
    def sev_es_sealed(self, vcpu: Vcpu) -> bool:
        """sev_es_guest(vcpu->kvm) && vcpu->arch.guest_state_protected."""
        return bool(vcpu.arch.guest_state_protected and self.vms[vcpu.vm].es_active)

    @seam
    def vmsa_switches(self, vcpu: Vcpu, index: int) -> bool:
        """!msr_write_intercepted(): IA32_XSS of a guest that has XSAVES (a26b7cd22546), and the MSRs of CET of one that
        has shadow stacks, but IA32_INT_SSP_TAB (38c46bdbf998, 6.18)."""
        if index == MSR_IA32_XSS:
            passed_through = self.machine.has_xsaves and self.guest_cpuid_has_xsaves(vcpu)
            return passed_through and not vcpu.arch.xss_intercept
        return index in CET_MSRS and index != MSR_IA32_INT_SSP_TAB and self.guest_cpu_cap_has_shstk(vcpu)

    def sev_es_sync_from_ghcb(self, vcpu: Vcpu) -> None:
        """XCR0, of which the guest's #VC handler tells KVM where it asks for CPUID (arch/x86/kvm/svm/sev.c)."""
        vcpu.arch.xcr0 = self.ghcb_get_xcr0(vcpu)
        self.kvm_cpuid_runtime_changed(vcpu)

    @seam
    def ghcb_get_xcr0(self, vcpu: Vcpu) -> int:
        """What a Linux guest has written to the GHCB: XGETBV(0), or 1 where that would fault."""
        return vcpu.vmsa.xcr0 if vcpu.arch.cr4_osxsave else xf.MASK_X87

    # -- defined where CPUID is ----------------------------------------------------------------------------------

    @seam
    def guest_cpuid_has_xsaves(self, vcpu: Vcpu) -> bool:
        """guest_cpuid_has(vcpu, X86_FEATURE_XSAVES)."""
        raise NotImplementedError

    @seam
    def guest_cpu_cap_has_xsaves(self, vcpu: Vcpu) -> bool:
        """guest_cpu_cap_has(vcpu, X86_FEATURE_XSAVES)."""
        raise NotImplementedError

    def guest_cpu_cap_has_shstk(self, vcpu: Vcpu) -> bool:
        """guest_cpu_cap_has(vcpu, X86_FEATURE_SHSTK)."""
        raise NotImplementedError

    @seam
    def kvm_cpuid_runtime_changed(self, vcpu: Vcpu) -> None:
        """What KVM keeps up to date in the guest's CPUID no longer is."""
        raise NotImplementedError

    @seam
    def td_xfam(self, vcpu: Vcpu) -> int | None:
        """Which components a TD may use, AVX at most here; None of a vCPU that is no TD's."""
        avx = self.fpu_user_cfg.max_features & (xf.MASK_FPSSE | xf.MASK_YMM)
        return avx if self.vms[vcpu.vm].type == st.VM_X86_TDX_VM else None

    @seam
    def tdx_vcpu_run_exited(self, vcpu: Vcpu) -> None:
        """What KVM does first behind TDH.VP.ENTER; there are no TDs before 6.16."""
