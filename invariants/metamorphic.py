"""What must not depend on how user space goes about it: the order of a restore, and a migration.

Both run the kernel again, on copies: the program's beginning with its restore in every order, and the vCPU that the
drained program leaves behind, moved to a fresh host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import CET_MSRS, MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.invariants.guests import GuestState, differences, visible_components
from xfdfuzz.invariants.vocabulary import Broken, View, invariant
from xfdfuzz.kernel.event import HostDied
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries, stored_entries
from xfdfuzz.kernel.kvm.msrs import MSR_KVM_INTERNAL_GUEST_SSP
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.kvm.x86 import read_cr4
from xfdfuzz.kernel.kvm.xsave import KvmXcrs
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import VM_DEFAULT, Vcpu
from xfdfuzz.memory.cstruct import from_bytes
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.base import Op, VcpuIoctl, call_of
from xfdfuzz.program.ops.kvm import (
    CloseVm,
    KvmCreateVcpu,
    KvmCreateVm,
    KvmSetCpuid2,
    KvmSetMsrs,
    KvmSetXcrs,
    get_one_reg,
    set_one_reg,
)
from xfdfuzz.program.ops.tasks import ReqXcompGuestPerm
from xfdfuzz.program.ops.xsave import KvmSetXsave
from xfdfuzz.program.step import Result

#: What a VMM saves of a vCPU, of the MSRs that are modelled.
_MSRS = (MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS, *CET_MSRS)

#: What each call of a restore returned.
Results = dict[str, Result]


def guest_state(executor: Executor, nr: int, components: int) -> GuestState:
    """Enter the guest and look at ``components``, and what stands beside them, as far as XFD lets it see them; the
    executor is used up."""
    step = executor.enter_guest(nr)
    k = executor.kernel
    if step is None or not k.this_cpu.guest:
        return GuestState("no entry" if step is None else step.result.ret)
    regs = k.regs
    arch = k.vcpus[nr].arch
    osxsave, ts, pke = bool(arch.cr4_osxsave), bool(arch.cr0_ts), bool(arch.cr4_pke)
    xcr0, xss = (regs.xcr0, regs.xss) if osxsave else (0, 0)  # the host's stay where the guest cannot see them
    held = tuple((i, regs.data[i]) for i in xf.contents_in(components & ~regs.xfd))
    return GuestState("entered", osxsave, ts, pke, xcr0, xss, regs.xfd, regs.xfd_err, held)


def first_of_each_site(found: Iterable[Broken]) -> Iterator[Broken]:
    """What several orders show is one finding."""
    sites: set[str] = set()
    for broken in found:
        if broken.site not in sites:
            sites.add(broken.site)
            yield broken


# -- the order of a restore --------------------------------------------------------------------------------------------


@invariant("restore-order-is-free", "abi", ("INV-27", "ABI"), at_end=True)
def restore_order_is_free(view: View) -> Iterator[Broken]:
    """Once a new vCPU has its CPUID, KVM_SET_MSRS, KVM_SET_XCRS and KVM_SET_XSAVE with the same arguments give the same
    guest in any order: no document tells VMMs one, and they use different ones."""
    for nr, start in _first_restores(view.program).items():
        calls = _calls(view.program[start:], nr)
        if len(calls) > 1:
            yield from view.kept(Comparisons).orders(view.program[:start], nr, calls)


#: What restores something, by the name of its call, and what reports call that.
_RESTORED = {KvmSetMsrs.__name__: "MSRS", KvmSetXcrs.__name__: "XCRS", KvmSetXsave.__name__: "XSAVE"}


def _restores(op: Op) -> bool:
    return call_of(type(op)) in _RESTORED


def _first_restores(program: Sequence[Op]) -> dict[int, int]:
    """By vCPU, where in the program the first call is that restores something of it."""
    found: dict[int, int] = {}
    for n, op in enumerate(program):
        if isinstance(op, VcpuIoctl) and _restores(op):
            found.setdefault(op.vcpu, n)
    return found


def _calls(program: Sequence[Op], nr: int) -> tuple[Op, ...]:
    """One call of each kind, in their order, up to something else that changes the vCPU."""
    calls: dict[str, Op] = {}
    for op in program:
        about = getattr(op, "vcpu", None) == nr
        if about and _restores(op):
            calls.setdefault(call_of(type(op)), op)
        elif about or isinstance(op, CloseVm):
            break
    return tuple(calls.values())


def _is_new(k: Kernel, vcpu: Vcpu) -> bool:
    """It has its CPUID, and nothing else that a restore would find."""
    gfpu = vcpu.arch.guest_fpu
    fpstate = k.fpstates[gfpu.fpstate]
    pristine = not (k.guest_xfd(gfpu) or fpstate.regs.xstate_bv or gfpu.xfd_err) and vcpu.arch.xcr0 == xf.MASK_X87
    return bool(vcpu.exists and vcpu.arch.cpuid_set) and vcpu.last_vmentry_cpu == -1 and pristine


def _different_orders(executor: Executor, nr: int, calls: Sequence[Op]) -> Iterator[Broken]:
    components = visible_components(executor.kernel, executor.kernel.vcpus[nr])
    first: tuple[Sequence[Op], Results, GuestState] | None = None
    outcomes: set[object] = set()
    begun = executor.kernel.state
    for order in permutations(calls):
        executor.load(begun)
        results = {_name(op): executor.execute(op).result for op in order}
        outcome = executor.kernel.state, frozenset(results.items())
        if outcome in outcomes:
            continue
        outcomes.add(outcome)
        state = guest_state(executor, nr, components)
        if first is None:
            first = order, results, state
            continue
        found = list(differences(first[2], state))
        if results != first[1]:
            found.append(("result", f"{_written(first[1])} and {_written(results)}"))
        for site, what in found:
            yield Broken(f"v{nr}: {what} after {_named(first[0])} and after {_named(order)}", site)


def _named(order: Sequence[Op]) -> str:
    return ", ".join(map(_name, order))


def _written(results: Results) -> str:
    return ", ".join(f"{name} = {result}" for name, result in sorted(results.items()))


def _name(op: Op) -> str:
    return _RESTORED[call_of(type(op))]


# -- migration ---------------------------------------------------------------------------------------------------------


class Saved(NamedTuple):
    """What a VMM reads from a vCPU: its CPUID, CR4, CR0.TS, MSRs, SSP, XCR0 and the bytes of its XSAVE image; None
    where there is nothing."""

    cpuid: CpuidEntries
    cr4: int
    ts: bool
    msrs: tuple[tuple[int, int], ...]
    ssp: int | None
    xcr0: int | None
    xsave: bytes | None


@invariant(
    "migration-is-invisible",
    "corruption",
    ("INV-27", "ABI", "GSTATE"),
    at_end=True,
    # the mails that propose them do not say how user space reads the MSRs
    excluded=("amx-review-a..amx-tglx",),
)
def migration_is_invisible(view: View) -> Iterator[Broken]:
    """What user space reads from a vCPU, written into a new one on another host in any order, is the same guest: that
    is what snapshots and live migration are made of."""
    k = view.k
    for nr, vcpu in enumerate(k.vcpus):
        if not (vcpu.exists and vcpu.arch.cpuid_set and _settled(k, vcpu)) or k.vms[vcpu.vm].vm_bugged:
            continue
        components = visible_components(k, vcpu) & ~k.system.ghost.vcpus[nr].regs.undefined
        comparisons = view.kept(Comparisons)
        source = comparisons.executor
        source.load(k.state)
        try:
            saved = save(source.kernel, source.kernel.vcpus[nr])
        except HostDied:
            yield Broken(f"v{nr}: the host dies when its state is read", "read")
            continue
        stays = guest_state(source, nr, components)
        if stays.entry == "no entry":
            # nobody has its address space any more, so no VMM can read it
            continue
        yield from comparisons.migrations(nr, saved, stays, components)


def _within_cpuid(k: Kernel, vcpu: Vcpu) -> bool:
    """KVM does not look again at CR4, XCR0, IA32_XSS and the XFD MSRs when user space takes features away with a second
    KVM_SET_CPUID2, in no revision; what lies outside its CPUID then no other vCPU accepts."""
    arch = vcpu.arch
    msrs = k.guest_xfd(arch.guest_fpu) | arch.guest_fpu.xfd_err
    outside = arch.xcr0 & ~(arch.guest_supported_xcr0 | xf.MASK_X87) or msrs & ~arch.guest_supported_xcr0
    pke_outside = arch.cr4_pke and arch.cpuid_set and not arch.cpuid_xcr0 & xf.MASK_PKRU
    cr4_outside = (arch.cr4_osxsave and arch.cpuid_no_xsave) or pke_outside
    return not (outside or arch.ia32_xss & ~arch.guest_supported_xss or cr4_outside)


def _settled(k: Kernel, vcpu: Vcpu) -> bool:
    """Nothing is under way that the calls here do not carry over."""
    own = k.vms[vcpu.vm].type == VM_DEFAULT  # a protected guest moves by other means
    return own and _within_cpuid(k, vcpu) and not (vcpu.arch.init_pending or vcpu.arch.guest_mode or vcpu.arch.mp_state)


def save(k: Kernel, vcpu: Vcpu) -> Saved:
    """Get everything, as a VMM does."""
    arch = vcpu.arch
    # IA32_XSS is 0 where KVM does not list it, and not to be written then (338543cbe033)
    kept = (index for index in _MSRS if index != MSR_IA32_XSS or k.kvm_probe_msr_to_save(index))
    read = [(index, *k.kvm_get_msrs(vcpu, index)) for index in kept]
    no_ssp, ssp = get_one_reg(k, vcpu, MSR_KVM_INTERNAL_GUEST_SSP)
    ret, image = k.kvm_vcpu_ioctl_x86_get_xsave2(vcpu)
    if ret:
        _, image = k.kvm_vcpu_ioctl_x86_get_xsave(vcpu)
    return Saved(
        stored_entries(arch),
        read_cr4(vcpu),
        bool(arch.cr0_ts),
        tuple((index, value) for index, count, value in read if count),
        None if no_ssp else ssp,
        k.kvm_vcpu_ioctl_x86_get_xcrs(vcpu)[1],
        None if image is None else bytes(image),
    )


def _different_guests(there: Executor, nr: int, saved: Saved, stays: GuestState, components: int) -> Iterator[Broken]:
    outcomes: set[object] = set()
    created = there.kernel.state
    for order in permutations((_set_msrs, _set_xcrs, _set_xsave)):
        there.load(created)
        there.kernel.kvm_vcpu_ioctl_set_sregs(there.kernel.vcpus[0], saved.cr4, saved.ts, True)
        refused = [step.__name__.removeprefix("_set_").upper() for step in order if not step(there.kernel, saved)]
        outcome = there.kernel.state, tuple(refused)
        if outcome in outcomes:
            continue
        outcomes.add(outcome)
        found = list(differences(stays, guest_state(there, 0, components)))
        found += [("refused", f"KVM_SET_{call} refuses what was read") for call in refused]
        for site, what in found:
            yield Broken(f"v{nr}: {what}, here and on the destination", site)


def _set_msrs(k: Kernel, saved: Saved) -> bool:
    taken = k.kvm_set_msrs(k.vcpus[0], saved.msrs) == len(saved.msrs)
    if saved.ssp is None:
        return taken
    return set_one_reg(k, 0, MSR_KVM_INTERNAL_GUEST_SSP, (saved.ssp, saved.ssp)).ret == 0 and taken


def _set_xcrs(k: Kernel, saved: Saved) -> bool:
    return saved.xcr0 is None or k.kvm_vcpu_ioctl_x86_set_xcrs(k.vcpus[0], KvmXcrs(saved.xcr0)) == 0


def _set_xsave(k: Kernel, saved: Saved) -> bool:
    if saved.xsave is None:
        return True
    return k.kvm_vcpu_ioctl_x86_set_xsave(k.vcpus[0], from_bytes(XsaveArea, saved.xsave)) == 0


# -- on one kernel and machine -----------------------------------------------------------------------------------------


class Comparisons:
    """What restores and migrations come to on one kernel and machine, each worked out once.

    There is one ``executor`` for all of it: load what you need, and do not rely on it across a call of a method.
    """

    def __init__(self, kernel: type[Kernel], machine: Machine) -> None:
        self.executor = Executor(kernel, machine)
        self._booted = self.executor.kernel.state
        # programs begin alike, with a boot, and mostly restore values of a few
        self.orders = lru_cache(maxsize=256)(self._orders)
        self.migrations = lru_cache(maxsize=512)(self._migrations)
        self._destination = lru_cache(maxsize=32)(self._created)

    def _orders(self, program: Sequence[Op], nr: int, calls: Sequence[Op]) -> tuple[Broken, ...]:
        """How the guest depends on the order of the calls that restore its new vCPU after the program."""
        executor = self.executor
        executor.load(self._booted)
        for op in program:
            executor.execute(op)
        k = executor.kernel
        if k.system.dead or not _is_new(k, k.vcpus[nr]):
            return ()
        k.system.alloc_failures = 0
        return tuple(first_of_each_site(_different_orders(executor, nr, calls)))

    def _migrations(self, nr: int, saved: Saved, stays: GuestState, components: int) -> tuple[Broken, ...]:
        """How the guest of a vCPU that was saved differs on another host from the one that ``stays``."""
        created, accepted = self._destination(saved.cpuid)
        if accepted.ret != 0:
            return (Broken(f"v{nr}: a new vCPU refuses its CPUID with {accepted}", "cpuid"),)
        self.executor.load(created)
        return tuple(first_of_each_site(_different_guests(self.executor, nr, saved, stays, components)))

    def _created(self, cpuid: CpuidEntries) -> tuple[bytes, Result]:
        """The state of a host whose VMM has the permissions and a new vCPU with the CPUID; and how that was taken."""
        executor = self.executor
        executor.load(self._booted)
        for i in xf.components_in(cpuid.xcr0 & executor.kernel.machine.xfd_xfeatures):
            executor.execute(ReqXcompGuestPerm(0, i))
        executor.execute(KvmCreateVm(0))
        executor.execute(KvmCreateVcpu(0, 0, 0))
        accepted = executor.execute(KvmSetCpuid2(0, 0, cpuid)).result
        return executor.kernel.state, accepted
