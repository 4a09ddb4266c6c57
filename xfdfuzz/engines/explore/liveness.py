"""What must not wait for ever: cycles in which it stays although there is progress again and again.

A finite graph has an infinite run in which a request stays set, and the guest is entered or KVM_RUN returns infinitely
often, just if it has a cycle of states with the request set that contains such an op.  So the arcs between states with
something pending are kept while exploring, and their strongly connected components looked at in the end.  Memory is
there all along: a state in which an allocation is about to fail does not count as pending.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import igraph

from xfdfuzz.engines.explore.interned import Interned
from xfdfuzz.invariants.vocabulary import Invariant
from xfdfuzz.program.ops.base import Op


class Edge(NamedTuple):
    """An op, by its number, between two states in which the invariants ``pending`` have something waiting."""

    source: int
    op: int
    target: int
    pending: tuple[str, ...]


class Pending:
    """By which invariants something is pending, for very many states or edges by their numbers: two bytes for each."""

    def __init__(self, all_names: Iterable[tuple[str, ...]] = ()) -> None:
        self._numbers = array("H")
        self._names: Interned[tuple[str, ...]] = Interned()
        for names in all_names:
            self.add(names)

    def add(self, names: tuple[str, ...]) -> None:
        """Append the names for the next number."""
        self._numbers.append(self._names.number(names))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> tuple[str, ...]:
        return self._names[self._numbers[number]]

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return (self._names[number] for number in self._numbers)


class Edges:
    """Very many edges, in the order in which they were added: twelve bytes for each."""

    def __init__(self, edges: Iterable[Edge] = ()) -> None:
        self._ends = array("I")  # source and target by turns
        self._ops = array("H")
        self._pending = Pending()
        for edge in edges:
            self.add(edge)

    def add(self, edge: Edge) -> None:
        """Append an edge."""
        self._ends.extend((edge.source, edge.target))
        self._ops.append(edge.op)
        self._pending.add(edge.pending)

    def __iter__(self) -> Iterator[Edge]:
        ends = iter(self._ends)
        for source, target, op, pending in zip(ends, ends, self._ops, self._pending, strict=True):
            yield Edge(source, op, target, pending)

    def graph(self) -> igraph.Graph:
        """The graph of the edges; its vertices are the states' numbers up to the highest one that an edge has."""
        found = igraph.Graph(max(self._ends, default=-1) + 1, directed=True)
        if self._ends:
            ends = array("q", self._ends)  # which is what igraph takes
            found.add_edges(memoryview(ends).cast("B").cast("q", shape=[len(self._ops), 2]))
        return found


@dataclass(frozen=True)
class Cycle:
    """A cycle of states, by number, with the ops from each to the next."""

    invariant: Invariant
    states: tuple[int, ...]
    ops: tuple[int, ...]


def cycles(edges: Edges, eventually: Iterable[Invariant], ops: tuple[Op, ...]) -> Iterator[Cycle]:
    """For each invariant that may wait, but not for ever: the cycle that begins earliest, if there is one."""
    for inv in eventually:
        waiting = Edges(edge for edge in edges if inv.name in edge.pending)
        graph = waiting.graph()
        part_of = graph.connected_components("strong").membership
        lasting = (edge for edge in waiting if part_of[edge.source] == part_of[edge.target])
        first = min((edge for edge in lasting if isinstance(ops[edge.op], inv.progress)), default=None)
        if first is not None:
            yield _cycle(inv, waiting, graph, first)


def _cycle(inv: Invariant, waiting: Edges, graph: igraph.Graph, edge: Edge) -> Cycle:
    """The shortest one through an edge."""
    back: list[int] = graph.get_shortest_path(edge.target, edge.source)
    hops = [*pairwise(back)]
    # of several ops between two states the first one
    between: dict[tuple[int, int], int] = {}
    for source, op, target, _ in waiting:
        if (source, target) in hops:
            between[source, target] = min(op, between.get((source, target), op))
    return Cycle(inv, (edge.source, *back[:-1]), (edge.op, *(between[hop] for hop in hops)))
