"""The Hypothesis state machine: one rule per op.

A rule draws small numbers only; which vCPU, task or value they mean is looked up in the state, so that a rule is never
drawn in vain and its arguments shrink towards the first of everything.  :class:`Situation` is that look-up, made once
per step, and the preconditions read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR
from xfdfuzz.engines.campaign import Campaign, Run
from xfdfuzz.engines.selection import SituatedRules
from xfdfuzz.engines.situation import Situation
from xfdfuzz.program.fields import Drop, Null, Undefined
from xfdfuzz.program.ops import guest, host, kvm, run, tasks
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.boots import BOOTS
from xfdfuzz.strategies.machines import MACHINES
from xfdfuzz.strategies.values import domains, picks, targets

tokens = st.integers(1, 3)
flags = st.booleans()


#: Which list of the situation each rule needs.
CONDITIONS: dict[str, str] = {}

_F = TypeVar("_F", bound=Callable[..., None])


def on(condition: str, **arguments: st.SearchStrategy[Any]) -> Callable[[_F], _F]:
    """A rule that is enabled while the situation's list named ``condition`` is not empty."""

    def declare(function: _F) -> _F:
        CONDITIONS[function.__name__] = condition
        needed = precondition(lambda self: bool(getattr(self.now, condition)))
        declared: _F = needed(rule(**arguments)(function))  # type: ignore[call-overload]
        return declared

    return declare


