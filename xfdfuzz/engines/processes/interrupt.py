"""Ctrl-C during a campaign."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class PatientInterrupt:
    """Ctrl-C that is not lost.

    Raised inside of Hypothesis a KeyboardInterrupt may vanish: it hooks into the garbage collector, where exceptions
    are dropped, and it takes an example that was cut short for a flaky one.  So there it waits for the next
    :meth:`check`; a second Ctrl-C does not wait.  With ``everywhere`` it waits wherever it comes, so that no piece of
    work is left half done.
    """

    def __init__(self, *, everywhere: bool = False) -> None:
        self._everywhere = everywhere
        #: Whether one waits.
        self.pressed = False
        self._previous: Any = None

    def __enter__(self) -> PatientInterrupt:
        # elsewhere than in the main thread, or where the caller has SIGINT ignored, it is not ours to handle
        ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self.pressed or not (self._everywhere or _in_hypothesis(frame)):
            raise KeyboardInterrupt
        self.pressed = True

    def check(self) -> None:
        """Raise the KeyboardInterrupt that could not be raised where it came."""
        if self.pressed:
            raise KeyboardInterrupt


def _in_hypothesis(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("hypothesis."):
            return True
        frame = frame.f_back
    return False
