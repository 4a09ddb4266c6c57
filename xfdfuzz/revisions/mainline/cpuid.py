"""What KVM offers to guests, and what their CPUID means."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.kvm.cpuid import KvmCpuid
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.revisions.amx_v6 import AmxV6
from xfdfuzz.revisions.queue import patch


@patch(
    "55cd57b596e8",
    "KVM: x86: Filter out XTILE_CFG if XTILE_DATA isn't permitted",
    version="v6.4",
    fixes=("445ecdf79be0",),
)
class FilteredXcr0(AmxV6):
    """Without the permission for TILEDATA, TILECFG is not offered either."""

    def kvm_get_filtered_xcr0(self) -> int:
        """(x86.h)."""
        permitted = self.supported_xcr0
        if permitted & self.XFEATURE_MASK_USER_DYNAMIC:
            permitted &= self.xstate_get_group_perm(True)
            if not permitted & xf.MASK_XTILE_DATA:
                permitted &= ~xf.MASK_XTILE_CFG
        return permitted

    def supported_cpuid_xcr0(self) -> int:
        """(cpuid.c)."""
        return self.kvm_get_filtered_xcr0()

    def cap_xsave2_xcr0(self) -> int:
        """(x86.c)."""
        return self.kvm_get_filtered_xcr0()


@patch("8f2a27752e80", "KVM: x86: Replace (almost) all guest CPUID feature queries with cpu_caps", version="v6.14")
class GuestCpuCaps(KvmCpuid):
    """A CPUID flag counts for the guest only where KVM supports it (release MEMORY)."""

    def guest_cpuid_has_xfd(self, vcpu: Vcpu) -> bool:
        """guest_cpu_cap_has(vcpu, X86_FEATURE_XFD) (cpuid.h)."""
        return super().guest_cpuid_has_xfd(vcpu) and self.kvm_cpu_cap_has_xfd()
