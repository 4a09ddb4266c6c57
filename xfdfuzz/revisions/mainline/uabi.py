"""The copy of an XSAVE image to user space."""

from __future__ import annotations

from xfdfuzz.kernel.fpu.xstate import Xstate
from xfdfuzz.kernel.state import INIT_FPSTATE, Fpstate
from xfdfuzz.revisions.queue import patch


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
    stable=("v6.1.192",),
)
class NoAddressInInitFpstate(Xstate):
    """Nothing but x87 and SSE is read from init_fpstate, whose other states are zeros."""

    def uabi_copied(self, fpstate: Fpstate, header: int) -> int:
        """(fpu/xstate.c)."""
        return header

    def uabi_copy_component(self, fpstate: Fpstate, i: int, there: bool) -> None:
        """(fpu/xstate.c)."""
        self._raw_xsave_addr(fpstate, i)
