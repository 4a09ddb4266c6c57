"""What the review of amx-v1 proposed instead, 13 December 2021; none of it was posted as a series.

Source: dae6cc09-2464-f1f5-c909-2374d33c75b5@redhat.com (a) and 16c938e2-2427-c8dd-94a1-eba8f967283b@redhat.com (b and
c). The mails give the changed lines only; what surrounds them is amx-v1's.  INFERRED, because the mails do not say it:
a write from user space is carried out at once and its request waits for the next put; KVM_SET_XCRS notes no request,
as in amx-v1.
"""

from __future__ import annotations

from xfdfuzz.arch.registers import MSR_IA32_XFD
from xfdfuzz.kernel.base import seam
from xfdfuzz.kernel.kvm.msrs import KVM_MSR_RET_INVALID
from xfdfuzz.kernel.state import FpuGuest, Vcpu
from xfdfuzz.revisions.amx_series import AmxSeries
from xfdfuzz.revisions.amx_v1 import KVM_MSR_RET_USERSPACE, AmxV1


class AmxReviewA(AmxV1):
    """The request moves to vcpu->arch and kvm_put_guest_fpu() serves it; nothing clears it."""

    revision = "amx-review-a"

    def fpu_guest_realloc_fpstate(self, guest_fpu: FpuGuest, enter_guest: bool) -> int:
        """Gone: "there is no need for fpu_guest_realloc_fpstate"; gfpu->realloc_request is never set."""
        return 0

    def note_realloc_request(self, vcpu: Vcpu, request: int) -> None:
        """vcpu->arch.xfd_realloc_request |= missing."""
        vcpu.arch.xfd_realloc_request |= request & ~vcpu.arch.guest_fpu.xfeatures

    def kvm_put_guest_fpu(self, vcpu: Vcpu) -> int:
        """Enable what is requested, while the guest's fpstate is still current's, then swap."""
        ret = 0
        request = vcpu.arch.xfd_realloc_request
        if request:
            ret = self._xfd_enable_feature(request, vcpu.arch.guest_fpu)
            self.served_realloc_request(vcpu, ret)
        super().kvm_put_guest_fpu(vcpu)
        return ret

    @seam
    def served_realloc_request(self, vcpu: Vcpu, ret: int) -> None:
        """The review: "Also what clears the reallocation request" - "Nothing"."""

    def kvm_set_xfd(self, vcpu: Vcpu, data: int, host_initiated: bool) -> int:
        """The guest's fpstate takes the value; only a guest's own write exits (INFERRED, see above)."""
        if self.kvm_check_guest_realloc_fpstate(vcpu, data) and not host_initiated:
            self.exit_fpu_realloc(vcpu)
            return KVM_MSR_RET_USERSPACE
        self.write_guest_xfd(vcpu, data)
        return 0

    @seam
    def write_guest_xfd(self, vcpu: Vcpu, data: int) -> None:
        """The value belongs "in vcpu->arch.guest_fpu" (022620db-13ad-8118-5296-ae2913d41f1f@redhat.com)."""
        fpstate = self.deref(vcpu.arch.guest_fpu.fpstate)
        self.fpregs_lock()
        fpstate.xfd = data
        if fpstate.in_use:
            self.xfd_update_state(fpstate)
        self.fpregs_unlock()


class AmxReviewB(AmxReviewA):
    """The same, and the request is cleared when it was served."""

    revision = "amx-review-b"

    def served_realloc_request(self, vcpu: Vcpu, ret: int) -> None:
        """if (!ret) vcpu->arch.xfd_realloc_request = 0."""
        if not ret:
            vcpu.arch.xfd_realloc_request = 0


class AmxReviewC(AmxReviewA):
    """No request at all: the write itself allocates, and fails if it cannot."""

    revision = "amx-review-c"

    def kvm_set_msr_common(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        """The review: "after all the validity checks"; user space needs no CPUID bit, the mask is the guest's."""
        if index != MSR_IA32_XFD:
            return KVM_MSR_RET_INVALID
        if not host_initiated and not self.guest_cpuid_has_xfd(vcpu):
            return 1
        if data & ~(self.kvm_guest_supported_xcr0(vcpu) & self.XFEATURE_MASK_USER_DYNAMIC):
            return 1
        return self.kvm_set_xfd(vcpu, data, host_initiated)

    def kvm_set_xfd(self, vcpu: Vcpu, data: int, host_initiated: bool) -> int:
        """Allocate, and only then write; an error fails the ioctl or is a #GP."""
        if self.fpu_guest_alloc_xfeatures(vcpu.arch.guest_fpu, vcpu.arch.xcr0 & ~data) < 0:
            return 1
        self.write_guest_xfd(vcpu, data)
        return 0

    def kvm_set_xcr_tail(self, vcpu: Vcpu, xcr0: int) -> int:
        """The review: "The same code works for __kvm_set_xcr as well"; the tile rule is looked at first."""
        if self.legal_tile_pair(xcr0) and self.fpu_guest_alloc_xcr0(vcpu.arch.guest_fpu, xcr0) < 0:
            return 1
        return super().kvm_set_xcr_tail(vcpu, xcr0)

    @seam
    def fpu_guest_alloc_xcr0(self, guest_fpu: FpuGuest, xcr0: int) -> int:
        """Room for what ``xcr0`` and the current XFD make usable."""
        return self.fpu_guest_alloc_xfeatures(guest_fpu, xcr0 & ~self.deref(guest_fpu.fpstate).xfd)

    def fpu_guest_alloc_xfeatures(self, guest_fpu: FpuGuest, xfeatures: int) -> int:
        """The review: "This function just calls xfd_enable_feature", for what has no room (INFERRED: fpu/core.c)."""
        missing = xfeatures & self.XFEATURE_MASK_USER_DYNAMIC & ~guest_fpu.xfeatures
        return self._xfd_enable_feature(missing, guest_fpu) if missing else 0

    def fpstate_realloc_guest(self, xfeatures: int, ksize: int, usize: int, guest_fpu: FpuGuest) -> int:
        """The write may come from an ioctl, with the guest not loaded: as merged, not as in amx-v1 (c270ce393dfd)."""
        return AmxSeries.fpstate_realloc_guest(self, xfeatures, ksize, usize, guest_fpu)

    def kvm_check_guest_realloc_fpstate(self, vcpu: Vcpu, xfd: int) -> bool:
        """The review: "with none of the kvm_check_guest_realloc_fpstate or KVM_EXIT_FPU_REALLOC business"."""
        return False
