"""The environment: scheduling, softirqs, idle, hotplug, suspend, a look at an MSR, memory pressure."""

from __future__ import annotations

from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import USER_TASKS, inside_call
from xfdfuzz.program.fields import Failures, HostMsrIndex, Nr, Points
from xfdfuzz.program.ops.base import OK, Op, TaskOp, op
from xfdfuzz.program.step import Result


class _CpuOp(Op):
    __slots__ = ()
    cpu: int

    def enabled(self, k: Kernel) -> bool:
        return self.cpu < len(k.cpus) and not k.cpus[self.cpu].guest


class _Schedule(_CpuOp):
    __slots__ = ()

    def task_nr(self) -> int:
        """The task to switch to."""
        raise NotImplementedError

    def enabled(self, k: Kernel) -> bool:
        task = k.tasks[self.task_nr()]
        return bool(task.exists) and not task.on_cpu and not task.exit_state and _CpuOp.enabled(self, k)

    def run(self, k: Kernel) -> Result:
        k.on_cpu(self.cpu)
        k.schedule(self.task_nr())
        return OK


@op("cpu{cpu} schedule(t{task})")
class Schedule(_Schedule):
    """Preempt what runs on the CPU in favour of a user task, which may have run on another CPU before."""

    cpu: Nr = 0
    task: Nr = 1

    def task_nr(self) -> int:
        return self.task if self.task < USER_TASKS else 0


@op("cpu{cpu} schedule(kthread)")
class ScheduleKthread(_Schedule):
    """Switch to the CPU's kernel thread, which leaves the registers alone."""

    cpu: Nr = 0

    def task_nr(self) -> int:
        return USER_TASKS + self.cpu


@op("cpu{cpu} softirq kernel_fpu_begin")
class SoftirqKernelFpu(_CpuOp):
    """A softirq on the CPU uses the FPU."""

    cpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        k.on_cpu(self.cpu)
        k.current.user_mode = 0
        k.kernel_fpu_begin()
        k.kernel_fpu_end()
        return OK


@op("cpu{cpu} preempt(t{task}, {points})")
class Preempt(_CpuOp):
    """The task that runs on the CPU will be preempted inside the kernel, at the ``points``-th point from now at which
    it can be: where it may sleep, or a lock of the FPU core's or preemption itself is released.  User task ``task``
    then runs for a while and computes, if it is off the CPUs then, and the call goes on."""

    cpu: Nr = 0
    task: Nr = 1
    points: Points = 1

    def enabled(self, k: Kernel) -> bool:
        task = k.tasks[self.task]
        there = self.task < USER_TASKS and bool(task.exists) and not task.on_cpu and not task.exit_state
        return there and _CpuOp.enabled(self, k) and k.cpus[self.cpu].current < USER_TASKS

    def run(self, k: Kernel) -> Result:
        cpu = k.cpus[self.cpu]
        cpu.resched_points, cpu.resched_task = self.points, self.task + 1
        return OK


@op("cpu{cpu} hardirq(kernel_fpu_begin, {points})")
class HardirqKernelFpu(_CpuOp):
    """A hard interrupt whose handler uses the FPU if irq_fpu_usable() says that it can will hit a call on the CPU where
    bottom halves are disabled: the ``points``-th time from now that registers are about to be saved, or were loaded."""

    cpu: Nr = 0
    points: Points = 1

    def enabled(self, k: Kernel) -> bool:
        return _CpuOp.enabled(self, k) and k.cpus[self.cpu].current < USER_TASKS

    def run(self, k: Kernel) -> Result:
        k.cpus[self.cpu].hardirq_points = self.points
        return OK


@op("cpu{cpu} idle")
class Idle(_CpuOp):
    """The CPU's kernel thread, its idle loop, enters a deep idle state, which gives up tiles since f17b168734c0."""

    cpu: Nr = 0

    def enabled(self, k: Kernel) -> bool:
        return _CpuOp.enabled(self, k) and bool(k.tasks[k.cpus[self.cpu].current].pf_kthread)

    def run(self, k: Kernel) -> Result:
        k.on_cpu(self.cpu)
        k.intel_idle()
        return OK


@op("cpu{cpu} hotplug")
class Hotplug(_CpuOp):
    """The CPU, any but the boot CPU, goes offline and comes back; what ran there is preempted."""

    cpu: Nr = 1

    def enabled(self, k: Kernel) -> bool:
        return self.cpu > 0 and _CpuOp.enabled(self, k)

    def run(self, k: Kernel) -> Result:
        k.cpu_down(self.cpu)
        k.cpu_up(self.cpu)
        return OK


@op("t{task} suspend")
class Suspend(TaskOp):
    """The task, on the boot CPU, asks for suspend to memory, and the system resumes.

    A task that was preempted before is taken to have been inside the system call already.  Freezing takes others out of
    their calls first.
    """

    task: Nr = 0

    def enabled(self, k: Kernel) -> bool:
        busy = any(map(inside_call, k.tasks))
        return not busy and k.tasks[self.task].on_cpu == 1 and TaskOp.enabled(self, k)

    def run(self, k: Kernel) -> Result:
        k.on_cpu(0)
        k.current.user_mode = 0
        k.this_cpu.resched_points = 0  # everybody else is frozen
        k.suspend()
        return Result(0)


@op("cpu{cpu} rdmsr({msr})")
class HostRdmsr(_CpuOp):
    """Read an MSR in the host, as the msr driver does."""

    cpu: Nr = 0
    msr: HostMsrIndex = MSR_IA32_XFD_ERR

    def enabled(self, k: Kernel) -> bool:
        machine = k.machine
        there = {MSR_IA32_XFD: machine.has_xfd, MSR_IA32_XFD_ERR: machine.has_xfd, MSR_IA32_XSS: machine.xsave}
        return there.get(self.msr, machine.cet) and _CpuOp.enabled(self, k)

    def run(self, k: Kernel) -> Result:
        k.on_cpu(self.cpu)
        return Result("ok", k.rdmsrl(self.msr))


@op("host fail_alloc({count})")
class FailAlloc(Op):
    """The next ``count`` allocations of an fpstate fail."""

    count: Failures = 1

    def enabled(self, k: Kernel) -> bool:
        return True

    def run(self, k: Kernel) -> Result:
        k.system.alloc_failures = self.count
        return OK
