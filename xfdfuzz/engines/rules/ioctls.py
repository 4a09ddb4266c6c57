"""/dev/kvm, VM and vCPU ioctls, but for KVM_RUN."""

from __future__ import annotations

from xfdfuzz.engines.rules.base import Rules, on
from xfdfuzz.program.fields import Sregs
from xfdfuzz.program.ops import kvm
from xfdfuzz.strategies.values import flags, picks, targets


class IoctlRules(Rules):
    """/dev/kvm, VM and vCPU ioctls, but for KVM_RUN."""

    SHARE = 6

    @on("tasks", n=targets)
    def kvm_create_vm(self, n: int) -> None:
        """KVM_CREATE_VM."""
        self.do(kvm.KvmCreateVm(self.task(n)))

    @on("tasks", n=targets)
    def kvm_get_supported_cpuid(self, n: int) -> None:
        """KVM_GET_SUPPORTED_CPUID."""
        self.do(kvm.KvmGetSupportedCpuid(self.task(n)))

    @on("tasks", n=targets, attr=picks)
    def kvm_get_device_attr(self, n: int, attr: int) -> None:
        """KVM_GET_DEVICE_ATTR."""
        group, number = self.domains.device_attr.value(attr)
        self.do(kvm.KvmGetDeviceAttr(self.task(n), group, number, attr % 16 == 15))

    @on("tasks", n=targets, attr=picks)
    def kvm_has_device_attr(self, n: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR."""
        self.do(kvm.KvmHasDeviceAttr(self.task(n), *self.domains.device_attr.value(attr)))

    @on("tasks", n=targets, msr=picks)
    def kvm_get_msr_index_list(self, n: int, msr: int) -> None:
        """KVM_GET_MSR_INDEX_LIST."""
        self.do(kvm.KvmGetMsrIndexList(self.task(n), self.domains.msr.value(msr)))

    @on("vm_tasks", n=targets, vm=targets, vcpu_id=picks)
    def kvm_create_vcpu(self, n: int, vm: int, vcpu_id: int) -> None:
        """KVM_CREATE_VCPU."""
        nr = self.now.vms[vm % len(self.now.vms)]
        self.do(kvm.KvmCreateVcpu(self.vmm(n), nr, self.domains.vcpu_id.value(vcpu_id)))

    @on("vm_tasks", n=targets, vm=targets)
    def close_vm(self, n: int, vm: int) -> None:
        """close() of a VM and its vCPUs."""
        self.do(kvm.CloseVm(self.vmm(n), self.now.vms[vm % len(self.now.vms)]))

    @on("idle_tasks", n=targets, vcpu=targets, entries=picks)
    def kvm_set_cpuid2(self, n: int, vcpu: int, entries: int) -> None:
        """KVM_SET_CPUID2."""
        self.do(kvm.KvmSetCpuid2(self.vmm(n), self.idle_vcpu(vcpu), self.domains.cpuid.value(entries)))

    @on("idle_tasks", n=targets, vcpu=targets)
    def kvm_set_cpuid2_supported(self, n: int, vcpu: int) -> None:
        """KVM_SET_CPUID2 of what is supported."""
        self.do(kvm.KvmSetCpuid2Supported(self.vmm(n), self.idle_vcpu(vcpu)))

    @on("idle_tasks", n=targets, vcpu=targets)
    def kvm_get_cpuid2(self, n: int, vcpu: int) -> None:
        """KVM_GET_CPUID2."""
        self.do(kvm.KvmGetCpuid2(self.vmm(n), self.idle_vcpu(vcpu)))

    @on("idle_tasks", n=targets, vcpu=targets, osxsave=flags)
    def kvm_set_sregs(self, n: int, vcpu: int, osxsave: bool) -> None:
        """KVM_SET_SREGS."""
        self.do(kvm.KvmSetSregs(self.vmm(n), self.idle_vcpu(vcpu), Sregs(osxsave)))

    @on("idle_tasks", n=targets, vcpu=targets, xcr0=picks)
    def kvm_set_xcrs(self, n: int, vcpu: int, xcr0: int) -> None:
        """KVM_SET_XCRS."""
        self.do(kvm.KvmSetXcrs(self.vmm(n), self.idle_vcpu(vcpu), self.domains.xcr0.value(xcr0)))

    @on("idle_tasks", n=targets, vcpu=targets)
    def kvm_get_xcrs(self, n: int, vcpu: int) -> None:
        """KVM_GET_XCRS."""
        self.do(kvm.KvmGetXcrs(self.vmm(n), self.idle_vcpu(vcpu)))

    @on("idle_tasks", n=targets, vcpu=targets, msrs=picks)
    def kvm_set_msrs(self, n: int, vcpu: int, msrs: int) -> None:
        """KVM_SET_MSRS."""
        self.do(kvm.KvmSetMsrs(self.vmm(n), self.idle_vcpu(vcpu), self.domains.msrs.value(msrs)))

    @on("idle_tasks", n=targets, vcpu=targets, msr=picks)
    def kvm_get_msrs(self, n: int, vcpu: int, msr: int) -> None:
        """KVM_GET_MSRS."""
        self.do(kvm.KvmGetMsrs(self.vmm(n), self.idle_vcpu(vcpu), self.domains.msr.value(msr)))

    @on("idle_tasks", n=targets, vcpu=targets)
    def kvm_get_mp_state(self, n: int, vcpu: int) -> None:
        """KVM_GET_MP_STATE."""
        self.do(kvm.KvmGetMpState(self.vmm(n), self.idle_vcpu(vcpu)))
