"""Reachability goals: what has to happen sometimes, or nothing that was checked says much.

An invariant that never speaks is a proof where its situation was reached, and nothing where it was not.  A goal names
such a situation, as ``sometimes`` assertions and a model checker's reachability properties do; every exploration
and every campaign counts how often it meets it, so a corner that rules or scopes no longer reach shows as a goal that
was never met.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from xfdfuzz.invariants.vocabulary import View, defined_at
from xfdfuzz.program.ops import OPS
from xfdfuzz.program.ops.base import Op

#: Whether the step that a view shows meets the goal.
GoalPredicate = Callable[[View], bool]

#: What a goal may be about: the modules of program/ops that have ops which searches draw.
AREAS = tuple(dict.fromkeys(cls.__module__.rpartition(".")[2] for cls in OPS.values() if cls.DRAWN))


@dataclass(frozen=True, slots=True, eq=False)
class Goal:
    """A named predicate that some steps should satisfy.

    ``ops``: the op classes after which it is looked at.  ``needs``: further ops that it cannot be met without, and
    ``cpus``: how many CPUs it takes; a world that has not got them is not asked for it.
    """

    name: str
    area: str
    predicate: GoalPredicate
    ops: tuple[type[Op], ...]
    needs: tuple[type[Op], ...]
    cpus: int

    @property
    def doc(self) -> str:
        """What is worth reaching there."""
        return " ".join((self.predicate.__doc__ or "").split())

    def can_be_met(self, ops: Collection[type[Op]], cpus: int) -> bool:
        """Whether a world of these classes of ops and so many CPUs has all that it takes."""
        brings = any(issubclass(cls, self.ops) for cls in ops)
        return brings and cpus >= self.cpus and all(any(issubclass(cls, need) for cls in ops) for need in self.needs)


#: Every goal by its name, in the order of definition.
GOALS: dict[str, Goal] = {}


def sometimes(
    name: str,
    area: str,
    *,
    ops: tuple[type[Op], ...],
    needs: tuple[type[Op], ...] = (),
    cpus: int = 1,
) -> Callable[[GoalPredicate], GoalPredicate]:
    """Register a goal; its docstring says what happens there that is worth reaching.

    Raises ValueError for an area that there is not, a goal without ops or docstring, and a second one of the same name.
    """
    if area not in AREAS:
        raise ValueError(f"goal {name}: area {area!r} is none of {', '.join(AREAS)}")
    if not ops:
        raise ValueError(f"goal {name}: no op can bring it about")

    def register(predicate: GoalPredicate) -> GoalPredicate:
        known = GOALS.get(name)
        if known is not None and defined_at(known.predicate) != defined_at(predicate):
            raise ValueError(f"goal {name} exists already")
        if not predicate.__doc__:
            raise ValueError(f"goal {name}: its docstring must say what is worth reaching")
        GOALS[name] = Goal(name, area, predicate, ops, needs, cpus)
        return predicate

    return register


def goals_for(ops: Iterable[Op], cpus: int) -> list[Goal]:
    """The goals that can be met where these ops may happen on so many CPUs."""
    classes = {type(op) for op in ops}
    return [goal for goal in GOALS.values() if goal.can_be_met(classes, cpus)]
