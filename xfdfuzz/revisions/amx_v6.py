"""amx-v6, "the final patches that I am committing": as posted, and as merged into v5.17.

Source: 20220107185512.25321-1-pbonzini@redhat.com; commits 980fe2fddcff .. 820a6ee944e7.  The buffer grows at
KVM_SET_CPUID2, before the CPUID is committed; nothing is checked when XCR0 or XFD is written, because
guest_supported_xcr0 has a dynamic bit only after the buffer has room for it.  KVM_CAP_XSAVE2 was 207 as posted and is
208 in mainline, which nothing here tells apart.
"""

from __future__ import annotations

from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.base import seam
from xfdfuzz.kernel.errno import EINVAL
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.kvm.xsave import KVM_XSAVE_SIZE
from xfdfuzz.kernel.state import Fpstate, FpuGuest, Vcpu
from xfdfuzz.revisions.amx_series import AmxSeries


class AmxV6(AmxSeries):
    """The sixth posting."""

    revision = "amx-v6"

    # -- FPU core ------------------------------------------------------------------------------------------------

    def fpu_alloc_guest_fpstate(self, gfpu: FpuGuest) -> bool:
        """uabi_size starts as the user default (fpu/core.c, c60427dd50ba)."""
        if not super().fpu_alloc_guest_fpstate(gfpu):
            return False
        self.set_uabi_size(gfpu, self.guest_default_uabi_size())
        return True

    @seam
    def guest_default_uabi_size(self) -> int:
        """Bytes that KVM_{G,S}ET_XSAVE copy for a vCPU without dynamic features: the host's, until d187ba531230."""
        return self.fpu_user_cfg.default_size

    def set_uabi_size(self, guest_fpu: FpuGuest, usize: int) -> None:
        """guest_fpu->uabi_size (c60427dd50ba)."""
        guest_fpu.uabi_size = usize

    def fpu_enable_guest_xfd_features(self, guest_fpu: FpuGuest, xfeatures: int) -> int:
        """Grow the guest's buffer for what it lacks: 0, EPERM, EFAULT (fpu/core.c, 0781d60f658e)."""
        xfeatures &= ~guest_fpu.xfeatures
        if not xfeatures:
            return 0
        return self._xfd_enable_feature(xfeatures, guest_fpu)

    def fpu_update_guest_xfd(self, guest_fpu: FpuGuest, xfd: int) -> None:
        """The guest's XFD changes by emulation or ioctl (fpu/core.c, 8eb9a48ac1e8)."""
        fpstate = self.deref(guest_fpu.fpstate)
        self.fpregs_lock()
        fpstate.xfd = xfd
        if fpstate.in_use:
            self.fpu_update_guest_xfd_in_use(fpstate)
        self.fpregs_unlock()

    @seam
    def fpu_update_guest_xfd_in_use(self, fpstate: Fpstate) -> None:
        """The guest's fpstate is current's, so the MSR follows; whether the registers are its own is not asked."""
        self.xfd_update_state(fpstate)

    def fpu_sync_guest_vmexit_xfd_state(self) -> None:
        """The guest may have written XFD without an exit: take over what is there (fpu/core.c, 5429cead0119)."""
        fps = self.deref(self.current.fpu.fpstate)
        if self.fpu_state_size_dynamic:
            fps.xfd = self.rdmsrl(MSR_IA32_XFD)
            self.this_cpu.xfd_state = fps.xfd

    # -- CPUID ---------------------------------------------------------------------------------------------------

    def supported_cpuid_xcr0(self) -> int:
        """Leaf 0xD.0 without what the process may not give to guests (cpuid.c, 445ecdf79be0)."""
        return self.supported_xcr0 & self.xstate_get_group_perm(True)

    def kvm_check_cpuid(self, vcpu: Vcpu, entries: CpuidEntries) -> int:
        """Expand the buffer for the dynamic bits of leaf 0xD.0, before the commit (cpuid.c, 5ab2f45bba48)."""
        xfeatures = entries.xcr0 & self.XFEATURE_MASK_USER_DYNAMIC
        if not xfeatures:
            return 0
        return self.fpu_enable_guest_xfd_features(vcpu.arch.guest_fpu, xfeatures)

    # -- MSRs ----------------------------------------------------------------------------------------------------

    def kvm_guest_supported_xfd(self, vcpu: Vcpu) -> int:
        """kvm_guest_supported_xfd() (x86.c)."""
        return self.kvm_guest_supported_xcr0(vcpu) & self.XFEATURE_MASK_USER_DYNAMIC

    def kvm_set_msr_common(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        """IA32_XFD (820a6ee944e7) and IA32_XFD_ERR (548e83650a51): same rules, 1 when refused (x86.c)."""
        if not host_initiated and not self.guest_cpuid_has_xfd(vcpu):
            return 1
        if data & ~self.kvm_guest_supported_xfd(vcpu):
            return 1
        if index == MSR_IA32_XFD:
            self.fpu_update_guest_xfd(vcpu.arch.guest_fpu, data)
        else:
            vcpu.arch.guest_fpu.xfd_err = data
        return 0

    def kvm_get_msr_common(self, vcpu: Vcpu, index: int, host_initiated: bool) -> tuple[int, int]:
        """User space may always read both (x86.c, 820a6ee944e7 and 548e83650a51)."""
        if not host_initiated and not self.guest_cpuid_has_xfd(vcpu):
            return 1, 0
        gfpu = vcpu.arch.guest_fpu
        return 0, self.guest_xfd(gfpu) if index == MSR_IA32_XFD else gfpu.xfd_err

    def kvm_probe_msr_to_save(self, index: int) -> bool:
        """Both, where KVM offers XFD (x86.c, 820a6ee944e7 and 548e83650a51)."""
        return index in (MSR_IA32_XFD, MSR_IA32_XFD_ERR) and self.kvm_cpu_cap_has_xfd()

    # -- VMX -----------------------------------------------------------------------------------------------------

    def kvm_x86_set_msr(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        """The first non-zero XFD ends its interception for good, and #NM is trapped instead (vmx.c, b5274b1b7ba8)."""
        ret = super().kvm_x86_set_msr(vcpu, index, data, host_initiated)
        if index == MSR_IA32_XFD and not ret and data:
            vcpu.arch.xfd_read_intercept = vcpu.arch.xfd_write_intercept = 0
            vcpu.arch.xfd_no_write_intercept = 1
            self.vmx_update_exception_bitmap(vcpu)
        return ret

    def kvm_x86_vcpu_after_set_cpuid(self, vcpu: Vcpu) -> None:
        """A guest with XFD reads XFD_ERR without an exit (vmx.c, 61f208134a87)."""
        if self.kvm_cpu_cap_has_xfd():
            vcpu.arch.xfd_err_read_intercept = not self.guest_cpuid_has_xfd(vcpu)
        super().kvm_x86_vcpu_after_set_cpuid(vcpu)

    def vmx_update_exception_bitmap(self, vcpu: Vcpu) -> None:
        """#NM exits as soon as XFD writes do not (vmx.c, ec5be88ab29f)."""
        vcpu.arch.nm_intercept = vcpu.arch.xfd_no_write_intercept

    def handle_exception_nmi_irqoff(self, vcpu: Vcpu) -> None:
        """#NM: save XFD_ERR before the host can clobber it (vmx.c, handle_nm_fault_irqoff(), ec5be88ab29f)."""
        if self.is_xfd_nm_fault(vcpu):
            vcpu.arch.guest_fpu.xfd_err = self.rdmsrl(MSR_IA32_XFD_ERR)

    def is_xfd_nm_fault(self, vcpu: Vcpu) -> bool:
        """Whether XFD can be the cause: not zero (vmx.c, handle_nm_fault_irqoff(), ec5be88ab29f)."""
        return bool(self.deref(vcpu.arch.guest_fpu.fpstate).xfd)

    def handle_exception_nmi(self, vcpu: Vcpu) -> int:
        """Queue the #NM here, not with interrupts off, so that L1 can have it first (vmx.c, ec5be88ab29f)."""
        self.kvm_queue_exception(vcpu, st.NM_VECTOR)
        return 1

    # -- entry and exit ------------------------------------------------------------------------------------------

    def vcpu_enter_guest_xfd_err(self, vcpu: Vcpu) -> None:
        """XFD_ERR goes in if it is not 0 (x86.c, ec5be88ab29f)."""
        if vcpu.arch.guest_fpu.xfd_err:
            self.wrmsrl(MSR_IA32_XFD_ERR, vcpu.arch.guest_fpu.xfd_err)

    def vcpu_exited_before_irqoff(self, vcpu: Vcpu) -> None:
        """XFD is synchronised before a handler can look at it (x86.c, b5274b1b7ba8)."""
        if vcpu.arch.xfd_no_write_intercept:
            self.fpu_sync_guest_vmexit_xfd_state()

    def vcpu_exited_after_irqoff(self, vcpu: Vcpu) -> None:
        """XFD_ERR is 0 in the host (x86.c, ec5be88ab29f)."""
        if vcpu.arch.guest_fpu.xfd_err:
            self.wrmsrl(MSR_IA32_XFD_ERR, 0)

    # -- XSAVE ioctls --------------------------------------------------------------------------------------------

    def kvm_vcpu_ioctl_x86_get_xsave(self, vcpu: Vcpu) -> tuple[int, XsaveArea | None]:
        """EINVAL once the image is larger than struct kvm_xsave (x86.c, be50b2065dfa)."""
        if vcpu.arch.guest_fpu.uabi_size > KVM_XSAVE_SIZE:
            return -EINVAL, None
        return super().kvm_vcpu_ioctl_x86_get_xsave(vcpu)

    def kvm_vcpu_ioctl_x86_get_xsave2(self, vcpu: Vcpu) -> tuple[int, XsaveArea | None]:
        """uabi_size bytes (x86.c, be50b2065dfa)."""
        return self.kvm_read_xsave(vcpu, vcpu.arch.guest_fpu.uabi_size)

    def kvm_set_xsave_size(self, vcpu: Vcpu) -> int:
        """uabi_size bytes (x86.c, be50b2065dfa)."""
        return vcpu.arch.guest_fpu.uabi_size

    def kvm_vm_ioctl_check_extension_xsave2(self, vm: int | None) -> int:
        """At least 4096; what the process may give to guests decides, not what a vCPU has (x86.c, be50b2065dfa)."""
        return max(KVM_XSAVE_SIZE, self.machine.cpuid.standard_size(self.cap_xsave2_xcr0()))

    @seam
    def cap_xsave2_xcr0(self) -> int:
        """The components that KVM_CAP_XSAVE2 counts."""
        return self.supported_xcr0 & self.xstate_get_group_perm(True)
