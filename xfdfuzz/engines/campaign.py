"""A fuzz campaign's memory: what was executed, what came out, what is already known."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from xfdfuzz.arch.machine import Machine
from xfdfuzz.invariants.core import Checker, Violation
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED, Result
from xfdfuzz.revisions import Revision


class ViolationFound(Exception):
    """A violation that is news, and the program up to it.

    One subclass per bucket: Hypothesis tells failures apart by type, would merge two of one type, and would slip from
    one to the other while it shrinks.
    """

    def __init__(self, violation: Violation, program: Program) -> None:
        super().__init__(f"{violation.bucket}: {violation.message}")
        self.violation = violation
        self.program = program


class OutOfTime(BaseException):
    """The campaign's time is up.  Not an Exception, so that Hypothesis takes it for no failure and lets it through."""


@dataclass
class Stats:
    """Counts; ``coverage[op][result]`` counts the results of each op class."""

    examples: int = 0
    steps: int = 0
    seconds: float = 0.0
    coverage: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, op: str, result: str) -> None:
        """One more execution of ``op``."""
        self.steps += 1
        self.coverage.setdefault(op, Counter())[result] += 1

    @property
    def pairs(self) -> int:
        """How many different (op, result) pairs were seen."""
        return sum(len(results) for results in self.coverage.values())


def result_class(result: Result) -> str:
    """A result without its details: a number stays, a new object (``vm0``) is ``ok``."""
    text = str(result._replace(out=None))
    return "ok" if text.rstrip("0123456789") in ("vm", "v", "t") else text


@dataclass
class Campaign:
    """One revision under test.

    ``known`` are the buckets that are no news.  ``enabled_rules`` remembers which rules a situation enables
    (engines.selection).
    """

    revision: Revision
    known: set[str] = field(default_factory=set)
    deadline: float | None = None
    max_examples: int | None = None
    stats: Stats = field(default_factory=Stats)
    on_example: Callable[[], None] = lambda: None
    errors: dict[str, type[ViolationFound]] = field(default_factory=dict)
    enabled_rules: dict[frozenset[str], tuple[Any, ...]] = field(default_factory=dict)

    def is_news(self, violation: Violation) -> bool:
        """Whether it should be raised."""
        return violation.bucket not in self.known

    def found(self, violation: Violation, program: Program) -> ViolationFound:
        """The exception for it, of the bucket's own type."""
        error = self.errors.setdefault(violation.bucket, type("ViolationFound", (ViolationFound,), {}))
        return error(violation, program)

    def example_done(self) -> None:
        """Count an example; raise OutOfTime where the campaign ends."""
        self.stats.examples += 1
        self.on_example()
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise OutOfTime
        if self.max_examples is not None and self.stats.examples >= self.max_examples:
            raise OutOfTime


class Run:
    """One example: a booted kernel, the ops executed on it so far and the checker that judges them."""

    def __init__(self, campaign: Campaign, machine: Machine) -> None:
        self.campaign = campaign
        self.machine = machine
        self.executor = Executor(campaign.revision.kernel, machine)
        self.checker = Checker(self.executor.kernel, campaign.revision.name)
        self.ops: list[Op] = []
        self.over = False

    def execute(self, op: Op) -> None:
        """Execute and judge ``op``; raises ViolationFound for news."""
        step = self.executor.execute(op)
        if step.result.ret == NOT_ENABLED:
            return
        self.ops.append(op)
        self.campaign.stats.count(type(op).__name__, result_class(step.result))
        self._judge(self.checker.check(step))

    def _judge(self, violations: list[Violation]) -> None:
        for violation in violations:
            if self.campaign.is_news(violation):
                self.over = True
                raise self.campaign.found(violation, Program(self.machine, tuple(self.ops)))

    def finish(self) -> None:
        """Drain the program, look at what is left, and count the example, unless a violation ended it."""
        try:
            if not self.over and self.checker.looks_at_end and (last := self.executor.drain()):
                self._judge(self.checker.finish(last))
        finally:
            if not self.over:
                self.campaign.example_done()
