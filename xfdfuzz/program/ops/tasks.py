"""System calls and instructions of user threads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch import xsave
from xfdfuzz.arch.cpuid import LEAF_XSTATE
from xfdfuzz.arch.registers import GeneralProtection, cpuid, load_component
from xfdfuzz.kernel import shstk
from xfdfuzz.kernel.errno import EBADF, ENOENT
from xfdfuzz.kernel.fpu import xstate
from xfdfuzz.kernel.fpu.core import KERNEL_CONTENTS, SECTION_CONTENTS
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import VCPU_EXITED, Task, in_section, pasid_of
from xfdfuzz.program import ghost, images
from xfdfuzz.program.fields import (
    Autodisarm,
    Bit,
    Contents,
    CpuidLeaf,
    Facility,
    FpuImage,
    Mxcsr,
    Nr,
    Null,
    Pkru,
    ShstkFeatures,
    SseContents,
    StackSize,
    Subleaf,
    Token,
    Undefined,
    UserImage,
    Wrss,
    XcompBv,
    Xfeatures,
)
from xfdfuzz.program.ops.base import OK, TaskOp, busy, not_waiting, op, whereabouts
from xfdfuzz.program.step import Content, Mask, Result, image_of


class _Prctl(TaskOp):
    __slots__ = ()

    def prctl(self, k: Kernel, option: int, arg: int, undefined: int = 0) -> Result:
        self.enter_kernel(k)
        value = k.fpu_xstate_prctl(option, arg, undefined)
        if option in (xstate.ARCH_REQ_XCOMP_PERM, xstate.ARCH_REQ_XCOMP_GUEST_PERM):
            return Result(value.ret)
        return Result(value.ret, None if value.ret else Mask(value.value))


@op("t{task} arch_prctl(ARCH_GET_XCOMP_SUPP, {pointer})")
class GetXcompSupp(_Prctl):
    """Which components the kernel supports."""

    task: Nr = 0
    pointer: Null = False

    def run(self, k: Kernel) -> Result:
        return self.prctl(k, xstate.ARCH_GET_XCOMP_SUPP, not self.pointer)


@op("t{task} arch_prctl(ARCH_GET_XCOMP_PERM, {pointer})")
class GetXcompPerm(_Prctl):
    """Which components the process may use."""

    task: Nr = 0
    pointer: Null = False

    def run(self, k: Kernel) -> Result:
        return self.prctl(k, xstate.ARCH_GET_XCOMP_PERM, not self.pointer)


@op("t{task} arch_prctl(ARCH_GET_XCOMP_GUEST_PERM, {pointer})")
class GetXcompGuestPerm(_Prctl):
    """Which components the process' guests may use."""

    task: Nr = 0
    pointer: Null = False

    def run(self, k: Kernel) -> Result:
        return self.prctl(k, xstate.ARCH_GET_XCOMP_GUEST_PERM, not self.pointer)


@op("t{task} arch_prctl(ARCH_REQ_XCOMP_PERM, {facility})")
class ReqXcompPerm(_Prctl):
    """Ask for permission to use a dynamic feature."""

    task: Nr = 0
    facility: Facility = xf.XTILE_DATA

    def run(self, k: Kernel) -> Result:
        return self.prctl(k, xstate.ARCH_REQ_XCOMP_PERM, self.facility)


@op("t{task} arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, {facility}, {undefined})")
class ReqXcompGuestPerm(_Prctl):
    """Ask for permission to let guests use a dynamic feature.

    ``undefined`` is what the uninitialised result of amx-v1 comes out as.
    """

    task: Nr = 0
    facility: Facility = xf.XTILE_DATA
    undefined: Undefined = Undefined()

    def run(self, k: Kernel) -> Result:
        return self.prctl(k, xstate.ARCH_REQ_XCOMP_GUEST_PERM, self.facility, self.undefined.value)


