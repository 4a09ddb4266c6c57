"""What a search has executed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from xfdfuzz.engines.search.watched import Place, Watched
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import Result, result_class


class Effort(NamedTuple):
    """How much was executed."""

    examples: int
    steps: int


@dataclass
class Stats:
    """Counts; ``seen[op, ret]`` is how often an op class gave a result, ``engines`` what each engine executed.

    ``goals`` is how many steps met a goal, up to a few in each process (engines/search/goals.py).  Of the functions
    that were watched, ``calls`` is how often each ran, by where it begins, and ``lines`` what of them was executed.
    ``partings`` is how often two kernels that are compared came into different states.
    """

    examples: int = 0
    steps: int = 0
    seconds: float = 0.0
    seen: Counter[tuple[type[Op], int | str]] = field(default_factory=Counter)
    engines: dict[str, Effort] = field(default_factory=dict)
    goals: Counter[str] = field(default_factory=Counter)
    calls: Counter[Place] = field(default_factory=Counter)
    lines: set[Place] = field(default_factory=set)
    partings: int = 0

    def count(self, op: Op, result: Result) -> None:
        """Count an executed ``op``."""
        self.steps += 1
        self.seen[type(op), result.ret] += 1  # as it is: a text of it at every step would take longer than the step

    def add(self, other: Stats) -> None:
        """Add what another process has executed for the same search."""
        self.examples += other.examples
        self.steps += other.steps
        self.seen.update(other.seen)
        self.goals.update(other.goals)
        self.calls.update(other.calls)
        self.lines |= other.lines
        self.partings += other.partings
        for engine, effort in other.engines.items():
            self._credit(engine, *effort)

    def ran(self, watched: Watched) -> None:
        """Count what the watched functions did."""
        self.calls.update(watched.calls)
        self.lines |= watched.lines

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
