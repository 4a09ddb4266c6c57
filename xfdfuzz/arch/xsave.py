"""The XSAVE family under XFD.

Source: SDM vol. 1, 13.7 to 13.14.  RFBM = (XCR0 | IA32_XSS) AND the instruction mask; no member of the save family
faults because of XFD: a component with XCR0[i] = XFD[i] = 1 is treated as if XINUSE[i] = 0.  The restore family raises
#NM when it would *load* such a component, before it changes any state.
"""

from __future__ import annotations

from typing import Annotated

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.kinds import Flag, Token, Xfeatures
from xfdfuzz.arch.processor import Processor
from xfdfuzz.arch.registers import (
    CpuRegs,
    DeviceNotAvailable,
    GeneralProtection,
    InvalidOpcode,
    PageFault,
    check_xfd,
    load_component,
)
from xfdfuzz.memory.cstruct import Array, Struct, struct

XCOMP_BV_COMPACTED = 1 << 63

#: What MXCSR of an image holds where reserved bits of it are set: no register does.
MXCSR_RESERVED = 3


#: Of what an image's address has to be a multiple, for XSAVE and XRSTOR, and for FXSAVE and FXRSTOR.
XSAVE_ALIGNMENT, FXSAVE_ALIGNMENT = 64, 16


@struct(data=xf.PLACES)
class XsaveArea(Struct):
    """An XSAVE image: the header, one token per component, one for MXCSR, and those for CET's other registers.

    ``data[i]`` counts only while ``xstate_bv`` holds bit i; for x87 and SSE it stands for the legacy region.  When
    ``data[MXCSR]`` counts depends on the format: in the compacted one with SSE, in the standard one always.
    ``reserved``: reserved bytes of the header are not 0.
    """

    __slots__ = ()
    xstate_bv: Xfeatures
    xcomp_bv: Xfeatures
    reserved: Annotated[Flag, "header.reserved"]
    data: Annotated[Array[Token], ""]


def enabled(regs: CpuRegs) -> int:
    """XCR0 | IA32_XSS, the components that the supervisor forms can reach."""
    return regs.xcr0 | regs.xss


def in_use(regs: CpuRegs) -> int:
    """XINUSE: what is not initial, and what this processor always calls in use (SDM vol. 1, 13.6)."""
    return regs.xinuse | regs.always_in_use


def xgetbv(regs: CpuRegs, processor: Processor, index: int) -> int:
    """XGETBV of XCR0, or, with ECX = 1, of what is in use: #GP without CPUID.0xD.1:EAX[2] (SDM vol. 2)."""
    if not index:
        return regs.xcr0
    if not processor.xgetbv1:
        raise GeneralProtection
    return xgetbv_in_use(regs)


def xgetbv_in_use(regs: CpuRegs) -> int:
    """XGETBV(1): XCR0 AND XINUSE, and SSE where MXCSR is not initial; XFD does not count (SDM vol. 1, 13.6)."""
    return regs.xcr0 & (in_use(regs) | (xf.MASK_SSE if regs.data[xf.MXCSR] else 0))


def effective_xinuse(regs: CpuRegs) -> int:
    """XINUSE as the save family sees it: without the components that XFD disables."""
    return in_use(regs) & ~(regs.xcr0 & regs.xfd)


def _store(regs: CpuRegs, area: XsaveArea, components: int) -> None:
    source, target = regs.data, area.data
    for i in xf.registers_of(components):
        target[i] = source[i]


def xsave(regs: CpuRegs, area: XsaveArea, mask: int) -> None:
    """XSAVE: standard format; writes every component of RFBM, disabled ones as initial, and MXCSR with SSE or AVX."""
    rfbm = mask & regs.xcr0
    live = rfbm & effective_xinuse(regs)
    for i in xf.components_in(rfbm & ~live):
        area.data[i] = 0
    _store(regs, area, live)
    if rfbm & xf.MASK_WITH_MXCSR:
        area.data[xf.MXCSR] = regs.data[xf.MXCSR]
    area.xstate_bv = area.xstate_bv & ~rfbm | live


