"""A search by several processes, each with an engine and a seed of its own.

They share nothing while they search.  Every few seconds, or when it has found something, a process reports and gets
another share of the work, with all that is known by then.
"""

from __future__ import annotations

import functools
import itertools
import time
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from typing import Any, NamedTuple

from xfdfuzz.engines.campaign import Campaign, OutOfTime, Stats
from xfdfuzz.engines.hunt import KINDS, Engine, imports_out_of_the_collectors_way, next_news
from xfdfuzz.engines.interrupt import PatientInterrupt
from xfdfuzz.engines.workers import users_errors_named
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


class Together:
    """A search by ``size`` processes of a pool, as :func:`xfdfuzz.engines.hunt.hunt` is one by this process.

    ``seed`` gives the processes the same seeds again, not the same programs: who finds what first is a matter of time.
    """

    def __init__(self, recipe: Recipe, pool: Executor, size: int, *, engine: str, seed: int, steps: int) -> None:
        self._pool, self._size = pool, size
        search, self._seeds = uuid.uuid4().hex, itertools.count(seed << 8)
        self._plain = Share(search, recipe, engine, seed, steps, _EXAMPLES, _SECONDS, frozenset())
        self._pending: dict[Future[Gain], int] = {}
        self.stats = Stats()

    def hunt(
        self,
        known: Collection[str],
        *,
        seconds: float | None,
        examples: int | None,
        on_progress: Callable[[], None],
        on_news: Callable[[Any, Program, str], None],
    ) -> bool:
        """Search until the time or the examples are used up; returns whether Ctrl-C ended it.

        After Ctrl-C the shares that are under way come to their ends.
        """
        began, buckets, interrupted = time.monotonic(), set(known), False
        with PatientInterrupt(everywhere=True) as ctrl_c:
            while True:
                self.stats.seconds = time.monotonic() - began
                if not interrupted:
                    self._hand_out(frozenset(buckets), seconds, examples)
                if not self._pending:
                    return interrupted
                done, _ = wait(self._pending, timeout=_PAUSE, return_when=FIRST_COMPLETED)
                for future in done:
                    self._take_in(future, buckets, on_news)
                on_progress()
                interrupted |= ctrl_c.pressed

    def _hand_out(self, known: frozenset[str], seconds: float | None, examples: int | None) -> None:
        """A share to every process that has none, while there is work left."""
        while len(self._pending) < self._size:
            promised = self.stats.examples + sum(self._pending.values())
            room = _EXAMPLES if examples is None else min(_EXAMPLES, examples - promised)
            time_left = _SECONDS if seconds is None else min(_SECONDS, seconds - self.stats.seconds)
            if room <= 0 or time_left <= 0:
                return
            share = self._plain._replace(seed=next(self._seeds), examples=room, seconds=time_left, known=known)
            self._pending[self._pool.submit(take, share)] = room

    def _take_in(self, future: Future[Gain], known: set[str], on_news: Callable[[Any, Program, str], None]) -> None:
        del self._pending[future]
        gain = future.result()
        self.stats.add(gain.stats)
        for news, text, engine in gain.found:
            if news.bucket not in known:
                known.add(news.bucket)
                on_news(news, parse(text), engine)
