"""The search itself: an engine finds programs, every distinct news of a campaign is shrunk once and handed out."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from typing import Any, NamedTuple, Protocol

from xfdfuzz.engines.processes.interrupt import PatientInterrupt
from xfdfuzz.engines.search.campaign import Campaign, N, NotReproducibleError, OutOfTime, TurnOver
from xfdfuzz.engines.search.hypothesis_machine import search, shrunk
from xfdfuzz.engines.search.scout import Scout
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_program, parse

#: Default length of an example, in rules.
STEPS = 50


class Found(NamedTuple):
    """A program that shows something new, the bucket of it, and the name of the engine that found it."""

    program: Program
    bucket: str
    engine: str


class Engine(Protocol):
    """What finds programs for a campaign.  The same seed finds the same ones in the same order."""

    def find(self) -> Found:
        """The next program that shows something new; raises OutOfTime when the campaign is over."""

    def shrink(self, found: Found) -> Program:
        """What the engine can do for the program it found last, before minimise() gets it."""


class HypothesisEngine:
    """Hypothesis generates."""

    name = "hypothesis"

    def __init__(self, campaign: Campaign[Any], seed: int, steps: int) -> None:
        self._campaign, self._seed, self._steps = campaign, seed * 1_000_003, steps

    def find(self) -> Found:
        """A new run of Hypothesis each time."""
        while True:
            seed, self._seed = self._seed, self._seed + 1
            with self._campaign.stats.credited(self.name):
                found = search(self._campaign, seed, self._steps)
            if found is not None:
                return Found(found.program, found.news.bucket, self.name)

    def shrink(self, found: Found) -> Program:
        """Nothing: minimise() takes less time than Hypothesis would."""
        return found.program


class ScoutEngine:
    """The scout searches, Hypothesis shrinks."""

    name = "scout"

    def __init__(self, campaign: Campaign[Any], seed: int, steps: int) -> None:
        self._campaign, self._scout = campaign, Scout(campaign, seed, steps)

    def find(self) -> Found:
        """The scout goes on where it was."""
        with self._campaign.stats.credited(self.name):
            found = self._scout.search()
        return Found(found.program, found.news.bucket, self.name)

    def shrink(self, found: Found) -> Program:
        """Hand the program over to Hypothesis."""
        smaller = shrunk(self._campaign, self._scout.genome, found.bucket)
        return found.program if smaller is None else smaller.program


class BothEngines:
    """Turn and turn about.  A turn is a number of examples, not a time, so that a campaign can be repeated."""

    #: The scout's take about five seconds, Hypothesis' one.
    TURNS = ((ScoutEngine, 2_000), (HypothesisEngine, 100))

    def __init__(self, campaign: Campaign[Any], seed: int, steps: int) -> None:
        self._campaign = campaign
        self._turns = cycle([(kind(campaign, seed, steps), examples) for kind, examples in self.TURNS])
        self._engine: Engine

    def find(self) -> Found:
        """Whatever comes first."""
        while True:
            self._engine, examples = next(self._turns)
            self._campaign.turn_ends = self._campaign.stats.examples + examples
            with suppress(TurnOver):
                return self._engine.find()

    def shrink(self, found: Found) -> Program:
        """As the engine that found it would."""
        return self._engine.shrink(found)


#: By the names that the command line has for them.
KINDS: dict[str, Callable[[Campaign[Any], int, int], Engine]] = {
    "hypothesis": HypothesisEngine,
    "scout": ScoutEngine,
    "both": BothEngines,
}


def hunt(
    campaign: Campaign[N],
    *,
    engine: str,
    seed: int,
    seconds: float | None,
    steps: int,
    on_progress: Callable[[], None],
    on_news: Callable[[N, Program, str], None],
) -> bool:
    """Search until the campaign's time or examples are used up; returns whether Ctrl-C ended it.

    Every distinct bucket that is not known is shrunk once and given to ``on_news`` at once, with its program and the
    name of the engine that found it.  The same seed gives the same programs.
    """
    began = time.monotonic()
    campaign.deadline = None if seconds is None else began + seconds
    searching = KINDS[engine](campaign, seed, steps)
    with PatientInterrupt() as ctrl_c, imports_out_of_the_collectors_way():

        def progress() -> None:
            ctrl_c.check()
            campaign.stats.seconds = time.monotonic() - began
            on_progress()

        campaign.on_example = progress
        try:
            while True:
                for news, smallest, engine_name in next_news(campaign, searching):
                    on_news(news, smallest, engine_name)
                    ctrl_c.check()
        except OutOfTime:
            return False
        except KeyboardInterrupt:
            return True
        finally:
            campaign.stats.seconds = time.monotonic() - began


@contextmanager
def imports_out_of_the_collectors_way() -> Iterator[None]:
    """Let the garbage collector leave alone what stays for good, the modules above all, and come seldom.

    Walking all modules in each full collection takes 7 % of a campaign's time.  Hardly anything that a search leaves
    behind is a cycle, and it makes a dozen containers a step: at the interpreter's own pace the collections of those
    take a tenth of it (docs/performance.md).
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def next_news(campaign: Campaign[N], searching: Engine) -> Iterator[tuple[N, Program, str]]:
    """Everything new that the engine's next program shows, each with a program of its own, minimal and confirmed from
    its text, and the name of the engine; raises OutOfTime."""
    found = searching.find()
    program = searching.shrink(found)
    for news in campaign.shown(program):
        if not campaign.is_news(news):
            continue
        campaign.known.add(news.bucket)
        smallest = campaign.minimise(program, news.bucket)
        again = campaign.shown(parse(format_program(smallest)))
        confirmed = next((one for one in again if one.bucket == news.bucket), None)
        if confirmed is None:
            raise NotReproducibleError(f"{news.bucket} does not show again")
        yield confirmed, smallest, found.engine
