"""The copy of an XSAVE image to user space, and where an image has its components."""

from __future__ import annotations

from xfdfuzz.kernel.fpu.xstate import Xstate
from xfdfuzz.kernel.state import INIT_FPSTATE, NULL, Fpstate
from xfdfuzz.revisions.queue import patch


@patch(
    "7aa5128b5fea",
    "x86/fpu/xsave: Handle compacted offsets correctly with supervisor states",
    version="v5.18",
    fixes=("7c1ef59145f1",),
)
class OffsetsByXcompBv(Xstate):
    """An image's components are where its XCOMP_BV has them, and not where boot put them among all features.

    The reason was guests' images without supervisor states; __fpstate_reset() gives them all the same, so what differs
    here is an image with the synthetic second dynamic feature alone.
    """

    def _raw_xsave_addr(self, fpstate: Fpstate, i: int) -> int:
        """NULL, with a warning, where XCOMP_BV lacks the component (fpu/xstate.c, xfeature_get_offset())."""
        if self.warn_on(not self.fpu_kernel_cfg.max_features >> i & 1):
            return NULL
        xcomp_bv = fpstate.regs.xcomp_bv
        if self.compacted and self.warn_on(not xcomp_bv >> i & 1):
            return NULL
        return self.xfeature_get_offset(xcomp_bv, i)


@patch(
    "471f0aa7fa64",
    "x86/fpu: Fix copy_xstate_to_uabi() to copy init states correctly",
    version="v6.1",
    fixes=("2308ee57d93d",),
)
class InitStatesZeroed(Xstate):
    """What neither the image nor init_fpstate has is zeroed, and not read through a NULL pointer."""

    def uabi_copied(self, fpstate: Fpstate, header: int) -> int:
        """(fpu/xstate.c)."""
        mask = super().uabi_copied(fpstate, header)
        if self.fpu_state_size_dynamic:
            mask &= header | self.fpstates[INIT_FPSTATE].regs.xcomp_bv
        return mask


@patch(
    "b15888840207",
    "x86/fpu/xstate: Prevent false-positive warning in __copy_xstate_uabi_buf()",
    version="v6.3",
    fixes=("471f0aa7fa64",),
    stable=("..v6.1.192",),
)
class NoAddressInInitFpstate(Xstate):
    """Nothing but x87 and SSE is read from init_fpstate, whose other states are zeros."""

    def uabi_copied(self, fpstate: Fpstate, header: int) -> int:
        """(fpu/xstate.c)."""
        return header

    def uabi_copy_component(self, fpstate: Fpstate, i: int, there: bool, size: int) -> None:
        """(fpu/xstate.c)."""
        self.touch_component(fpstate, self._raw_xsave_addr(fpstate, i), size)
