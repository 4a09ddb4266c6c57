"""What others see of a task: ptrace reads and writes the registers of one that is stopped, /proc says what it used."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.errno import EIO
from xfdfuzz.kernel.fpu.regset import (
    I387_IA32_SIZE,
    NO_REGSET,
    NT_PRFPREG,
    NT_PRXFPREG,
    NT_X86_SHSTK,
    NT_X86_XSTATE,
    SSP_BEYOND,
    SSP_UNALIGNED,
    UserRegset,
)
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.shstk import ARCH_SHSTK_UNLOCK
from xfdfuzz.kernel.state import USER_TASKS
from xfdfuzz.program import ghost, images
from xfdfuzz.program.fields import BEYOND, UNALIGNED, FpuImage, IovLen, Nr, ShstkFeatures, Ssp, UserImage
from xfdfuzz.program.ops.base import TaskOp, inside, op
from xfdfuzz.program.step import Content, FpuState, Result, image_of


class Ptrace(TaskOp):
    """The tracee is off the CPUs, outside calls that are cut in two: it is taken to be stopped, of another process."""

    __slots__ = ()
    NOTE_TYPE: ClassVar[int]
    tracee: int
    iov_len: IovLen

    def regset(self, k: Kernel) -> UserRegset:
        """The register set, of size 0 where the tracee has none of that type."""
        return k.task_user_regset_view(self.tracee).get(self.NOTE_TYPE, NO_REGSET)

    def given(self, k: Kernel) -> int:
        """How many bytes the tracer's buffer has, as it says."""
        return self.iov_len.bytes_of(self.regset(k).whole)

    def hindrance(self, k: Kernel) -> str:
        tracee, name = k.tasks[self.tracee], f"t{self.tracee}"
        if not tracee.exists:
            return f"there is no {name}"
        if tracee.on_cpu:
            return f"{name} is on a CPU, not stopped"
        if tracee.exit_state:
            return f"{name} has exited"
        if found := inside(tracee, self.tracee) or TaskOp.hindrance(self, k):
            return found
        refused = k.ptrace_attach(self.task, self.tracee)
        return f"PTRACE_ATTACH of {name}, of t{self.task}'s own process, is -EPERM" if refused else ""


@op("t{task} ptrace(PTRACE_GETREGSET, t{tracee}, NT_X86_XSTATE, {iov_len})")
class PtraceGetXstate(Ptrace):
    """Read the XSAVE image of a stopped task, or as much of it as the buffer has room for."""

    NOTE_TYPE = NT_X86_XSTATE
    task: Nr = 0
    tracee: Nr = 1
    iov_len: IovLen = IovLen()

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        size = k.regset_get_alloc(k.ptrace_regset(self.tracee, NT_X86_XSTATE, self.iov_len.size))
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
class PtraceSetXstate(Ptrace):
    """Write the XSAVE image of a stopped task, all of its user components; a part of it is refused."""

    NOTE_TYPE = NT_X86_XSTATE
    task: Nr = 0
    tracee: Nr = 1
    image: UserImage = UserImage(xf.MASK_YMM, 1)
    iov_len: IovLen = IovLen()

    def area(self, k: Kernel) -> XsaveArea:
        """The image that the kernel gets."""
        return images.area_of(self.image, partial(ghost.task_token, self.tracee))

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        area = self.area(k)
        size = k.ptrace_regset(self.tracee, NT_X86_XSTATE, self.iov_len.size)
        ret = size if size < 0 else k.xstateregs_set(self.tracee, area, size)
        if not ret:
            ghost.initialise(k, self.tracee)
            ghost.load(k, k.system.ghost.tasks[self.tracee], area)
        return Result(ret)

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from images.idle(self.image, machine)


class _Fpregs(Ptrace):
    """x87, SSE and MXCSR, or x87 alone, as 32-bit programs know it: by the size of the register set."""

    __slots__ = ()

    def size(self, k: Kernel) -> int:
        """How many bytes of the register set it is about, or an error."""
        return k.ptrace_regset(self.tracee, self.NOTE_TYPE, self.iov_len.size)


