"""PKRU of host tasks: ptrace, the signal frame, and hosts without protection keys."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import load_component
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.fpu.init import FpuInit
from xfdfuzz.kernel.fpu.regset import Regset
from xfdfuzz.kernel.fpu.signal import FpuSignal
from xfdfuzz.kernel.signal import Signals
from xfdfuzz.kernel.state import SigFrame
from xfdfuzz.revisions.queue import patch


@patch(
    "4a804c4f8356",
    "x86/fpu: Allow PKRU to be (once again) written by ptrace.",
    version="v6.2",
    fixes=("e84ba47e313d",),
    stable=("..v6.1.192",),
)
class PtraceWritesPkru(Regset):
    """PTRACE_SETREGSET writes PKRU, and initialises it if XSTATE_BV lacks it (the latter d7e5aceace51)."""

    def xstateregs_set(self, nr: int, image: XsaveArea, count: int) -> int:
        """copy_uabi_to_xstate() gets a pointer to thread.pkru (fpu/regset.c, fpu/xstate.c)."""
        ret = super().xstateregs_set(nr, image, count)
        if not ret:
            self.tasks[nr].pkru = image.data[xf.PKRU] if image.xstate_bv & xf.MASK_PKRU else 0
        return ret


@patch("18032b47adf1", "x86/fpu/xstate: Fix PKRU covert channel", version="v6.6")
class PkruNeedsOspke(FpuInit):
    """Where protection keys are off PKRU is no feature: XCR0 has it no more, so nobody can reach it by XRSTOR."""

    def disabled_xfeatures(self) -> int:
        """xsave_cpuid_features[XFEATURE_PKRU] is X86_FEATURE_OSPKE (fpu/xstate.c)."""
        return super().disabled_xfeatures() | (0 if self.ospke else xf.MASK_PKRU)


@patch(
    "70044df250d0",
    "x86/pkeys: Update PKRU to enable all pkeys before XSAVE",
    version="v6.12",
    neutral="no invariant asks whether SIGSEGV has a reason",
)
class AllPkeysForFrame(Signals):
    """The frame is written with PKRU = 0, so that any key may guard the alternate stack; then the task's PKRU goes
    into the image, with 84ee6e8d195e, but not into its XSTATE_BV."""

    def sig_prepare_pkru(self) -> int:
        """(arch/x86/kernel/signal.c)."""
        pkru = super().sig_prepare_pkru()
        if self.ospke:
            load_component(self.regs, xf.PKRU, 0)
        return pkru

    def get_sigframe_pkru(self) -> None:
        """write_pkru() of what it was (arch/x86/kernel/signal.c, get_sigframe())."""
        super().get_sigframe_pkru()
        if self.ospke:
            load_component(self.regs, xf.PKRU, self.current.sig_pkru)

    def sigframe_pkru(self, frame: SigFrame, mask: int, pkru: int) -> None:
        """update_pkru_in_sigframe() (fpu/signal.c)."""
        super().sigframe_pkru(frame, mask, pkru)
        if self.ospke:
            frame.area.data[xf.PKRU] = pkru


@patch(
    "ae6012d72fa6",
    "x86/pkeys: Ensure updated PKRU value is XRSTOR'd",
    version="v6.13",
    fixes=("70044df250d0",),
    stable=("..v6.12.117",),
)
class SigframeHasPkru(FpuSignal):
    """XSTATE_BV says that PKRU is in the frame, or XRSTOR would initialise it; the rest of it is made from XINUSE."""

    def sigframe_pkru(self, frame: SigFrame, mask: int, pkru: int) -> None:
        """update_pkru_in_sigframe() (fpu/xstate.h)."""
        super().sigframe_pkru(frame, mask, pkru)
        if self.ospke:
            frame.area.xstate_bv = mask & self.xfeatures_in_use() | xf.MASK_PKRU


@patch(
    "d1e420772cd1",
    "x86/pkeys: Simplify PKRU update in signal frame",
    version="v6.16",
    stable=("..v6.12.117",),
    neutral="a clean-up: on these processors XGETBV(1) says what XSAVE has written",
)
class SigframePkruAdded(FpuSignal):
    """PKRU is added to the XSTATE_BV that XSAVE wrote."""

    def sigframe_pkru(self, frame: SigFrame, mask: int, pkru: int) -> None:
        """update_pkru_in_sigframe() (fpu/xstate.h)."""
        if self.ospke:
            frame.area.xstate_bv |= xf.MASK_PKRU
            frame.area.data[xf.PKRU] = pkru
