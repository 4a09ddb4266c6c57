"""What a process keeps from one call of a pool's to the next.

An Executor calls functions, and a function has no place of its own for what is slow to make or goes on where it stopped
at the call before.  Its place is here, and nowhere else: for each class the one object that works on the job that was
called for last.  The object of the job before is let go first, so no two of a class take memory side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

#: By class: a job, and the object that works on it.
_RESIDENTS: dict[type[Any], tuple[Hashable, Any]] = {}


def resident(kind: type[T], job: Hashable, make: Callable[[], T]) -> T:
    """This process' object of class ``kind`` for a job, which ``make`` makes at the job's first call.

    A job is whatever tells it from all others that this process may get, as a search's number that is used once.
    Passes on what ``make`` raises; then there is none.
    """
    known = _RESIDENTS.get(kind)
    if known is None or known[0] != job:
        _RESIDENTS.pop(kind, None)
        known = _RESIDENTS[kind] = job, make()
    found: T = known[1]
    return found
