"""KVM_GET_MSRS and KVM_SET_MSRS, and the MSRs of supervisor state (arch/x86/kvm/x86.c, v5.16; CET as in v6.18)."""

from __future__ import annotations

from xfdfuzz.arch.registers import (
    CET_MSRS,
    MSR_IA32_INT_SSP_TAB,
    MSR_IA32_S_CET,
    MSR_IA32_U_CET,
    MSR_IA32_XSS,
    TOKEN_MAX,
    XSTATE_MSRS,
)
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.errno import EINVAL
from xfdfuzz.kernel.kvm.xsave import KvmXsave
from xfdfuzz.kernel.state import Vcpu

#: "No such MSR" (arch/x86/kvm/x86.h); KVM_MSR_RET_UNSUPPORTED since 6.13.
KVM_MSR_RET_INVALID = 2
#: What SSP is inside KVM, which only KVM_GET_ONE_REG and KVM_SET_ONE_REG get to (arch/x86/kvm/x86.h).
MSR_KVM_INTERNAL_GUEST_SSP = 0x4B564DFF
#: The types of their registers, and the only one of KVM's own (arch/x86/include/uapi/asm/kvm.h).
KVM_X86_REG_TYPE_MSR, KVM_X86_REG_TYPE_KVM = 2, 3
KVM_REG_GUEST_SSP = 0
#: What of CET the VMCS, or VMCB, has: its field, by MSR.
_VMCS_FIELDS = {MSR_IA32_S_CET: "s_cet", MSR_IA32_INT_SSP_TAB: "int_ssp_tab", MSR_KVM_INTERNAL_GUEST_SSP: "ssp"}


