"""Two revisions searched for what a user sees differ between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from xfdfuzz.engines.judge.finding import Discrepancy
from xfdfuzz.engines.judge.lockstep import Difference, Halves, Lockstep, Pair, differences, run
from xfdfuzz.engines.judge.minimise import reduce
from xfdfuzz.engines.processes.workers import invariant_files, load_invariants
from xfdfuzz.engines.rules.situation import Situation
from xfdfuzz.engines.search.campaign import Campaign, Run
from xfdfuzz.engines.search.database import Database
from xfdfuzz.engines.search.hunt import Shrunk
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.reach import Change
from xfdfuzz.engines.search.report import Report
from xfdfuzz.engines.search.session import search
from xfdfuzz.engines.stream.events import Listener, unheard
from xfdfuzz.invariants.loading import load
from xfdfuzz.invariants.vocabulary import NoAnswer
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED
from xfdfuzz.revisions import resolve


@dataclass(kw_only=True)
class DifferenceCampaign(Campaign[Difference]):
    """Two revisions under comparison."""

    pair: Pair
    error_name = "DifferenceFound"

    def change(self) -> Change:
        """Of the first one."""
        return Change(self.pair.first.kernel, self.pair.second.kernel, compared=True)

    def start(self, machine: Machine) -> PairedRun:
        """Boot both."""
        return PairedRun(self, machine)

    def shown(self, program: Program) -> list[Difference]:
        """What differs, up to where the two diverge."""
        return differences(program, self.pair)

    def minimise(self, program: Program, key: str) -> Program:
        """The plainest program that still differs so, up to the op that does."""

        def still(candidate: Program) -> bool:
            return self.in_time() and any(one.bucket == key for one in differences(candidate, self.pair))

        return _with_results(reduce(program, still), self.pair)


def _with_results(program: Program, pair: Pair) -> Program:
    """With the first revision's results, and without the ops that could happen on neither."""
    steps = [c.first for c in run(program, pair) if c.differences or c.first.result.ret != NOT_ENABLED]
    ops, results = tuple(step.op for step in steps), tuple(str(step.result) for step in steps)
    return replace(program, ops=ops, results=results)


class Saved(NamedTuple):
    """A run at some point: where both are, whether they went different ways, the ops that led there."""

    halves: Halves
    diverged: bool
    ops: tuple[Op, ...]


class PairedRun(Run):
    """One example on both revisions.  It goes on past a known difference, unless the two went different ways."""

    def __init__(self, campaign: DifferenceCampaign, machine: Machine) -> None:
        super().__init__(campaign, machine)
        self._lockstep = Lockstep(campaign.pair, machine)
        self._diverged = False

    @property
    def kernel(self) -> Kernel:
        """The first one."""
        return self._lockstep.executors[0].kernel

    def execute(self, op: Op) -> None:
        """Execute ``op`` on both and compare."""
        if self._diverged:
            return
        try:
            compared = self._lockstep.execute(op)
        except NoAnswer as error:
            error.program = self.program(op)
            raise
        if compared.first.result.ret == NOT_ENABLED and not compared.differences:
            return
        self.done(compared.first)
        self._diverged = compared.diverged
        same = self._lockstep.same
        self.campaign.stats.partings += not (same or self.parted)
        self.parted = not (same or self._diverged)
        self.judge(compared.differences)

    @property
    def alive(self) -> bool:
        """Nothing can happen once the two have diverged."""
        return not self._diverged and super().alive

    def situation(self) -> Situation:
        """Who can do what on the first one."""
        return super().situation() if self.alive else Situation.over()

    def save(self) -> Saved:
        """Where both are."""
        return Saved(self._lockstep.save(), self._diverged, tuple(self.ops))

    def restore(self, saved: Saved) -> None:
        """Go back to where a run on the same machine was."""
        self._lockstep.restore(saved.halves, len(saved.ops))
        self._diverged = saved.diverged
        self.parted = not (saved.diverged or self._lockstep.same)
        self.go_back(saved.ops)


def campaign_on(addresses: tuple[str, str], invariants: tuple[str, ...]) -> DifferenceCampaign:
    """A campaign on the revisions with these addresses, in whatever process; ``invariants`` are the users' files."""
    load_invariants(invariants)
    first, second = map(resolve, addresses)
    return DifferenceCampaign(pair=Pair(first, second))


def diff(pair: Pair, plan: Plan, tell: Listener = unheard, databases: Sequence[Database] = ()) -> Report[Discrepancy]:
    """Search two revisions for differences as planned.

    Every distinct one is shrunk once and given to ``tell`` at once, as all else that happens.  The search begins with
    what ``databases`` keep.
    """
    load()
    campaign = DifferenceCampaign(pair=pair)

    def discrepancy(shrunk: Shrunk[Difference]) -> Discrepancy:
        difference = shrunk.discovery
        same_op = [d for d in differences(shrunk.program, pair) if d.step == difference.step]
        also = tuple(d for d in same_op if d != difference and campaign.is_new(d))
        campaign.learn(d.bucket for d in also)
        return Discrepancy(difference, shrunk.program, pair, also)

    recipe = partial(campaign_on, (pair.first.address, pair.second.address), invariant_files())
    return search(campaign, plan, tuple(pair), discrepancy, recipe, tell, databases)
