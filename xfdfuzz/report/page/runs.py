"""What a page shows: a program as it ran on each revision, which violation it is about, and where to open it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xfdfuzz.engines.judge.because import Reasons
from xfdfuzz.engines.judge.verdict import Verdict, judge, revisions_for
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import Step
from xfdfuzz.report import headline
from xfdfuzz.report.because import explain
from xfdfuzz.report.headline import Outcome
from xfdfuzz.report.privacy import CURRENT, severe_on_current
from xfdfuzz.revisions import RevisionError, family, selects

#: What a revision made of the program: it broke what the page is about, other things alone, nothing, nothing of that as
#: far as it went, or nothing happened.
VIOLATES, OTHERS, CLEAN, PARTLY, IDLE = "violates", "others", "clean", "partly", "idle"
#: The sign of each, which stands beside its colour, and what it means.
SIGNS = {VIOLATES: "\u2717", OTHERS: "!", CLEAN: "\u2713", PARTLY: "~", IDLE: "\u2013"}
MEANINGS = {
    VIOLATES: "this finding",
    OTHERS: "only other violations",
    CLEAN: "nothing broken",
    PARTLY: "not known: an op could not happen",
    IDLE: "no op could happen",
}
#: What a kind of kernels is called.
FAMILIES = {"posted": "posted", "mainline": "mainline", "stable": "stable", "cured": "with cures", "outside": "outside"}


@dataclass(frozen=True)
class Run:
    """A program on one revision; ``name`` is what the command line calls that, without the program's own patches."""

    name: str
    program: Program
    verdict: Verdict

    @property
    def label(self) -> str:
        """The revision with the program's patches."""
        return self.verdict.revision.label

    @property
    def family(self) -> str:
        """What kind of kernel it is."""
        return family(self.verdict.revision.name)

    @property
    def steps(self) -> list[Step]:
        """Those of the program."""
        return [judged.step for judged in self.verdict.trace if judged.step is not None]

    @property
    def beginning(self) -> bytes:
        """The state in which the program begins."""
        return self.steps[0].state

    @property
    def outcome(self) -> Outcome:
        """What came out, in short."""
        return Outcome(self.name, self.verdict.buckets, not self.verdict.left_out)

    @cached_property
    def because(self) -> dict[Violation, Reasons]:
        """What each violation follows from."""
        return explain(self.program, self.verdict)

    def position(self, violation: Violation) -> int:
        """The step at which to look at a violation."""
        return len(self.steps) + 1 if violation in self._at_end else violation.step

    @property
    def _at_end(self) -> tuple[Violation, ...]:
        last = self.verdict.trace[-1]
        return () if last.step is not None else last.violations

    @cached_property
    def end(self) -> bytes | None:
        """The state in which everything pending has come to its end, if anything is broken there."""
        if not self._at_end:
            return None
        executor = Executor(self.verdict.revision.kernel, self.program.machine)
        executor.load(bytes(self.steps[-1].after), len(self.steps))
        executor.drain()
        return executor.kernel.state

    @cached_property
    def main(self) -> Violation | None:
        """The violation that the program is about on this revision."""
        about = headline.bucket(self.program, Outcome(self.verdict.revision.name, self.verdict.buckets, whole=True))
        return self.first(about)

    def first(self, bucket: str) -> Violation | None:
        """The first violation of that bucket."""
        return next((violation for violation in self.verdict.violations if violation.bucket == bucket), None)


@dataclass(frozen=True)
class Finding:
    """All that a page shows: ``chosen`` is the run at which it opens; ``file`` and the words ``options`` stand in its
    command."""

    file: Path
    program: Program
    runs: tuple[Run, ...]
    chosen: Run
    options: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What shows a run again, up to the revision."""
        return shlex.join(["xfdfuzz", "replay", str(self.file), *self.options, "--revision"])

    @property
    def main(self) -> Violation | None:
        """What it is about."""
        return self.chosen.main

    def state(self, run: Run) -> str:
        """In a word, what that has to do with a run: what is broken beside it is another matter."""
        if self.main is not None and run.first(self.main.bucket):
            return VIOLATES
        if not run.verdict.happened:
            return IDLE
        if run.verdict.left_out:
            return PARTLY
        return OTHERS if run.verdict.violations else CLEAN

    def shown(self, run: Run) -> Violation | None:
        """What is shown first of a run: what the page is about, else what is broken there instead."""
        return (run.first(self.main.bucket) if self.main else None) or run.main

    def opens(self, run: Run) -> int:
        """The step at which to open a run, the one behind the last for the end."""
        shown = self.shown(run)
        return len(run.steps) if shown is None else run.position(shown)

    @property
    def where(self) -> str:
        """On which of the kernels it is, as a sentence; empty if nothing is broken."""
        if self.main is None:
            return ""
        return f"This finding: {headline.sentence(self.main.bucket, [run.outcome for run in self.runs])}."

    @cached_property
    def private(self) -> bool:
        """Whether it may be a vulnerability of a current kernel, be that among the runs or not."""
        others = () if any(run.name == CURRENT for run in self.runs) else run_on(self.program, [CURRENT])
        return any(severe_on_current(run.verdict) for run in (*self.runs, *others))


def run_on(program: Program, names: Sequence[str], *patches: Sequence[str]) -> Iterator[Run]:
    """The runs on those revisions, each once, ``patches`` added and left out; not on those that cannot have the
    program's own."""
    known: set[str] = set()
    for name in names:
        try:
            (revision,) = revisions_for(program, [name], *patches)
        except RevisionError:
            continue
        if revision.label not in known:
            known.add(revision.label)
            yield Run(name, program, judge(program, revision, expectations=False))


def finding(file: Path, program: Program, runs: Sequence[Run], options: Sequence[str] = ()) -> Finding:
    """The page of a program, opened where it breaks something: on the newest mainline that does, else on what was
    posted first, else anywhere; raises ValueError without a run."""
    families = ("stable", "cured", "outside", "posted", "mainline")

    def rank(numbered: tuple[int, Run]) -> tuple[bool, bool, int, int]:
        number, run = numbered
        named = any(e.kind == "violates" and selects(e.revisions, run.verdict.revision.name) for e in program.expect)
        newest = number if run.family == "mainline" else -number
        return run.main is not None, named, families.index(run.family), newest

    _, chosen = max(enumerate(runs), key=rank)
    return Finding(file, program, tuple(runs), chosen, tuple(options))
