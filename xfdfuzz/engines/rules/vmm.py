"""What VMMs mean to do with vCPUs, and whole procedures, which come as a user's program has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import permutations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS, XSTATE_MSRS
from xfdfuzz.engines.rules.base import Rules, on, one
from xfdfuzz.program.fields import Msrs, Sregs, UserImage
from xfdfuzz.program.ops import kvm, run, vmm, xsave
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import Range, flags, picks, targets

#: What writes a vCPU, all of it.
LOADS: tuple[Callable[[int, int, int], Op], ...] = (
    vmm.LoadCpuid,
    vmm.LoadSregs,
    vmm.LoadMsrs,
    vmm.LoadXcrs,
    vmm.LoadXsave,
)
_ORDERS = tuple(permutations(range(len(LOADS))))
_XFD = (MSR_IA32_XFD, MSR_IA32_XFD_ERR)
#: How many of the calls of a procedure are left out: mostly none.
_without = Range(0, 15)


def keeping(task: int, nr: int, msrs: Iterable[int], large: bool = True) -> Iterator[Op]:
    """A VMM reads all that KVM gives of a vCPU, whatever the size of its image if that is ``large``."""
    yield vmm.KeepXsave2(task, nr) if large else vmm.KeepXsave(task, nr)
    yield vmm.KeepXcrs(task, nr)
    for msr in msrs:
        yield vmm.KeepMsr(task, nr, msr)


def msrs_of(xfd: bool, cet: bool) -> tuple[int, ...]:
    """The MSRs that a guest has with these features."""
    return (*(_XFD if xfd else ()), *((MSR_IA32_XSS, *XSTATE_MSRS) if cet else ()))


def resetting(task: int, nr: int, components: int, msrs: Iterable[int]) -> Sequence[Op]:
    """A VMM writes the state of a processor that comes out of reset."""
    return (
        kvm.KvmSetMsrs(task, nr, Msrs(tuple((msr, 0) for msr in msrs))),
        kvm.KvmSetXcrs(task, nr, xf.MASK_X87),
        xsave.KvmSetXsave(task, nr, UserImage(components)),
        kvm.KvmSetSregs(task, nr, Sregs(False)),
    )


_RESETS = tuple(permutations(range(4)))


class VmmRules(Rules):
    """What VMMs mean to do with vCPUs, and whole procedures, which come as a user's program has them."""

    vmm_copy = one(vmm.VmmCopy, on="copies")
    vmm_invisible = one(vmm.VmmInvisible, on="stopped_vcpus")
    vmm_visible = one(vmm.VmmVisible, on="hidden_vcpus")
    vmm_reset = one(vmm.VmmReset, on="old_vcpus")
    keep_xsave = one(vmm.KeepXsave, on="vcpu_calls")
    keep_xsave2 = one(vmm.KeepXsave2, on="vcpu_calls")
    keep_fpu = one(vmm.KeepFpu, on="vcpu_calls")
    keep_xcrs = one(vmm.KeepXcrs, on="vcpu_calls")
    keep_msr = one(vmm.KeepMsr, on="vcpu_calls")

    @on("loads", n=picks)
    def load_kept(self, n: int) -> Iterator[Op]:
        """A VMM writes something that it keeps."""
        yield self.choice("loads", n)

    @on("twins", n=targets, large=flags, order=picks, without=_without)
    def copy_vcpu(self, n: int, large: int, order: int, without: int) -> Iterator[Op]:
        """A VMM makes a vCPU go on as another one, in an order of its own; it may forget a call."""
        task, nr, source = self.choice("twins", n)
        yield from keeping(task, source, self._msrs(), not large)
        yield vmm.VmmCopy(nr, source)
        yield from self._loads(task, nr, source, order, without)
        yield from self._enter(task, nr)

    @on("vcpu_calls", n=targets, order=picks, without=_without)
    def look_at_vcpu(self, n: int, order: int, without: int) -> Iterator[Op]:
        """A VMM reads a vCPU and writes what it has read, which is not to be seen."""
        task, nr = self.choice("vcpu_calls", n)
        yield vmm.VmmInvisible(nr)
        yield from keeping(task, nr, self._msrs())
        yield from self._loads(task, nr, nr, order, without)
        yield vmm.VmmVisible(nr)

    @on("vcpu_calls", n=targets, order=Range(0, len(_RESETS) - 1), without=_without)
    def next_tenant(self, n: int, order: int, without: int) -> Iterator[Op]:
        """A VMM resets a vCPU for another guest, in an order of its own; it may forget a call."""
        task, nr = self.choice("vcpu_calls", n)
        if nr not in self.now.old_vcpus:
            return
        yield vmm.VmmReset(nr)
        calls = resetting(task, nr, self.run.machine.user_xfeatures or xf.MASK_FPSSE, self._msrs())
        yield from (calls[call] for call in _RESETS[order] if call != without)
        yield from self._enter(task, nr)

    def _msrs(self) -> tuple[int, ...]:
        return msrs_of(True, self.run.machine.cet)

    def _loads(self, task: int, nr: int, source: int, order: int, without: int) -> Iterable[Op]:
        """The calls that write a vCPU, as far as there is something to write."""
        for call in _ORDERS[order % len(_ORDERS)]:
            load = LOADS[call](task, nr, source)
            if call != without and load in self.now.loads:
                yield load

    def _enter(self, task: int, nr: int) -> Iterator[Op]:
        yield run.KvmRun(task, nr)
        if nr in self.now.ready:
            yield run.VmEnter(nr)
