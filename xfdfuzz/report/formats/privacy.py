"""What may be a vulnerability of a current kernel, and is not shown where the public reads (SECURITY.md)."""

from __future__ import annotations

from collections.abc import Iterable

from xfdfuzz.engines.judge.finding import Discrepancy, Finding
from xfdfuzz.engines.judge.verdict import Verdict, judge
from xfdfuzz.engines.stream.events import Outcome
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import ALIASES, Revision, concerns, resolve

#: The severities of what an attacker could use.
SEVERE = ("panic", "corruption", "leak")
#: The newest kernel that is modelled.
CURRENT = ALIASES["mainline"]


def may_be_vulnerable(outcome: Outcome) -> bool:
    """Whether it shows something severe on the newest mainline.

    A finding on a kernel that stands on it, cured or from outside, is one of its own until somebody has looked; one on
    another kernel is if its program shows the same bucket there.  Of a difference, any severe violation counts.
    """
    if isinstance(outcome, Finding):
        if outcome.violation.severity not in SEVERE:
            return False
        return on_current([outcome.revision]) or outcome.bucket in _severe(outcome.program, resolve(CURRENT))
    if isinstance(outcome, Discrepancy):
        kernels = [revision for revision in outcome.pair if on_current([revision])] or [resolve(CURRENT)]
        return any(_severe(outcome.program, kernel) for kernel in kernels)
    return True


def severe_on_current(verdict: Verdict) -> bool:
    """Whether something severe is broken on the newest mainline, or on a kernel that stands on it."""
    return on_current([verdict.revision]) and any(one.severity in SEVERE for one in verdict.violations)


def on_current(revisions: Iterable[Revision]) -> bool:
    """Whether one of them is the newest mainline, or stands on it."""
    return any(concerns(CURRENT, revision.name) for revision in revisions)


def _severe(program: Program, revision: Revision) -> set[str]:
    """The buckets of the severe violations of a program."""
    violations = judge(program, revision, expectations=False).violations
    return {violation.bucket for violation in violations if violation.severity in SEVERE}
