"""The FPU's register sets for ptrace (arch/x86/kernel/fpu/regset.c, v5.16)."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import MXCSR_RESERVED, XsaveArea
from xfdfuzz.kernel.errno import EFAULT, EINVAL, ENODEV
from xfdfuzz.kernel.fpu.init import FXSAVE_SIZE
from xfdfuzz.kernel.fpu.signal import FpuSignal
from xfdfuzz.kernel.state import Fpu

#: What both register sets are a number of, in bytes.
REGSET_UNIT = 8


class Regset(FpuSignal):
    """A stopped task's registers lie in its fpstate."""

    def fpu_force_restore(self, fpu: Fpu) -> None:
        """What is in any CPU's registers no longer counts: the task is to load what is written now."""
        fpu.last_cpu = -1

    def ptrace_regset(self, iov_len: int, whole: int) -> int:
        """How many bytes a tracer's ``iov_len`` is about in a register set of so many: EINVAL (kernel/ptrace.c)."""
        return -EINVAL if iov_len % REGSET_UNIT else min(iov_len, whole)

    # -- NT_X86_XSTATE -----------------------------------------------------------------------------------------------

    def xstateregs_size(self) -> int:
        """The register set's size, in bytes; boot leaves it at 0 without XSAVE (update_regset_xstate_info())."""
        return self.fpu_user_cfg.max_size if self.use_xsave else 0

    def xstateregs_get(self, nr: int, count: int) -> tuple[int, XsaveArea | None]:
        """The first ``count`` bytes of the standard-format image of a stopped task: ENODEV without XSAVE."""
        if not self.use_xsave:
            return -ENODEV, None
        task = self.tasks[nr]
        fpstate = self.deref(task.fpu.fpstate)
        return 0, self.copy_xstate_to_uabi_buf(fpstate, fpstate.user_xfeatures, task.pkru, count)

    def xstateregs_set(self, nr: int, image: XsaveArea, count: int) -> int:
        """Take over an image of ``count`` bytes, which have to be all, for a stopped task: ENODEV, EFAULT, EINVAL.

        PKRU in it goes where nothing looks at it, until 4a804c4f8356 (6.2).
        """
        if not self.use_xsave:
            return -ENODEV
        if count != self.fpu_user_cfg.max_size:
            return -EFAULT
        task = self.tasks[nr]
        self.fpu_force_restore(task.fpu)
        return self.copy_uabi_to_xstate(self.deref(task.fpu.fpstate), image, count)

    # -- NT_PRFPREG --------------------------------------------------------------------------------------------------

    def xfpregs_get(self, nr: int) -> XsaveArea:
        """x87, SSE and MXCSR of a stopped task: what its image lacks is initial (XSTATE_COPY_FX)."""
        regs = self.deref(self.tasks[nr].fpu.fpstate).regs
        held = regs.xstate_bv if self.use_xsave else xf.MASK_FPSSE
        copy = XsaveArea()
        for i in xf.LEGACY:
            # MXCSR comes with SSE: AVX is masked out of the header before
            copy.data[i] = regs.data[i] if held >> (xf.SSE if i == xf.MXCSR else i) & 1 else 0
        return copy

    def xfpregs_set(self, nr: int, image: XsaveArea, count: int) -> int:
        """Take over x87, SSE and MXCSR for a stopped task: EINVAL for a part of them, and for reserved bits of MXCSR.

        "Mark FP and SSE as in use when XSAVE is enabled".
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
