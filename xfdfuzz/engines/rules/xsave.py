"""XSAVE images, their sizes, and the older FPU ioctls; CET, of whose registers no image that ioctls have has any.

Its rules come last of all, so that those before are drawn as they were without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from xfdfuzz.arch.registers import CET_MSRS, MSR_IA32_U_CET
from xfdfuzz.engines.rules.base import Rules, on, one
from xfdfuzz.kernel.kvm.msrs import MSR_KVM_INTERNAL_GUEST_SSP
from xfdfuzz.program.fields import Msrs, UserImage
from xfdfuzz.program.ops import guest, kvm, xsave
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import Range, picks, targets, tokens

#: In which a VMM may restore.
_ORDERS = tuple(permutations(range(3)))
_MSRS = tuple(CET_MSRS)


class XsaveRules(Rules):
    """XSAVE images, their sizes, and the older FPU ioctls."""

    SHARE = 4

    kvm_check_xsave2 = one(xsave.KvmCheckXsave2, on="tasks")
    kvm_vm_check_xsave2 = one(xsave.KvmVmCheckXsave2, on="vm_calls")
    kvm_set_xsave = one(xsave.KvmSetXsave, on="vcpu_calls")
    kvm_get_xsave = one(xsave.KvmGetXsave, on="vcpu_calls")
    kvm_get_xsave2 = one(xsave.KvmGetXsave2, on="vcpu_calls")
    kvm_set_fpu = one(xsave.KvmSetFpu, on="vcpu_calls")
    kvm_get_fpu = one(xsave.KvmGetFpu, on="vcpu_calls")

    @on("vcpu_calls", n=targets, image=picks)
    def set_xsave_then_less(self, n: int, image: int) -> Iterator[Op]:
        """A VMM writes an image, and then one that has nothing in use."""
        task, nr = self.choice("vcpu_calls", n)
        yield xsave.KvmSetXsave(task, nr, self.domains[UserImage].value(image))
        yield xsave.KvmSetXsave(task, nr, UserImage(0))

    @on("vcpu_calls", n=targets, order=Range(0, len(_ORDERS) - 1), msrs=picks, xcr0=picks, image=picks)
    def restore(self, n: int, order: int, msrs: int, xcr0: int, image: int) -> Iterator[Op]:
        """A VMM restores a vCPU, in an order of its own."""
        task, nr = self.choice("vcpu_calls", n)
        calls = (
            kvm.KvmSetMsrs(task, nr, self.domains[Msrs].value(msrs)),
            kvm.KvmSetXcrs(task, nr, self.domains["xcr0"].value(xcr0)),
            xsave.KvmSetXsave(task, nr, self.domains[UserImage].value(image)),
        )
        for call in _ORDERS[order]:
            yield calls[call]


class CetRules(Rules):
    """What guests with CET do, and what their VMMs do about it; there are none of these on a machine without."""

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
