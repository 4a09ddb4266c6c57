"""Relations that held in one scope, elsewhere: in other scopes, and in programs that the fuzzer makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

from xfdfuzz.engines.explore.expand import LEAF_SEVERITIES
from xfdfuzz.engines.explore.exploration import begin
from xfdfuzz.engines.explore.search import Search
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.review.lookout import Sight, look_out
from xfdfuzz.engines.review.mining import is_point
from xfdfuzz.engines.review.relations import Relation
from xfdfuzz.engines.review.rows import Row, Rows, Value
from xfdfuzz.engines.review.space import Space, end_if_interrupted, walk, way
from xfdfuzz.engines.search.hunt import Shrunk
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import MAX_CPUS
from xfdfuzz.program.about import about
from xfdfuzz.program.ops.kvm import KvmCreateVcpu
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import Step
from xfdfuzz.revisions import Revision
from xfdfuzz.strategies.scopes import Scope


@dataclass(frozen=True)
class Checked:
    """What relations were held against: a scope, with its states, exhausted or not, or steps of the fuzzer's."""

    where: str
    count: int
    exhausted: bool = True


@dataclass(frozen=True)
class Break:
    """What breaks a relation: in a scope, or found by the fuzzer; ``behind`` is what the program breaks before that
    leaves nothing to learn from what follows."""

    where: str
    program: Program
    behind: str = ""


@dataclass
class Survival:
    """What became of relations: what they were held against until they broke, in that order, and what broke them."""

    relations: Sequence[Relation]
    checked: dict[Relation, list[Checked]] = field(default_factory=dict)
    broken: dict[Relation, Break] = field(default_factory=dict)

    def left(self) -> list[Relation]:
        """Those that still hold."""
        return [relation for relation in self.relations if relation not in self.broken]

    def passed(self, checked: Checked, relations: Iterable[Relation]) -> None:
        """These were held against something, and held."""
        for relation in relations:
            if relation not in self.broken:
                self.checked.setdefault(relation, []).append(checked)


class Checker:
    """Holds relations of one sort of objects against states."""

    def __init__(self, relations: Sequence[Relation], of: str, cpus: int) -> None:
        self._rows = Rows(of, cpus)
        places = self._rows.places
        pairs = [(places[one.field], places[one.other or one.field]) for one in relations]
        self._pairs = [itemgetter(*pair) for pair in pairs]
        used = sorted({place for pair in pairs for place in pair})
        self._used = itemgetter(*used, *used[:1])  # two at least, so that it gives a tuple
        self._relations = relations
        self._known: dict[Row, tuple[int, ...]] = {}

    def broken(self, raw: bytes) -> Iterator[tuple[int, int, Row]]:
        """Each object of which some do not hold: its number, the number of the relation, the row."""
        for nr, row in self._rows.of(raw):
            key = self._used(row)
            if key not in self._known:
                self._known[key] = tuple(self._breaking(row))
            yield from ((nr, relation, row) for relation in self._known[key])

    def _breaking(self, row: Row) -> Iterator[int]:
        for number, (relation, pair) in enumerate(zip(self._relations, self._pairs, strict=True)):
            here: Value
            there: Value
            here, there = pair(row)
            if not relation.holds(here, there):
                yield number


# -- other scopes ------------------------------------------------------------------------------------------------------


