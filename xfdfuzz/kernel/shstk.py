"""Shadow stacks of user threads (arch/x86/kernel/shstk.c, v6.6; arch/x86/kernel/fpu/core.c).

Of CET_USER there is one content: whose shadow stack IA32_PL3_SSP points to.  Signals and calls move the pointer within
it.
"""

from __future__ import annotations

from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.errno import EINVAL
from xfdfuzz.kernel.fpu.xstate import Value
from xfdfuzz.kernel.process import Process

#: Options of arch_prctl(2) (arch/x86/include/uapi/asm/prctl.h).
ARCH_SHSTK_ENABLE, ARCH_SHSTK_DISABLE, ARCH_SHSTK_LOCK, ARCH_SHSTK_UNLOCK, ARCH_SHSTK_STATUS = range(0x5001, 0x5006)
#: The features that they are about.
ARCH_SHSTK_SHSTK, ARCH_SHSTK_WRSS = 1, 2


class Shstk(Process):
    """None before 2d39a6add422 (6.6)."""

    def shstk_prctl(self, nr: int, option: int, arg2: int) -> Value:
        """An option of a task's own, or of a tracer's: unknown to arch_prctl(2) yet, EINVAL (arch/x86/kernel/shstk.c).

        ``arg2`` is a mask of features, or a pointer.
        """
        return Value(-EINVAL)

    @seam
    def shstk_prctl_unknown(self, option: int) -> bool:
        """Whether a task's own call with that option is refused, of those that are none of ENABLE and DISABLE: no."""
        return False

    def shstk_alloc_thread_stack(self, child: int, flags: int) -> int:
        """The new task's shadow stack: 0 where it has none, or a copy of its parent's (arch/x86/kernel/shstk.c)."""
        return 0

    @phase_of("fpu_clone")
    def update_fpu_shstk(self, child: int, ssp: int) -> None:
        """The new task's registers point to its own shadow stack; 0 leaves them (fpu/core.c)."""

    def reset_thread_features(self) -> None:
        """execve() begins without a shadow stack, as the registers do (arch/x86/kernel/shstk.c)."""
