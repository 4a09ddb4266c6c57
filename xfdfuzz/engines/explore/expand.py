"""What one state leads to: every op of the scope on it, judged.  This is the work that is spread over processes."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from xxhash import xxh3_128_digest

from xfdfuzz.engines.explore.canonical import Canonical, clear_dead
from xfdfuzz.engines.explore.packing import Packing
from xfdfuzz.engines.explore.told import Remark, Told
from xfdfuzz.engines.explore.transitions import Outcome, Transitions
from xfdfuzz.engines.processes.workers import load_invariants
from xfdfuzz.invariants.core import StateBroken, View, Violation, select
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import NOT_ENABLED, Result, Step
from xfdfuzz.revisions import resolve
from xfdfuzz.strategies.scopes import SCOPES

#: A step that breaks something this bad leaves a state that nothing more is to be learnt from.
LEAF_SEVERITIES = frozenset({"panic", "corruption", "leak"})


class Task(NamedTuple):
    """What is explored: everything a process needs to know to expand a state, as addresses and names.

    ``reduced``: whether states that differ in names, or in what nobody will read, are merged.  ``graph``: whether every
    arc is wanted, not only those that something follows from.  ``search`` tells one search from another, because a
    process tells of a state only once in each.
    """

    revision: str
    scope: str
    invariants: tuple[str, ...] = ()
    reduced: bool = True
    graph: bool = False
    search: str = ""


class Arc(NamedTuple):
    """One op from the state at ``source`` in the chunk to the state with ``digest``.

    ``ret`` is what it returned; ``pending`` names the invariants that speak of something which waits there and must not
    for ever.
    """

    source: int
    op: int
    ret: int | str
    digest: bytes
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
        self.packing = Packing(self.scope, self._kernel.state)
        self._canonical = Canonical(self.scope) if task.reduced else None
        self._selection = select(revision.name)
        self.transitions = Transitions(
            revision.kernel(self.scope.machine), self.scope, self.packing, self._selection, reduced=task.reduced
        )
        self._arcs_matter = bool(self.transitions.eventually) or task.graph
        self._graph = task.graph
        self._first = self.packing.pack(self._form(self.now()))
        self._told = Told()

    def first(self) -> tuple[bytes, bytes]:
        """The booted system: its digest and the state."""
        return digest_of(self._first), self._first

    def expand(self, chunk: Sequence[bytes]) -> Expansion:
        """Try every op on every state."""
        found = Expansion()
        for source, packed in enumerate(chunk):
            self._expand(source, packed, found)
        return found

    def _expand(self, source: int, packed: bytes, found: Expansion) -> None:
        for number in self.transitions.enabled(packed):
            outcome = self.transitions.outcome(packed, number)
            found.transitions += 1
            found.coverage[number, outcome.result.ret] += 1
            self._follow(source, number, packed, outcome, found)

    def _follow(self, source: int, number: int, packed: bytes, outcome: Outcome, found: Expansion) -> None:
        """Note what an op broke, and where it leads."""
        if outcome.violations and found.note(source, number, outcome.violations):
            return
        if outcome.patch is None:
            return
        if outcome.outside is not None:
            self._breaks(source, number, packed, outcome.outside, found)
            return
        after = outcome.patch(packed)
        if after == packed and not self._graph:
            return  # nothing happened, as so often
        key = digest_of(after)
        remark = self._told.remark(key)
        known = remark is not None
        broken = self.transitions.broken(after, number) if remark is None or remark.blemished else ()
        if broken and self._breaks(source, number, packed, broken, found):
            return
        if remark is None:
            remark = self._tell(key, after, bool(broken), found)
        if not known or self._arcs_matter:
            form = key if remark.canonical else self._told.form(key)
            found.arcs.append(Arc(source, number, outcome.result.ret, form, remark.pending))

    def _breaks(self, source: int, number: int, packed: bytes, broken: Iterable[StateBroken], found: Expansion) -> bool:
        """Note what an op breaks of what a state must be; whether that leaves nothing to go on from."""
        before = self.transitions.broken(packed, number)
        if broken is before:
            return False
        step = Step(1, self.scope.ops[number], b"", self._kernel.system, Result(""), ())
        return found.note(source, number, self._selection.newly_broken(step, broken, before))

    def _tell(self, key: bytes, packed: bytes, blemished: bool, found: Expansion) -> Remark:
        """Tell of a new state, in its canonical form."""
        if self._told.full:
            self._told = Told()
        remark = Remark(True, blemished, self.transitions.waiting(packed))
        form, raw = key, self.unpacked(packed)
        canonical = self._form(raw)
        if canonical is not raw:
            packed = self.packing.pack(canonical)
            form = digest_of(packed)
            remark = remark._replace(canonical=form == key)
        found.states[form] = packed
        self._told.tell(key, form, remark)
        return remark

    def _form(self, raw: bytes) -> bytes:
        return self._canonical.form(raw) if self._canonical else raw

    # -- one op at a time ------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Boot the system."""
        self.load(self.unpacked(self._first))

    def unpacked(self, packed: bytes) -> bytes:
        """A state, for :meth:`load`."""
        return self.packing.unpack(packed)

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
        before = self.now()
        step = self.executor.execute(op)
        if step.result.ret == NOT_ENABLED:
            return []
        view = View(self._kernel, step)
        broken = self._selection.broken_in(view)
        found = self._selection.of_step(view)
        if broken:
            after = self.now()
            self.load(before)
            known = self._selection.broken_in(View(self._kernel, step))
            self.load(after)
            found += self._selection.newly_broken(step, broken, known)
        return found

    def form_now(self) -> bytes:
        """The digest of the canonical form of the state that the system is in."""
        k = self._kernel
        raw = k.state
        if self._canonical:
            for vcpu, ideal in [*zip(k.vcpus, k.system.ghost.vcpus, strict=True)][: self.scope.vcpus]:
                clear_dead(vcpu, ideal)
        form = digest_of(self.packing.pack(self._form(k.state)))
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


def expand(task: Task, chunk: Sequence[bytes]) -> Expansion:
    """Expand a chunk of states, in whatever process."""
    return expander(task).expand(chunk)
