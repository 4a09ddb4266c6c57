"""ptrace: a tracer reads and writes the registers of a task that is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program import ghost, images
from xfdfuzz.program.fields import Nr, UserImage
from xfdfuzz.program.ops.base import TaskOp, op
from xfdfuzz.program.step import Result, image_of


class _Ptrace(TaskOp):
    """The tracee is off the CPUs, outside KVM_RUN, execve() and the delivery of a signal: it is taken to be stopped."""

    __slots__ = ()
    tracee: int

    def enabled(self, k: Kernel) -> bool:
        tracee = k.tasks[self.tracee]
        stopped = tracee.exists and not (tracee.on_cpu or tracee.exit_state)
        busy = tracee.kvm_run or tracee.in_execve or tracee.in_signal
        return bool(stopped and not busy) and TaskOp.enabled(self, k)


@op("t{task} ptrace(PTRACE_GETREGSET, t{tracee}, NT_X86_XSTATE)")
class PtraceGetXstate(_Ptrace):
    """Read the XSAVE image of a stopped task."""

    task: Nr = 0
    tracee: Nr = 1

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        ret, image = k.xstateregs_get(self.tracee)
        return Result(ret, None if image is None else image_of(image))


@op("t{task} ptrace(PTRACE_SETREGSET, t{tracee}, {image})")
class PtraceSetXstate(_Ptrace):
    """Write the XSAVE image of a stopped task, all of its user components."""

    task: Nr = 0
    tracee: Nr = 1
    image: UserImage = UserImage(xf.MASK_YMM, 1)

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        area = images.area_of(self.image, partial(ghost.task_token, self.tracee))
        ret = k.xstateregs_set(self.tracee, area)
        if not ret:
            ghost.initialise(k, self.tracee)
            ghost.load(k.system.ghost.tasks[self.tracee], area)
        return Result(ret)

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from images.idle(self.image, machine)
