"""VMs whose guests' registers are kept from the host."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import Nr, VmTypeOf
from xfdfuzz.program.ops.base import TaskOp, VmIoctl, op
from xfdfuzz.program.step import Result


@op("t{task} ioctl(kvm, KVM_CREATE_VM, {vm_type})")
class KvmCreateVmOfType(TaskOp):
    """A VM of a type whose guests are protected.  What the type needs before vCPUs can be created is done too."""

    task: Nr = 0
    vm_type: VmTypeOf = st.VM_X86_SEV_ES_VM

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        ret, vm = k.kvm_dev_ioctl_create_vm_of_type(self.vm_type)
        return Result(ret or f"vm{vm}")


@op("t{task} ioctl(vm{vm}, KVM_SEV_ES_INIT)")
class KvmSevEsInit(VmIoctl):
    """A VM of the default type becomes an SEV-ES one, before it has vCPUs."""

    task: Nr = 0
    vm: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        ret = k.kvm_vm_ioctl_guard(k.vms[self.vm])
        return Result(ret or k.sev_guest_init(k.vms[self.vm]))


@op("t{task} ioctl(vm{vm}, KVM_SEV_LAUNCH_UPDATE_VMSA)")
class KvmSevLaunchUpdateVmsa(VmIoctl):
    """The registers of the VM's vCPUs are sealed; only then an SEV-ES guest can run."""

    task: Nr = 0
    vm: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        running = next((nr for nr, v in enumerate(k.vcpus) if v.exists and v.vm == self.vm and v.task), None)
        return VmIoctl.hindrance(self, k) if running is None else f"v{running} is inside KVM_RUN"

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        ret = k.kvm_vm_ioctl_guard(k.vms[self.vm]) or k.sev_launch_update_vmsa(self.vm)
        for nr, vcpu in enumerate(k.vcpus):
            if not ret and vcpu.exists and vcpu.vm == self.vm:
                ideal = k.system.ghost.vcpus[nr]
                # XFD and what lies beyond AVX have no way into the guest
                ideal.xfd = ideal.xfd_err = 0
                ideal.regs.undefined = 0
                for i in xf.components_in(~(xf.MASK_FPSSE | xf.MASK_YMM | xf.MASK_PKRU)):
                    ghost.define(ideal.regs, i, 0)
                ghost.is_sealed(k, vcpu, ideal)
        return Result(ret)
