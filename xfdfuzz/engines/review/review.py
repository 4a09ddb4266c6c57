"""The review of a series: everything that a reviewer asks, answered within a time, half exploring and half fuzzing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any, NamedTuple

from xfdfuzz.engines.explore.search import Search
from xfdfuzz.engines.judge.finding import Discrepancy, Finding
from xfdfuzz.engines.judge.lockstep import Pair
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.processes.workers import invariant_files
from xfdfuzz.engines.review.biography import Biography, biography
from xfdfuzz.engines.review.change import Change, Written
from xfdfuzz.engines.review.outcomes import Outcome, Outcomes, clearing, outcomes
from xfdfuzz.engines.review.sites import Site, sites
from xfdfuzz.engines.review.space import Space, explored
from xfdfuzz.engines.review.subjects import Subject
from xfdfuzz.engines.review.warnings import Verdict, Warnings, warnings, warnings_met
from xfdfuzz.engines.search import reach
from xfdfuzz.engines.search.differences import diff
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.report import Report
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.engines.search.violations import ViolationCampaign, campaign_on, search_violations
from xfdfuzz.engines.stream.events import Listener, Progressed, unheard
from xfdfuzz.engines.stream.known import NOTHING
from xfdfuzz.invariants.loading import load
from xfdfuzz.revisions import Revision
from xfdfuzz.revisions.table import named

#: The scope that is explored on both revisions; the biographies are about it.
SCOPE = "tiny"
#: Parts of the time: exploring the scope at most, on the base at most, comparing, fuzzing, and of what is then left the
#: WARN sites.  The biographies get the rest.
_EXPLORE, _BASE, _COMPARE, _FUZZ, _WARN = 0.25, 0.1, 0.15, 0.35, 0.3
#: Relations that a short biography tells.
_RELATIONS = 5
#: States of which a biography is made in a second, before one was made.
_PACE = 4_000.0


class Life(NamedTuple):
    """The short biography of a field, and with which results of ops it is cleared."""

    biography: Biography
    cleared: tuple[Outcome, ...]


@dataclass(frozen=True)
class Review:
    """What is known of a series, a part for each question; None, or nothing, where an interrupt came before.

    ``old`` are the findings whose program breaks the same on the base.  ``touched`` are the WARN sites in what
    the series changes.  ``untold`` are fields for whose biography no time was left.
    """

    revision: Revision
    base: Revision
    plan: Plan
    replaced: Mapping[str, Sequence[str]]
    gone: Sequence[str]
    unread: Sequence[str]
    written: Written
    promises: Sequence[str]
    touched: frozenset[Site]
    outcomes: Outcomes | None = None
    differences: Report[Discrepancy] | None = None
    findings: Report[Finding] | None = None
    old: frozenset[Finding] = frozenset()
    warnings: Warnings | None = None
    lives: tuple[Life, ...] = ()
    untold: tuple[Subject, ...] = ()
    reach: reach.Reach | None = None
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def new(self) -> list[Finding]:
        """The findings that the base does not have."""
        return [one for one in self.findings.found if one not in self.old] if self.findings else []

    @property
    def roots(self) -> Mapping[Finding, Finding]:
        """For each of them that follows from another one of them, that one."""
        roots = self.findings.roots if self.findings else {}
        return {one: root for one, root in roots.items() if one not in self.old and root not in self.old}

    @property
    def visible(self) -> list[Discrepancy]:
        """The differences in what user space gets: what is broken or warned of on one side alone is told as such."""
        found = self.differences.found if self.differences else ()
        return [one for one in found if "nothing" not in (one.difference.first, one.difference.second)]

    @property
    def fires(self) -> list[Verdict]:
        """The WARN sites in what the series changes that fire."""
        verdicts = self.warnings.verdicts if self.warnings else ()
        return [one for one in verdicts if one.fires and one.site in self.touched]


def review(
    revision: Revision,
    base: Revision,
    plan: Plan,
    *,
    tell: Listener = unheard,
    say: Callable[[str], None] = lambda what: None,
    keep: Callable[[Any], Any] = lambda found: found,
) -> Review:
    """Review a revision against another one for the plan's seconds; Ctrl-C ends it with what there is.

    With examples in place of seconds, each search has so many, and the scope is explored whatever that takes.

    ``tell`` hears of all searches, ``say`` what comes next, ``keep`` gives what was found with the file in which it is
    saved.
    """
    load()
    reviewer = _Reviewer(revision, base, plan, tell, say, keep)
    try:
        for part in reviewer.parts():
            part()
    except KeyboardInterrupt:
        reviewer.interrupted()
    return reviewer.result()


class _Interrupted(KeyboardInterrupt):
    """A search was interrupted, which it only says."""


@dataclass
class _Reviewer:
    """What is known so far."""

    revision: Revision
    base: Revision
    plan: Plan
    tell: Listener
    say: Callable[[str], None]
    keep: Callable[[Any], Any]
    _space: Space | None = None
    _known: dict[str, Any] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    def parts(self) -> Iterator[Callable[[], None]]:
        """What is to be done, in turn; what the reader is told comes in another order."""
        yield from (self._explore, self._compare, self._fuzz, self._warn, self._describe)

    def note(self, **parts: Any) -> None:
        """Parts of the review that are known now."""
        self._known |= parts

    def interrupted(self) -> None:
        """What is known without any more searching."""
        self.note(interrupted=True)
        if self._space is not None and "warnings" not in self._known:
            self.note(warnings=warnings_met(self._space))

    def result(self) -> Review:
        """The review."""
        change = Change(self.base, self.revision)
        return Review(
            self.revision,
            self.base,
            self.plan,
            change.replaced(),
            change.gone(),
            change.unread(),
            change.written(),
            tuple(named(self.revision.name).promises),
            frozenset(site for site in sites(self.revision) if change.touches(site)),
            **self._known,
            reach=self._reach(),
            seconds=time.monotonic() - self._began,
        )

    @property
    def _left(self) -> float:
        """Seconds; there is no end to them where examples are counted."""
        return inf if self.plan.seconds is None else self.plan.seconds - (time.monotonic() - self._began)

    def _for(self, share: float, of: float | None = None) -> Plan:
        """The plan for a part of all seconds, or of so many; a search may always begin."""
        if self.plan.seconds is None:
            return self.plan
        return replace(self.plan, seconds=max((self.plan.seconds if of is None else of) * share, 0.1))

    def _explore(self) -> None:
        self._space = self._explored(self.revision, _EXPLORE)
        if self._space.interrupted:
            raise _Interrupted
        base = self._explored(self.base, _BASE)
        self.note(outcomes=outcomes(base, self._space))
        if base.interrupted:
            raise _Interrupted

    def _explored(self, revision: Revision, share: float) -> Space:
        self.say(f"exploring {SCOPE} on {revision.label}")
        return explored(revision, SCOPE, self._for(share).seconds, self._progressed(f"{revision.label} {SCOPE}"))

    def _progressed(self, label: str) -> Callable[[Search], None]:
        def progressed(search: Search) -> None:
            counts = {"depth": search.depth, "states": len(search.store), "transitions": search.transitions}
            self.tell(Progressed(label, search.seconds, counts | {"waiting": search.frontier}, len(search.breaches)))

        return progressed

    def _compare(self) -> None:
        self.say(f"comparing {self.base.label} and {self.revision.label}")
        found = diff(Pair(self.base, self.revision), self._for(_COMPARE), self.tell).with_each(self.keep)
        self._searched(differences=found)

    def _fuzz(self) -> None:
        self.say(f"fuzzing {self.revision.label}")
        campaign = ViolationCampaign(revision=self.revision, against=self.base.kernel)
        recipe = partial(campaign_on, self.revision.address, invariant_files())
        found = search_violations(campaign, recipe, self._for(_FUZZ), self.tell, (), NOTHING).with_each(self.keep)
        self.note(old=frozenset(one for one in found.found if self._on_base(one)))
        self._searched(findings=found)

    def _on_base(self, found: Finding) -> bool:
        return found.bucket in judge(found.program, self.base, expectations=False).buckets

    def _searched(self, **report: Report[Any]) -> None:
        self.note(**report)
        if any(one.interrupted for one in report.values()):
            raise _Interrupted

    def _warn(self) -> None:
        assert self._space is not None
        self.say("looking at each WARN")
        plan = replace(self._for(_WARN, self._left), engine="scout")
        elsewhere = () if plan.seconds is None else None
        found = warnings(self.revision, plan, self._space, elsewhere=elsewhere, tell=self.say)
        self.note(warnings=found)
        if found.interrupted:
            raise _Interrupted

    def _describe(self) -> None:
        assert self._space is not None
        left = list(Change(self.base, self.revision).written().anew)
        self.note(untold=tuple(left))
        needed = len(self._space.states) / _PACE
        lives: list[Life] = []
        while left and needed < self._left:
            began = time.monotonic()
            plan = self._for(1 / 2, self._left / len(left) - needed)
            self.say(f"describing {left[0].path}")
            lives.append(self._life(left.pop(0), replace(plan, engine="scout")))
            needed = max(needed, time.monotonic() - began - (plan.seconds or 0))
            self.note(lives=tuple(lives), untold=tuple(left))
            if lives[-1].biography.interrupted:
                raise _Interrupted

    def _life(self, subject: Subject, plan: Plan) -> Life:
        assert self._space is not None
        found = biography(subject, self._space, plan, elsewhere=(), shown=_RELATIONS)
        return Life(found, clearing(self._space, subject))

    def _reach(self) -> reach.Reach | None:
        """How far all searches together came into what differs."""
        stats = Stats()
        for report in (self._known.get("differences"), self._known.get("findings")):
            if report is not None:
                stats.add(report.stats)
        return reach.Change(self.base.kernel, self.revision.kernel).reach(stats) if stats.steps else None
