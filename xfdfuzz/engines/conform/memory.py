"""A guest's memory, as far as the harness' code uses it: one XSAVE area and one tile buffer.

The model does not have it: an op that restores brings its image along.  So what the guest's instructions store is
written here, in the layout that CPUID gives, and read from here again.
"""

from __future__ import annotations

from functools import lru_cache

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import HEADER_END, SAPPHIRE_RAPIDS
from xfdfuzz.arch.xsave import XCOMP_BV_COMPACTED
from xfdfuzz.engines.conform.contents import SIZES

TILES = 8
TILE_SIZE = 1024
_ROWS, _COLUMNS = 16, 64


class GuestMemory:
    """The XSAVE area and the tile buffer of one VM."""

    def __init__(self) -> None:
        self.area = bytearray(16384)
        self.tile = bytes(TILE_SIZE)

    def store(self, component: int, data: bytes, xcomp_bv: int) -> None:
        """What XSAVE (``xcomp_bv`` = 0) or its compacting forms write for one component."""
        if component == xf.X87:
            self.area[0:24], self.area[32:160] = data[:24], data[24:]
            return
        if component == xf.SSE:
            self.area[160:416] = data
            return
        offset = _offset(component, xcomp_bv)
        self.area[offset : offset + len(data)] = data

    def load(self, component: int, xcomp_bv: int) -> bytes:
        """What XRSTOR reads for one component, in the standard format (``xcomp_bv`` = 0) or the compacted one.

        MXCSR is initial: the harness puts that there before.
        """
        if component == xf.X87:
            return bytes(self.area[0:24] + self.area[32:160])
        if component == xf.SSE:
            return bytes(self.area[160:416])
        offset = _offset(component, xcomp_bv)
        return bytes(self.area[offset : offset + SIZES[component]])


def _offset(component: int, xcomp_bv: int) -> int:
    if not xcomp_bv & XCOMP_BV_COMPACTED:
        return SAPPHIRE_RAPIDS.components[component].offset
    layout = xcomp_bv & (2 << component) - 1 & ~xf.MASK_FPSSE
    end = SAPPHIRE_RAPIDS.compacted_end(layout, layout)
    return max(end, HEADER_END) - SIZES[component]


def with_tile(tiles: bytes, number: int, tile: bytes) -> bytes:
    """TILEDATA with one of its tiles replaced."""
    return tiles[: number * TILE_SIZE] + tile + tiles[(number + 1) * TILE_SIZE :]


def tile_of(tiles: bytes, number: int) -> bytes:
    """One of TILEDATA's tiles."""
    return tiles[number * TILE_SIZE : (number + 1) * TILE_SIZE]


@lru_cache(maxsize=256)
def tdpbssd(c: bytes, a: bytes, b: bytes) -> bytes:
    """TDPBSSD of full tiles: 32-bit sums of c and the products of a's and b's signed bytes, four at a time (SDM)."""
    if not any(a) or not any(b):
        return c
    left, right = _rows(a), _rows(b)
    out = bytearray()
    for m in range(_ROWS):
        for n in range(0, _COLUMNS, 4):
            at = m * _COLUMNS + n
            total = int.from_bytes(c[at : at + 4], "little")
            total += sum(left[m][4 * k + i] * right[k][n + i] for k in range(_ROWS) for i in range(4))
            out += (total & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(out)


def _rows(tile: bytes) -> list[list[int]]:
    signed = [byte - 256 if byte > 127 else byte for byte in tile]
    return [signed[m * _COLUMNS : (m + 1) * _COLUMNS] for m in range(_ROWS)]
