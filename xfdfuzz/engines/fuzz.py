"""The fuzz engine: one revision is searched for violations of its invariants."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, settings

from xfdfuzz.engines.campaign import Campaign, Run, Stats
from xfdfuzz.engines.confirm import doubts
from xfdfuzz.engines.hunt import STEPS, hunt
from xfdfuzz.engines.machine import KernelMachine
from xfdfuzz.engines.minimise import minimise
from xfdfuzz.engines.replay import judge
from xfdfuzz.engines.team import hunt_together
from xfdfuzz.engines.workers import invariant_files, load_invariants
from xfdfuzz.engines.workers import workers as processes
from xfdfuzz.invariants.checker import Checker, Memory
from xfdfuzz.invariants.loading import load
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED
from xfdfuzz.revisions import Revision, resolve


@dataclass(frozen=True)
class Finding:
    """A violation with the plainest program that shows it; ``file`` once it was saved.

    ``engine`` found the first program with it.  ``shown``: whether replaying the program breaks the invariant, as it
    does but for a cycle that only going round for ever makes bad.
    """

    violation: Violation
    program: Program
    revision: Revision
    file: Path | None = None
    engine: str = "hypothesis"
    shown: bool = True


@dataclass(frozen=True)
class Report:
    """What a campaign on one revision came to.

    ``doubts``: a line for each reason not to rely on a finding, because a fresh process did not confirm it.
    """

    revision: Revision
    seed: int
    stats: Stats
    findings: tuple[Finding, ...]
    interrupted: bool
    doubts: tuple[str, ...] = ()


@dataclass(kw_only=True)
class ViolationCampaign(Campaign[Violation]):
    """One revision under test."""

    revision: Revision
    error_name = "ViolationFound"

    def start(self, machine: Machine) -> JudgedRun:
        """Boot the revision."""
        return JudgedRun(self, machine)

    def shown(self, program: Program) -> tuple[Violation, ...]:
        """What it violates, in order."""
        return judge(program, self.revision, expectations=False).violations

    def minimise(self, program: Program, bucket: str) -> Program:
        """The plainest program that still violates it."""
        return minimise(program, self.revision, bucket)


class Saved(NamedTuple):
    """A run at some point: the state of its system, what its checker remembers, the ops that led there."""

    state: bytes
    checker: Memory
    ops: tuple[Op, ...]


class JudgedRun(Run):
    """One example: a booted kernel and the checker that judges what happens on it."""

    def __init__(self, campaign: ViolationCampaign, machine: Machine) -> None:
        super().__init__(campaign, machine)
        self.executor = Executor(campaign.revision.kernel, machine)
        self.checker = Checker(self.executor.kernel, campaign.revision.name)

    @property
    def kernel(self) -> Kernel:
        """The kernel under test."""
        return self.executor.kernel

    def execute(self, op: Op) -> None:
        """Execute and judge ``op``."""
        step = self.executor.execute(op)
        if step.result.ret == NOT_ENABLED:
            return
        self.done(step)
        self.judge(self.checker.check(step))

    def save(self) -> Saved:
        """Where the run is."""
        return Saved(self.executor.kernel.state, self.checker.memory(), tuple(self.ops))

    def restore(self, saved: Saved) -> None:
        """Go back to where a run on the same machine was."""
        self.executor.load(saved.state, len(saved.ops))
        self.checker.remember(saved.checker)
        self.go_back(saved.ops)

    def look_at_end(self) -> None:
        """Drain the program and judge what is left."""
        if self.checker.looks_at_end and (last := self.executor.drain()):
            self.judge(self.checker.finish(last))


def state_machine(revision: str | Revision, known: Collection[str] = ()) -> type[KernelMachine]:
    """The state machine of one revision for pytest: ``TestAmxV1 = state_machine("amx-v1").TestCase``.

    It fails on every violation whose bucket is not in ``known``.
    """
    load()
    chosen = resolve(revision) if isinstance(revision, str) else revision
    campaign = ViolationCampaign(revision=chosen, known=set(known))
    machine: Any = type(
        "KernelMachine", (KernelMachine,), {"campaign": campaign, "__doc__": f"{chosen.label} under test."}
    )
    # one bug at a time, and no explanations: both would multiply the time to the first shrunk program
    machine.TestCase.settings = settings(
        deadline=None,
        report_multiple_bugs=False,
        stateful_step_count=STEPS,
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    tested: type[KernelMachine] = machine
    return tested


def campaign_on(address: str, invariants: tuple[str, ...]) -> ViolationCampaign:
    """A campaign on the revision with that address, in whatever process; ``invariants`` are the users' files."""
    load_invariants(invariants)
    return ViolationCampaign(revision=resolve(address))


def fuzz(
    revision: Revision,
    *,
    engine: str = "hypothesis",
    workers: int = 1,
    seed: int,
    seconds: float | None = None,
    examples: int | None = None,
    steps: int = STEPS,
    known: Collection[str] = (),
    on_progress: Callable[[Stats, list[Finding]], None] = lambda stats, findings: None,
    on_finding: Callable[[Finding], None] = lambda finding: None,
) -> Report:
    """Search one revision for violations until time or examples are used up.

    Every distinct bucket that is not in ``known`` is shrunk once and given to ``on_finding`` at once.  The same seed
    gives the same programs, unless several ``workers``, processes, search at once.  Ctrl-C ends the campaign in an
    orderly way.
    """
    load()
    campaign = ViolationCampaign(revision=revision, known=set(known), max_examples=examples)
    findings: list[Finding] = []

    def on_news(violation: Violation, program: Program, found_by: str) -> None:
        findings.append(Finding(violation, program, revision, engine=found_by))
        on_finding(findings[-1])

    search: Callable[..., bool] = hunt
    with ExitStack() as stack:
        if workers > 1:
            recipe = partial(campaign_on, revision.address, invariant_files())
            search = partial(hunt_together, recipe=recipe, pool=stack.enter_context(processes(workers)), size=workers)
        interrupted = search(
            campaign,
            engine=engine,
            seed=seed,
            seconds=seconds,
            steps=steps,
            on_progress=lambda: on_progress(campaign.stats, findings),
            on_news=on_news,
        )
    try:
        unsure = doubts([(finding.violation.bucket, finding.program) for finding in findings], revision)
    except KeyboardInterrupt:
        interrupted = True
        unsure = ["interrupted before a fresh process had confirmed the findings"]
    return Report(revision, seed, campaign.stats, tuple(findings), interrupted, tuple(unsure))