class _Watch:
    """Looks at each state that a search meets, and at each op that leads to one."""

    def __init__(self, search: Search, relations: Sequence[Relation], of: str) -> None:
        scope = search.expander.scope
        # where a scope renumbers what is alike, an op does not say of which object it is
        self.relations = [one for one in relations if not (one.points and scope.alike)]
        self._search, relations = search, self.relations
        self._checker = Checker(relations, of, scope.machine.cpus)
        self._at: dict[int, set[int]] = {}  # by op, those that are about what holds after it
        for number, op in enumerate(scope.ops):
            about = {nr for nr, one in enumerate(relations) if is_point(op) and type(op).__name__ in one.points}
            self._at[number] = about
        self._broken_in: dict[int, set[int]] = {}
        self.found: dict[Relation, tuple[int, int | None]] = {}
        self.state(0, search.expander.first)

    def state(self, number: int, packed: bytes) -> None:
        """What does not hold in a state; nothing of an op is needed where it holds always."""
        raw = self._search.expander.packing.unpack(packed)
        broken = {relation for _, relation, _ in self._checker.broken(raw)}
        for one in broken:
            if not self.relations[one].points:
                self.found.setdefault(self.relations[one], (number, None))
        at_points = {one for one in broken if self.relations[one].points}
        if at_points:
            self._broken_in[number] = at_points

    def arc(self, source: int, op: int, ret: int | str, target: int) -> None:
        """What does not hold after an op."""
        for one in self._broken_in.get(target, set()) & self._at.get(op, set()):
            self.found.setdefault(self.relations[one], (source, op))


def has_objects(scope: Scope, of: str) -> bool:
    """Whether there can be any of those objects in a scope."""
    return of not in ("v", "vm") or any(isinstance(op, KvmCreateVcpu) for op in scope.ops)


def in_scope(survival: Survival, revision: Revision, of: str, name: str, seconds: float | None) -> None:
    """Hold what is left against one scope; raises KeyboardInterrupt, when it is noted what was held against what."""
    search = begin(revision, name, graph=True)
    watch = _Watch(search, survival.left(), of)
    walk(search, watch, seconds)
    _settle(survival, watch, search, revision)
    end_if_interrupted(search)


def in_space(survival: Survival, space: Space, of: str) -> None:
    """Hold what is left against one scope that was explored."""
    watch = _Watch(space.search, survival.left(), of)
    for number in range(len(space.states)):
        watch.state(number, space.states[number])
    for arc in space.arcs:
        watch.arc(arc.source, arc.op, arc.ret, arc.target)
    _settle(survival, watch, space.search, space.revision)


def _settle(survival: Survival, watch: _Watch, search: Search, revision: Revision) -> None:
    """Note what a watch has seen of a search."""
    name = search.expander.scope.name
    for relation, (state, op) in watch.found.items():
        survival.broken[relation] = broken_by(name, way(search, state, op), revision)
    survival.passed(Checked(name, len(search.store), search.exhausted), watch.relations)


# -- the fuzzer --------------------------------------------------------------------------------------------------------


def fuzzed(survival: Survival, revision: Revision, of: str, plan: Plan) -> None:
    """Hold what is left against programs that the fuzzer makes; raises KeyboardInterrupt as above."""
    asked = survival.left()
    by_name = {str(relation): relation for relation in asked}

    def seen(shrunk: Shrunk[Sight]) -> None:
        survival.broken[by_name[shrunk.discovery.bucket]] = broken_by("fuzz", shrunk.program, revision)

    looked = look_out(revision.kernel, sights(asked, of), plan, seen)
    survival.passed(Checked("fuzz", looked.stats.steps), asked)
    looked.end_if_interrupted()


def sights(relations: Sequence[Relation], of: str) -> Callable[[Kernel, Step], Iterator[Sight]]:
    """What looks for relations that do not hold."""
    checkers = {cpus: Checker(relations, of, cpus) for cpus in range(1, MAX_CPUS + 1)}

    def look(kernel: Kernel, step: Step) -> Iterator[Sight]:
        for nr, number, row in checkers[kernel.machine.cpus].broken(kernel.state):
            relation = relations[number]
            if not relation.points or (type(step.op).__name__ in relation.points and about(step, of) in (nr, None)):
                yield Sight(str(relation), f"{relation} does not hold of {of}{nr}: {row[:1]}")

    return look


def broken_by(where: str, program: Program, revision: Revision) -> Break:
    """A break, with what its program breaks before its last op that leaves nothing to go on from."""
    last = len(program.ops)
    before = [
        violation.bucket
        for violation in judge(replace(program, results=()), revision, expectations=False).violations
        if violation.severity in LEAF_SEVERITIES and violation.step <= last
    ]
    return Break(where, program, before[0] if before else "")
