"""ptrace: a tracer reads and writes the registers of a task that is stopped."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import inside_call
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import Nr, UserImage
from xfdfuzz.program.ops.base import TaskOp, op
from xfdfuzz.program.step import Result, image_of


class _Ptrace(TaskOp):
    """The tracee is off the CPUs, outside calls that are cut in two: it is taken to be stopped."""

    __slots__ = ()
    tracee: int

    def enabled(self, k: Kernel) -> bool:
        tracee = k.tasks[self.tracee]
        stopped = tracee.exists and not (tracee.on_cpu or tracee.exit_state)
        return bool(stopped) and not inside_call(tracee) and TaskOp.enabled(self, k)


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
        token = ghost.task_token(self.tracee, self.image.data)
        area = XsaveArea()
        area.xstate_bv, area.xcomp_bv = self.image.xstate_bv, self.image.xcomp_bv
        area.reserved, area.mxcsr = self.image.reserved, self.image.mxcsr
        for i in xf.components_in(self.image.xstate_bv & ~self.image.init):
            area.data[i] = token
        ret = k.xstateregs_set(self.tracee, area)
        if not ret:
            ghost.initialise(k, self.tracee)
            for i in xf.components_in(self.image.xstate_bv):
                ghost.define(k.system.ghost.tasks[self.tracee], i, area.data[i])
        return Result(ret)
