"""Who can do what now: the lists that the rules choose from, looked up at every step.

Tasks, vCPUs and CPUs are looked at apart, each as far as it reads some bytes of the system, and remembered by them: few
steps lead to tasks, or vCPUs, or CPUs, that were not there before, while their combinations are many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import CET_MSRS, MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.memory.cstruct import Regions
from xfdfuzz.program.ghost import TENANTS
from xfdfuzz.program.ops import processes, run, signals, vmm
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.ops.protected import is_busy

_UNINITIALIZED = st.KVM_MP_STATE_UNINITIALIZED

#: Lists by the names that rules know them by.
Lists = dict[str, list[Any]]


class Situation:
    """Task, vCPU, VM and CPU numbers by what they can do; an op on one of a list can happen.

    ``tasks`` can make a system call, ``long_mode`` those of them that are 64-bit programs, ``cloning`` are the same as
    ``tasks`` while there is room for one more, ``execs`` are inside execve(); ``leaving`` may exit without taking a
    vCPU along, ``exec_ready`` also execute something else, ``ia32_ready`` those with nothing that a 32-bit program
    would give up.
    ``handlers`` are in a signal handler (``long_mode_handlers`` and ``ia32_handlers`` those of 64-bit and of 32-bit
    programs), ``signalable`` tasks have room for one more, ``nesting`` ones both; ``signalled`` are about to be in one,
    ``faulting`` are on their way out, in a page fault.  ``frames`` are (task, frame) pairs of all that is on their
    stacks but for the innermost handler's, ``left_frames`` those of other handlers that they are in, ``copies`` those
    of tasks that are in a handler.  ``own_frames`` have made a frame of their own, ``own_copies`` are (task, frame)
    pairs of what they have on their stacks; ``own_returns`` can return by it, ``makers`` by one that leaves
    the alternate stack alone.
    ``traces`` are (tracer, tracee) pairs, ``ia32_traces`` those of which one is a 32-bit program, ``distant_traces``
    (tracer, its CPU, another CPU) whose task can stop there, while the tracer is on its CPU or can be; ``stopped`` the
    tracees, ``computing`` those of them that leave the kernel when they run, ``lookups`` (reader, task) pairs and
    ``kthread_lookups`` (reader, CPU) pairs; ``kept_tasks`` those of which a tracer keeps an image.
    ``dumps`` are (task, thread of its process) pairs: the process can dump core.
    ``workers`` are on a CPU, and in none of these lists but as tracees and as what is looked up.
    ``suspenders`` can ask for suspend.

    ``vm_calls`` are (task, VM) pairs: the task has the VM open and mostly shares its address space, but one in four has
    it from before a fork; ``closable`` those whose VM has no vCPU in KVM_RUN, ``moving`` such that have a sealed SEV-ES
    guest, each once, with whether the VM is of a type of its own, ``moves`` are (task, VM, another) that may take it
    over from the other.  ``vcpu_calls`` are (task, vCPU) pairs likewise, of vCPUs outside KVM_RUN, ``sealed_calls``
    those of protected guests.

    ``vmm_calls`` are those of them whose state the VMM can see, each once, ``vmm_calls_of_l1`` such that are not in L2,
    ``nesting_calls`` such for which no exception is pending;
    ``twins`` are (task, vCPU, another) whose ioctls the task can call, ``old_vcpus`` those outside KVM_RUN that can get
    another tenant; ``loads`` are the ops that write what a VMM keeps, ``vmm_steps`` these and all others of VMMs.

    ``aps`` are application processors, ``vcpus`` can get an INIT, ``sipi_targets`` a SIPI, ``ready`` ones can enter the
    guest, ``waking`` ones come to that later, ``pending`` ones have an exit to handle, ``guests``
    execute the guest, ``l1_guests`` one that can launch L2, ``protected_guests`` one that KVM cannot see, which is in
    no other of these but ``sev_guests``, those that are no TDs; ``run_calls`` are those of ``vcpu_calls`` that can run,
    ``uninitialized_calls`` those of vCPUs that wait for INIT;
    ``returning`` are tasks whose KVM_RUN can return.

    ``kernel_fpu`` are tasks that use the FPU in the kernel, ``kernel_code`` those for which kernel code may begin to.

    ``schedulable`` are (CPU, task) pairs, ``preemptible`` those whose CPU has a user task, ``away`` those that bring
    back a VMM's thread, or one in the middle of a call.  ``host_cpus`` are online and execute no guest:
    ``kthread_cpus`` a user task, ``idle_cpus`` none; ``secondary_cpus`` can go offline, ``starting_cpus`` come online,
    ``kthreads`` are the CPUs that run a kernel thread, among them; ``leaving_cpus`` can leave their user task,
    ``softirq_cpus`` run a softirq.  ``movable`` are (CPU with a user task, idle CPU)
    pairs, ``current`` is each CPU's task; ``roaming`` are those of ``movable`` whose task is inside a call that is cut
    in two, with the op that goes on with it.

    ``dyn2_*``, ``apx_*``, ``cet_*``, ``pasid_*``, ``lbr_*`` and ``xfd_*`` are on a machine with that feature only.

    ``possible`` are the names of the lists that are not empty, and ``alive``, or ``dead`` if the host is.
    """

    possible: frozenset[str]
    tasks: list[int]
    cloning: list[int]
    vforking: list[int]
    execs: list[int]
    leaving: list[int]
    dumps: list[tuple[int, int]]
    exec_ready: list[int]
    ia32_ready: list[int]
    signalable: list[int]
    signalled: list[int]
    handlers: list[int]
    nesting: list[int]
    frames: list[tuple[int, int]]
    left_frames: list[tuple[int, int]]
    copies: list[tuple[int, int]]
    own_frames: list[int]
    own_copies: list[tuple[int, int]]
    own_returns: list[int]
    makers: list[int]
    faulting: list[int]
    long_mode: list[int]
    long_mode_handlers: list[int]
    ia32_handlers: list[int]
    ia32_traces: list[tuple[int, int]]
    traces: list[tuple[int, int]]
    kept_tasks: list[int]
    distant_traces: list[tuple[int, int, int]]
    stopped: list[int]
    computing: list[int]
    lookups: list[tuple[int, int]]
    kthread_lookups: list[tuple[int, int]]
    workers: list[int]
    suspenders: list[int]
    dyn2_tasks: list[int]
    apx_tasks: list[int]
    cet_tasks: list[int]
    pasid_tasks: list[int]
    lbr_tasks: list[int]
    lbr_guests: list[int]
    lbr_cpus: list[int]
    vm_calls: list[tuple[int, int]]
    closable: list[tuple[int, int]]
    moving: list[tuple[int, int, bool]]
    moves: list[tuple[int, int, int]]
    sealed_calls: list[tuple[int, int]]
    vcpu_calls: list[tuple[int, int]]
    vmm_calls: list[tuple[int, int]]
    vmm_calls_of_l1: list[tuple[int, int]]
    nesting_calls: list[tuple[int, int]]
    run_calls: list[tuple[int, int]]
    uninitialized_calls: list[tuple[int, int]]
    old_vcpus: list[int]
    twins: list[tuple[int, int, int]]
    loads: list[Op]
    aps: list[int]
    vmm_steps: list[Op]
    vcpus: list[int]
    ready: list[int]
    waking: list[int]
    sipi_targets: list[int]
    pending: list[int]
    returning: list[int]
    guests: list[int]
    l1_guests: list[int]
    protected_guests: list[int]
    sev_guests: list[int]
    dyn2_guests: list[int]
    cet_guests: list[int]
    cet_calls: list[tuple[int, int]]
    cet_traces: list[tuple[int, int]]
    schedulable: list[tuple[int, int]]
    preemptible: list[tuple[int, int]]
    away: list[tuple[int, int]]
    kernel_fpu: list[int]
    kernel_code: list[int]
    host_cpus: list[int]
    kthread_cpus: list[int]
    idle_cpus: list[int]
    secondary_cpus: list[int]
    starting_cpus: list[int]
    kthreads: list[int]
    leaving_cpus: list[int]
    softirq_cpus: list[int]
    xfd_cpus: list[int]
    movable: list[tuple[int, int]]
    roaming: list[tuple[int, int, Op]]
    current: list[int]

    def __init__(self, possible: frozenset[str], *lists: Lists) -> None:
        self.possible = possible
        for some in lists:
            vars(self).update(some)

    @staticmethod
    def nothing() -> Situation:
        """Before the machine is powered on."""
        return Situation(frozenset())

    @staticmethod
    def over() -> Situation:
        """After the death of the host."""
        return Situation(frozenset(["dead"]))

    @staticmethod
    def of(k: Kernel) -> Situation:
        """The situation of a system, worked out anew."""
        if k.system.dead:
            return Situation.over()
        cpus = look_at_cpus(k.machine.cpus, k.system)
        return _together(look_at_tasks(k.system), look_at_vcpus(k.system), cpus, Features.of(k.machine))


@dataclass(eq=False, slots=True)
class Look:
    """What was seen of one kind of thing; the same only if it is the same object.

    ``more`` is what :func:`_together` wants to know.
    """

    lists: Lists
    more: Lists = field(default_factory=dict)
    possible: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.possible = frozenset(_filled(self.lists))

    @property
    def content(self) -> object:
        """What two looks have in common that saw the same."""
        return tuple(tuple(some) for lists in (self.lists, self.more) for some in lists.values())


def _filled(lists: Lists) -> Iterable[str]:
    return (name for name, some in lists.items() if some)


def look_at_tasks(system: st.System) -> Look:
    """``open`` are (task, VM) pairs, ``waiting`` the tasks that the scheduler may choose, ``missed`` those of them that
    a VM, or a call that is cut in two, waits for; ``busy`` are inside such a call; ``groups`` are (task, its process)
    pairs, ``rest`` (task, op that goes on with the call) pairs."""
    tasks = [(nr, system.tasks[nr]) for nr in range(st.USER_TASKS) if system.tasks[nr].exists]
    at_work = [(nr, task) for nr, task in tasks if task.on_cpu]
    calling = [(nr, task) for nr, task in at_work if not (st.inside_call(task) or task.pf_user_worker)]
    free = [nr for nr, _ in calling]
    depths = {nr: st.handlers_of(system, nr) for nr in free}
    frames = [
        (nr, number)
        for nr, depth in depths.items()
        for number, frame in enumerate(st.sigframes_of(system, nr))
        if (frame.valid or frame.stale) and number != depth - 1 and not system.tasks[nr].shstk
    ]
    in_handler = [nr for nr in free if depths[nr]]
    without_shstk = [nr for nr in free if not system.tasks[nr].shstk]
    own_frames = [nr for nr in without_shstk if st.own_sigframe_of(system, nr).stale]
    on_altstack = {nr for nr in in_handler if st.sigframes_of(system, nr)[depths[nr] - 1].on_altstack}
    roomy = [nr for nr in free if not (st.altstack_begins_anew(system, nr) or st.may_overflow(system, nr))]
    signalable = [nr for nr in roomy if depths[nr] < st.NR_SIGFRAMES]
    waiting = [(nr, task) for nr, task in tasks if not (task.on_cpu or task.exit_state or task.vfork_child)]
    stopped = [nr for nr, task in waiting if not st.inside_call(task)]
    vms = [(nr, vm) for nr, vm in enumerate(system.vms) if vm.exists]
    mms = {vm.mm for _, vm in vms}
    awaited = [task.group_leader for _, task in tasks if task.pf_user_worker and st.in_section(task)]
    leaving = [nr for nr in free if system.tasks[nr].group_leader not in awaited and not _last_with_vcpus(system, nr)]
    opened = [(nr, task.mm, fds) for nr, task in calling if (fds := task.vm_fds)]
    calls = [((nr, vm), mm == of.mm) for nr, mm, fds in opened for vm, of in vms if fds >> vm & 1]
    in_call = [task.group_leader for _, task in tasks if task.kvm_run or task.in_execve or st.in_section(task)]
    exec_ready = [nr for nr in leaving if system.tasks[nr].group_leader not in in_call]
    ia32 = {nr for nr, task in tasks if task.ia32}
    groups = {nr: task.group_leader for nr, task in tasks}
    in_calls = {task.group_leader for _, task in tasks if st.inside_call(task)}
    alive = {
        leader: [nr for nr, task in tasks if task.group_leader == leader and not task.exit_state]
        for leader in groups.values()
    }
    traces = [(tracer, nr) for tracer in free for nr in stopped if groups[tracer] != groups[nr]]
    lists: Lists = {
        "tasks": free,
        "long_mode": [nr for nr in free if nr not in ia32],
        "ia32_traces": [(tracer, nr) for tracer, nr in traces if tracer in ia32 or nr in ia32],
        "cloning": free if len(tasks) < st.USER_TASKS else [],
        "vforking": [nr for nr in free if not depths[nr]] if len(tasks) < st.USER_TASKS else [],
        "execs": [nr for nr, task in at_work if task.in_execve],
        "leaving": leaving,
        "dumps": [(nr, other) for nr in leaving if groups[nr] not in in_calls for other in alive[groups[nr]]],
        "exec_ready": exec_ready,
        "ia32_ready": [nr for nr in exec_ready if nr not in ia32 and not _invested(system, nr)],
        "signalled": [nr for nr, task in at_work if task.in_signal],
        "faulting": [nr for nr, task in at_work if task.in_sigreturn],
        "framing": [nr for nr, task in at_work if task.in_sigframe],
        "kernel_fpu": [nr for nr, task in at_work if task.kernel_fpu],
        "handlers": in_handler,
        "long_mode_handlers": [nr for nr in in_handler if nr not in ia32],
        "ia32_handlers": [nr for nr in in_handler if nr in ia32],
        "signalable": signalable,
        "entering_altstack": [nr for nr in signalable if st.enters_altstack(system, nr)],
        "nesting": [nr for nr in signalable if depths[nr]],
        "frames": frames,
        "left_frames": [(nr, number) for nr, number in frames if number < depths[nr]],
        "copies": [(nr, number) for nr, number in frames if depths[nr]],
        "own_frames": own_frames,
        "own_copies": [
            (nr, number)
            for nr in own_frames
            for number, frame in enumerate(st.sigframes_of(system, nr))
            if frame.valid or frame.stale
        ],
        "own_returns": [nr for nr in own_frames if nr not in on_altstack],
        "makers": without_shstk,
        "stopped": stopped,
        "computing": [nr for nr in stopped if not system.tasks[nr].pf_user_worker],
        "lookups": [(reader, nr) for reader in free for nr, _ in tasks],
        "workers": [nr for nr, task in at_work if task.pf_user_worker and not st.in_section(task)],
        "traces": traces,
        "kept_tasks": [nr for nr in range(st.USER_TASKS) if system.ghost.tracers[nr].kept],
        "vm_calls": _mostly([pair for pair, own in calls if own], [pair for pair, own in calls if not own]),
    }
    more: Lists = {
        "waiting": [nr for nr, _ in waiting],
        "missed": [nr for nr, task in waiting if (task.mm in mms and not task.pf_user_worker) or nr not in stopped],
        "busy": [nr for nr, task in tasks if st.inside_call(task)],
        "groups": [*groups.items()],
        "rest": [(nr, op) for nr, task in tasks if (op := _rest_of_call(nr, task))],
    }
    return Look(lists, more)


def _rest_of_call(nr: int, task: st.Task) -> Op | None:
    """What goes on with the call that the task is inside of, other than KVM_RUN."""
    if task.in_execve:
        return processes.ExecveReturns(nr)
    if task.in_sigreturn:
        return signals.SigreturnFaultIn(nr)
    if task.in_sigframe:
        return signals.SignalFaultIn(nr)
    return signals.SignalDelivered(nr) if task.in_signal else None


def _invested(system: st.System, nr: int) -> bool:
    """Whether the task has a VM open, or may use dynamic features: a 32-bit program has less use for that."""
    task = system.tasks[nr]
    permitted = system.tasks[task.group_leader].fpu.perm.state_perm
    return bool(task.vm_fds or permitted & (xf.MASK_XTILE_DATA | xf.MASK_DYN2))


def _last_with_vcpus(system: st.System, nr: int) -> int:
    """The VMs with vCPUs that nobody but the task has open."""
    found = 0
    for vcpu in system.vcpus:
        if vcpu.exists:
            found |= 1 << vcpu.vm
    for other in range(st.USER_TASKS):
        fds = system.tasks[other].vm_fds
        found &= fds if other == nr else ~fds
    return found


def _mostly(own: list[tuple[int, int]], foreign: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """A list of which one in four are ``foreign``, where there are as many; none without an own one."""
    return own * 3 + foreign if own else []


def tells_of_cpuid(system: st.System, vcpu: int) -> bool:
    """Whether a protected guest asks KVM for CPUID."""
    return system.vms[system.vcpus[vcpu].vm].type in (st.VM_SEV_ES, st.VM_X86_SEV_ES_VM)


def look_at_vcpus(system: st.System) -> Look:
    """``idle`` are (vCPU, its VM) outside KVM_RUN, ``running`` the VMs of the others; ``rest`` as of tasks;
    ``in_kvm_run`` are tasks inside KVM_RUN, out of the guest; ``intents`` are ops; ``kept`` are (vCPU, class of op)
    pairs that write what a VMM keeps of it."""
    vcpus = [(nr, vcpu) for nr, vcpu in enumerate(system.vcpus) if vcpu.exists]
    sealed = [nr for nr, vcpu in vcpus if vcpu.arch.guest_state_protected]
    l1 = [
        nr
        for nr, vcpu in vcpus
        if not vcpu.arch.guest_mode and vcpu.exit_pending != st.EXIT_VMLAUNCH and nr not in sealed
    ]
    inside = [nr for nr, vcpu in vcpus if vcpu.mode == st.VCPU_IN_GUEST]
    guests = [nr for nr in inside if nr not in sealed]
    exited = [(nr, vcpu) for nr, vcpu in vcpus if vcpu.mode == st.VCPU_EXITED]
    threads = [(nr, vcpu, system.tasks[vcpu.task - 1]) for nr, vcpu in exited]
    at_work = [(nr, vcpu) for nr, vcpu, thread in threads if thread.on_cpu and not st.in_section(thread)]
    looping = [(nr, vcpu) for nr, vcpu in at_work if not (vcpu.exit_pending or vcpu.run_over)]
    plain = [nr for nr, vcpu in vcpus if system.vms[vcpu.vm].type == st.VM_DEFAULT and nr not in sealed]
    unsealed = [nr for nr, _ in vcpus if nr not in sealed]
    outside = [nr for nr, vcpu in vcpus if vcpu.mode == st.VCPU_OUTSIDE and nr in unsealed]
    vmms = system.ghost.vmms
    old = [nr for nr in outside if nr + st.NR_VCPUS * (vmms[nr].tenants + 1) < TENANTS]
    lists: Lists = {
        "old_vcpus": old,
        "aps": [nr for nr in plain if not st.is_bsp(system, system.vcpus[nr])],
        "vcpus": l1,
        "init_targets": [nr for nr in l1 if nr in plain],
        "guests": guests,
        "protected_guests": [nr for nr in inside if nr in sealed],
        "sev_es_guests": [nr for nr in inside if nr in sealed and tells_of_cpuid(system, nr)],
        "l1_guests": [nr for nr in guests if nr in l1 and not system.vcpus[nr].arch.init_pending],
        "pending": [nr for nr, vcpu in at_work if vcpu.exit_pending],
        "returning": [vcpu.task - 1 for nr, vcpu in at_work if not vcpu.exit_pending],
        "ready": [nr for nr, vcpu in looping if st.can_enter(system, vcpu)],
        "waking": [nr for nr, vcpu in looping if st.can_wake(system, vcpu)],
        "sipi_targets": [nr for nr in l1 if nr in plain and system.vms[system.vcpus[nr].vm].irqchip_in_kernel],
    }
    more: Lists = {
        "idle": [(nr, vcpu.vm) for nr, vcpu in vcpus if vcpu.mode == st.VCPU_OUTSIDE],
        "able": [nr for nr, vcpu in vcpus if nr in sealed or system.vms[vcpu.vm].type == st.VM_DEFAULT],
        "plain": plain,
        "sealed": sealed,
        "running": [vcpu.vm for nr, vcpu in vcpus if vcpu.mode != st.VCPU_OUTSIDE],
        "uninitialized": [nr for nr in l1 if nr in plain and system.vcpus[nr].arch.mp_state == _UNINITIALIZED],
        "rest": [(vcpu.task - 1, _rest_of_run(system, nr, vcpu)) for nr, vcpu in exited],
        "in_kvm_run": [vcpu.task - 1 for _, vcpu in at_work],
        "intents": [
            *(vmm.VmmInvisible(nr) for nr in outside),
            *(vmm.VmmVisible(nr) for nr in outside if vmms[nr].intent == st.INTENT_INVISIBLE),
            *(vmm.VmmReset(nr) for nr in old),
            *(vmm.VmmCopy(nr, other) for nr in outside for other in outside if nr != other),
        ],
        "kept": [(nr, load) for nr in unsealed if vmms[nr].kept for load in _loads(system, nr)],
        "to_be_sealed": [nr for nr in unsealed if nr not in plain],
        "kept_pending": [nr for nr in plain if vmms[nr].kept & (st.KEPT_PENDING | st.KEPT_INIT)],
        "l2": [nr for nr in plain if system.vcpus[nr].arch.guest_mode],
        "with_exception": [nr for nr in plain if system.vcpus[nr].arch.exception_pending],
        "of_busy": [vcpu.vm for _, vcpu in vcpus if is_busy(vcpu)],
        "movable_vms": [system.vcpus[nr].vm for nr in sealed if tells_of_cpuid(system, nr)],
        "of_own_type": [nr for nr, vm in enumerate(system.vms) if vm.type == st.VM_X86_SEV_ES_VM],
    }
    return Look(lists, more)


#: What reads, and what writes, the state of a guest that is going to be sealed.
_SEEN = (
    *(vmm.KeepXsave2, vmm.KeepXsave, vmm.KeepFpu, vmm.KeepXcrs, vmm.KeepMsr),
    *(vmm.LoadCpuid, vmm.LoadSregs, vmm.LoadXcrs, vmm.LoadMsrs, vmm.LoadXsave, vmm.LoadFpu),
)
_KEEPS = (
    *(vmm.KeepXsave2, vmm.KeepXsave, vmm.KeepFpu, vmm.KeepXcrs, vmm.KeepVcpuEvents, vmm.KeepNestedState),
    *(vmm.KeepSregs, vmm.KeepMpState),
)


def _keeps(task: int, nr: int, cet: bool) -> Iterable[Op]:
    """What can be read of a vCPU and kept."""
    yield from (keep(task, nr) for keep in _KEEPS)
    yield from (vmm.KeepMsr(task, nr, msr) for msr in msrs_of(True, cet))
    if cet:
        yield vmm.KeepOneReg(task, nr)


def msrs_of(xfd: bool, cet: bool) -> tuple[int, ...]:
    """The MSRs that a guest has with these features."""
    return (*((MSR_IA32_XFD, MSR_IA32_XFD_ERR) if xfd else ()), *((MSR_IA32_XSS, *CET_MSRS) if cet else ()))


def _loads(system: st.System, nr: int) -> Iterable[Callable[[int, int, int], Op]]:
    """What can write something that a VMM keeps of a vCPU."""
    source, kept = system.vcpus[nr], system.ghost.vmms[nr].kept
    if source.exists or kept & st.KEPT_SREGS:
        yield vmm.LoadSregs
    if source.exists and source.arch.cpuid_set:
        yield vmm.LoadCpuid
    if kept & st.KEPT_MP_STATE:
        yield vmm.LoadMpState
    if kept & st.KEPT_XCR0:
        yield vmm.LoadXcrs
    if kept & st.KEPT_MSRS:
        yield vmm.LoadMsrs
    if kept & st.KEPT_SSP:
        yield vmm.LoadOneReg
    if kept & st.KEPT_IMAGE:
        yield vmm.LoadXsave
    if kept & st.KEPT_FPU:
        yield vmm.LoadFpu
    if kept & st.KEPT_EVENTS:
        yield vmm.LoadVcpuEvents
    if kept & st.KEPT_NESTED:
        yield vmm.LoadNestedState


def _rest_of_run(system: st.System, nr: int, vcpu: st.Vcpu) -> Op:
    """What goes on with the KVM_RUN of a vCPU that has exited."""
    if vcpu.exit_pending:
        return run.HandleExit(nr)
    if vcpu.run_over or not (st.can_enter(system, vcpu) or st.can_wake(system, vcpu)):
        return run.KvmRunReturns(vcpu.task - 1)
    return run.VmEnter(nr) if st.can_enter(system, vcpu) else run.Wakeup(nr)


def look_at_cpus(count: int, system: st.System) -> Look:
    """Of the first ``count``."""
    cpus = [system.cpus[nr] for nr in range(count)]
    starting = [nr for nr, cpu in enumerate(cpus) if not cpu.cr4_osfxsr]
    host = [nr for nr, cpu in enumerate(cpus) if not cpu.guest and nr not in starting]
    with_task = [nr for nr in host if cpus[nr].current < st.USER_TASKS]
    idle = [nr for nr in host if nr not in with_task]
    switching = [nr for nr in host if nr in idle or not system.tasks[cpus[nr].current].kernel_fpu]
    lists: Lists = {
        "host_cpus": host,
        "kthread_cpus": with_task,
        "idle_cpus": idle,
        "secondary_cpus": [nr for nr in switching if nr and not starting],
        "starting_cpus": starting,
        "kthreads": [*idle, *starting],
        "leaving_cpus": [nr for nr in with_task if nr in switching],
        "movable": [(old, new) for old in with_task if old in switching for new in idle],
        "current": [cpu.current for cpu in cpus],
    }
    return Look(lists, {"switching": switching})


class Features(NamedTuple):
    """All of a machine that makes a difference to who can do what on it, but for how many CPUs it has."""

    dyn2: bool
    apx: bool
    cet: bool
    pasid: bool
    lbr: bool
    has_xfd: bool
    rt: bool

    @staticmethod
    def of(machine: Machine) -> Features:
        """Those of a machine."""
        return Features(*(getattr(machine, name) for name in Features._fields))


def _together(tasks: Look, vcpus: Look, cpus: Look, machine: Features) -> Situation:
    """A live system's situation, with what takes more than one kind of thing, or a feature of the machine."""
    host, current, switching = cpus.lists["host_cpus"], cpus.lists["current"], cpus.more["switching"]
    starting = cpus.lists["starting_cpus"]
    calling, vm_calls, guests = tasks.lists["tasks"], tasks.lists["vm_calls"], vcpus.lists["guests"]
    rest = dict(tasks.more["rest"] + vcpus.more["rest"])
    calls = [(nr, vcpu) for nr, vm in vm_calls for vcpu, of in vcpus.more["idle"] if of == vm]
    each = [*dict.fromkeys(pair for pair in calls if pair[1] in vcpus.more["plain"])]
    l2, pending = vcpus.more["l2"], vcpus.more["kept_pending"]
    loads = [
        load(nr, one, source)
        for nr, one in each
        for source, load in vcpus.more["kept"]
        if not (load is vmm.LoadVcpuEvents and one in l2 and source in pending)
        if not (load is vmm.LoadNestedState and one in vcpus.more["with_exception"])
        if not (load is vmm.LoadMpState and one in l2)
    ]
    keeps = [keep for nr, one in each for keep in _keeps(nr, one, machine.cet)]
    # of a guest that KVM will not see exceptions and L2 are not modelled
    protected = dict.fromkeys(pair for pair in calls if pair[1] in vcpus.more["to_be_sealed"])
    loads += [load(nr, one, source) for nr, one in protected for source, load in vcpus.more["kept"] if load in _SEEN]
    keeps += [keep for nr, one in protected for keep in _keeps(nr, one, machine.cet) if type(keep) in _SEEN]
    both: Lists = {
        "distant_traces": _distant(tasks, cpus),
        "dyn2_tasks": calling if machine.dyn2 else [],
        "apx_tasks": calling if machine.apx else [],
        "cet_tasks": calling if machine.cet else [],
        "pasid_tasks": calling if machine.pasid else [],
        "lbr_tasks": calling if machine.lbr else [],
        "lbr_guests": guests if machine.lbr else [],
        "lbr_cpus": host if machine.lbr else [],
        "dyn2_guests": guests if machine.dyn2 else [],
        "kthread_lookups": [(reader, cpu) for reader in calling for cpu in range(len(current))],
        "cet_guests": guests if machine.cet else [],
        "cet_calls": each if machine.cet else [],
        "cet_traces": tasks.lists["traces"] if machine.cet else [],
        "softirq_cpus": switching if machine.rt else host,
        "xfd_cpus": host if machine.has_xfd else [],
        "closable": [(nr, vm) for nr, vm in vm_calls if vm not in vcpus.more["running"]],
        "vcpu_calls": calls,
        "sealed_calls": [pair for pair in calls if pair[1] in vcpus.more["sealed"]],
        "vmm_calls": each,
        "vmm_calls_of_l1": [pair for pair in each if pair[1] not in l2],
        "nesting_calls": [pair for pair in each if pair[1] not in vcpus.more["with_exception"]],
        "twins": [(nr, one, other) for nr, one in each for who, other in each if nr == who and one != other],
        "loads": loads,
        "vmm_steps": [*vcpus.more["intents"], *keeps, *loads],
        "schedulable": [(cpu, nr) for cpu in switching for nr in tasks.more["waiting"]],
        "preemptible": [(cpu, nr) for cpu in cpus.lists["kthread_cpus"] for nr in tasks.more["waiting"]],
        "away": [(cpu, nr) for cpu in switching for nr in tasks.more["missed"]],
        "kernel_code": [*calling, *tasks.lists["workers"], *vcpus.more["in_kvm_run"]],
        "run_calls": [(nr, vcpu) for nr, vcpu in calls if vcpu in vcpus.more["able"]],
        "uninitialized_calls": [pair for pair in dict.fromkeys(calls) if pair[1] in vcpus.more["uninitialized"]],
        "roaming": [(old, new, rest[current[old]]) for old, new in cpus.lists["movable"] if current[old] in rest],
        "suspenders": [nr for nr in current[:1] if nr in calling and not (tasks.more["busy"] or starting)],
    }
    both |= _moves(tasks, vcpus, dict.fromkeys(both["closable"]))
    possible = tasks.possible.union(vcpus.possible, cpus.possible, _filled(both), ["alive"])
    return Situation(possible, tasks.lists, vcpus.lists, cpus.lists, both)


