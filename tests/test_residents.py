"""What a process keeps from one call of a pool's to the next."""

from __future__ import annotations

import os
from concurrent.futures import Executor

import pytest

from xfdfuzz.engines.processes.residents import resident
from xfdfuzz.engines.processes.workers import workers


class Tally:
    """Counts the calls that it gets."""

    def __init__(self) -> None:
        self.calls = 0

    def call(self) -> int:
        self.calls += 1
        return self.calls


class Another(Tally):
    """Of a class of its own."""


def called(kind: type[Tally], job: str) -> tuple[int, int]:
    """The process that did it, and how many calls for the job it has had."""
    return os.getpid(), resident(kind, job, kind).call()


def pool_calls(pool: Executor, *calls: tuple[type[Tally], str]) -> list[int]:
    return [pool.submit(called, *call).result()[1] for call in calls]


@pytest.mark.parametrize("here", [True, False])
def test_a_job_finds_what_it_left_and_another_one_begins(here: bool) -> None:
    job, other = f"job {here}", f"other {here}"
    with workers(1, here_if_one=here) as pool:
        assert pool_calls(pool, (Tally, job), (Tally, job), (Tally, job)) == [1, 2, 3]
        assert pool_calls(pool, (Another, job), (Another, job), (Tally, job)) == [1, 2, 4]
        # the one before is gone
        assert pool_calls(pool, (Tally, other), (Tally, job), (Another, job)) == [1, 1, 3]


def test_processes_share_nothing() -> None:
    with workers(2) as pool:
        done = list(pool.map(called, [Tally] * 20, ["shared"] * 20))
    for process in {process for process, _ in done}:
        counts = [count for pid, count in done if pid == process]
        assert counts == [*range(1, len(counts) + 1)]


def test_what_cannot_be_made_leaves_nothing_behind() -> None:
    class Broken(Tally):
        def __init__(self) -> None:
            raise LookupError

    with pytest.raises(LookupError):
        resident(Broken, "job", Broken)
    made = object.__new__(Broken)
    assert resident(Broken, "job", lambda: made) is made
