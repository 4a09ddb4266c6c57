"""What may be a vulnerability of a current kernel, and is not shown where the public reads (SECURITY.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from xfdfuzz.engines.judge.finding import Discrepancy, Finding
from xfdfuzz.engines.judge.verdict import Verdict, judge
from xfdfuzz.engines.stream.events import (
    Began,
    Confirmed,
    Doubted,
    Ended,
    Event,
    Found,
    Listener,
    Outcome,
    ProgramJudged,
    Withheld,
)
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import ALIASES, Revision, concerns, resolve

#: The severities of what an attacker could use.
SEVERE = ("panic", "corruption", "leak")
#: The newest kernel that is modelled.
CURRENT = ALIASES["mainline"]


def may_be_vulnerable(outcome: Outcome) -> bool:
    """Whether it, or anything else that its program breaks, is severe on the newest mainline.

    What is found on a kernel that stands on it, cured or from outside, is as good as found there until somebody has
    looked.
    """
    if isinstance(outcome, Finding):
        kernels: Sequence[Revision] = [outcome.revision]
        if outcome.violation.severity in SEVERE and on_current(kernels):
            return True
    elif isinstance(outcome, Discrepancy):
        kernels = [*outcome.pair]
    else:
        return True
    return not for_everybody(outcome.program, kernels)


def for_everybody(program: Program, revisions: Sequence[Revision]) -> bool:
    """Whether a program, which was tried on those, breaks nothing severe on those of them that stand on the newest
    mainline, or on that itself if none does."""
    current = [revision for revision in revisions if on_current([revision])] or [resolve(CURRENT)]
    return not any(_breaks_severely(program, revision) for revision in current)


def severe_on_current(verdict: Verdict) -> bool:
    """Whether something severe is broken on the newest mainline, or on what stands on it."""
    return on_current([verdict.revision]) and any(one.severity in SEVERE for one in verdict.violations)


def on_current(revisions: Iterable[Revision]) -> bool:
    """Whether one of them is the newest mainline, or stands on it."""
    return any(concerns(CURRENT, revision.name) for revision in revisions)


def _breaks_severely(program: Program, revision: Revision) -> bool:
    violations = judge(program, revision, expectations=False).violations
    return any(violation.severity in SEVERE for violation in violations)


def fails_in_private(event: ProgramJudged, current: bool) -> bool:
    """Whether a program fails by something severe, on the newest mainline or on what stands on it."""
    return current and event.ok is False and event.severity in SEVERE


def not_shown(count: int, place: str = "") -> str:
    """How many findings are not shown, why, and how to read them, in a line."""
    findings = "1 finding is" if count == 1 else f"{count} findings are"
    saved = f", saved in {place}" if place else ""
    return (
        f"{findings} not shown here{saved}: each may be a vulnerability of {CURRENT}. SECURITY.md says what to do; "
        "repeat the run where nobody else reads, with the same seed and --publish"
    )


class Discreet:
    """A listener that is told of what may be a vulnerability of a current kernel only that there is something.

    ``place`` is where a search saves it.
    """

    def __init__(self, listener: Listener, place: str) -> None:
        self._listener, self._place = listener, place
        #: The label and the bucket of each.
        self._private: set[tuple[str, str]] = set()
        #: Labels of what stands on the newest mainline.
        self._current: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Pass on what is for everybody."""
        if isinstance(event, Began) and on_current(event.revisions):
            self._current.add(event.label)
        elif isinstance(event, Found) and may_be_vulnerable(event.outcome):
            self._private.add((event.label, event.outcome.bucket))
            event = Withheld(event.label, self._place)
        elif isinstance(event, Confirmed | Doubted) and (event.label, event.bucket) in self._private:
            return
        elif isinstance(event, Ended) and event.result is not None:
            event = replace(event, result=event.result.without(may_be_vulnerable))
        elif isinstance(event, ProgramJudged) and fails_in_private(event, event.label in self._current):
            event = Withheld(event.label, "")
        self._listener(event)
