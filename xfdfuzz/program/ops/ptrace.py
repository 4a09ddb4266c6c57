"""What others see of a task: ptrace reads and writes the registers of one that is stopped, /proc says what it used."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.fpu.init import FXSAVE_SIZE
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import USER_TASKS
from xfdfuzz.program import ghost, images
from xfdfuzz.program.fields import FpuImage, IovLen, Nr, UserImage
from xfdfuzz.program.ops.base import TaskOp, inside, op
from xfdfuzz.program.step import FpuState, Result, image_of


class _Ptrace(TaskOp):
    """The tracee is off the CPUs, outside calls that are cut in two: it is taken to be stopped."""

    __slots__ = ()
    tracee: int

    def hindrance(self, k: Kernel) -> str:
        tracee, name = k.tasks[self.tracee], f"t{self.tracee}"
        if not tracee.exists:
            return f"there is no {name}"
        if tracee.on_cpu:
            return f"{name} is on a CPU, not stopped"
        if tracee.exit_state:
            return f"{name} has exited"
        return inside(tracee, self.tracee) or TaskOp.hindrance(self, k)


@op("t{task} ptrace(PTRACE_GETREGSET, t{tracee}, NT_X86_XSTATE, {iov_len})")
class PtraceGetXstate(_Ptrace):
    """Read the XSAVE image of a stopped task, or as much of it as the buffer has room for."""

    task: Nr = 0
    tracee: Nr = 1
    iov_len: IovLen = IovLen()

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        whole = k.xstateregs_size()
        size = k.ptrace_regset(self.iov_len.bytes_of(whole), whole)
        if size < 0:
            return Result(size)
        ret, area = k.xstateregs_get(self.tracee, size)
        if area is None:
            return Result(ret)
        images.cut_area(area, size, k.machine.cpuid)
        image = image_of(area)
        behind = images.lost(size, k.machine.cpuid)
        tokens = tuple((i, token) for i, token in image.tokens if not behind >> i & 1)
        return Result(ret, image._replace(tokens=tokens, iov_len=None if self.iov_len.size is None else size))


@op("t{task} ptrace(PTRACE_SETREGSET, t{tracee}, {image}, {iov_len})")
class PtraceSetXstate(_Ptrace):
    """Write the XSAVE image of a stopped task, all of its user components; a part of it is refused."""

    task: Nr = 0
    tracee: Nr = 1
    image: UserImage = UserImage(xf.MASK_YMM, 1)
    iov_len: IovLen = IovLen()

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        area = images.area_of(self.image, partial(ghost.task_token, self.tracee))
        whole = k.xstateregs_size()
        size = k.ptrace_regset(self.iov_len.bytes_of(whole), whole)
        ret = size if size < 0 else k.xstateregs_set(self.tracee, area, size)
        if not ret:
            ghost.initialise(k, self.tracee)
            ghost.load(k.system.ghost.tasks[self.tracee], area)
        return Result(ret)

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from images.idle(self.image, machine)


@op("t{task} ptrace(PTRACE_GETREGSET, t{tracee}, NT_PRFPREG, {iov_len})")
class PtraceGetFpregs(_Ptrace):
    """Read x87, SSE and MXCSR of a stopped task, or as much of them as the buffer has room for."""

    task: Nr = 0
    tracee: Nr = 1
    iov_len: IovLen = IovLen()

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        size = k.ptrace_regset(self.iov_len.bytes_of(FXSAVE_SIZE), FXSAVE_SIZE)
        if size < 0:
            return Result(size)
        data, behind = k.xfpregs_get(self.tracee).data, images.lost(size, k.machine.cpuid)
        return Result(0, FpuState(tuple((i, data[i]) for i in xf.LEGACY if not behind >> i & 1)))


@op("t{task} ptrace(PTRACE_SETREGSET, t{tracee}, NT_PRFPREG, {image}, {iov_len})")
class PtraceSetFpregs(_Ptrace):
    """Write x87, SSE and MXCSR of a stopped task; all else stays.  A part of them is refused."""

    task: Nr = 0
    tracee: Nr = 1
    image: FpuImage = FpuImage(1)
    iov_len: IovLen = IovLen()

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        values = images.fpu_of(self.image, partial(ghost.task_token, self.tracee))
        area = XsaveArea()
        for i, token in zip(xf.LEGACY, values, strict=True):
            area.data[i] = token
        size = k.ptrace_regset(self.iov_len.bytes_of(FXSAVE_SIZE), FXSAVE_SIZE)
        ret = size if size < 0 else k.xfpregs_set(self.tracee, area, size)
        if not ret:
            ghost.set_legacy(k.system.ghost.tasks[self.tracee], values)
        return Result(ret)

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from images.idle_fpu(self.image)


@op("t{task} read(arch_status, t{tracee})")
class ReadArchStatus(TaskOp):
    """Read /proc/PID/arch_status of a user task or a worker; the value says whether it has a line about AVX-512."""

    task: Nr = 0
    tracee: Nr = 1

    def hindrance(self, k: Kernel) -> str:
        there = bool(k.tasks[self.tracee].exists)
        return TaskOp.hindrance(self, k) if there else f"there is no t{self.tracee}"

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        return Result(0, int(k.proc_pid_arch_status(self.tracee)))


@op("t{task} read(arch_status, kthread, cpu{cpu})")
class ReadArchStatusOfKthread(TaskOp):
    """The same of a CPU's kernel thread."""

    task: Nr = 0
    cpu: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        return TaskOp.hindrance(self, k) if self.cpu < len(k.cpus) else f"there is no cpu{self.cpu}"

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        return Result(0, int(k.proc_pid_arch_status(USER_TASKS + self.cpu)))
