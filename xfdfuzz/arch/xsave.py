"""The XSAVE family under XFD.

Source: SDM vol. 1, 13.7 to 13.14.  RFBM = (XCR0 | IA32_XSS) AND the instruction mask; no member of the save family
faults because of XFD: a component with XCR0[i] = XFD[i] = 1 is treated as if XINUSE[i] = 0.  The restore family raises
#NM when it would *load* such a component, before it changes any state.
"""

from __future__ import annotations

from typing import Annotated

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.kinds import Flag, Token, Xfeatures
from xfdfuzz.arch.registers import CpuRegs, GeneralProtection, PageFault, check_xfd
from xfdfuzz.memory.cstruct import Array, Struct, struct

XCOMP_BV_COMPACTED = 1 << 63


@struct(data=xf.COMPONENTS + 3)
class XsaveArea(Struct):
    """An XSAVE image: the header and one token per component.

    ``data[i]`` counts only while ``xstate_bv`` holds bit i; for x87 and SSE it stands for the legacy region.
    ``reserved``: reserved bytes of the header are not 0; ``mxcsr``: reserved bits of MXCSR are set.
    """

    __slots__ = ()
    xstate_bv: Xfeatures
    xcomp_bv: Xfeatures
    reserved: Annotated[Flag, "header.reserved"]
    mxcsr: Annotated[Flag, "mxcsr (reserved bits)"]
    data: Annotated[Array[Token], ""]


def enabled(regs: CpuRegs) -> int:
    """XCR0 | IA32_XSS, the components that the supervisor forms can reach."""
    return regs.xcr0 | regs.xss


def effective_xinuse(regs: CpuRegs) -> int:
    """XINUSE as the save family sees it: without the components that XFD disables."""
    return regs.xinuse & ~(regs.xcr0 & regs.xfd)


def _store(regs: CpuRegs, area: XsaveArea, components: int) -> None:
    source, target = regs.data, area.data
    for i in xf.components_in(components):
        target[i] = source[i]


def xsave(regs: CpuRegs, area: XsaveArea, mask: int) -> None:
    """XSAVE: standard format; writes every component of RFBM, disabled ones as initial."""
    rfbm = mask & regs.xcr0
    live = rfbm & effective_xinuse(regs)
    for i in xf.components_in(rfbm & ~live):
        area.data[i] = 0
    _store(regs, area, live)
    area.xstate_bv = area.xstate_bv & ~rfbm | live


def xsavec(regs: CpuRegs, area: XsaveArea, mask: int) -> None:
    """XSAVEC: compacted format, user components; writes only what is in use.  XFD does not affect XCOMP_BV."""
    _save_compacted(regs, area, mask & regs.xcr0)


def xsaves(regs: CpuRegs, area: XsaveArea, mask: int) -> None:
    """XSAVES: as XSAVEC with the supervisor components.  The modified optimisation is not modelled (it is invisible
    unless software edits the area between XRSTORS and XSAVES)."""
    _save_compacted(regs, area, mask & enabled(regs))


def _save_compacted(regs: CpuRegs, area: XsaveArea, rfbm: int) -> None:
    live = rfbm & effective_xinuse(regs)
    _store(regs, area, live)
    area.xstate_bv = live
    area.xcomp_bv = rfbm | XCOMP_BV_COMPACTED


def xrstor(regs: CpuRegs, area: XsaveArea, mask: int) -> None:
    """XRSTOR of an image in the standard format (XCOMP_BV = 0) or the compacted one (SDM vol. 1, 13.8)."""
    rfbm = mask & regs.xcr0
    if area.xcomp_bv & XCOMP_BV_COMPACTED:
        _check_compacted(area, regs.xcr0, rfbm)
        _restore(regs, area, rfbm)
        return
    if area.xcomp_bv or area.reserved or area.xstate_bv & ~regs.xcr0:
        raise GeneralProtection
    if area.mxcsr and rfbm & (xf.MASK_SSE | xf.MASK_YMM):
        raise GeneralProtection
    _restore(regs, area, rfbm)


def xrstor_page_fault(regs: CpuRegs, area: XsaveArea, mask: int, done: int) -> None:
    """XRSTOR of an image behind whose header memory is missing: #PF, after the components of ``done``.

    Which ones it has loaded or initialised by then is the processor's choice; that it may have changed any is what both
    vendors told the author of d8778e393afa.  A fault that the header causes, or XFD, comes first (INFERRED).
    """
    rfbm = mask & regs.xcr0
    check_xfd(regs, rfbm & area.xstate_bv)
    xrstor(regs, area, mask & done)
    raise PageFault


def xrstors(regs: CpuRegs, area: XsaveArea, mask: int) -> None:
    """XRSTORS: compacted format; #GP unless XSTATE_BV is within XCOMP_BV and that within XCR0 | IA32_XSS.

    MXCSR is a part of SSE's component here; in the standard format AVX needs it too.
    """
    rfbm = mask & enabled(regs)
    _check_compacted(area, enabled(regs), rfbm)
    _restore(regs, area, rfbm)


def _check_compacted(area: XsaveArea, possible: int, rfbm: int) -> None:
    layout = area.xcomp_bv & ~XCOMP_BV_COMPACTED
    if not area.xcomp_bv & XCOMP_BV_COMPACTED or layout & ~possible or area.xstate_bv & ~layout or area.reserved:
        raise GeneralProtection
    if area.mxcsr and rfbm & area.xstate_bv & xf.MASK_SSE:
        raise GeneralProtection


def _restore(regs: CpuRegs, area: XsaveArea, rfbm: int) -> None:
    """Load the components of RFBM that XSTATE_BV holds, initialise the others.

    Initialising never faults, even under XFD: the host restores every task with RFBM = all while XFD is set.
    """
    load = rfbm & area.xstate_bv
    check_xfd(regs, load)
    source, target = area.data, regs.data
    xinuse = regs.xinuse
    for i in xf.components_in(rfbm & ~load & xinuse):
        target[i] = 0
    xinuse &= ~rfbm
    for i in xf.components_in(load):
        target[i] = source[i]
        if source[i]:
            xinuse |= 1 << i
    regs.xinuse = xinuse
