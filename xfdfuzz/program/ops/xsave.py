"""XSAVE images and their sizes as user space sees them, and the older KVM_GET_FPU and KVM_SET_FPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.event import USER_COPY
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.kvm.xsave import UserBuffer
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.memory.cstruct import copy_of
from xfdfuzz.program import ghost, images
from xfdfuzz.program.fields import FpuImage, Nr, UserImage
from xfdfuzz.program.ops.base import TaskOp, VcpuIoctl, VmIoctl, op
from xfdfuzz.program.step import FpuState, Result, image_of


@op("t{task} ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2)")
class KvmCheckXsave2(TaskOp):
    """The size of an XSAVE image, asked of /dev/kvm."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        return Result(k.kvm_vm_ioctl_check_extension_xsave2(None))


@op("t{task} ioctl(vm{vm}, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2)")
class KvmVmCheckXsave2(VmIoctl):
    """The size of an XSAVE image, asked of a VM."""

    task: Nr = 0
    vm: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        ret = k.kvm_vm_ioctl_guard(k.vms[self.vm])
        return Result(ret or k.kvm_vm_ioctl_check_extension_xsave2(self.vm))


class _XsaveIoctl(VcpuIoctl):
    __slots__ = ()
    buffer: UserBuffer

    def result(self, k: Kernel, ret: int, area: XsaveArea | None = None) -> Result:
        """What the ioctl returned; ``overrun`` if it was 0 and the copy went beyond the caller's buffer."""
        copied = max((e.detail[0] for e in k.events if e.kind == USER_COPY), default=0)
        overrun = not ret and self.buffer.overrun_by(copied)
        return Result("overrun" if overrun else ret, None if area is None else image_of(area))


@op("t{task} ioctl(v{vcpu}, KVM_SET_XSAVE, {image}, {buffer})")
class KvmSetXsave(_XsaveIoctl):
    """Load a standard-format XSAVE image into the guest."""

    task: Nr = 0
    vcpu: Nr = 0
    image: UserImage = UserImage(xf.MASK_YMM, 1)
    buffer: UserBuffer = UserBuffer()

    def given(self, k: Kernel) -> XsaveArea:
        """The image that the kernel gets."""
        return images.area_of(self.image, partial(ghost.guest_token, k, self.vcpu))

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        area = self.given(k)
        ret = k.kvm_arch_vcpu_ioctl_set_xsave(vcpu, copy_of(area), self.buffer)
        ghost.gave(k, self.vcpu, area.data)
        if not ret and ghost.takes(k, vcpu):
            for ideal in ghost.told(k, self.vcpu):
                ghost.set_xsave(k, ideal, area)
                ideal.regs.undefined |= self.beyond(k)
        return self.result(k, ret)

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from images.idle(self.image, machine)

    def beyond(self, k: Kernel) -> int:
        """The components that lie beyond the caller's buffer: the guest gets what is in memory there."""
        size_of, held = k.machine.cpuid.standard_size, xf.components_in(self.image.xstate_bv)
        return xf.mask_of(*(i for i in held if self.buffer.overrun_by(size_of(1 << i))))


@op("t{task} ioctl(v{vcpu}, KVM_GET_XSAVE, {buffer})")
class KvmGetXsave(_XsaveIoctl):
    """Read the guest's XSAVE image into 4096 bytes."""

    task: Nr = 0
    vcpu: Nr = 0
    buffer: UserBuffer = UserBuffer()

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return self.result(k, *k.kvm_arch_vcpu_ioctl_get_xsave(vcpu, self.buffer))


@op("t{task} ioctl(v{vcpu}, KVM_GET_XSAVE2, {buffer})")
class KvmGetXsave2(_XsaveIoctl):
    """Read the guest's XSAVE image, whatever its size.  amx-v1 is told the size of a buffer that has one."""

    task: Nr = 0
    vcpu: Nr = 0
    buffer: UserBuffer = UserBuffer()

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return self.result(k, *k.kvm_arch_vcpu_ioctl_get_xsave2(vcpu, self.buffer))


@op("t{task} ioctl(v{vcpu}, KVM_SET_FPU, {image})")
class KvmSetFpu(VcpuIoctl):
    """Write x87, SSE and MXCSR through the old interface."""

    task: Nr = 0
    vcpu: Nr = 0
    image: FpuImage = FpuImage(1)

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        fpu = images.fpu_of(self.image, partial(ghost.guest_token, k, self.vcpu))
        ret = k.kvm_vcpu_ioctl_set_fpu(vcpu, fpu)
        ghost.gave(k, self.vcpu, fpu)
        for ideal in ghost.told(k, self.vcpu) if not ret and ghost.takes(k, vcpu) else ():
            ghost.set_legacy(ideal.regs, fpu)
        return Result(ret)

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from images.idle_fpu(self.image)


@op("t{task} ioctl(v{vcpu}, KVM_GET_FPU)")
class KvmGetFpu(VcpuIoctl):
    """Read x87, SSE and MXCSR through the old interface; `zero` is what has no bit set, not even those that its initial
    value has."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        ret, fpu = k.kvm_vcpu_ioctl_get_fpu(vcpu)
        return Result(ret, None if ret or fpu is None else FpuState(tuple(zip(xf.LEGACY, fpu, strict=True))))
