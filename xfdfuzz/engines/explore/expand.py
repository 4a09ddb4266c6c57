"""What one state leads to: every op of the scope on it, judged.  This is the work that is spread over processes."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from xxhash import xxh3_128_digest

from xfdfuzz.arch.cstruct import from_bytes
from xfdfuzz.engines.explore.canonical import Canonical, clear_dead
from xfdfuzz.engines.explore.enabled import Enabled
from xfdfuzz.engines.explore.independence import NOWHERE, asleep_after, cpu_of
from xfdfuzz.engines.explore.packing import Packing
from xfdfuzz.engines.workers import load_invariants
from xfdfuzz.invariants.core import View, Violation, select
from xfdfuzz.kernel.state import System
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import NOT_ENABLED, PANIC, Step
from xfdfuzz.revisions import resolve
from xfdfuzz.strategies.scopes import SCOPES

#: A step that breaks something this bad leaves a state that nothing more is to be learnt from.
LEAF_SEVERITIES = frozenset({"panic", "corruption", "leak"})
#: So many states are remembered by a process to save work; more are forgotten all at once.
_REMEMBERED = 1_000_000

#: What stands for the digest of a state out of scope.
_OUTSIDE = b"outside"


class Task(NamedTuple):
    """What is explored: everything a process needs to know to expand a state, as addresses and names.

    ``reduced``: whether states with other names, and orders of independent ops, are merged.  ``graph``: whether every
    arc is wanted, not only those that something follows from.  ``search`` tells one search from another, because a
    process tells of a state only once in each.
    """

    revision: str
    scope: str
    invariants: tuple[str, ...] = ()
    reduced: bool = True
    graph: bool = False
    search: str = ""


class Entry(NamedTuple):
    """A state that waits to be expanded, with the bitmap of the ops that sleep in it."""

    packed: bytes
    asleep: int = 0


class Arc(NamedTuple):
    """One op from the state at ``source`` in the chunk to the state with ``digest``.

    ``ret`` is what it returned and ``asleep`` what it lets sleep there; ``pending`` names the invariants that speak of
    something which waits there and must not for ever.
    """

    source: int
    op: int
    ret: int | str
    digest: bytes
    asleep: int
    pending: tuple[str, ...]


@dataclass
class Expansion:
    """What a chunk of states leads to.

    ``arcs`` has one at least to every state that the process had not seen before, whose bytes are in ``states``;
    ``broken`` is the first (source, op, violation) of each bucket; ``coverage`` counts (op, return value) pairs.
    """

    transitions: int = 0
    arcs: list[Arc] = field(default_factory=list)
    states: dict[bytes, bytes] = field(default_factory=dict)
    broken: list[tuple[int, int, Violation]] = field(default_factory=list)
    coverage: Counter[tuple[int, int | str]] = field(default_factory=Counter)
    _buckets: set[str] = field(default_factory=set)

    def note(self, source: int, op: int, violations: Iterable[Violation]) -> bool:
        """Keep the first violation of each bucket; whether one of them leaves nothing to go on from."""
        leaf = False
        for violation in violations:
            leaf |= violation.severity in LEAF_SEVERITIES
            if violation.bucket not in self._buckets:
                self._buckets.add(violation.bucket)
                self.broken.append((source, op, violation))
        return leaf


class Expander:
    """Expands states of one task in one process."""

    def __init__(self, task: Task) -> None:
        load_invariants(task.invariants)
        revision = resolve(task.revision)
        self.scope = SCOPES[task.scope]
        self.executor = Executor(revision.kernel, self.scope.machine)
        self._kernel = self.executor.kernel
        self._packing = Packing(self.scope, self._kernel.state)
        self._enabled = Enabled(self.scope.ops, self._kernel)
        self._canonical = Canonical(self.scope) if task.reduced else None
        # whose dead fields are cleared
        pairs = zip(self._kernel.vcpus, self._kernel.system.ghost.vcpus, strict=True)
        self._vcpus = [*pairs][: self.scope.vcpus] if task.reduced else []
        self._selection = select(revision.name)
        self.eventually = [inv for inv in self._selection.at_end if inv.progress]
        # with one CPU no two ops are independent
        self._sleeps = task.reduced and self.scope.machine.cpus > 1
        self._graph = task.graph
        self._arcs_matter = self._sleeps or bool(self.eventually) or task.graph
        self._first = self._packing.pack(self._form(self.now()))
        self._source = b""
        # what was told of already: states that are canonical, and the canonical digest of those that are not
        self._told: set[bytes] = set()
        self._renamed: dict[bytes, bytes] = {}
        self._blemished: set[bytes] = set()

    def first(self) -> tuple[bytes, bytes]:
        """The booted system: its digest and the state."""
        return digest_of(self._first), self._first

    def expand(self, chunk: Sequence[Entry]) -> Expansion:
        """Try every op on every state."""
        found = Expansion()
        for source, entry in enumerate(chunk):
            self._expand(source, entry, found)
        return found

    def _expand(self, source: int, entry: Entry, found: Expansion) -> None:
        self._source = raw = self.unpacked(entry.packed)
        k, perform, load = self._kernel, self.executor.perform, self._kernel.load
        load(raw)
        enabled = self._enabled(raw)
        cpu = {number: cpu_of(op, k) for number, op in enabled} if self._sleeps else {}
        before = from_bytes(System, raw)
        tried = [(number, cpu[number]) for number, _ in enabled if entry.asleep >> number & 1]
        for number, op in enabled:
            if entry.asleep >> number & 1:
                continue
            load(raw)
            step = perform(op, raw, before)
            found.transitions += 1
            found.coverage[number, step.result.ret] += 1
            place = cpu.get(number, NOWHERE)
            self._follow(source, number, step, asleep_after(place, tried), found)
            if place != NOWHERE:
                tried.append((number, place))

    def _follow(self, source: int, number: int, step: Step, asleep: int, found: Expansion) -> None:
        """Judge a step, and note where it leads."""
        view = View(self._kernel, step)
        violations = self._selection.of_step(view)
        if violations and found.note(source, number, violations):
            return
        if step.result.ret == PANIC:
            return
        raw = self._kernel.state
        if raw != self._source:
            for vcpu, ideal in self._vcpus:
                clear_dead(vcpu, ideal)
            raw = self._kernel.state
        if raw == self._source and not self._graph:
            return  # nothing happened, as so often
        packed = self._packing.pack(raw)
        key = digest_of(packed)
        form = key if key in self._told else self._renamed.get(key)
        known = form is not None
        if form is None or key in self._blemished:
            broken = self._selection.broken_in(view)
            if broken:
                self._blemished.add(key)
                if found.note(source, number, self._selection.of_state(view, broken)):
                    return
        if form is None:
            form = self._remember(key, raw, packed, found)
        if form is not _OUTSIDE and (not known or self._arcs_matter):
            # what sleeps goes by its number, which a renamed state changes
            kept = asleep if form == key else 0
            found.arcs.append(Arc(source, number, step.result.ret, form, kept, self._pending(view)))

    def _remember(self, key: bytes, raw: bytes, packed: bytes, found: Expansion) -> bytes:
        """The digest of a state's canonical form; a new state is told."""
        if len(self._told) + len(self._renamed) >= _REMEMBERED:
            self._told.clear()
            self._renamed.clear()
            self._blemished.clear()
        if self._outside():
            self._renamed[key] = _OUTSIDE
            return _OUTSIDE
        canonical = self._form(raw)
        self._packing.check(canonical)
        if canonical is raw:
            self._told.add(key)
            found.states[key] = packed
            return key
        packed = self._packing.pack(canonical)
        form = self._renamed[key] = digest_of(packed)
        found.states[form] = packed
        return form

    def _form(self, raw: bytes) -> bytes:
        return self._canonical.form(raw) if self._canonical else raw

    def _outside(self) -> bool:
        """Whether there is more than the scope has."""
        k, vcpus = self._kernel, self.scope.vcpus
        return bool(k.vms[1].exists or any(vcpu.exists for vcpu in k.vcpus[vcpus:]))

    def _pending(self, view: View) -> tuple[str, ...]:
        """The invariants that find something waiting, while there is memory."""
        if not self.eventually or self._kernel.system.alloc_failures:
            return ()
        return tuple(inv.name for inv in self.eventually if any(True for _ in inv.look(view)))

    # -- one op at a time ------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Boot the system."""
        self.load(self.unpacked(self._first))

    def unpacked(self, packed: bytes) -> bytes:
        """A state, for :meth:`load`."""
        return self._packing.unpack(packed)

    def now(self) -> bytes:
        """The system, for :meth:`load`."""
        return self._kernel.state

    def load(self, raw: bytes) -> None:
        """Let the system be in that state."""
        self._kernel.load(raw)

    def perform(self, op: Op) -> bool:
        """Execute an op on the system; whether it could happen."""
        return self.executor.execute(op).result.ret != NOT_ENABLED

    def judged(self, op: Op) -> list[Violation]:
        """Execute an op on the system; what it broke."""
        step = self.executor.execute(op)
        if step.result.ret == NOT_ENABLED:
            return []
        view = View(self._kernel, step)
        return self._selection.of_step(view) + self._selection.of_state(view, self._selection.broken_in(view))

    def form_now(self) -> bytes:
        """The digest of the canonical form of the state that the system is in."""
        k = self._kernel
        raw = k.state
        for vcpu, ideal in self._vcpus:
            clear_dead(vcpu, ideal)
        form = digest_of(self._packing.pack(self._form(k.state)))
        self.load(raw)
        return form


def digest_of(packed: bytes) -> bytes:
    """128 bits: among 10 million states, two with one digest have a probability below 1e-24.

    Nobody makes states to collide, so a fast hash is as good as a cryptographic one, which takes ten times as long.
    """
    return xxh3_128_digest(packed)


@functools.lru_cache(maxsize=1)
def expander(task: Task) -> Expander:
    """This process' expander for a task."""
    return Expander(task)


def expand(task: Task, chunk: Sequence[Entry]) -> Expansion:
    """Expand a chunk of states, in whatever process."""
    return expander(task).expand(chunk)
