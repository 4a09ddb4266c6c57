"""The XSAVE ioctls and what they copy from and to user space (arch/x86/kvm/x86.c, v5.16)."""

from __future__ import annotations

from typing import NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.errno import EFAULT, EINVAL, ENOMEM
from xfdfuzz.kernel.event import USER_COPY
from xfdfuzz.kernel.fpu.init import ZEROED
from xfdfuzz.kernel.kvm.cpuid import KvmCpuid
from xfdfuzz.kernel.state import Vcpu

#: sizeof(struct kvm_xsave), in bytes (arch/x86/include/uapi/asm/kvm.h).
KVM_XSAVE_SIZE = 4096


class UserBuffer(NamedTuple):
    """The memory that an ioctl's argument points to: ``size`` bytes, or with None as many as it takes.

    Behind them lies other data of the caller's, or with ``guarded`` nothing is mapped.
    """

    size: int | None = None
    guarded: bool = False

    def overrun_by(self, size: int) -> bool:
        """Whether ``size`` bytes are more than there are."""
        return self.size is not None and size > self.size


#: Entries of struct kvm_xcrs.
KVM_MAX_XCRS = 16


class KvmXcrs(NamedTuple):
    """struct kvm_xcrs whose first entry is for register ``xcr``; the others are 0."""

    value: int
    xcr: int = 0
    nr_xcrs: int = 1
    flags: int = 0


class KvmFpu(NamedTuple):
    """struct kvm_fpu, by what its registers hold (arch/x86/include/uapi/asm/kvm.h)."""

    x87: int
    sse: int
    mxcsr: int


def zeroed_image() -> XsaveArea:
    """What kzalloc() gives an ioctl to write an image to: x87's control word and MXCSR are 0 in it, too."""
    area = XsaveArea()
    area.data[xf.X87] = area.data[xf.MXCSR] = ZEROED
    return area


