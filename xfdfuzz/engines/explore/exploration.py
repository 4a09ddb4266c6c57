"""Explore a scope of a revision, and what that came to: programs for all that was found, or a statement that nothing
can happen."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from xfdfuzz.engines.explore.expand import Question
from xfdfuzz.engines.explore.lasso import Lasso, turns
from xfdfuzz.engines.explore.liveness import Cycle, cycles
from xfdfuzz.engines.explore.search import Breach, Limits, Search
from xfdfuzz.engines.explore.store import Transition
from xfdfuzz.engines.explore.trace import Tracer
from xfdfuzz.engines.judge.confirm import doubts
from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.processes.workers import invariant_files
from xfdfuzz.invariants.vocabulary import Invariant, Violation
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import result_class
from xfdfuzz.revisions import Revision, resolve
from xfdfuzz.strategies.scopes import Scope


@dataclass(frozen=True)
class Exploration:
    """What exploring came to.

    ``depth``: every program of so many ops is covered; ``exhausted``: every program of any length.  ``frontier``: how
    many states were still to be expanded.  ``coverage[op][result]`` counts, for all ops of the scope, those of what is
    interchangeable together; ``goals`` counts the transitions that meet a goal, for all that can be met in the scope;
    ``stopped`` says why it ended before it was exhausted, or before the depth asked for.
    ``known`` counts the buckets that were met and that the caller knew.
    """

    revision: Revision
    scope: Scope
    states: int
    transitions: int
    depth: int
    frontier: int
    seconds: float
    exhausted: bool
    stopped: str
    checked: tuple[Invariant, ...]
    left_out: tuple[Invariant, ...]
    findings: tuple[Finding, ...]
    lassos: tuple[Lasso, ...]
    known: int
    coverage: dict[Op, Counter[str]]
    goals: dict[str, int]
    doubts: tuple[str, ...] = ()
    file: Path | None = None


def begin(revision: Revision, scope: str, *, reduced: bool = True, graph: bool = False) -> Search:
    """A new search."""
    return Search.begin(Question(revision.address, scope, invariant_files(), reduced, graph, new_session()))


def new_session() -> str:
    """What no other search in any process is called."""
    return uuid.uuid4().hex


def explore(
    search: Search,
    pool: Executor,
    limits: Limits,
    *,
    known: Collection[str] = (),
    on_progress: Callable[[Search], None] = lambda search: None,
    on_finding: Callable[[Finding], None] = lambda finding: None,
) -> Exploration:
    """Run a search, or continue one.  Every bucket that is not ``known`` is given to ``on_finding`` at once, with a
    shortest program; a finding of an earlier part of the search is given again.

    Raises NotReproducibleError for a finding without a program, which is a bug of ours.
    """
    revision = resolve(search.question.revision)
    reporter = _Reporter(search, revision, known, on_finding)
    for breach in [*search.breaches.values()]:
        reporter.found(breach)
    search.run(pool, limits, on_progress, reporter.found)
    lassos = tuple(reporter.lasso(cycle) for cycle in _cycles(search) if cycle.invariant.name not in known)
    findings = tuple(reporter.findings)
    unsure = doubts([(one.violation.bucket, one.program) for one in findings], revision)
    return _exploration(search, revision, findings, lassos, reporter.known_met, tuple(unsure))


class _Reporter:
    """Turns what a search finds into programs."""

    def __init__(
        self, search: Search, revision: Revision, known: Collection[str], on_finding: Callable[[Finding], None]
    ) -> None:
        self._search = search
        self._revision = revision
        self._known = known
        self._on_finding = on_finding
        self._tracer = Tracer(search.expander)
        self.findings: list[Finding] = []
        self.known_met = 0

    def found(self, breach: Breach) -> None:
        """A bucket was met for the first time."""
        if breach.violation.bucket in self._known:
            self.known_met += 1
            return
        program = self._tracer.program(self._path(breach.state), breach.violation.bucket, breach.op)
        self.findings.append(self._finding(_shown(program, self._revision, breach.violation), program))
        self._on_finding(self.findings[-1])

    def lasso(self, cycle: Cycle) -> Lasso:
        """A program that leads to a cycle and goes round it once."""
        stem = self._tracer.program(self._path(cycle.states[0]))
        whole = self._tracer.program([*self._path(cycle.states[0]), *self._round(cycle)])
        inv = cycle.invariant
        first, last = len(stem.ops) + 1, len(whole.ops)
        message = f"ops {first} to {last} can be repeated for ever and what is pending stays"
        violation = Violation(inv.name, inv.severity, "cycle", message, last)
        shown = inv.name in judge(whole, self._revision, expectations=False).broken
        return Lasso(self._finding(violation, whole, shown), turns(whole, len(stem.ops), inv, self._revision))

    def _finding(self, violation: Violation, program: Program, shown: bool = True) -> Finding:
        return Finding(violation, program, self._revision, engine="explore", shown=shown)

    def _path(self, state: int) -> list[Transition]:
        return self._search.store.path(state)

    def _round(self, cycle: Cycle) -> list[Transition]:
        targets = [*cycle.states[1:], cycle.states[0]]
        digest = self._search.store.digest
        return [Transition(op, digest(number)) for op, number in zip(cycle.ops, targets, strict=True)]


def _shown(program: Program, revision: Revision, violation: Violation) -> Violation:
    """The violation as replaying the program shows it."""
    shown = judge(program, revision, expectations=False).violations
    return next((one for one in shown if one.bucket == violation.bucket), violation)


def _cycles(search: Search) -> list[Cycle]:
    expander = search.expander
    return list(cycles(search.edges, expander.transitions.eventually, expander.scope.ops))


def _exploration(
    search: Search,
    revision: Revision,
    findings: tuple[Finding, ...],
    lassos: tuple[Lasso, ...],
    known: int,
    unsure: tuple[str, ...],
) -> Exploration:
    selection, eventually = search.expander.selection, search.expander.transitions.eventually
    return Exploration(
        revision=revision,
        scope=search.expander.scope,
        states=len(search.store),
        transitions=search.transitions,
        depth=search.depth,
        frontier=search.frontier,
        seconds=search.seconds,
        exhausted=search.exhausted,
        stopped=search.stopped,
        checked=(*selection.each, *eventually),
        left_out=tuple(inv for inv in selection.at_end if not inv.progress),
        findings=findings,
        lassos=lassos,
        known=known,
        coverage=_coverage(search),
        goals=_goals(search),
        doubts=unsure,
    )


def _coverage(search: Search) -> dict[Op, Counter[str]]:
    """How often each op gave each class of results, by the first one of those that are alike."""
    scope = search.expander.scope
    found: dict[Op, Counter[str]] = {scope.first_alike(op): Counter() for op in scope.ops}
    for (number, ret), count in search.coverage.items():
        found[scope.first_alike(scope.ops[number])][result_class(ret)] += count
    return found


def _goals(search: Search) -> dict[str, int]:
    """How many transitions meet each goal, also 0."""
    found = dict.fromkeys((goal.name for goal in search.expander.transitions.goals), 0)
    for names, count in search.goals.items():
        for name in names:
            found[name] += count
    return found
