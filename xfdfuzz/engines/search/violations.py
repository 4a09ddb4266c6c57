"""One revision searched for violations of its invariants."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.minimise import minimise
from xfdfuzz.engines.judge.verdict import judge, revision_of
from xfdfuzz.engines.processes.workers import invariant_files, load_invariants
from xfdfuzz.engines.search.campaign import Campaign, Run
from xfdfuzz.engines.search.database import Database
from xfdfuzz.engines.search.goals import GoalCounter
from xfdfuzz.engines.search.hunt import Shrunk
from xfdfuzz.engines.search.parallel import Recipe
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.reach import Change
from xfdfuzz.engines.search.report import Report
from xfdfuzz.engines.search.roots import roots
from xfdfuzz.engines.search.session import search
from xfdfuzz.engines.stream.events import Listener, unheard
from xfdfuzz.engines.stream.known import Known
from xfdfuzz.invariants.checker import Checker, Memory
from xfdfuzz.invariants.loading import load
from xfdfuzz.invariants.sometimes import GOALS
from xfdfuzz.invariants.vocabulary import VMM, NoAnswer, Violation
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED
from xfdfuzz.revisions import Revision, resolve
from xfdfuzz.revisions.differing import below


@dataclass(kw_only=True)
class ViolationCampaign(Campaign[Violation]):
    """One revision under test; ``against`` is the kernel of which it is a change, if not the one that it stands on.
    ``vmms``: what VMMs do wrong counts, too."""

    revision: Revision
    against: type[Kernel] | None = None
    vmms: bool = False
    goals: GoalCounter = field(init=False, repr=False)
    error_name = "ViolationFound"

    def __post_init__(self) -> None:
        self.goals = GoalCounter(GOALS.values())

    def change(self) -> Change | None:
        """Of what it stands on."""
        base = self.against or below(self.revision)
        return Change(base, self.revision.kernel) if base else None

    def start(self, machine: Machine) -> JudgedRun:
        """Boot the revision."""
        return JudgedRun(self, machine)

    def shown(self, program: Program) -> tuple[Violation, ...]:
        """What it violates, in order."""
        found = judge(program, self.revision, expectations=False).violations
        return tuple(one for one in found if self.vmms or one.severity != VMM)

    def minimise(self, program: Program, key: str) -> Program:
        """The plainest program that still violates it."""
        return minimise(program, self.revision, key, self.in_time)


class Saved(NamedTuple):
    """A run at some point: the state of its system, what its checker remembers, the ops that led there and what they
    broke."""

    state: bytes
    checker: Memory
    ops: tuple[Op, ...]
    broken: frozenset[str]


class JudgedRun(Run):
    """One example: a booted kernel and the checker that judges what happens on it."""

    def __init__(self, campaign: ViolationCampaign, machine: Machine) -> None:
        super().__init__(campaign, machine)
        self.executor = Executor(campaign.revision.kernel, machine)
        self.checker = Checker(self.executor.kernel, campaign.revision.name, vmms=campaign.vmms)
        self._goals = campaign.goals
        self._broken: set[str] = set()

    @property
    def kernel(self) -> Kernel:
        """The kernel under test."""
        return self.executor.kernel

    def execute(self, op: Op) -> None:
        """Execute and judge ``op``."""
        try:
            step = self.executor.execute(op)
            found = self.checker.check(step)
        except NoAnswer as error:
            error.program = self.program(op)
            raise
        if step.result.ret == NOT_ENABLED:
            return
        self.done(step)
        for goal in self._goals.look(self.executor.kernel, step):
            self.campaign.stats.goals[goal.name] += 1
        self._note(found)
        self.judge(found)

    def save(self) -> Saved:
        """Where the run is."""
        return Saved(self.executor.kernel.state, self.checker.memory(), tuple(self.ops), frozenset(self._broken))

    def restore(self, saved: Saved) -> None:
        """Go back to where a run on the same machine was."""
        self.executor.load(saved.state, len(saved.ops))
        self.checker.remember(saved.checker)
        self._broken = set(saved.broken)
        self.go_back(saved.ops)

    def look_at_end(self) -> None:
        """Drain the program and judge what is left."""
        if not self.checker.looks_at_end:
            return
        try:
            last = self.executor.drain()
            found = self.checker.finish(last) if last else []
        except NoAnswer as error:
            error.program = self.program()
            raise
        self._note(found)
        self.judge(found)

    def _note(self, found: Sequence[Violation]) -> None:
        """Note what was broken before."""
        if found:  # as after hardly any step
            broken = [*map(self.campaign.key, found)]
            self.campaign.precedence.note(broken, self._broken)
            self._broken.update(broken)


def campaign_on(
    address: str, invariants: tuple[str, ...], by_shape: bool = False, vmms: bool = False
) -> ViolationCampaign:
    """A campaign on the revision with that address, in whatever process; ``invariants`` are the users' files."""
    load_invariants(invariants)
    return ViolationCampaign(revision=resolve(address), by_shape=by_shape, vmms=vmms)


def fuzz(
    revision: str | Path | Revision,
    plan: Plan,
    known: Known | Collection[str] = (),
    tell: Listener = unheard,
    databases: Sequence[Database] = (),
    *,
    vmms: bool = False,
) -> Report[Finding]:
    """Search one revision for violations as planned, with ``vmms`` also for what VMMs do wrong.

    Every distinct bucket that is not in ``known`` is shrunk once and given to ``tell`` at once, as all else that
    happens; where what is known was replayed, every bucket in another shape is, too.  The search begins with what
    ``databases`` keep.  Raises RevisionError for a name that is none.
    """
    load()
    chosen, known = revision_of(revision), Known.of(known)
    campaign = ViolationCampaign(revision=chosen, known=set(known.keys), by_shape=known.replayed, vmms=vmms)
    recipe = partial(campaign_on, chosen.address, invariant_files(), known.replayed, vmms)
    return search_violations(campaign, recipe, plan, tell, databases, known)


def search_violations(
    campaign: ViolationCampaign,
    recipe: Recipe,
    plan: Plan,
    tell: Listener,
    databases: Sequence[Database],
    known: Known,
) -> Report[Finding]:
    """Search with that campaign, which ``recipe`` makes in other processes."""
    revision = campaign.revision

    def finding(shrunk: Shrunk[Violation]) -> Finding:
        return Finding(shrunk.discovery, shrunk.program, revision, engine=shrunk.engine)

    def relate(found: Sequence[Finding], in_time: Callable[[], bool]) -> dict[Finding, Finding]:
        return roots(campaign, found, known.key, in_time)

    return search(campaign, plan, (revision,), finding, recipe, tell, databases, known, relate)
