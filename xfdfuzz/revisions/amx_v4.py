"""amx-v4, "[PATCH v4 00/21] AMX Support in KVM" of 29 December 2021: what amx-v5 replaced, put back.

Source: 20211229131328.12283-1-yang.zhong@intel.com (patch n of the series is ...12283-<n+1>-...), read in the archive.
"""

from __future__ import annotations

from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.errno import ENXIO
from xfdfuzz.kernel.event import NULL_DEREF
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.kvm.xsave import KVM_XSAVE_SIZE
from xfdfuzz.kernel.state import NULL, FpuGuest, Vcpu
from xfdfuzz.revisions.amx_v6 import AmxV6


class AmxV4(AmxV6):
    """The fourth posting."""

    revision = "amx-v4"

    # -- growth --------------------------------------------------------------------------------------------------

    def fpu_update_guest_perm_features(self, guest_fpu: FpuGuest) -> int:
        """Grow the buffer for all that is permitted, not just for what CPUID gives (fpu/core.c, patch 07)."""
        expand = guest_fpu.perm & ~guest_fpu.xfeatures
        if not expand:
            return 0
        return self._xfd_enable_feature(expand, guest_fpu)

    def kvm_check_cpuid(self, vcpu: Vcpu, entries: CpuidEntries) -> int:
        """Every component of leaf 0xD.0 needs the permission, or ENXIO; then grow (cpuid.c, patch 08)."""
        gfpu = vcpu.arch.guest_fpu
        if entries.xcr0 & ~gfpu.perm:
            return -ENXIO
        if entries.xcr0 != gfpu.xfeatures:
            return self.fpu_update_guest_perm_features(gfpu)
        return 0

    # -- #NM -----------------------------------------------------------------------------------------------------

    def is_xfd_nm_fault(self, vcpu: Vcpu) -> bool:
        """XFD_ERR is read after every #NM (vmx.c, handle_nm_fault_irqoff(), patch 12)."""
        return True

    def handle_exception_nmi_irqoff(self, vcpu: Vcpu) -> None:
        """The #NM is queued there too, with interrupts off (vmx.c, handle_nm_fault_irqoff(), patch 12)."""
        super().handle_exception_nmi_irqoff(vcpu)
        self.kvm_queue_exception(vcpu, st.NM_VECTOR)

    def handle_exception_nmi(self, vcpu: Vcpu) -> int:
        """Handled by handle_exception_nmi_irqoff() (vmx.c, patch 12)."""
        return 1

    # -- exit ----------------------------------------------------------------------------------------------------

    def vcpu_exited_before_irqoff(self, vcpu: Vcpu) -> None:
        """XFD is not synchronised yet when the handlers run (x86.c, patch 21)."""

    def vcpu_exited_after_irqoff(self, vcpu: Vcpu) -> None:
        """XFD_ERR (patch 12), then XFD (x86.c, patch 21)."""
        super().vcpu_exited_after_irqoff(vcpu)
        if vcpu.arch.xfd_no_write_intercept:
            self.fpu_sync_guest_vmexit_xfd_state()

    # -- XSAVE ioctls --------------------------------------------------------------------------------------------

    @phase_of("kvm_vm_ioctl_check_extension")
    def kvm_vm_ioctl_check_extension_xsave2(self, vm: int | None) -> int:
        """The size of the VM's first vCPU, which need not be there, nor need the VM (x86.c, patch 18)."""
        vcpu = NULL if vm is None else self.vms[vm].vcpus_0
        if vcpu == NULL:
            self.die(NULL_DEREF)
        return self.xsave2_size(self.vcpus[vcpu - 1])

    @seam
    def xsave2_size(self, vcpu: Vcpu) -> int:
        """At least struct kvm_xsave (x86.c, patch 18)."""
        return max(KVM_XSAVE_SIZE, vcpu.arch.guest_fpu.uabi_size)
