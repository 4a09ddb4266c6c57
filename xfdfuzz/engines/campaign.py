"""A fuzz campaign's memory: what was executed, what came out, what is already known."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from xfdfuzz.engines import landmarks
from xfdfuzz.engines.landmarks import Landmark
from xfdfuzz.engines.situation import Situation, situations
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import Result, Step, format_ret
from xfdfuzz.strategies.boots import Boot


class News(Protocol):
    """What a campaign looks for: a violation, or a difference of two revisions.  Two of one bucket are the same."""

    @property
    def bucket(self) -> str:
        """What makes it the same again."""

    @property
    def message(self) -> str:
        """What was seen, in a sentence."""


N = TypeVar("N", bound=News)


class NewsFound(Exception):
    """Something that is news, and the program up to it.

    One subclass per bucket: Hypothesis tells failures apart by type, would merge two of one type, and would slip from
    one to the other while it shrinks.
    """

    def __init__(self, news: News, program: Program) -> None:
        super().__init__(f"{news.bucket}: {news.message}")
        self.news = news
        self.program = program


class OutOfTime(BaseException):
    """The campaign's time is up.  Not an Exception, so that Hypothesis takes it for no failure and lets it through."""


class TurnOver(BaseException):
    """It is another engine's turn.  As OutOfTime, no failure to Hypothesis."""


class Effort(NamedTuple):
    """How much was executed."""

    examples: int
    steps: int


class NotReproducibleError(Exception):
    """Something that its own program does not show again: the model is not deterministic, which is a bug of ours."""


@dataclass
class Stats:
    """Counts; ``seen[op, ret]`` counts how often an op class gave a result, ``engines`` what each engine executed.

    ``landmarks`` is how many the scout has passed (:mod:`engines.landmarks`).
    """

    examples: int = 0
    steps: int = 0
    seconds: float = 0.0
    seen: Counter[tuple[type[Op], int | str]] = field(default_factory=Counter)
    engines: dict[str, Effort] = field(default_factory=dict)
    landmarks: int = 0

    def count(self, op: Op, result: Result) -> None:
        """One more execution of ``op``."""
        self.steps += 1
        self.seen[type(op), result.ret] += 1  # as it is: a text of it at every step would take longer than the step

    def add(self, other: Stats) -> None:
        """What another process has executed for the same search; of the landmarks, which may be the same, the more."""
        self.examples += other.examples
        self.steps += other.steps
        self.seen.update(other.seen)
        for engine, effort in other.engines.items():
            self._credit(engine, *effort)
        self.landmarks = max(self.landmarks, other.landmarks)

    def _credit(self, engine: str, examples: int, steps: int) -> None:
        done = self.engines.get(engine, Effort(0, 0))
        self.engines[engine] = Effort(done.examples + examples, done.steps + steps)

    @contextmanager
    def credited(self, engine: str) -> Iterator[None]:
        """What is executed inside is the work of that engine."""
        examples, steps = self.examples, self.steps
        try:
            yield
        finally:
            self._credit(engine, self.examples - examples, self.steps - steps)

    @property
    def coverage(self) -> dict[str, Counter[str]]:
        """``coverage[op][result]``: how often each op class gave each class of results."""
        found: dict[str, Counter[str]] = {}
        for (op, ret), count in self.seen.items():
            found.setdefault(op.__name__, Counter())[result_class(ret)] += count
        return found

    @property
    def pairs(self) -> int:
        """How many different (op, result) pairs were seen."""
        return len({(op, result_class(ret)) for op, ret in self.seen})


def result_class(ret: int | str) -> str:
    """A result without its details: a number stays, a new object (``vm0``) is ``ok``."""
    text = format_ret(ret)
    return "ok" if text.rstrip("0123456789") in ("vm", "v", "t") else text