def xsaveopt(regs: CpuRegs, area: XsaveArea, mask: int) -> None:
    """XSAVEOPT: as XSAVE, but what is initial is not written.  The modified optimisation is not modelled."""
    rfbm = mask & regs.xcr0
    live = rfbm & effective_xinuse(regs)
    _store(regs, area, live)
    if rfbm & xf.MASK_WITH_MXCSR:
        area.data[xf.MXCSR] = regs.data[xf.MXCSR]
    area.xstate_bv = area.xstate_bv & ~rfbm | live


def xsavec(regs: CpuRegs, area: XsaveArea, mask: int, exact_sse: bool = False) -> None:
    """XSAVEC: compacted format, user components; writes only what is in use.  XFD does not affect XCOMP_BV.

    ``exact_sse``: SSE may be initial while AVX is not, and MXCSR is not written then.  Otherwise SSE is in use where
    AVX is not initial, as VEX-encoded instructions write both, although the tokens here are apart.
    """
    _save_compacted(regs, area, mask & regs.xcr0, exact_sse)


def xsaves(regs: CpuRegs, area: XsaveArea, mask: int, exact_sse: bool = False) -> None:
    """XSAVES: as XSAVEC with the supervisor components.  The modified optimisation is not modelled (it is invisible
    unless software edits the area between XRSTORS and XSAVES)."""
    _save_compacted(regs, area, mask & enabled(regs), exact_sse)


def _save_compacted(regs: CpuRegs, area: XsaveArea, rfbm: int, exact_sse: bool) -> None:
    """The init optimization does not apply to SSE while MXCSR is not initial (SDM vol. 1, 13.10 and 13.11)."""
    live = rfbm & effective_xinuse(regs)
    mxcsr = regs.data[xf.MXCSR]
    if mxcsr:
        live |= rfbm & xf.MASK_SSE
    _store(regs, area, live)
    if live & (xf.MASK_SSE if exact_sse else xf.MASK_SSE | xf.MASK_YMM & regs.xinuse):
        area.data[xf.MXCSR] = mxcsr
    area.xstate_bv = live
    area.xcomp_bv = rfbm | XCOMP_BV_COMPACTED


def save(regs: CpuRegs, processor: Processor, insn: str, mask: int, cr0_ts: bool) -> XsaveArea:
    """An instruction of the save family, or FXSAVE, by the name that programs use for it: what it stores to zeros.

    FXSAVE knows no mask; of what it stores XSTATE_BV, which is none of its, says what is in use.
    """
    if insn == "xsavec" and not processor.xsavec:
        raise InvalidOpcode
    if cr0_ts:
        raise DeviceNotAvailable(xfd=False)
    area = XsaveArea()
    if insn == "fxsave":
        area.xstate_bv = xf.MASK_FPSSE & regs.xinuse
        for i in xf.LEGACY:
            area.data[i] = regs.data[i]
    elif insn == "xsave":
        xsave(regs, area, mask)
    else:
        compact = {"xsavec": xsavec, "xsaves": xsaves}[insn]
        compact(regs, area, mask, processor.exact_sse)
    return area


def fxrstor(regs: CpuRegs, area: XsaveArea) -> None:
    """FXRSTOR; #GP for reserved bits of MXCSR (SDM vol. 2)."""
    if area.data[xf.MXCSR] == MXCSR_RESERVED:
        raise GeneralProtection
    for i in xf.LEGACY:
        load_component(regs, i, area.data[i])


def check_alignment(address: int, alignment: int) -> None:
    """#GP for an image that is not aligned, before anything of it is looked at (SDM vol. 2, XRSTOR and FXRSTOR)."""
    if address % alignment:
        raise GeneralProtection


