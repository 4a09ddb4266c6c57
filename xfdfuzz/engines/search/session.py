"""A whole search: made as planned, in this process or in several, and what it found confirmed by a fresh one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic

from xfdfuzz.engines.judge.confirm import Confirmer
from xfdfuzz.engines.processes.answering import answers_within
from xfdfuzz.engines.processes.interrupt import PatientInterrupt
from xfdfuzz.engines.processes.workers import crew
from xfdfuzz.engines.search.campaign import Campaign
from xfdfuzz.engines.search.database import Database, Kept
from xfdfuzz.engines.search.hunt import Shrunk, hunt
from xfdfuzz.engines.search.parallel import Lost, Recipe, hunt_together
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.reached import Reached
from xfdfuzz.engines.search.report import F, Report, label_of
from xfdfuzz.engines.stream.events import (
    Began,
    Confirmed,
    DatabaseLost,
    Doubted,
    Ended,
    Found,
    KnownMet,
    Listener,
    Progressed,
    Replayed,
    Stuck,
    Waiting,
    WorkerLost,
)
from xfdfuzz.engines.stream.known import NOTHING, Known
from xfdfuzz.invariants.vocabulary import InvariantError, NoAnswer
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision

#: Seconds between two events that say how the search gets on.
_PAUSE = 0.25
#: The part of its time that a search has to say what follows from what.
_RELATING = 0.04

#: Says which of what was found follows from what, as far as there is time.
Relate = Callable[[Sequence[F], Callable[[], bool]], Mapping[F, F]]


def search(
    campaign: Campaign[Any],
    plan: Plan,
    revisions: tuple[Revision, ...],
    outcome: Callable[[Shrunk[Any]], F],
    recipe: Recipe,
    tell: Listener,
    databases: Sequence[Database] = (),
    known: Known = NOTHING,
    relate: Relate[F] | None = None,
) -> Report[F]:
    """Search as planned; ``outcome`` makes of a discovery what ``tell`` is given at once.

    The search begins with the programs that ``databases`` keep for it; those that find something, or reach what none
    has reached, go there.  ``recipe`` makes the campaign in other processes.  Ctrl-C ends the search in an orderly way.
    Raises InvariantError where a user's function raises something, or does not return.
    """
    label, budget = label_of(revisions), plan.budget()
    with PatientInterrupt(everywhere=True) as ctrl_c:
        tell(Began(label, revisions, vars(plan), len(known)))
        known.tell(label, tell)
        kept = Kept(databases, revisions, lambda reason: tell(DatabaseLost(label, reason)))
        programs = kept.programs()
        if databases:
            campaign.reached = Reached()
            tell(Replayed(label, len(programs), kept.skipped))
        with Confirmer(*revisions) as confirmer:
            teller = _Teller(label, campaign, outcome, confirmer, tell, kept, known)
            try:
                ctrl_c.pressed |= _hunt(campaign, _shorter(plan) if relate else plan, recipe, teller, programs)
                with answers_within(plan.step_timeout):
                    reach = campaign.reach(one.program for one in teller.found)
                    roots = relate(teller.found, lambda: budget.in_time() and not ctrl_c.pressed) if relate else {}
            except NoAnswer as error:
                tell(Stuck(label, str(error), error.program))
                raise InvariantError(str(error)) from None
            teller.finish(ctrl_c)
        met = frozenset(known.reasons) & campaign.met
        found, doubts = tuple(teller.found), tuple(teller.doubts)
        report = Report(
            revisions, plan, campaign.stats, found, ctrl_c.pressed, doubts, known, met, roots=roots, reach=reach
        )
        tell(Ended(label, report, report.interrupted))
        return report


def _hunt(
    campaign: Campaign[Any], plan: Plan, recipe: Recipe, teller: _Teller[Any], programs: Sequence[Program]
) -> bool:
    """Hunt, in this process or in several; whether Ctrl-C ended it."""
    if plan.workers == 1 and plan.executor is None:
        return hunt(campaign, plan, teller.progress, teller.discovered, programs)
    with crew(plan.workers, plan.step_timeout, plan.executor) as members:
        return hunt_together(
            campaign,
            plan,
            teller.progress,
            teller.discovered,
            recipe=recipe,
            members=members,
            programs=programs,
            on_lost=teller.lost,
            on_waiting=teller.waiting,
        )


def _shorter(plan: Plan) -> Plan:
    """With time left for :data:`Relate`."""
    return plan if plan.seconds is None else replace(plan, seconds=plan.seconds * (1 - _RELATING))


class _Teller(Generic[F]):
    """Makes events of what a hunt comes across."""

    def __init__(
        self,
        label: str,
        campaign: Campaign[Any],
        outcome: Callable[[Shrunk[Any]], F],
        confirmer: Confirmer,
        tell: Listener,
        kept: Kept,
        known: Known,
    ) -> None:
        self._label, self._campaign, self._outcome = label, campaign, outcome
        self._confirmer, self._tell, self._kept = confirmer, tell, kept
        #: Those that nothing was said of so far.
        self._known = frozenset() if known.replayed else frozenset(known.reasons)
        self._next = 0.0
        self.found: list[F] = []
        #: A line for each reason not to rely on what was found.
        self.doubts: dict[str, None] = {}

    def discovered(self, shrunk: Shrunk[Any]) -> None:
        """Something new; Ctrl-C waits until all have been told."""
        with PatientInterrupt(everywhere=True):
            self.found.append(self._outcome(shrunk))
            self._tell(Found(self._label, self.found[-1]))
            self._confirmer.ask(self.found[-1].bucket, self.found[-1].program)
            self._kept.keep(self.found[-1].program)

    def lost(self, lost: Lost) -> None:
        """A worker died."""
        self._tell(WorkerLost(self._label, lost.seed, lost.reason))

    def waiting(self) -> None:
        """The last reports of the workers are waited for."""
        self._tell(Waiting(self._label))

    def progress(self) -> None:
        """Tell how the search gets on, if the last time is long enough ago; called after each example."""
        if time.monotonic() >= self._next:
            with PatientInterrupt(everywhere=True):
                self._look()
            self._next = time.monotonic() + _PAUSE

    def finish(self, ctrl_c: PatientInterrupt) -> None:
        """Wait until everything is confirmed or doubted, not long once Ctrl-C has come."""
        self._look()
        for answer in self._confirmer.last_answers(lambda: ctrl_c.pressed):
            self._answered(*answer)

    def _look(self) -> None:
        """Tell what is known by now."""
        stats = self._campaign.stats
        for answer in self._confirmer.answers():
            self._answered(*answer)
        for first in self._campaign.reached.take() if self._campaign.reached else ():
            self._kept.keep(first.program)
        for bucket in sorted(self._campaign.met & self._known):
            self._known -= {bucket}
            self._tell(KnownMet(self._label, bucket))
        counts = {"examples": stats.examples, "steps": stats.steps, "pairs": stats.pairs}
        self._tell(Progressed(self._label, stats.seconds, counts, len(self.found)))

    def _answered(self, bucket: str, doubt: str) -> None:
        if doubt:
            self.doubts[doubt] = None
        self._tell(Doubted(self._label, bucket, doubt) if doubt else Confirmed(self._label, bucket))
