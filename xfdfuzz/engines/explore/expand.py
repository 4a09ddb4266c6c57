"""What one state leads to: every op of the scope on it, judged.  This is the work that is spread over processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from xxhash import xxh3_128_digest

from xfdfuzz.engines.explore.canonical import Canonical
from xfdfuzz.engines.explore.packing import Packing
from xfdfuzz.engines.explore.transitions import Outcome, Transitions
from xfdfuzz.engines.explore.visited import Label, Visited
from xfdfuzz.engines.processes.residents import resident
from xfdfuzz.engines.processes.workers import load_invariants, users_errors_named
from xfdfuzz.invariants.checker import StateBroken, select
from xfdfuzz.invariants.vocabulary import NoAnswer, Violation
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.step import Result, Step
from xfdfuzz.revisions import resolve
from xfdfuzz.strategies.scopes import SCOPES

#: A step that breaks something this bad leaves a state that nothing more is to be learnt from.
LEAF_SEVERITIES = frozenset({"panic", "corruption", "leak"})


class Question(NamedTuple):
    """What is explored: everything a process needs to know to expand a state, as addresses and names.

    ``reduced``: whether states that differ in names, or in what nobody will read, are merged.  ``graph``: whether every
    arc is wanted, not only those that something follows from.  ``session`` tells one search from all others: a process
    tells of a state only once in each.
    """

    revision: str
    scope: str
    invariants: tuple[str, ...] = ()
    reduced: bool = True
    graph: bool = False
    session: str = ""


class NoAnswerAt(NoAnswer):
    """A user's function did not return behind the op with the number ``op`` of the scope, taken from the state with
    ``digest``."""

    digest: bytes
    op: int

    def at(self, digest: bytes, op: int) -> NoAnswerAt:
        """The error itself, with its place; as attributes it travels from process to process."""
        self.digest, self.op = digest, op
        return self


class Arc(NamedTuple):
    """One op from the state at ``source`` in the chunk to the state with ``digest``.

    ``op`` is its number in the scope, ``ret`` what it returned; ``pending`` names the invariants that find something
    there which must not wait for ever.
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
    ``broken`` is the first (source, op, violation) of each kind; ``coverage`` counts (op, return value) pairs, and
    ``goals`` the transitions that meet goals, by the names of all that they meet.
    """

    transitions: int = 0
    arcs: list[Arc] = field(default_factory=list)
    states: dict[bytes, bytes] = field(default_factory=dict)
    broken: list[tuple[int, int, Violation]] = field(default_factory=list)
    coverage: Counter[tuple[int, int | str]] = field(default_factory=Counter)
    goals: Counter[tuple[str, ...]] = field(default_factory=Counter)
    _kinds: set[str] = field(default_factory=set)

    def note(self, source: int, op: int, violations: Iterable[Violation]) -> bool:
        """Keep the first violation of each kind; whether one of them leaves nothing to go on from."""
        leaf = False
        for violation in violations:
            leaf |= violation.severity in LEAF_SEVERITIES
            if violation.kind not in self._kinds:
                self._kinds.add(violation.kind)
                self.broken.append((source, op, violation))
        return leaf


class Expander:
    """Expands states of one question."""

    def __init__(self, question: Question) -> None:
        load_invariants(question.invariants)
        revision = resolve(question.revision)
        self.question = question
        self.scope = SCOPES[question.scope]
        self.executor = Executor(revision.kernel, self.scope.machine)
        self.packing = Packing(self.scope, self.executor.kernel.state)
        self.selection = select(revision.name)
        self.transitions = Transitions(
            revision.kernel(self.scope.machine), self.scope, self.packing, self.selection, reduced=question.reduced
        )
        self._canonical = Canonical(self.scope) if question.reduced else None
        self._arcs_matter = bool(self.transitions.eventually) or question.graph
        self._visited = Visited()
        #: The booted system.
        self.first = self.packing.pack(self.form(self.executor.kernel.state))

    def form(self, raw: bytes) -> bytes:
        """A system's bytes in their canonical form; the very same object where they have it."""
        return self._canonical.form(raw) if self._canonical else raw

    def expand(self, chunk: Sequence[bytes]) -> Expansion:
        """Try every op on every one of some packed states."""
        found = Expansion()
        for source, packed in enumerate(chunk):
            self._expand(source, packed, found)
        return found

    def expand_anew(self, chunk: Sequence[bytes]) -> Expansion:
        """The same, telling of states that were told of before: another process had the chunk, and died; and what this
        one told with later chunks comes too late."""
        self._visited = Visited()
        return self.expand(chunk)

    def _expand(self, source: int, packed: bytes, found: Expansion) -> None:
        for number in self.transitions.enabled(packed):
            try:
                self._take(source, number, packed, found)
            except NoAnswer as error:
                raise NoAnswerAt(str(error)).at(digest_of(packed), number) from None

    def _take(self, source: int, number: int, packed: bytes, found: Expansion) -> None:
        outcome = self.transitions.outcome(packed, number)
        found.transitions += 1
        found.coverage[number, outcome.result.ret] += 1
        if outcome.goals:
            found.goals[outcome.goals] += 1
        self._follow(source, number, packed, outcome, found)

    def _follow(self, source: int, number: int, packed: bytes, outcome: Outcome, found: Expansion) -> None:
        """Note what an op broke, and where it leads."""
        if outcome.violations and found.note(source, number, outcome.violations):
            return
        if outcome.delta is None:
            return
        if outcome.outside is not None:
            self._breaks(source, number, packed, outcome.outside, found)
            return
        after = outcome.delta(packed)
        if after == packed and not self.question.graph:
            return  # nothing happened, as so often
        digest = digest_of(after)
        label = self._visited.label(digest)
        known = label is not None
        broken = self.transitions.broken(after, number) if label is None or label.broken else ()
        if broken and self._breaks(source, number, packed, broken, found):
            return
        if label is None:
            label = self._visit(digest, after, bool(broken), found)
        if not known or self._arcs_matter:
            target = digest if label.canonical else self._visited.form(digest)
            found.arcs.append(Arc(source, number, outcome.result.ret, target, label.pending))

    def _breaks(self, source: int, number: int, packed: bytes, broken: Iterable[StateBroken], found: Expansion) -> bool:
        """Note what an op breaks of what a state must be; whether that leaves nothing to go on from."""
        before = self.transitions.broken(packed, number)
        if broken is before:
            return False
        step = Step(1, self.scope.ops[number], b"", self.executor.kernel.system, Result(""), ())
        return found.note(source, number, self.selection.newly_broken(step, broken, before))

    def _visit(self, digest: bytes, packed: bytes, broken: bool, found: Expansion) -> Label:
        """Tell of a new state, in its canonical form."""
        if self._visited.full:
            self._visited = Visited()
        pending = self.transitions.pending(packed)
        raw = self.packing.unpack(packed)
        canonical = self.form(raw)
        target = digest
        if canonical is not raw:
            packed = self.packing.pack(canonical)
            target = digest_of(packed)
        found.states[target] = packed
        label = Label(target == digest, broken, pending)
        self._visited.add(digest, target, label)
        return label


def digest_of(packed: bytes) -> bytes:
    """128 bits: among 10 million states, two with one digest have a probability below 1e-24.

    Nobody makes states to collide, so a fast hash is as good as a cryptographic one, which takes ten times as long.
    """
    return xxh3_128_digest(packed)


def expander(question: Question) -> Expander:
    """This process' expander for a question, the same from a search's first chunk to its last."""
    return resident(Expander, question, lambda: Expander(question))


def expand(question: Question, chunk: Sequence[bytes]) -> Expansion:
    """Expand a chunk of states, in whatever process; an error in a user's invariants comes out as InvariantError."""
    with users_errors_named():
        return expander(question).expand(chunk)


def expand_anew(question: Question, chunk: Sequence[bytes]) -> Expansion:
    """The same for a chunk that another process had, and died of or with."""
    with users_errors_named():
        return expander(question).expand_anew(chunk)
