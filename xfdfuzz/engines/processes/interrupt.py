"""Ctrl-C and SIGTERM, which a CI system sends, during a campaign; both are handled alike."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from xfdfuzz.engines.processes.residents import resident

#: What asks a command to end.
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, unless somebody has said already what it does."""
    ours = _in_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


class PatientInterrupt:
    """Ctrl-C that is not lost.

    Raised inside of Hypothesis a KeyboardInterrupt may vanish: it hooks into the garbage collector, where exceptions
    are dropped, and it takes an example that was cut short for a flaky one.  So there it waits for the next
    :meth:`check`; a second Ctrl-C does not wait.  With ``everywhere`` it waits wherever it comes, so that no piece of
    work is left half done.  SIGTERM counts as one where it raises KeyboardInterrupt, too.

    Such blocks stand in one another: the innermost says whether it waits, and what came in one has come in those around
    it.
    """

    def __init__(self, *, everywhere: bool = False) -> None:
        self._everywhere = everywhere
        #: Whether one waits.
        self.pressed = False
        self._previous: dict[signal.Signals, Any] = {}
        self._around: PatientInterrupt | None = None

    def __enter__(self) -> PatientInterrupt:
        # elsewhere than in the main thread, or where the caller has a signal ignored, it is not ours to handle
        for number in INTERRUPTS if _in_main_thread() else ():
            handler = signal.getsignal(number)
            around = getattr(handler, "__self__", None)
            if isinstance(around, PatientInterrupt):
                self._around = around
            if handler is signal.default_int_handler or around is self._around is not None:
                self._previous[number] = signal.signal(number, self._press)
        if self._around is not None:
            self.pressed |= self._around.pressed
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._around is not None:
            self._around.pressed |= self.pressed

    def _press(self, number: int, frame: FrameType | None) -> None:
        waits = not self.pressed and (self._everywhere or _in_hypothesis(frame))
        self.pressed = True
        if not waits:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise the KeyboardInterrupt that could not be raised where it came."""
        if self.pressed:
            raise KeyboardInterrupt


class Recall:
    """Asks a worker to report what it has, now; between two pieces of work it asks for nothing.

    SIGTERM does that, and :func:`ask_for_report`, where the process belongs to somebody else.
    """

    def __init__(self) -> None:
        self._requests = resident(_Requests, None, _Requests)
        self._before = self._requests.count
        self._previous: Any = None

    @property
    def asked(self) -> bool:
        """Whether it was asked."""
        return self._requests.count > self._before

    def __enter__(self) -> Recall:
        if multiprocessing.parent_process() is not None and _in_main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._requests.count += 1


class _Requests:
    """How often this process was asked for a report."""

    count = 0


def ask_for_report() -> None:
    """Let whoever works in this process, in another thread, report what there is."""
    resident(_Requests, None, _Requests).count += 1


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _in_hypothesis(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("hypothesis."):
            return True
        frame = frame.f_back
    return False