class _FpregsRead(_Fpregs):
    __slots__ = ()

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        regset, size = self.regset(k), k.regset_get_alloc(self.size(k))
        if size < 0:
            return Result(size)
        if regset.whole == I387_IA32_SIZE:
            x87 = k.fpregs_get(self.tracee)
            return Result(0, FpuState(((xf.X87, x87),) if size == regset.whole else ()))
        data, behind = k.xfpregs_get(self.tracee).data, images.lost(size, k.machine.cpuid)
        return Result(0, FpuState(tuple((i, data[i]) for i in xf.LEGACY if not behind >> i & 1)))


class _FpregsWritten(_Fpregs):
    __slots__ = ()
    image: FpuImage

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        regset, size = self.regset(k), self.size(k)
        area = images.legacy_of(self.image, partial(ghost.task_token, self.tracee))
        if size < 0:
            return Result(size)
        ideal = k.system.ghost.tasks[self.tracee]
        if regset.whole == I387_IA32_SIZE:
            ret = k.fpregs_set(self.tracee, area.data[xf.X87], size)
            if not ret:
                ghost.define(ideal, xf.X87, area.data[xf.X87])
            return Result(ret)
        ret = k.xfpregs_set(self.tracee, area, size)
        if not ret:
            ghost.set_legacy(ideal, (area.data[i] for i in xf.LEGACY))
        return Result(ret)

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from images.idle_fpu(self.image)


@op("t{task} ptrace(PTRACE_GETREGSET, t{tracee}, NT_PRFPREG, {iov_len})")
class PtraceGetFpregs(_FpregsRead):
    """Read x87, SSE and MXCSR of a stopped task, or as much of them as the buffer has room for; x87 of a 32-bit one."""

    NOTE_TYPE = NT_PRFPREG
    task: Nr = 0
    tracee: Nr = 1
    iov_len: IovLen = IovLen()


@op("t{task} ptrace(PTRACE_SETREGSET, t{tracee}, NT_PRFPREG, {image}, {iov_len})")
class PtraceSetFpregs(_FpregsWritten):
    """Write x87, SSE and MXCSR of a stopped task, or x87 of a 32-bit one; all else stays.  A part is refused."""

    NOTE_TYPE = NT_PRFPREG
    task: Nr = 0
    tracee: Nr = 1
    image: FpuImage = FpuImage(1)
    iov_len: IovLen = IovLen()


@op("t{task} ptrace(PTRACE_GETREGSET, t{tracee}, NT_PRXFPREG, {iov_len})")
class PtraceGetXfpregs(_FpregsRead):
    """Read x87, SSE and MXCSR of a stopped 32-bit task."""

    NOTE_TYPE = NT_PRXFPREG
    task: Nr = 0
    tracee: Nr = 1
    iov_len: IovLen = IovLen()


@op("t{task} ptrace(PTRACE_SETREGSET, t{tracee}, NT_PRXFPREG, {image}, {iov_len})")
class PtraceSetXfpregs(_FpregsWritten):
    """Write x87, SSE and MXCSR of a stopped 32-bit task."""

    NOTE_TYPE = NT_PRXFPREG
    task: Nr = 0
    tracee: Nr = 1
    image: FpuImage = FpuImage(1)
    iov_len: IovLen = IovLen()


class _OldRequest(_Fpregs):
    """A request without a buffer's size: the register set is the tracer's kind of one, whatever the tracee is; EIO if
    that kind has none."""

    __slots__ = ()

    def regset(self, k: Kernel) -> UserRegset:
        return k.arch_ptrace(self.task, self.NOTE_TYPE)

    def size(self, k: Kernel) -> int:
        return self.given(k) or -EIO

    def given(self, k: Kernel) -> int:
        return self.regset(k).whole


