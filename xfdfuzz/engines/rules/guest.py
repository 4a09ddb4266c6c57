"""What guests do, and what makes them exit."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_PL0_SSP, MSR_IA32_U_CET, MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS
from xfdfuzz.engines.rules.base import Rules, on
from xfdfuzz.program.ops import guest
from xfdfuzz.strategies.values import flags, picks, subleaves, targets, tokens


class GuestRules(Rules):
    """What guests do, and what makes them exit."""

    SHARE = 8

    @on("guests", vcpu=targets, token=tokens)
    def guest_vmovups(self, vcpu: int, token: int) -> None:
        """AVX."""
        self.do(guest.GuestVmovups(self.guest(vcpu), token))

    @on("guests", vcpu=targets, token=tokens)
    def guest_ldtilecfg(self, vcpu: int, token: int) -> None:
        """LDTILECFG."""
        self.do(guest.GuestLdtilecfg(self.guest(vcpu), token))

    @on("guests", vcpu=targets, token=tokens)
    def guest_tileload(self, vcpu: int, token: int) -> None:
        """TILELOADD."""
        self.do(guest.GuestTileload(self.guest(vcpu), token))

    @on("guests", vcpu=targets)
    def guest_tilerelease(self, vcpu: int) -> None:
        """TILERELEASE."""
        self.do(guest.GuestTilerelease(self.guest(vcpu)))

    @on("dyn2_guests", vcpu=targets, token=tokens)
    def guest_dyn2load(self, vcpu: int, token: int) -> None:
        """The synthetic feature."""
        self.do(guest.GuestDyn2load(self.guest(vcpu), token))

    @on("guests", vcpu=targets)
    def guest_sttilecfg(self, vcpu: int) -> None:
        """STTILECFG."""
        self.do(guest.GuestSttilecfg(self.guest(vcpu)))

    @on("guests", vcpu=targets)
    def guest_tilestore(self, vcpu: int) -> None:
        """TILESTORED."""
        self.do(guest.GuestTilestore(self.guest(vcpu)))

    @on("guests", vcpu=targets, mask=picks)
    def guest_xsave(self, vcpu: int, mask: int) -> None:
        """XSAVE."""
        self.do(guest.GuestXsave(self.guest(vcpu), self.domains.xfeatures.value(mask)))

    @on("guests", vcpu=targets, mask=picks)
    def guest_xsaves(self, vcpu: int, mask: int) -> None:
        """XSAVES."""
        self.do(guest.GuestXsaves(self.guest(vcpu), self.domains.xfeatures.value(mask)))

    @on("guests", vcpu=targets, inuse=flags)
    def guest_xgetbv(self, vcpu: int, inuse: bool) -> None:
        """XGETBV."""
        self.do(guest.GuestXgetbv(self.guest(vcpu), int(inuse)))

    @on("guests", vcpu=targets, subleaf=subleaves)
    def guest_cpuid(self, vcpu: int, subleaf: int) -> None:
        """CPUID of leaf 0xD."""
        self.do(guest.GuestCpuid(self.guest(vcpu), subleaf))

    @on("guests", vcpu=targets, mask=picks)
    def guest_xsavec(self, vcpu: int, mask: int) -> None:
        """XSAVEC."""
        self.do(guest.GuestXsavec(self.guest(vcpu), self.domains.xfeatures.value(mask)))

    @on("guests", vcpu=targets, mask=picks, bv=picks, token=tokens)
    def guest_xrstor(self, vcpu: int, mask: int, bv: int, token: int) -> None:
        """XRSTOR."""
        values = self.domains.xfeatures
        self.do(guest.GuestXrstor(self.guest(vcpu), values.value(mask), values.value(bv), token))

    @on("guests", vcpu=targets, value=picks, drop=flags)
    def guest_wrmsr_xfd(self, vcpu: int, value: int, drop: bool) -> None:
        """WRMSR of IA32_XFD."""
        self.do(guest.GuestWrmsr(self.guest(vcpu), MSR_IA32_XFD, self.domains.xfd.value(value), drop))

    @on("guests", vcpu=targets, value=picks)
    def guest_wrmsr_xfd_err(self, vcpu: int, value: int) -> None:
        """WRMSR of IA32_XFD_ERR."""
        self.do(guest.GuestWrmsr(self.guest(vcpu), MSR_IA32_XFD_ERR, self.domains.xfd.value(value)))

    @on("guests", vcpu=targets, msr=picks)
    def guest_rdmsr(self, vcpu: int, msr: int) -> None:
        """RDMSR."""
        self.do(guest.GuestRdmsr(self.guest(vcpu), self.domains.msr.value(msr)))

    @on("cet_guests", vcpu=targets, which=targets, token=tokens)
    def guest_wrmsr_cet(self, vcpu: int, which: int, token: int) -> None:
        """WRMSR of supervisor state."""
        index, value = ((MSR_IA32_U_CET, token), (MSR_IA32_PL0_SSP, token), (MSR_IA32_XSS, xf.MASK_CET))[which % 3]
        self.do(guest.GuestWrmsr(self.guest(vcpu), index, value))

    @on("guests", vcpu=targets, xcr0=picks)
    def guest_xsetbv(self, vcpu: int, xcr0: int) -> None:
        """XSETBV."""
        self.do(guest.GuestXsetbv(self.guest(vcpu), self.domains.xcr0.value(xcr0)))

    @on("guests", vcpu=targets)
    def guest_stts(self, vcpu: int) -> None:
        """CR0.TS = 1."""
        self.do(guest.GuestStts(self.guest(vcpu)))

    @on("guests", vcpu=targets)
    def guest_clts(self, vcpu: int) -> None:
        """CR0.TS = 0."""
        self.do(guest.GuestClts(self.guest(vcpu)))

    @on("guests", vcpu=targets, token=tokens, tiles=flags)
    def guest_switches_lazily(self, vcpu: int, token: int, tiles: bool) -> None:
        """CR0.TS = 1, as a system leaves it that switches its tasks' registers lazily, and its next task computes."""
        nr = self.guest(vcpu)
        self.do(guest.GuestStts(nr))
        self.do(guest.GuestTileload(nr, token) if tiles else guest.GuestVmovups(nr, token))

    @on("l1_guests", n=targets, intercept_nm=flags)
    def guest_vmlaunch(self, n: int, intercept_nm: bool) -> None:
        """VMLAUNCH."""
        nr = self.now.l1_guests[n % len(self.now.l1_guests)]
        self.do(guest.GuestVmlaunchNm(nr) if intercept_nm else guest.GuestVmlaunch(nr))

    @on("guests", vcpu=targets)
    def guest_hlt(self, vcpu: int) -> None:
        """HLT."""
        self.do(guest.GuestHlt(self.guest(vcpu)))

    @on("guests", vcpu=targets)
    def guest_out(self, vcpu: int) -> None:
        """OUT."""
        self.do(guest.GuestOut(self.guest(vcpu)))

    @on("guests", vcpu=targets)
    def guest_interrupt(self, vcpu: int) -> None:
        """An external interrupt."""
        self.do(guest.GuestInterrupt(self.guest(vcpu)))

    @on("guests", vcpu=targets)
    def guest_interrupt_kernel_fpu(self, vcpu: int) -> None:
        """An external interrupt whose softirq uses the FPU."""
        self.do(guest.GuestInterruptKernelFpu(self.guest(vcpu)))