class KernelMachine(RuleBasedStateMachine):
    """Everything that user space, guests, the scheduler and interrupts can do to one revision.

    ``campaign`` says which revision, counts, and decides which violations are news; a subclass sets it
    (:func:`xfdfuzz.engines.fuzz.state_machine`).
    """

    campaign: ClassVar[Campaign]

    def __init__(self) -> None:
        super().__init__()
        self._rules_strategy = SituatedRules(self, CONDITIONS)  # type: ignore[assignment]
        self.run: Run | None = None
        self.now = Situation.nothing()

    @initialize(machine=st.sampled_from(MACHINES), boot=st.sampled_from(BOOTS))
    def power_on(self, machine: Any, boot: Any) -> None:
        """Boot the kernel on a machine, with a first stretch of a program."""
        self.run = Run(self.campaign, machine)
        self.domains = domains(machine)
        for op in boot(machine):
            self.run.execute(op)
        self.now = Situation.of(self.run.executor.kernel)

    def do(self, op: Op) -> None:
        """Execute and judge one op; a violation that is news raises."""
        assert self.run is not None
        self.run.execute(op)
        self.now = Situation.of(self.run.executor.kernel)

    def teardown(self) -> None:
        """Drain the program and count it."""
        if self.run is not None:
            self.run.finish()

    def task(self, n: int) -> int:
        """A task that can make a system call."""
        return self.now.tasks[n % len(self.now.tasks)]

    def vmm(self, n: int) -> int:
        """A task that shares a VM's address space, or once in a while one that does not."""
        choice = self.now.tasks if n == 3 else self.now.vm_tasks
        return choice[n % len(choice)]

    def idle_vcpu(self, n: int) -> int:
        """A vCPU outside KVM_RUN."""
        return self.now.idle[n % len(self.now.idle)]

    def guest(self, n: int) -> int:
        """A vCPU that executes its guest."""
        return self.now.guests[n % len(self.now.guests)]

    @on("dead")
    def host_is_dead(self) -> None:
        """Nothing happens any more."""

    # -- system calls --------------------------------------------------------------------------------------------

    @on("tasks", n=targets, null=flags)
    def arch_get_xcomp_supp(self, n: int, null: bool) -> None:
        """ARCH_GET_XCOMP_SUPP."""
        self.do(tasks.GetXcompSupp(self.task(n), Null(null)))

    @on("tasks", n=targets, null=flags)
    def arch_get_xcomp_perm(self, n: int, null: bool) -> None:
        """ARCH_GET_XCOMP_PERM."""
        self.do(tasks.GetXcompPerm(self.task(n), Null(null)))

    @on("tasks", n=targets, null=flags)
    def arch_get_xcomp_guest_perm(self, n: int, null: bool) -> None:
        """ARCH_GET_XCOMP_GUEST_PERM."""
        self.do(tasks.GetXcompGuestPerm(self.task(n), Null(null)))

    @on("tasks", n=targets, facility=picks)
    def arch_req_xcomp_perm(self, n: int, facility: int) -> None:
        """ARCH_REQ_XCOMP_PERM."""
        self.do(tasks.ReqXcompPerm(self.task(n), self.domains.facility.value(facility)))

    @on("tasks", n=targets, facility=picks, undefined=flags)
    def arch_req_xcomp_guest_perm(self, n: int, facility: int, undefined: bool) -> None:
        """ARCH_REQ_XCOMP_GUEST_PERM."""
        garbage = Undefined(7 if undefined else 0)
        self.do(tasks.ReqXcompGuestPerm(self.task(n), self.domains.facility.value(facility), garbage))

    @on("tasks", n=targets, size=picks)
    def sigaltstack(self, n: int, size: int) -> None:
        """sigaltstack()."""
        self.do(tasks.Sigaltstack(self.task(n), self.domains.altstack.value(size)))

    @on("tasks", n=targets)
    def clone_thread(self, n: int) -> None:
        """clone(CLONE_THREAD)."""
        self.do(tasks.CloneThread(self.task(n)))

    @on("tasks", n=targets)
    def clone_vm(self, n: int) -> None:
        """clone(CLONE_VM)."""
        self.do(tasks.CloneVm(self.task(n)))

    @on("tasks", n=targets)
    def return_to_user(self, n: int) -> None:
        """Back to user mode."""
        self.do(tasks.ReturnToUser(self.task(n)))

    @on("tasks", n=targets, token=tokens)
    def user_vmovups(self, n: int, token: int) -> None:
        """AVX in user mode."""
        self.do(tasks.UserVmovups(self.task(n), token))

    @on("tasks", n=targets, token=tokens)
    def user_ldtilecfg(self, n: int, token: int) -> None:
        """LDTILECFG in user mode."""
        self.do(tasks.UserLdtilecfg(self.task(n), token))

    @on("tasks", n=targets, token=tokens)
    def user_tileload(self, n: int, token: int) -> None:
        """TILELOADD in user mode."""
        self.do(tasks.UserTileload(self.task(n), token))

    @on("tasks", n=targets)
    def user_tilerelease(self, n: int) -> None:
        """TILERELEASE in user mode."""
        self.do(tasks.UserTilerelease(self.task(n)))

    @on("dyn2_tasks", n=targets, token=tokens)
    def user_dyn2load(self, n: int, token: int) -> None:
        """The synthetic feature in user mode."""
        self.do(tasks.UserDyn2load(self.task(n), token))

    # -- ioctls --------------------------------------------------------------------------------------------------

    @on("tasks", n=targets)
    def kvm_create_vm(self, n: int) -> None:
        """KVM_CREATE_VM."""
        self.do(kvm.KvmCreateVm(self.task(n)))

    @on("tasks", n=targets)
    def kvm_get_supported_cpuid(self, n: int) -> None:
        """KVM_GET_SUPPORTED_CPUID."""
        self.do(kvm.KvmGetSupportedCpuid(self.task(n)))

    @on("tasks", n=targets)
    def kvm_check_xsave2(self, n: int) -> None:
        """KVM_CAP_XSAVE2 of /dev/kvm."""
        self.do(kvm.KvmCheckXsave2(self.task(n)))

    @on("vm_tasks", n=targets, vm=targets)
    def kvm_vm_check_xsave2(self, n: int, vm: int) -> None:
        """KVM_CAP_XSAVE2 of a VM."""
        self.do(kvm.KvmVmCheckXsave2(self.vmm(n), self.now.vms[vm % len(self.now.vms)]))

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

    @on("idle_tasks", n=targets, vcpu=targets, err=flags)
    def kvm_get_msrs(self, n: int, vcpu: int, err: bool) -> None:
        """KVM_GET_MSRS."""
        self.do(kvm.KvmGetMsrs(self.vmm(n), self.idle_vcpu(vcpu), MSR_IA32_XFD_ERR if err else MSR_IA32_XFD))

    @on("idle_tasks", n=targets, vcpu=targets, image=picks)
    def kvm_set_xsave(self, n: int, vcpu: int, image: int) -> None:
        """KVM_SET_XSAVE."""
        self.do(kvm.KvmSetXsave(self.vmm(n), self.idle_vcpu(vcpu), self.domains.image.value(image)))

    @on("idle_tasks", n=targets, vcpu=targets)
    def kvm_get_xsave(self, n: int, vcpu: int) -> None:
        """KVM_GET_XSAVE."""
        self.do(kvm.KvmGetXsave(self.vmm(n), self.idle_vcpu(vcpu)))

    @on("idle_tasks", n=targets, vcpu=targets)
    def kvm_get_xsave2(self, n: int, vcpu: int) -> None:
        """KVM_GET_XSAVE2."""
        self.do(kvm.KvmGetXsave2(self.vmm(n), self.idle_vcpu(vcpu)))

    @on("idle_tasks", n=targets, vcpu=targets, token=tokens)
    def kvm_set_fpu(self, n: int, vcpu: int, token: int) -> None:
        """KVM_SET_FPU."""
        self.do(kvm.KvmSetFpu(self.vmm(n), self.idle_vcpu(vcpu), token))

    @on("idle_tasks", n=targets, vcpu=targets)
    def kvm_get_fpu(self, n: int, vcpu: int) -> None:
        """KVM_GET_FPU."""
        self.do(kvm.KvmGetFpu(self.vmm(n), self.idle_vcpu(vcpu)))

    @on("idle_tasks", n=targets, vcpu=targets)
    def kvm_get_mp_state(self, n: int, vcpu: int) -> None:
        """KVM_GET_MP_STATE."""
        self.do(kvm.KvmGetMpState(self.vmm(n), self.idle_vcpu(vcpu)))

    # -- KVM_RUN -------------------------------------------------------------------------------------------------

    @on("idle_tasks", n=targets, vcpu=targets)
    def kvm_run(self, n: int, vcpu: int) -> None:
        """KVM_RUN begins."""
        self.do(run.KvmRun(self.vmm(n), self.idle_vcpu(vcpu)))

    @on("ready", vcpu=targets)
    def vm_enter(self, vcpu: int) -> None:
        """VM entry."""
        self.do(run.VmEnter(self.now.ready[vcpu % len(self.now.ready)]))

    @on("pending", vcpu=targets)
    def handle_exit(self, vcpu: int) -> None:
        """The pending exit is handled."""
        self.do(run.HandleExit(self.now.pending[vcpu % len(self.now.pending)]))

    @on("returning", n=targets)
    def kvm_run_returns(self, n: int) -> None:
        """KVM_RUN returns."""
        self.do(run.KvmRunReturns(self.now.returning[n % len(self.now.returning)]))

    # -- guest ---------------------------------------------------------------------------------------------------

    @on("guests", vcpu=targets, token=tokens)
    def guest_vmovups(self, vcpu: int, token: int) -> None:
        """AVX."""
        self.do(guest.GuestVmovups(self.guest(vcpu), token))

    @on("guests", vcpu=targets, token=tokens)
    def guest_ldtilecfg(self, vcpu: int, token: int) -> None:
        """LDTILECFG."""
        self.do(guest.GuestLdtilecfg(self.guest(vcpu), token))

    @on("guests", vcpu=targets, token=tokens)
    def guest_tileload(self, vcpu: int, token: int) -> None:
        """TILELOADD."""
        self.do(guest.GuestTileload(self.guest(vcpu), token))

    @on("guests", vcpu=targets)
    def guest_tilerelease(self, vcpu: int) -> None:
        """TILERELEASE."""
        self.do(guest.GuestTilerelease(self.guest(vcpu)))

    @on("dyn2_guests", vcpu=targets, token=tokens)
    def guest_dyn2load(self, vcpu: int, token: int) -> None:
        """The synthetic feature."""
        self.do(guest.GuestDyn2load(self.guest(vcpu), token))

    @on("guests", vcpu=targets, mask=picks)
    def guest_xsavec(self, vcpu: int, mask: int) -> None:
        """XSAVEC."""
        self.do(guest.GuestXsavec(self.guest(vcpu), self.domains.xfeatures.value(mask)))

    @on("guests", vcpu=targets, mask=picks, bv=picks, token=tokens)
    def guest_xrstor(self, vcpu: int, mask: int, bv: int, token: int) -> None:
        """XRSTOR."""
        values = self.domains.xfeatures
        self.do(guest.GuestXrstor(self.guest(vcpu), values.value(mask), values.value(bv), token))

    @on("guests", vcpu=targets, value=picks, drop=flags)
    def guest_wrmsr_xfd(self, vcpu: int, value: int, drop: bool) -> None:
        """WRMSR of IA32_XFD."""
        self.do(guest.GuestWrmsr(self.guest(vcpu), MSR_IA32_XFD, self.domains.xfd.value(value), Drop(drop)))

    @on("guests", vcpu=targets, value=picks)
    def guest_wrmsr_xfd_err(self, vcpu: int, value: int) -> None:
        """WRMSR of IA32_XFD_ERR."""
        self.do(guest.GuestWrmsr(self.guest(vcpu), MSR_IA32_XFD_ERR, self.domains.xfd.value(value)))

    @on("guests", vcpu=targets, err=flags)
    def guest_rdmsr(self, vcpu: int, err: bool) -> None:
        """RDMSR."""
        self.do(guest.GuestRdmsr(self.guest(vcpu), MSR_IA32_XFD_ERR if err else MSR_IA32_XFD))

    @on("guests", vcpu=targets, xcr0=picks)
    def guest_xsetbv(self, vcpu: int, xcr0: int) -> None:
        """XSETBV."""
        self.do(guest.GuestXsetbv(self.guest(vcpu), self.domains.xcr0.value(xcr0)))

    @on("guests", vcpu=targets)
    def guest_stts(self, vcpu: int) -> None:
        """CR0.TS = 1."""
        self.do(guest.GuestStts(self.guest(vcpu)))

    @on("guests", vcpu=targets)
    def guest_clts(self, vcpu: int) -> None:
        """CR0.TS = 0."""
        self.do(guest.GuestClts(self.guest(vcpu)))

    @on("guests", vcpu=targets)
    def guest_hlt(self, vcpu: int) -> None:
        """HLT."""
        self.do(guest.GuestHlt(self.guest(vcpu)))

    @on("guests", vcpu=targets)
    def guest_out(self, vcpu: int) -> None:
        """OUT."""
        self.do(guest.GuestOut(self.guest(vcpu)))

    @on("guests", vcpu=targets)
    def guest_interrupt(self, vcpu: int) -> None:
        """An external interrupt."""
        self.do(guest.GuestInterrupt(self.guest(vcpu)))

    @on("guests", vcpu=targets)
    def guest_interrupt_kernel_fpu(self, vcpu: int) -> None:
        """An external interrupt whose softirq uses the FPU."""
        self.do(guest.GuestInterruptKernelFpu(self.guest(vcpu)))

    # -- host ----------------------------------------------------------------------------------------------------

    @on("schedulable", n=st.integers(0, 7))
    def schedule(self, n: int) -> None:
        """Preemption in favour of a user task."""
        self.do(host.Schedule(*self.now.schedulable[n % len(self.now.schedulable)]))

    @on("away", n=targets)
    def schedule_vmm(self, n: int) -> None:
        """Preemption in favour of a VMM's thread, so that a program comes back to its point."""
        self.do(host.Schedule(*self.now.away[n % len(self.now.away)]))

    @on("kthread_cpus", n=targets)
    def schedule_kthread(self, n: int) -> None:
        """Preemption in favour of a kernel thread."""
        self.do(host.ScheduleKthread(self.now.kthread_cpus[n % len(self.now.kthread_cpus)]))

    @on("host_cpus", n=targets)
    def softirq_kernel_fpu(self, n: int) -> None:
        """A softirq uses the FPU."""
        self.do(host.SoftirqKernelFpu(self.now.host_cpus[n % len(self.now.host_cpus)]))

    @on("xfd_cpus", n=targets, err=flags)
    def host_rdmsr(self, n: int, err: bool) -> None:
        """RDMSR in the host."""
        cpu = self.now.xfd_cpus[n % len(self.now.xfd_cpus)]
        self.do(host.HostRdmsr(cpu, MSR_IA32_XFD_ERR if err else MSR_IA32_XFD))

    @on("alive", count=st.integers(0, 2))
    def fail_alloc(self, count: int) -> None:
        """Allocations fail."""
        self.do(host.FailAlloc(count))
