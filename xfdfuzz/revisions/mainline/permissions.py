"""Permission words and the buffer sizes that go with them."""

from __future__ import annotations

from xfdfuzz.kernel.fpu.xstate import Xstate
from xfdfuzz.kernel.state import FpuStatePerm
from xfdfuzz.revisions.queue import patch


@patch(
    "063452fd94d1",
    "x86/fpu/xstate: Fix the ARCH_REQ_XCOMP_PERM implementation",
    version="v5.18",
    fixes=("db8268df0983",),
    stable=("v5.16.20", "v5.17.2"),
)
class PermAdds(Xstate):
    """A permission request adds to the permission word instead of overwriting it."""

    def write_state_perm(self, perm: FpuStatePerm, permitted: int, requested: int) -> None:
        """The mask that the user size was computed for, so without supervisor bits (fpu/xstate.c)."""
        perm.state_perm = (permitted | requested) & self.user_supported


@patch(
    "781c64bfcb73",
    "x86/fpu/xstate: Handle supervisor states in XSTATE permissions",
    version="v5.18",
)
class PermSizeSupervisor(Xstate):
    """The host's buffer size counts the supervisor states."""

    def xstate_perm_kernel_mask(self, mask: int, guest: bool) -> int:
        """The host's mask takes them into account, the guest's does not (fpu/xstate.c)."""
        return mask if guest else mask | self.xfeatures_mask_supervisor()


@patch(
    "d8414603b29f",
    "x86/fpu/xstate: Always preserve non-user xfeatures/flags in __state_perm",
    version="v6.16",
    fixes=("781c64bfcb73",),
)
class PermKeepsSupervisor(Xstate):
    """A permission request keeps the supervisor bits of the permission word, and the size follows the word."""

    def xstate_perm_kernel_mask(self, mask: int, guest: bool) -> int:
        """The word has the supervisor bits already (fpu/xstate.c)."""
        return mask

    def write_state_perm(self, perm: FpuStatePerm, permitted: int, requested: int) -> None:
        """permitted | requested, unmodified (fpu/xstate.c)."""
        perm.state_perm = permitted | requested
