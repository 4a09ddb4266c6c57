"""A search by several processes, each with an engine and a seed of its own.

They share nothing while they search.  Every few seconds, or when it has found something, a process reports and gets
another share of the work, with all that is known by then.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from xfdfuzz.engines.processes.interrupt import PatientInterrupt
from xfdfuzz.engines.processes.residents import resident
from xfdfuzz.engines.processes.workers import users_errors_named
from xfdfuzz.engines.search.campaign import Campaign, D
from xfdfuzz.engines.search.hunt import KINDS, Shrunk, discoveries, imports_out_of_the_collectors_way
from xfdfuzz.engines.search.plan import Budget, Plan, Spent
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.program.text import format_program, parse

#: Makes the campaign in whatever process it is called; travels, so it holds names and addresses only.
Recipe = Callable[[], Campaign[Any]]

#: A share is so many examples, a turn of each engine, or so many seconds, whichever is over first.
_EXAMPLES, _SECONDS = 2_100, 5.0
#: Seconds between two looks at how the search gets on.
_PAUSE = 0.25


class Share(NamedTuple):
    """What a process searches next; ``search`` tells one search of the process from the ones before.

    ``plan`` has the seed of the process and the limits of the share.
    """

    search: str
    recipe: Recipe
    plan: Plan
    known: frozenset[str]


class Gain(NamedTuple):
    """What came of a share: (discovery, the text of its program, engine) for each, what was executed, which of the
    known buckets showed."""

    found: tuple[tuple[Any, str, str], ...]
    stats: Stats
    met: frozenset[str]


class _Member:
    """This process' part of a search: it goes on with each share where it was."""

    def __init__(self, share: Share) -> None:
        self._campaign = share.recipe()
        self._engine = KINDS[share.plan.engine](self._campaign, share.plan.seed, share.plan.steps)

    def take(self, share: Share) -> Gain:
        """Search until something is found or the share is used up."""
        budget = share.plan.budget()
        self._campaign.learn(share.known)
        stats = self._campaign.count_anew()
        found: list[Shrunk[Any]] = []
        with suppress(Spent), self._campaign.after_each_example(budget.spend_example):
            while not found:
                found = [*discoveries(self._campaign, self._engine)]
        described = tuple((one.discovery, format_program(one.program), one.engine) for one in found)
        return Gain(described, stats, frozenset(self._campaign.met))


def take(share: Share) -> Gain:
    """Search in this process; its part of the search begins with the first share, whose seed it gets."""
    with users_errors_named(), imports_out_of_the_collectors_way():
        return resident(_Member, share.search, lambda: _Member(share)).take(share)


def hunt_together(
    campaign: Campaign[D],
    plan: Plan,
    on_progress: Callable[[], None],
    on_discovery: Callable[[Shrunk[D]], None],
    *,
    recipe: Recipe,
    pool: Executor,
) -> bool:
    """As :func:`~xfdfuzz.engines.search.hunt.hunt`, by processes of a pool, which make their campaigns by ``recipe``.

    The plan's seed gives the processes the same seeds again, not the same programs: who finds what first is a matter
    of time.  After Ctrl-C the shares that are under way come to their ends.
    """
    shares = _Shares(campaign, plan, recipe, pool)
    interrupted = False
    with PatientInterrupt(everywhere=True) as ctrl_c, campaign.timed():
        while True:
            if not interrupted:
                shares.hand_out()
            if not shares.pending:
                return interrupted
            done, _ = wait(shares.pending, timeout=_PAUSE, return_when=FIRST_COMPLETED)
            for future in done:
                for shrunk in shares.take_in(future):
                    on_discovery(shrunk)
            on_progress()
            interrupted |= ctrl_c.pressed


@dataclass
class _Shares:
    """Those that are under way, with the examples promised for each."""

    campaign: Campaign[Any]
    plan: Plan
    recipe: Recipe
    pool: Executor
    pending: dict[Future[Gain], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._budget: Budget = self.plan.budget()
        self._seeds = itertools.count(self.plan.seed << 8)
        self._search = uuid.uuid4().hex

    def hand_out(self) -> None:
        """A share to every process that has none, while there is work left."""
        while len(self.pending) < self.plan.workers:
            promised = self.campaign.stats.examples + sum(self.pending.values())
            examples = _EXAMPLES if self.plan.examples is None else min(_EXAMPLES, self.plan.examples - promised)
            seconds = _SECONDS
            if self.plan.seconds is not None:
                seconds = min(_SECONDS, self.plan.seconds - self._budget.elapsed)
            if examples <= 0 or seconds <= 0:
                return
            plan = replace(self.plan, seed=next(self._seeds), examples=examples, seconds=seconds)
            share = Share(self._search, self.recipe, plan, frozenset(self.campaign.known))
            self.pending[self.pool.submit(take, share)] = examples

    def take_in(self, future: Future[Gain]) -> Iterator[Shrunk[Any]]:
        """What a process reports that no other has found before."""
        del self.pending[future]
        gain = future.result()
        self.campaign.stats.add(gain.stats)
        self.campaign.met |= gain.met
        for discovery, text, engine in gain.found:
            if self.campaign.is_new(discovery):
                self.campaign.learn([discovery.bucket])
                yield Shrunk(discovery, parse(text), engine)
