"""The environment: scheduling, interrupts, kernel threads, idle, hotplug, suspend, an MSR, memory pressure."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import USER_TASKS
from xfdfuzz.program.fields import Failures, HostMsrIndex, Nr, Points
from xfdfuzz.program.ops.base import OK, Op, TaskOp, inside, not_waiting, op, sample
from xfdfuzz.program.step import Result, msr_value


class _CpuOp(Op):
    __slots__ = ()
    cpu: int

    def hindrance(self, k: Kernel) -> str:
        if self.cpu >= len(k.cpus):
            return f"there is no cpu{self.cpu}"
        cpu = k.cpus[self.cpu]
        if cpu.guest:
            return f"cpu{self.cpu} executes the guest of v{cpu.guest - 1}"
        return "" if cpu.cr4_osfxsr else f"cpu{self.cpu} is coming online"


def not_preemptible(k: Kernel, cpu: int) -> str:
    """That kernel code on a CPU has disabled preemption to use the FPU; nothing if it has not."""
    current = k.cpus[cpu].current
    return f"t{current} uses the FPU in the kernel" if k.tasks[current].kernel_fpu else ""


class _Schedule(_CpuOp):
    __slots__ = ()

    def task_nr(self) -> int:
        """The task to switch to."""
        raise NotImplementedError

    def hindrance(self, k: Kernel) -> str:
        return not_waiting(k, self.task_nr()) or _CpuOp.hindrance(self, k) or not_preemptible(k, self.cpu)

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


class _InterruptOp(_CpuOp):
    __slots__ = ()

    def run(self, k: Kernel) -> Result:
        k.on_cpu(self.cpu)
        k.current.user_mode = 0
        return Result(self.interrupt(k))

    def interrupt(self, k: Kernel) -> str:
        """What it comes to: ``ok`` where it uses the FPU."""
        raise NotImplementedError


class _Softirq(_InterruptOp):
    __slots__ = ()

    def hindrance(self, k: Kernel) -> str:
        if found := _CpuOp.hindrance(self, k):
            return found
        waits = not_preemptible(k, self.cpu) if k.config.rt else ""
        return f"with PREEMPT_RT a softirq is a thread's, and {waits}" if waits else ""


@op("cpu{cpu} softirq kernel_fpu_begin")
class SoftirqKernelFpu(_Softirq):
    """A softirq on the CPU uses the FPU, if irq_fpu_usable() says that it can: ``unusable`` if not.

    ``pending`` where bottom halves are disabled, as kernel_fpu_begin() does since d02198550423 (6.15): then it runs
    where they are enabled again.
    """

    cpu: Nr = 0

    def interrupt(self, k: Kernel) -> str:
        return k.raise_softirq()


@op("cpu{cpu} softirq kernel_fpu_begin unasked")
class SoftirqUnasked(_Softirq):
    """A softirq on the CPU uses the FPU without a question, which is a mistake of its code (asm/fpu/api.h)."""

    DRAWN = False
    cpu: Nr = 0

    def interrupt(self, k: Kernel) -> str:
        return k.raise_softirq(asks=False)


@op("cpu{cpu} hardirq kernel_fpu_begin")
class HardirqNow(_InterruptOp):
    """A hard interrupt on the CPU, between calls, whose handler uses the FPU, if irq_fpu_usable() says that it can:
    ``unusable`` if not."""

    cpu: Nr = 0

    def interrupt(self, k: Kernel) -> str:
        return k.hardirq_uses_fpu()


@op("cpu{cpu} hardirq kernel_fpu_begin unasked")
class HardirqUnasked(_InterruptOp):
    """A hard interrupt on the CPU uses the FPU without a question, which is a mistake of its code (asm/fpu/api.h)."""

    DRAWN = False
    cpu: Nr = 0

    def interrupt(self, k: Kernel) -> str:
        return k.hardirq_uses_fpu(asks=False)


@op("cpu{cpu} nmi kernel_fpu_begin")
class NmiKernelFpu(_InterruptOp):
    """A NMI on the CPU, between calls, whose handler uses the FPU, if irq_fpu_usable() says that it can: ``unusable``
    if not.  Since 59f5ede3bc0f (5.18) that it asks is a mistake of its code."""

    DRAWN = False
    cpu: Nr = 0

    def interrupt(self, k: Kernel) -> str:
        return k.nmi_uses_fpu()


class _KernelCode(_CpuOp):
    """A kernel thread at work; a kind of its own, so that it stands in for nothing else that happens to a CPU."""

    __slots__ = ()


@op("cpu{cpu} kthread kernel_fpu_begin")
class KthreadKernelFpu(_KernelCode):
    """The CPU's kernel thread uses the FPU, if irq_fpu_usable() says that it can: ``unusable`` if not.

    While the CPU comes online that is load_ucode_ap(), which checks the microcode by its SHA-256.
    """

    cpu: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        if (found := _CpuOp.hindrance(self, k)) and not coming_online(k, self.cpu):
            return found
        return no_kthread(k, self.cpu)

    def run(self, k: Kernel) -> Result:
        k.on_cpu(self.cpu)
        return Result(k.kernel_fpu_use())


def coming_online(k: Kernel, cpu: int) -> bool:
    """Whether a CPU is between INIT and fpu__init_cpu()."""
    return cpu < len(k.cpus) and not k.cpus[cpu].cr4_osfxsr


def no_kthread(k: Kernel, cpu: int) -> str:
    """That a CPU does not run its kernel thread; nothing if it does."""
    current = k.cpus[cpu].current
    return "" if k.tasks[current].pf_kthread else f"cpu{cpu} runs t{current}, not its kernel thread"


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
    """A hard interrupt whose handler uses the FPU if irq_fpu_usable() says that it can will hit a call on the CPU with
    interrupts on: the ``points``-th time from now that registers are about to be saved, or were loaded."""

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
        return _CpuOp.hindrance(self, k) or no_kthread(k, self.cpu)

    def run(self, k: Kernel) -> Result:
        k.on_cpu(self.cpu)
        k.intel_idle()
        return OK


def hotplug_locked(k: Kernel) -> str:
    """That a CPU is coming online, and cpu_hotplug_lock taken; nothing if none is."""
    return next((f"cpu{nr} is coming online" for nr in range(len(k.cpus)) if coming_online(k, nr)), "")


class _Offline(_CpuOp):
    __slots__ = ()

    def hindrance(self, k: Kernel) -> str:
        if not self.cpu:
            return "cpu0 is the boot CPU"
        return _CpuOp.hindrance(self, k) or not_preemptible(k, self.cpu) or hotplug_locked(k)


@op("cpu{cpu} hotplug")
class Hotplug(_Offline):
    """The CPU, any but the boot CPU, goes offline and comes back; what ran there is preempted."""

    cpu: Nr = 1

    def run(self, k: Kernel) -> Result:
        k.cpu_down(self.cpu)
        k.cpu_up(self.cpu)
        return OK


@op("cpu{cpu} hotplug ...")
class HotplugStarts(_Offline):
    """The CPU goes offline and comes back as far as load_ucode_ap(), before fpu__init_cpu(); interrupts are off."""

    cpu: Nr = 1

    def run(self, k: Kernel) -> Result:
        k.cpu_down(self.cpu)
        k.native_cpu_up(self.cpu)
        return OK


@op("cpu{cpu} ... hotplug")
class HotplugEnds(_CpuOp):
    """The rest of the way: its FPU is enabled, and the CPU is online."""

    cpu: Nr = 1

    def hindrance(self, k: Kernel) -> str:
        if coming_online(k, self.cpu):
            return ""
        return f"cpu{self.cpu} is not coming online" if self.cpu < len(k.cpus) else f"there is no cpu{self.cpu}"

    def run(self, k: Kernel) -> Result:
        k.start_secondary(self.cpu)
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
        if found := TaskOp.hindrance(self, k) or hotplug_locked(k):
            return found
        return "" if k.tasks[self.task].on_cpu == 1 else f"t{self.task} is not on the boot CPU"

    def run(self, k: Kernel) -> Result:
        k.on_cpu(0)
        k.current.user_mode = 0
        k.call_preemption_off()  # everybody else is frozen
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
    """The next ``count`` allocations of memory for registers fail: of fpstates, of tasks, which have one, and of the
    buffers that PTRACE_GETREGSET and _SETREGSET, KVM_GET_XSAVE, _SET_XSAVE, _GET_FPU and _SET_FPU copy through, and of
    a core file's notes."""

    count: Failures = 1

    def run(self, k: Kernel) -> Result:
        k.system.alloc_failures = self.count
        return OK
