"""CPUID leaf 0xD: sizes and offsets of the state components, standard and compacted; 0x1D and 0x1E: tiles and TMUL.

Source: SDM vol. 1, 13.2 (enumeration), 13.4.2 (standard format), 13.4.3 (compacted format); vol. 2, CPUID.  AMD's
layout: APM vol. 2, 11.5 (XSAVE), vol. 3, appendix E (CPUID Fn0000_000D), and the leaf of a Zen 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from xfdfuzz.arch import xfeatures as xf

#: Legacy region plus XSAVE header, in bytes; extended components start here in the compacted format.
HEADER_END = 576


@dataclass(frozen=True, slots=True)
class Component:
    """What CPUID.0xD.i says of component i.

    ``size`` and ``offset`` in bytes; ``offset`` is that of the standard format and 0 for a supervisor component.
    ``aligned``: to 64 bytes in the compacted format (ECX[1]); ``xfd``: IA32_XFD has a bit for it (ECX[2]).
    """

    size: int
    offset: int
    supervisor: bool = False
    aligned: bool = False
    xfd: bool = False


#: What has the number 1 in EAX; of its bits there are these in ECX, and no others.
LEAF_FEATURES = 1
XSAVE, OSXSAVE = 1 << 26, 1 << 27
#: What has the numbers 0xD, 0x1D and 0x1E in EAX.
WHOLE_LEAVES = LEAF_XSTATE, LEAF_TILES, LEAF_TMUL = 0xD, 0x1D, 0x1E
#: Bits of CPUID.0xD.1:EAX.
XSAVEOPT, XSAVEC, XGETBV1, XSAVES, XFD = (1 << i for i in range(5))


class Leaf(NamedTuple):
    """The four registers of a CPUID leaf."""

    eax: int
    ebx: int
    ecx: int
    edx: int

    def __str__(self) -> str:
        return f"{{{', '.join(f'{name}: {value:#x}' for name, value in zip(self._fields, self, strict=True))}}}"


#: A leaf, or a sub-leaf, that does not exist.
NOTHING = Leaf(0, 0, 0, 0)
#: Tiles of Sapphire Rapids, the only palette that there is: 8 of 16 rows of 64 bytes; TMUL: 16 rows of 64 bytes.
_TILES = {
    (LEAF_TILES, 0): Leaf(1, 0, 0, 0),
    (LEAF_TILES, 1): Leaf(1024 << 16 | 8192, 8 << 16 | 64, 16, 0),
    (LEAF_TMUL, 0): Leaf(0, 64 << 8 | 16, 0, 0),
}


def tile_leaf(function: int, subleaf: int) -> Leaf:
    """CPUID.0x1D or CPUID.0x1E with ECX = ``subleaf``, on a processor with AMX."""
    return _TILES.get((function, subleaf), NOTHING)


class CpuidTable:
    """The layout that one kind of processor enumerates; every size in the model comes from such a table."""

    def __init__(self, components: Mapping[int, Component]) -> None:
        self.components = dict(components)
        # a bound cache: masks are few, and a table lives as long as the process
        self.standard_size = lru_cache(maxsize=None)(self._standard_size)
        self.compacted_end = lru_cache(maxsize=None)(self._compacted_end)
        self.compacted_size = lru_cache(maxsize=None)(self._compacted_size)

    def _standard_size(self, mask: int) -> int:
        """Bytes of a standard-format image that holds the components of ``mask``."""
        held = (self.components[i] for i in xf.components_in(mask) if i in self.components)
        return max((c.offset + c.size for c in held if not c.supervisor), default=HEADER_END)

    def _compacted_end(self, layout: int, written: int) -> int:
        """Where the last component of ``written`` ends in a compacted image whose XCOMP_BV is ``layout``, in bytes."""
        offset = end = HEADER_END
        for i in xf.components_in(layout):
            component = self.components.get(i)
            if component is None:
                continue
            if component.aligned:
                offset = (offset + 63) & ~63
            offset += component.size
            if written >> i & 1:
                end = offset
        return end

    def _compacted_size(self, mask: int) -> int:
        """Bytes of a compacted image that holds the components of ``mask``."""
        return self.compacted_end(mask, mask)

    def compacted_offset(self, layout: int, component: int) -> int:
        """Where a component that is there begins in a compacted image whose XCOMP_BV is ``layout``, in bytes."""
        return self.compacted_end(layout, 1 << component) - self.components[component].size

    def xfd_capable(self, component: int) -> bool:
        """CPUID.0xD.i:ECX[2]."""
        return component in self.components and self.components[component].xfd

    def leaf(self, subleaf: int, user: int, supervisor: int, xcr0: int, xss: int) -> Leaf:
        """CPUID.0xD with ECX = ``subleaf``, on a processor that supports ``user`` in XCR0 and ``supervisor`` in XSS.

        0 reports sizes for the current and for all of XCR0, 1 the compacted size for XCR0 | XSS (XSAVEOPT, XSAVEC,
        XGETBV1 and XSAVES are there; XFD if any component has it), others the component's size and offset.
        """
        if subleaf == 0:
            low, high = user & 0xFFFFFFFF, user >> 32
            return Leaf(low, self.standard_size(xcr0), self.standard_size(user), high)
        if subleaf == 1:
            xfd = any(self.xfd_capable(i) for i in xf.components_in(user))
            low, high = supervisor & 0xFFFFFFFF, supervisor >> 32
            flags = XSAVEOPT | XSAVEC | XGETBV1 | XSAVES | XFD * xfd
            return Leaf(flags, self.compacted_size(xcr0 | xss), low, high)
        component = self.components.get(subleaf)
        if component is None or not (user | supervisor) >> subleaf & 1:
            return NOTHING
        flags = component.supervisor | component.aligned << 1 | component.xfd << 2
        return Leaf(component.size, component.offset, flags, 0)


#: Sapphire Rapids' layout.  Offsets below 2688 are those of earlier processors with MPX; CET is there from later ones,
#: and APX, which took the place of MPX; of LBRs there are 32 (5 + 3 * 32 registers); 20 is
#: synthetic and stands behind TILEDATA.
SAPPHIRE_RAPIDS = CpuidTable(
    {
        xf.YMM: Component(256, 576),
        xf.BNDREGS: Component(64, 960),
        xf.BNDCSR: Component(64, 1024),
        xf.OPMASK: Component(64, 1088),
        xf.ZMM_HI256: Component(512, 1152),
        xf.HI16_ZMM: Component(1024, 1664),
        xf.PKRU: Component(8, 2688),
        xf.PASID: Component(8, 0, supervisor=True),
        xf.CET_USER: Component(16, 0, supervisor=True),
        xf.CET_KERNEL: Component(24, 0, supervisor=True),
        xf.LBR: Component(808, 0, supervisor=True),
        xf.XTILE_CFG: Component(64, 2752, aligned=True),
        xf.XTILE_DATA: Component(8192, 2816, aligned=True, xfd=True),
        xf.APX: Component(128, 960),
        xf.DYN2: Component(4096, 11008, aligned=True, xfd=True),
    }
)

#: Zen 4's layout, where AVX-512 lies where MPX does on Intel's, and nothing is aligned; also that of the processors of
#: AMD's before, which have a part of it (PKRU since Zen 3, CET since Zen 3).
ZEN4 = CpuidTable(
    {
        xf.YMM: Component(256, 576),
        xf.OPMASK: Component(64, 832),
        xf.ZMM_HI256: Component(512, 896),
        xf.HI16_ZMM: Component(1024, 1408),
        xf.PKRU: Component(8, 2432),
        xf.CET_USER: Component(16, 0, supervisor=True),
        xf.CET_KERNEL: Component(24, 0, supervisor=True),
    }
)


def without_gaps(table: CpuidTable) -> CpuidTable:
    """The same components with no gap in the standard format, TILECFG and PKRU unaligned.

    The gaps of a real layout, and alignment, make the user image larger than the kernel's and so hide buffers that are
    allocated by the wrong one of the two sizes.  APX, which few machines have, comes last, or it were such a gap.
    """
    offset = HEADER_END
    packed = {}
    for i, component in sorted(table.components.items(), key=lambda item: (item[0] == xf.APX, item)):
        packed[i] = replace(component, offset=0 if component.supervisor else offset, aligned=False)
        offset += 0 if component.supervisor else component.size
    return CpuidTable(packed)


#: A synthetic layout: Sapphire Rapids' components without gaps.
DENSE = without_gaps(SAPPHIRE_RAPIDS)