@op("t{task} sigaltstack({size}, {autodisarm})")
class Sigaltstack(TaskOp):
    """Install an alternate signal stack of ``size`` bytes; 0 removes it.

    What was left on the one before is lost: its memory is used for something else.  With ``autodisarm`` it is the
    task's no more while a handler runs, from whose frame sigreturn brings it back.
    """

    task: Nr = 0
    size: StackSize = 8192
    autodisarm: Autodisarm = False

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        ret = k.sigaltstack(self.size, self.autodisarm)
        if not ret:
            k.forget_altstack(self.task)
        return Result(ret)


class _KernelFpu(TaskOp):
    """Kernel code that uses the FPU for a task; a kind of its own, so that none stands in for other calls of it."""

    __slots__ = ()

    def hindrance(self, k: Kernel) -> str:
        """The task makes a system call, is a worker, or is inside KVM_RUN, out of the guest."""
        task = k.tasks[self.task]
        if not task.kvm_run or not task.on_cpu or in_section(task):
            return busy(task, self.task)
        vcpu = k.vcpus[task.kvm_run - 1]
        return "" if vcpu.mode == VCPU_EXITED else whereabouts(vcpu, task.kvm_run - 1)

    def enter_kernel(self, k: Kernel) -> Task:
        """Who is in the kernel already stays there."""
        task = k.tasks[self.task]
        if not (task.kvm_run or task.pf_user_worker or in_section(task)):
            return TaskOp.enter_kernel(self, k)
        k.on_cpu(task.on_cpu - 1)
        return task

    def begin(self, k: Kernel, task: Task) -> Result:
        """A section begins."""
        k.kernel_fpu_begin()
        k.kernel_fpu_compute(SECTION_CONTENTS[task.kernel_fpu])
        task.kernel_fpu += 1
        return OK


@op("t{task} kernel_fpu_begin ...")
class KernelFpuBegin(_KernelFpu):
    """Kernel code (crypto, RAID, TLS) in a system call of the task's asks irq_fpu_usable(), and uses the FPU if it can:
    kernel_fpu_begin(), and it computes.  Else ``unusable``, and it computes without.

    A worker does so as well, and KVM_RUN while it handles an exit: a page of the guest's comes from an encrypted disk.
    """

    task: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        nested = (
            " (`kernel_fpu_begin unasked ...` begins another section inside)" if k.tasks[self.task].kernel_fpu else ""
        )
        return (why := _KernelFpu.hindrance(self, k)) and why + nested

    def run(self, k: Kernel) -> Result:
        task = self.enter_kernel(k)
        return self.begin(k, task) if k.irq_fpu_usable() else Result("unusable")


@op("t{task} kernel_fpu_begin unasked ...")
class KernelFpuBeginUnasked(_KernelFpu):
    """Such code uses the FPU without a question, as in a task's context it may, but not inside of a section that has
    begun: that is a mistake of its."""

    DRAWN = False
    task: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        task = k.tasks[self.task]
        if not (task.kernel_fpu and task.on_cpu):
            return _KernelFpu.hindrance(self, k)
        return "" if task.kernel_fpu < len(SECTION_CONTENTS) else f"t{self.task} has begun enough of them"

    def run(self, k: Kernel) -> Result:
        return self.begin(k, self.enter_kernel(k))


class _InSection(_KernelFpu):
    """What such code does between kernel_fpu_begin() and kernel_fpu_end()."""

    __slots__ = ()

    def hindrance(self, k: Kernel) -> str:
        task = k.tasks[self.task]
        if not self.is_in(task):
            unbegun = f"t{self.task} has not called kernel_fpu_begin()"
            return unbegun if in_section(task) else f"t{self.task} does not use the FPU in the kernel"
        return "" if task.on_cpu else f"t{self.task} is on no CPU"

    def is_in(self, task: Task) -> bool:
        """Whether it is between them."""
        return bool(task.kernel_fpu)