def _moves(tasks: Look, vcpus: Look, stopped: Iterable[tuple[int, int]]) -> Lists:
    """The ``moving`` and ``moves``, of VMs that are ``stopped``."""
    own, busy = vcpus.more["of_own_type"], vcpus.more["of_busy"]
    moving = [(nr, vm, vm in own) for nr, vm in stopped if vm in vcpus.more["movable_vms"]]
    into = [pair for pair in stopped if pair[1] not in busy]
    return {
        "moving": moving,
        "moves": [(nr, vm, source) for who, source, _ in moving for nr, vm in into if nr == who and vm != source],
    }


def _distant(tasks: Look, cpus: Look) -> list[tuple[int, int, int]]:
    """The ``distant_traces``."""
    current, free, groups = cpus.lists["current"], tasks.lists["tasks"], dict(tasks.more["groups"])
    stopping = [cpu for cpu in cpus.lists["leaving_cpus"] if current[cpu] in free]
    tracers = [(current[cpu], cpu) for cpu in stopping]
    tracers += [(nr, cpu) for cpu in cpus.more["switching"] for nr in tasks.lists["computing"]]
    foreign = [(nr, there, cpu) for cpu in stopping for nr, there in tracers if groups[nr] != groups[current[cpu]]]
    return [(nr, there, cpu) for nr, there, cpu in foreign if there != cpu]