class KvmMsrs(KvmXsave):
    """MSR access from user space, and loading the guest FPU."""

    # -- vendor calls, defined by vmx.c ------------------------------------------------------------------------------

    def kvm_x86_set_msr(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        """vmx_set_msr()."""
        raise NotImplementedError

    def kvm_x86_get_msr(self, vcpu: Vcpu, index: int, host_initiated: bool) -> tuple[int, int]:
        """vmx_get_msr()."""
        raise NotImplementedError

    # -- the guest FPU -----------------------------------------------------------------------------------------------

    def kvm_load_guest_fpu(self, vcpu: Vcpu) -> None:
        """Swap the user FPU context for the guest's."""
        self.fpu_swap_kvm_fpstate(vcpu.arch.guest_fpu, True)

    def kvm_put_guest_fpu(self, vcpu: Vcpu) -> int:
        """Swap back."""
        return self.fpu_swap_kvm_fpstate(vcpu.arch.guest_fpu, False)

    def kvm_bug_on(self, vcpu: Vcpu, condition: object) -> bool:
        """KVM_BUG_ON(): warn, and refuse every later ioctl (include/linux/kvm_host.h)."""
        vm = self.vms[vcpu.vm]
        if self.warn_on(condition and not vm.vm_bugged):
            vm.vm_bugged = 1
        return bool(condition)

    # -- KVM_SET_MSRS and KVM_GET_MSRS -------------------------------------------------------------------------------

    @phase_of("msr_io")
    def kvm_set_msrs(self, vcpu: Vcpu, entries: tuple[tuple[int, int], ...]) -> int:
        """KVM_SET_MSRS: how many entries were taken before the first that was refused (__msr_io())."""
        loaded = False
        taken = 0
        for index, data in entries:
            loaded = loaded or self.msr_io_load_fpu(vcpu, index)
            if self.kvm_set_msr_ignored_check(vcpu, index, data, True):
                break
            taken += 1
        if loaded:
            self.kvm_put_guest_fpu(vcpu)
        return taken

    @phase_of("msr_io")
    def kvm_get_msrs(self, vcpu: Vcpu, index: int) -> tuple[int, int]:
        """KVM_GET_MSRS with one entry: the count, 0 or 1, and the value."""
        loaded = self.msr_io_load_fpu(vcpu, index)
        r, data = self.kvm_get_msr_ignored_check(vcpu, index, True)
        if loaded:
            self.kvm_put_guest_fpu(vcpu)
        return (0, 0) if r else (1, data)

    @seam
    def msr_io_load_fpu(self, vcpu: Vcpu, index: int) -> bool:
        """Whether the guest FPU was loaded for access to this MSR: never, until e44eb58334bb."""
        return False

    # -- KVM_GET_ONE_REG, KVM_SET_ONE_REG and KVM_GET_REG_LIST -------------------------------------------------------

    @seam
    def kvm_get_set_one_reg(self, vcpu: Vcpu, reg_type: int, index: int, write: int | None) -> tuple[int, int]:
        """Both ioctls, the second one with what to ``write``: of x86 there is no register until 06f2969c6a12 (x86.c,
        kvm_arch_vcpu_ioctl())."""
        return -EINVAL, 0

    def kvm_get_reg_list(self, vcpu: Vcpu, room: int) -> tuple[int, int]:
        """KVM_GET_REG_LIST with room for so many, and how many there are: no such ioctl until 06f2969c6a12 (x86.c)."""
        return -EINVAL, 0

    @seam
    def kvm_translate_kvm_reg(self, vcpu: Vcpu, index: int) -> tuple[int, int, int]:
        """Of a register of KVM's own, 0 and what it is, by type and index: there is none until 9d6812d41535 (x86.c)."""
        return -EINVAL, 0, 0

    @seam
    def kvm_nr_regs(self, vcpu: Vcpu) -> int:
        """How many of those a guest has."""
        return 0

    # -- supervisor state --------------------------------------------------------------------------------------------

    @seam
    def guest_has_cet_msr(self, vcpu: Vcpu, index: int) -> bool:
        """Which feature an MSR of CET belongs to: IBT has IA32_U_CET and IA32_S_CET, shadow stacks have all (x86.c,
        __kvm_set_msr(), __kvm_get_msr())."""
        by_ibt = index in (MSR_IA32_U_CET, MSR_IA32_S_CET) and self.guest_cpu_cap_has_ibt(vcpu)
        return by_ibt or self.guest_cpu_cap_has_shstk(vcpu)

    @seam
    def kvm_set_msr_ignored_check(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        """__kvm_set_msr(), and that user space may write 0 to what KVM lists (kvm_do_msr_access()); ignore_msrs is not
        set.

        What an MSR of CET cannot hold, by its reserved bits, alignment or as an address, is one value here.
        """
        if index in CET_MSRS or index == MSR_KVM_INTERNAL_GUEST_SSP:
            if not self.guest_has_cet_msr(vcpu, index):
                listed = host_initiated and not data and self.kvm_probe_msr_to_save(index)
                return 0 if listed else KVM_MSR_RET_INVALID
            if data > TOKEN_MAX:
                return 1
        return self.kvm_x86_set_msr(vcpu, index, data, host_initiated)

    @seam
    def kvm_get_msr_ignored_check(self, vcpu: Vcpu, index: int, host_initiated: bool) -> tuple[int, int]:
        """The same for reading: __kvm_get_msr()."""
        cet = index in CET_MSRS or index == MSR_KVM_INTERNAL_GUEST_SSP
        if cet and not self.guest_has_cet_msr(vcpu, index):
            listed = host_initiated and self.kvm_probe_msr_to_save(index)
            return 0 if listed else KVM_MSR_RET_INVALID, 0
        return self.kvm_x86_get_msr(vcpu, index, host_initiated)

    def is_xstate_managed_msr(self, vcpu: Vcpu, index: int) -> bool:
        """The MSR is part of a state component that this guest has (x86.c, e44eb58334bb).

        "Note, S_CET is _not_ saved/restored via XSAVES/XRSTORS."
        """
        return index in XSTATE_MSRS and self.guest_has_cet_msr(vcpu, index)

    @phase_of("kvm_set_msr_common")
    def kvm_set_supervisor_msr(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        """IA32_XSS, and the MSRs of CET: those of its components, and what vmx_set_msr() writes to the VMCS."""
        if index == MSR_IA32_XSS:
            return self.kvm_set_xss(vcpu, data, host_initiated)
        if index in _VMCS_FIELDS:
            setattr(vcpu.arch.vmcs, _VMCS_FIELDS[index], data)
            return 0
        self.kvm_access_xstate_msr(vcpu)
        self.wrmsrl(index, data)
        self.kvm_fpu_put()
        return 0

    @seam
    def kvm_set_xss(self, vcpu: Vcpu, data: int, host_initiated: bool) -> int:
        """MSR_IA32_XSS in kvm_set_msr_common(): what the guest's CPUID has, so 0 until 69cc3e886582."""
        if not host_initiated and not self.guest_has_xss(vcpu):
            return 1
        if data & ~vcpu.arch.guest_supported_xss:
            return 1
        if vcpu.arch.ia32_xss != data:
            vcpu.arch.ia32_xss = data
            self.kvm_cpuid_runtime_changed(vcpu)
        return 0

    @seam
    def guest_has_xss(self, vcpu: Vcpu) -> bool:
        """guest_cpuid_has(vcpu, X86_FEATURE_XSAVES) in kvm_set_msr_common() and kvm_get_msr_common()."""
        return bool(vcpu.arch.cpuid_xcr0) and self.guest_cpuid_has_xsaves(vcpu)

    @phase_of("kvm_get_msr_common")
    def kvm_get_supervisor_msr(self, vcpu: Vcpu, index: int, host_initiated: bool) -> tuple[int, int]:
        """The same for reading."""
        if index == MSR_IA32_XSS:
            if not host_initiated and not self.guest_has_xss(vcpu):
                return 1, 0
            return 0, vcpu.arch.ia32_xss
        if index in _VMCS_FIELDS:
            return 0, getattr(vcpu.arch.vmcs, _VMCS_FIELDS[index])
        self.kvm_access_xstate_msr(vcpu)
        data = self.rdmsrl(index)
        self.kvm_fpu_put()
        return 0, data

    def kvm_access_xstate_msr(self, vcpu: Vcpu) -> None:
        """From kvm_fpu_get() to kvm_fpu_put() the registers are current's; the MSR is accessed in hardware (x86.c)."""
        self.kvm_fpu_get()

    def kvm_fpu_get(self) -> None:
        """(arch/x86/kvm/fpu.h)."""
        self.fpregs_lock()
        self.fpregs_assert_state_consistent()
        if self.current.tif_need_fpu_load:
            self.switch_fpu_return()

    def kvm_fpu_put(self) -> None:
        """(arch/x86/kvm/fpu.h)."""
        self.fpregs_unlock()