@op("t{task} ... kernel_fpu_end")
class KernelFpuEnd(_InSection):
    """It has computed, the value is what it finds in an SSE register, and calls kernel_fpu_end()."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        task = self.enter_kernel(k)
        found = Content(k.regs.data[xf.SSE])
        task.kernel_fpu -= 1
        k.kernel_fpu_end()
        return Result("ok", found)


@op("t{task} ... return without kernel_fpu_end")
class KernelFpuNotEnded(_InSection):
    """It returns and forgets kernel_fpu_end(), as on the path of an error, which is a mistake of its."""

    DRAWN = False
    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k).kernel_fpu = 0
        return OK


@op("t{task} ... schedule(t{other})")
class KernelFpuSleeps(_InSection):
    """It waits for something (a mutex, memory), which is a mistake of its, and another task runs on the CPU."""

    DRAWN = False
    task: Nr = 0
    other: Nr = 1

    def hindrance(self, k: Kernel) -> str:
        return _InSection.hindrance(self, k) or not_waiting(k, self.other)

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        k.schedule(self.other)
        return OK


@op("t{task} kernel_simd")
class KernelSimd(_KernelFpu):
    """Such code uses SSE and AVX without kernel_fpu_begin(), which is a mistake of its."""

    DRAWN = False
    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        k.kernel_fpu_compute(KERNEL_CONTENTS)
        return OK


@op("t{task} kernel_simd ...")
class KernelSimdBegins(_KernelFpu):
    """Such code computes for a while, with contents of its own in the registers, which nobody knows: it may be
    preempted, and interrupts may use the FPU."""

    DRAWN = False
    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        task = self.enter_kernel(k)
        k.kernel_fpu_compute(SECTION_CONTENTS[0])
        task.kernel_simd = 1
        return OK


@op("t{task} ... kernel_simd")
class KernelComputesOn(_InSection):
    """It goes on to compute with SSE and AVX, after a look at what it left there, which is the value.

    Behind ``kernel_simd ...`` it returns then.
    """

    DRAWN = False
    task: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        why = _InSection.hindrance(self, k)
        if in_section(k.tasks[self.task]):
            return why
        return f"{why} (`kernel_simd ...` and `kernel_fpu_begin ...` begin what goes on)"

    def is_in(self, task: Task) -> bool:
        return in_section(task)

    def run(self, k: Kernel) -> Result:
        task = self.enter_kernel(k)
        found = Content(k.regs.data[xf.SSE])
        k.kernel_fpu_compute(left_by_section(task))
        task.kernel_simd = 0
        return Result("ok", found)


def left_by_section(task: Task) -> int:
    """What the innermost section of a task's leaves in the registers that it computes with."""
    return SECTION_CONTENTS[max(task.kernel_fpu - 1, 0)]


@op("t{task} user")
class ReturnToUser(TaskOp):
    """The task leaves the kernel and executes user code."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_user(k)
        return OK


class _UserInsn(TaskOp):
    __slots__ = ()

    def insn(self, k: Kernel, name: str, token: int) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        token = ghost.contents_of(token, partial(ghost.task_token, self.task))
        result = k.user_insn(name, token)
        if result == "ok":
            ghost.execute(k.system.ghost.tasks[self.task], name, token)
        return Result(result)


class _UserRead(TaskOp):
    """An instruction that stores contents; a kind of its own, so that none stands in for one that changes some."""

    __slots__ = ()

    def read(self, k: Kernel, name: str) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        result, held = k.user_read(name)
        return Result(result, None if held is None else Content(held))


@op("t{task} fld({contents})")
class UserFld(_UserInsn):
    """An x87 instruction in user mode."""

    task: Nr = 0
    contents: Contents = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "fld", self.contents)


@op("t{task} movups({contents})")
class UserMovups(_UserInsn):
    """An SSE instruction in user mode."""

    task: Nr = 0
    contents: SseContents = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "movups", self.contents)


@op("t{task} ldmxcsr({contents})")
class UserLdmxcsr(_UserInsn):
    """LDMXCSR in user mode: MXCSR gets contents of its own, which are no component."""

    task: Nr = 0
    contents: Contents = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "ldmxcsr", self.contents)


@op("t{task} stmxcsr")
class UserStmxcsr(_UserRead):
    """STMXCSR in user mode: the value is what MXCSR holds."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.read(k, "stmxcsr")


@op("t{task} vmovups({token})")
class UserVmovups(_UserInsn):
    """An AVX instruction in user mode that writes the upper halves of registers alone (VINSERTF128): the lower ones are
    SSE, which stays as it is."""

    task: Nr = 0
    token: Token = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "vmovups", self.token)


