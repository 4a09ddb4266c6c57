"""What others see of a task: the register sets of ptrace, core files (arch/x86/kernel/fpu/regset.c, v5.16), /proc."""

from __future__ import annotations

from typing import NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import MXCSR_RESERVED, XsaveArea
from xfdfuzz.kernel.base import seam
from xfdfuzz.kernel.errno import EFAULT, EINVAL, ENODEV, ENOMEM, EPERM
from xfdfuzz.kernel.fpu.init import FXSAVE_SIZE
from xfdfuzz.kernel.fpu.signal import FpuSignal
from xfdfuzz.kernel.state import Fpu

#: core_note_type of the register sets (include/uapi/linux/elf.h).
NT_PRFPREG = 2
NT_PRXFPREG = 0x46E62B7F
NT_X86_XSTATE = 0x202
NT_X86_SHSTK = 0x204

#: sizeof(struct user_i387_ia32_struct), in bytes.
I387_IA32_SIZE = 108

#: Shadow stack pointers that ptrace refuses, beside contents: one that is not aligned to 8 bytes, and one that is
#: TASK_SIZE_MAX or more.
SSP_UNALIGNED, SSP_BEYOND = 4, 5


class UserRegset(NamedTuple):
    """struct user_regset: what it is a number of, ``size``, and how much that is in all, in bytes."""

    size: int
    whole: int


#: What stands for one that there is not.
NO_REGSET = UserRegset(1, 0)


