"""Who can do what now: the lists that the rules choose from, looked up at every step.

Tasks, vCPUs and CPUs are looked at apart, each as far as it reads some bytes of the system, and remembered by them: few
steps lead to tasks, or vCPUs, or CPUs, that were not there before, while their combinations are many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.memory.cstruct import Regions
from xfdfuzz.program.ops import processes, run, signals
from xfdfuzz.program.ops.base import Op

#: Lists by the names that rules know them by.
Lists = dict[str, list[Any]]


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
    ``dyn2_*`` and ``cet_*`` are on a machine with that feature only.

    ``possible`` are the names of the lists that are not empty, and ``alive``, or ``dead`` if the host is.
    """

    possible: frozenset[str]
    tasks: list[int]
    cloning: list[int]
    execs: list[int]
    signalable: list[int]
    signalled: list[int]
    handlers: list[int]
    traces: list[tuple[int, int]]
    leaving: list[int]
    vms: list[int]
    vm_tasks: list[int]
    dyn2_tasks: list[int]
    vcpus: list[int]
    idle: list[int]
    idle_tasks: list[int]
    ready: list[int]
    pending: list[int]
    returning: list[int]
    guests: list[int]
    dyn2_guests: list[int]
    cet_guests: list[int]
    l1_guests: list[int]
    schedulable: list[tuple[int, int]]
    away: list[tuple[int, int]]
    kthread_cpus: list[int]
    host_cpus: list[int]
    xfd_cpus: list[int]
    idle_cpus: list[int]
    secondary_cpus: list[int]
    suspenders: list[int]
    movable: list[tuple[int, int]]
    roaming: list[tuple[int, int, Op]]
    current: list[int]

    def __init__(self, possible: Iterable[str], *lists: Lists) -> None:
        self.possible = _interned(frozenset(possible))
        for some in lists:
            vars(self).update(some)

    @staticmethod
    def nothing() -> Situation:
        """Before the machine is powered on."""
        return Situation(())

    @staticmethod
    def over() -> Situation:
        """After the death of the host."""
        return Situation(["dead"])

    @staticmethod
    def of(k: Kernel) -> Situation:
        """The situation of a system, worked out anew."""
        if k.system.dead:
            return Situation.over()
        return _together(_tasks(k), _vcpus(k), _cpus(k), k.machine)


@lru_cache(maxsize=4096)
def _interned(possible: frozenset[str]) -> frozenset[str]:
    """One object for all equal sets: what is looked up by it at every step is found at once."""
    return possible


@dataclass(eq=False, slots=True)
class _Look:
    """What was seen of one kind of thing; the same only if it is the same object.

    ``rest`` is, by task, the op that goes on with the call that the task is inside of.  Of tasks there is more:
    ``waiting`` are those that the scheduler may choose, ``missed`` those of them that a VM, or a call that is cut in
    two, waits for; ``busy``: some are inside such a call.
    """

    lists: Lists
    rest: dict[int, Op]
    waiting: list[int] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    busy: bool = False
    possible: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.possible = frozenset(_filled(self.lists))

    @property
    def content(self) -> object:
        """What two looks have in common that saw the same."""
        return (
            tuple(map(tuple, self.lists.values())),
            tuple(self.rest.items()),
            tuple(self.waiting),
            tuple(self.missed),
            self.busy,
        )


def _filled(lists: Lists) -> Iterable[str]:
    return (name for name, some in lists.items() if some)


