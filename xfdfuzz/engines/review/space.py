"""All states of a scope, kept: what is asked of a field is asked of them."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from xfdfuzz.engines.explore.exploration import begin
from xfdfuzz.engines.explore.interned import Interned
from xfdfuzz.engines.explore.search import INTERRUPTED, Limits, Search, Witness
from xfdfuzz.engines.explore.store import Pieces
from xfdfuzz.engines.explore.trace import Tracer
from xfdfuzz.engines.processes.workers import workers
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision
from xfdfuzz.strategies.scopes import SCOPES, Scope


class Arc(NamedTuple):
    """An op, by its number in the scope, from one state to another, by their numbers, and what it returned."""

    source: int
    op: int
    target: int
    ret: int | str


class Arcs:
    """Very many arcs, in the order in which they were added: twelve bytes for each."""

    def __init__(self, arcs: Iterable[Arc] = ()) -> None:
        self._ends, self._ops, self._rets = array("I"), array("H"), array("H")
        self._returned: Interned[int | str] = Interned()
        for arc in arcs:
            self.add(arc)

    def add(self, arc: Arc) -> None:
        """Append an arc."""
        self._ends.extend((arc.source, arc.target))
        self._ops.append(arc.op)
        self._rets.append(self._returned.number(arc.ret))

    def __len__(self) -> int:
        return len(self._ops)

    def __iter__(self) -> Iterator[Arc]:
        ends = iter(self._ends)
        rows = zip(ends, ends, self._ops, self._rets, strict=True)
        return (Arc(source, op, target, self._returned[ret]) for source, target, op, ret in rows)


class States:
    """Very many packed states, by their numbers, with what is alike in them kept once."""

    def __init__(self, first: bytes) -> None:
        self._pieces = Pieces()
        self._states = [self._pieces.of(first)]

    def add(self, packed: bytes) -> None:
        """Append a state."""
        self._states.append(self._pieces.of(packed))

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, number: int) -> bytes:
        return b"".join(self._states[number])


class Space:
    """The states of a scope on a revision, packed, by their numbers: the shortest way leads to the first ones.

    What follows a violation of severity panic, corruption or leak is none of them, as in every exploration.
    """

    def __init__(self, search: Search, revision: Revision) -> None:
        self.search, self.revision = search, revision
        self.states, self.arcs = States(search.expander.first), Arcs()

    def state(self, number: int, packed: bytes) -> None:
        """A state was met."""
        self.states.add(packed)

    def arc(self, source: int, op: int, ret: int | str, target: int) -> None:
        """An op was taken."""
        self.arcs.add(Arc(source, op, target, ret))

    @property
    def scope(self) -> Scope:
        """What was explored."""
        return self.search.expander.scope

    @property
    def exhausted(self) -> bool:
        """Whether these are all states."""
        return self.search.exhausted

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C is why they are not."""
        return self.search.stopped == INTERRUPTED

    def op(self, number: int) -> Op:
        """The op with a number."""
        return self.scope.ops[number]

    def raw(self, number: int) -> bytes:
        """The whole system's bytes of a state."""
        return self.search.expander.packing.unpack(self.states[number])

    def program_to(self, state: int, op: int | None = None) -> Program:
        """A shortest program that leads to a state and then, if one is given, takes an op."""
        return way(self.search, state, op)


def explored(
    revision: Revision,
    scope: str,
    seconds: float | None = None,
    on_progress: Callable[[Search], None] = lambda search: None,
) -> Space:
    """Explore a scope and keep it; Ctrl-C ends it with what there is."""
    search = begin(revision, scope, graph=True)
    space = Space(search, revision)
    walk(search, space, seconds, on_progress)
    return space


def others(first: str, named: Sequence[str] | None) -> list[str]:
    """The scopes beside the first one: those that are named, or all, those that are soon exhausted first."""
    return [name for name in (SCOPES if named is None else named) if name != first]


def in_shares(scopes: Sequence[str], seconds: float | None) -> Iterator[tuple[str, float | None]]:
    """Each scope with its share of the time: half of what is left, the last one all of it; without a limit, no share
    is limited.  One for which nothing is left is not given."""
    ends = None if seconds is None else time.monotonic() + seconds
    for name in scopes:
        rest = None if ends is None else ends - time.monotonic()
        if rest is None or rest > 0:
            yield name, rest if rest is None or name == scopes[-1] else rest / 2


def walk(
    search: Search,
    witness: Witness,
    seconds: float | None,
    on_progress: Callable[[Search], None] = lambda search: None,
) -> None:
    """Search in this process, with a witness, until nothing is left or the time is up, or until Ctrl-C, which the
    search remembers (:func:`end_if_interrupted`)."""
    search.witness = witness
    with workers(1, here_if_one=True) as pool:
        search.run(pool, Limits(seconds=seconds), on_progress)


def end_if_interrupted(search: Search) -> None:
    """Raise the KeyboardInterrupt that ended a search, now that what it has met is noted."""
    if search.stopped == INTERRUPTED:
        raise KeyboardInterrupt


def way(search: Search, state: int, op: int | None = None) -> Program:
    """A shortest program to a state that a search has met."""
    tracer, path = Tracer(search.expander), search.store.path(state)
    return tracer.program(path) if op is None else tracer.program_to(path, op)