# -- memory ------------------------------------------------------------------------------------------------------------

#: So many looks at each kind of thing, and situations, a search remembers, of all machines together: then it forgets
#: them, and its memory grows no further.
_MANY = 20_000
_WHO, _STACKS = f"tasks[:{st.USER_TASKS}]", f"sigframes[:{st.NR_SIGFRAMES * st.USER_TASKS}]"
#: All that each look reads; tests/test_situation.py finds it out.
READ_BY_TASKS = Regions(
    st.System,
    *(f"{_WHO}.{name}" for name in ("exists", "exit_state", "in_execve", "in_signal", "vm_fds", "mm", "on_cpu")),
    *(f"{_WHO}.kvm_run", f"{_WHO}.in_sigreturn", f"{_WHO}.in_sigframe", f"{_WHO}.group_leader"),
    *(f"{_WHO}.kernel_fpu", f"{_WHO}.kernel_simd"),
    *(f"{_STACKS}.valid", "sigframes[].stale", f"{_STACKS}.on_altstack", f"{_STACKS}.altstack_sp"),
    *(f"{_STACKS}.disarmed", f"{_WHO}.sas_ss_autodisarm", f"{_WHO}.vfork_child"),
    *(f"{_WHO}.shstk", f"{_WHO}.ia32", f"{_WHO}.pf_user_worker"),
    *(f"{_WHO}.fpu.perm.state_perm", f"{_WHO}.sas_ss_size"),
    *("vms[].exists", "vms[].mm", "vcpus[].exists", "vcpus[].vm", f"ghost.tracers[:{st.USER_TASKS}].kept"),
)
READ_BY_VCPUS = Regions(
    st.System,
    *(f"vcpus[].{name}" for name in ("exists", "vm", "mode", "task", "exit_pending", "run_over")),
    *(
        "vcpus[].arch.guest_mode",
        "vcpus[].arch.exception_pending",
        "vcpus[].arch.exception_injected",
        *("vcpus[].arch.init_pending", "vcpus[].arch.sipi_pending", "vcpus[].arch.mp_state", "vcpus[].id"),
        "vms[].irqchip_in_kernel",
        "vcpus[].arch.guest_state_protected",
        "vms[].type",
    ),
    *(f"{_WHO}.on_cpu", f"{_WHO}.kernel_fpu", f"{_WHO}.kernel_simd", "vcpus[].arch.cpuid_set"),
    *("ghost.vmms[].intent", "ghost.vmms[].tenants", "ghost.vmms[].kept"),
)
READ_BY_CPUS = Regions(st.System, "cpus[].current", "cpus[].guest", "cpus[].cr4_osfxsr", f"{_WHO}.kernel_fpu")


