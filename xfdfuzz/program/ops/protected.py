"""VMs whose guests' registers are kept from the host."""

from __future__ import annotations

from typing import ClassVar

from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import Vcpu, Vm
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import Init2, Nr, VmTypeOf
from xfdfuzz.program.ops.base import TaskOp, VmIoctl, not_open, op
from xfdfuzz.program.step import Result


@op("t{task} ioctl(kvm, KVM_CREATE_VM, {vm_type}, {init2})")
class KvmCreateVmOfType(TaskOp):
    """A VM of a type whose guests are protected.  What the type needs before vCPUs can be created is done too, but for
    KVM_SEV_INIT2 if ``init2`` is 0: the VM has no guest of its own then, and can take over that of another."""

    task: Nr = 0
    vm_type: VmTypeOf = st.VM_X86_SEV_ES_VM
    init2: Init2 = 1

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        ret, vm = k.kvm_dev_ioctl_create_vm_of_type(self.vm_type, bool(self.init2))
        return Result(ret or f"vm{vm}")


class _SevCommand(VmIoctl):
    """KVM_MEMORY_ENCRYPT_OP with an SEV command; ``SNP``: it is one of SNP's."""

    __slots__ = ()
    SNP: ClassVar[bool] = False

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        vm = k.vms[self.vm]
        refused = k.kvm_vm_ioctl_guard(vm) or k.sev_command_refused(vm, self.SNP)
        return Result(refused or self.command(k, vm))

    def command(self, k: Kernel, vm: Vm) -> int:
        """What the command returns."""
        raise NotImplementedError


@op("t{task} ioctl(vm{vm}, KVM_SEV_ES_INIT)")
class KvmSevEsInit(_SevCommand):
    """A VM of the default type becomes an SEV-ES one, before it has vCPUs."""

    task: Nr = 0
    vm: Nr = 0

    def command(self, k: Kernel, vm: Vm) -> int:
        return k.sev_guest_init(vm)


class _Sealing(_SevCommand):
    __slots__ = ()

    def hindrance(self, k: Kernel) -> str:
        running = next((nr for nr, v in enumerate(k.vcpus) if v.exists and v.vm == self.vm and v.task), None)
        return VmIoctl.hindrance(self, k) if running is None else f"v{running} is inside KVM_RUN"

    def command(self, k: Kernel, vm: Vm) -> int:
        old = [nr for nr, vcpu in enumerate(k.vcpus) if vcpu.arch.guest_state_protected]
        ret = self.seal(k)
        for nr, vcpu in enumerate(k.vcpus):
            if vcpu.arch.guest_state_protected and nr not in old:
                ghost.was_sealed(k, vcpu, k.system.ghost.vcpus[nr])
        return ret

    def seal(self, k: Kernel) -> int:
        """What the command returns that seals the vCPUs."""
        raise NotImplementedError


@op("t{task} ioctl(vm{vm}, KVM_SEV_LAUNCH_UPDATE_VMSA)")
class KvmSevLaunchUpdateVmsa(_Sealing):
    """The registers of the VM's vCPUs are sealed; only then an SEV-ES guest can run."""

    task: Nr = 0
    vm: Nr = 0

    def seal(self, k: Kernel) -> int:
        return k.sev_launch_update_vmsa(self.vm)


@op("t{task} ioctl(vm{vm}, KVM_SEV_SNP_LAUNCH_START)")
class KvmSevSnpLaunchStart(_SevCommand):
    """The launch of an SEV-SNP guest begins."""

    SNP = True
    task: Nr = 0
    vm: Nr = 0

    def command(self, k: Kernel, vm: Vm) -> int:
        return k.snp_launch_start(vm)


@op("t{task} ioctl(vm{vm}, KVM_SEV_SNP_LAUNCH_FINISH)")
class KvmSevSnpLaunchFinish(_Sealing):
    """The registers of the VM's vCPUs are sealed, and the launch is over: only then an SEV-SNP guest can run."""

    SNP = True
    task: Nr = 0
    vm: Nr = 0

    def seal(self, k: Kernel) -> int:
        return k.snp_launch_finish(self.vm)


def is_busy(vcpu: Vcpu) -> bool:
    """Whether it has an L2, or something that its guest would get at the next entry."""
    arch = vcpu.arch
    return bool(arch.guest_mode or arch.init_pending or arch.exception_pending or arch.exception_injected)


@op("t{task} ioctl(vm{vm}, KVM_ENABLE_CAP, KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM, vm{source})")
class KvmMoveEncContextFrom(VmIoctl):
    """A VM that has as many vCPUs takes over the sealed SEV-ES guest of another one, of which all ioctls are -EIO from
    then on."""

    task: Nr = 0
    vm: Nr = 1
    source: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        if k.vms[self.source].type == st.VM_X86_SNP_VM:
            return f"that of vm{self.source}, which is an SEV-SNP guest's, is not modelled"
        vcpus = [(nr, v) for nr, v in enumerate(k.vcpus) if v.exists and v.vm in (self.vm, self.source)]
        hindered = next((reason for nr, v in vcpus if (reason := self._in_the_way(nr, v))), "")
        return not_open(k, self.task, self.source) or VmIoctl.hindrance(self, k) or hindered

    def _in_the_way(self, nr: int, vcpu: Vcpu) -> str:
        """That KVM_RUN has the mutex of a vCPU, or that something waits in one, which KVM could not give its guest."""
        if vcpu.task:
            return f"v{nr} is inside KVM_RUN"
        taken = vcpu.vm == self.vm and is_busy(vcpu)
        return f"v{nr} has an L2, an exception or an INIT, which is not modelled" if taken else ""

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        refused = k.kvm_vm_ioctl_guard(k.vms[self.vm])
        of_vm, of_source = ([nr for nr, v in enumerate(k.vcpus) if v.exists and v.vm == vm] for vm in self._vms)
        ret = refused or k.sev_vm_move_enc_context_from(self.vm, self.source)
        for nr, source in zip(of_vm, of_source, strict=True) if not ret else ():
            ghost.was_moved(k, nr, source)
        return Result(ret)

    @property
    def _vms(self) -> tuple[int, int]:
        return self.vm, self.source
