"""The environment: scheduling, softirqs, memory pressure."""

from __future__ import annotations

from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR
from xfdfuzz.engines.rules.base import Rules, on
from xfdfuzz.kernel.state import USER_TASKS
from xfdfuzz.program.ops import guest, host, tasks
from xfdfuzz.strategies.values import Range, flags, targets


class HostRules(Rules):
    """The environment: scheduling, softirqs, memory pressure."""

    SHARE = 6

    @on("schedulable", n=Range(0, 7))
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

    @on("movable", n=targets)
    def migrate(self, n: int) -> None:
        """A task moves to an idle CPU."""
        old, new = self.now.movable[n % len(self.now.movable)]
        self._move(old, new, self.now.current[old])

    @on("roaming", n=targets, back=flags)
    def go_on_elsewhere(self, n: int, back: bool) -> None:
        """A task moves in the middle of a call, which goes on there; it may come back before it is in user mode."""
        old, new, rest_of_call = self.now.roaming[n % len(self.now.roaming)]
        task = self.now.current[old]
        self._move(old, new, task)
        self.do(rest_of_call)
        if back:
            self._move(new, old, task)

    @on("schedulable", n=Range(0, 7))
    def preempted(self, n: int) -> None:
        """Preemption by a task that computes, and back: what was under way goes on, perhaps inside of the kernel."""
        cpu, other = self.now.schedulable[n % len(self.now.schedulable)]
        task = self.now.current[cpu]
        self.do(host.Schedule(cpu, other))
        self.do(tasks.ReturnToUser(other))
        self.do(host.Schedule(cpu, task) if task < USER_TASKS else host.ScheduleKthread(cpu))

    def _move(self, old: int, new: int, task: int) -> None:
        self.do(host.ScheduleKthread(old))
        self.do(host.Schedule(new, task))

    @on("idle_cpus", n=targets)
    def idle(self, n: int) -> None:
        """A CPU idles."""
        self.do(host.Idle(self.now.idle_cpus[n % len(self.now.idle_cpus)]))

    @on("secondary_cpus", n=targets)
    def hotplug(self, n: int) -> None:
        """A CPU goes offline and online."""
        self.do(host.Hotplug(self.now.secondary_cpus[n % len(self.now.secondary_cpus)]))

    @on("suspenders", n=targets)
    def suspend(self, n: int) -> None:
        """Suspend and resume."""
        self.do(host.Suspend(self.now.suspenders[n % len(self.now.suspenders)]))

    @on("host_cpus", n=targets)
    def softirq_kernel_fpu(self, n: int) -> None:
        """A softirq uses the FPU."""
        self.do(host.SoftirqKernelFpu(self.now.host_cpus[n % len(self.now.host_cpus)]))

    @on("vcpus", n=targets)
    def pend_init(self, n: int) -> None:
        """An INIT arrives, from another processor of the VM."""
        self.do(guest.PendInit(self.now.vcpus[n % len(self.now.vcpus)]))

    @on("xfd_cpus", n=targets, err=flags)
    def host_rdmsr(self, n: int, err: bool) -> None:
        """RDMSR in the host."""
        cpu = self.now.xfd_cpus[n % len(self.now.xfd_cpus)]
        self.do(host.HostRdmsr(cpu, MSR_IA32_XFD_ERR if err else MSR_IA32_XFD))

    @on("alive", count=Range(0, 2))
    def fail_alloc(self, count: int) -> None:
        """Allocations fail."""
        self.do(host.FailAlloc(count))
