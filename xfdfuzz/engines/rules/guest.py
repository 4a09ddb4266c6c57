"""What guests do, and what makes them exit."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_PL0_SSP, MSR_IA32_U_CET, MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS
from xfdfuzz.engines.rules.base import Rules, on, one
from xfdfuzz.program.ops import guest
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import Range, flags, targets, tokens


class GuestRules(Rules):
    """What guests do, and what makes them exit."""

    SHARE = 8

    guest_fld = one(guest.GuestFld, on="guests")
    guest_movups = one(guest.GuestMovups, on="guests")
    guest_ldmxcsr = one(guest.GuestLdmxcsr, on="guests")
    guest_stmxcsr = one(guest.GuestStmxcsr, on="guests")
    guest_vmovups = one(guest.GuestVmovups, on="guests")
    guest_ldtilecfg = one(guest.GuestLdtilecfg, on="guests")
    guest_tileload = one(guest.GuestTileload, on="guests")
    guest_tilezero = one(guest.GuestTilezero, on="guests")
    guest_tilerelease = one(guest.GuestTilerelease, on="guests")
    guest_dyn2load = one(guest.GuestDyn2load, on="dyn2_guests")
    guest_sttilecfg = one(guest.GuestSttilecfg, on="guests")
    guest_tilestore = one(guest.GuestTilestore, on="guests")
    guest_vextractf128 = one(guest.GuestVextractf128, on="guests")
    guest_fxsave = one(guest.GuestFxsave, on="guests")
    guest_fxrstor = one(guest.GuestFxrstor, on="guests")
    guest_xsave = one(guest.GuestXsave, on="guests")
    guest_xsaves = one(guest.GuestXsaves, on="guests")
    guest_xgetbv = one(guest.GuestXgetbv, on="guests")
    guest_cpuid = one(guest.GuestCpuid, on="guests")
    guest_xsavec = one(guest.GuestXsavec, on="guests")
    guest_xrstor = one(guest.GuestXrstor, on="guests")
    guest_xrstors = one(guest.GuestXrstors, on="guests")
    guest_wrmsr_xfd = one(guest.GuestWrmsr, on="guests", msr=MSR_IA32_XFD)
    guest_wrmsr_xfd_err = one(guest.GuestWrmsr, on="guests", msr=MSR_IA32_XFD_ERR, drop=False)
    guest_rdmsr = one(guest.GuestRdmsr, on="guests")
    guest_xsetbv = one(guest.GuestXsetbv, on="guests")
    guest_stts = one(guest.GuestStts, on="guests")
    guest_clts = one(guest.GuestClts, on="guests")
    guest_mov_cr4 = one(guest.GuestMovCr4, on="l1_guests")
    guest_wrpkru = one(guest.GuestWrpkru, on="guests")
    guest_rdpkru = one(guest.GuestRdpkru, on="guests")
    guest_hlt = one(guest.GuestHlt, on="guests")
    guest_out = one(guest.GuestOut, on="guests")
    guest_emulated_load = one(guest.GuestEmulatedLoad, on="l1_guests")
    guest_emulated_store = one(guest.GuestEmulatedStore, on="l1_guests")
    guest_emulated_fnstcw = one(guest.GuestEmulatedFnstcw, on="l1_guests")
    guest_hypercall_xmm = one(guest.GuestHypercallXmm, on="l1_guests")
    guest_user_xsetbv = one(guest.GuestUserXsetbv, on="guests")
    guest_shutdown = one(guest.GuestShutdown, on="l1_guests")
    guest_interrupt = one(guest.GuestInterrupt, on="guests")
    guest_interrupt_kernel_fpu = one(guest.GuestInterruptKernelFpu, on="guests")

    protected_movups = one(guest.GuestMovups, on="protected_guests")
    protected_vmovups = one(guest.GuestVmovups, on="protected_guests")
    protected_fxsave = one(guest.GuestFxsave, on="protected_guests")
    protected_xsetbv = one(guest.GuestXsetbv, on="protected_guests")
    protected_cpuid = one(guest.GuestCpuid, on="sev_es_guests")
    protected_hlt = one(guest.GuestHlt, on="protected_guests")
    protected_out = one(guest.GuestOut, on="protected_guests")
    protected_interrupt = one(guest.GuestInterrupt, on="protected_guests")
    protected_interrupt_kernel_fpu = one(guest.GuestInterruptKernelFpu, on="protected_guests")

    @on("cet_guests", n=targets, which=Range(0, 2), token=tokens)
    def guest_wrmsr_cet(self, n: int, which: int, token: int) -> Iterator[Op]:
        """WRMSR of supervisor state."""
        msr, value = ((MSR_IA32_U_CET, token), (MSR_IA32_PL0_SSP, token), (MSR_IA32_XSS, xf.MASK_CET))[which]
        yield guest.GuestWrmsr(self.choice("cet_guests", n), msr, value)

    @on("guests", n=targets, token=tokens, tiles=flags)
    def guest_switches_lazily(self, n: int, token: int, tiles: int) -> Iterator[Op]:
        """CR0.TS = 1, as a system leaves it that switches its tasks' registers lazily, and its next task computes."""
        nr = self.choice("guests", n)
        yield guest.GuestStts(nr)
        yield guest.GuestTileload(nr, token) if tiles else guest.GuestVmovups(nr, token)

    @on("l1_guests", n=targets, intercept_nm=flags)
    def guest_vmlaunch(self, n: int, intercept_nm: int) -> Iterator[Op]:
        """VMLAUNCH, with #NM in the exception bitmap or without."""
        nr = self.choice("l1_guests", n)
        yield guest.GuestVmlaunchNm(nr) if intercept_nm else guest.GuestVmlaunch(nr)
