"""KVM_GET_MSRS and KVM_SET_MSRS, and the MSRs of supervisor state (arch/x86/kvm/x86.c, v5.16; CET as in v6.18)."""

from __future__ import annotations

from xfdfuzz.arch.registers import MSR_IA32_XSS, TOKEN_MAX, XSTATE_MSRS
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.kvm.xsave import KvmXsave
from xfdfuzz.kernel.state import Vcpu

#: "No such MSR" (arch/x86/kvm/x86.h).
KVM_MSR_RET_INVALID = 2


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
            if self.kvm_x86_set_msr(vcpu, index, data, True):
                break
            taken += 1
        if loaded:
            self.kvm_put_guest_fpu(vcpu)
        return taken

    @phase_of("msr_io")
    def kvm_get_msrs(self, vcpu: Vcpu, index: int) -> tuple[int, int]:
        """KVM_GET_MSRS with one entry: the count, 0 or 1, and the value."""
        loaded = self.msr_io_load_fpu(vcpu, index)
        r, data = self.kvm_x86_get_msr(vcpu, index, True)
        if loaded:
            self.kvm_put_guest_fpu(vcpu)
        return (0, 0) if r else (1, data)

    @seam
    def msr_io_load_fpu(self, vcpu: Vcpu, index: int) -> bool:
        """Whether the guest FPU was loaded for access to this MSR: never, until e44eb58334bb."""
        return False

    # -- supervisor state --------------------------------------------------------------------------------------------

    def is_xstate_managed_msr(self, vcpu: Vcpu, index: int) -> bool:
        """The MSR is part of a state component that this guest has (x86.c, e44eb58334bb)."""
        return index in XSTATE_MSRS and self.guest_cpu_cap_has_shstk(vcpu)

    @phase_of("kvm_set_msr_common")
    def kvm_set_supervisor_msr(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        """IA32_XSS, and the CET MSRs of guests that have CET; user space may write 0 to what KVM lists."""
        if index == MSR_IA32_XSS:
            return self.kvm_set_xss(vcpu, data, host_initiated)
        if not self.guest_cpu_cap_has_shstk(vcpu):
            listed = host_initiated and not data and self.kvm_probe_msr_to_save(index)
            return 0 if listed else KVM_MSR_RET_INVALID
        if data > TOKEN_MAX:
            return 1
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
        if not self.guest_cpu_cap_has_shstk(vcpu):
            listed = host_initiated and self.kvm_probe_msr_to_save(index)
            return 0 if listed else KVM_MSR_RET_INVALID, 0
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
