"""What VMMs do to vCPUs, in every order: which of it is safe on a kernel.

A procedure is a vCPU in some situation, what its VMM means to do with it, and calls that do it.  All orders of the
calls are tried, and one order with a call left out.  Orders that lead to the same state go on together, so a few
hundred cost no more than some dozens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import permutations
from typing import NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import (
    MSR_IA32_INT_SSP_TAB,
    MSR_IA32_PL0_SSP,
    MSR_IA32_S_CET,
    MSR_IA32_U_CET,
    MSR_IA32_XFD,
    MSR_IA32_XSS,
)
from xfdfuzz.engines.compare.orders import Condition, Order, condition
from xfdfuzz.engines.rules.situation import msrs_of
from xfdfuzz.engines.rules.vmm import keeping, resetting
from xfdfuzz.invariants.checker import Checker, Memory
from xfdfuzz.invariants.loading import load_once
from xfdfuzz.invariants.procedures import unpromised
from xfdfuzz.invariants.vocabulary import SEVERITIES, VMM, View, Violation
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.codecs import MSR_NAMES
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.fields import Msrs, UserImage
from xfdfuzz.program.ops import guest, kvm, run, tasks, vmm, xsave
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED, Step
from xfdfuzz.revisions import Revision

#: Calls by their names, each of one op or more that come together.
Calls = Mapping[str, tuple[Op, ...]]
SAFE, REFUSED = "safe", "refused"
#: The guest is as it is meant, and the calls do not say so: the kernel might do otherwise.
UNPROMISED = "unpromised"
#: What an order can come to, worst first.
KINDS = (*SEVERITIES[: SEVERITIES.index(VMM)], REFUSED, VMM, UNPROMISED, SAFE)


class Seen(NamedTuple):
    """What was seen in a part of a program: violations as (severity, bucket), calls that were refused, contents that
    are kept although nothing promises it."""

    broken: frozenset[tuple[str, str]] = frozenset()
    refused: frozenset[str] = frozenset()
    unpromised: frozenset[str] = frozenset()

    def also(self, other: Seen) -> Seen:
        """Both."""
        return Seen(self.broken | other.broken, self.refused | other.refused, self.unpromised | other.unpromised)

    @property
    def kind(self) -> str:
        """The worst of it."""
        return worst(self.facts)

    @property
    def facts(self) -> set[tuple[str, str]]:
        """Each thing, as (kind, what).  What a VMM does wrong that goes on after an error is the error's."""
        refused = {(REFUSED, call) for call in self.refused}
        if refused:
            return {one for one in self.broken if one[0] != VMM} | refused
        return {*self.broken, *((UNPROMISED, content) for content in self.unpromised)}


def worst(facts: Iterable[tuple[str, str]]) -> str:
    """The worst kind among some facts."""
    return min((kind for kind, _ in facts), key=KINDS.index, default=SAFE)


def always_safe(answers: Iterable[Answer]) -> Condition | None:
    """In which orders of all calls a procedure is safe by what is promised, wherever there is a safe order at all;
    None if in none."""
    answers = [one for one in answers if one.possible]
    most = max((one.procedure.calls for one in answers), key=len)
    every = [*permutations(most)]
    good = [order for order in every if all(_is_good(order, one) for one in answers)]
    return condition(good, every) if good else None


def _is_good(order: Order, one: Answer) -> bool:
    """Whether the order, without the calls that the procedure lacks, is safe if any is."""
    own = tuple(call for call in order if call in one.procedure.calls)
    return one.orders[own].kind == SAFE or all(seen.kind != SAFE for seen in one.orders.values())


