"""What others see of a task."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.engines.rules.base import Rules, on, one
from xfdfuzz.program.fields import FpuImage, ImageChange, UserImage
from xfdfuzz.program.ops import host, ptrace, tasks
from xfdfuzz.program.ops import tracer as tracing
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import Range, picks, targets, tokens


class PtraceRules(Rules):
    """What others see of a task: ptrace of one that is stopped, and /proc."""

    ptrace_get_xstate = one(ptrace.PtraceGetXstate, on="traces")
    read_arch_status = one(ptrace.ReadArchStatus, on="lookups")
    read_arch_status_of_kthread = one(ptrace.ReadArchStatusOfKthread, on="kthread_lookups")
    ptrace_set_xstate = one(ptrace.PtraceSetXstate, on="traces")
    ptrace_get_fpregs = one(ptrace.PtraceGetFpregs, on="traces")
    ptrace_set_fpregs = one(ptrace.PtraceSetFpregs, on="traces")
    ptrace_get_xfpregs = one(ptrace.PtraceGetXfpregs, on="ia32_traces")
    ptrace_set_xfpregs = one(ptrace.PtraceSetXfpregs, on="ia32_traces")
    ptrace_old_get_fpregs = one(ptrace.PtraceOldGetFpregs, on="ia32_traces")
    ptrace_old_set_fpregs = one(ptrace.PtraceOldSetFpregs, on="ia32_traces")
    ptrace_old_get_xfpregs = one(ptrace.PtraceOldGetXfpregs, on="ia32_traces")
    ptrace_old_set_xfpregs = one(ptrace.PtraceOldSetXfpregs, on="ia32_traces")
    ptrace_get_ssp = one(ptrace.PtraceGetSsp, on="cet_traces")
    ptrace_shstk_unlock = one(ptrace.PtraceShstkUnlock, on="cet_traces")
    ptrace_set_ssp = one(ptrace.PtraceSetSsp, on="cet_traces")

    @on("traces", n=targets, change=picks)
    def change_xstate(self, n: int, change: int) -> Iterator[Op]:
        """A tracer reads registers, changes some, and writes all of them back, as debuggers do."""
        tracer, task = self.choice("traces", n)
        yield tracing.KeepXstate(tracer, task)
        if task in self.now.kept_tasks:
            yield tracing.LoadXstate(tracer, task, task, self.domains[ImageChange].value(change))

    @on("distant_traces", n=targets, how=Range(0, 5), image=picks, token=tokens)
    def written_while_off(self, n: int, how: int, image: int, token: int) -> Iterator[Op]:
        """A task stops, a tracer on another CPU writes it, and it comes back to a CPU that nobody has used since."""
        tracer, there, cpu = self.choice("distant_traces", n)
        task = self.now.current[cpu]
        if self.now.current[there] != tracer:
            yield host.Schedule(there, tracer)
        yield tasks.ReturnToUser(task)
        yield host.ScheduleKthread(cpu)
        writes = self._writes(tracer, task, image, token)
        yield writes[how % len(writes)]
        yield host.Schedule(cpu, task)
        yield tasks.ReturnToUser(task)

    def _writes(self, tracer: int, task: int, image: int, token: int) -> list[Op]:
        """All that a tracer can write of a task's registers."""
        domain = self.domains[FpuImage]
        legacy = domain.value(domain.numbers.values[image % len(domain.numbers.values)])
        writes: list[Op] = [
            ptrace.PtraceSetXstate(tracer, task, self.domains[UserImage].value(image)),
            ptrace.PtraceSetFpregs(tracer, task, legacy),
            ptrace.PtraceOldSetFpregs(tracer, task, legacy),
        ]
        if (tracer, task) in self.now.ia32_traces:
            writes += [ptrace.PtraceSetXfpregs(tracer, task, legacy), ptrace.PtraceOldSetXfpregs(tracer, task, legacy)]
        if (tracer, task) in self.now.cet_traces:
            writes.append(ptrace.PtraceSetSsp(tracer, task, token))
        return writes