def _tasks(k: Kernel) -> _Look:
    tasks = [(nr, k.tasks[nr]) for nr in range(st.USER_TASKS) if k.tasks[nr].exists]
    at_work = [(nr, task) for nr, task in tasks if task.on_cpu]
    calling = [nr for nr, task in at_work if not _busy(task)]
    in_handler = [nr for nr in calling if k.system.sigframes[nr].valid]
    waiting = [nr for nr, task in tasks if not (task.on_cpu or task.exit_state)]
    stopped = [nr for nr in waiting if not _busy(k.tasks[nr])]
    vms = [nr for nr, vm in enumerate(k.vms) if vm.exists]
    mms = {k.vms[nr].mm for nr in vms}
    return _Look(
        {
            "tasks": calling,
            "cloning": calling if len(tasks) < st.USER_TASKS else [],
            "execs": [nr for nr, task in at_work if task.in_execve],
            "signalled": [nr for nr, task in at_work if task.in_signal],
            "handlers": in_handler,
            "signalable": [nr for nr in calling if nr not in in_handler],
            "traces": [(tracer, nr) for tracer in calling for nr in stopped],
            "vms": vms,
            "vm_tasks": [nr for nr in calling if k.tasks[nr].mm in mms and k.tasks[nr].vm_fds],
            "leaving": [nr for nr in calling if not _held_by(k, nr) & ~_held_by_others(k, nr)],
        },
        {nr: op for nr, task in tasks if (op := _rest_of_call(nr, task))},
        waiting,
        [nr for nr in waiting if k.tasks[nr].mm in mms or nr not in stopped],
        any(_busy(task) for _, task in tasks),
    )


def _busy(task: st.Task) -> bool:
    """Whether it is inside a call that is cut in two."""
    return bool(task.kvm_run or task.in_execve or task.in_signal)


def _rest_of_call(nr: int, task: st.Task) -> Op | None:
    """What goes on with the call that the task is inside of, other than KVM_RUN."""
    if task.in_execve:
        return processes.ExecveReturns(nr)
    return signals.SignalDelivered(nr) if task.in_signal else None


def _held_by(k: Kernel, nr: int) -> int:
    """The VMs with vCPUs that the task has open."""
    needed = 0
    for vcpu in k.vcpus:
        if vcpu.exists:
            needed |= 1 << vcpu.vm
    return needed & k.tasks[nr].vm_fds


def _held_by_others(k: Kernel, nr: int) -> int:
    """The VMs that other tasks than ``nr`` have open."""
    held = 0
    for other, task in enumerate(k.tasks[: st.USER_TASKS]):
        if other != nr:
            held |= task.vm_fds
    return held


def _vcpus(k: Kernel) -> _Look:
    vcpus = [(nr, vcpu) for nr, vcpu in enumerate(k.vcpus) if vcpu.exists]
    l1 = [nr for nr, vcpu in vcpus if not vcpu.arch.guest_mode and vcpu.exit_pending != st.EXIT_VMLAUNCH]
    guests = [nr for nr, vcpu in vcpus if vcpu.mode == st.VCPU_IN_GUEST]
    exited = [(nr, vcpu) for nr, vcpu in vcpus if vcpu.mode == st.VCPU_EXITED]
    at_work = [(nr, vcpu) for nr, vcpu in exited if k.tasks[vcpu.task - 1].on_cpu]
    return _Look(
        {
            "vcpus": l1,
            "idle": [nr for nr, vcpu in vcpus if vcpu.mode == st.VCPU_OUTSIDE],
            "guests": guests,
            "l1_guests": [nr for nr in guests if nr in l1 and not k.vcpus[nr].arch.init_pending],
            "pending": [nr for nr, vcpu in at_work if vcpu.exit_pending],
            "returning": [vcpu.task - 1 for nr, vcpu in at_work if not vcpu.exit_pending],
            "ready": [nr for nr, vcpu in at_work if not (vcpu.exit_pending or vcpu.run_over)],
        },
        {vcpu.task - 1: _rest_of_run(nr, vcpu) for nr, vcpu in exited},
    )


def _rest_of_run(nr: int, vcpu: st.Vcpu) -> Op:
    """What goes on with the KVM_RUN of a vCPU that has exited."""
    if vcpu.exit_pending:
        return run.HandleExit(nr)
    return run.KvmRunReturns(vcpu.task - 1) if vcpu.run_over else run.VmEnter(nr)


def _cpus(k: Kernel) -> _Look:
    host = [nr for nr, cpu in enumerate(k.cpus) if not cpu.guest]
    with_task = [nr for nr in host if k.cpus[nr].current < st.USER_TASKS]
    idle = [nr for nr in host if nr not in with_task]
    lists: Lists = {
        "host_cpus": host,
        "kthread_cpus": with_task,
        "idle_cpus": idle,
        "secondary_cpus": [nr for nr in host if nr],
        "movable": [(old, new) for old in with_task for new in idle],
        "current": [cpu.current for cpu in k.cpus],
    }
    return _Look(lists, {})


