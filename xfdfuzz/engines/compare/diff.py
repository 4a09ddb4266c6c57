"""Two revisions searched for what a user sees differ between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from xfdfuzz.engines.campaign import Campaign, Run, Stats
from xfdfuzz.engines.compare.lockstep import Difference, Halves, Lockstep, Pair, differences, run
from xfdfuzz.engines.confirm import doubts
from xfdfuzz.engines.hunt import STEPS, hunt
from xfdfuzz.engines.minimise import reduce
from xfdfuzz.engines.situation import Situation
from xfdfuzz.invariants.loading import load
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED


@dataclass(frozen=True)
class Discrepancy:
    """A difference with the plainest program that shows it, which has the first revision's results.

    ``also`` is what else the same op shows, such as the reports that come with a result.
    """

    difference: Difference
    program: Program
    pair: Pair
    also: tuple[Difference, ...] = ()
    file: Path | None = None


@dataclass(frozen=True)
class DiffReport:
    """What a search of two revisions came to; ``doubts`` are reasons not to rely on a difference."""

    pair: Pair
    seed: int
    stats: Stats
    found: tuple[Discrepancy, ...]
    interrupted: bool
    doubts: tuple[str, ...] = ()


@dataclass(kw_only=True)
class DifferenceCampaign(Campaign[Difference]):
    """Two revisions under comparison."""

    pair: Pair
    error_name = "DifferenceFound"

    def start(self, machine: Machine) -> PairedRun:
        """Boot both."""
        return PairedRun(self, machine)

    def shown(self, program: Program) -> list[Difference]:
        """What differs, up to where the two diverge."""
        return differences(program, self.pair)

    def minimise(self, program: Program, bucket: str) -> Program:
        """The plainest program that still differs so, up to the op that does."""

        def still(candidate: Program) -> bool:
            return any(difference.bucket == bucket for difference in differences(candidate, self.pair))

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
        compared = self._lockstep.execute(op)
        if compared.first.result.ret == NOT_ENABLED and not compared.differences:
            return
        self.done(compared.first)
        self._diverged = compared.diverged
        self.judge(compared.differences)

    def situation(self) -> Situation:
        """Who can do what on the first one; nobody can do anything once the two have diverged."""
        return Situation.over() if self._diverged else super().situation()

    def save(self) -> Saved:
        """Where both are."""
        return Saved(self._lockstep.save(), self._diverged, tuple(self.ops))

    def restore(self, saved: Saved) -> None:
        """Go back to where a run on the same machine was."""
        self._lockstep.restore(saved.halves, len(saved.ops))
        self._diverged = saved.diverged
        self.go_back(saved.ops)


def diff(
    pair: Pair,
    *,
    engine: str = "hypothesis",
    seed: int,
    seconds: float | None = None,
    examples: int | None = None,
    steps: int = STEPS,
    on_progress: Callable[[Stats, list[Discrepancy]], None] = lambda stats, found: None,
    on_found: Callable[[Discrepancy], None] = lambda discrepancy: None,
) -> DiffReport:
    """Search two revisions for differences until time or examples are used up.

    Every distinct one is shrunk once and given to ``on_found`` at once.  The same seed gives the same programs.
    """
    load()
    campaign = DifferenceCampaign(pair=pair, max_examples=examples)
    found: list[Discrepancy] = []

    def on_news(difference: Difference, program: Program, _: str) -> None:
        same_op = [d for d in differences(program, pair) if d.step == difference.step]
        also = tuple(d for d in same_op if d != difference and campaign.is_news(d))
        campaign.known |= {d.bucket for d in also}
        found.append(Discrepancy(difference, program, pair, also))
        on_found(found[-1])

    interrupted = hunt(
        campaign,
        engine=engine,
        seed=seed,
        seconds=seconds,
        steps=steps,
        on_progress=lambda: on_progress(campaign.stats, found),
        on_news=on_news,
    )
    try:
        unsure = doubts([(one.difference.bucket, one.program) for one in found], *pair)
    except KeyboardInterrupt:
        interrupted = True
        unsure = ["interrupted before a fresh process had confirmed the differences"]
    return DiffReport(pair, seed, campaign.stats, tuple(found), interrupted, tuple(unsure))