@op("t{task} ldtilecfg({token})")
class UserLdtilecfg(_UserInsn):
    """LDTILECFG in user mode: configures the tiles and clears them."""

    task: Nr = 0
    token: Token = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "ldtilecfg", self.token)


@op("t{task} tileload({token})")
class UserTileload(_UserInsn):
    """TILELOADD in user mode; its first use grows the fpstate, or is SIGILL without permission."""

    task: Nr = 0
    token: Token = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "tileload", self.token)


@op("t{task} wrpkru({pkru})")
class UserWrpkru(TaskOp):
    """WRPKRU in user mode; `xsave(pkru)` reads it.  Which keys a value denies is not modelled but for ``signal(pkey)``;
    0 is the initial value, which denies nothing."""

    task: Nr = 0
    pkru: Pkru = 1

    def run(self, k: Kernel) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        token = ghost.task_token(self.task, self.pkru) if self.pkru else 0
        result = k.user_wrpkru(token)
        if result == "ok":
            ghost.define(k.system.ghost.tasks[self.task], xf.PKRU, token)
        return Result(result)


@op("t{task} open(dsa)")
class OpenDsa(TaskOp):
    """Open a shared work queue of a device that takes ENQCMD (/dev/dsa/wq0.0), which binds the address space to the
    device and gives it a PASID, for good."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        return Result(k.iommu_sva_bind_device() if k.machine.pasid else -ENOENT)


@op("t{task} enqcmd")
class UserEnqcmd(TaskOp):
    """ENQCMD in user mode, to such a device: the value is IA32_PASID, ``mm0:1`` for that of address space 0.  A
    thread's first one gives it its PASID by a #GP; without one it is SIGSEGV."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        result, pasid = k.user_enqcmd()
        if result != "ok":
            return Result(result)
        ghost.define(k.system.ghost.tasks[self.task], xf.PASID, pasid_of(k.tasks[self.task].mm))
        return Result(result, Content(pasid))


@op("t{task} perf_event_open(lbr)")
class PerfEventOpen(TaskOp):
    """A perf event of the thread that samples the call stack of its user code from the LBRs, in place of the one that
    it has; execve() closes it."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        k.close_perf_event(self.task)
        ghost.define(k.system.ghost.tasks[self.task], xf.LBR, 0)
        return Result(k.perf_event_open())


@op("t{task} close(lbr)")
class PerfEventClose(TaskOp):
    """Close that event."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        if not k.tasks[self.task].lbr.event:
            return Result(-EBADF)
        k.close_perf_event(self.task)
        ghost.define(k.system.ghost.tasks[self.task], xf.LBR, 0)
        return Result(0)


@op("t{task} call({token})")
class UserCall(TaskOp):
    """Calls in user mode, which the LBRs record while the thread has such an event."""

    task: Nr = 0
    token: Token = 1

    def run(self, k: Kernel) -> Result:
        self.enter_user(k)
        if k.this_cpu.lbr_users:
            token = ghost.task_token(self.task, self.token)
            load_component(k.regs, xf.LBR, token)
            ghost.define(k.system.ghost.tasks[self.task], xf.LBR, token)
        return OK


class _ShstkPrctl(TaskOp):
    __slots__ = ()

    def prctl(self, k: Kernel, option: int, features: int) -> int:
        self.enter_kernel(k)
        return k.shstk_prctl(self.task, option, features).ret


@op("t{task} arch_prctl(ARCH_SHSTK_ENABLE, {wrss})")
class ShstkEnable(_ShstkPrctl):
    """The thread gets a shadow stack, which CET_USER has; with ``wrss``: it may write to it."""

    task: Nr = 0
    wrss: Wrss = False

    def run(self, k: Kernel) -> Result:
        fresh = not (k.tasks[self.task].shstk or self.wrss)
        ret = self.prctl(k, shstk.ARCH_SHSTK_ENABLE, _feature(self.wrss))
        if not ret and fresh:
            ghost.define(k.system.ghost.tasks[self.task], xf.CET_USER, ghost.task_token(self.task, 1))
        return Result(ret)


