"""A search by several processes, each with an engine and a seed of its own.

They share nothing while they search.  Every few seconds, or when it has found something, a process reports and gets
another share of the work, with all that is known by then.
"""

from __future__ import annotations

import functools
import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xfdfuzz.engines.processes.interrupt import PatientInterrupt
from xfdfuzz.engines.processes.workers import users_errors_named
from xfdfuzz.engines.search.campaign import Campaign, N, OutOfTime, Stats
from xfdfuzz.engines.search.hunt import KINDS, Engine, imports_out_of_the_collectors_way, next_news
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_program, parse

#: Makes the campaign in whatever process it is called; travels, so it holds names and addresses only.
Recipe = Callable[[], Campaign[Any]]

#: A share is so many examples, a turn of each engine, or so many seconds, whichever is over first.
_EXAMPLES, _SECONDS = 2_100, 5.0
#: Seconds between two looks at how the search gets on.
_PAUSE = 0.25


class Share(NamedTuple):
    """What a process searches next; ``search`` tells one search of the process from the ones before."""

    search: str
    recipe: Recipe
    engine: str
    seed: int
    steps: int
    examples: int
    seconds: float
    known: frozenset[str]


class Gain(NamedTuple):
    """What came of a share: (news, the text of its program, engine) for each, and what was executed."""

    found: tuple[tuple[Any, str, str], ...]
    stats: Stats


class _Member:
    """This process' part of a search: it goes on with each share where it was."""

    def __init__(self, share: Share) -> None:
        self._campaign = share.recipe()
        self._engine: Engine = KINDS[share.engine](self._campaign, share.seed, share.steps)

    def take(self, share: Share) -> Gain:
        """Search until something is found or the share is used up."""
        campaign = self._campaign
        campaign.known |= share.known
        campaign.stats = Stats()
        campaign.max_examples = share.examples
        campaign.deadline = time.monotonic() + share.seconds
        found: list[tuple[Any, str, str]] = []
        with suppress(OutOfTime):
            while not found:
                found = [(news, format_program(program), by) for news, program, by in next_news(campaign, self._engine)]
        return Gain(tuple(found), campaign.stats)


@functools.lru_cache(maxsize=1)
def _members(search: str) -> list[_Member]:
    """Where this process keeps its part of the search between two shares."""
    return []


def take(share: Share) -> Gain:
    """Search in this process; its part of the search begins with the first share, whose seed it gets."""
    with users_errors_named(), imports_out_of_the_collectors_way():
        members = _members(share.search)
        if not members:
            members.append(_Member(share))
        return members[0].take(share)


def hunt_together(
    campaign: Campaign[N],
    *,
    recipe: Recipe,
    pool: Executor,
    size: int,
    engine: str,
    seed: int,
    seconds: float | None,
    steps: int,
    on_progress: Callable[[], None],
    on_news: Callable[[N, Program, str], None],
) -> bool:
    """As :func:`~xfdfuzz.engines.search.hunt.hunt`, by ``size`` processes of a pool, which make their campaigns by
    ``recipe``.

    ``seed`` gives the processes the same seeds again, not the same programs: who finds what first is a matter of time.
    After Ctrl-C the shares that are under way come to their ends.
    """
    began, interrupted = time.monotonic(), False
    plain = Share(uuid.uuid4().hex, recipe, engine, seed, steps, _EXAMPLES, _SECONDS, frozenset())
    shares = _Shares(campaign, pool, size, plain, itertools.count(seed << 8))
    with PatientInterrupt(everywhere=True) as ctrl_c:
        while True:
            campaign.stats.seconds = time.monotonic() - began
            if not interrupted:
                shares.hand_out(seconds)
            if not shares.pending:
                return interrupted
            done, _ = wait(shares.pending, timeout=_PAUSE, return_when=FIRST_COMPLETED)
            for future in done:
                for news, program, found_by in shares.take_in(future):
                    on_news(news, program, found_by)
            on_progress()
            interrupted |= ctrl_c.pressed


@dataclass
class _Shares:
    """Those that are under way, with the examples promised for each."""

    campaign: Campaign[Any]
    pool: Executor
    size: int
    plain: Share
    seeds: Iterator[int]
    pending: dict[Future[Gain], int] = field(default_factory=dict)

    def hand_out(self, seconds: float | None) -> None:
        """A share to every process that has none, while there is work left."""
        stats, most = self.campaign.stats, self.campaign.max_examples
        while len(self.pending) < self.size:
            promised = stats.examples + sum(self.pending.values())
            room = _EXAMPLES if most is None else min(_EXAMPLES, most - promised)
            time_left = _SECONDS if seconds is None else min(_SECONDS, seconds - stats.seconds)
            if room <= 0 or time_left <= 0:
                return
            known = frozenset(self.campaign.known)
            share = self.plain._replace(seed=next(self.seeds), examples=room, seconds=time_left, known=known)
            self.pending[self.pool.submit(take, share)] = room

    def take_in(self, future: Future[Gain]) -> Iterator[tuple[Any, Program, str]]:
        """What a process reports: (news, program, engine) for what no other has found before."""
        del self.pending[future]
        gain = future.result()
        self.campaign.stats.add(gain.stats)
        for news, text, engine in gain.found:
            if self.campaign.is_news(news):
                self.campaign.known.add(news.bucket)
                yield news, parse(text), engine
