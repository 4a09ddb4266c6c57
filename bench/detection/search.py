"""For each known bug, how long until a violation that the kernel without it does not show.

What counts is a violation of the broken kernel that the program found does not show on the sound one, so neither a
verdict nor a program is given to the search.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import median

from bench.detection.subjects import Subject
from bench.detection.yardsticks import RandomWalk, exhaust
from xfdfuzz.engines import ENGINES
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.search.hunt import KINDS, imports_out_of_the_collectors_way
from xfdfuzz.engines.search.plan import STEPS, Budget, Spent
from xfdfuzz.engines.search.violations import JudgedRun, ViolationCampaign
from xfdfuzz.invariants.loading import load
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision, resolve

#: What detection is measured with besides the engines of campaigns.
YARDSTICKS = ("random", "explore")


@dataclass(frozen=True)
class Effort:
    """How much to search: ``seeds`` times for so many CPU seconds, and for ``control`` seconds on the sound kernel."""

    engine: str
    seeds: int
    seconds: float
    control: float


@dataclass(frozen=True)
class Detection:
    """One search: CPU seconds and examples, or states, to the violation; ``bucket`` is empty if there was none."""

    seed: int
    seconds: float
    examples: int
    bucket: str


@dataclass(frozen=True)
class Row:
    """All searches for one subject, and what a campaign on the sound kernel found of the same buckets."""

    subject: Subject
    detections: tuple[Detection, ...]
    still: tuple[str, ...] = ()

    @property
    def found(self) -> list[Detection]:
        """Those that ended with a violation."""
        return [d for d in self.detections if d.bucket]

    @property
    def seconds(self) -> float | None:
        """Median seconds over all seeds, None if most of them found nothing."""
        if 2 * len(self.found) <= len(self.detections):
            return None
        return median(d.seconds for d in self.detections)

    @property
    def buckets(self) -> list[str]:
        """What was found, each once."""
        return sorted({d.bucket for d in self.found})


@dataclass(kw_only=True)
class DetectionCampaign(ViolationCampaign):
    """A fuzz campaign to which only that is new which ``sound`` does not show; ``buckets`` count (empty: any)."""

    sound: Revision
    buckets: frozenset[str]

    def start(self, machine: Machine) -> DetectionRun:
        """Boot the broken kernel."""
        return DetectionRun(self, machine)


class DetectionRun(JudgedRun):
    """An example that goes on past what does not count."""

    campaign: DetectionCampaign

    def judge(self, found: Iterable[Violation]) -> None:  # type: ignore[override]
        """Raise the first violation that counts and that the program does not show on the sound kernel."""
        wanted = self.campaign.buckets
        counting = [v for v in found if not wanted or v.bucket in wanted]
        if counting:
            elsewhere = judge(Program(self.machine, tuple(self.ops)), self.campaign.sound, expectations=False).buckets
            super().judge(v for v in counting if v.bucket not in elsewhere)


def detect(subject: Subject, engine: str, seed: int, seconds: float) -> Detection:
    """Search the broken kernel for at most so many CPU seconds."""
    load()
    if engine == "explore":
        end = exhaust(resolve(subject.broken), resolve(subject.sound), subject.buckets, seconds)
        return Detection(seed, end.seconds, end.states, end.bucket)
    campaign = DetectionCampaign(
        revision=resolve(subject.broken), sound=resolve(subject.sound), buckets=subject.buckets
    )
    # CPU time, so that a busy machine does not look like a slow fuzzer
    budget = Budget(seconds, clock=time.process_time)
    try:
        with imports_out_of_the_collectors_way(), campaign.after_each_example(budget.spend_example):
            bucket = _first(campaign, engine, seed)
    except Spent:
        return Detection(seed, budget.elapsed, budget.done, "")
    return Detection(seed, budget.elapsed, budget.done + 1, bucket)


def _first(campaign: DetectionCampaign, engine: str, seed: int) -> str:
    """The bucket of the first violation that counts; raises Spent."""
    if engine == "random":
        return RandomWalk(campaign, seed, STEPS).search().discovery.bucket
    return KINDS[engine](campaign, seed, STEPS).find().key


def remaining(subject: Subject, engine: str, buckets: Sequence[str], seconds: float) -> tuple[str, ...]:
    """Which of ``buckets`` a campaign on the sound kernel finds in so many seconds."""
    load()
    campaign = ViolationCampaign(revision=resolve(subject.sound))
    searching = KINDS[engine](campaign, 0, STEPS)
    with suppress(Spent), campaign.after_each_example(Budget(seconds).spend_example):
        while True:
            campaign.learn([searching.find().key])
    return tuple(bucket for bucket in buckets if bucket in campaign.known)


def measure(subject: Subject, effort: Effort) -> Row:
    """Search, then look on the sound kernel for what was found; in any process."""
    seeds = subject.seeds(effort.seeds)
    row = Row(subject, tuple(detect(subject, effort.engine, seed, effort.seconds) for seed in seeds))
    # the yardsticks have no control of their own
    engine = effort.engine if effort.engine in ENGINES else "both"
    still = remaining(subject, engine, row.buckets, effort.control) if row.buckets and effort.control else ()
    return replace(row, still=still)


def measure_all(
    chosen: Sequence[Subject],
    effort: Effort,
    executor: Executor,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """A row for each subject, in their order; ``on_row`` gets each when it is done.  One core works on a subject."""
    futures = [executor.submit(measure, subject, effort) for subject in chosen]
    for future in as_completed(futures):
        on_row(future.result())
    return [future.result() for future in futures]
