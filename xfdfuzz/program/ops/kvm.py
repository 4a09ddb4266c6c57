"""ioctls on /dev/kvm, VMs and vCPUs, other than KVM_RUN."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cstruct import assign
from xfdfuzz.arch.registers import MSR_IA32_XFD
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import GhostVcpu, Vcpu
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import MsrIndex, Msrs, Nr, Small, Token, UserImage, Xfeatures
from xfdfuzz.program.ops.base import TaskOp, VcpuIoctl, op
from xfdfuzz.program.step import Image, Result


@op("t{task} ioctl(kvm, KVM_CREATE_VM)")
class KvmCreateVm(TaskOp):
    """A VM that belongs to the task's address space."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        ret, vm = k.kvm_dev_ioctl_create_vm()
        return Result(ret or f"vm{vm}")


@op("t{task} ioctl(kvm, KVM_GET_SUPPORTED_CPUID)")
class KvmGetSupportedCpuid(TaskOp):
    """What KVM offers; the value is leaf 0xD.0 EDX:EAX."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        return Result(0, k.kvm_dev_ioctl_get_cpuid().xcr0)


@op("t{task} ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2)")
class KvmCheckXsave2(TaskOp):
    """The size of an XSAVE image, asked of /dev/kvm."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        return Result(k.kvm_vm_ioctl_check_extension_xsave2(None))


class _VmIoctl(TaskOp):
    __slots__ = ()
    vm: int

    def enabled(self, k: Kernel) -> bool:
        return bool(k.vms[self.vm].exists) and TaskOp.enabled(self, k)


@op("t{task} ioctl(vm{vm}, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2)")
class KvmVmCheckXsave2(_VmIoctl):
    """The size of an XSAVE image, asked of a VM."""

    task: Nr = 0
    vm: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        ret = k.kvm_vm_ioctl_guard(k.vms[self.vm])
        return Result(ret or k.kvm_vm_ioctl_check_extension_xsave2(self.vm))


@op("t{task} ioctl(vm{vm}, KVM_CREATE_VCPU, {id})")
class KvmCreateVcpu(_VmIoctl):
    """A vCPU; the first one of a process freezes the guest permissions."""

    task: Nr = 0
    vm: Nr = 0
    id: Small = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        ret, nr = k.kvm_vm_ioctl_create_vcpu(self.vm, self.id)
        if ret:
            return Result(ret)
        assign(k.system.ghost.vcpus[nr], GhostVcpu(xcr0=xf.MASK_X87))
        return Result(f"v{nr}")


@op("t{task} close(vm{vm})")
class CloseVm(_VmIoctl):
    """Close a VM and all its vCPUs, while none of them runs."""

    task: Nr = 0
    vm: Nr = 0

    def enabled(self, k: Kernel) -> bool:
        """Only who shares the VM's address space holds its file descriptors."""
        if k.vms[self.vm].mm != k.tasks[self.task].mm:
            return False
        running = any(v.exists and v.vm == self.vm and v.task for v in k.vcpus)
        return not running and _VmIoctl.enabled(self, k)

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        k.kvm_destroy_vm(self.vm)
        return Result(0)


@op("t{task} ioctl(v{vcpu}, KVM_SET_CPUID2, {entries})")
class KvmSetCpuid2(VcpuIoctl):
    """Give the guest its CPUID: leaf 0xD.0, the XFD flag and the AMX_TILE flag."""

    task: Nr = 0
    vcpu: Nr = 0
    entries: CpuidEntries = CpuidEntries(0, False, False)

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return Result(k.kvm_vcpu_ioctl_set_cpuid2(vcpu, self.entries))


@op("t{task} ioctl(v{vcpu}, KVM_SET_CPUID2, supported)")
class KvmSetCpuid2Supported(VcpuIoctl):
    """Give the guest just what KVM_GET_SUPPORTED_CPUID offers now."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        entries = k.kvm_dev_ioctl_get_cpuid()
        return Result(k.kvm_vcpu_ioctl_set_cpuid2(vcpu, entries), entries.xcr0)


@op("t{task} ioctl(v{vcpu}, KVM_GET_CPUID2)")
class KvmGetCpuid2(VcpuIoctl):
    """Read the guest's CPUID back; the value is leaf 0xD.0 EDX:EAX."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return Result(0, k.kvm_vcpu_ioctl_get_cpuid2(vcpu).edx_eax)


@op("t{task} ioctl(v{vcpu}, KVM_SET_XCRS, {xcr0})")
class KvmSetXcrs(VcpuIoctl):
    """Set XCR0 from user space."""

    task: Nr = 0
    vcpu: Nr = 0
    xcr0: Xfeatures = xf.MASK_X87

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        ret = k.kvm_vcpu_ioctl_x86_set_xcrs(vcpu, self.xcr0)
        if not ret:
            ghost.user_wrote_xcr0(k.system.ghost.vcpus[self.vcpu], self.xcr0)
        return Result(ret)