@op("t{task} ptrace(PTRACE_GETFPREGS, t{tracee})")
class PtraceOldGetFpregs(_OldRequest, _FpregsRead):
    """Read x87, SSE and MXCSR of a stopped task; if the tracer is a 32-bit program, x87."""

    NOTE_TYPE = NT_PRFPREG
    task: Nr = 0
    tracee: Nr = 1


@op("t{task} ptrace(PTRACE_SETFPREGS, t{tracee}, {image})")
class PtraceOldSetFpregs(_OldRequest, _FpregsWritten):
    """Write x87, SSE and MXCSR of a stopped task; if the tracer is a 32-bit program, x87."""

    NOTE_TYPE = NT_PRFPREG
    task: Nr = 0
    tracee: Nr = 1
    image: FpuImage = FpuImage(1)


@op("t{task} ptrace(PTRACE_GETFPXREGS, t{tracee})")
class PtraceOldGetXfpregs(_OldRequest, _FpregsRead):
    """Read x87, SSE and MXCSR of a stopped task, by a 32-bit program; others have no such request."""

    NOTE_TYPE = NT_PRXFPREG
    task: Nr = 0
    tracee: Nr = 1


@op("t{task} ptrace(PTRACE_SETFPXREGS, t{tracee}, {image})")
class PtraceOldSetXfpregs(_OldRequest, _FpregsWritten):
    """Write x87, SSE and MXCSR of a stopped task, likewise."""

    NOTE_TYPE = NT_PRXFPREG
    task: Nr = 0
    tracee: Nr = 1
    image: FpuImage = FpuImage(1)


@op("t{task} ptrace(PTRACE_GETREGSET, t{tracee}, NT_X86_SHSTK, {iov_len})")
class PtraceGetSsp(Ptrace):
    """Read the shadow stack pointer of a stopped task: ENODEV if it has no shadow stack."""

    NOTE_TYPE = NT_X86_SHSTK
    task: Nr = 0
    tracee: Nr = 1
    iov_len: IovLen = IovLen()

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        size = k.regset_get_alloc(k.ptrace_regset(self.tracee, NT_X86_SHSTK, self.iov_len.size))
        if size < 0:
            return Result(size)
        ret, ssp = k.ssp_get(self.tracee)
        return Result(ret, None if ret or not size else Content(ssp))


@op("t{task} ptrace(PTRACE_SETREGSET, t{tracee}, NT_X86_SHSTK, {ssp}, {iov_len})")
class PtraceSetSsp(Ptrace):
    """Write the shadow stack pointer of a stopped task: that of another of its shadow stacks, or what is refused."""

    NOTE_TYPE = NT_X86_SHSTK
    task: Nr = 0
    tracee: Nr = 1
    ssp: Ssp = 2
    iov_len: IovLen = IovLen()

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        refused = {UNALIGNED: SSP_UNALIGNED, BEYOND: SSP_BEYOND}
        ssp = refused.get(self.ssp) or ghost.task_token(self.tracee, self.ssp)
        size = k.ptrace_regset(self.tracee, NT_X86_SHSTK, self.iov_len.size)
        ret = size if size < 0 else k.ssp_set(self.tracee, ssp, size)
        if not ret:
            ghost.define(k.system.ghost.tasks[self.tracee], xf.CET_USER, ssp)
        return Result(ret)


@op("t{task} ptrace(PTRACE_ARCH_PRCTL, t{tracee}, ARCH_SHSTK_UNLOCK, {features})")
class PtraceShstkUnlock(Ptrace):
    """Let a stopped task change features of shadow stacks that are locked, as checkpoint and restore needs it."""

    NOTE_TYPE = NT_X86_SHSTK
    task: Nr = 0
    tracee: Nr = 1
    features: ShstkFeatures = 1

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        if k.tasks[self.task].ia32:
            return Result(-EIO)  # no request of a 32-bit program's
        return Result(k.shstk_prctl(self.tracee, ARCH_SHSTK_UNLOCK, self.features).ret)


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
