"""CPUID leaf 0xD: sizes and offsets of the state components, standard and compacted.

Source: SDM vol. 1, 13.2 (enumeration), 13.4.2 (standard format), 13.4.3 (compacted format).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from xfdfuzz.arch import xfeatures as xf

#: Legacy region plus XSAVE header; extended components start here in the compacted format.
LEGACY_SIZE = 512
HEADER_END = 576


@dataclass(frozen=True, slots=True)
class Component:
    """What CPUID.0xD.i says of component i.

    ``size`` and ``offset`` in bytes; ``offset`` is that of the standard format and 0 for a supervisor component.
    """

    size: int
    offset: int
    supervisor: bool = False
    aligned: bool = False
    xfd: bool = False


#: Sapphire Rapids' layout.  Offsets below 2688 are those of earlier processors with MPX; 12 is there from later ones;
#: 20 is synthetic and stands behind TILEDATA.
SAPPHIRE_RAPIDS: dict[int, Component] = {
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
    xf.XTILE_CFG: Component(64, 2752, aligned=True),
    xf.XTILE_DATA: Component(8192, 2816, aligned=True, xfd=True),
    xf.DYN2: Component(4096, 11008, aligned=True, xfd=True),
}


@lru_cache(maxsize=65536)
def standard_size(mask: int) -> int:
    """Bytes of a standard-format image that holds the components of ``mask`` (CPUID.0xD.0:EBX for XCR0 = mask)."""
    ends = [c.offset + c.size for i in xf.components_in(mask) if (c := SAPPHIRE_RAPIDS.get(i)) and not c.supervisor]
    return max(ends, default=HEADER_END)


@lru_cache(maxsize=65536)
def compacted_end(layout: int, written: int) -> int:
    """Where the last component of ``written`` ends in a compacted image whose XCOMP_BV is ``layout``, in bytes."""
    offset = end = HEADER_END
    for i in xf.components_in(layout):
        component = SAPPHIRE_RAPIDS.get(i)
        if component is None:
            continue
        if component.aligned:
            offset = (offset + 63) & ~63
        offset += component.size
        if written >> i & 1:
            end = offset
    return end


def compacted_size(mask: int) -> int:
    """Bytes of a compacted image that holds the components of ``mask`` (CPUID.0xD.1:EBX for XCR0|XSS = mask)."""
    return compacted_end(mask, mask)
