"""XSAVE images, their sizes, and the older FPU ioctls."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from xfdfuzz.engines.rules.base import Rules, on, one
from xfdfuzz.program.fields import Msrs, UserImage
from xfdfuzz.program.ops import kvm, xsave
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import Range, picks, targets

#: In which a VMM may restore.
_ORDERS = tuple(permutations(range(3)))


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
