"""What a report has heard so far: a suite for each search, a case for each bucket that it met and each program judged.

Every suite has one case more, ``ended``, which does not pass before the search came to its end: so the report of a run
that was killed is no green one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from xfdfuzz.engines.judge.finding import Discrepancy, Finding
from xfdfuzz.engines.judge.verdict import Judged, judge
from xfdfuzz.engines.stream.events import (
    Began,
    DatabaseLost,
    Doubted,
    Ended,
    Event,
    Expired,
    Found,
    Gone,
    KnownMet,
    Outcome,
    ProgramJudged,
    Progressed,
    Withheld,
    WorkerLost,
)
from xfdfuzz.invariants.vocabulary import INVARIANTS, SEVERITIES, invariant_of
from xfdfuzz.report import differences, finding
from xfdfuzz.report.console import console
from xfdfuzz.report.known import UNSAID, overdue
from xfdfuzz.report.privacy import not_shown
from xfdfuzz.revisions import Revision

#: What a case can be: as it should be, broken, broken as was known before, not judged to the end, nothing to judge,
PASSED, FAILED, KNOWN, UNSURE, SKIPPED = "passed", "failed", "known", "unsure", "skipped"
#: no more broken as was known before, and broken for longer than it was to be.
GONE, EXPIRED = "gone", "expired"
#: Those that fail a job.
BAD = (FAILED, UNSURE, EXPIRED)
#: The case that passes when the search has ended, and the one that stands for all that is not shown.
ENDED, HIDDEN = "ended", "not shown"


@dataclass
class Case:
    """One line of a report: a bucket by its name, or a program by its file.

    ``message`` says in a line what came out, ``text`` all of it.
    ``outcome`` is what a search handed out, None for what has no program here.
    """

    name: str
    state: str
    message: str
    text: str = ""
    severity: str = ""
    file: str = ""
    outcome: Outcome | None = None

    @property
    def bad(self) -> bool:
        """Whether it fails a job."""
        return self.state in BAD

    @cached_property
    def trace(self) -> tuple[Judged, ...]:
        """How the program of a finding runs; nothing of what is none."""
        if not isinstance(self.outcome, Finding):
            return ()
        return judge(self.outcome.program, self.outcome.revision, expectations=False).trace


@dataclass
class Suite:
    """What one search, or the programs judged on one revision, came to so far."""

    label: str
    revisions: tuple[Revision, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    withheld: int = 0
    doubts: list[str] = field(default_factory=list)
    ended: bool = False
    interrupted: bool = False
    _cases: dict[str, Case] = field(default_factory=dict)

    @property
    def cases(self) -> list[Case]:
        """Worst first, and last whether it ended."""
        return [*sorted(self._cases.values(), key=badness), self._ending()]

    def put(self, case: Case) -> None:
        """Add a case, or replace what was said of it before."""
        self._cases[case.name] = case

    def put_found(self, case: Case) -> None:
        """Add a finding; one of a bucket that there is already, in another shape, is told apart by that."""
        other = self._cases.get(case.name)
        if other is not None and isinstance(case.outcome, Finding) and other.outcome != case.outcome:
            case.name = case.outcome.violation.kind
        self.put(case)

    def doubt(self, bucket: str, reason: str) -> None:
        """What was found cannot be relied on; an empty bucket means all of it."""
        self.doubts.append(reason)
        for case in self._cases.values():
            if case.state == FAILED and bucket in ("", case.name, case.outcome and case.outcome.bucket):
                case.state = UNSURE
                case.text = f"{reason}\n{case.text}"

    def _ending(self) -> Case:
        if not self.ended:
            return Case(ENDED, UNSURE, "the run has not ended: this is all that it had come to")
        if self.interrupted:
            return Case(ENDED, UNSURE, "interrupted", "\n".join(self.doubts))
        if self.doubts:
            return Case(ENDED, UNSURE, "a fresh process does not confirm all of it", "\n".join(self.doubts))
        return Case(ENDED, PASSED, "")


def badness(case: Case) -> tuple[int, int]:
    """A key that sorts what fails a job to the front, the worst severity first."""
    rank = SEVERITIES.index(case.severity) if case.severity in SEVERITIES else len(SEVERITIES)
    return (0, rank) if case.bad else (1, 0)


class Ledger:
    """All suites, in the order in which they began."""

    def __init__(self) -> None:
        self._suites: dict[str, Suite] = {}

    @property
    def suites(self) -> list[Suite]:
        """Each search by its label."""
        return list(self._suites.values())

    def cases(self) -> Iterator[tuple[Suite, Case]]:
        """All cases of all suites, worst first."""
        every = [(suite, case) for suite in self.suites for case in suite.cases]
        return iter(sorted(every, key=lambda pair: badness(pair[1])))

    def take(self, event: Event) -> bool:
        """Note what an event says; False if that changes no report."""
        suite = self._suites.setdefault(event.label, Suite(event.label))
        match event:
            case Began():
                suite.revisions, suite.options = event.revisions, event.options
            case Progressed():
                suite.seconds = event.seconds
                return False
            case Found():
                suite.put_found(_found(event.outcome))
            case Withheld():
                suite.withheld += 1
                suite.put(Case(HIDDEN, FAILED, not_shown(suite.withheld, event.place), severity=SEVERITIES[0]))
            case KnownMet():
                suite.put(_of_known(event.bucket, KNOWN, event.reason or UNSAID))
            case Gone():
                text = f"{event.program} does not show it any more"
                suite.put(_of_known(event.bucket, GONE, f"gone: {event.reason or UNSAID}", text))
            case Expired():
                suite.put(_of_known(event.bucket, EXPIRED, overdue(event.since, event.reason)))
            case Doubted():
                suite.doubt(event.bucket, f"{event.bucket or 'all'}: {event.reason}")
            case WorkerLost():
                suite.notes.append(f"a worker was lost, whose share began with seed {event.seed}: {event.reason}")
            case DatabaseLost():
                suite.notes.append(event.reason)
            case ProgramJudged():
                suite.put(_judged(event))
            case Ended():
                suite.ended, suite.interrupted = True, event.interrupted
            case _:  # a confirmation: nothing else was assumed; a beginning with other programs
                return False
        return True


def _of_known(bucket: str, state: str, message: str, text: str = "") -> Case:
    invariant = INVARIANTS.get(invariant_of(bucket))
    return Case(bucket, state, message, text, invariant.severity if invariant else "")


def _found(outcome: Outcome) -> Case:
    case = Case(outcome.bucket, FAILED, outcome.bucket, outcome=outcome, file=str(outcome.file or ""))
    out = io.StringIO()
    if isinstance(outcome, Finding):
        violation = outcome.violation
        case.message, case.severity = f"{violation.invariant}: {violation.message}", violation.severity
        finding.explanation(console(out), outcome)
    elif isinstance(outcome, Discrepancy):
        case.message = outcome.difference.message
        differences.explanation(console(out), outcome)
    case.text = out.getvalue().strip("\n")
    return case


def _judged(event: ProgramJudged) -> Case:
    state = SKIPPED if event.ok is None else PASSED if event.ok else FAILED
    return Case(event.name or event.file, state, event.text, event.trace, event.severity, file=event.file)
