"""The checker: which invariants are looked at after an op, and what they say of a step and of a state."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

from xfdfuzz.invariants.vocabulary import INVARIANTS, VMM, Broken, Invariant, Keeper, View, Violation, made
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.program.ops.base import GuestOp, Op, TaskOp, VcpuIoctl, call_of
from xfdfuzz.program.ops.host import Suspend
from xfdfuzz.program.ops.processes import Execve, ExecveReturns, Exit
from xfdfuzz.program.ops.run import KvmRun, KvmRunReturns
from xfdfuzz.program.step import NOT_ENABLED, PANIC, Step
from xfdfuzz.revisions import RevisionError

#: A state invariant, and a way in which it is broken.
StateBroken = tuple[Invariant, Broken]


class Looks(NamedTuple):
    """The invariants that are looked at after an op: those that wait for its reports, those that look at the step
    whatever it reports, and those that speak of the state that it leads to."""

    reports: tuple[Invariant, ...]
    step: tuple[Invariant, ...]
    state: tuple[Invariant, ...]


class Selection:
    """The invariants of one revision, by when they are looked at; one serves every run of a campaign."""

    def __init__(self, invariants: Iterable[Invariant], revision: str) -> None:
        applicable = [inv for inv in invariants if _applies(inv, revision)]
        self.at_end = [inv for inv in applicable if inv.at_end]
        self.each = [inv for inv in applicable if not inv.at_end]
        self._by_op: dict[type[Op], Looks] = {}
        # a kernel that was resolved again is another one
        self.keep: Keeper = functools.lru_cache(maxsize=128)(made)

    def after(self, op: type[Op]) -> Looks:
        """What is looked at after an ``op``."""
        known = self._by_op.get(op)
        if known is None:
            found = [inv for inv in self.each if not inv.ops or issubclass(op, inv.ops)]
            quiet = [inv for inv in found if not inv.events]
            known = self._by_op[op] = Looks(
                tuple(inv for inv in found if inv.events),
                tuple(inv for inv in quiet if not inv.state),
                tuple(inv for inv in quiet if inv.state),
            )
        return known

    def of_step(self, view: View) -> list[Violation]:
        """What the step itself breaks.  After the death of the host only its reports count."""
        step = view.step
        looks = self._by_op.get(type(step.op)) or self.after(type(step.op))
        found = _of_reports(looks.reports, view) if step.events else []
        if step.result.ret != PANIC:
            for inv in looks.step:
                for broken in inv.look(view):
                    found.append(_violation(inv, view.step, broken))
        return found

    def broken_in(self, view: View) -> list[StateBroken]:
        """What is broken in the state that the step leads to, whether the step broke it or it was so before."""
        found: list[StateBroken] = []
        step = view.step
        if step.result.ret != PANIC:
            for inv in (self._by_op.get(type(step.op)) or self.after(type(step.op))).state:
                for broken in inv.look(view):
                    found.append((inv, inv.sound(broken)))
        return found

    def newly_broken(self, step: Step, now: Iterable[StateBroken], before: Iterable[StateBroken]) -> list[Violation]:
        """Of what is broken in the state after a step, what was not broken before it: a state that stays broken is one
        violation."""
        known = {(inv, one.key) for inv, one in before}
        return [_violation(inv, step, one) for inv, one in now if (inv, one.key) not in known]


def _of_reports(waiting: Iterable[Invariant], view: View) -> list[Violation]:
    """What the kernel's reports break."""
    kinds = {event.kind for event in view.step.events}
    judging = [inv for inv in waiting if not kinds.isdisjoint(inv.events)]
    return [_violation(inv, view.step, broken) for inv in judging for broken in inv.look(view)]


def select(revision: str, vmms: bool = False) -> Selection:
    """The invariants that exist now and that are checked on the revision with that name; what ``vmms`` do wrong is no
    matter of the kernel's."""
    return _selection(tuple(inv for inv in INVARIANTS.values() if vmms or inv.severity != VMM), revision)


