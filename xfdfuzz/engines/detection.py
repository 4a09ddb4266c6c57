"""Does the fuzzer find what it should: for each known bug, how long until a violation that the kernel without it keeps.

A *subject* is a kernel with a bug and the same without it: a fix reverted and applied, the cure of an open finding left
out, a posted series and what it became, a program of the corpus on a revision that it breaks and one that it does not.
What counts is a violation of the first that the program found does not show on the second, so neither a verdict nor a
program is given to the search.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field, replace
from statistics import median

from xfdfuzz.engines.campaign import OutOfTime
from xfdfuzz.engines.fuzz import JudgedRun, ViolationCampaign
from xfdfuzz.engines.hunt import KINDS, STEPS, imports_out_of_the_collectors_way
from xfdfuzz.engines.replay import judge, revisions_for
from xfdfuzz.engines.workers import invariant_files, load_invariants, users_errors_named
from xfdfuzz.engines.yardsticks import RandomWalk, exhaust
from xfdfuzz.invariants.loading import load
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import PATCHES, PROPOSED, Patch, Revision, RevisionError, lines, names, resolve, selects

#: The newest mainline point, on which a fix is reverted unless a later patch hides that.
NEWEST = "mainline"
#: The newest point without any bug that is known.
CURED = "v7.3-cured"
#: What a posted series is held against: the first version with the permission fix that every posting lacks.
MERGED = "v5.18"
PERMISSION_FIX = "063452fd94d1"


@dataclass(frozen=True)
class Subject:
    """A bug.  ``broken`` is the label of a kernel that has it, ``sound`` of one that has not.

    ``buckets`` are the violations that count (empty: any).
    """

    kind: str
    name: str
    title: str
    broken: str
    sound: str
    buckets: frozenset[str] = frozenset()

    def seeds(self, count: int) -> range:
        """Seeds of its own: if all had the same ones, a lucky one would count for many of them."""
        first = zlib.crc32(f"{self.kind} {self.name}".encode())
        return range(first, first + count)


@dataclass(frozen=True)
class Plan:
    """How to search: ``seeds`` times for so many CPU seconds, and for ``control`` seconds on the sound kernel."""

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


# -- subjects ----------------------------------------------------------------------------------------------------------


def fixes() -> Iterator[Subject]:
    """Every patch of the queue that mends something, reverted."""
    for p in PATCHES.values():
        if not p.neutral:
            broken, sound = _around(p)
            yield Subject("fix", p.commit, p.title, broken, sound)


def _around(p: Patch) -> tuple[str, str]:
    """Mainline without and with the patch: the newest, or as of the last patch that does not hide the revert."""
    later = list(PATCHES)[list(PATCHES).index(p.commit) :]
    for sound in (NEWEST, *reversed(later)):
        with suppress(RevisionError):
            return resolve(sound, revert=[p.commit]).label, sound
    raise AssertionError(p.commit)  # as of itself a patch can be reverted


def open_findings() -> Iterator[Subject]:
    """Every cure that the project proposes, left out."""
    for p in PROPOSED.values():
        yield Subject("open", p.commit, p.title, resolve(CURED, revert=[p.commit]).label, CURED)


def series() -> Iterator[Subject]:
    """Every posted series: those before the merge with the fix of the permission bug that all of them have."""
    for name in names()[: names().index(lines()[1][0])]:
        revision = resolve(name)
        if PERMISSION_FIX in (p.commit for p in revision.patches):
            yield Subject("series", name, revision.title, name, NEWEST)
        else:
            yield Subject("series", name, revision.title, f"{name}+{PERMISSION_FIX}", MERGED)


def known_bugs(programs: Iterable[tuple[str, Program]]) -> Iterator[Subject]:
    """Every (name, program) of the corpus, on the newest revision that it breaks as the newest of all does not."""
    for name, program in programs:
        (sound,) = revisions_for(program, [NEWEST])
        remaining = _buckets(program, sound)
        for broken in reversed(_every_revision(program)):
            if wanted := _expected(program, broken) - remaining:
                yield Subject("bug", name, program.title, broken.label, sound.label, wanted)
                break


def _every_revision(program: Program) -> list[Revision]:
    """What stands in no line, the series, then mainline, each with what the program's header applies and reverts."""
    ordered = [name for line in lines() for name in line]
    rest = [name for name in names() if name not in ordered]
    return [r for name in (*rest, *ordered) for r in revisions_for(program, [name])]


