"""The environment: scheduling, softirqs, a look at an MSR, memory pressure."""

from __future__ import annotations

from xfdfuzz.arch.registers import MSR_IA32_XFD_ERR
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import USER_TASKS
from xfdfuzz.program.fields import MsrIndex, Nr, Small
from xfdfuzz.program.ops.base import OK, Op, op
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
        return bool(task.exists) and not task.on_cpu and _CpuOp.enabled(self, k)

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
        return OK


@op("cpu{cpu} rdmsr({msr})")
class HostRdmsr(_CpuOp):
    """Read an MSR in the host, as the msr driver does."""

    cpu: Nr = 0
    msr: MsrIndex = MSR_IA32_XFD_ERR

    def enabled(self, k: Kernel) -> bool:
        return k.machine.has_xfd and _CpuOp.enabled(self, k)

    def run(self, k: Kernel) -> Result:
        k.on_cpu(self.cpu)
        return Result("ok", k.rdmsrl(self.msr))


@op("host fail_alloc({count})")
class FailAlloc(Op):
    """The next ``count`` allocations of an fpstate fail."""

    count: Small = 1

    def enabled(self, k: Kernel) -> bool:
        return True

    def run(self, k: Kernel) -> Result:
        k.system.alloc_failures = self.count
        return OK
