"""Guest fpstates: sizes, features, and what XFD does to the saved image."""

from __future__ import annotations

from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.base import seam
from xfdfuzz.kernel.errno import EINVAL
from xfdfuzz.kernel.fpu.guest import GuestFpu
from xfdfuzz.kernel.kvm.xsave import KVM_XSAVE_SIZE
from xfdfuzz.kernel.state import Fpstate, FpuGuest, Vcpu
from xfdfuzz.revisions.amx_series import AmxSeries
from xfdfuzz.revisions.amx_v6 import AmxV6
from xfdfuzz.revisions.queue import patch


@patch(
    "d187ba531230",
    "x86/fpu: KVM: Set the base guest FPU uABI size to sizeof(struct kvm_xsave)",
    version="v5.19",
    fixes=("be50b2065dfa", "c60427dd50ba"),
    stable=("v5.17.13", "v5.18.2"),
)
class UabiSize(AmxV6):
    """KVM's XSAVE ioctls copy at least struct kvm_xsave, whatever the host's own default is (CVE-2022-49557)."""

    def guest_default_uabi_size(self) -> int:
        """4096, with a warning where that is too small (fpu/core.c)."""
        if self.warn_on(self.fpu_user_cfg.default_size > KVM_XSAVE_SIZE):
            return self.fpu_user_cfg.default_size
        return KVM_XSAVE_SIZE


@patch(
    "1937e18cc3cf",
    "x86/fpu: Fix guest FPU state buffer allocation size",
    version="v6.15",
    fixes=("69f6ed1d14c6",),
    stable=("..v6.1.192", "..v6.12.117"),
)
class GuestAllocSize(GuestFpu):
    """A guest's buffer is allocated by the kernel's size, not by that of the user image."""

    def guest_fpstate_alloc_size(self) -> int:
        """(fpu/core.c)."""
        return self.fpu_kernel_cfg.default_size


@patch(
    "dda366083e5f",
    "x86/fpu/xstate: Fix inconsistencies in guest FPU xfeatures",
    version="v6.15",
    fixes=("36487e6228c4",),
    stable=("..v6.1.192", "..v6.12.117"),
    neutral="gfpu->xfeatures is looked at for dynamic features only",
)
class GuestXfeatures(AmxSeries):
    """gfpu->xfeatures counts the supervisor states that its buffer has room for."""

    def guest_default_xfeatures(self) -> int:
        """(fpu/core.c)."""
        return self.fpu_kernel_cfg.default_features


@patch(
    "509e880b7795",
    "x86/fpu: Initialize guest fpstate and FPU pseudo container from guest defaults",
    version="v6.17",
    neutral="a feature",
)
class GuestDefault(AmxSeries):
    """Guests get defaults of their own, which may hold supervisor states that the host does not use.

    With 7bc4ed75f2d6, which computes them, and 7c2c89364d92, which gives them to guest_perm.
    """

    @seam
    def guest_default_features(self) -> int:
        """guest_default_cfg.features (fpu/xstate.c)."""
        return self.fpu_kernel_cfg.max_features & ~self.XFEATURE_MASK_USER_DYNAMIC

    @seam
    def guest_default_size(self) -> int:
        """guest_default_cfg.size, in bytes (fpu/xstate.c)."""
        if not self.use_xsave:
            return self.fpu_kernel_cfg.default_size
        return self.xstate_calculate_size(self.guest_default_features(), compacted=self.compacted)

    def guest_fpstate_alloc_size(self) -> int:
        """(fpu/core.c, fpu_alloc_guest_fpstate())."""
        return self.guest_default_size()

    def guest_default_xfeatures(self) -> int:
        """(fpu/core.c, fpu_alloc_guest_fpstate())."""
        return self.guest_default_features()

    def guest_fpstate_reset(self, fpstate: Fpstate) -> None:
        """__fpstate_reset() of a guest's (fpu/core.c)."""
        super().guest_fpstate_reset(fpstate)
        fpstate.size = self.guest_default_size()
        fpstate.xfeatures = self.guest_default_features()

    def fpstate_reset(self, nr: int) -> None:
        """guest_perm starts with the guest's defaults (fpu/core.c, 7c2c89364d92)."""
        super().fpstate_reset(nr)
        guest_perm = self.tasks[nr].fpu.guest_perm
        guest_perm.state_perm = self.guest_default_features()
        guest_perm.state_size = self.guest_default_size()


@patch(
    "b45f72177594",
    "x86/fpu: Clear XSTATE_BV[i] in guest XSAVE state whenever XFD[i]=1",
    version="v6.19",
    fixes=("820a6ee944e7",),
    stable=("..v6.1.192", "v6.6.122", "v6.12.67", "v6.18.7"),
)
class ClearXstateBv(AmxV6):
    """State that XFD disables does not stay in the saved image, where XRSTOR would fault on it (CVE-2026-23005)."""

    def fpu_update_guest_xfd(self, guest_fpu: FpuGuest, xfd: int) -> None:
        """Clear XSTATE_BV if the *current thread's* registers are in memory; in the same locked region (fpu/core.c)."""
        self.fpregs_lock()
        if xfd and self.current.tif_need_fpu_load:
            self.deref(guest_fpu.fpstate).regs.xstate_bv &= ~xfd
        super().fpu_update_guest_xfd(guest_fpu, xfd)
        self.fpregs_unlock()

    def kvm_vcpu_ioctl_x86_set_xsave(self, vcpu: Vcpu, image: XsaveArea) -> int:
        """What XFD disables is dropped from the image, without an error (x86.c)."""
        image.xstate_bv &= ~self.deref(vcpu.arch.guest_fpu.fpstate).xfd
        return super().kvm_vcpu_ioctl_x86_set_xsave(vcpu, image)

    def fpu_copy_uabi_to_guest_fpstate(
        self, gfpu: FpuGuest, image: XsaveArea, size: int, xcr0: int
    ) -> tuple[int, int | None]:
        """The FPU core insists on it: warn and EINVAL (fpu/core.c); with XSAVE only."""
        disabled = image.xstate_bv & self.deref(gfpu.fpstate).xfd
        if self.use_xsave and not image.xstate_bv & ~xcr0 and self.warn_on(disabled):
            return -EINVAL, None
        return super().fpu_copy_uabi_to_guest_fpstate(gfpu, image, size, xcr0)