@dataclass(frozen=True)
class Procedure:
    """What a VMM does: ``aim`` in words, of a guest that is in some ``situation``.

    ``before`` leads there, ``first`` says what is meant and reads what is kept; then the ``calls`` come, in their usual
    order here, and the guest is entered by ``entry``.  ``others`` are further ways to make the calls in that order.
    """

    aim: str
    situation: str
    machine: Machine
    before: tuple[Op, ...]
    first: tuple[Op, ...]
    calls: Calls
    entry: tuple[Op, ...]
    others: Mapping[str, tuple[tuple[Op, ...], Calls]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Aim and situation."""
        return f"{self.aim}, {self.situation}"

    @property
    def small(self) -> Procedure:
        """The same with images of 4096 bytes."""
        first, others = _small(self.first), self.others
        if first == self.first:
            return self
        return replace(self, first=first, others={name: (_small(ops), calls) for name, (ops, calls) in others.items()})

    def program(self, order: Order, other: str = "") -> Program:
        """The whole of it, in an order; with the first ops and those calls that one of the ``others`` has."""
        first, calls = self.others[other] if other else (self.first, self.calls)
        made = [op for call in order if call in calls for op in calls[call]]
        return Program(self.machine, (*self.before, *first, *made, *self.entry))


class Fact(NamedTuple):
    """What some orders come to, ``when`` they do, one of them, and how ``many`` there are."""

    kind: str
    what: str
    when: Condition
    example: Order
    many: int


def _small(ops: tuple[Op, ...]) -> tuple[Op, ...]:
    return tuple(vmm.KeepXsave(op.task, op.vcpu) if isinstance(op, vmm.KeepXsave2) else op for op in ops)


@dataclass(frozen=True)
class Answer:
    """What became of a procedure on a kernel: of all orders, and of the usual one done otherwise.

    ``possible`` is not set where the kernel cannot bring the vCPU into the situation.
    """

    procedure: Procedure
    orders: Mapping[Order, Seen]
    others: Mapping[str, Seen]
    possible: bool = True

    @cached_property
    def safe(self) -> list[Order]:
        """The orders in which all is well on this kernel."""
        return [order for order, seen in self.orders.items() if seen.kind in (UNPROMISED, SAFE)]

    @property
    def facts(self) -> tuple[Fact, ...]:
        """What the others come to, the worst first.

        Of orders in which a call is refused no more is told, where there are others that show the same.
        """
        shown: dict[tuple[str, str], list[Order]] = {}
        for order, seen in self.orders.items():
            for fact in seen.facts:
                shown.setdefault(fact, []).append(order)
        accepted = {order for order, seen in self.orders.items() if not seen.refused}
        found = []
        for (kind, what), orders in shown.items():
            among = [order for order in orders if order in accepted] if kind != REFUSED else []
            when = condition(among, accepted) if among else condition(orders, self.orders)
            found.append(Fact(kind, what, when, (among or orders)[0], len(among or orders)))
        return tuple(sorted(found, key=lambda one: (KINDS.index(one.kind), one.what)))

    @property
    def usual(self) -> Seen:
        """What the usual order comes to."""
        return self.orders[tuple(self.procedure.calls)]

    @property
    def told(self) -> object:
        """What two kernels have in common that no VMM can tell apart by this."""
        return self.procedure.name, self.possible, len(self.orders), self.facts, tuple(self.others.items())


def answer(procedure: Procedure, revision: Revision) -> Answer:
    """Try a procedure on a kernel."""
    load_once()
    return _Trial(procedure, revision).answer()


class _Trial:
    def __init__(self, procedure: Procedure, revision: Revision) -> None:
        self._procedure, self._revision = procedure, revision
        self._executor = Executor(revision.kernel, procedure.machine)
        self._checker = Checker(self._executor.kernel, revision.name)
        self._rests: dict[object, dict[Order, Seen]] = {}

    def answer(self) -> Answer:
        """Of all orders, and of the others."""
        procedure = self._procedure
        for op in procedure.before:
            step = self._executor.execute(op)
            if step.result.ret == NOT_ENABLED or _is_refused(step) or self._executor.kernel.system.dead:
                return Answer(procedure, {}, {}, possible=False)
            self._checker.check(step)
        begun = self._here()
        seen = self._do("", procedure.first)
        if seen.refused and procedure.small is not procedure:
            # before the series there is no KVM_GET_XSAVE2
            return _Trial(procedure.small, self._revision).answer()
        orders = {order: seen.also(rest) for order, rest in self._orders(procedure.calls).items()}
        return Answer(procedure, orders, {name: self._other(name, begun) for name in procedure.others})

    def _other(self, name: str, begun: tuple[bytes, Memory]) -> Seen:
        first, calls = self._procedure.others[name]
        self._go(begun)
        seen = self._do("", first)
        for call, ops in calls.items():
            seen = seen.also(self._do(call, ops))
        return seen.also(self._do("", self._procedure.entry))

    def _orders(self, left: Calls) -> dict[Order, Seen]:
        """What is seen from here on, for each order of the calls that are left."""
        if self._executor.kernel.system.dead:
            return dict.fromkeys(permutations(left), Seen())
        here = self._here()
        known = (*here, frozenset(left))
        if known not in self._rests:
            self._rests[known] = (
                dict(self._following(here, left)) if left else {(): self._do("", self._procedure.entry)}
            )
        return self._rests[known]

    def _following(self, here: tuple[bytes, Memory], left: Calls) -> Iterator[tuple[Order, Seen]]:
        for name, ops in left.items():
            self._go(here)
            seen = self._do(name, ops)
            rests = self._orders({other: left[other] for other in left if other != name})
            yield from (((name, *order), seen.also(rest)) for order, rest in rests.items())

    def _here(self) -> tuple[bytes, Memory]:
        return self._executor.kernel.state, self._checker.memory()._replace(program=())

    def _go(self, there: tuple[bytes, Memory]) -> None:
        self._executor.load(there[0])
        self._checker.remember(there[1])

    def _do(self, call: str, ops: Sequence[Op]) -> Seen:
        """Execute ops that belong together; where one is refused, and where there is nothing to write, it goes on."""
        broken: list[Violation] = []
        refused, contents = False, set[str]()
        for op in ops:
            step = self._executor.execute(op)
            refused |= _is_refused(step)
            broken += self._checker.check(step)
            contents.update(unpromised(View(self._executor.kernel, step)))
        return Seen(
            frozenset((one.severity, one.bucket) for one in broken),
            frozenset([call or "GET_XSAVE"] if refused else []),
            frozenset(contents),
        )


def _is_refused(step: Step) -> bool:
    """Whether a call failed, or an MSR was not taken; one that KVM does not give is not there to be taken."""
    return step.failed and not isinstance(step.op, run.KvmRunReturns | vmm.KeepMsr | vmm.KeepOneReg)


# -- the procedures ----------------------------------------------------------------------------------------------------

_TILES = xf.MASK_XTILE_DATA


class _Situation(NamedTuple):
    """A machine, a guest's CPUID, what it sets first, what it does, and what makes KVM_RUN return."""

    name: str
    machine: Machine
    cpuid: CpuidEntries
    does: tuple[Op, ...]
    stops: tuple[Op, ...] = (guest.GuestInterrupt(0),)

    @property
    def msrs(self) -> tuple[int, ...]:
        """Those that the guest has."""
        return msrs_of(self.cpuid.xfd, bool(self.cpuid.xss))

    def reached(self, vcpu: int) -> tuple[Op, ...]:
        """A vCPU that was made comes into the situation, and is stopped there."""
        setup: tuple[Op, ...] = (
            kvm.KvmSetCpuid2(0, vcpu, self.cpuid),
            kvm.KvmSetXcrs(0, vcpu, self.cpuid.xcr0),
            run.KvmRun(0, vcpu),
            run.VmEnter(vcpu),
        )
        return (*setup, *self.does, *self.stops, run.KvmRunReturns(0))


def _exits(op: Op, vcpu: int = 0) -> tuple[Op, ...]:
    """An instruction that exits, whose exit is handled."""
    return (op, run.HandleExit(vcpu), run.VmEnter(vcpu))


_MACHINE = Machine(avx512=False)
_PLAIN = xf.MASK_FPSSE | xf.MASK_YMM | xf.MASK_PKRU
_AMX = CpuidEntries(_PLAIN | xf.MASK_XTILE, True, True)
_USED: tuple[Op, ...] = (
    guest.GuestFld(0, 1),
    guest.GuestMovups(0, 2),
    guest.GuestLdmxcsr(0, 3),
    guest.GuestVmovups(0, 4),
    guest.GuestXrstor(0, xf.MASK_PKRU, xf.MASK_PKRU, 5),
)
_TILES_USED: tuple[Op, ...] = (*_USED, guest.GuestLdtilecfg(0, 6), guest.GuestTileload(0, 7))
_XFD_SET = (*_TILES_USED, *_exits(guest.GuestWrmsr(0, MSR_IA32_XFD, _TILES)))
_CET = xf.MASK_CET
_CET_USED = (
    *_USED,
    *_exits(guest.GuestWrmsr(0, MSR_IA32_XSS, _CET)),
    guest.GuestWrmsr(0, MSR_IA32_U_CET, 5),
    guest.GuestWrmsr(0, MSR_IA32_S_CET, 6),
    *(guest.GuestWrmsr(0, MSR_IA32_PL0_SSP + level, 1 + level) for level in range(4)),
    *_exits(guest.GuestWrmsr(0, MSR_IA32_INT_SSP_TAB, 5)),
    guest.GuestRstorssp(0, 6),
)
_PLAIN_CPUID = CpuidEntries(_PLAIN, False, False)
_OUT: tuple[Op, ...] = (guest.GuestOut(0), run.HandleExit(0))

_SITUATIONS = (
    _Situation("AVX and PKRU in use", _MACHINE, _PLAIN_CPUID, _USED),
    _Situation("tiles in use", _MACHINE, _AMX, _TILES_USED),
    _Situation("IA32_XFD set, tiles used before", _MACHINE, _AMX, _XFD_SET),
    _Situation("after a #NM of IA32_XFD", _MACHINE, _AMX, (*_XFD_SET, *_exits(guest.GuestTileload(0, 4)))),
    _Situation(
        "a #NM of IA32_XFD is pending", _MACHINE, _AMX, _XFD_SET, (guest.GuestTileload(0, 4), run.HandleExit(0))
    ),
    _Situation("CR0.TS set, in an OUT", _MACHINE, _PLAIN_CPUID, (*_USED, guest.GuestStts(0)), _OUT),
    _Situation("CET in use", Machine(avx512=False, cet=True), CpuidEntries(_PLAIN, False, False, _CET), _CET_USED),
)


def _created(situation: _Situation) -> tuple[Op, ...]:
    wanted = xf.components_in(situation.cpuid.xcr0 & situation.machine.xfd_xfeatures)
    permissions = [tasks.ReqXcompGuestPerm(0, i) for i in wanted]
    return (*permissions, kvm.KvmCreateVm(0), kvm.KvmCreateVcpu(0, 0, 0))


def _entry(vcpu: int) -> tuple[Op, ...]:
    return (run.KvmRun(0, vcpu), run.VmEnter(vcpu), guest.GuestInterrupt(vcpu), run.KvmRunReturns(0))


def _loads(situation: _Situation, vcpu: int, source: int) -> dict[str, tuple[Op, ...]]:
    """By the names of the ioctls, without KVM_; SSP goes with the MSRs."""
    ssp = (vmm.LoadOneReg(0, vcpu, source),) if situation.cpuid.xss else ()
    calls: dict[str, tuple[Op, ...]] = {
        "SET_CPUID2": (vmm.LoadCpuid(0, vcpu, source),),
        "SET_SREGS": (vmm.LoadSregs(0, vcpu, source),),
        "SET_XCRS": (vmm.LoadXcrs(0, vcpu, source),),
        "SET_MSRS": (vmm.LoadMsrs(0, vcpu, source), *ssp),
        "SET_XSAVE": (vmm.LoadXsave(0, vcpu, source),),
        "SET_VCPU_EVENTS": (vmm.LoadVcpuEvents(0, vcpu, source),),
    }
    return {name: ops for name, ops in calls.items() if name != "SET_MSRS" or situation.msrs}


def _ways(first: tuple[Op, ...], calls: dict[str, tuple[Op, ...]]) -> dict[str, tuple[tuple[Op, ...], Calls]]:
    """The usual order with one thing left out."""
    found: dict[str, tuple[tuple[Op, ...], Calls]] = {
        f"without KVM_{name}": (first, {other: calls[other] for other in calls if other != name}) for name in calls
    }
    for op in first:
        if isinstance(op, vmm.KeepMsr):
            kept = tuple(one for one in first if one != op)
            found[f"without {MSR_NAMES[op.msr]}"] = (kept, calls)
        if isinstance(op, vmm.KeepOneReg):
            found["without SSP"] = (tuple(one for one in first if one != op), calls)
        if isinstance(op, vmm.KeepXsave2):
            found["KVM_GET_XSAVE instead of KVM_GET_XSAVE2"] = (_small(first), calls)
            old = tuple(vmm.KeepFpu(0, op.vcpu) if one == op else one for one in first)
            loads = {name: tuple(map(_by_fpu, ops)) for name, ops in calls.items()}
            found["KVM_GET_FPU and KVM_SET_FPU instead of images"] = (old, loads)
    return found


def _by_fpu(op: Op) -> Op:
    return vmm.LoadFpu(op.task, op.vcpu, op.source) if isinstance(op, vmm.LoadXsave) else op


def _copy(situation: _Situation) -> Procedure:
    before = (*_created(situation), *situation.reached(0), kvm.KvmCreateVcpu(0, 0, 1, True))
    first = (*keeping(0, 0, situation.msrs), vmm.VmmCopy(1, 0))
    return _procedure("copy into a new vCPU", situation, before, first, _loads(situation, 1, 0), 1)


def _reuse(aim: str, xfd: int, components: int) -> Callable[[_Situation], Procedure]:
    """The vCPU was another guest's with the same CPUID, which has left these components and this XFD behind."""

    def make(situation: _Situation) -> Procedure:
        cpuid = situation.cpuid
        used: tuple[Op, ...] = (
            kvm.KvmSetCpuid2(0, 1, cpuid),
            kvm.KvmSetXcrs(0, 1, cpuid.xcr0),
            xsave.KvmSetXsave(0, 1, UserImage(cpuid.xcr0 & components, 6)),
            *([kvm.KvmSetMsrs(0, 1, Msrs(((MSR_IA32_XFD, xfd),)))] if cpuid.xfd else []),
            *_entry(1),
        )
        before = (*_created(situation), *situation.reached(0), kvm.KvmCreateVcpu(0, 0, 1), *used)
        first = (*keeping(0, 0, situation.msrs), vmm.VmmCopy(1, 0))
        return _procedure(aim, situation, before, first, _without_cpuid(_loads(situation, 1, 0)), 1)

    return make


def _reload(situation: _Situation) -> Procedure:
    before = (*_created(situation), *situation.reached(0))
    first = (vmm.VmmInvisible(0), *keeping(0, 0, situation.msrs))
    return _procedure("write back what was read", situation, before, first, _without_cpuid(_loads(situation, 0, 0)), 0)


def _reset(situation: _Situation) -> Procedure:
    before = (*_created(situation), *situation.reached(0))
    names = ("SET_MSRS", "SET_XCRS", "SET_XSAVE", "SET_SREGS", "SET_VCPU_EVENTS", "SET_REGS")
    made = zip(names, resetting(0, 0, situation.cpuid.xcr0, situation.msrs), strict=True)
    calls: dict[str, tuple[Op, ...]] = {name: ops for name, ops in made if name != "SET_MSRS" or situation.msrs}
    procedure = _procedure("reset for another tenant", situation, before, (vmm.VmmReset(0),), calls, 0)
    empty = {**calls, "SET_XSAVE": (xsave.KvmSetXsave(0, 0, UserImage(0)),)}
    others = {**procedure.others, "XSTATE_BV = 0 in KVM_SET_XSAVE": (procedure.first, empty)}
    return replace(procedure, others=others)


def _without_cpuid(calls: dict[str, tuple[Op, ...]]) -> dict[str, tuple[Op, ...]]:
    """For a vCPU that has it."""
    return {name: ops for name, ops in calls.items() if name != "SET_CPUID2"}


def _procedure(
    aim: str,
    situation: _Situation,
    before: tuple[Op, ...],
    first: tuple[Op, ...],
    calls: dict[str, tuple[Op, ...]],
    vcpu: int,
) -> Procedure:
    machine, others = situation.machine, _ways(first, calls)
    return Procedure(aim, situation.name, machine, before, first, calls, _entry(vcpu), others)


def _every() -> Iterator[Procedure]:
    with_tiles = [one for one in _SITUATIONS if one.cpuid.xfd]
    yield from map(_copy, _SITUATIONS)
    yield from map(_reuse("copy into a used vCPU", 0, xf.U64_MAX), [one for one in _SITUATIONS if not one.cpuid.xfd])
    yield from map(_reuse("copy into a vCPU that had tiles disabled", _TILES, ~_TILES), with_tiles)
    yield from map(_reuse("copy into a vCPU that had tiles in use", 0, xf.U64_MAX), with_tiles)
    yield from map(_reload, _SITUATIONS)
    yield from map(_reset, _SITUATIONS)


#: In the order of reports.
PROCEDURES = tuple(_every())