@functools.cache
def _selection(invariants: tuple[Invariant, ...], revision: str) -> Selection:
    return Selection(invariants, revision)


class Memory(NamedTuple):
    """What a checker remembers: what is broken in the state, and what was executed."""

    broken: tuple[StateBroken, ...]
    program: tuple[Op, ...]


class Checker:
    """Applies the invariants of one revision to the steps of one run; with ``only``, no other than that one, without
    ``vmms`` those that speak of the kernel."""

    def __init__(self, kernel: Kernel, revision: str, only: str = "", vmms: bool = True) -> None:
        self.kernel = kernel
        self._selection = Selection([INVARIANTS[only]], revision) if only else select(revision, vmms)
        self._broken: tuple[StateBroken, ...] = ()
        self._program: list[Op] = []

    @property
    def looks_at_end(self) -> bool:
        """Whether any invariant wants to see the drained program."""
        return bool(self._selection.at_end)

    def check(self, step: Step) -> list[Violation]:
        """What ``step`` broke.  After the death of the host only its reports count."""
        if step.result.ret == NOT_ENABLED:
            return []
        self._program.append(step.op)
        view = View(self.kernel, step)
        found = self._selection.of_step(view)
        broken = self._selection.broken_in(view)
        # nearly always nothing is broken and nothing was
        if (broken or self._broken) and step.result.ret != PANIC:
            found += self._newly(step, broken)
        return found

    def memory(self) -> Memory:
        """What it remembers of the steps so far."""
        return Memory(self._broken, tuple(self._program))

    def remember(self, memory: Memory) -> None:
        """Go on as if it had seen those steps."""
        self._broken = memory.broken
        self._program = list(memory.program)

    def finish(self, last: Step) -> list[Violation]:
        """What the drained program leaves broken."""
        view = View(self.kernel, last, tuple(self._program), self._selection.keep)
        return [_violation(inv, view.step, broken) for inv in self._selection.at_end for broken in inv.look(view)]

    def _newly(self, step: Step, broken: list[StateBroken]) -> list[Violation]:
        """Of what is broken, what was not broken before; who was not looked at is as it was."""
        found = self._selection.newly_broken(step, broken, self._broken)
        looked_at = self._selection.after(type(step.op)).state
        self._broken = (*(one for one in self._broken if one[0] not in looked_at), *broken)
        return found


def _applies(inv: Invariant, revision: str) -> bool:
    try:
        return inv.applies_to(revision)
    except RevisionError:
        return not inv.revisions


def _violation(inv: Invariant, step: Step, broken: Broken) -> Violation:
    site = inv.sound(broken).site or _site_of(step.op)
    return Violation(inv.name, inv.severity, site, broken.message, step.number, _shape(inv, step, broken))


#: So many functions of a call trace make a shape.  Those farther out say which system call it was, and one bug shows in
#: many: with whole traces, the known bugs come back as news (docs/baseline.md).
_INNERMOST = 3


def _shape(inv: Invariant, step: Step, broken: Broken) -> str:
    """How the kernel came to the report that was judged: the one that the message tells of or, where it does not say,
    the first at that site."""
    judged = [event for event in step.events if event.kind in inv.events]
    told = [event for event in judged if " <- ".join(event.trace) in broken.message]
    there = [event for event in judged if broken.site in (event.site, *event.trace)]
    for event in (*told, *there, *judged):
        return " <- ".join(event.trace[:_INNERMOST])
    return ""


_OWN_SITE = (KvmRun, KvmRunReturns, VcpuIoctl, Execve, ExecveReturns, Exit, Suspend)


def _site_of(op: Op) -> str:
    """Where an op shows what its kernel functions did; ops that take the same way through the kernel are one site.

    Every exiting instruction leaves the guest alike, and every system call or user instruction enters user mode alike,
    but for those that have more to do to registers and buffers.
    """
    if isinstance(op, GuestOp):
        return "vm-exit"
    if isinstance(op, TaskOp) and not isinstance(op, _OWN_SITE):
        return "task"
    return call_of(type(op))
