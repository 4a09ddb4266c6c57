"""Explore a scope of a revision, and what that came to: programs for all that was found, or a statement that nothing
can happen."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from xfdfuzz.engines.explore.expand import NoAnswerAt, Question
from xfdfuzz.engines.explore.lasso import Lasso, turns
from xfdfuzz.engines.explore.liveness import Cycle, cycles
from xfdfuzz.engines.explore.search import INTERRUPTED, Breach, Limits, Search
from xfdfuzz.engines.explore.store import Transition
from xfdfuzz.engines.explore.trace import Tracer
from xfdfuzz.engines.judge.confirm import Confirmer, without_names
from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.processes.interrupt import PatientInterrupt
from xfdfuzz.engines.processes.workers import invariant_files
from xfdfuzz.engines.stream.events import (
    Began,
    Confirmed,
    Doubted,
    Ended,
    Found,
    KnownMet,
    Listener,
    Progressed,
    Stuck,
    WorkerLost,
    unheard,
)
from xfdfuzz.engines.stream.known import Known
from xfdfuzz.invariants.vocabulary import Invariant, InvariantError, NoAnswer, Violation, invariant_of
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
    ``known`` is what was no news, ``met`` the buckets of it that the search came across.
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
    known: Known
    met: frozenset[str]
    coverage: dict[Op, Counter[str]]
    goals: dict[str, int]
    doubts: tuple[str, ...] = ()
    file: Path | None = None
    withheld: int = 0

    def with_each(self, change: Callable[[Any], Any]) -> Self:
        """The same with every finding changed, those of the cycles too, such as saved."""
        lassos = tuple(replace(lasso, finding=change(lasso.finding)) for lasso in self.lassos)
        return replace(self, findings=tuple(map(change, self.findings)), lassos=lassos)

    def without(self, private: Callable[[Any], bool]) -> Self:
        """The same without what is private, and without its name in the doubts."""
        hidden = [one for one in (*self.findings, *(lasso.finding for lasso in self.lassos)) if private(one)]
        findings = tuple(one for one in self.findings if one not in hidden)
        lassos = tuple(lasso for lasso in self.lassos if lasso.finding not in hidden)
        doubts = without_names(self.doubts, [one.bucket for one in hidden])
        return replace(self, findings=findings, lassos=lassos, doubts=doubts, withheld=len(hidden))


def begin(revision: Revision, scope: str, *, reduced: bool = True, graph: bool = False) -> Search:
    """A new search."""
    return Search.begin(Question(revision.address, scope, invariant_files(), reduced, graph, new_session()))


def new_session() -> str:
    """What no other search in any process is called."""
    return uuid.uuid4().hex


def label_of(search: Search) -> str:
    """What is explored: ``amx-v1 tiny``."""
    return f"{resolve(search.question.revision).label} {search.question.scope}"


def explore(
    search: Search,
    pool: Executor,
    limits: Limits,
    *,
    known: Known | Collection[str] = (),
    tell: Listener = unheard,
) -> Exploration:
    """Run a search, or continue one.  Every bucket that is not ``known`` is given to ``tell`` at once, with a shortest
    program, and where what is known was replayed every bucket in another shape, too; a finding of an earlier part of
    the search is given again.  A cycle is known by a bucket of its invariant.

    Raises NotReproducibleError for a finding without a program, which is a bug of ours.
    """
    revision = resolve(search.question.revision)
    label, known = label_of(search), Known.of(known)
    with PatientInterrupt(everywhere=True) as ctrl_c:
        tell(Began(label, (revision,), {**search.question._asdict(), **vars(limits)}, len(known)))
        known.tell(label, tell)
        with Confirmer(revision) as confirmer:
            reporter = _Reporter(search, revision, known, confirmer, tell)
            for breach in [*search.breaches.values()]:
                reporter.found(breach)
            try:
                search.run(pool, limits, reporter.progress, reporter.found, reporter.lost)
            except NoAnswer as error:
                tell(Stuck(label, str(error), reporter.program_of(error)))
                raise InvariantError(str(error)) from None
            names = {invariant_of(bucket) for bucket in known.reasons}
            lassos = tuple(reporter.lasso(cycle) for cycle in _cycles(search) if cycle.invariant.name not in names)
            reporter.finish(ctrl_c)
        if ctrl_c.pressed:
            search.stopped = INTERRUPTED
        report = _exploration(search, revision, reporter, lassos, known)
        tell(Ended(label, report, ctrl_c.pressed))
        return report


class _Reporter:
    """Turns what a search finds into programs, and all that happens into events."""

    def __init__(self, search: Search, revision: Revision, known: Known, confirmer: Confirmer, tell: Listener) -> None:
        self._search = search
        self._revision = revision
        self._known = known
        self._confirmer = confirmer
        self._label, self._tell = label_of(search), tell
        self._tracer = Tracer(search.expander)
        self.findings: list[Finding] = []
        #: A line for each reason not to rely on what was found.
        self.doubts: dict[str, None] = {}
        self.met: set[str] = set()
        self._keys: set[str] = set()

    def found(self, breach: Breach) -> None:
        """A kind was met for the first time."""
        violation = breach.violation
        if self._known.hides(violation):
            self._known_met(violation.bucket)
            return
        key = self._known.key(violation)
        if key in self._keys:
            return
        self._keys.add(key)
        program = self._tracer.program(self._path(breach.state), key, breach.op)
        self.findings.append(self._finding(_shown(program, self._revision, violation), program))
        self._tell(Found(self._label, self.findings[-1]))
        self._confirmer.ask(violation.bucket, program)

    def _known_met(self, bucket: str) -> None:
        if bucket not in self.met and not self._known.replayed:  # else it was told already
            self._tell(KnownMet(self._label, bucket))
        self.met.add(bucket)

    def progress(self, search: Search) -> None:
        """A chunk is merged."""
        for answer in self._confirmer.answers():
            self._answered(*answer)
        counts = {
            "depth": search.depth,
            "states": len(search.store),
            "transitions": search.transitions,
            "waiting": search.frontier,
        }
        self._tell(Progressed(self._label, search.seconds, counts, len(self.findings)))

    def lost(self, reason: str) -> None:
        """A process died."""
        self._tell(WorkerLost(self._label, None, reason))

    def finish(self, ctrl_c: PatientInterrupt) -> None:
        """Wait until everything is confirmed or doubted, not long once Ctrl-C has come."""
        for answer in self._confirmer.last_answers(lambda: ctrl_c.pressed):
            self._answered(*answer)

    def program_of(self, error: NoAnswer) -> Program | None:
        """What leads to where a user's function did not return."""
        if not isinstance(error, NoAnswerAt):
            return error.program
        number = self._search.store.number(error.digest)
        return None if number is None else self._tracer.program_to(self._path(number), error.op)

    def _answered(self, bucket: str, doubt: str) -> None:
        if doubt:
            self.doubts[doubt] = None
        self._tell(Doubted(self._label, bucket, doubt) if doubt else Confirmed(self._label, bucket))

    def lasso(self, cycle: Cycle) -> Lasso:
        """A program that leads to a cycle and goes round it once."""
        stem = self._tracer.program(self._path(cycle.states[0]))
        whole = self._tracer.program([*self._path(cycle.states[0]), *self._round(cycle)])
        inv = cycle.invariant
        first, last = len(stem.ops) + 1, len(whole.ops)
        message = f"ops {first} to {last} can be repeated for ever and what is pending stays"
        violation = Violation(inv.name, inv.severity, "cycle", message, last)
        shown = inv.name in judge(whole, self._revision, expectations=False).broken
        lasso = Lasso(self._finding(violation, whole, shown), turns(whole, len(stem.ops), inv, self._revision))
        self._tell(Found(self._label, lasso.finding))
        return lasso

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
    same = sorted((one for one in shown if one.bucket == violation.bucket), key=lambda one: one.kind != violation.kind)
    return next(iter(same), violation)


def _cycles(search: Search) -> list[Cycle]:
    expander = search.expander
    return list(cycles(search.edges, expander.transitions.eventually, expander.scope.ops))


def _exploration(
    search: Search, revision: Revision, reporter: _Reporter, lassos: tuple[Lasso, ...], known: Known
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
        findings=tuple(reporter.findings),
        lassos=lassos,
        known=known,
        met=frozenset(reporter.met),
        coverage=_coverage(search),
        goals=_goals(search),
        doubts=tuple(reporter.doubts),
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