class _Memory:
    """One kind of look, remembered by what it reads."""

    def __init__(self, read: Regions, look: Callable[[st.System], Look]) -> None:
        self._read, self._look = read, look
        self._known: dict[tuple[bytes, ...], Look] = {}
        self._different: dict[object, Look] = {}

    def now(self, system: st.System) -> Look:
        """What there is to be seen in a system."""
        key = self._read(system)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MANY:
                self._known.clear()
                self._different.clear()
            seen = self._look(system)
            found = self._known[key] = self._different.setdefault(seen.content, seen)
        return found


class Looks:
    """What was seen of tasks, vCPUs and CPUs on all machines of a search, and the situations that it came to."""

    def __init__(self) -> None:
        self._tasks, self._vcpus = _Memory(READ_BY_TASKS, look_at_tasks), _Memory(READ_BY_VCPUS, look_at_vcpus)
        self._cpus: dict[int, _Memory] = {}
        self._known = _Known()

    def on(self, machine: Machine) -> Situations:
        """The situations on a machine."""
        cpus = self._cpus.setdefault(machine.cpus, _Memory(READ_BY_CPUS, partial(look_at_cpus, machine.cpus)))
        return Situations(Features.of(machine), (self._tasks, self._vcpus, cpus), self._known)


class _Known:
    """Situations by what they come of.  Their lists are shared: nobody changes them."""

    def __init__(self) -> None:
        self._situations: dict[tuple[Look, Look, Look, Features], Situation] = {}
        self._possible: dict[frozenset[str], frozenset[str]] = {}

    def of(self, tasks: Look, vcpus: Look, cpus: Look, features: Features) -> Situation:
        """The one that these looks come to."""
        key = tasks, vcpus, cpus, features
        found = self._situations.get(key)
        if found is None:
            if len(self._situations) >= _MANY:
                self._situations.clear()
                self._possible.clear()
            found = self._situations[key] = _together(*key)
            # one object for all equal sets: what is looked up by it at every step is found at once
            found.possible = self._possible.setdefault(found.possible, found.possible)
        return found


class Situations:
    """The situations on one machine."""

    def __init__(self, features: Features, looks: tuple[_Memory, _Memory, _Memory], known: _Known) -> None:
        self._features, self._known = features, known
        self._tasks, self._vcpus, self._cpus = looks

    def now(self, k: Kernel) -> Situation:
        """The situation of a system of that machine."""
        system = k.system
        if system.dead:
            return Situation.over()
        tasks, vcpus, cpus = self._tasks.now(system), self._vcpus.now(system), self._cpus.now(system)
        return self._known.of(tasks, vcpus, cpus, self._features)
