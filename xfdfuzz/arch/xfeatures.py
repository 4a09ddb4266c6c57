"""XSAVE state components: numbers, masks, names and the rules for XCR0.

Source: Intel SDM vol. 1, chapter 13 (sections 13.1, 13.3 and 13.14), and vol. 2, XSETBV.  Names are Linux'
(``arch/x86/include/asm/fpu/types.h``), except for :data:`DYN2`, which no processor has.
"""

from __future__ import annotations

from functools import lru_cache

X87, SSE, YMM, BNDREGS, BNDCSR, OPMASK, ZMM_HI256, HI16_ZMM, PT, PKRU, PASID, CET_USER, CET_KERNEL = range(13)
LBR, XTILE_CFG, XTILE_DATA, APX = 15, 17, 18, 19
#: A synthetic second dynamic component: several bugs of the series cannot be expressed with one XFD bit.
DYN2 = 20
#: One more than the highest component number that the model knows.
COMPONENTS = 21
#: Where MXCSR stands beside the contents of the components.  It is none: it goes with SSE, and in the standard format
#: with AVX as well (SDM vol. 1, 13.5.2 and 13.5.3).
MXCSR = 21
#: Where the registers of CET stand that are not the first of a component, which are IA32_U_CET and IA32_PL0_SSP:
#: IA32_PL3_SSP is the second one of CET_USER, IA32_PL1_SSP and IA32_PL2_SSP are the others of CET_KERNEL (SDM vol. 1,
#: 13.5.9), and IA32_S_CET, IA32_INTERRUPT_SSP_TABLE_ADDR and SSP are in none.
PL3_SSP, PL1_SSP, PL2_SSP, S_CET, INT_SSP_TAB, SSP = range(22, 28)
#: How many places there are.
PLACES = 28

NAMES: dict[int, str] = {
    X87: "x87",
    SSE: "sse",
    YMM: "avx",
    BNDREGS: "bndregs",
    BNDCSR: "bndcsr",
    OPMASK: "opmask",
    ZMM_HI256: "zmm_hi256",
    HI16_ZMM: "hi16_zmm",
    PKRU: "pkru",
    PASID: "pasid",
    CET_USER: "cet_user",
    CET_KERNEL: "cet_kernel",
    LBR: "lbr",
    XTILE_CFG: "xtilecfg",
    XTILE_DATA: "xtiledata",
    APX: "apx",
    DYN2: "dyn2",
}
#: What everything that holds contents is called.
CONTENTS: dict[int, str] = NAMES | {
    MXCSR: "mxcsr",
    PL3_SSP: "pl3_ssp",
    PL1_SSP: "pl1_ssp",
    PL2_SSP: "pl2_ssp",
    S_CET: "s_cet",
    INT_SSP_TAB: "int_ssp_tab",
    SSP: "ssp",
}
#: What of that an image of a program names.
IN_IMAGES: dict[int, str] = NAMES | {MXCSR: "mxcsr"}
#: What the legacy region of an image holds, all of which FXSAVE stores.
LEGACY = (X87, SSE, MXCSR)


def mask_of(*components: int) -> int:
    """The bitmap of the given component numbers."""
    return sum(1 << i for i in components)


