"""A search by several processes, each with an engine and a seed of its own.

They share nothing while they search.  Every few seconds, or when it has found something, a process reports and gets
another share of the work, with all that is known by then.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from xfdfuzz.engines.processes.interrupt import PatientInterrupt, Recall
from xfdfuzz.engines.processes.pool import Member
from xfdfuzz.engines.processes.residents import resident
from xfdfuzz.engines.processes.workers import users_errors_named
from xfdfuzz.engines.search.campaign import Campaign, D
from xfdfuzz.engines.search.hunt import Shrunk, discoveries, engine_for, imports_out_of_the_collectors_way
from xfdfuzz.engines.search.plan import Budget, Plan, Spent
from xfdfuzz.engines.search.precedence import Precedence
from xfdfuzz.engines.search.reached import First, Reached
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_program, parse

#: Makes the campaign in whatever process it is called; travels, so it holds names and addresses only.
Recipe = Callable[[], Campaign[Any]]

#: A share is so many examples, a turn of each engine, or so many seconds, whichever is over first.
_EXAMPLES, _SECONDS = 2_100, 5.0
#: Seconds between two looks at how the search gets on.
_PAUSE = 0.25
#: Seconds that the last reports may take after Ctrl-C.
_LAST_REPORTS = 2.0
#: So many processes in a row may die for each member.
_DEATHS = 3


class Share(NamedTuple):
    """What a process searches next; ``search`` tells one search of the process from the ones before.

    ``plan`` has the seed of the process and the limits of the share, ``rest`` the seconds that shrinking has.
    ``programs`` are texts of what a process that begins tries first, ``reached`` what was reached so far; None: nobody
    wants to know.
    """

    search: str
    recipe: Recipe
    plan: Plan
    known: frozenset[str]
    rest: float | None = None
    programs: tuple[str, ...] = ()
    reached: frozenset[str] | None = None


class Gain(NamedTuple):
    """What came of a share: (discovery, the text of its program, engine) for each, what was executed, which of the
    known buckets showed; all that was reached for the first time, and by which programs, those that are kept already
    left out; what the process has seen broken before what."""

    found: tuple[tuple[Any, str, str], ...]
    stats: Stats
    met: frozenset[str]
    reached: frozenset[str] = frozenset()
    firsts: tuple[tuple[frozenset[str], str], ...] = ()
    precedence: Precedence = Precedence()


class _Searcher:
    """This process' part of a search: it goes on with each share where it was."""

    def __init__(self, share: Share) -> None:
        self._campaign = share.recipe()
        self._engine = engine_for(self._campaign, share.plan, map(parse, share.programs))

    def take(self, share: Share, recall: Recall) -> Gain:
        """Search until something is found, the share is used up, or a report is asked for."""
        budget = share.plan.budget()
        self._campaign.in_time = lambda: share.rest is None or budget.elapsed < share.rest

        def report_now() -> None:
            if recall.asked:
                raise Spent(budget)

        self._campaign.learn(share.known)
        self._campaign.reached = reached = None if share.reached is None else Reached(share.reached)
        stats = self._campaign.count_anew()
        found: list[Shrunk[Any]] = []
        watches = (report_now, budget.spend_example)
        with suppress(Spent), self._campaign.watched(), self._campaign.after_each_example(*watches):
            while not found:
                found = [*discoveries(self._campaign, self._engine)]
        described = tuple((one.discovery, format_program(one.program), one.engine) for one in found)
        gain = Gain(described, stats, frozenset(self._campaign.met), precedence=self._campaign.precedence)
        if reached is None or share.reached is None:
            return gain
        firsts = tuple((first.news, format_program(first.program)) for first in reached.take())
        return gain._replace(reached=frozenset(reached.all - share.reached), firsts=firsts)


def take(share: Share) -> Gain:
    """Search in this process; its part of the search begins with the first share, whose seed it gets."""
    with users_errors_named(), imports_out_of_the_collectors_way(), Recall() as recall:
        return resident(_Searcher, share.search, lambda: _Searcher(share)).take(share, recall)


class Lost(NamedTuple):
    """A member's process died: the seed that it began with, and why."""

    seed: int
    reason: str


