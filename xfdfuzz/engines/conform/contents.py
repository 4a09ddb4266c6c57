"""Register contents: bytes in a recording, tokens in the model.

A program writes contents as numbers from 1 to 7 for each owner, and every component of an image holds the same one.  So
a number stands for a tuple of bytes, one for each component that it was used for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import SAPPHIRE_RAPIDS
from xfdfuzz.engines.conform.fields import Stopped
from xfdfuzz.kernel.fpu.init import PKRU_DEFAULT, ZEROED
from xfdfuzz.program.fields import TOKENS

#: Bytes of each component and of MXCSR; x87 is FCW to the data pointer (24) and ST0-7 (128), SSE XMM0-15.
SIZES: dict[int, int] = {xf.X87: 152, xf.SSE: 256, xf.MXCSR: 4} | {
    i: c.size for i, c in SAPPHIRE_RAPIDS.components.items()
}
INITIAL_MXCSR = struct.pack("<I", 0x1F80)
#: FNINIT's x87 state.
INITIAL_X87 = struct.pack("<H", 0x37F) + bytes(150)
#: What Linux starts a thread's PKRU with.
KERNEL_PKRU = struct.pack("<Q", 0x55555554)
#: The harness' tile configuration: palette 1, eight tiles of 16 rows and 64 bytes.
TILE_CONFIGURATION = bytes([1]) + bytes(15) + struct.pack("<8H", *[64] * 8) + bytes(16) + bytes([16] * 8) + bytes(8)


def initial(component: int) -> bytes:
    """The initial configuration of a component, or of MXCSR."""
    return {xf.X87: INITIAL_X87, xf.MXCSR: INITIAL_MXCSR}.get(component) or bytes(SIZES[component])


class Contents:
    """Which bytes each token stands for, in one program."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bytes] = {}

    def token(
        self, owner: Callable[[int], int], held: Mapping[int, bytes], in_use: Callable[[], Collection[tuple[int, int]]]
    ) -> int:
        """A number for an image with these components; ``owner`` makes it distinct.

        All-zero tile data is not initial, because it was loaded: those who ask give just what is to be distinguished.
        ``in_use`` gives the (distinct token, component) pairs that the system still holds: the others are free again.
        Raises :class:`Stopped` where there is no number left.
        """
        found = self._find(owner, held)
        if found is None:
            held_now = in_use()
            self._known = {place: data for place, data in self._known.items() if place in held_now}
            found = self._find(owner, held)
        if found is None:
            raise Stopped(f"more than {TOKENS} different register contents")
        self._known.update({(owner(found), i): data for i, data in held.items()})
        return found

    def _find(self, owner: Callable[[int], int], held: Mapping[int, bytes]) -> int | None:
        for token in range(1, TOKENS + 1):
            full = owner(token)
            if all(self._known.get((full, i), data) == data for i, data in held.items()):
                return token
        return None

    def bytes_of(self, component: int, token: int) -> bytes:
        """What a register or a component of an image with that (distinct) token holds."""
        if component == xf.PKRU and token == PKRU_DEFAULT:
            return KERNEL_PKRU
        if component in (xf.X87, xf.MXCSR) and token == ZEROED:
            return bytes(SIZES[component])
        return self._known[token, component] if token else initial(component)
