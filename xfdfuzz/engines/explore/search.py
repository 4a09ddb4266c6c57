"""The search: level by level over all states of a scope, so that every state is met by a shortest path."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from xfdfuzz.engines.explore.expand import Arc, Expander, Expansion, Question, digest_of, expand, expand_anew, expander
from xfdfuzz.engines.explore.liveness import Edge, Edges, Pending
from xfdfuzz.engines.explore.store import Pieces, Store
from xfdfuzz.engines.processes.interrupt import PatientInterrupt
from xfdfuzz.engines.processes.pool import in_spite_of_deaths
from xfdfuzz.invariants.vocabulary import Violation

#: States that a worker gets at a time.  Results do not depend on it, nor on how many workers there are: chunks are
#: merged in their order.
CHUNK = 200
#: Chunks that are handed out before the first is merged.
_AHEAD = 16
#: Why a search ended that somebody ended.
INTERRUPTED = "interrupted"


class Queued(NamedTuple):
    """A state that is to be expanded: its number, and its bytes in pieces."""

    number: int
    pieces: tuple[bytes, ...]

    @property
    def packed(self) -> bytes:
        """What a worker gets."""
        return b"".join(self.pieces)


class Breach(NamedTuple):
    """The first violation of a kind: an op, by number, on a state."""

    state: int
    op: int
    violation: Violation


class Witness(Protocol):
    """Who is told of all that a search meets, while it does."""

    def state(self, number: int, packed: bytes) -> None:
        """A state that was not met before."""

    def arc(self, source: int, op: int, ret: int | str, target: int) -> None:
        """An op from one state to another; every one if the question asks for the graph."""


@dataclass(frozen=True)
class Limits:
    """Where to stop: after so many levels, seconds, or bytes of memory."""

    depth: int | None = None
    seconds: float | None = None
    memory: int | None = None


@dataclass
class Search:
    """A search and all that it knows; what a frontier file keeps.

    ``expander`` is this process'; a pool's processes have others.  ``level`` is what is left to expand of a level,
    ``following`` what that has led to so far; ``depth`` levels are complete: every program of so many ops is covered.
    ``coverage`` and ``goals`` count as an :class:`Expansion` does.  ``pending`` and ``edges`` are for
    :mod:`~xfdfuzz.engines.explore.liveness`, ``arcs`` (state, op, return value, state) for a graph, unless a
    ``witness`` gets them.  ``stopped`` says why the search ended early.
    """

    expander: Expander
    store: Store
    level: list[Queued]
    following: list[Queued] = field(default_factory=list)
    depth: int = 0
    transitions: int = 0
    seconds: float = 0.0
    coverage: Counter[tuple[int, int | str]] = field(default_factory=Counter)
    goals: Counter[tuple[str, ...]] = field(default_factory=Counter)
    breaches: dict[str, Breach] = field(default_factory=dict)
    pending: Pending = field(default_factory=lambda: Pending([()]))
    edges: Edges = field(default_factory=Edges)
    arcs: list[tuple[int, int, int | str, int]] = field(default_factory=list)
    stopped: str = ""
    witness: Witness | None = None
    _pieces: Pieces = field(default_factory=Pieces)

    @classmethod
    def begin(cls, question: Question) -> Search:
        """A search that has met the booted system; its question must be no earlier search's."""
        own = expander(question)
        return cls(own, Store(digest_of(own.first)), [Queued(0, (own.first,))])

    @property
    def question(self) -> Question:
        """What is explored."""
        return self.expander.question

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to expand: everything that can happen in the scope is covered."""
        return not self.level and not self.following

    @property
    def frontier(self) -> int:
        """How many states wait to be expanded."""
        return len(self.level) + len(self.following)

    def run(
        self,
        pool: Executor,
        limits: Limits,
        on_progress: Callable[[Search], None] = lambda search: None,
        on_breach: Callable[[Breach], None] = lambda breach: None,
        on_lost: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """Search until the scope is exhausted or a limit is reached; Ctrl-C stops it between two chunks, a second one
        at once.

        ``on_lost`` is told why a process died, whose chunks are expanded again.  Raises BrokenExecutor where one chunk
        is the death of all.
        """
        began = time.monotonic() - self.seconds
        self.stopped = ""
        with PatientInterrupt(everywhere=True) as ctrl_c:
            for breaches in self._chunks(pool, on_lost):
                self.seconds = time.monotonic() - began
                for breach in breaches:
                    on_breach(breach)
                on_progress(self)
                self.stopped = INTERRUPTED if ctrl_c.pressed else _reached(limits, self.seconds)
                if self.exhausted or self.stopped or self.depth == limits.depth:
                    break
            self.seconds = time.monotonic() - began

    def _chunks(self, pool: Executor, on_lost: Callable[[str], None]) -> Iterator[list[Breach]]:
        """Expand and merge chunk after chunk; what breaks something for the first time in each."""
        while self.level:
            chunks = [self.level[at : at + CHUNK] for at in range(0, min(len(self.level), _AHEAD * CHUNK), CHUNK)]
            packed = [[queued.packed for queued in chunk] for chunk in chunks]
            first, anew = partial(expand, self.question), partial(expand_anew, self.question)
            for chunk, expansion in zip(chunks, in_spite_of_deaths(pool, first, anew, packed, on_lost), strict=True):
                yield self._merge(chunk, expansion)

    def _merge(self, chunk: Sequence[Queued], found: Expansion) -> list[Breach]:
        """Take in what a chunk, the first of what was left of the level, leads to."""
        del self.level[: len(chunk)]
        self.transitions += found.transitions
        self.coverage.update(found.coverage)
        self.goals.update(found.goals)
        for arc in found.arcs:
            self._follow(chunk[arc.source].number, arc, found)
        breaches = [
            Breach(chunk[source].number, op, violation)
            for source, op, violation in found.broken
            if violation.kind not in self.breaches
        ]
        self.breaches.update((breach.violation.kind, breach) for breach in breaches)
        if not self.level:
            self.level, self.following = self.following, []
            self.depth += 1
        return breaches

    def _follow(self, source: int, arc: Arc, found: Expansion) -> None:
        number = self.store.number(arc.digest)
        if number is None:
            number = self.store.add(arc.digest, source, arc.op)
            self.pending.add(arc.pending)
            self.following.append(Queued(number, self._pieces.of(found.states[arc.digest])))
            if self.witness is not None:
                self.witness.state(number, found.states[arc.digest])
        if arc.pending and (before := self.pending[source]):
            both = tuple(name for name in arc.pending if name in before)
            self.edges.add(Edge(source, arc.op, number, both))
        if self.witness is not None:
            self.witness.arc(source, arc.op, arc.ret, number)
        elif self.question.graph:
            self.arcs.append((source, arc.op, arc.ret, number))


def _reached(limits: Limits, seconds: float) -> str:
    """Which limit is reached."""
    if limits.seconds is not None and seconds >= limits.seconds:
        return "out of time"
    if limits.memory is not None and peak_memory() >= limits.memory:
        return "out of memory"
    return ""


def peak_memory() -> int:
    """What this process has used at most, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
