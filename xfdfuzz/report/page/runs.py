"""What a page shows: a program as it ran on each revision, which violation it is about, and where to open it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xfdfuzz.engines.judge.because import Reasons
from xfdfuzz.engines.judge.verdict import Verdict, judge, revisions_for
from xfdfuzz.invariants.vocabulary import SEVERITIES, Violation
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import Step
from xfdfuzz.report.because import explain
from xfdfuzz.report.privacy import CURRENT, severe_on_current
from xfdfuzz.revisions import RevisionError, family, selects

#: What a revision made of the program: it broke something, nothing, nothing as far as it went, or nothing happened.
VIOLATES, CLEAN, PARTLY, IDLE = "violates", "clean", "partly", "idle"
#: The sign of each, which stands beside its colour.
SIGNS = {VIOLATES: "\u2717", CLEAN: "\u2713", PARTLY: "~", IDLE: "\u2013"}
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
    def state(self) -> str:
        """In a word, what came out."""
        if self.verdict.violations:
            return VIOLATES
        if not self.verdict.happened:
            return IDLE
        return PARTLY if self.verdict.left_out else CLEAN

    @cached_property
    def because(self) -> dict[Violation, Reasons]:
        """What each violation follows from."""
        return explain(self.program, self.verdict)

    @property
    def worst(self) -> str:
        """The worst severity of all that is broken, or nothing."""
        severities = [violation.severity for violation in self.verdict.violations]
        return min(severities, key=SEVERITIES.index, default="")

    @property
    def opens(self) -> int:
        """The step at which to open it, the one behind the last for the end: where it breaks what it is about."""
        return len(self.steps) if self.main is None else self.position(self.main)

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
        """The violation that the page is about on this revision: one that the program expects, else the worst; of
        several the first."""
        expected = {
            name
            for e in self.program.expect
            if selects(e.revisions, self.verdict.revision.name)
            for name in e.invariants
        }
        return min(
            self.verdict.violations,
            key=lambda violation: (violation.invariant not in expected, SEVERITIES.index(violation.severity)),
            default=None,
        )


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