def hunt_together(
    campaign: Campaign[D],
    plan: Plan,
    on_progress: Callable[[], None],
    on_discovery: Callable[[Shrunk[D]], None],
    *,
    recipe: Recipe,
    members: Sequence[Member],
    programs: Sequence[Program] = (),
    on_lost: Callable[[Lost], None] = lambda lost: None,
    on_waiting: Callable[[], None] = lambda: None,
) -> bool:
    """As :func:`~xfdfuzz.engines.search.hunt.hunt`, by several members, which make their campaigns by ``recipe`` and
    begin with their parts of ``programs``.

    The plan's seed gives them the same seeds again, not the same programs: who finds what first is a matter of time.
    One whose process dies loses what it had not reported, and begins anew with another seed.  After Ctrl-C all report
    once more, which ``on_waiting`` is told; who does not soon is given up.  Raises BrokenExecutor where processes do
    nothing but die.
    """
    texts = [*map(format_program, programs)]
    places = [_Place(member, texts[number :: len(members)]) for number, member in enumerate(members)]
    shares = _Shares(campaign, plan, recipe, places, on_lost)
    given_up: float | None = None
    with PatientInterrupt(everywhere=True) as ctrl_c, campaign.timed() as look_at_the_clock:
        while True:
            waits = False
            if not ctrl_c.pressed:
                waits = shares.hand_out()
            elif given_up is None:
                given_up = time.monotonic() + _LAST_REPORTS
                shares.recall()
                if shares.pending:
                    on_waiting()
            if not (shares.pending or waits) or (given_up is not None and time.monotonic() > given_up):
                return ctrl_c.pressed
            if not shares.pending:
                time.sleep(_PAUSE)
            done, _ = wait(shares.pending, timeout=_PAUSE, return_when=FIRST_COMPLETED)
            for future in done:
                for shrunk in shares.take_in(future):
                    on_discovery(shrunk)
            look_at_the_clock()  # the examples are elsewhere
            on_progress()


@dataclass
class _Place:
    """A member, the texts of what it has yet to begin with, and the seed that its process began with; None: it has yet
    to begin."""

    member: Member
    programs: list[str]
    seed: int | None = None


class _Promise(NamedTuple):
    """Who has a share, and how many examples it is."""

    place: _Place
    examples: int


@dataclass
class _Shares:
    """Those that are under way."""

    campaign: Campaign[Any]
    plan: Plan
    recipe: Recipe
    places: list[_Place]
    on_lost: Callable[[Lost], None]
    pending: dict[Future[Gain], _Promise] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._budget: Budget = self.plan.budget()
        self._seeds = itertools.count(self.plan.seed << 8)
        self._search = uuid.uuid4().hex
        self._deaths = 0

    def hand_out(self) -> bool:
        """A share to every member that has none, while there is work left; whether any work waits for a member."""
        waits = False
        busy = {id(promise.place) for promise in self.pending.values()}
        for place in self.places:
            if id(place) in busy:
                continue
            promised = self.campaign.stats.examples + sum(promise.examples for promise in self.pending.values())
            examples = _EXAMPLES if self.plan.examples is None else min(_EXAMPLES, self.plan.examples - promised)
            seconds = _SECONDS
            if self.plan.seconds is not None:
                seconds = min(_SECONDS, self.plan.seconds - self._budget.elapsed)
            if examples <= 0 or seconds <= 0:
                return False
            if not place.member.ready:
                waits = True
                continue
            if place.seed is None:
                place.seed = next(self._seeds)
            plan = replace(self.plan, seed=place.seed, examples=examples, seconds=seconds)
            known, reached = frozenset(self.campaign.known), self.campaign.reached
            share = Share(
                self._search,
                self.recipe,
                plan,
                known,
                self._budget.rest,
                tuple(place.programs),
                frozenset(reached.all) if reached else None,
            )
            place.programs = []
            self.pending[place.member.submit(take, share)] = _Promise(place, examples)
        return waits

    def recall(self) -> None:
        """Let all report now."""
        for promise in self.pending.values():
            promise.place.member.recall()

    def take_in(self, future: Future[Gain]) -> Iterator[Shrunk[Any]]:
        """What a member reports that no other has found before."""
        place = self.pending.pop(future).place
        try:
            gain = future.result()
        except BrokenExecutor as error:
            self._lost(place, error)
            return
        self._deaths = 0
        self.campaign.stats.add(gain.stats)
        self.campaign.met |= gain.met
        self.campaign.precedence.add(gain.precedence)
        if self.campaign.reached is not None:
            for news, text in gain.firsts:
                self.campaign.reached.add(First(news, parse(text)))
            self.campaign.reached.all |= gain.reached
        for discovery, text, engine in gain.found:
            if self.campaign.is_new(discovery):
                self.campaign.learn([self.campaign.key(discovery)])
                yield Shrunk(discovery, parse(text), engine)

    def _lost(self, place: _Place, error: BrokenExecutor) -> None:
        """Let the place be filled again, unless all that is filled into it dies."""
        self._deaths += 1
        if self._deaths > _DEATHS * len(self.places):
            raise error
        assert place.seed is not None
        self.on_lost(Lost(place.seed, str(error)))
        place.seed = None
