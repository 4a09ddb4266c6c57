"""A user's function that does not return: an invariant, or a function of a series, that goes round for ever."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from xfdfuzz.invariants.loading import users_files
from xfdfuzz.invariants.vocabulary import INVARIANTS, NoAnswer
from xfdfuzz.revisions import series_files

#: Seconds that a user's function may take, where nobody says otherwise.
STEP_TIMEOUT = 30.0
#: How often it is looked, in that time.
_LOOKS = 4


@contextmanager
def answers_within(seconds: float) -> Iterator[None]:
    """Raise NoAnswer inside a call of a user's function that takes longer, by a quarter at most.

    Nothing is done at a call: now and then a timer's signal looks whether the same one is still under way.  So it is
    for the main thread only, and for Python code: what does not come back to the interpreter is not interrupted.  An
    outer block counts, and a caller who has SIGALRM for himself.
    """
    ours = signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGALRM, _Watch(seconds).look)
    signal.setitimer(signal.ITIMER_REAL, seconds / _LOOKS, seconds / _LOOKS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


class _Watch:
    """Remembers which call of a user's function was under way, and since when."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._call: FrameType | None = None
        self._since = 0.0

    def look(self, number: int, frame: FrameType | None) -> None:
        """Raise NoAnswer if it is the same call still."""
        frames = _users_frames(frame)
        call = frames[-1] if frames else None
        if call is not self._call:
            self._call, self._since = call, time.monotonic()
        elif call is not None and time.monotonic() - self._since >= self._seconds:
            where = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}"
            raise NoAnswer(f"{where}: {_name(call)} does not return within {self._seconds:g} s")


def _users_frames(frame: FrameType | None) -> list[FrameType]:
    """Those of users' own files, the innermost first."""
    files = users_files() | series_files()
    found = []
    while frame is not None:
        if Path(frame.f_code.co_filename).resolve() in files:
            found.append(frame)
        frame = frame.f_back
    return found


def _name(call: FrameType) -> str:
    of_code = {inv.predicate.__code__: inv.name for inv in INVARIANTS.values() if hasattr(inv.predicate, "__code__")}
    name = of_code.get(call.f_code)
    return f"invariant {name}" if name else f"{call.f_code.co_name}()"
