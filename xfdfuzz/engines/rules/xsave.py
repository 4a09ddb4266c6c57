"""XSAVE images, their sizes, and the older FPU ioctls."""

from __future__ import annotations

from itertools import permutations

from xfdfuzz.engines.rules.base import Rules, on
from xfdfuzz.program.ops import kvm, xsave
from xfdfuzz.strategies.values import Range, picks, targets, tokens

#: In which a VMM may restore.
_ORDERS = tuple(permutations(range(3)))


class XsaveRules(Rules):
    """XSAVE images, their sizes, and the older FPU ioctls."""

    SHARE = 4

    @on("tasks", n=targets)
    def kvm_check_xsave2(self, n: int) -> None:
        """KVM_CAP_XSAVE2 of /dev/kvm."""
        self.do(xsave.KvmCheckXsave2(self.task(n)))

    @on("vm_tasks", n=targets, vm=targets)
    def kvm_vm_check_xsave2(self, n: int, vm: int) -> None:
        """KVM_CAP_XSAVE2 of a VM."""
        self.do(xsave.KvmVmCheckXsave2(self.vmm(n), self.now.vms[vm % len(self.now.vms)]))

    @on("idle_tasks", n=targets, vcpu=targets, image=picks, buffer=picks)
    def kvm_set_xsave(self, n: int, vcpu: int, image: int, buffer: int) -> None:
        """KVM_SET_XSAVE."""
        values = self.domains
        image_, buffer_ = values.image.value(image), values.buffer.value(buffer)
        self.do(xsave.KvmSetXsave(self.vmm(n), self.idle_vcpu(vcpu), image_, buffer_))

    @on("idle_tasks", n=targets, vcpu=targets, order=Range(0, len(_ORDERS) - 1), msrs=picks, xcr0=picks, image=picks)
    def restore(self, n: int, vcpu: int, order: int, msrs: int, xcr0: int, image: int) -> None:
        """A VMM restores a vCPU, in an order of its own."""
        task, nr, values = self.vmm(n), self.idle_vcpu(vcpu), self.domains
        calls = (
            kvm.KvmSetMsrs(task, nr, values.msrs.value(msrs)),
            kvm.KvmSetXcrs(task, nr, values.xcr0.value(xcr0)),
            xsave.KvmSetXsave(task, nr, values.image.value(image)),
        )
        for call in _ORDERS[order]:
            self.do(calls[call])

    @on("idle_tasks", n=targets, vcpu=targets, buffer=picks)
    def kvm_get_xsave(self, n: int, vcpu: int, buffer: int) -> None:
        """KVM_GET_XSAVE."""
        self.do(xsave.KvmGetXsave(self.vmm(n), self.idle_vcpu(vcpu), self.domains.buffer.value(buffer)))

    @on("idle_tasks", n=targets, vcpu=targets, buffer=picks)
    def kvm_get_xsave2(self, n: int, vcpu: int, buffer: int) -> None:
        """KVM_GET_XSAVE2."""
        self.do(xsave.KvmGetXsave2(self.vmm(n), self.idle_vcpu(vcpu), self.domains.buffer.value(buffer)))

    @on("idle_tasks", n=targets, vcpu=targets, token=tokens)
    def kvm_set_fpu(self, n: int, vcpu: int, token: int) -> None:
        """KVM_SET_FPU."""
        self.do(xsave.KvmSetFpu(self.vmm(n), self.idle_vcpu(vcpu), token))

    @on("idle_tasks", n=targets, vcpu=targets)
    def kvm_get_fpu(self, n: int, vcpu: int) -> None:
        """KVM_GET_FPU."""
        self.do(xsave.KvmGetFpu(self.vmm(n), self.idle_vcpu(vcpu)))
