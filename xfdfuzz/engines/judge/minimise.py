"""From a violating program to the plainest one that shows the same bucket, on the plainest machine.

It works on the program, not on what an engine drew, so the result does not depend on how it was drawn: no op can be
left out, the machine has no switch that does not matter, numbers and values are the first of their kind, and what can
trade places stands in one order.  What is tried stands in :mod:`~xfdfuzz.engines.judge.passes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from xfdfuzz.engines.judge.passes import PASSES, Ops, Pass
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.invariants.checker import Checker, Memory
from xfdfuzz.invariants.loading import load_once
from xfdfuzz.invariants.vocabulary import Violation, invariant_of
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED
from xfdfuzz.revisions import Revision

Test = Callable[[Program], bool]


def shows(program: Program, revision: Revision, bucket: str) -> bool:
    """Whether the program breaks that bucket, or bucket in that shape, on the revision."""
    return Shows(revision, bucket)(program)


def for_ever() -> bool:
    """There is time."""
    return True


def minimise(program: Program, revision: Revision, bucket: str, in_time: Callable[[], bool] = for_ever) -> Program:
    """The plainest program of the same bucket, or bucket in that shape (:attr:`Violation.kind`), with its results
    filled in; ``program`` itself must show it.

    It is the plainest that was found while there was still time.
    """
    still = Shows(revision, bucket)
    smallest = reduce(program, lambda candidate: in_time() and still(candidate))
    results = judge(smallest, revision, expectations=False).results
    return with_results(smallest, results)


def reduce(program: Program, still: Test) -> Program:
    """The plainest program for which ``still`` holds, as it does for ``program``; without results.

    No program is tried twice, so it ends.
    """
    program = replace(program, results=())
    tried = {program}
    before = None
    while program != before:
        before = program
        for plainer in PASSES:
            program = _taken(program, plainer, still, tried)
    return program


def _taken(program: Program, plainer: Pass, still: Test, tried: set[Program]) -> Program:
    """Take plainer programs as long as there are any, each time from where the last one was found."""
    place: int | None = 0
    while place is not None:
        candidates = [*plainer(program)]
        place = _first(candidates, place, still, tried)
        if place is not None:
            program = candidates[place]
    return program


def _first(candidates: Sequence[Program], begin: int, still: Test, tried: set[Program]) -> int | None:
    """The place of the first one for which ``still`` holds, from ``begin`` on and then round; None if there is none."""
    for n in range(len(candidates)):
        place = (begin + n) % len(candidates)
        if candidates[place] not in tried:
            tried.add(candidates[place])
            if still(candidates[place]):
                return place
    return None


def with_results(program: Program, results: Sequence[str]) -> Program:
    """The results filled in, one per op, and the ops left out that were not enabled."""
    kept = [(op, text) for op, text in zip(program.ops, results, strict=True) if text != NOT_ENABLED]
    return replace(program, ops=tuple(op for op, _ in kept), results=tuple(text for _, text in kept))


class Shows:
    """Whether programs break a bucket on a revision, or a bucket in a shape.

    Candidates have much in common with each other, so on each machine one goes on from where it parts with the one
    before, and nothing but the bucket's invariant is looked at.
    """

    def __init__(self, revision: Revision, bucket: str) -> None:
        load_once()
        self._revision, self._bucket = revision, bucket
        self._paths: dict[Machine, _Path] = {}

    def __call__(self, program: Program) -> bool:
        """Whether this one does."""
        path = self._paths.get(program.machine)
        if path is None:
            executor = Executor(self._revision.kernel, program.machine)
            checker = Checker(executor.kernel, self._revision.name, only=invariant_of(self._bucket))
            path = self._paths[program.machine] = _Path(executor, checker)
        found = (violation for found in path.follow(program.ops) for violation in found)
        return any(self._bucket in (violation.bucket, violation.kind) for violation in found)


class _Path:
    """Where the ops of a program lead, one after another."""

    def __init__(self, executor: Executor, checker: Checker) -> None:
        self._executor, self._checker = executor, checker
        self._steps = [_Reached(None, [], executor.kernel.state, checker.memory())]

    def follow(self, ops: Ops) -> Iterator[list[Violation]]:
        """What each of the ops breaks, and in the end the drained program."""
        executor, checker, steps = self._executor, self._checker, self._steps
        done = 0
        for reached, op in zip(steps[1:], ops, strict=False):
            if reached.op != op:
                break
            yield reached.found
            done += 1
        del steps[done + 1 :]
        executor.load(steps[-1].state, done)
        checker.remember(steps[-1].memory)
        for op in ops[done:]:
            found = checker.check(executor.execute(op))
            steps.append(_Reached(op, found, executor.kernel.state, checker.memory()))
            yield found
        if checker.looks_at_end and (last := executor.drain()):
            yield checker.finish(last)


class _Reached(NamedTuple):
    """Where an op has led to, and what it broke."""

    op: Op | None
    found: list[Violation]
    state: bytes
    memory: Memory
