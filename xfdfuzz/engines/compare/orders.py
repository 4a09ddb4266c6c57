"""Sets of orders, put into words: which calls have to come before which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

#: Names of calls, in the order in which they are made.
Order = tuple[str, ...]
#: The first has to come before the second.
Pair = tuple[str, str]


class Condition(NamedTuple):
    """When an order belongs to a set: all of these ``pairs``, or ``any`` of them, or, where no few pairs say it, an
    ``example`` of those that do.  No pair: always."""

    pairs: tuple[Pair, ...] = ()
    any: bool = False
    example: Order | None = None

    def holds(self, order: Order) -> bool:
        """Whether the order belongs to the set, as far as pairs say it."""
        met = [order.index(one) < order.index(other) for one, other in self.pairs]
        return any(met) if self.any else all(met)


def condition(chosen: Collection[Order], among: Collection[Order]) -> Condition:
    """What tells the ``chosen`` orders from the others ``among`` which they are: the fewest pairs."""
    wanted, first = set(chosen), next(iter(chosen))
    for found in _conditions(first):
        if all((order in wanted) == found.holds(order) for order in among):
            return found
    return Condition(example=first)


def _conditions(order: Order) -> Iterator[Condition]:
    """Simple ones first."""
    pairs = [*permutations(sorted(order), 2)]
    yield Condition()
    for count in (1, 2, 3, 4):
        for some in combinations(pairs, count):
            yield Condition(some)
            if 1 < count < 4:
                yield Condition(some, any=True)


def words(found: Condition, name: Callable[[str], str]) -> str:
    """As a person says it: ``XCRS before XSAVE``, ``CPUID2 before MSRS and XSAVE``."""
    if found.example is not None:
        return f"in some, such as {', '.join(map(name, found.example))}"
    if not found.pairs:
        return "in every order"
    return (" or " if found.any else "; ").join(_grouped(found.pairs, name))


def _grouped(pairs: Sequence[Pair], name: Callable[[str], str]) -> Iterator[str]:
    """What has the same call in front stands together, else what has the same one behind."""
    fronts: dict[str, list[str]] = {}
    for front, behind in pairs:
        fronts.setdefault(front, []).append(behind)
    behinds: dict[tuple[str, ...], list[str]] = {}
    for front, later in fronts.items():
        behinds.setdefault(tuple(later), []).append(front)
    for last, firsts in behinds.items():
        yield f"{_listed([*map(name, firsts)])} before {_listed([*map(name, last)])}"


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
