"""Program + kernel -> steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.event import HostDied
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program import ghost
from xfdfuzz.program.ops import guest, host, run, signals, tasks
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import DEAD, NOT_ENABLED, PANIC, Result, Step


class Executor:
    """Executes ops, one after another, on a freshly booted system of one revision."""

    def __init__(self, revision: type[Kernel], machine: Machine) -> None:
        self.kernel = revision(machine)
        self.count = 0
        self.kernel.boot()
        for task in range(st.USER_TASKS):
            ghost.default_pkru(self.kernel, task)

    def execute(self, op: Op) -> Step:
        """Execute one op; one that cannot happen now changes nothing and results in ``not-enabled``."""
        system = self.kernel.system
        if system.dead or not op.enabled(self.kernel):
            self.count += 1
            why = DEAD if system.dead else op.hindrance(self.kernel)
            return Step(self.count, op, self.kernel.state, system, Result(NOT_ENABLED), (), why)
        return self.perform(op)

    def perform(self, op: Op) -> Step:
        """Execute one op that is enabled, on a host that lives."""
        k = self.kernel
        state = k.state
        self.count += 1
        result = perform(op, k)
        return Step(self.count, op, state, k.system, result, tuple(k.events))

    def run(self, ops: Iterable[Op]) -> Iterator[Step]:
        """Execute ``ops`` lazily, a step at a time."""
        for op in ops:
            yield self.execute(op)

    def load(self, state: bytes, count: int = 0) -> None:
        """Go on from a state of the system, which ``count`` ops have led to."""
        self.kernel.load(state)
        self.count = count

    def enter_guest(self, nr: int) -> Step | None:
        """Let a task of its VM enter the guest of a vCPU outside KVM_RUN; the last step, None without a task."""
        last = None
        for op in _enter_ops(self.kernel, nr):
            last = self.execute(op)
        return last

    def drain(self) -> Step | None:
        """Let everything that is pending come to its end; the last step of it, None if the host is dead."""
        *_, last = self.draining()
        return None if self.kernel.system.dead else last

    def draining(self) -> Iterator[Step]:
        """The steps of :meth:`drain`, lazily."""
        return self.run(_drain_ops(self.kernel))


def perform(op: Op, k: Kernel) -> Result:
    """Execute one op that is enabled, on a host that lives; what the kernel reports is in its events."""
    k.events.clear()
    try:
        return op.run(k)
    except HostDied:
        return Result(PANIC)


def _drain_ops(k: Kernel) -> Iterator[Op]:
    """What lets everything that is pending come to its end: memory is there, every KVM_RUN returns and runs once more.

    Yields ops lazily: each is chosen in the state that the ones before have led to.
    """
    yield host.FailAlloc(0)
    yield from _settle(k)
    for nr, vcpu in enumerate(k.vcpus):
        if vcpu.exists and vcpu.mode != st.VCPU_OUTSIDE:
            yield from _finish_run(k, nr)
    for nr, vcpu in enumerate(k.vcpus):
        owner = _task_of(k, vcpu.vm) if vcpu.exists else None
        if owner is not None:
            yield from _switch_to(k, owner)
            yield run.KvmRun(owner, nr)
            if vcpu.mode != st.VCPU_OUTSIDE:
                yield from _finish_run(k, nr)


def _settle(k: Kernel) -> Iterator[Op]:
    """Every CPU can switch to another task."""
    for nr in range(st.USER_TASKS):
        yield from _end_sections(k, nr)
    yield from (host.HotplugEnds(nr) for nr in range(len(k.cpus)) if host.coming_online(k, nr))


def _end_sections(k: Kernel, nr: int) -> Iterator[Op]:
    """Of a task that is on a CPU."""
    task = k.tasks[nr]
    yield from [tasks.KernelFpuEnd(nr)] * (task.kernel_fpu if task.on_cpu else 0)
    yield from [tasks.KernelComputesOn(nr)] * (task.kernel_simd if task.on_cpu else 0)


def _enter_ops(k: Kernel, nr: int) -> Iterator[Op]:
    yield from _settle(k)
    owner = _task_of(k, k.vcpus[nr].vm)
    if owner is not None:
        yield from _switch_to(k, owner)
        yield run.KvmRun(owner, nr)
        yield run.VmEnter(nr)


def _task_of(k: Kernel, vm: int) -> int | None:
    """A task in whose address space the VM was made, which still has it open, and which can make system calls."""
    mm = k.vms[vm].mm
    calls = (nr for nr in range(st.USER_TASKS) if not (k.tasks[nr].pf_user_worker or k.tasks[nr].vfork_child))
    return next((nr for nr in calls if k.tasks[nr].mm == mm and k.has_open(nr, vm)), None)


def _switch_to(k: Kernel, task: int) -> Iterator[Op]:
    if not k.tasks[task].on_cpu:
        idle = next((nr for nr, cpu in enumerate(k.cpus) if not cpu.guest), 0)
        yield host.Schedule(idle, task)
        yield from _end_sections(k, task)
    if k.tasks[task].in_sigframe:
        yield signals.SignalFaultIn(task)
    if k.tasks[task].in_signal:
        yield signals.SignalDelivered(task)
    if k.tasks[task].in_sigreturn:
        yield signals.SigreturnFaultIn(task)


def _finish_run(k: Kernel, nr: int) -> Iterator[Op]:
    vcpu = k.vcpus[nr]
    task = vcpu.task - 1
    if vcpu.mode == st.VCPU_IN_GUEST:
        yield guest.GuestInterrupt(nr)
    yield from _switch_to(k, task)
    if vcpu.exit_pending:
        yield run.HandleExit(nr)
    yield run.KvmRunReturns(task)
