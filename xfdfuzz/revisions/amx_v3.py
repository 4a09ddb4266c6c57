"""amx-v3, "[PATCH v3 00/22] AMX Support in KVM" of 22 December 2021: what amx-v4 replaced, put back.

Source: 20211222124052.644626-1-jing2.liu@intel.com (patch n of the series is ...644626-<n+1>-...), read in the archive
but for patch 01.  ``trap_nm`` and ``xfd_out_of_sync`` are set together and never cleared: the model has the one flag of
amx-v4 for both.
"""

from __future__ import annotations

from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.errno import ENXIO
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.revisions.amx_v4 import AmxV4


class AmxV3(AmxV4):
    """The third posting."""

    revision = "amx-v3"

    def kvm_check_cpuid(self, vcpu: Vcpu, entries: CpuidEntries) -> int:
        """The permission only (cpuid.c, patch 05)."""
        return -ENXIO if entries.xcr0 & ~vcpu.arch.guest_fpu.perm else 0

    def kvm_vcpu_after_set_cpuid(self, vcpu: Vcpu) -> int:
        """Grow the buffer after the commit; a failure skips the rest (cpuid.c, patch 09).

        kvm_vcpu_ioctl_set_cpuid2() frees the array on any error, also when the vCPU points to it already.
        """
        arch = vcpu.arch
        arch.guest_supported_xcr0 = arch.cpuid_xcr0 & self.supported_xcr0
        if arch.cpuid_xcr0 != arch.guest_fpu.xfeatures:
            ret = self.fpu_update_guest_perm_features(arch.guest_fpu)
            if ret:
                arch.cpuid_freed = 1
                return ret
        self.kvm_x86_vcpu_after_set_cpuid(vcpu)
        return 0

    def kvm_vcpu_ioctl_x86_get_xsave(self, vcpu: Vcpu) -> tuple[int, XsaveArea | None]:
        """4096 bytes, however large the image is: EINVAL came with amx-v4 (x86.c, v5.16)."""
        return Kernel.kvm_vcpu_ioctl_x86_get_xsave(self, vcpu)