MASK_X87 = mask_of(X87)
MASK_SSE = mask_of(SSE)
MASK_YMM = mask_of(YMM)
MASK_FPSSE = mask_of(X87, SSE)
#: What the standard format loads and stores MXCSR with.
MASK_WITH_MXCSR = mask_of(SSE, YMM)
MASK_MXCSR = mask_of(MXCSR)
MASK_MPX = mask_of(BNDREGS, BNDCSR)
MASK_AVX512 = mask_of(OPMASK, ZMM_HI256, HI16_ZMM)
MASK_PKRU = mask_of(PKRU)
MASK_PASID = mask_of(PASID)
MASK_CET_USER = mask_of(CET_USER)
MASK_CET_KERNEL = mask_of(CET_KERNEL)
MASK_CET = MASK_CET_USER | MASK_CET_KERNEL
#: What IBT has of CET's registers, and what shadow stacks have as well.
MASK_IBT_REGISTERS = mask_of(CET_USER, S_CET)
MASK_CET_REGISTERS = mask_of(CET_USER, CET_KERNEL, PL3_SSP, PL1_SSP, PL2_SSP, S_CET, INT_SSP_TAB, SSP)
MASK_LBR = mask_of(LBR)
MASK_XTILE_CFG = mask_of(XTILE_CFG)
MASK_XTILE_DATA = mask_of(XTILE_DATA)
MASK_XTILE = mask_of(XTILE_CFG, XTILE_DATA)
MASK_APX = mask_of(APX)
MASK_DYN2 = mask_of(DYN2)

#: Names of component sets, as the text format writes them (longest first).
GROUPS: dict[str, int] = {"avx512": MASK_AVX512, "mpx": MASK_MPX, "xtile": MASK_XTILE}

U64_MAX = (1 << 64) - 1


@lru_cache(maxsize=4096)
def components_in(mask: int) -> tuple[int, ...]:
    """The component numbers in ``mask``, ascending; bits that name no component are left out."""
    return tuple(i for i in range(COMPONENTS) if mask >> i & 1)


#: The registers of a component that has several, by any of them.
_TOGETHER = {place: places for places in ((CET_USER, PL3_SSP), (CET_KERNEL, PL1_SSP, PL2_SSP)) for place in places}
#: By place, the bit of the component that it belongs to; 0 for none.
COMPONENT_BITS = tuple(1 << _TOGETHER.get(i, (i,))[0] if i < COMPONENTS or i in _TOGETHER else 0 for i in range(PLACES))


def together(place: int) -> tuple[int, ...]:
    """The places of all registers of the component that has one at ``place``."""
    return _TOGETHER.get(place, (place,))


@lru_cache(maxsize=4096)
def registers_of(mask: int) -> tuple[int, ...]:
    """The places of all registers of the components in ``mask``."""
    return tuple(place for i in components_in(mask) for place in together(i))


@lru_cache(maxsize=4096)
def contents_in(mask: int) -> tuple[int, ...]:
    """The places in ``mask``: of components, their first registers, and of what stands beside those."""
    return tuple(i for i in range(PLACES) if mask >> i & 1)


@lru_cache(maxsize=4096)
def legal_xcr0(value: int) -> bool:
    """Whether the bits of ``value`` may stand together in XCR0 (SDM vol. 2, XSETBV).

    Which bits the processor supports at all is not looked at here.
    """
    if not value & MASK_X87:
        return False
    if value & MASK_YMM and not value & MASK_SSE:
        return False
    if value & MASK_AVX512 and (value & MASK_AVX512 != MASK_AVX512 or not value & MASK_YMM):
        return False
    if value & MASK_MPX not in (0, MASK_MPX) or (value & MASK_MPX and value & MASK_APX):
        return False
    return value & MASK_XTILE in (0, MASK_XTILE)


def format_mask(mask: int) -> str:
    """``x87|sse|avx|xtile``; bits without a name as one hexadecimal term; ``0`` for none."""
    if not mask:
        return "0"
    terms: list[tuple[int, str]] = []
    rest = mask
    for name, group in GROUPS.items():
        if rest & group == group:
            terms.append((components_in(group)[0], name))
            rest &= ~group
    for i in components_in(rest):
        if i in NAMES:
            terms.append((i, NAMES[i]))
            rest &= ~(1 << i)
    words = [name for _, name in sorted(terms)]
    if rest:
        words.append(hex(rest))
    return "|".join(words)


def mask_by_name(name: str) -> int | None:
    """The bitmap that one word of :func:`format_mask` stands for, or None."""
    if name in GROUPS:
        return GROUPS[name]
    for i, known in NAMES.items():
        if known == name:
            return 1 << i
    return None