@op("t{task} ioctl(v{vcpu}, KVM_GET_XCRS)")
class KvmGetXcrs(VcpuIoctl):
    """Read XCR0."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return Result(0, k.kvm_vcpu_ioctl_x86_get_xcrs(vcpu))


@op("t{task} ioctl(v{vcpu}, KVM_SET_MSRS, {msrs})")
class KvmSetMsrs(VcpuIoctl):
    """Write IA32_XFD and IA32_XFD_ERR from user space; returns how many entries were taken."""

    task: Nr = 0
    vcpu: Nr = 0
    msrs: Msrs = Msrs(((MSR_IA32_XFD, 0),))

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        count = k.kvm_set_msrs(vcpu, self.msrs.entries)
        ideal = k.system.ghost.vcpus[self.vcpu]
        for index, value in self.msrs.entries[:count]:
            ghost.user_wrote_msr(vcpu, ideal, index, value)
        return Result(count)


@op("t{task} ioctl(v{vcpu}, KVM_GET_MSRS, {msr})")
class KvmGetMsrs(VcpuIoctl):
    """Read one MSR from user space; returns how many entries were read, 0 or 1."""

    task: Nr = 0
    vcpu: Nr = 0
    msr: MsrIndex = MSR_IA32_XFD

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        count, value = k.kvm_get_msrs(vcpu, self.msr)
        return Result(count, value if count else None)


def _image(area: XsaveArea) -> Image:
    return Image(area.xstate_bv, tuple((i, area.data[i]) for i in xf.components_in(area.xstate_bv)))


@op("t{task} ioctl(v{vcpu}, KVM_SET_XSAVE, {image})")
class KvmSetXsave(VcpuIoctl):
    """Load a standard-format XSAVE image into the guest."""

    task: Nr = 0
    vcpu: Nr = 0
    image: UserImage = UserImage(xf.MASK_YMM, 1)

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        area = XsaveArea()
        area.xstate_bv = self.image.xstate_bv
        area.xcomp_bv = self.image.xcomp_bv
        token = ghost.vcpu_token(self.vcpu, self.image.data)
        for i in xf.components_in(self.image.xstate_bv & ~self.image.init):
            area.data[i] = token
        ret = k.kvm_vcpu_ioctl_x86_set_xsave(vcpu, area)
        if not ret:
            user = k.machine.user_xfeatures or xf.MASK_FPSSE
            held = self.image.xstate_bv & ~self.image.init
            ghost.set_xsave(k.system.ghost.vcpus[self.vcpu], held, token, user)
        return Result(ret)


@op("t{task} ioctl(v{vcpu}, KVM_GET_XSAVE)")
class KvmGetXsave(VcpuIoctl):
    """Read the guest's XSAVE image into 4096 bytes."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        ret, area = k.kvm_vcpu_ioctl_x86_get_xsave(vcpu)
        return Result(ret, None if area is None else _image(area))


@op("t{task} ioctl(v{vcpu}, KVM_GET_XSAVE2)")
class KvmGetXsave2(VcpuIoctl):
    """Read the guest's XSAVE image, whatever its size."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        ret, area = k.kvm_vcpu_ioctl_x86_get_xsave2(vcpu)
        return Result(ret, None if area is None else _image(area))


@op("t{task} ioctl(v{vcpu}, KVM_SET_FPU, {token})")
class KvmSetFpu(VcpuIoctl):
    """Write x87 and SSE through the old interface.

    KVM does not touch XSTATE_BV there, so whether the guest sees them depends on what it held: the ghost
    takes them as undefined.
    """

    task: Nr = 0
    vcpu: Nr = 0
    token: Token = 1

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        token = ghost.vcpu_token(self.vcpu, self.token)
        ret = k.kvm_arch_vcpu_ioctl_set_fpu(vcpu, token)
        regs = k.system.ghost.vcpus[self.vcpu].regs
        for i in (xf.X87, xf.SSE):
            regs.data[i] = token
        regs.undefined |= xf.MASK_FPSSE
        return Result(ret)


@op("t{task} ioctl(v{vcpu}, KVM_GET_FPU)")
class KvmGetFpu(VcpuIoctl):
    """Read x87 through the old interface."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return Result(*k.kvm_arch_vcpu_ioctl_get_fpu(vcpu))


@op("t{task} ioctl(v{vcpu}, KVM_GET_MP_STATE)")
class KvmGetMpState(VcpuIoctl):
    """Read the MP state; on an MPX host this loads and puts the guest FPU, until 8819a49f9ff8."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return Result(k.kvm_arch_vcpu_ioctl_get_mpstate(vcpu))