class KvmXsave(KvmCpuid):
    """KVM_GET_XSAVE, KVM_GET_XSAVE2, KVM_SET_XSAVE and the older KVM_GET_FPU and KVM_SET_FPU."""

    # -- the copies --------------------------------------------------------------------------------------------------

    def copy_to_user(self, user: UserBuffer, size: int) -> bool:
        """Whether memory ended before ``size`` bytes were copied (include/linux/uaccess.h)."""
        self.might_fault()
        self.report(USER_COPY, size)
        return user.guarded and user.overrun_by(size)

    def memdup_user(self, user: UserBuffer, size: int) -> int:
        """0, ENOMEM or EFAULT (mm/util.c)."""
        if self.should_fail():
            return -ENOMEM
        self.might_fault()
        self.report(USER_COPY, size)
        return -EFAULT if user.guarded and user.overrun_by(size) else 0

    @phase_of("kvm_arch_vcpu_ioctl")
    def kvm_arch_vcpu_ioctl_get_xsave(self, vcpu: Vcpu, user: UserBuffer) -> tuple[int, XsaveArea | None]:
        """KVM_GET_XSAVE: struct kvm_xsave, whatever the image's size; ENOMEM, EFAULT."""
        ret, area = self.kvm_vcpu_ioctl_x86_get_xsave(vcpu)
        if ret < 0:
            return ret, None
        if refused := self.confidential(vcpu):
            return refused, None
        return (-EFAULT, None) if self.copy_to_user(user, KVM_XSAVE_SIZE) else (0, area)

    @phase_of("kvm_arch_vcpu_ioctl")
    def kvm_arch_vcpu_ioctl_get_xsave2(self, vcpu: Vcpu, user: UserBuffer) -> tuple[int, XsaveArea | None]:
        """KVM_GET_XSAVE2, which does not exist before the series; ENOMEM, EFAULT."""
        ret, area = self.kvm_vcpu_ioctl_x86_get_xsave2(vcpu)
        if ret < 0:
            return ret, None
        if refused := self.confidential(vcpu):
            return refused, None
        return (-EFAULT, None) if self.copy_to_user(user, self.kvm_get_xsave2_size(vcpu)) else (0, area)

    @seam
    def kvm_get_xsave2_size(self, vcpu: Vcpu) -> int:
        """How many bytes KVM_GET_XSAVE2 copies to user space: as many as KVM_SET_XSAVE takes."""
        return self.kvm_set_xsave_size(vcpu)

    @phase_of("kvm_arch_vcpu_ioctl")
    def kvm_arch_vcpu_ioctl_set_xsave(self, vcpu: Vcpu, image: XsaveArea, user: UserBuffer) -> int:
        """KVM_SET_XSAVE; ENOMEM, EFAULT."""
        ret = self.memdup_user(user, self.kvm_set_xsave_size(vcpu))
        if not ret and (nothing := self.confidential(vcpu)) is not None:
            return nothing
        return ret or self.kvm_vcpu_ioctl_x86_set_xsave(vcpu, image)

    # -- XSAVE images ------------------------------------------------------------------------------------------------

    def kvm_vcpu_ioctl_x86_get_xsave(self, vcpu: Vcpu) -> tuple[int, XsaveArea | None]:
        """KVM_GET_XSAVE: 4096 bytes."""
        return self.kvm_read_xsave(vcpu, KVM_XSAVE_SIZE)

    def kvm_vcpu_ioctl_x86_get_xsave2(self, vcpu: Vcpu) -> tuple[int, XsaveArea | None]:
        """KVM_GET_XSAVE2 does not exist before the series."""
        return -EINVAL, None

    @phase_of("kvm_arch_vcpu_ioctl")
    def kvm_read_xsave(self, vcpu: Vcpu, size: int) -> tuple[int, XsaveArea | None]:
        """``u.xsave = kzalloc(size, GFP_KERNEL)``, and the copy to it; ENOMEM."""
        return (-ENOMEM, None) if self.should_fail() else (0, self.kvm_copy_xsave_to_uabi(vcpu, size))

    @seam
    def kvm_copy_xsave_to_uabi(self, vcpu: Vcpu, size: int) -> XsaveArea:
        """The copy that the two ioctls share; of a confidential fpstate none, into what kzalloc() gave."""
        if self.confidential(vcpu) is not None:
            return zeroed_image()
        return self.fpu_copy_guest_fpstate_to_uabi(
            vcpu.arch.guest_fpu, size, self.kvm_get_xsave_features(vcpu), vcpu.arch.pkru
        )

    @seam
    def kvm_get_xsave_features(self, vcpu: Vcpu) -> int:
        """Which components KVM_GET_XSAVE shows: whatever the fpstate has, until 8647c52e9504."""
        return xf.U64_MAX

    def kvm_vcpu_ioctl_x86_set_xsave(self, vcpu: Vcpu, image: XsaveArea) -> int:
        """KVM_SET_XSAVE; EINVAL."""
        ret, pkru = self.fpu_copy_uabi_to_guest_fpstate(
            vcpu.arch.guest_fpu, image, self.kvm_set_xsave_size(vcpu), self.supported_xcr0
        )
        if pkru is not None:
            vcpu.arch.pkru = pkru
        return ret

    @seam
    def kvm_set_xsave_size(self, vcpu: Vcpu) -> int:
        """How many bytes KVM_SET_XSAVE takes from user space."""
        return KVM_XSAVE_SIZE

    @phase_of("kvm_vm_ioctl_check_extension")
    def kvm_vm_ioctl_check_extension_xsave2(self, vm: int | None) -> int:
        """KVM_CHECK_EXTENSION(KVM_CAP_XSAVE2) on a VM, or with None on /dev/kvm; unknown before the series."""
        return 0

    # -- struct kvm_fpu ----------------------------------------------------------------------------------------------

    @phase_of("kvm_vcpu_ioctl")
    def kvm_vcpu_ioctl_get_fpu(self, vcpu: Vcpu) -> tuple[int, KvmFpu | None]:
        """KVM_GET_FPU; ENOMEM (virt/kvm/kvm_main.c)."""
        return (-ENOMEM, None) if self.should_fail() else self.kvm_arch_vcpu_ioctl_get_fpu(vcpu)

    @phase_of("kvm_vcpu_ioctl")
    def kvm_vcpu_ioctl_set_fpu(self, vcpu: Vcpu, fpu: KvmFpu) -> int:
        """KVM_SET_FPU; ENOMEM of memdup_user() (virt/kvm/kvm_main.c)."""
        return -ENOMEM if self.should_fail() else self.kvm_arch_vcpu_ioctl_set_fpu(vcpu, fpu)

    def kvm_arch_vcpu_ioctl_get_fpu(self, vcpu: Vcpu) -> tuple[int, KvmFpu]:
        """KVM_GET_FPU: x87 and SSE as they lie in memory, whatever XSTATE_BV says; MXCSR is not set, so it is 0.

        struct kvm_fpu is from kzalloc(), and copied to user space unless this fails (virt/kvm/kvm_main.c).
        """
        if (nothing := self.confidential(vcpu)) is not None:
            return nothing, KvmFpu(ZEROED, 0, ZEROED)
        data = self.deref(vcpu.arch.guest_fpu.fpstate).regs.data
        return 0, KvmFpu(data[xf.X87], data[xf.SSE], ZEROED)

    def kvm_arch_vcpu_ioctl_set_fpu(self, vcpu: Vcpu, fpu: KvmFpu) -> int:
        """KVM_SET_FPU: writes x87 and SSE in memory, and neither XSTATE_BV nor MXCSR."""
        if (nothing := self.confidential(vcpu)) is not None:
            return nothing
        regs = self.deref(vcpu.arch.guest_fpu.fpstate).regs
        regs.data[xf.X87], regs.data[xf.SSE] = fpu.x87, fpu.sse
        return 0
