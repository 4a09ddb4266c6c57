"""What must not wait for ever: cycles in which it stays although there is progress again and again.

A finite graph has an infinite run in which a request stays set, and the guest is entered or KVM_RUN returns infinitely
often, just if it has a cycle of states with the request set that contains such an op.  So the arcs between states with
something pending are kept while exploring, and their strongly connected components looked at in the end.  Memory is
there all along: a state in which an allocation is about to fail does not count as pending.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Cycle:
    """A cycle of states, by number, with the ops from each to the next."""

    invariant: Invariant
    states: tuple[int, ...]
    ops: tuple[int, ...]


def cycles(edges: Iterable[Edge], eventually: Iterable[Invariant], ops: tuple[Op, ...]) -> Iterator[Cycle]:
    """For each invariant that may wait, but not for ever: the cycle that begins earliest, if there is one."""
    edges = list(edges)
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
