"""Which rule comes next, for every engine: one number among the slots of the enabled rules.

A rule says in its declaration which list of the :class:`~xfdfuzz.engines.rules.situation.Situation` must not be empty,
so the enabled ones are looked up.  All have as many slots; how many of them count is another matter in each program.

No program has to have everything.  Each belongs to a *swarm*, which does without some rules and lets others come
seldom, single ones and whole areas (Groce et al., "Swarm testing", ISSTA 2012).  What is left comes more often, and
nothing else undoes what it has led to.  So nobody has to know which rules are worth how much: measured against weights
that were set by hand, and against equal ones, it takes less time to the known bugs than both (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from types import MappingProxyType

from xfdfuzz.engines.rules import RULES, EveryRule, Rule
from xfdfuzz.engines.rules.base import Rules

#: So many slots each enabled rule has, and so many of them count where it comes as often as any.
FULL = 25
#: So many count where a rule, or every rule of an area, comes seldom: a fifth of that, of both a fifth again.
_SELDOM = 5
#: What the draw for an area, and for a rule of it, is made from.
_AREA, _RULE = (FULL, _SELDOM), (FULL, FULL, _SELDOM, 0)

#: So many swarms there are; in number 0 every rule comes as often as any.
SWARMS = 1024
#: From a slot that does not count to the next: a prime, so that all are tried unless it divides their number.
_STRIDE = 197

#: How many slots of each rule count.
Weights = Mapping[Rule, int]


@cache
def weights(swarm: int) -> Weights:
    """How often the rules come in the programs of a swarm: for each, how many of its :data:`FULL` slots count."""
    if not swarm:
        return MappingProxyType(dict.fromkeys(RULES.values(), FULL))
    random = Random(swarm)
    of_areas = {area: random.choice(_AREA) for area in dict.fromkeys(map(area_of, RULES.values()))}
    return MappingProxyType({rule: of_areas[area_of(rule)] * random.choice(_RULE) // FULL for rule in RULES.values()})


@cache
def enabled_rules(possible: frozenset[str]) -> tuple[Rule, ...]:
    """The rules enabled where these lists of the situation are not empty, in the order of their slots."""
    return tuple(rule for rule in RULES.values() if rule.condition in possible)


def chosen(enabled: Sequence[Rule], slot: int, counting: Weights) -> Rule:
    """The rule of a slot, from 0 to ``len(enabled) * FULL - 1``; if it does not count, that of another one far away.

    So a number means the same rule in every program in which that slot of it counts.
    """
    for _ in range(len(enabled) * FULL):
        rule = enabled[slot // FULL]
        if slot % FULL < counting[rule]:
            return rule
        slot = (slot + _STRIDE) % (len(enabled) * FULL)
    return enabled[slot // FULL]


def area_of(rule: Rule) -> type[Rules]:
    """The class that defines the rule."""
    return next(cls for cls in EveryRule.__mro__ if issubclass(cls, Rules) and rule.name in vars(cls))
