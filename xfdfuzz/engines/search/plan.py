"""How a search is to be made, and when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from xfdfuzz.engines.processes.answering import STEP_TIMEOUT

#: The part of its time that a search may take longer to bring to an end what it has begun.
_GRACE = 0.05
#: Default length of an example, in rules.
STEPS = 50


@dataclass(frozen=True)
class Plan:
    """What to search with, and for how long.

    ``seed`` gives the same programs again, unless several ``workers``, processes, search at once.  An example has at
    most ``steps`` rules.  The search ends after ``seconds`` of wall-clock time or after ``examples``, whichever comes
    first; None is no limit.  It also ends when a user's function does not return within ``step_timeout`` seconds.
    ``executor``, ``dask://HOST:PORT``, is a cluster whose workers search in place of ``workers``.
    """

    seed: int
    engine: str = "both"
    steps: int = STEPS
    seconds: float | None = None
    examples: int | None = None
    workers: int = 1
    executor: str | None = None
    step_timeout: float = STEP_TIMEOUT

    def budget(self) -> Budget:
        """What it may spend, from now on."""
        return Budget(self.seconds, self.examples)


class Spent(BaseException):
    """A budget is used up.  Not an Exception, so that Hypothesis takes it for no failure and lets it through."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget


@dataclass
class Budget:
    """What may still be spent: so many seconds by ``clock`` and so many examples, from when it was made."""

    seconds: float | None = None
    examples: int | None = None
    clock: Callable[[], float] = time.monotonic
    done: int = field(default=0, init=False)
    _began: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return self.clock() - self._began

    @property
    def rest(self) -> float | None:
        """Seconds that what was begun may still take, a little more than anything new may begin in."""
        return None if self.seconds is None else self.seconds * (1 + _GRACE) - self.elapsed

    def in_time(self) -> bool:
        """Whether what was begun may go on."""
        return self.rest is None or self.rest > 0

    def spend_example(self) -> None:
        """Count an example; raises Spent where nothing is left for another one."""
        self.done += 1
        if self.examples is not None and self.done >= self.examples:
            raise Spent(self)
        if self.seconds is not None and self.elapsed >= self.seconds:
            raise Spent(self)
