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

import networkx as nx

from xfdfuzz.invariants.core import Invariant
from xfdfuzz.program.ops.base import Op


class Edge(NamedTuple):
    """An op, by its number, between two states in which the invariants ``pending`` have something waiting."""

    source: int
    op: int
    target: int
    pending: tuple[str, ...]


class Edges:
    """Very many edges, in less than a tenth of the memory that they would take as tuples."""

    def __init__(self, edges: Iterable[Edge] = ()) -> None:
        self._sources, self._ops, self._targets = array("q"), array("H"), array("q")
        self._pending = array("H")
        self._names: dict[tuple[str, ...], int] = {}
        for edge in edges:
            self.add(edge)

    def add(self, edge: Edge) -> None:
        """One more."""
        self._sources.append(edge.source)
        self._ops.append(edge.op)
        self._targets.append(edge.target)
        self._pending.append(self._names.setdefault(edge.pending, len(self._names)))

    def __iter__(self) -> Iterator[Edge]:
        names = [*self._names]
        for source, op, target, pending in zip(self._sources, self._ops, self._targets, self._pending, strict=True):
            yield Edge(source, op, target, names[pending])


@dataclass(frozen=True)
class Cycle:
    """A cycle of states, by number, with the ops from each to the next."""

    invariant: Invariant
    states: tuple[int, ...]
    ops: tuple[int, ...]


def cycles(edges: Iterable[Edge], eventually: Iterable[Invariant], ops: tuple[Op, ...]) -> Iterator[Cycle]:
    """For each invariant that may wait, but not for ever: the cycle that begins earliest, if there is one."""
    for inv in eventually:
        waiting = [edge for edge in edges if inv.name in edge.pending]
        graph: nx.DiGraph[int] = nx.DiGraph()
        for edge in sorted(waiting, reverse=True):  # of several ops between two states the first one stays
            graph.add_edge(edge.source, edge.target, op=edge.op)
        parts = enumerate(nx.strongly_connected_components(graph))
        part_of = {state: number for number, part in parts for state in part}
        for edge in sorted(waiting):
            if isinstance(ops[edge.op], inv.progress) and part_of[edge.source] == part_of[edge.target]:
                yield _cycle(inv, graph, edge)
                break


def _cycle(inv: Invariant, graph: nx.DiGraph[int], edge: Edge) -> Cycle:
    """The shortest one through an edge."""
    back = nx.shortest_path(graph, edge.target, edge.source)
    ops = [graph[one][other]["op"] for one, other in pairwise(back)]
    return Cycle(inv, (edge.source, *back[:-1]), (edge.op, *ops))
