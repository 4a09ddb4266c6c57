"""The environment: scheduling, softirqs, memory pressure."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.engines.rules.base import Rules, on, one
from xfdfuzz.kernel.state import USER_TASKS
from xfdfuzz.program.ops import guest, host, signals, tasks
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.ops.run import VmEnter, Wakeup
from xfdfuzz.strategies.values import Range, flags, targets


class HostRules(Rules):
    """The environment: scheduling, softirqs, memory pressure."""

    SHARE = 6

    schedule = one(host.Schedule, on="schedulable")
    schedule_vmm = one(host.Schedule, on="away")  # so that a program comes back to its point
    schedule_kthread = one(host.ScheduleKthread, on="leaving_cpus")
    idle = one(host.Idle, on="idle_cpus")
    hotplug = one(host.Hotplug, on="secondary_cpus")
    hotplug_starts = one(host.HotplugStarts, on="secondary_cpus")
    hotplug_ends = one(host.HotplugEnds, on="starting_cpus")
    suspend = one(host.Suspend, on="suspenders")
    softirq_kernel_fpu = one(host.SoftirqKernelFpu, on="softirq_cpus")
    hardirq_now = one(host.HardirqNow, on="host_cpus")
    kthread_kernel_fpu = one(host.KthreadKernelFpu, on="kthreads")
    kernel_fpu_begin = one(tasks.KernelFpuBegin, on="kernel_code")
    kernel_fpu_end = one(tasks.KernelFpuEnd, on="kernel_fpu")
    hardirq_kernel_fpu = one(host.HardirqKernelFpu, on="kthread_cpus")
    preempt = one(host.Preempt, on="preemptible")
    pend_init = one(guest.PendInit, on="init_targets")
    pend_sipi = one(guest.PendSipi, on="sipi_targets")
    pmi = one(host.Pmi, on="lbr_cpus")
    guest_pmi = one(guest.GuestPmi, on="lbr_guests")
    host_rdmsr = one(host.HostRdmsr, on="xfd_cpus")

    @on("alive", count=Range(0, 2))
    def fail_alloc(self, count: int) -> Iterator[Op]:
        """Allocations fail, or no longer."""
        yield host.FailAlloc(count)

    @on("init_targets", n=targets)
    def init_at_once(self, n: int) -> Iterator[Op]:
        """An INIT that KVM accepts before the guest does anything else."""
        nr = self.choice("init_targets", n)
        yield guest.PendInit(nr)
        if nr in self.now.guests:
            yield guest.GuestInterrupt(nr)
        if nr in self.now.waking:
            yield Wakeup(nr)
        if nr in self.now.ready:
            yield VmEnter(nr)

    @on("movable", n=targets)
    def migrate(self, n: int) -> Iterator[Op]:
        """A task moves to an idle CPU."""
        old, new = self.choice("movable", n)
        yield from self._move(old, new, self.now.current[old])

    @on("roaming", n=targets, back=flags)
    def go_on_elsewhere(self, n: int, back: int) -> Iterator[Op]:
        """A task moves in the middle of a call, which goes on there; it may come back before it is in user mode."""
        old, new, rest_of_call = self.choice("roaming", n)
        task = self.now.current[old]
        yield from self._move(old, new, task)
        yield rest_of_call
        if back and not isinstance(rest_of_call, VmEnter):
            yield from self._move(new, old, task)

    @on("schedulable", n=targets)
    def preempted(self, n: int) -> Iterator[Op]:
        """Preemption by a task that computes, and back: what was under way goes on, perhaps inside of the kernel."""
        yield from self._interlude(*self.choice("schedulable", n))

    @on("long_mode_handlers", n=targets, other=targets, late=flags)
    def sigreturn_sleeps(self, n: int, other: int, late: int) -> Iterator[Op]:
        """The page of a signal frame has to be read in, and meanwhile another task computes on the CPU.

        Before, too: the task that returns was preempted, or (``late``) it was not.
        """
        task = self.choice("long_mode_handlers", n)
        cpu = self.now.current.index(task)
        another = self.another(cpu, other)
        if another is not None and not late:
            yield from self._interlude(cpu, another)
        yield signals.SigreturnFaults(task, self.run.machine.user_xfeatures)
        if another is not None:
            yield from self._interlude(cpu, another)

    @on("long_mode_handlers", n=targets, other=targets)
    def sigreturn_preempted(self, n: int, other: int) -> Iterator[Op]:
        """Another task computes on the CPU when a handler is about to return, whose task then looks at its tiles."""
        task = self.choice("long_mode_handlers", n)
        cpu = self.now.current.index(task)
        if (another := self.another(cpu, other)) is not None:
            yield from self._interlude(cpu, another)
        yield signals.Sigreturn(task)
        if task in self.now.tasks:
            yield tasks.UserTilestore(task)

    @on("signalable", n=targets, other=targets, points=Range(1, 4))
    def signal_preempted(self, n: int, other: int, points: int) -> Iterator[Op]:
        """Another task computes on the CPU at some point of the delivery of a signal."""
        task = self.choice("signalable", n)
        cpu = self.now.current.index(task)
        if (another := self.another(cpu, other)) is not None:
            yield host.Preempt(cpu, another, points)
        yield signals.Signal(task)
        if task in self.now.signalled:
            yield signals.SignalDelivered(task)

    def _interlude(self, cpu: int, other: int) -> Iterator[Op]:
        """Another task has the CPU for a while, and computes if it is not inside a call: with x87, if that leaves
        something behind."""
        task, computes = self.now.current[cpu], other in self.now.computing
        yield host.Schedule(cpu, other)
        if computes:
            yield tasks.UserFld(other, 1) if self.run.machine.fxsave_leak else tasks.ReturnToUser(other)
        yield host.Schedule(cpu, task) if task < USER_TASKS else host.ScheduleKthread(cpu)

    def _move(self, old: int, new: int, task: int) -> Iterator[Op]:
        yield host.ScheduleKthread(old)
        yield host.Schedule(new, task)