def xrstor(regs: CpuRegs, processor: Processor, area: XsaveArea, mask: int) -> None:
    """XRSTOR of an image in the standard format (XCOMP_BV = 0) or the compacted one (SDM vol. 1, 13.8).

    The standard form loads MXCSR with SSE or AVX, whatever XSTATE_BV says.  The compacted one is #GP on a processor
    without XSAVEC, CPUID.0xD.1:EAX[1], whatever a guest's CPUID says (SDM vol. 2, XRSTOR).
    """
    rfbm = mask & regs.xcr0
    if area.xcomp_bv & XCOMP_BV_COMPACTED:
        if not processor.xsavec:
            raise GeneralProtection
        _restore_compacted(regs, area, regs.xcr0, rfbm)
        return
    if area.xcomp_bv or area.reserved or area.xstate_bv & ~regs.xcr0:
        raise GeneralProtection
    mxcsr = area.data[xf.MXCSR]
    if rfbm & xf.MASK_WITH_MXCSR and mxcsr == MXCSR_RESERVED:
        raise GeneralProtection
    _restore(regs, area, rfbm)
    if rfbm & xf.MASK_WITH_MXCSR:
        regs.data[xf.MXCSR] = mxcsr


def xrstor_page_fault(regs: CpuRegs, processor: Processor, area: XsaveArea, mask: int, done: int) -> None:
    """XRSTOR of an image behind whose header memory is missing: #PF, after the components of ``done``.

    Which ones it has loaded or initialised by then is the processor's choice; that it may have changed any is what both
    vendors told the author of d8778e393afa.  A fault that the header causes, or XFD, comes first (INFERRED).
    """
    rfbm = mask & regs.xcr0
    check_xfd(regs, rfbm & area.xstate_bv)
    xrstor(regs, processor, area, mask & done)
    raise PageFault


def xrstors(regs: CpuRegs, area: XsaveArea, mask: int) -> None:
    """XRSTORS: compacted format; #GP unless XSTATE_BV is within XCOMP_BV and that within XCR0 | IA32_XSS.

    MXCSR is a part of SSE's component here.
    """
    _restore_compacted(regs, area, enabled(regs), mask & enabled(regs))


def _restore_compacted(regs: CpuRegs, area: XsaveArea, possible: int, rfbm: int) -> None:
    _check_compacted(area, possible, rfbm)
    _restore(regs, area, rfbm)
    if rfbm & xf.MASK_SSE:
        regs.data[xf.MXCSR] = area.data[xf.MXCSR] if area.xstate_bv & xf.MASK_SSE else 0


def _check_compacted(area: XsaveArea, possible: int, rfbm: int) -> None:
    layout = area.xcomp_bv & ~XCOMP_BV_COMPACTED
    if not area.xcomp_bv & XCOMP_BV_COMPACTED or layout & ~possible or area.xstate_bv & ~layout or area.reserved:
        raise GeneralProtection
    if rfbm & area.xstate_bv & xf.MASK_SSE and area.data[xf.MXCSR] == MXCSR_RESERVED:
        raise GeneralProtection


def _restore(regs: CpuRegs, area: XsaveArea, rfbm: int) -> None:
    """Load the components of RFBM that XSTATE_BV holds, initialise the others.

    Initialising x87 zeroes its error pointers (Xen's cure of XSA-52 relies on it).

    Initialising never faults, even under XFD: the host restores every task with RFBM = all while XFD is set.
    """
    load = rfbm & area.xstate_bv
    check_xfd(regs, load)
    source, target = area.data, regs.data
    xinuse = regs.xinuse
    for i in xf.registers_of(rfbm & ~load & xinuse):
        target[i] = 0
    xinuse &= ~rfbm
    if rfbm & ~load & xf.MASK_X87:
        regs.error_pointers = 0
    bits = xf.COMPONENT_BITS
    for i in xf.registers_of(load):
        target[i] = source[i]
        if source[i]:
            xinuse |= bits[i]
    regs.xinuse = xinuse
