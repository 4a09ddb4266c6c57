"""amx-v2, "[PATCH v2 00/23] AMX Support in KVM" of 17 December 2021: what amx-v3 replaced, put back.

Source: 20211217153003.1719189-1-jing2.liu@intel.com (patch n of the series is ...1719189-<n+1>-...), read in the
archive; of patch 01 only what 8735mrcbpd.ffs@tglx quotes.
"""

from __future__ import annotations

from xfdfuzz.arch.registers import MSR_IA32_XFD
from xfdfuzz.kernel.base import phase_of
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.revisions.amx_series import UninitialisedResult
from xfdfuzz.revisions.amx_v3 import AmxV3


class AmxV2(UninitialisedResult, AmxV3):
    """The second posting, "not intended for acceptance"."""

    revision = "amx-v2"

    # -- interception ----------------------------------------------------------------------------------------------

    def kvm_set_msr_common(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        """The first non-zero XFD ends its interception (x86.c, patch 22)."""
        ret = super().kvm_set_msr_common(vcpu, index, data, host_initiated)
        if index == MSR_IA32_XFD and not ret and data:
            self.vmx_set_xfd_passthrough(vcpu)
        return ret

    def vmx_set_xfd_passthrough(self, vcpu: Vcpu) -> None:
        """XFD and, for reading, XFD_ERR (vmx.c, patches 22 and 23)."""
        vcpu.arch.xfd_read_intercept = vcpu.arch.xfd_write_intercept = 0
        vcpu.arch.xfd_err_read_intercept = 0
        vcpu.arch.xfd_no_write_intercept = 1

    @phase_of("vmx_set_msr")
    def kvm_x86_set_msr(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        """Not changed by this posting (vmx.c, v5.16)."""
        return Kernel.kvm_x86_set_msr(self, vcpu, index, data, host_initiated)

    @phase_of("vmx_vcpu_after_set_cpuid")
    def kvm_x86_vcpu_after_set_cpuid(self, vcpu: Vcpu) -> None:
        """Not changed by this posting (vmx.c, v5.16)."""
        Kernel.kvm_x86_vcpu_after_set_cpuid(self, vcpu)

    def vmx_update_exception_bitmap(self, vcpu: Vcpu) -> None:
        """#NM exits when the guest may have any dynamic feature (vmx.c, patch 13)."""
        vcpu.arch.nm_intercept = bool(vcpu.arch.guest_supported_xcr0 & self.XFEATURE_MASK_USER_DYNAMIC)

    # -- XSAVE ioctls --------------------------------------------------------------------------------------------

    def xsave2_size(self, vcpu: Vcpu) -> int:
        """uabi_size as it is (x86.c, patch 18)."""
        return vcpu.arch.guest_fpu.uabi_size