@dataclass(kw_only=True)
class Campaign(Generic[N]):
    """The memory of a search; a subclass says what is searched and for what.

    ``known`` are the buckets that are no news.  ``only`` is the one bucket that is looked for, None: any.
    ``turn_ends`` is after how many examples it is another engine's turn.
    """

    known: set[str] = field(default_factory=set)
    only: str | None = None
    deadline: float | None = None
    max_examples: int | None = None
    turn_ends: int | None = None
    stats: Stats = field(default_factory=Stats)
    on_example: Callable[[], None] = lambda: None
    errors: dict[str, type[NewsFound]] = field(default_factory=dict)
    #: A run for each machine, and where it was, switched on and after each boot.
    _runs: dict[Machine, Run] = field(default_factory=dict, init=False, repr=False)
    _booted: dict[tuple[Machine, Boot | None], Any] = field(default_factory=dict, init=False, repr=False)
    #: What the exception is called that a test fails with.
    error_name: ClassVar[str]

    def start(self, machine: Machine) -> Run:
        """A run on a machine that was switched on just now."""
        raise NotImplementedError

    def begin(self, machine: Machine, boot: Boot) -> Run:
        """Begin an example behind a boot; a violation in it that is news raises.

        A machine is switched on once, and a boot executed once on it; after that both are memory copies.
        """
        if machine not in self._runs:
            self._runs[machine] = self.start(machine)
            self._booted[machine, None] = self._runs[machine].save()
        if (machine, boot) not in self._booted:
            run = self.resume(machine, self._booted[machine, None])
            for op in boot(machine):
                run.execute(op)
            self._booted[machine, boot] = run.save()
        return self.resume(machine, self._booted[machine, boot])

    def resume(self, machine: Machine, saved: Any) -> Run:
        """Go on from where a run on the machine once was."""
        run = self._runs[machine]
        run.restore(saved)
        return run

    def shown(self, program: Program) -> Sequence[N]:
        """Everything that the program shows, run from its beginning, known or not."""
        raise NotImplementedError

    def minimise(self, program: Program, bucket: str) -> Program:
        """The plainest program that still shows the bucket."""
        raise NotImplementedError

    def is_news(self, found: News) -> bool:
        """Whether it should be raised."""
        return found.bucket not in self.known if self.only is None else found.bucket == self.only

    def found(self, news: News, program: Program) -> NewsFound:
        """The exception for it, of the bucket's own type."""
        error = self.errors.setdefault(news.bucket, type(self.error_name, (NewsFound,), {}))
        return error(news, program)

    def example_done(self) -> None:
        """Count an example; raise OutOfTime where the campaign ends, TurnOver where an engine's turn does."""
        self.stats.examples += 1
        self.on_example()
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise OutOfTime
        if self.max_examples is not None and self.stats.examples >= self.max_examples:
            raise OutOfTime
        if self.turn_ends is not None and self.stats.examples >= self.turn_ends:
            raise TurnOver


class Run:
    """One example: the ops executed so far, on what a subclass has booted, and what to do at its end."""

    def __init__(self, campaign: Campaign[Any], machine: Machine) -> None:
        self.campaign = campaign
        self.machine = machine
        self.ops: list[Op] = []
        self.over = False
        self._last: Step | None = None
        self._situations = situations(machine)

    @property
    def kernel(self) -> Kernel:
        """The one that says who can do what, and what was passed."""
        raise NotImplementedError

    def execute(self, op: Op) -> None:
        """Execute and judge ``op``; raises NewsFound for news."""
        raise NotImplementedError

    def situation(self) -> Situation:
        """Who can do what now."""
        return self._situations.now(self.kernel)

    def landmarks(self) -> Iterable[Landmark]:
        """What the last op has passed (:mod:`engines.landmarks`)."""
        return () if self._last is None else landmarks.passed(self.kernel, self._last)

    def save(self) -> Any:
        """Where the run is, for :meth:`restore`."""
        raise NotImplementedError

    def restore(self, saved: Any) -> None:
        """Go back to where this run, or another one on the same machine, was."""
        raise NotImplementedError

    def finish(self) -> None:
        """Look at what is left, and count the example, unless news ended it."""
        try:
            if not self.over:
                self.look_at_end()
        finally:
            if not self.over:
                self.campaign.example_done()

    def look_at_end(self) -> None:
        """Judge what the program leaves behind; raises NewsFound."""

    def go_back(self, ops: Iterable[Op]) -> None:
        """Be where these ops have led to, what is under test being there."""
        self.ops = [*ops]
        self.over = False

    def done(self, step: Step) -> None:
        """Note and count an op that was executed."""
        self._last = step
        self.ops.append(step.op)
        self.campaign.stats.count(step.op, step.result)

    def judge(self, found: Iterable[News]) -> None:
        """Raise the first of them that is news."""
        for one in found:
            if self.campaign.is_news(one):
                self.over = True
                raise self.campaign.found(one, Program(self.machine, tuple(self.ops)))