def _expected(program: Program, revision: Revision) -> frozenset[str]:
    """The buckets of the invariants that its `expect:` lines name for the revision."""
    selected = (e for e in program.expect if selects(e.revisions, revision.name))
    named = {name for expectation in selected for name in expectation.invariants}
    return frozenset(b for b in _buckets(program, revision) if b.partition("@")[0] in named)


def _buckets(program: Program, revision: Revision) -> frozenset[str]:
    return frozenset(judge(program, revision, expectations=False).buckets)


def subjects(programs: Iterable[tuple[str, Program]]) -> list[Subject]:
    """All of them."""
    load()
    return [*fixes(), *open_findings(), *series(), *known_bugs(programs)]


# -- search ------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class DetectionCampaign(ViolationCampaign):
    """A fuzz campaign to which only that is news which ``sound`` does not show; it does not shrink.

    It ends after ``cpu_seconds`` of its process, so that a busy machine does not look like a slow fuzzer.
    """

    sound: Revision
    buckets: frozenset[str]
    cpu_seconds: float
    began: float = field(default_factory=time.process_time)

    @property
    def spent(self) -> float:
        """CPU seconds since it began."""
        return time.process_time() - self.began

    def example_done(self) -> None:
        """Count an example; raise OutOfTime at the end of the CPU time."""
        super().example_done()
        if self.spent >= self.cpu_seconds:
            raise OutOfTime

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
        revision=resolve(subject.broken), sound=resolve(subject.sound), buckets=subject.buckets, cpu_seconds=seconds
    )
    try:
        with imports_out_of_the_collectors_way():
            bucket = _first(campaign, engine, seed)
    except OutOfTime:
        return Detection(seed, campaign.spent, campaign.stats.examples, "")
    return Detection(seed, campaign.spent, campaign.stats.examples + 1, bucket)


def _first(campaign: DetectionCampaign, engine: str, seed: int) -> str:
    """The bucket of the first violation that counts; raises OutOfTime."""
    if engine == "random":
        return RandomWalk(campaign, seed, STEPS).search().news.bucket
    return KINDS[engine](campaign, seed, STEPS).find().bucket


def remaining(subject: Subject, engine: str, buckets: Sequence[str], seconds: float) -> tuple[str, ...]:
    """Which of ``buckets`` a campaign on the sound kernel finds in so many seconds."""
    load()
    campaign = ViolationCampaign(revision=resolve(subject.sound))
    campaign.deadline = time.monotonic() + seconds
    searching = KINDS[engine](campaign, 0, STEPS)
    with suppress(OutOfTime):
        while True:
            campaign.known.add(searching.find().bucket)
    return tuple(bucket for bucket in buckets if bucket in campaign.known)


def measure(subject: Subject, plan: Plan, invariants: tuple[str, ...]) -> Row:
    """Search as planned, then look on the sound kernel for what was found; in any process."""
    load_invariants(invariants)
    with users_errors_named():
        seeds = subject.seeds(plan.seeds)
        row = Row(subject, tuple(detect(subject, plan.engine, seed, plan.seconds) for seed in seeds))
        # the yardsticks have no control of their own
        engine = plan.engine if plan.engine in KINDS else "both"
        still = remaining(subject, engine, row.buckets, plan.control) if row.buckets and plan.control else ()
        return replace(row, still=still)


def measure_all(
    chosen: Sequence[Subject],
    plan: Plan,
    executor: Executor,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """A row for each subject, in their order; ``on_row`` gets each when it is done.  One core works on a subject."""
    futures = [executor.submit(measure, subject, plan, invariant_files()) for subject in chosen]
    for future in as_completed(futures):
        on_row(future.result())
    return [future.result() for future in futures]
