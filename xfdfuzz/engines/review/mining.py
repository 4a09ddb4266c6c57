"""Relations nobody wrote down: what holds between a field and the others in every state of a space.

A relation of two fields is decided by the pairs of values that occur, so nothing but these is looked at.  Left out is
what holds of all numbers of their kinds, what compares kinds that have nothing to do with each other, and what follows
from a relation that is kept, whatever the two fields would be.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

from xfdfuzz.arch.kinds import COUNT, FLAG, SIZE, Enumeration, Kind, Mask, Reference
from xfdfuzz.engines.explore.canonical import CLEARED
from xfdfuzz.engines.review.relations import Form, Relation
from xfdfuzz.engines.review.rows import Column, Row, Rows, Value
from xfdfuzz.engines.review.space import Space
from xfdfuzz.engines.review.subjects import Subject
from xfdfuzz.program.ops.base import GuestOp, Op

#: More values than these are no states that a field is in.
_FEW = 6
Pairs = Counter[tuple[Value, Value]]


@dataclass(frozen=True)
class Mined:
    """A relation, and how much it says: ``chance`` is the part of all pairs of the values that occur for which it would
    hold, ``support`` in how many situations it could have failed; the lower the ``rank``, the more it says."""

    relation: Relation
    other: Column | None
    chance: float
    support: int
    rank: float


class Table:
    """The rows of all states of a space, each different one once, and the ops that lead to them."""

    def __init__(self, space: Space, of: str) -> None:
        self.rows = Rows(of, space.scope.machine.cpus)
        #: The classes of ops that lead to states, but for the guest's: what a guest does leaves the kernel alone.
        self.points, behind = _points(space)
        self._states, self._numbers = array("I"), array("I")
        known: dict[Row, int] = {}
        situations: dict[tuple[int, int], None] = {}
        for state in range(len(space.states)):
            for _, row in self.rows.of(space.raw(state)):
                number = known.setdefault(row, len(known))
                self._states.append(state)
                self._numbers.append(number)
                situations[number, behind[state]] = None
        self._rows = list(known)
        self._behind = [points for _, points in situations]
        self._columns = list(zip(*(self._rows[number] for number, _ in situations), strict=True))
        self._together = cache(self._count)

    def entries(self) -> Iterator[tuple[int, Row]]:
        """Each object of each state: the number of the state, and its row."""
        return ((state, self._rows[number]) for state, number in zip(self._states, self._numbers, strict=True))

    def column(self, path: str) -> Sequence[Value]:
        """What stands there in each situation: a row, behind ops of some classes."""
        return self._columns[self.rows.places[path]] if self._columns else ()

    def values(self, path: str) -> frozenset[Value]:
        """The values that stand there."""
        return frozenset(here for here, _ in self.pairs(path, path))

    def pairs(self, here: str, there: str, point: str = "") -> Pairs:
        """What stands in two columns at once, where both exist; after ops of one class, or at any time."""
        counted, behind = self._together(here, there)
        if not point:
            return counted
        bit = 1 << self.points.index(point)
        return Counter({pair: count for pair, count in counted.items() if behind[pair] & bit})

    def _count(self, here: str, there: str) -> tuple[Pairs, dict[tuple[Value, Value], int]]:
        """How often two values stand there at once, and behind which ops, as a mask of points."""
        counted: Pairs = Counter()
        behind: dict[tuple[Value, Value], int] = defaultdict(int)
        together = Counter(zip(self.column(here), self.column(there), self._behind, strict=True))
        for (one, other, points), count in together.items():
            if one is not None and other is not None:
                counted[one, other] += count
                behind[one, other] |= points
        return counted, behind


def _points(space: Space) -> tuple[list[str], list[int]]:
    """The classes of ops, and for each state a mask of those that lead to it.

    Where a scope renumbers what is alike, an op does not say of which object it is, so there are none.
    """
    ops = space.scope.ops if not space.scope.alike else ()
    points = list(dict.fromkeys(type(op).__name__ for op in ops if is_point(op)))
    bits = [1 << points.index(type(op).__name__) if is_point(op) else 0 for op in ops] or [0] * len(space.scope.ops)
    behind = [0] * len(space.states)
    for arc in space.arcs:
        behind[arc.target] |= bits[arc.op]
    return points, behind


def is_point(op: Op) -> bool:
    """Whether what holds after it is looked at."""
    return not isinstance(op, GuestOp)


def mined(table: Table, subject: Subject) -> list[Mined]:
    """The relations of a field, those that say most first."""
    path = subject.path
    if subject.column.several or subject.column.field.member in CLEARED or len(table.values(path)) < 2:
        return []
    found = _Miner(table, subject)
    return found.kept(sorted([*found.general(), *found.at_points()], key=lambda one: (one.rank, str(one.relation))))


class _Miner:
    """The relations of one field."""

    def __init__(self, table: Table, subject: Subject) -> None:
        self._table, self._subject = table, subject
        self._path, self._column = subject.path, subject.column
        self._values = table.values(self._path)
        self._others = [column for column in table.rows.columns if self._tells(column)]

    def general(self) -> Iterator[Mined]:
        """What holds always."""
        for other in self._others:
            pairs = self._table.pairs(self._path, other.path)
            for relation in _relations(self._column, other, pairs):
                yield self._weighed(relation, other, pairs)

    def at_points(self) -> Iterator[Mined]:
        """What holds after ops of some classes and not always; one for all those classes."""
        points: dict[Relation, list[str]] = defaultdict(list)
        others: dict[Relation, Column | None] = {}
        for point in self._table.points:
            for relation, other in self._at(point):
                points[relation].append(point)
                others[relation] = other
        for relation, where in points.items():
            column = others[relation]
            pairs = self._table.pairs(self._path, column.path if column else self._path)
            if any(not relation.holds(*pair) for pair in pairs):
                yield self._weighed(replace(relation, points=tuple(where)), column, pairs)

    def _at(self, point: str) -> Iterator[tuple[Relation, Column | None]]:
        here = {value for value, _ in self._table.pairs(self._path, self._path, point)}
        if len(here) == 1:
            value = here.pop()
            if isinstance(value, int) and _is_case(self._column.kind, value):
                yield Relation(Form.IS, self._path, value=value), None
            return
        for other in self._others:
            for relation in _relations(self._column, other, self._table.pairs(self._path, other.path, point)):
                yield relation, other

    def kept(self, candidates: Iterable[Mined]) -> list[Mined]:
        """Those that do not follow from one that comes before them."""
        found: list[Mined] = []
        for one in candidates:
            if not any(self._follows(one, from_this) for from_this in found):
                found.append(one)
        return found

    def _follows(self, one: Mined, known: Mined) -> bool:
        """Whether it holds wherever the known one does, whatever the field would be, as the two others stand to each
        other."""
        where, covered = set(one.relation.points), set(known.relation.points)
        if covered and not (where and where <= covered):
            return False
        if one.other and known.other:
            others: Iterable[tuple[Value, Value]] = self._table.pairs(known.other.path, one.other.path)
            if known.other.via != one.other.via and one.other.via is not None:
                return False  # where the one exists the other may not
        else:
            there_are = self._table.values(one.other.path) if one.other else ()
            others = [(None, value) for value in there_are] or [(None, None)]
            if known.other:
                return False
        return all(
            one.relation.holds(value, there)
            for value, (here, there) in product(self._values, others)
            if known.relation.holds(value, here)
        )

    def _weighed(self, relation: Relation, other: Column | None, pairs: Pairs) -> Mined:
        theirs = {there for _, there in pairs}
        could = [pair for pair in product(self._values, theirs) if says(relation, *pair)]
        chance = sum(relation.holds(*pair) for pair in could) / len(could)
        support = sum(count for pair, count in pairs.items() if says(relation, *pair))
        return Mined(relation, other, chance, support, _distance(self._column, other) + 4 * chance + _cost(relation))

    def _tells(self, other: Column) -> bool:
        """Whether the column can say anything of the field."""
        if other.path == self._path or other.several or other.field.member in CLEARED:
            return False
        return len(self._table.values(other.path)) > 1


def says(relation: Relation, here: Value, there: Value) -> bool:
    """Whether the relation says anything of these two: of an empty mask it is no news that it is part of another."""
    if relation.form in (Form.WITHIN, Form.APART):
        return bool(here) and (relation.form is Form.WITHIN or bool(there))
    if relation.form in (Form.CONTAINS, Form.FORCED, Form.FORCED_SET):
        return bool(there)
    if relation.form in (Form.IMPLIES, Form.IMPLIES_SET):
        return relation.antecedent(here)
    return True


def _distance(column: Column, other: Column | None) -> float:
    """How far two fields stand from each other: 0 for one kind in one struct."""
    if other is None:
        return 0
    apart = 0.0 if column.field.struct is other.field.struct and column.via == other.via else 0.5
    apart += 0 if other.via == column.via else 0.5
    return apart + (0 if comparable(column.kind, other.kind) else 0.5)


def _cost(relation: Relation) -> float:
    """What holds at some points only says less, and so does what is said of one value; two halves in one say more."""
    whole = {Form.EQUAL: -0.6, Form.EXACTLY_IF: -0.3}.get(relation.form, 0.0)
    at_points = 1.5 if relation.points and relation.form is not Form.IS else 0.0
    return whole + at_points + (0.5 if relation.when is not None else 0.0)


def comparable(one: Kind, other: Kind) -> bool:
    """Whether numbers of the two kinds can be compared: masks can with masks of the same things."""
    if isinstance(one, Mask) and isinstance(other, Mask):
        return one.name == other.name
    if isinstance(one, Reference) and isinstance(other, Reference):
        return one == other
    return one == other


# -- what holds of the pairs that occur --------------------------------------------------------------------------------


def _relations(here: Column, there: Column, pairs: Pairs) -> Iterator[Relation]:
    """The relations of two fields that hold of all pairs, and that one of their values at least could break."""
    for relation in _candidates(here, there, pairs):
        if all(relation.holds(*pair) for pair in pairs) and any(says(relation, *pair) for pair in pairs):
            yield relation


def _candidates(here: Column, there: Column, pairs: Pairs) -> Iterator[Relation]:
    values, others = {value for value, _ in pairs}, {other for _, other in pairs}
    if len(values) < 2 or len(others) < 2:
        return
    if comparable(here.kind, there.kind):
        yield from (Relation(form, here.path, there.path) for form in _comparisons(here.kind))
    yield from _implications(here, there, pairs)


def _comparisons(kind: Kind) -> Sequence[Form]:
    if isinstance(kind, Mask):
        return (Form.EQUAL, Form.WITHIN, Form.CONTAINS, Form.APART)
    if kind == SIZE:
        return (Form.EQUAL, Form.AT_MOST, Form.AT_LEAST)
    return () if kind == FLAG else (Form.EQUAL,)


def _implications(here: Column, there: Column, pairs: Pairs) -> Iterator[Relation]:
    if not _has_cases(there.kind):
        return
    for when in _cases(here, {value for value, _ in pairs}):
        chosen = Relation(Form.IMPLIES, here.path, there.path, when=when)
        seen = {other for value, other in pairs if chosen.antecedent(value)}
        rest = {other for value, other in pairs if not chosen.antecedent(value)}
        if len(seen) == 1:
            (constant,) = seen
            assert isinstance(constant, int)
            if _is_case(there.kind, constant):
                form = Form.IMPLIES if constant in rest else Form.EXACTLY_IF
                yield replace(chosen, form=form, value=constant)
                continue
        if 0 not in seen and 0 in rest and _has_none(there.kind):
            yield replace(chosen, form=Form.IMPLIES_SET)
    forced = {value for value, other in pairs if other} if _has_none(there.kind) else set()
    if len(forced) == 1 and not forced <= {0} and _is_case(here.kind, *forced):
        yield Relation(Form.FORCED, here.path, there.path, value=next(value for value in forced if type(value) is int))
    elif forced and 0 not in forced and _has_none(here.kind):
        yield Relation(Form.FORCED_SET, here.path, there.path)


def _cases(column: Column, values: set[Value]) -> Iterator[int | None]:
    """What the field may be in an implication: something, or each of a few named values."""
    if isinstance(column.kind, Enumeration):
        yield from sorted(value for value in values if isinstance(value, int))[:_FEW]
    elif _has_none(column.kind) and 0 in values:
        yield None


def _has_cases(kind: Kind) -> bool:
    """Whether single values of that kind mean something."""
    return isinstance(kind, Enumeration) or kind in (FLAG, COUNT) or _has_none(kind)


def _is_case(kind: Kind, value: Value) -> bool:
    """Whether that value means something by itself: which masks and pointers there are depends on the scope."""
    return value == 0 if isinstance(kind, Mask | Reference) or kind == SIZE else True


def _has_none(kind: Kind) -> bool:
    """Whether 0 is nothing, rather than the first of its kind."""
    if isinstance(kind, Reference):
        return kind.offset == 1 or kind.name == "fpstate"
    return isinstance(kind, Mask | Enumeration) or kind in (FLAG, COUNT, SIZE)
