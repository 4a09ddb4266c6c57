"""The fuzz engine: Hypothesis drives the rules, every distinct violation of a campaign is shrunk and handed out."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from xfdfuzz.engines.campaign import Campaign, OutOfTime, Stats, ViolationFound
from xfdfuzz.engines.confirm import ConfirmError, buckets_elsewhere
from xfdfuzz.engines.interrupt import PatientInterrupt
from xfdfuzz.engines.minimise import minimise
from xfdfuzz.engines.replay import judge
from xfdfuzz.engines.rules import KernelMachine
from xfdfuzz.invariants.core import Violation, load
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.revisions import Revision, resolve

#: Default length of an example, in rules.
STEPS = 50


class NotReproducibleError(Exception):
    """A violation that its own program does not show again: the model is not deterministic, which is a bug of ours."""


@dataclass(frozen=True)
class Finding:
    """A violation with the plainest program that shows it; ``file`` once it was saved."""

    violation: Violation
    program: Program
    revision: Revision
    file: Path | None = None


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


def state_machine(revision: str | Revision, known: Collection[str] = ()) -> type[KernelMachine]:
    """The state machine of one revision for pytest: ``TestAmxV1 = state_machine("amx-v1").TestCase``.

    It fails on every violation whose bucket is not in ``known``.
    """
    load()
    chosen = resolve(revision) if isinstance(revision, str) else revision
    campaign = Campaign(chosen, set(known))
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


def fuzz(
    revision: Revision,
    *,
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
    gives the same programs.  Ctrl-C ends the campaign in an orderly way.
    """
    load()
    began = time.monotonic()
    campaign = Campaign(revision, set(known), None if seconds is None else began + seconds, examples)
    findings: list[Finding] = []
    interrupted = False
    with PatientInterrupt() as ctrl_c, _imports_out_of_the_collectors_way():

        def progress() -> None:
            ctrl_c.check()
            campaign.stats.seconds = time.monotonic() - began
            on_progress(campaign.stats, findings)

        campaign.on_example = progress
        try:
            for attempt in range(1 << 30):
                program = _search(campaign, seed * 1_000_003 + attempt, steps)
                if program is None:
                    break
                for finding in _findings(campaign, program):
                    findings.append(finding)
                    on_finding(finding)
                    ctrl_c.check()
        except KeyboardInterrupt:
            interrupted = True
        campaign.stats.seconds = time.monotonic() - began
        try:
            doubts = _doubts(findings, revision)
        except KeyboardInterrupt:
            interrupted = True
            doubts = ["interrupted before a fresh process had confirmed the findings"]
    return Report(revision, seed, campaign.stats, tuple(findings), interrupted, tuple(doubts))


@contextmanager
def _imports_out_of_the_collectors_way() -> Iterator[None]:
    """Each full collection walks all modules, which stay for good: 7 % of a campaign's time without this."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _doubts(findings: list[Finding], revision: Revision) -> list[str]:
    """Why a finding, or all of them, cannot be relied on: a line for each that a fresh process does not confirm."""
    if not findings:
        return []
    try:
        seen = buckets_elsewhere([format_program(finding.program) for finding in findings], revision)
    except ConfirmError as error:
        return [str(error)]
    return [
        f"{finding.violation.bucket} does not show in a fresh process"
        for finding, buckets in zip(findings, seen, strict=True)
        if finding.violation.bucket not in buckets
    ]


def _search(campaign: Campaign, hypothesis_seed: int, steps: int) -> Program | None:
    """One run of Hypothesis: up to the first program that breaks something new; None when the campaign is over."""
    machine = type("KernelMachine", (KernelMachine,), {"campaign": campaign})
    seeded(hypothesis_seed)(machine)
    try:
        run_state_machine_as_test(machine, settings=campaign_settings(campaign, steps))
    except OutOfTime:
        return None
    except ViolationFound as found:
        return found.program
    return None


def _findings(campaign: Campaign, program: Program) -> Iterator[Finding]:
    """Everything new that the program breaks, each with a program of its own, minimal and confirmed from its text."""
    for violation in judge(program, campaign.revision, expectations=False).violations:
        if not campaign.is_news(violation):
            continue
        campaign.known.add(violation.bucket)
        smallest = minimise(program, campaign.revision, violation.bucket)
        confirmed = judge(parse(format_program(smallest)), campaign.revision, expectations=False)
        shown = next((v for v in confirmed.violations if v.bucket == violation.bucket), None)
        if shown is None:
            raise NotReproducibleError(f"{violation.bucket} does not show again on {campaign.revision.label}")
        yield Finding(shown, smallest, campaign.revision)


def campaign_settings(campaign: Campaign, steps: int) -> settings:
    """For the command line: no end of its own, no database, and no shrinking, which minimise() does faster."""
    return settings(
        max_examples=10_000_000,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        derandomize=False,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
