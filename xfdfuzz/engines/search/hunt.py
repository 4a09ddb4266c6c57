"""The search itself: an engine finds programs, every distinct discovery is shrunk once, confirmed and handed out."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any, Generic, NamedTuple, Protocol

from xfdfuzz.engines.judge.finding import NotReproducibleError
from xfdfuzz.engines.processes.answering import answers_within
from xfdfuzz.engines.processes.interrupt import PatientInterrupt
from xfdfuzz.engines.search.campaign import Campaign, D, Discovered
from xfdfuzz.engines.search.genome import Genome, Walker, shortened
from xfdfuzz.engines.search.hypothesis_machine import search
from xfdfuzz.engines.search.plan import Budget, Plan, Spent
from xfdfuzz.engines.search.scout import Scout
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_program, parse


class Found(NamedTuple):
    """A program that shows something new, the key of it, and the name of the engine that found it.

    ``genome`` are the rules that made the program, if the engine knows them.
    """

    program: Program
    key: str
    engine: str
    genome: Genome | None = None


class Engine(Protocol):
    """What finds programs for a campaign.  The same seed finds the same ones in the same order."""

    def find(self) -> Found:
        """The next program that shows something new; raises what ends an example."""


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
                return Found(found.program, self._campaign.key(found.discovery), self.name)


class ScoutEngine:
    """The scout searches."""

    name = "scout"

    def __init__(self, campaign: Campaign[Any], seed: int, steps: int) -> None:
        self._campaign, self._scout = campaign, Scout(campaign, seed, steps)

    def find(self) -> Found:
        """The scout goes on where it was."""
        with self._campaign.stats.credited(self.name):
            found = self._scout.search()
        return Found(found.program, self._campaign.key(found.discovery), self.name, self._scout.genome)


class BothEngines:
    """Turn and turn about.  A turn is a number of examples, not a time, so that a campaign can be repeated."""

    #: The scout's take about five seconds, Hypothesis' one.
    TURNS = ((ScoutEngine, 2_000), (HypothesisEngine, 100))

    def __init__(self, campaign: Campaign[Any], seed: int, steps: int) -> None:
        self._campaign = campaign
        self._engines = cycle([(kind(campaign, seed, steps), examples) for kind, examples in self.TURNS])
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._engine, examples = next(self._engines)
        self._turn = Budget(examples=examples)

    def find(self) -> Found:
        """Whatever comes first; a discovery does not end a turn."""
        while True:
            try:
                with self._campaign.after_each_example(self._turn.spend_example):
                    return self._engine.find()
            except Spent as spent:
                if spent.budget is not self._turn:
                    raise
            self._begin_turn()


class Replay:
    """Programs of earlier searches, one after another, and then another engine."""

    name = "database"

    def __init__(self, campaign: Campaign[Any], programs: Iterable[Program], then: Engine) -> None:
        self._campaign, self._programs, self._then = campaign, deque(programs), then
        self._raised: set[str] = set()

    def find(self) -> Found:
        """A program that shows something new comes again, for what else it shows behind that."""
        while self._programs:
            program = self._programs.popleft()
            try:
                with self._campaign.stats.credited(self.name):
                    self._campaign.replay(program, note=False)
            except Discovered as found:
                key = self._campaign.key(found.discovery)
                if key not in self._raised:
                    self._raised.add(key)
                    self._programs.appendleft(program)
                return Found(found.program, key, self.name)
        return self._then.find()


#: By the names that the command line has for them.
KINDS: dict[str, Callable[[Campaign[Any], int, int], Engine]] = {
    "hypothesis": HypothesisEngine,
    "scout": ScoutEngine,
    "both": BothEngines,
}


def engine_for(campaign: Campaign[Any], plan: Plan, programs: Iterable[Program] = ()) -> Engine:
    """What searches, ``programs`` first."""
    return Replay(campaign, programs, KINDS[plan.engine](campaign, plan.seed, plan.steps))


class Shrunk(NamedTuple, Generic[D]):
    """A discovery as its own plainest program shows it, and the name of the engine that came across it."""

    discovery: D
    program: Program
    engine: str


def hunt(
    campaign: Campaign[D],
    plan: Plan,
    on_progress: Callable[[], None],
    on_discovery: Callable[[Shrunk[D]], None],
    programs: Iterable[Program] = (),
) -> bool:
    """Search as planned, ``programs`` first; returns whether Ctrl-C ended it.

    Every distinct bucket, or kind, that is not known is shrunk once and given to ``on_discovery`` at once.
    """
    budget = plan.budget()
    campaign.in_time = budget.in_time
    engine = engine_for(campaign, plan, programs)
    try:
        with (
            PatientInterrupt() as ctrl_c,
            answers_within(plan.step_timeout),
            imports_out_of_the_collectors_way(),
            campaign.timed(),
            campaign.watched(),
            campaign.after_each_example(ctrl_c.check, on_progress, budget.spend_example),
        ):
            while True:
                for shrunk in discoveries(campaign, engine):
                    on_discovery(shrunk)
                    ctrl_c.check()
    except Spent:
        return False
    except KeyboardInterrupt:
        return True


@contextmanager
def imports_out_of_the_collectors_way() -> Iterator[None]:
    """Let the garbage collector leave alone what stays for good, the modules above all, and come seldom.

    Walking all modules in each full collection takes 7 % of a campaign's time.  Hardly anything that a search leaves
    behind is a cycle, and it makes a dozen containers a step: at the interpreter's own pace the collections of those
    take a tenth of it.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def discoveries(campaign: Campaign[D], engine: Engine) -> Iterator[Shrunk[D]]:
    """Everything new that the engine's next program shows, each with a program of its own, minimal and confirmed from
    its text; raises what ends an example, and NotReproducibleError."""
    found = engine.find()
    program = _shortened(campaign, found)
    for discovery in campaign.shown(program):
        if not campaign.is_new(discovery):
            continue
        key = campaign.key(discovery)
        campaign.learn([key])
        smallest = campaign.minimise(program, key)
        again = campaign.shown(parse(format_program(smallest)))
        confirmed = next((one for one in again if campaign.key(one) == key), None)
        if confirmed is None:
            raise NotReproducibleError(f"{key} does not show again")
        yield Shrunk(confirmed, smallest, found.engine)


def _shortened(campaign: Campaign[Any], found: Found) -> Program:
    """The program without the rules that do not matter; minimise() then works on its ops."""
    if found.genome is None or not campaign.in_time():
        return found.program
    walker = Walker(campaign.looking_for(found.key))
    shorter = walker.discovery(shortened(walker, found.genome))
    if shorter is None:
        raise NotReproducibleError(f"{found.key} does not show again")
    return shorter.program
