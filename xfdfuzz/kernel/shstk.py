"""Shadow stacks of user threads (arch/x86/kernel/shstk.c, v6.6; arch/x86/kernel/fpu/core.c).

Of CET_USER there is one content: whose shadow stack IA32_PL3_SSP points to.  Signals and calls move the pointer within
it.
"""

from __future__ import annotations

from xfdfuzz.kernel.base import phase_of
from xfdfuzz.kernel.errno import EINVAL
from xfdfuzz.kernel.process import Process


class Shstk(Process):
    """None before 2d39a6add422 (6.6)."""

    def shstk_prctl(self, enable: bool) -> int:
        """ARCH_SHSTK_ENABLE or ARCH_SHSTK_DISABLE: unknown to arch_prctl(2) yet, EINVAL (arch/x86/kernel/shstk.c)."""
        return -EINVAL

    def shstk_alloc_thread_stack(self, child: int, flags: int) -> int:
        """The new task's shadow stack: 0 where it has none, or a copy of its parent's (arch/x86/kernel/shstk.c)."""
        return 0

    @phase_of("fpu_clone")
    def update_fpu_shstk(self, child: int, ssp: int) -> None:
        """The new task's registers point to its own shadow stack; 0 leaves them (fpu/core.c)."""

    def reset_thread_features(self) -> None:
        """execve() begins without a shadow stack, as the registers do (arch/x86/kernel/shstk.c)."""
