"""What sigreturn does first, and which signal frames it takes for whole: where it looks for the magic number behind the
image."""

from __future__ import annotations

from xfdfuzz.kernel.fpu.init import FXSAVE_SIZE
from xfdfuzz.kernel.fpu.signal import FpuSignal
from xfdfuzz.kernel.signal import Signals
from xfdfuzz.kernel.state import SigFrame
from xfdfuzz.revisions.queue import patch


@patch(
    "d10b554919d4",
    "x86/pkeys: Restore altstack access in sigreturn()",
    version="v6.12",
    neutral="no invariant asks whether SIGSEGV has a reason",
)
class AltstackFirst(Signals):
    """sigreturn restores the alternate stack before it looks at the registers in the frame, so for a bad one too.

    That of 32-bit frames goes on as before.
    """

    def rt_sigreturn(self) -> bool:
        """restore_altstack() before restore_sigcontext() (arch/x86/kernel/signal_64.c)."""
        if not (self.current.ia32 or self.restore_altstack(self.innermost_frame())):
            return False
        return super().rt_sigreturn()

    def rt_sigreturn_altstack(self, frame: SigFrame) -> bool:
        """It is restored (arch/x86/kernel/signal_64.c), but for a 32-bit frame's (signal_32.c)."""
        return not self.current.ia32 or super().rt_sigreturn_altstack(frame)


@patch(
    "d877550eaf2d",
    "x86/fpu: Stop relying on userspace for info to fault in xsave buffer",
    version="v6.8",
    stable=("v6.1.79", "v6.6.18", "v6.7.6"),
)
class FaultInUserSize(FpuSignal):
    """Whatever a frame says of its size, all that XRSTOR could read is faulted in, and no more than the task may use is
    restored.

    170662896219.398.13546791060751128593.tip-bot2@tip-bot2; CVE-2024-26603, whose record has the stable versions.
    """

    def restore_fpregs_from_user(self, frame: SigFrame, xrestore: int, fx_only: bool) -> bool:
        """ "Restore enabled features only" (fpu/signal.c)."""
        enabled = self.deref(self.current.fpu.fpstate).user_xfeatures
        return super().restore_fpregs_from_user(frame, xrestore & enabled, fx_only)

    def sigframe_fault_in_size(self, frame: SigFrame) -> int:
        """restore_fpregs_from_user(): fpstate->user_size (fpu/signal.c)."""
        user_size: int = self.deref(self.current.fpu.fpstate).user_size
        return user_size


@patch(
    "dc8aa31a7ac2",
    "x86/fpu: Refine and simplify the magic number check during signal return",
    version="v6.15",
    neutral="a clean-up, which 44eeff9bc467 takes back",
)
class Magic2AtUserSize(FpuSignal):
    """The second magic is looked for where a frame set up now would end, and the sizes in the frame are not looked at.

    174068188734.10177.17059393969800577740.tip-bot2@tip-bot2; in mainline since 25 March 2025.
    """

    def check_xstate_in_sigframe(self, frame: SigFrame) -> bool | None:
        """At fpstate->user_size; elsewhere in a frame, or behind it, is no magic (fpu/signal.c)."""
        if not self.readable(frame, FXSAVE_SIZE):
            return None
        return bool(frame.magic1) and self.has_magic2(frame, self.deref(self.current.fpu.fpstate).user_size)


@patch(
    "44eeff9bc467",
    'Revert "x86/fpu: Refine and simplify the magic number check during signal return"',
    version="v7.1",
    fixes=("dc8aa31a7ac2",),
    stable=("v6.18.35", "..v7.0.12"),
)
class Magic2AtXstateSize(FpuSignal):
    """The frame says where it ends again: one smaller than the task's fpstate has extended state too.

    178009520795.1039918.8317029204745792627.tip-bot2@tip-bot2.
    """

    def check_xstate_in_sigframe(self, frame: SigFrame) -> bool | None:
        """As before dc8aa31a7ac2 (fpu/signal.c)."""
        return FpuSignal.check_xstate_in_sigframe(self, frame)
