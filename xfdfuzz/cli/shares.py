"""What is divided: the time of a command among its searches, and a job among machines."""

from __future__ import annotations

import argparse
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

_T = TypeVar("_T")


@dataclass
class TimeShares:
    """So many seconds by ``clock`` for ``searches`` that are made one after the other; None is no limit.

    The time runs from the first share on.  What a search leaves over, or takes too much, the ones that follow share.
    """

    seconds: float | None
    searches: int
    clock: Callable[[], float] = time.monotonic
    _end: float | None = field(default=None, init=False)

    def next(self) -> float | None:
        """Seconds for the next search."""
        if self.seconds is None:
            return None
        if self._end is None:
            self._end = self.clock() + self.seconds
        rest = max(self._end - self.clock(), 0.0)
        left, self.searches = self.searches, self.searches - 1
        return round(rest / left, 2)


@dataclass(frozen=True)
class Shard:
    """The part of a job that one machine of several does: ``number`` is from 1 on."""

    number: int
    machines: int

    def of(self, things: Sequence[_T]) -> list[_T]:
        """Its things, one at least: with fewer things than machines several get the same."""
        if len(things) < self.machines:
            return [things[(self.number - 1) % len(things)]]
        return list(things[self.number - 1 :: self.machines])

    def seed(self, seed: int) -> int:
        """Its own seed: the job's on the first machine, on the others one that is made of it."""
        return seed if self.number == 1 else random.Random(f"{seed} {self.number}").randrange(1 << 32)


def shard(text: str) -> Shard:
    """A part of a job, 2/5."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"expected a part such as 2/5, from 1/5 to 5/5, got {text!r}")
    return Shard(int(match[1]), int(match[2]))
