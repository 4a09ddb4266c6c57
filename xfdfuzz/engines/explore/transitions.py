"""What can happen in a state and what it comes to, worked out once for all states that look alike to the op.

An op reads a few bytes of a system; in every state that has the same there it returns the same, breaks the same and
writes the same.  So it is executed and judged on a kernel whose system notes what is read and written, and what it came
to is kept by what it read (:mod:`~xfdfuzz.engines.explore.footprint_cache`).  Nearly all transitions of a scope have
been seen before in that sense.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from xfdfuzz.engines.explore.canonical import clear_dead, clear_stale
from xfdfuzz.engines.explore.footprint_cache import FootprintCache
from xfdfuzz.engines.explore.packing import Delta, Packing
from xfdfuzz.engines.judge.finding import NotReproducibleError
from xfdfuzz.invariants.checker import Selection, StateBroken
from xfdfuzz.invariants.sometimes import goals_for
from xfdfuzz.invariants.vocabulary import InvariantError, View, Violation
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.event import Event
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.memory.cstruct import Regions
from xfdfuzz.memory.traced import Footprint, traced
from xfdfuzz.program.executor import perform
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import NOT_ENABLED, PANIC, Result, Step
from xfdfuzz.strategies.scopes import Scope

T = TypeVar("T")
#: So much is remembered; more is forgotten all at once.
_MANY = 50_000


class Outcome(NamedTuple):
    """What an op came to.

    ``violations`` are those of the step, ``goals`` the names of those that it meets; ``delta`` is what it wrote to a
    packed state, with dead fields cleared; None after the death of the host.  ``outside``: where it leads to more than
    the scope has, which the delta does not tell, what is broken there.
    """

    result: Result
    events: tuple[Event, ...]
    violations: tuple[Violation, ...]
    goals: tuple[str, ...] = ()
    delta: Delta | None = None
    outside: tuple[StateBroken, ...] | None = None


class Transitions:
    """The ops of a scope on a kernel's packed states; ``reduced``: their dead fields are to be cleared."""

    def __init__(self, kernel: Kernel, scope: Scope, packing: Packing, selection: Selection, *, reduced: bool) -> None:
        self._scope, self._packing, self._selection, self._reduced = scope, packing, selection, reduced
        self._footprint = Footprint(ctypes.sizeof(st.System))  # type: ignore[arg-type]
        self._before = traced(st.System, self._footprint.before)
        self._kernel = kernel
        #: What may wait for a while, but not for ever.
        self.eventually = [inv for inv in selection.at_end if inv.progress]
        #: What should happen sometimes.
        self.goals = goals_for(scope.ops, scope.machine.cpus)
        self._goals_after = [[goal for goal in self.goals if isinstance(op, goal.ops)] for op in scope.ops]
        system = traced(st.System, self._footprint.now)
        kernel.bind(system, system)
        self._forget()

    def _forget(self) -> None:
        self._learnt = 0
        self._enabled: FootprintCache[tuple[int, ...]] = FootprintCache()
        self._outcomes: list[FootprintCache[Outcome]] = [FootprintCache() for _ in self._scope.ops]
        self._pending: FootprintCache[tuple[str, ...]] = FootprintCache()
        # ops after which the same invariants are looked at share what is known of them
        looks = [self._selection.after(type(op)).state for op in self._scope.ops]
        shared: dict[object, FootprintCache[tuple[StateBroken, ...]]] = {look: FootprintCache() for look in looks}
        self._broken = [shared[look] for look in looks]
        self._alike: dict[tuple[StateBroken, ...], tuple[StateBroken, ...]] = {}

    def enabled(self, packed: bytes) -> tuple[int, ...]:
        """The ops that can happen in a state, by their numbers in the scope."""
        found = self._enabled.find(packed)
        return self._learn(self._enabled, packed, self._find_enabled) if found is None else found

    def outcome(self, packed: bytes, number: int) -> Outcome:
        """What an op that can happen comes to."""
        known = self._outcomes[number]
        found = known.find(packed)
        return self._learn(known, packed, lambda: self._perform(number)) if found is None else found

    def broken(self, packed: bytes, number: int) -> tuple[StateBroken, ...]:
        """What is broken in a state, of what is looked at after an op; the same object wherever it is the same."""
        known = self._broken[number]
        found = known.find(packed)
        return self._learn(known, packed, lambda: self._find_broken(number)) if found is None else found

    def pending(self, packed: bytes) -> tuple[str, ...]:
        """The invariants, of those that let something wait but not for ever, that find something in a state; none while
        an allocation is about to fail."""
        if not self.eventually:
            return ()
        found = self._pending.find(packed)
        return self._learn(self._pending, packed, self._find_pending) if found is None else found

    def _learn(self, known: FootprintCache[T], packed: bytes, work_out: Callable[[], T]) -> T:
        """Work it out on a traced system in that state, and keep it by what was read.

        Raises InvariantError where a state is judged in two ways.
        """
        self._learnt += 1
        if self._learnt > _MANY:
            self._forget()
        self._footprint.begin(self._packing.unpack(packed))
        self._kernel.on_cpu(0)
        found = work_out()
        reads = self._packing.packed(self._footprint.reads)
        try:
            known.learn(packed, reads, found)
        except NotReproducibleError as error:
            raise InvariantError("an invariant looks at more than its view: one state is judged in two ways") from error
        return found

    def _find_enabled(self) -> tuple[int, ...]:
        return tuple([number for number, op in enumerate(self._scope.ops) if op.enabled(self._kernel)])

    def _perform(self, number: int) -> Outcome:
        k, op = self._kernel, self._scope.ops[number]
        step = self._step(op, perform(op, k))
        view = View(k, step)
        violations = tuple(self._selection.of_step(view))
        if step.result.ret == PANIC:
            return Outcome(step.result, step.events, violations)
        met = tuple([goal.name for goal in self._goals_after[number] if goal.predicate(view)])
        if self._reduced:
            self._clear_dead()
        outside = None
        if self._outside():
            outside = tuple(self._selection.broken_in(View(k, step)))
        else:
            self._packing.check(self._footprint.now.memory)
        return Outcome(step.result, step.events, violations, met, self._delta(), outside)

    def _step(self, op: Op, result: Result) -> _TracedStep:
        k = self._kernel
        return _TracedStep(op, k.system, result, tuple(k.events), self._before, self._footprint)

    def _find_broken(self, number: int) -> tuple[StateBroken, ...]:
        self._kernel.events.clear()
        step = self._step(self._scope.ops[number], Result(NOT_ENABLED))
        found = tuple(self._selection.broken_in(View(self._kernel, step)))
        return self._alike.setdefault(found, found)

    def _find_pending(self) -> tuple[str, ...]:
        k = self._kernel
        if k.system.alloc_failures:
            return ()
        view = View(k, self._step(self._scope.ops[0], Result(NOT_ENABLED)))
        return tuple([inv.name for inv in self.eventually if any(True for _ in inv.look(view))])

    def _clear_dead(self) -> None:
        """Clear the dead fields of vCPUs and signal frames that were written to; the others have none."""
        pairs: Any = zip(self._kernel.vcpus, self._kernel.system.ghost.vcpus, strict=True)
        for vcpu, ideal in [*pairs][: self._scope.vcpus]:
            if self._footprint.written(*vcpu.place) or self._footprint.written(*ideal.place):
                clear_dead(vcpu, ideal)
        frames: Any = self._kernel.system.sigframes
        for nr in self._scope.sigframes if self._scope.returns_inside_out else ():
            if self._footprint.written(*frames[nr].place):
                clear_stale(frames[nr])

    def _outside(self) -> bool:
        """Whether there is more than the scope has."""
        k, scope = self._kernel, self._scope
        if k.vms[1].exists or any(vcpu.exists for vcpu in k.vcpus[scope.vcpus :]):
            return True
        inside = range(scope.handlers * st.USER_TASKS, len(k.system.sigframes))
        return any(k.system.sigframes[nr].valid for nr in inside)

    def _delta(self) -> Delta:
        now = self._packing.pack(self._footprint.now.memory)
        changed = self._packing.packed(self._footprint.changes())
        return Delta(len(now), [(at, now[at : at + size]) for at, size in changed])


class _TracedStep(Step):
    """A step on a system that notes what is read."""

    __slots__ = ("_footprint",)

    def __init__(
        self, op: Op, after: Any, result: Result, events: tuple[Event, ...], before: Any, footprint: Footprint
    ) -> None:
        self.number, self.op, self.after, self.result, self.events = 1, op, after, result, events
        self._before, self._footprint = before, footprint

    @property
    def state(self) -> bytes:  # type: ignore[override]
        """The system before, as its bytes; who looks at all of them has read all of them."""
        return bytes(self.before)

    def changed(self, where: Regions | None = None) -> bool:
        """Whether anything differs; of what was not written nothing has to be read for that."""
        before: Any = self.before
        after: Any = self.after
        places = [before.place] if where is None else where.places
        written = (part for place in places for part in self._footprint.written(*place))
        return any(before.part(*part) != after.part(*part) for part in written)
