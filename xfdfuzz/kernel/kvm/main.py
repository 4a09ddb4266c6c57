"""The architecture-independent part: VMs, vCPUs, loading and putting (virt/kvm/kvm_main.c, v5.16).

The ``kvm_x86_*`` and ``kvm_arch_*`` methods at the top are what the generic code calls and the modules below define, as
the kernel declares them in headers.
"""

from __future__ import annotations

from xfdfuzz.kernel.base import seam
from xfdfuzz.kernel.errno import EEXIST, EINVAL, EIO, ENOMEM
from xfdfuzz.kernel.power import Power
from xfdfuzz.kernel.state import NULL, Vcpu, Vm
from xfdfuzz.memory.cstruct import assign

#: Highest vCPU id plus one that programs use; the kernel's KVM_MAX_VCPU_IDS is larger.
KVM_MAX_VCPU_IDS = 4


class KvmMain(Power):
    """Life cycle of VMs and vCPUs."""

    # -- declared here, defined by x86.c and vmx.c ----------------------------------------------------------------

    def kvm_arch_vcpu_create(self, vcpu: Vcpu) -> int:
        """x86.c."""
        raise NotImplementedError

    def kvm_arch_vcpu_destroy(self, vcpu: Vcpu) -> None:
        """x86.c."""
        raise NotImplementedError

    def kvm_arch_vcpu_load(self, vcpu: Vcpu) -> None:
        """x86.c."""
        raise NotImplementedError

    def kvm_arch_vcpu_put(self, vcpu: Vcpu) -> None:
        """x86.c."""
        raise NotImplementedError

    # -- guards --------------------------------------------------------------------------------------------------

    @seam
    def kvm_vm_ioctl_guard(self, vm: Vm) -> int:
        """EIO from another address space or once the VM is bugged or dead (kvm_vm_ioctl(), kvm_vcpu_ioctl())."""
        return -EIO if vm.mm != self.current.mm or vm.vm_bugged or vm.vm_dead else 0

    # -- load and put --------------------------------------------------------------------------------------------

    def vcpu_load(self, vcpu: Vcpu) -> None:
        """Bind the vCPU to this CPU; from here on the preempt notifier moves it along."""
        self.preempt_disable()
        vcpu.preempt_notifier = self.current_nr + 1
        self.kvm_arch_vcpu_load(vcpu)
        self.preempt_enable()

    def vcpu_put(self, vcpu: Vcpu) -> None:
        """Undo vcpu_load()."""
        self.preempt_disable()
        self.kvm_arch_vcpu_put(vcpu)
        vcpu.preempt_notifier = NULL
        self.preempt_enable()

    def fire_sched_out_preempt_notifiers(self) -> None:
        """kvm_sched_out(): the thread is preempted while runnable, with a vCPU loaded."""
        for vcpu in self.vcpus:
            if vcpu.preempt_notifier == self.current_nr + 1:
                vcpu.preempted = 1
                self.kvm_arch_vcpu_put(vcpu)

    def fire_sched_in_preempt_notifiers(self) -> None:
        """kvm_sched_in()."""
        for vcpu in self.vcpus:
            if vcpu.preempt_notifier == self.current_nr + 1:
                vcpu.preempted = 0
                self.kvm_arch_vcpu_load(vcpu)

    # -- life cycle ----------------------------------------------------------------------------------------------

    def kvm_dev_ioctl_create_vm(self) -> tuple[int, int]:
        """KVM_CREATE_VM: 0 and the VM's number; ENOMEM when the model's pool is used up."""
        for nr, vm in enumerate(self.vms):
            if not vm.exists:
                assign(vm, Vm(exists=1, mm=self.current.mm))
                for task in self.tasks:
                    if task.exists and task.mm == self.current.mm:
                        task.vm_fds |= 1 << nr
                return 0, nr
        return -ENOMEM, 0

    def kvm_vm_ioctl_create_vcpu(self, vm_nr: int, vcpu_id: int) -> tuple[int, int]:
        """KVM_CREATE_VCPU: 0 and the vCPU's number; EIO, EINVAL, ENOMEM, EEXIST.

        Up to 6.12 at least, the id is checked against the existing ones only after kvm_arch_vcpu_create(), so EEXIST
        comes after the guest permissions were locked.
        """
        ret = self.kvm_vm_ioctl_guard(self.vms[vm_nr])
        if ret:
            return ret, 0
        if vcpu_id >= KVM_MAX_VCPU_IDS:
            return -EINVAL, 0
        ret = self.kvm_vcpu_id_precheck(vm_nr, vcpu_id)
        if ret:
            return ret, 0
        nr = next((nr for nr, vcpu in enumerate(self.vcpus) if not vcpu.exists), None)
        if nr is None:
            return -ENOMEM, 0
        vcpu = self.vcpus[nr]
        taken = self.kvm_get_vcpu_by_id(vm_nr, vcpu_id)
        assign(vcpu, Vcpu(exists=1, vm=vm_nr, id=vcpu_id, last_vmentry_cpu=-1))
        ret = self.kvm_arch_vcpu_create(vcpu)
        if not ret and taken:
            self.kvm_arch_vcpu_destroy(vcpu)
            ret = -EEXIST
        if ret:
            assign(vcpu, Vcpu())
        elif not self.vms[vm_nr].vcpus_0:
            self.vms[vm_nr].vcpus_0 = nr + 1
        return ret, nr

    @seam
    def kvm_vcpu_id_precheck(self, vm_nr: int, vcpu_id: int) -> int:
        """What newer kernels check before they create anything."""
        return 0

    def kvm_get_vcpu_by_id(self, vm_nr: int, vcpu_id: int) -> bool:
        """Whether the VM has a vCPU of that id (include/linux/kvm_host.h)."""
        return any(vcpu.exists and vcpu.vm == vm_nr and vcpu.id == vcpu_id for vcpu in self.vcpus)

    @seam
    def has_open(self, nr: int, vm_nr: int) -> bool:
        """Whether task ``nr`` has the descriptors of a VM and its vCPUs."""
        return bool(self.tasks[nr].vm_fds >> vm_nr & 1)

    def kvm_vm_release(self, vm_nr: int) -> None:
        """close() of a VM and its vCPUs in current's table of open files; a forked process may still have them."""
        for task in self.tasks:
            if task.exists and task.mm == self.current.mm:
                task.vm_fds &= ~(1 << vm_nr)
        self.close_unused_vms()

    def close_unused_vms(self) -> None:
        """kvm_put_kvm(): the last descriptor is closed."""
        held = 0
        for task in self.tasks:
            held |= task.vm_fds
        for nr, vm in enumerate(self.vms):
            if vm.exists and not held >> nr & 1:
                self.kvm_destroy_vm(nr)

    def kvm_destroy_vm(self, vm_nr: int) -> None:
        """The last reference to a VM and its vCPUs is closed."""
        for vcpu in self.vcpus:
            if vcpu.exists and vcpu.vm == vm_nr:
                self.kvm_arch_vcpu_destroy(vcpu)
                assign(vcpu, Vcpu())
        assign(self.vms[vm_nr], Vm())