@op("t{task} arch_prctl(ARCH_SHSTK_DISABLE, {wrss})")
class ShstkDisable(_ShstkPrctl):
    """The thread gives its shadow stack up; with ``wrss``: it may not write to it any more."""

    task: Nr = 0
    wrss: Wrss = False

    def run(self, k: Kernel) -> Result:
        ret = self.prctl(k, shstk.ARCH_SHSTK_DISABLE, _feature(self.wrss))
        if not (ret or self.wrss):
            ghost.define(k.system.ghost.tasks[self.task], xf.CET_USER, 0)
        return Result(ret)


def _feature(wrss: bool) -> int:
    return shstk.ARCH_SHSTK_WRSS if wrss else shstk.ARCH_SHSTK_SHSTK


@op("t{task} arch_prctl(ARCH_SHSTK_LOCK, {features})")
class ShstkLock(_ShstkPrctl):
    """Features stay as they are, enabled or not, until execve(); threads and children inherit that."""

    task: Nr = 0
    features: ShstkFeatures = 1

    def run(self, k: Kernel) -> Result:
        return Result(self.prctl(k, shstk.ARCH_SHSTK_LOCK, self.features))


@op("t{task} arch_prctl(ARCH_SHSTK_UNLOCK, {features})")
class ShstkUnlock(_ShstkPrctl):
    """What only a tracer can do."""

    task: Nr = 0
    features: ShstkFeatures = 1

    def run(self, k: Kernel) -> Result:
        return Result(self.prctl(k, shstk.ARCH_SHSTK_UNLOCK, self.features))


@op("t{task} arch_prctl(ARCH_SHSTK_STATUS)")
class ShstkStatus(TaskOp):
    """Which features are enabled: 1 is the shadow stack, 2 that the thread may write to it."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        value = k.shstk_prctl(self.task, shstk.ARCH_SHSTK_STATUS, 1)
        return Result(value.ret, None if value.ret else value.value)


@op("t{task} tilestore")
class UserTilestore(_UserRead):
    """TILESTORED in user mode: the value is the tile data; like TILELOADD it grows the fpstate with its first use."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.read(k, "tilestore")


@op("t{task} sttilecfg")
class UserSttilecfg(_UserRead):
    """STTILECFG in user mode: the value is the configuration."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.read(k, "sttilecfg")


@op("t{task} tilezero({token})")
class UserTilezero(_UserInsn):
    """TILEZERO of one tile in user mode, which leaves ``token``; tile data that are not in use stay so.  Like TILELOADD
    it grows the fpstate with its first use."""

    task: Nr = 0
    token: Token = 1

    def run(self, k: Kernel) -> Result:
        self.enter_user(k)
        if k.regs.data[xf.XTILE_DATA]:
            return self.insn(k, "tileload", self.token)
        return Result(k.user_read("tilestore")[0])


@op("t{task} vextractf128")
class UserVextractf128(_UserRead):
    """An AVX instruction that stores, in user mode: the value is the contents of AVX's component."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.read(k, "vextractf128")


@op("t{task} rdpkru")
class UserRdpkru(TaskOp):
    """RDPKRU in user mode: the value is PKRU."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_user(k)
        return Result("ok", Content(k.regs.data[xf.PKRU])) if k.ospke else Result("SIGILL")


@op("t{task} cpuid({leaf}, {subleaf})")
class UserCpuid(TaskOp):
    """CPUID in user mode: the four registers, as the processor has them.  EBX of 0xD is the image's size for XCR0 (0),
    the compacted one for XCR0 and IA32_XSS (1), a component's offset; of leaf 1 there are XSAVE and OSXSAVE."""

    task: Nr = 0
    leaf: CpuidLeaf = LEAF_XSTATE
    subleaf: Subleaf = 0

    def run(self, k: Kernel) -> Result:
        self.enter_user(k)
        return Result("ok", cpuid(k.regs, k.machine, self.leaf, self.subleaf, k.use_xsave))


@op("t{task} xgetbv({index})")
class UserXgetbv(TaskOp):
    """XGETBV in user mode: 0 reads XCR0, 1 the components of it that are in use."""

    task: Nr = 0
    index: Bit = 0

    def run(self, k: Kernel) -> Result:
        self.enter_user(k)
        if not k.use_xsave:
            return Result("SIGILL")
        try:
            return Result("ok", Mask(xsave.xgetbv(k.regs, k.machine, self.index)))
        except GeneralProtection:
            return Result("SIGSEGV")


