"""/dev/kvm, VM and vCPU ioctls, but for KVM_RUN."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.engines.rules.base import Rules, on, one
from xfdfuzz.engines.rules.situation import msrs_of
from xfdfuzz.kernel.state import VECTORS
from xfdfuzz.program.fields import Events
from xfdfuzz.program.ops import guest, kvm, protected, run, xsave
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import Range, targets


class IoctlRules(Rules):
    """/dev/kvm, VM and vCPU ioctls, but for KVM_RUN."""

    SHARE = 6

    kvm_create_vm = one(kvm.KvmCreateVm, on="tasks")
    kvm_get_supported_cpuid = one(kvm.KvmGetSupportedCpuid, on="tasks")
    kvm_get_supported_cpuid_entry = one(kvm.KvmGetSupportedCpuidEntry, on="tasks")
    kvm_get_device_attr = one(kvm.KvmGetDeviceAttr, on="tasks")
    kvm_has_device_attr = one(kvm.KvmHasDeviceAttr, on="tasks")
    kvm_get_msr_index_list = one(kvm.KvmGetMsrIndexList, on="tasks")
    kvm_create_irqchip = one(kvm.KvmCreateIrqchip, on="vm_calls")
    kvm_create_vcpu = one(kvm.KvmCreateVcpu, on="vm_calls")
    kvm_create_vm_of_type = one(protected.KvmCreateVmOfType, on="tasks")
    kvm_sev_es_init = one(protected.KvmSevEsInit, on="vm_calls")
    kvm_sev_launch_update_vmsa = one(protected.KvmSevLaunchUpdateVmsa, on="closable")
    kvm_sev_snp_launch_start = one(protected.KvmSevSnpLaunchStart, on="vm_calls")
    kvm_sev_snp_launch_finish = one(protected.KvmSevSnpLaunchFinish, on="closable")

    @on("closable", n=targets)
    def seal_and_run(self, n: int) -> Iterator[Op]:
        """A VMM has its guest sealed, and runs it."""
        task, vm = self.choice("closable", n)
        # which an INIT can be sent to: KVM sees their registers
        open_to_kvm = self.now.vcpus
        yield protected.KvmSevLaunchUpdateVmsa(task, vm)
        sealed = [nr for nr in open_to_kvm if nr not in self.now.vcpus and (task, nr) in self.now.run_calls]
        if sealed:
            yield run.KvmRun(task, sealed[0])
            if sealed[0] in self.now.ready:
                yield run.VmEnter(sealed[0])

    @on("sealed_calls", n=targets)
    def look_at_sealed(self, n: int) -> Iterator[Op]:
        """A VMM reads what KVM gives of a sealed guest, the MSRs that the processor switches among it."""
        task, nr = self.choice("sealed_calls", n)
        for msr in msrs_of(True, self.run.machine.cet):
            yield kvm.KvmGetMsrs(task, nr, msr)
        yield xsave.KvmGetXsave2(task, nr)
        yield xsave.KvmGetFpu(task, nr)

    @on("protected_guests", n=targets)
    def stop_protected(self, n: int) -> Iterator[Op]:
        """A guest that KVM cannot see stops, and its VMM is told."""
        nr = self.choice("protected_guests", n)
        yield guest.GuestHlt(nr)
        if nr in self.now.pending:
            yield run.HandleExit(nr)
        if self.now.returning:
            yield run.KvmRunReturns(self.now.returning[0])

    kvm_move_enc_context_from = one(protected.KvmMoveEncContextFrom, on="moves")

    @on("moving", n=targets)
    def migrate_within_host(self, n: int) -> Iterator[Op]:
        """A VMM makes a VM that takes over the guest of another one."""
        task, source, own_type = self.choice("moving", n)
        yield protected.KvmCreateVmOfType(task, init2=0) if own_type else kvm.KvmCreateVm(task)
        made = [vm for nr, vm, other in self.now.moves if nr == task and other == source]
        if made:
            yield kvm.KvmCreateVcpu(task, made[-1], 0)
            yield protected.KvmMoveEncContextFrom(task, made[-1], source)

    close_vm = one(kvm.CloseVm, on="closable")
    kvm_set_cpuid2 = one(kvm.KvmSetCpuid2, on="vcpu_calls")
    kvm_set_cpuid2_supported = one(kvm.KvmSetCpuid2Supported, on="vcpu_calls")
    kvm_get_cpuid2 = one(kvm.KvmGetCpuid2, on="vcpu_calls")
    kvm_get_cpuid2_entry = one(kvm.KvmGetCpuid2Entry, on="vcpu_calls")
    kvm_set_sregs = one(kvm.KvmSetSregs, on="vcpu_calls")
    kvm_get_sregs = one(kvm.KvmGetSregs, on="vmm_calls")
    kvm_set_regs = one(kvm.KvmSetRegs, on="vcpu_calls")
    kvm_get_vcpu_events = one(kvm.KvmGetVcpuEvents, on="vmm_calls")
    kvm_set_vcpu_events = one(kvm.KvmSetVcpuEvents, on="vmm_calls")
    kvm_get_nested_state = one(kvm.KvmGetNestedState, on="vmm_calls")
    kvm_set_nested_state = one(kvm.KvmSetNestedState, on="nesting_calls")
    kvm_enable_cap_exception_payload = one(kvm.KvmEnableCapExceptionPayload, on="vm_calls")
    kvm_set_xcrs = one(kvm.KvmSetXcrs, on="vcpu_calls")
    kvm_get_xcrs = one(kvm.KvmGetXcrs, on="vcpu_calls")
    kvm_set_msrs = one(kvm.KvmSetMsrs, on="vcpu_calls")
    kvm_get_msrs = one(kvm.KvmGetMsrs, on="vcpu_calls")
    kvm_get_mp_state = one(kvm.KvmGetMpState, on="vcpu_calls")
    kvm_set_mp_state = one(kvm.KvmSetMpState, on="vmm_calls_of_l1")

    @on("tasks", n=targets)
    def create_vm_with_ap(self, n: int) -> Iterator[Op]:
        """A VMM makes a VM with an application processor."""
        task = self.choice("tasks", n)
        before = self.now.vm_calls
        yield kvm.KvmCreateVm(task)
        for vm in {vm for nr, vm in self.now.vm_calls if nr == task and (nr, vm) not in before}:
            yield kvm.KvmCreateIrqchip(task, vm)
            yield kvm.KvmCreateVcpu(task, vm, 1)

    @on("uninitialized_calls", n=targets)
    def start_ap(self, n: int) -> Iterator[Op]:
        """The bootstrap processor starts another one by INIT and SIPI, while that one's KVM_RUN waits."""
        task, nr = self.choice("uninitialized_calls", n)
        yield run.KvmRun(task, nr)
        yield guest.PendInit(nr)
        if task in self.now.returning:
            yield run.KvmRunReturns(task)
            yield run.KvmRun(task, nr)
        yield guest.PendSipi(nr)
        if nr in self.now.waking:
            yield run.Wakeup(nr)
        if nr in self.now.ready:
            yield run.VmEnter(nr)

    @on("vmm_calls_of_l1", n=targets, vector=Range(0, len(VECTORS) - 1))
    def kvm_set_vcpu_events_pending(self, n: int, vector: int) -> Iterator[Op]:
        """KVM_SET_VCPU_EVENTS with an exception that is pending."""
        task, nr = self.choice("vmm_calls_of_l1", n)
        yield kvm.KvmSetVcpuEvents(task, nr, Events(pending=[*VECTORS][vector]))

    @on("vmm_calls_of_l1", n=targets)
    def kvm_set_vcpu_events_latched(self, n: int) -> Iterator[Op]:
        """KVM_SET_VCPU_EVENTS with an INIT that is latched."""
        task, nr = self.choice("vmm_calls_of_l1", n)
        yield kvm.KvmSetVcpuEvents(task, nr, Events(latched_init=True))
