"""Register contents: bytes in a recording, tokens in the model.

A program writes contents as numbers from 1 to 7 for each owner, and every component of an image holds the same one.  So
a number stands for a tuple of bytes, one for each component that it was used for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import SAPPHIRE_RAPIDS
from xfdfuzz.engines.conform.fields import NotCompared
from xfdfuzz.kernel.fpu.init import PKRU_DEFAULT
from xfdfuzz.program.fields import TOKENS

#: Bytes of each component; x87 is FCW to the data pointer (24) and ST0-7 (128), without MXCSR between them.
SIZES: dict[int, int] = {xf.X87: 152, xf.SSE: 256} | {i: c.size for i, c in SAPPHIRE_RAPIDS.components.items()}
#: FNINIT's x87 state.
INITIAL_X87 = struct.pack("<H", 0x37F) + bytes(150)
#: What Linux starts a thread's PKRU with.
KERNEL_PKRU = struct.pack("<Q", 0x55555554)
#: The harness' tile configuration: palette 1, eight tiles of 16 rows and 64 bytes.
TILE_CONFIGURATION = bytes([1]) + bytes(15) + struct.pack("<8H", *[64] * 8) + bytes(16) + bytes([16] * 8) + bytes(8)


def initial(component: int) -> bytes:
    """The component's initial configuration."""
    return INITIAL_X87 if component == xf.X87 else bytes(SIZES[component])


class Contents:
    """Which bytes each token stands for, in one program."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bytes] = {}

    def token(self, owner: Callable[[int], int], held: Mapping[int, bytes]) -> int:
        """A number for an image with these components; ``owner`` makes it distinct.

        All-zero tile data is not initial, because it was loaded: those who ask give just what is to be distinguished.
        """
        for token in range(1, TOKENS + 1):
            full = owner(token)
            if all(self._known.get((full, i), data) == data for i, data in held.items()):
                self._known.update({(full, i): data for i, data in held.items()})
                return token
        raise NotCompared(f"more than {TOKENS} different register contents")

    def bytes_of(self, component: int, token: int) -> bytes:
        """What a register or a component of an image with that (distinct) token holds."""
        if component == xf.PKRU and token == PKRU_DEFAULT:
            return KERNEL_PKRU
        return self._known[token, component] if token else initial(component)
