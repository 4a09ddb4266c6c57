"""CET of guests: the registers that no component has, and those of components beside the first."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch.registers import CET_MSRS, MSR_IA32_U_CET
from xfdfuzz.engines.rules.base import Rules, on, one
from xfdfuzz.kernel.kvm.msrs import MSR_KVM_INTERNAL_GUEST_SSP
from xfdfuzz.program.ops import guest, kvm
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import Range, targets, tokens

_MSRS = tuple(CET_MSRS)


class CetRules(Rules):
    """What guests with CET do, and what their VMMs do about it; there are none of these on a machine without."""

    SHARE = 1

    @on("cet_guests", n=targets, which=Range(0, len(_MSRS) - 1), token=tokens)
    def guest_wrmsr_any_cet(self, n: int, which: int, token: int) -> Iterator[Op]:
        """WRMSR of any MSR of CET."""
        yield guest.GuestWrmsr(self.choice("cet_guests", n), _MSRS[which], token)

    guest_rstorssp = one(guest.GuestRstorssp, on="cet_guests")
    guest_rdssp = one(guest.GuestRdssp, on="cet_guests")
    kvm_get_one_reg = one(kvm.KvmGetOneReg, on="cet_calls")
    kvm_set_one_reg = one(kvm.KvmSetOneReg, on="cet_calls", msr=MSR_KVM_INTERNAL_GUEST_SSP)
    kvm_set_one_msr = one(kvm.KvmSetOneReg, on="cet_calls", msr=MSR_IA32_U_CET)
    kvm_get_reg_list = one(kvm.KvmGetRegList, on="cet_calls")
