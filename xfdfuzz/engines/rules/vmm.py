"""What VMMs mean to do with vCPUs, and whole procedures, which come as a user's program has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import permutations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_S_CET
from xfdfuzz.engines.rules.base import Rules, on
from xfdfuzz.engines.rules.situation import msrs_of
from xfdfuzz.kernel import state as st
from xfdfuzz.program.fields import Events, FpuChange, ImageChange, Msrs, Nested, Sregs, UserImage
from xfdfuzz.program.ops import kvm, run, vmm, xsave
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import Range, picks, targets

#: By task, vCPU and source.
_Load = Callable[[int, int, int], Op]
#: What writes a vCPU, all of it.
LOADS: tuple[_Load, ...] = (
    vmm.LoadCpuid,
    vmm.LoadSregs,
    vmm.LoadMsrs,
    vmm.LoadXcrs,
    vmm.LoadXsave,
    vmm.LoadVcpuEvents,
    vmm.LoadMpState,
)
_ORDERS = tuple(permutations(range(len(LOADS))))
#: What reads registers, and what writes them; the usual way first.
IMAGES: tuple[tuple[Callable[[int, int], Op], _Load], ...] = (
    (vmm.KeepXsave2, vmm.LoadXsave),
    (vmm.KeepXsave, vmm.LoadXsave),
    (vmm.KeepFpu, vmm.LoadFpu),
)
_image = Range(0, len(IMAGES) - 1)
#: How many of the calls of a procedure are left out: mostly none.
_without = Range(0, 15)


def keeping(task: int, nr: int, msrs: Sequence[int], image: int = 0) -> Iterator[Op]:
    """A VMM reads all that KVM gives of a vCPU, the ``image`` by one of the calls that there are for it."""
    yield IMAGES[image][0](task, nr)
    yield vmm.KeepXcrs(task, nr)
    yield vmm.KeepVcpuEvents(task, nr)
    for msr in msrs:
        yield vmm.KeepMsr(task, nr, msr)
    if MSR_IA32_S_CET in msrs:
        yield vmm.KeepOneReg(task, nr)


def resetting(task: int, nr: int, components: int, msrs: Sequence[int]) -> Sequence[tuple[Op, ...]]:
    """A VMM writes the state of a processor that comes out of reset; SSP goes with the MSRs."""
    ssp = (kvm.KvmSetOneReg(task, nr),) if MSR_IA32_S_CET in msrs else ()
    return (
        (kvm.KvmSetMsrs(task, nr, Msrs(tuple((msr, 0) for msr in msrs))), *ssp),
        (kvm.KvmSetXcrs(task, nr, xf.MASK_X87),),
        (xsave.KvmSetXsave(task, nr, UserImage(components)),),
        (kvm.KvmSetSregs(task, nr, Sregs(False)),),
        (kvm.KvmSetVcpuEvents(task, nr, Events(no_latched_init=True)),),
        (kvm.KvmSetRegs(task, nr),),
    )


_RESETS = tuple(permutations(range(6)))


class VmmRules(Rules):
    """What VMMs mean to do with vCPUs, and whole procedures, which come as a user's program has them."""

    @on("vmm_steps", n=picks)
    def step_of_procedure(self, n: int) -> Iterator[Op]:
        """A VMM means something, reads something to keep it, or writes what it keeps."""
        yield self.choice("vmm_steps", n)

    @on("twins", n=targets, image=_image, order=picks, without=_without)
    def copy_vcpu(self, n: int, image: int, order: int, without: int) -> Iterator[Op]:
        """A VMM makes a vCPU go on as another one, in an order of its own; it may forget a call."""
        task, nr, source = self.choice("twins", n)
        yield from self._keeping(task, source, image)
        yield vmm.VmmCopy(nr, source)
        yield from self._loads((task, nr, source), image, order, without)
        yield from self._enter(task, nr)

    @on("vmm_calls", n=targets, image=_image, order=picks, without=_without)
    def look_at_vcpu(self, n: int, image: int, order: int, without: int) -> Iterator[Op]:
        """A VMM reads a vCPU and writes what it has read, which is not to be seen."""
        task, nr = self.choice("vmm_calls", n)
        yield vmm.VmmInvisible(nr)
        yield from self._keeping(task, nr, image)
        yield from self._loads((task, nr, nr), image, order, without)
        yield vmm.VmmVisible(nr)

    @on("vmm_calls", n=targets, image=_image, change=picks)
    def change_vcpu(self, n: int, image: int, change: int) -> Iterator[Op]:
        """A VMM reads registers, changes some, and writes all of them back, as debuggers and emulators do."""
        task, nr = self.choice("vmm_calls", n)
        keep, load = IMAGES[image]
        yield keep(task, nr)
        if load(task, nr, nr) not in self.now.loads:
            return
        if load is vmm.LoadFpu:
            domain = self.domains[FpuChange]
            yield vmm.LoadFpu(task, nr, nr, domain.value(change % len(domain.table)))
        else:
            yield vmm.LoadXsave(task, nr, nr, self.domains[ImageChange].value(change))

    @on("vmm_calls", n=targets, order=Range(0, len(_RESETS) - 1), without=_without)
    def next_tenant(self, n: int, order: int, without: int) -> Iterator[Op]:
        """A VMM resets a vCPU for another guest, in an order of its own; it may forget a call."""
        task, nr = self.choice("vmm_calls", n)
        if nr not in self.now.old_vcpus:
            return
        yield vmm.VmmReset(nr)
        if nr not in self.now.vcpus:
            yield kvm.KvmSetNestedState(task, nr, Nested())
        calls = resetting(task, nr, self.run.machine.user_xfeatures or xf.MASK_FPSSE, self._msrs())
        yield from (op for call in _RESETS[order] if call != without for op in calls[call])
        if without != len(calls) and (task, nr) in self.now.vmm_calls_of_l1:
            ap = nr in self.now.aps
            yield kvm.KvmSetMpState(task, nr, st.KVM_MP_STATE_UNINITIALIZED if ap else st.KVM_MP_STATE_RUNNABLE)
        yield from self._enter(task, nr)

    def _msrs(self) -> tuple[int, ...]:
        return msrs_of(True, self.run.machine.cet)

    def _keeping(self, task: int, nr: int, image: int) -> Iterator[Op]:
        """The calls that read a vCPU, whose guest may be in its L2; the MP state first, which accepts an INIT."""
        yield vmm.KeepMpState(task, nr)
        yield vmm.KeepSregs(task, nr)
        yield from keeping(task, nr, self._msrs(), image)
        if nr not in self.now.vcpus:
            yield vmm.KeepNestedState(task, nr)

    def _loads(self, who: tuple[int, int, int], image: int, order: int, without: int) -> Iterable[Op]:
        """The calls that write a vCPU, as far as there is something to write; what waits in L2 comes behind L2."""
        nested = vmm.LoadNestedState(*who)
        if nested in self.now.loads:
            yield nested
        for call in _ORDERS[order % len(_ORDERS)]:
            make = LOADS[call]
            load = (IMAGES[image][1] if make is vmm.LoadXsave else make)(*who)
            if call != without and load in self.now.loads:
                yield load
            if make is vmm.LoadMsrs and call != without and vmm.LoadOneReg(*who) in self.now.loads:
                yield vmm.LoadOneReg(*who)

    def _enter(self, task: int, nr: int) -> Iterator[Op]:
        if (task, nr) in self.now.run_calls:
            yield run.KvmRun(task, nr)
        if nr in self.now.ready:
            yield run.VmEnter(nr)