class Regset(FpuSignal):
    """A stopped task's registers lie in its fpstate."""

    def fpu_force_restore(self, fpu: Fpu) -> None:
        """What is in any CPU's registers no longer counts: the task is to load what is written now (fpu/regset.c)."""
        fpu.last_cpu = -1

    def sync_fpstate(self, nr: int) -> None:
        """Who dumps core may have its registers on the CPU; a tracee has not (fpu/regset.c)."""
        if nr == self.current_nr:
            self.fpu_sync_fpstate()

    def ptrace_attach(self, tracer: int, nr: int) -> int:
        """Whether a task can become the tracer of another: EPERM of a kernel thread's and of its own process
        (kernel/ptrace.c).

        It is so with PTRACE_TRACEME, whose tracer is the parent, a thread of another process.
        """
        task = self.tasks[nr]
        same_thread_group = task.group_leader == self.tasks[tracer].group_leader
        return -EPERM if task.pf_kthread or same_thread_group else 0

    def x86_64_regsets(self) -> dict[int, UserRegset]:
        """x86_64_regsets[]: those of the FPU, by their types (arch/x86/kernel/ptrace.c)."""
        return {NT_PRFPREG: UserRegset(8, FXSAVE_SIZE), NT_X86_XSTATE: UserRegset(8, self.xstateregs_size())}

    def x86_32_regsets(self) -> dict[int, UserRegset]:
        """x86_32_regsets[]: NT_PRFPREG is x87 alone, as FNSAVE stores it (arch/x86/kernel/ptrace.c)."""
        return {
            NT_PRFPREG: UserRegset(4, I387_IA32_SIZE),
            NT_PRXFPREG: UserRegset(4, FXSAVE_SIZE),
            NT_X86_XSTATE: UserRegset(8, self.xstateregs_size()),
        }

    def task_user_regset_view(self, nr: int) -> dict[int, UserRegset]:
        """The register sets that a task has, by its code segment (arch/x86/kernel/ptrace.c)."""
        return self.x86_32_regsets() if self.tasks[nr].ia32 else self.x86_64_regsets()

    def arch_ptrace(self, tracer: int, note_type: int) -> UserRegset:
        """Which one PTRACE_GETFPREGS or PTRACE_GETFPXREGS means, by the kind of program that asks; the second is a
        32-bit program's (arch/x86/kernel/ptrace.c, ia32_arch_ptrace())."""
        regsets = self.x86_32_regsets() if self.tasks[tracer].ia32 else self.x86_64_regsets()
        return regsets.get(note_type, NO_REGSET)

    def ptrace_regset(self, nr: int, note_type: int, iov_len: int | None) -> int:
        """How many bytes of a task's register set a tracer's ``iov_len`` is about, None for all of them: EINVAL
        (kernel/ptrace.c)."""
        regset = self.task_user_regset_view(nr).get(note_type)
        if regset is None or (iov_len is not None and iov_len % regset.size):
            return -EINVAL
        return regset.whole if iov_len is None else min(iov_len, regset.whole)

    def regset_get_alloc(self, size: int) -> int:
        """The buffer that so many bytes of a register set are read into: how many, ENOMEM, or the error that ``size``
        is; nothing takes no memory (kernel/regset.c)."""
        return -ENOMEM if size > 0 and self.should_fail() else size

    # -- NT_X86_XSTATE -------------------------------------------------------------------------------------------------

    def xstateregs_size(self) -> int:
        """The register set's size, in bytes; boot leaves it at 0 without XSAVE (update_regset_xstate_info())."""
        return self.fpu_user_cfg.max_size if self.use_xsave else 0

    def xstateregs_get(self, nr: int, count: int) -> tuple[int, XsaveArea | None]:
        """The first ``count`` bytes of the standard-format image of a task that is stopped, or dumps core: ENODEV
        without XSAVE."""
        if not self.use_xsave:
            return -ENODEV, None
        self.sync_fpstate(nr)
        fpstate = self.deref(self.tasks[nr].fpu.fpstate)
        return 0, self.copy_xstate_to_uabi_buf(fpstate, fpstate.user_xfeatures, self.xstateregs_pkru(nr), count)

    @seam
    def xstateregs_pkru(self, nr: int) -> int:
        """copy_xstate_to_uabi_buf(): ``tsk->thread.pkru`` (fpu/xstate.c), which "is only valid when scheduled out"
        (copy_thread(), arch/x86/kernel/process.c)."""
        pkru: int = self.tasks[nr].pkru
        return pkru

    def xstateregs_set(self, nr: int, image: XsaveArea, count: int) -> int:
        """Take over an image of ``count`` bytes, which have to be all, for a stopped task: ENODEV, EFAULT, ENOMEM,
        EINVAL.

        PKRU in it goes where nothing looks at it, until 4a804c4f8356 (6.2).
        """
        if not self.use_xsave:
            return -ENODEV
        if count != self.fpu_user_cfg.max_size:
            return -EFAULT
        if self.should_fail():
            return -ENOMEM
        task = self.tasks[nr]
        self.fpu_force_restore(task.fpu)
        return self.copy_uabi_to_xstate(self.deref(task.fpu.fpstate), image, count)

    # -- NT_PRFPREG, and NT_PRXFPREG of 32-bit tasks -------------------------------------------------------------------

    def xfpregs_get(self, nr: int) -> XsaveArea:
        """x87, SSE and MXCSR of a task, likewise: what its image lacks is initial (XSTATE_COPY_FX)."""
        self.sync_fpstate(nr)
        regs = self.deref(self.tasks[nr].fpu.fpstate).regs
        held = regs.xstate_bv if self.use_xsave else xf.MASK_FPSSE
        copy = XsaveArea()
        for i in xf.LEGACY:
            # MXCSR comes with SSE: AVX is masked out of the header before
            copy.data[i] = regs.data[i] if held >> (xf.SSE if i == xf.MXCSR else i) & 1 else 0
        return copy

    def xfpregs_set(self, nr: int, image: XsaveArea, count: int) -> int:
        """Take over x87, SSE and MXCSR for a stopped task: EINVAL for a part of them, and for reserved bits of MXCSR.

        "Mark FP and SSE as in use when XSAVE is enabled".  A 32-bit tracer clears XMM8 to XMM15, which are not told
        apart from XMM0 to XMM7 here.
        """
        if count != FXSAVE_SIZE or image.data[xf.MXCSR] == MXCSR_RESERVED:
            return -EINVAL
        task = self.tasks[nr]
        self.fpu_force_restore(task.fpu)
        regs = self.deref(task.fpu.fpstate).regs
        for i in xf.LEGACY:
            regs.data[i] = image.data[i]
        if self.use_xsave:
            regs.xstate_bv |= xf.MASK_FPSSE
        return 0

    # -- NT_PRFPREG of 32-bit tasks ------------------------------------------------------------------------------------

    def fpregs_get(self, nr: int) -> int:
        """x87 of a task, likewise, initial if its image lacks it (XSTATE_COPY_FP).

        convert_from_fxsr() and convert_to_fxsr() change no contents: the upper halves of addresses are not modelled.
        """
        self.sync_fpstate(nr)
        regs = self.deref(self.tasks[nr].fpu.fpstate).regs
        there = not self.use_xsave or regs.xstate_bv & xf.MASK_X87
        return regs.data[xf.X87] if there else 0

    def fpregs_set(self, nr: int, x87: int, count: int) -> int:
        """Take over x87 for a stopped task, and mark it as in use: EINVAL for a part of it."""
        if count != I387_IA32_SIZE:
            return -EINVAL
        task = self.tasks[nr]
        self.fpu_force_restore(task.fpu)
        regs = self.deref(task.fpu.fpstate).regs
        regs.data[xf.X87] = x87
        if self.use_xsave:
            regs.xstate_bv |= xf.MASK_X87
        return 0

    # -- NT_X86_SHSTK --------------------------------------------------------------------------------------------------

    @property
    def user_shstk(self) -> bool:
        """cpu_feature_enabled(X86_FEATURE_USER_SHSTK): not known before 2d39a6add422 (arch/x86/kernel/cpu/common.c)."""
        return False

    def ssp_active(self, nr: int) -> bool:
        """Whether the task has a shadow stack."""
        return bool(self.tasks[nr].shstk)

    def ssp_get(self, nr: int) -> tuple[int, int]:
        """IA32_PL3_SSP of a stopped task; there is no such register set before 2fab02b25ae7 (6.6), so nobody asks."""
        return -EINVAL, 0

    def ssp_set(self, nr: int, ssp: int, count: int) -> int:
        """Take over ``count`` bytes for IA32_PL3_SSP of a stopped task, likewise."""
        return -EINVAL

    # -- /proc ---------------------------------------------------------------------------------------------------------

    def proc_pid_arch_status(self, nr: int) -> bool:
        """/proc/PID/arch_status: whether it says when the task used AVX-512 (arch/x86/kernel/fpu/xstate.c)."""
        return self.machine.avx512 and self.use_xsave and self.avx512_status(nr)

    def avx512_status(self, nr: int) -> bool:
        """What the task's struct fpu says, of any task, but for the time (arch/x86/kernel/fpu/xstate.c)."""
        self.x86_task_fpu(nr)
        return True

    def x86_task_fpu(self, nr: int) -> None:
        """``&task->thread.fpu``; a check came with 22aafe3bcb67 (arch/x86/include/asm/processor.h)."""
