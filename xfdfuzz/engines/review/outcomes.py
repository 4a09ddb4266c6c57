"""What ops give in a whole scope: results that another revision never gives there, and those with which a field is
cleared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from xfdfuzz.engines.review.life import is_set
from xfdfuzz.engines.review.rows import Rows
from xfdfuzz.engines.review.space import Arc, Space
from xfdfuzz.engines.review.subjects import Subject
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import result_class


class Outcome(NamedTuple):
    """An op, by its class, that gives a result ``times`` in a scope; a shortest program ends with it."""

    op: str
    result: str
    times: int
    program: Program


class Outcomes(NamedTuple):
    """The results in a scope that one of two revisions alone gives, and how many states of each were met; the scope was
    ``exhausted`` on both, or what did not come may still come."""

    scope: str
    states: tuple[int, int]
    exhausted: bool
    only_base: tuple[Outcome, ...]
    only_revision: tuple[Outcome, ...]


def outcomes(base: Space, revision: Space) -> Outcomes:
    """Hold two explorations of one scope against each other."""
    here, there = (_given(space.arcs, space.scope.ops) for space in (base, revision))
    return Outcomes(
        revision.scope.name,
        (len(base.states), len(revision.states)),
        base.exhausted and revision.exhausted,
        _outcomes(base, {key: one for key, one in here.items() if key not in there}),
        _outcomes(revision, {key: one for key, one in there.items() if key not in here}),
    )


def clearing(space: Space, subject: Subject) -> tuple[Outcome, ...]:
    """With which results ops end that find a field set and leave it clear, of whatever object."""
    rows = Rows(subject.of, space.scope.machine.cpus)
    place = rows.places[subject.path]

    def objects(state: int) -> frozenset[int]:
        return frozenset(nr for nr, row in rows.of(space.raw(state)) if is_set(row[place]))

    those = [objects(state) for state in range(len(space.states))]
    arcs = (arc for arc in space.arcs if those[arc.source] - those[arc.target])
    return _outcomes(space, _given(arcs, space.scope.ops))


class _Given(NamedTuple):
    """How often an op gave a result, and where it did first."""

    times: int
    first: Arc


def _given(arcs: Iterable[Arc], ops: Sequence[Op]) -> Mapping[tuple[str, str], _Given]:
    found: dict[tuple[str, str], _Given] = {}
    for arc in arcs:
        key = type(ops[arc.op]).__name__, result_class(arc.ret)
        times, first = found.get(key, (0, arc))
        found[key] = _Given(times + 1, min(first, arc))
    return found


def _outcomes(space: Space, given: Mapping[tuple[str, str], _Given]) -> tuple[Outcome, ...]:
    return tuple(
        Outcome(op, result, one.times, space.program_to(one.first.source, one.first.op))
        for (op, result), one in given.items()
    )
