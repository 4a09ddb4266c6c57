"""Who can do what now: the lists that the rules choose from, looked up at every step and made when they are new."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from xfdfuzz.arch.cstruct import Regions
from xfdfuzz.arch.machine import Machine
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.program.ops import processes, run, signals
from xfdfuzz.program.ops.base import Op


@dataclass(slots=True)
class Situation:
    """Task, vCPU, VM and CPU numbers by what they can do.

    ``tasks`` can make a system call, ``cloning`` are the same while there is room for one more task, ``execs`` are
    inside execve(); ``leaving`` may exit or execute something else without taking a vCPU along.  ``vm_tasks`` are those
    of ``tasks`` that share a VM's address space and have one open, ``idle_tasks`` the same where a vCPU is outside
    KVM_RUN (``idle``).
    ``ready`` vCPUs can enter the guest, ``pending`` ones have an exit to handle, ``guests`` execute the guest;
    ``returning`` are tasks whose KVM_RUN can return.  ``schedulable`` are (CPU, task) pairs, ``away`` those that bring
    back a VMM's thread, or one in the middle of a call.  ``signalable`` tasks are in no signal handler, ``handlers``
    are, ``signalled`` are about to be; ``traces`` are (tracer, tracee) pairs.  ``suspenders`` can ask for suspend.
    ``movable`` are (CPU with a user task, idle CPU) pairs, ``current`` is each CPU's task; ``roaming``
    are those of ``movable`` whose task is inside a call that is cut in two, with the op that goes on with it.
    """

    dead: bool = False
    alive: bool = False
    tasks: list[int] = field(default_factory=list)
    cloning: list[int] = field(default_factory=list)
    execs: list[int] = field(default_factory=list)
    signalable: list[int] = field(default_factory=list)
    signalled: list[int] = field(default_factory=list)
    handlers: list[int] = field(default_factory=list)
    traces: list[tuple[int, int]] = field(default_factory=list)
    leaving: list[int] = field(default_factory=list)
    vms: list[int] = field(default_factory=list)
    vm_tasks: list[int] = field(default_factory=list)
    vcpus: list[int] = field(default_factory=list)
    idle: list[int] = field(default_factory=list)
    idle_tasks: list[int] = field(default_factory=list)
    dyn2_tasks: list[int] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    returning: list[int] = field(default_factory=list)
    guests: list[int] = field(default_factory=list)
    dyn2_guests: list[int] = field(default_factory=list)
    cet_guests: list[int] = field(default_factory=list)
    l1_guests: list[int] = field(default_factory=list)
    schedulable: list[tuple[int, int]] = field(default_factory=list)
    away: list[tuple[int, int]] = field(default_factory=list)
    kthread_cpus: list[int] = field(default_factory=list)
    host_cpus: list[int] = field(default_factory=list)
    xfd_cpus: list[int] = field(default_factory=list)
    idle_cpus: list[int] = field(default_factory=list)
    secondary_cpus: list[int] = field(default_factory=list)
    suspenders: list[int] = field(default_factory=list)
    movable: list[tuple[int, int]] = field(default_factory=list)
    roaming: list[tuple[int, int, Op]] = field(default_factory=list)
    current: list[int] = field(default_factory=list)
    _possible: frozenset[str] = field(default=frozenset(), init=False, repr=False, compare=False)

    def possible(self) -> frozenset[str]:
        """The names of the lists that are not empty, and of the flags that are set."""
        if not self._possible:
            self._possible = frozenset(name for name in self.__slots__ if getattr(self, name))
        return self._possible

    @staticmethod
    def nothing() -> Situation:
        """Before the machine is powered on."""
        return Situation()

    @staticmethod
    def of(k: Kernel) -> Situation:
        """The situation of a live system, worked out anew."""
        if k.system.dead:
            return Situation(dead=True)
        now = Situation(alive=True)
        now._look_at_tasks(k)
        now._look_at_vcpus(k)
        now._look_at_cpus(k)
        return now

    def _look_at_tasks(self, k: Kernel) -> None:
        waiting = []
        room = False
        for nr in range(st.USER_TASKS):
            task = k.tasks[nr]
            if not task.exists:
                room = True
            elif not task.on_cpu:
                if not task.exit_state:
                    waiting.append(nr)
            elif task.in_execve:
                self.execs.append(nr)
            elif task.in_signal:
                self.signalled.append(nr)
            elif not task.kvm_run:
                self.tasks.append(nr)
                (self.handlers if k.system.sigframes[nr].valid else self.signalable).append(nr)
        self.cloning = self.tasks if room else []
        stopped = [nr for nr in waiting if not _busy(k.tasks[nr])]
        self.traces = [(tracer, nr) for tracer in self.tasks for nr in stopped]
        self.schedulable = [(cpu, nr) for cpu in range(len(k.cpus)) if not k.cpus[cpu].guest for nr in waiting]
        self.vms = [nr for nr, vm in enumerate(k.vms) if vm.exists]
        mms = {k.vms[nr].mm for nr in self.vms}
        self.vm_tasks = [nr for nr in self.tasks if k.tasks[nr].mm in mms and k.tasks[nr].vm_fds]
        self.dyn2_tasks = self.tasks if k.machine.dyn2 else []
        needed = 0
        for vcpu in k.vcpus:
            if vcpu.exists:
                needed |= 1 << vcpu.vm
        self.leaving = [nr for nr in self.tasks if not needed & ~_held_by_others(k, nr) & k.tasks[nr].vm_fds]
        self.away = [(cpu, nr) for cpu, nr in self.schedulable if k.tasks[nr].mm in mms or _busy(k.tasks[nr])]

    def _look_at_vcpus(self, k: Kernel) -> None:
        for nr, vcpu in enumerate(k.vcpus):
            if not vcpu.exists:
                continue
            if not vcpu.arch.guest_mode and vcpu.exit_pending != st.EXIT_VMLAUNCH:
                self.vcpus.append(nr)
            mode = vcpu.mode
            if mode == st.VCPU_OUTSIDE:
                self.idle.append(nr)
            elif mode == st.VCPU_IN_GUEST:
                self.guests.append(nr)
            elif k.tasks[vcpu.task - 1].on_cpu:
                self._look_at_exited(nr, vcpu)
        self.idle_tasks = self.vm_tasks if self.idle else []
        self.dyn2_guests = self.guests if k.machine.dyn2 else []
        self.cet_guests = self.guests if k.machine.cet else []
        self.l1_guests = [nr for nr in self.guests if nr in self.vcpus and not k.vcpus[nr].arch.init_pending]

    def _look_at_exited(self, nr: int, vcpu: st.Vcpu) -> None:
        if vcpu.exit_pending:
            self.pending.append(nr)
            return
        self.returning.append(vcpu.task - 1)
        if not vcpu.run_over:
            self.ready.append(nr)

    def _look_at_cpus(self, k: Kernel) -> None:
        self.host_cpus = [nr for nr, cpu in enumerate(k.cpus) if not cpu.guest]
        self.kthread_cpus = [nr for nr in self.host_cpus if k.cpus[nr].current < st.USER_TASKS]
        self.xfd_cpus = self.host_cpus if k.machine.has_xfd else []
        self.idle_cpus = [nr for nr in self.host_cpus if k.cpus[nr].current >= st.USER_TASKS]
        self.secondary_cpus = [nr for nr in self.host_cpus if nr]
        self.current = [cpu.current for cpu in k.cpus]
        self.movable = [(old, new) for old in self.kthread_cpus for new in self.idle_cpus]
        self.roaming = [(old, new, op) for old, new in self.movable if (op := _rest_of_call(k, self.current[old]))]
        first = k.cpus[0].current
        if first in self.tasks and not any(_busy(t) for t in k.tasks[: st.USER_TASKS]):
            self.suspenders = [first]


#: All that :meth:`Situation.of` looks at, beside the machine.
_READ = Regions(
    st.System,
    "dead",
    *(f"tasks[].{name}" for name in ("exists", "exit_state", "in_execve", "in_signal", "vm_fds", "mm", "on_cpu")),
    *("tasks[].kvm_run", "sigframes[].valid", "vms[].exists", "vms[].mm", "cpus[].current", "cpus[].guest"),
    *(f"vcpus[].{name}" for name in ("exists", "vm", "mode", "task", "exit_pending", "run_over")),
    *("vcpus[].arch.guest_mode", "vcpus[].arch.init_pending"),
)
#: So many situations of a machine are remembered.
_MANY = 20_000


class Situations:
    """The situations on one machine.  Few steps lead to one that was not there before, so they are remembered.

    Their lists are shared: nobody changes them.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, ...], Situation] = {}

    def now(self, k: Kernel) -> Situation:
        """The situation of a live system of that machine."""
        key = _READ(k.system)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MANY:
                self._known.clear()
            found = self._known[key] = Situation.of(k)
        return found


@lru_cache(maxsize=64)
def situations(machine: Machine) -> Situations:
    """Those of a machine, for all campaigns of the process."""
    return Situations()


def _busy(task: st.Task) -> bool:
    """Whether it is inside a call that is cut in two."""
    return bool(task.kvm_run or task.in_execve or task.in_signal)


def _rest_of_call(k: Kernel, nr: int) -> Op | None:
    """What goes on with the call that the task is inside of; None if it is in none."""
    task = k.tasks[nr]
    if task.in_execve:
        return processes.ExecveReturns(nr)
    if task.in_signal:
        return signals.SignalDelivered(nr)
    if not task.kvm_run:
        return None
    vcpu = k.vcpus[task.kvm_run - 1]
    if vcpu.exit_pending:
        return run.HandleExit(task.kvm_run - 1)
    return run.KvmRunReturns(nr) if vcpu.run_over else run.VmEnter(task.kvm_run - 1)


def _held_by_others(k: Kernel, nr: int) -> int:
    """The VMs that other tasks than ``nr`` have open."""
    held = 0
    for other, task in enumerate(k.tasks[: st.USER_TASKS]):
        if other != nr:
            held |= task.vm_fds
    return held
