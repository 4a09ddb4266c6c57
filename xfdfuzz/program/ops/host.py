"""The environment: scheduling, softirqs, idle, hotplug, suspend, a look at an MSR, memory pressure."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import USER_TASKS
from xfdfuzz.program.fields import Failures, HostMsrIndex, Nr, Points
from xfdfuzz.program.ops.base import OK, Op, TaskOp, inside, op, sample
from xfdfuzz.program.step import Result, msr_value


class _CpuOp(Op):
    __slots__ = ()
    cpu: int

    def hindrance(self, k: Kernel) -> str:
        if self.cpu >= len(k.cpus):
            return f"there is no cpu{self.cpu}"
        guest = k.cpus[self.cpu].guest
        return f"cpu{self.cpu} executes the guest of v{guest - 1}" if guest else ""


class _Schedule(_CpuOp):
    __slots__ = ()

    def task_nr(self) -> int:
        """The task to switch to."""
        raise NotImplementedError

    def hindrance(self, k: Kernel) -> str:
        nr = self.task_nr()
        task = k.tasks[nr]
        name = f"t{nr}" if nr < USER_TASKS else f"the kernel thread of cpu{self.cpu}"
        if not task.exists:
            return f"there is no {name}"
        if task.on_cpu:
            return f"{name} is on a CPU already"
        return f"{name} has exited" if task.exit_state else _CpuOp.hindrance(self, k)

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


@op("cpu{cpu} pmi")
class Pmi(_CpuOp):
    """A performance monitoring interrupt, which is a NMI: the event of the thread on the CPU samples its branches,
    which are the value."""

    cpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        k.on_cpu(self.cpu)
        k.intel_pmu_handle_irq()
        return sample(k)


def no_user_task(k: Kernel, cpu: int) -> str:
    """That a CPU executes no user task; nothing if it does."""
    return "" if k.cpus[cpu].current < USER_TASKS else f"cpu{cpu} has no user task"


@op("cpu{cpu} preempt(t{task}, {points})")
class Preempt(_CpuOp):
    """The task that runs on the CPU will be preempted inside the kernel, at the ``points``-th point from now at which
    it can be: where it may sleep, or a lock of the FPU core's or preemption itself is released.  User task ``task``
    then runs for a while and computes, if it is off the CPUs then, and the call goes on."""

    cpu: Nr = 0
    task: Nr = 1
    points: Points = 1

    def hindrance(self, k: Kernel) -> str:
        task = k.tasks[self.task]
        if self.task >= USER_TASKS or not task.exists or task.exit_state:
            return f"there is no t{self.task}"
        if task.on_cpu:
            return f"t{self.task} is on a CPU already"
        return _CpuOp.hindrance(self, k) or no_user_task(k, self.cpu)

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

    def hindrance(self, k: Kernel) -> str:
        return _CpuOp.hindrance(self, k) or no_user_task(k, self.cpu)

    def run(self, k: Kernel) -> Result:
        k.cpus[self.cpu].hardirq_points = self.points
        return OK


@op("cpu{cpu} idle")
class Idle(_CpuOp):
    """The CPU's kernel thread, its idle loop, enters a deep idle state, which gives up tiles since f17b168734c0."""

    cpu: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        if found := _CpuOp.hindrance(self, k):
            return found
        current = k.cpus[self.cpu].current
        return "" if k.tasks[current].pf_kthread else f"cpu{self.cpu} runs t{current}, not its kernel thread"

    def run(self, k: Kernel) -> Result:
        k.on_cpu(self.cpu)
        k.intel_idle()
        return OK


@op("cpu{cpu} hotplug")
class Hotplug(_CpuOp):
    """The CPU, any but the boot CPU, goes offline and comes back; what ran there is preempted."""

    cpu: Nr = 1

    def hindrance(self, k: Kernel) -> str:
        return _CpuOp.hindrance(self, k) if self.cpu else "cpu0 is the boot CPU"

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

    def hindrance(self, k: Kernel) -> str:
        if found := next(filter(None, (inside(task, nr) for nr, task in enumerate(k.tasks))), ""):
            return found
        if found := TaskOp.hindrance(self, k):
            return found
        return "" if k.tasks[self.task].on_cpu == 1 else f"t{self.task} is not on the boot CPU"

    def run(self, k: Kernel) -> Result:
        k.on_cpu(0)
        k.current.user_mode = 0
        k.this_cpu.resched_points = 0  # everybody else is frozen
        k.suspend()
        # its LBRs were not saved, and have lost their power
        k.system.ghost.tasks[self.task].undefined |= xf.MASK_LBR
        return Result(0)


@op("cpu{cpu} rdmsr({msr})")
class HostRdmsr(_CpuOp):
    """Read an MSR in the host, as the msr driver does."""

    cpu: Nr = 0
    msr: HostMsrIndex = MSR_IA32_XFD_ERR

    def hindrance(self, k: Kernel) -> str:
        machine = k.machine
        there = {MSR_IA32_XFD: machine.has_xfd, MSR_IA32_XFD_ERR: machine.has_xfd, MSR_IA32_XSS: machine.has_xsaves}
        return _CpuOp.hindrance(self, k) if there.get(self.msr, machine.cet) else "the processor has no such MSR"

    def run(self, k: Kernel) -> Result:
        k.on_cpu(self.cpu)
        return Result("ok", msr_value(self.msr, k.rdmsrl(self.msr)))


@op("host fail_alloc({count})")
class FailAlloc(Op):
    """The next ``count`` allocations of an fpstate fail."""

    count: Failures = 1

    def run(self, k: Kernel) -> Result:
        k.system.alloc_failures = self.count
        return OK
