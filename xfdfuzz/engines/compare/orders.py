"""Sets of orders, put into words: which calls have to come before which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import reduce
from itertools import combinations, permutations
from operator import and_, or_
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


def condition(chosen: Collection[Order], among: Collection[Order]) -> Condition:
    """What tells the ``chosen`` orders from the others ``among`` which they are: the fewest pairs."""
    sets = _Sets(among)
    wanted, first = sets.of(chosen), next(iter(chosen))
    for found in _conditions(first):
        if sets.meeting(found) == wanted:
            return found
    return Condition(example=first)


class _Sets:
    """Sets of some orders, each a bit of a number, so that thousands of conditions are tried in no time."""

    def __init__(self, orders: Collection[Order]) -> None:
        self._places = [{call: place for place, call in enumerate(order)} for order in orders]
        self._bits = {order: 1 << bit for bit, order in enumerate(orders)}
        self._all = (1 << len(orders)) - 1
        self._having: dict[Pair, int] = {}

    def of(self, orders: Iterable[Order]) -> int:
        """Those of them that are among the orders."""
        return reduce(or_, (self._bits.get(order, 0) for order in orders), 0)

    def meeting(self, condition: Condition) -> int:
        """Those that meet a condition."""
        sets = [self._with(pair) for pair in condition.pairs]
        return reduce(or_, sets, 0) if condition.any else reduce(and_, sets, self._all)

    def _with(self, pair: Pair) -> int:
        if pair not in self._having:
            front, behind = pair
            self._having[pair] = sum(1 << bit for bit, at in enumerate(self._places) if at[front] < at[behind])
        return self._having[pair]


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