def _together(tasks: _Look, vcpus: _Look, cpus: _Look, machine: Machine) -> Situation:
    """A live system's situation, with what takes more than one kind of thing, or a feature of the machine."""
    host, current = cpus.lists["host_cpus"], cpus.lists["current"]
    calling, guests = tasks.lists["tasks"], vcpus.lists["guests"]
    rest = tasks.rest | vcpus.rest
    both: Lists = {
        "dyn2_tasks": calling if machine.dyn2 else [],
        "dyn2_guests": guests if machine.dyn2 else [],
        "cet_guests": guests if machine.cet else [],
        "xfd_cpus": host if machine.has_xfd else [],
        "idle_tasks": tasks.lists["vm_tasks"] if vcpus.lists["idle"] else [],
        "schedulable": [(cpu, nr) for cpu in host for nr in tasks.waiting],
        "away": [(cpu, nr) for cpu in host for nr in tasks.missed],
        "roaming": [(old, new, rest[current[old]]) for old, new in cpus.lists["movable"] if current[old] in rest],
        "suspenders": [nr for nr in current[:1] if nr in calling and not tasks.busy],
    }
    possible = tasks.possible.union(vcpus.possible, cpus.possible, _filled(both), ["alive"])
    return Situation(possible, tasks.lists, vcpus.lists, cpus.lists, both)


# -- memory ------------------------------------------------------------------------------------------------------------

#: So many looks at each kind of thing, and situations of a machine, are remembered.
_MANY = 20_000
_WHO = f"tasks[:{st.USER_TASKS}]"
#: All that each look sees.
_READ_BY_TASKS = Regions(
    st.System,
    *(f"{_WHO}.{name}" for name in ("exists", "exit_state", "in_execve", "in_signal", "vm_fds", "mm", "on_cpu")),
    *(f"{_WHO}.kvm_run", "sigframes[].valid", "vms[].exists", "vms[].mm", "vcpus[].exists", "vcpus[].vm"),
)
_READ_BY_VCPUS = Regions(
    st.System,
    *(f"vcpus[].{name}" for name in ("exists", "vm", "mode", "task", "exit_pending", "run_over")),
    *("vcpus[].arch.guest_mode", "vcpus[].arch.init_pending", f"{_WHO}.on_cpu"),
)
_READ_BY_CPUS = Regions(st.System, "cpus[].current", "cpus[].guest")


class _Memory:
    """One kind of look, remembered by what it reads."""

    def __init__(self, read: Regions, look: Callable[[Kernel], _Look]) -> None:
        self._read, self._look = read, look
        self._known: dict[tuple[bytes, ...], _Look] = {}
        self._different: dict[object, _Look] = {}

    def now(self, k: Kernel) -> _Look:
        key = self._read(k.system)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MANY:
                self._known.clear()
            seen = self._look(k)
            found = self._known[key] = self._different.setdefault(seen.content, seen)
        return found


@lru_cache(maxsize=1)
def _memories() -> tuple[_Memory, _Memory]:
    """Of tasks and of vCPUs, on whatever machine."""
    return _Memory(_READ_BY_TASKS, _tasks), _Memory(_READ_BY_VCPUS, _vcpus)


class Situations:
    """The situations on one machine.  Their lists are shared: nobody changes them."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._tasks, self._vcpus = _memories()
        self._cpus = _Memory(_READ_BY_CPUS, _cpus)
        self._known: dict[tuple[_Look, ...], Situation] = {}

    def now(self, k: Kernel) -> Situation:
        """The situation of a system of that machine."""
        if k.system.dead:
            return Situation.over()
        looks = self._tasks.now(k), self._vcpus.now(k), self._cpus.now(k)
        found = self._known.get(looks)
        if found is None:
            if len(self._known) >= _MANY:
                self._known.clear()
            found = self._known[looks] = _together(*looks, self._machine)
        return found


@lru_cache(maxsize=128)
def situations(machine: Machine) -> Situations:
    """Those of a machine, for all campaigns of the process."""
    return Situations(machine)
