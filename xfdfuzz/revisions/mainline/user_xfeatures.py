"""Which components KVM_GET_XSAVE shows and KVM_SET_XSAVE takes: limited to the guest's CPUID, and given free again."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.kvm.cpuid import KvmCpuid
from xfdfuzz.kernel.kvm.xsave import KvmXsave
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.revisions.queue import patch


@patch(
    "ad856280ddea",
    "x86/kvm/fpu: Limit guest user_xfeatures to supported bits of XCR0",
    version="v5.17",
)
class LimitUserXfeatures(KvmCpuid):
    """The fpstate's user_xfeatures follow the guest's CPUID, so KVM_GET_XSAVE does not show what only the host has."""

    def kvm_limit_user_xfeatures(self, vcpu: Vcpu) -> None:
        """(cpuid.c, kvm_vcpu_after_set_cpuid())."""
        self.deref(vcpu.arch.guest_fpu.fpstate).user_xfeatures = vcpu.arch.guest_supported_xcr0


@patch(
    "988896bb6182",
    "x86/kvm/fpu: Remove kvm_vcpu_arch.guest_supported_xcr0",
    version="v5.17",
    neutral="a clean-up",
)
class UserXfeaturesAreSupported(KvmCpuid):
    """user_xfeatures is what the guest may set in XCR0, from creation on: before KVM_SET_CPUID2 the host's defaults."""

    def kvm_guest_supported_xcr0(self, vcpu: Vcpu) -> int:
        """(x86.c)."""
        return self.deref(vcpu.arch.guest_fpu.fpstate).user_xfeatures


@patch(
    "ee519b3a2ae3",
    "KVM: x86: Reinstate kvm_vcpu_arch.guest_supported_xcr0",
    version="v6.0",
    neutral="preparation of a1020a25e697",
)
class SupportedXcr0Again(KvmCpuid):
    """XCR0 is held against the guest's CPUID again; preparation of a1020a25e697."""

    def kvm_guest_supported_xcr0(self, vcpu: Vcpu) -> int:
        """(x86.c)."""
        return vcpu.arch.guest_supported_xcr0


@patch(
    "a1020a25e697",
    "KVM: x86: Always enable legacy FP/SSE in allowed user XFEATURES",
    version="v6.0",
    fixes=("ad856280ddea",),
)
class AlwaysFpSse(KvmCpuid):
    """x87 and SSE are in user_xfeatures even if the guest has no XSAVE."""

    def kvm_limit_user_xfeatures(self, vcpu: Vcpu) -> None:
        """(cpuid.c, kvm_vcpu_after_set_cpuid())."""
        super().kvm_limit_user_xfeatures(vcpu)
        self.deref(vcpu.arch.guest_fpu.fpstate).user_xfeatures |= xf.MASK_FPSSE


@patch(
    "8647c52e9504",
    "KVM: x86: Constrain guest-supported xfeatures only at KVM_GET_XSAVE{2}",
    version="v6.6",
    fixes=("ad856280ddea",),
    stable=("..v6.1.192",),
)
class GetXsaveLimited(KvmXsave):
    """KVM_SET_XSAVE takes whatever the host supports again; with 18164f66e6c5, which it uses."""

    def kvm_limit_user_xfeatures(self, vcpu: Vcpu) -> None:
        """Nothing (cpuid.c)."""

    def kvm_get_xsave_features(self, vcpu: Vcpu) -> int:
        """guest_supported_xcr0, and x87 and SSE for guests without XSAVE (x86.c)."""
        return vcpu.arch.guest_supported_xcr0 | xf.MASK_FPSSE
