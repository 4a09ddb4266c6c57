"""What a processor has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import DENSE, SAPPHIRE_RAPIDS, ZEN4, CpuidTable

#: The switches that are on by default and that AMD's processors are without.
AMD_LACKS = ("xfd", "amx", "pasid")
#: Those that nobody can turn on there.
NOT_AMD = (
    *AMD_LACKS,
    "mpx",
    "lbr",
    "dyn2",
    "apx",
    "amx_ignores_ts",
    "amx_ud_first",
    "spr4_erratum",
    "dense",
)


@dataclass(frozen=True)
class Processor:
    """A processor's features.  The default is Sapphire-Rapids-like.

    ``xsaves`` and ``xsavec`` are the instructions, which a kernel gives up for an erratum (AMD's 1386) or a hypervisor
    hides, ``xgetbv1`` is XGETBV with ECX = 1; ``avx512`` stands for components 5, 6 and 7, and needs ``avx``; of
    ``cet`` a hypervisor may hide component 12, ``cet_kernel``, and of ``lbr``, architectural LBRs, component 15,
    ``lbr_xsaves``; ``dyn2`` adds the synthetic
    second XFD-capable component 20; ``amx_ignores_ts`` says that AMX instructions do not
    look at CR0.TS, so that under both CR0.TS and XFD the XFD #NM is reported (it is not settled which one is,
    docs/fidelity.md), ``amx_ud_first`` that without a tile configuration they are #UD even while XFD
    disables TILEDATA; ``dense`` takes a layout without gaps, which shows what gaps hide; ``exact_sse`` says that SSE
    can be in its initial configuration while AVX is in use, as it is after an XRSTOR of AVX alone; ``spr4_erratum`` is
    a processor that stores zeros for TILEDATA when a VM exit interrupts an XSAVE (Sapphire Rapids' SPR4); on one with
    ``fxsave_leak``, AMD's before Zen, no instruction saves or loads x87's error pointers (FOP, FIP and FDP) unless an
    x87 exception is pending.
    ``in_use`` has the components whose XINUSE is 1 even while they are initial, which the SDM allows for each
    (vol. 1, 13.6: "a processor need not implement the init optimization for state component i", 13.8.3); those that the
    processor lacks do not count, and with SSE among them ``exact_sse`` means nothing.

    ``amd`` is a processor of AMD's, Zen-4-like: with that layout, and without what :data:`AMD_LACKS` names, whatever
    was said of it.  ValueError for one that has what no such processor has.
    """

    xsave: bool = True
    xsaves: bool = True
    xsavec: bool = True
    xgetbv1: bool = True
    avx: bool = True
    avx512: bool = True
    pku: bool = True
    mpx: bool = False
    xfd: bool = True
    amx: bool = True
    dyn2: bool = False
    pasid: bool = True
    cet: bool = False
    cet_kernel: bool = True
    lbr: bool = False
    lbr_xsaves: bool = True
    apx: bool = False
    amx_ignores_ts: bool = False
    amx_ud_first: bool = False
    spr4_erratum: bool = False
    fxsave_leak: bool = False
    dense: bool = False
    exact_sse: bool = False
    in_use: int = 0
    amd: bool = False

    def __post_init__(self) -> None:
        if self.amd:
            for name in AMD_LACKS:
                object.__setattr__(self, name, False)
            wrong = next((name for name in NOT_AMD if getattr(self, name)), None)
            if wrong:
                raise ValueError(f"{wrong}: not with amd")
        object.__setattr__(self, "in_use", self.in_use & (self.user_xfeatures | self.supervisor_xfeatures))
        object.__setattr__(self, "exact_sse", self.exact_sse and not self.in_use & xf.MASK_SSE)

    @property
    def cpuid(self) -> CpuidTable:
        """The layout that CPUID enumerates."""
        if self.amd:
            return ZEN4
        return DENSE if self.dense else SAPPHIRE_RAPIDS

    @property
    def has_xfd(self) -> bool:
        """CPUID.0xD.1:EAX[4]: IA32_XFD and IA32_XFD_ERR exist.  A processor without XSAVES does not have them, nor one
        without XGETBV(1), which software that manages XFD executes unasked (INFERRED)."""
        return self.has_xsaves and self.xgetbv1 and self.xfd

    @property
    def has_xsaves(self) -> bool:
        """CPUID.0xD.1:EAX[3]: XSAVES, XRSTORS and IA32_XSS exist."""
        return self.xsave and self.xsaves

    @cached_property
    def user_xfeatures(self) -> int:
        """CPUID.0xD.0:EDX:EAX, the components that may be set in XCR0."""
        if not self.xsave:
            return 0
        mask = xf.MASK_FPSSE
        mask |= xf.MASK_YMM if self.avx else 0
        mask |= xf.MASK_AVX512 if self.avx and self.avx512 else 0
        mask |= xf.MASK_PKRU if self.pku else 0
        mask |= xf.MASK_MPX if self.mpx else 0
        mask |= xf.MASK_XTILE if self.amx else 0
        mask |= xf.MASK_APX if self.apx else 0
        mask |= xf.MASK_DYN2 if self.dyn2 else 0
        return mask

    @cached_property
    def supervisor_xfeatures(self) -> int:
        """CPUID.0xD.1:EDX:ECX, the components that may be set in IA32_XSS."""
        if not self.has_xsaves:
            return 0
        mask = xf.MASK_PASID if self.pasid else 0
        mask |= xf.MASK_CET_USER if self.cet else 0
        mask |= xf.MASK_LBR if self.lbr and self.lbr_xsaves else 0
        return mask | (xf.MASK_CET_KERNEL if self.cet and self.cet_kernel else 0)

    @cached_property
    def xfd_xfeatures(self) -> int:
        """The components i with CPUID.0xD.i:ECX[2]: bits that may be set in IA32_XFD."""
        if not self.has_xfd:
            return 0
        return xf.mask_of(*(i for i in xf.components_in(self.user_xfeatures) if self.cpuid.xfd_capable(i)))