@op("t{task} getauxval(AT_MINSIGSTKSZ)")
class UserGetauxval(TaskOp):
    """Read AT_MINSIGSTKSZ of the auxiliary vector: what the largest signal frame takes on an alternate stack."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_user(k)
        return Result(k.get_sigframe_size())


@op("t{task} tilerelease")
class UserTilerelease(_UserInsn):
    """TILERELEASE in user mode."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "tilerelease", 0)


@op("t{task} mov_egpr({token})")
class UserMovEgpr(_UserInsn):
    """An instruction that writes an extended general-purpose register of APX, in user mode."""

    task: Nr = 0
    token: Token = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "mov_egpr", self.token)


@op("t{task} dyn2load({token})")
class UserDyn2load(_UserInsn):
    """An instruction of the synthetic dynamic feature in user mode."""

    task: Nr = 0
    token: Token = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "dyn2load", self.token)


class _UserSave(TaskOp):
    __slots__ = ()

    def hindrance(self, k: Kernel) -> str:
        partial = f"t{self.task} is a 32-bit program, and its image, which has parts of components, is not modelled"
        return TaskOp.hindrance(self, k) or (partial if k.tasks[self.task].ia32 else "")

    def save(self, k: Kernel, name: str, mask: int = 0) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        result, area = k.user_save(name, mask)
        return Result(result, None if area is None else image_of(area))


@op("t{task} xsave({mask})")
class UserXsave(_UserSave):
    """XSAVE in user mode into zeroed memory; the value is the image that it stored."""

    task: Nr = 0
    mask: Xfeatures = xf.MASK_X87

    def run(self, k: Kernel) -> Result:
        return self.save(k, "xsave", self.mask)


@op("t{task} xsavec({mask})")
class UserXsavec(_UserSave):
    """XSAVEC in user mode, likewise, in the compacted format."""

    task: Nr = 0
    mask: Xfeatures = xf.MASK_X87

    def run(self, k: Kernel) -> Result:
        return self.save(k, "xsavec", self.mask)


@op("t{task} fxsave")
class UserFxsave(_UserSave):
    """FXSAVE in user mode: the value is x87, SSE and MXCSR."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.save(k, "fxsave")


@op("t{task} fxrstor({image})")
class UserFxrstor(TaskOp):
    """FXRSTOR in user mode: loads x87, SSE and MXCSR; SIGSEGV for reserved bits of MXCSR."""

    task: Nr = 0
    image: FpuImage = FpuImage(1)

    def run(self, k: Kernel) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        area = images.legacy_of(self.image, partial(ghost.task_token, self.task))
        result = k.user_fxrstor(area)
        if result == "ok":
            ghost.set_legacy(k.system.ghost.tasks[self.task], (area.data[i] for i in xf.LEGACY))
        return Result(result)

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from images.idle_fpu(self.image)


@op("t{task} xrstor({mask}, {xstate_bv}, {token}, {xcomp_bv}, {mxcsr})")
class UserXrstor(TaskOp):
    """XRSTOR in user mode of an image that holds ``token`` in the components of ``xstate_bv``; a #GP is SIGSEGV, and
    tile data under XFD grow the fpstate, or are SIGILL without permission.  PKRU is loaded as the others."""

    task: Nr = 0
    mask: Xfeatures = xf.MASK_X87
    xstate_bv: Xfeatures = 0
    token: Token = 1
    xcomp_bv: XcompBv = 0
    mxcsr: Mxcsr = 0

    def run(self, k: Kernel) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        image = UserImage(self.xstate_bv, self.token, ((xf.MXCSR, self.mxcsr),), self.xcomp_bv)
        area = images.area_of(image, partial(ghost.task_token, self.task))
        result = k.user_xrstor(area, self.mask)
        if result == "ok":
            ghost.restore(k.system.ghost.tasks[self.task], area, self.mask & k.regs.xcr0)
        return Result(result)
