"""How a field lives in a space: its values, how long it stays set, and when it is."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from xfdfuzz.engines.explore.liveness import Cycle, Edge, Edges, cycles
from xfdfuzz.engines.explore.store import Transition
from xfdfuzz.engines.explore.trace import Tracer
from xfdfuzz.engines.review.mining import Table
from xfdfuzz.engines.review.rows import Rows, Value
from xfdfuzz.engines.review.space import Arc, Arcs, Space
from xfdfuzz.engines.review.subjects import Subject
from xfdfuzz.invariants.vocabulary import Broken, Invariant, View
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.ops.kvm import CloseVm
from xfdfuzz.program.ops.run import KvmRunReturns, VmEnter
from xfdfuzz.program.ops.tasks import ReturnToUser
from xfdfuzz.program.program import Program


class Moment(NamedTuple):
    """When a field may be set: how often that is, of how many times, and a shortest program to it."""

    name: str
    times: int
    set: int
    program: Program | None


class Loop(NamedTuple):
    """A program whose last ``turns`` ops can be repeated for ever while the field stays set.

    ``without_memory``: that takes allocations which go on failing.
    """

    program: Program
    turns: int
    without_memory: bool


@dataclass(frozen=True)
class Life:
    """``values`` with the number of states that have them; ``shortest`` and ``longest`` are stretches in ops, from the
    one that sets the field to the one that clears it: 0 if it is never set and cleared again, and no longest one where
    ops can be repeated for ever.  ``loop``: the field stays set although user space or a guest gets on for ever;
    ``returning``: although KVM_RUN returns to user space for ever."""

    values: Counter[Value]
    shortest: int
    longest: int | None
    loop: Loop | None
    returning: Loop | None
    moments: tuple[Moment, ...]


#: Ops by which user space, or a guest, sees that it goes on.
_PROGRESS = (VmEnter, KvmRunReturns, ReturnToUser)


def life(space: Space, table: Table, subject: Subject) -> Life:
    """The life of a field."""
    found = _Life(space, table, subject)
    loops = found.loop(_PROGRESS), found.loop((KvmRunReturns,))
    return Life(found.values, found.shortest(), found.longest(), *loops, tuple(found.moments()))


class _Life:
    def __init__(self, space: Space, table: Table, subject: Subject) -> None:
        self._space = space
        self._set = bytearray(len(space.states))
        self._loaded = bytearray(len(space.states))
        self.values: Counter[Value] = Counter()
        place, cpu = table.rows.places[subject.path], table.rows.places.get("v.cpu")
        for state, row in table.entries():
            self.values[row[place]] += 1
            if is_set(row[place]):
                self._set[state] = 1
            if cpu is not None and row[cpu]:
                self._loaded[state] = 1
        del self.values[None]
        self._inside = Arcs(arc for arc in space.arcs if self._set[arc.source] and self._set[arc.target])

    def shortest(self) -> int:
        """Breadth first from all states in which it was set just now."""
        begun = {arc.target for arc in self._space.arcs if self._set[arc.target] and not self._set[arc.source]}
        cleared = {arc.source for arc in self._space.arcs if self._set[arc.source] and not self._set[arc.target]}
        follows: dict[int, set[int]] = defaultdict(set)
        for arc in self._inside:
            follows[arc.source].add(arc.target)
        queue, seen = deque((state, 1) for state in sorted(begun)), set(begun)
        while queue:
            state, length = queue.popleft()
            if state in cleared:
                return length
            queue.extend((one, length + 1) for one in sorted(follows[state] - seen))
            seen |= follows[state]
        return 0

    def longest(self) -> int | None:
        """The longest way without a state twice, or None where there is a cycle."""
        waiting: Counter[int] = Counter(arc.target for arc in self._inside)
        follows: dict[int, list[int]] = defaultdict(list)
        for arc in self._inside:
            follows[arc.source].append(arc.target)
        states = [state for state, is_set in enumerate(self._set) if is_set]
        length = dict.fromkeys(states, 1)
        ready = [state for state in states if not waiting[state]]
        done = 0
        while ready:
            state = ready.pop()
            done += 1
            for following in follows[state]:
                length[following] = max(length[following], length[state] + 1)
                waiting[following] -= 1
                if not waiting[following]:
                    ready.append(following)
        return None if done < len(states) else max(length.values(), default=0)

    def loop(self, progress: tuple[type[Op], ...]) -> Loop | None:
        """A cycle with such an op, with memory there all along, or else one without."""
        stays = replace(_STAYS, progress=progress)
        host = Rows("host", self._space.scope.machine.cpus)
        failures = host.places["host.alloc_failures"]
        short = [row[failures] for state in range(len(self._set)) for _, row in host.of(self._space.raw(state))]
        for without_memory in (False, True):
            arcs = [arc for arc in self._inside if without_memory or not (short[arc.source] or short[arc.target])]
            edges = Edges(Edge(arc.source, arc.op, arc.target, (stays.name,)) for arc in arcs)
            for cycle in cycles(edges, [stays], self._space.scope.ops):
                return self._as_program(cycle, without_memory)
        return None

    def _as_program(self, cycle: Cycle, without_memory: bool) -> Loop:
        store, tracer = self._space.search.store, Tracer(self._space.search.expander)
        targets = [*cycle.states[1:], cycle.states[0]]
        turn = [Transition(op, store.digest(state)) for op, state in zip(cycle.ops, targets, strict=True)]
        return Loop(tracer.program([*store.path(cycle.states[0]), *turn]), len(turn), without_memory)

    def moments(self) -> Iterator[Moment]:
        """The moments at which a reviewer asks whether it is set."""
        for name, chosen in self._chosen():
            arcs = [arc for arc in self._space.arcs if chosen(arc)]
            there = [arc for arc in arcs if self._set[arc.target]]
            if arcs:
                first = min(there, key=lambda arc: arc.source, default=None)
                program = self._space.program_to(first.source, first.op) if first else None
                yield Moment(name, len(arcs), len(there), program)

    def _chosen(self) -> Sequence[tuple[str, Callable[[Arc], bool]]]:
        ops = self._space.scope.ops

        def after(*classes: type[Op]) -> Callable[[Arc], bool]:
            numbers = {number for number, op in enumerate(ops) if isinstance(op, classes)}
            return lambda arc: arc.op in numbers

        return (
            ("the guest is entered", after(VmEnter)),
            ("KVM_RUN returns to user space", after(KvmRunReturns)),
            ("the vCPU is put", lambda arc: bool(self._loaded[arc.source] and not self._loaded[arc.target])),
            ("a task returns to user mode", after(ReturnToUser)),
            ("the file is closed", after(CloseVm)),
        )


def is_set(value: Value) -> bool:
    """Whether anything but 0 stands there."""
    return any(value) if isinstance(value, bytes) else bool(value)


def _never(view: View) -> Iterator[Broken]:
    return iter(())


#: What :func:`~xfdfuzz.engines.explore.liveness.cycles` looks for; no checker knows it.
_STAYS = Invariant("field-stays-set", "warn", (), _never, (), (), True, False, _PROGRESS, (), ())
