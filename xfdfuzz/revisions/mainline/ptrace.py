"""Register sets of ptrace."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.errno import EINVAL, ENODEV
from xfdfuzz.kernel.fpu.regset import NT_X86_SHSTK, SSP_BEYOND, SSP_UNALIGNED, Regset, UserRegset
from xfdfuzz.revisions.queue import patch

#: sizeof(user_ssp), in bytes.
SSP_SIZE = 8


@patch("2fab02b25ae7", "x86: Add PTRACE interface for shadow stack", version="v6.6", neutral="a feature")
class ShstkRegset(Regset):
    """A tracer reads and writes the shadow stack pointer of a 64-bit task."""

    def x86_64_regsets(self) -> dict[int, UserRegset]:
        """REGSET64_SSP, with CONFIG_X86_USER_SHADOW_STACK (arch/x86/kernel/ptrace.c)."""
        return super().x86_64_regsets() | {NT_X86_SHSTK: UserRegset(SSP_SIZE, SSP_SIZE)}

    def ssp_get(self, nr: int) -> tuple[int, int]:
        """ENODEV without the feature, and with a warning where the task's image has no CET_USER (fpu/regset.c)."""
        if not self.user_shstk:
            return -ENODEV, 0
        self.sync_fpstate(nr)
        regs = self.deref(self.tasks[nr].fpu.fpstate).regs
        if self.warn_on(not regs.xstate_bv & xf.MASK_CET_USER):
            return -ENODEV, 0
        return 0, regs.data[xf.CET_USER]

    def ssp_set(self, nr: int, ssp: int, count: int) -> int:
        """ENODEV without a shadow stack, EINVAL for a part of it, or for what some instruction would fault on
        (fpu/regset.c)."""
        if not self.user_shstk or not self.ssp_active(nr):
            return -ENODEV
        if count != SSP_SIZE or ssp in (SSP_UNALIGNED, SSP_BEYOND):
            return -EINVAL
        task = self.tasks[nr]
        self.fpu_force_restore(task.fpu)
        regs = self.deref(task.fpu.fpstate).regs
        if self.warn_on(not regs.xstate_bv & xf.MASK_CET_USER):
            return -ENODEV
        regs.data[xf.CET_USER] = ssp
        return 0


@patch(
    "a9d9c33132d4",
    'x86/fpu: Ensure shadow stack is active before "getting" registers',
    version="v6.13",
    fixes=("2fab02b25ae7",),
    stable=("v6.6.72", "v6.12.10"),
)
class SspGetIfActive(Regset):
    """Reading the pointer of a task without a shadow stack is ENODEV, and no warning (CVE-2025-21632)."""

    def ssp_get(self, nr: int) -> tuple[int, int]:
        """(fpu/regset.c)."""
        if self.user_shstk and not self.ssp_active(nr):
            return -ENODEV, 0
        return super().ssp_get(nr)
