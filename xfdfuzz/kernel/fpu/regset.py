"""What others see of a task: the XSAVE register set for ptrace (arch/x86/kernel/fpu/regset.c, v5.16), and /proc."""

from __future__ import annotations

from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.errno import ENODEV
from xfdfuzz.kernel.fpu.signal import FpuSignal
from xfdfuzz.kernel.state import Fpu


class Regset(FpuSignal):
    """A stopped task's registers lie in its fpstate."""

    def fpu_force_restore(self, fpu: Fpu) -> None:
        """What is in any CPU's registers no longer counts: the task is to load what is written now."""
        fpu.last_cpu = -1

    def xstateregs_get(self, nr: int) -> tuple[int, XsaveArea | None]:
        """The standard-format image of a stopped task: ENODEV without XSAVE."""
        if not self.use_xsave:
            return -ENODEV, None
        task = self.tasks[nr]
        fpstate = self.deref(task.fpu.fpstate)
        size = self.fpu_user_cfg.max_size
        return 0, self.copy_xstate_to_uabi_buf(fpstate, fpstate.user_xfeatures, task.pkru, size)

    def xstateregs_set(self, nr: int, image: XsaveArea) -> int:
        """Take over a whole image for a stopped task: ENODEV, EINVAL.

        PKRU in it goes where nothing looks at it, until 4a804c4f8356 (6.2).
        """
        if not self.use_xsave:
            return -ENODEV
        task = self.tasks[nr]
        self.fpu_force_restore(task.fpu)
        return self.copy_uabi_to_xstate(self.deref(task.fpu.fpstate), image, self.fpu_user_cfg.max_size)

    def proc_pid_arch_status(self, nr: int) -> bool:
        """/proc/PID/arch_status: whether it says when the task used AVX-512 (arch/x86/kernel/fpu/xstate.c)."""
        return self.machine.avx512 and self.use_xsave and self.avx512_status(nr)

    def avx512_status(self, nr: int) -> bool:
        """What the task's struct fpu says, of any task, but for the time (arch/x86/kernel/fpu/xstate.c)."""
        self.x86_task_fpu(nr)
        return True

    def x86_task_fpu(self, nr: int) -> None:
        """``&task->thread.fpu``; a check came with 22aafe3bcb67 (arch/x86/include/asm/processor.h)."""
