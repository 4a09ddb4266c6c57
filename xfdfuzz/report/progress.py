"""How a campaign gets on: one line that moves on a terminal, elsewhere a new line after 5 seconds, 10, 20 and so on."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.stream.events import (
    DatabaseLost,
    Event,
    Found,
    Outcome,
    Progressed,
    Replayed,
    Stuck,
    Waiting,
    Withheld,
    WorkerLost,
)
from xfdfuzz.report.console import SEVERITY, counted, line

#: Seconds between two looks at the statistics, on a terminal and elsewhere; there they become fewer, up to the last.
_TERMINAL, _ELSEWHERE, _SELDOM = 0.25, 5.0, 300.0


class Progress:
    """The progress of one search.  Use it as a context manager; :meth:`take` may be called as often as one likes.

    ``describe`` makes the text of how far the search has come.  Nothing runs in the background.
    """

    def __init__(self, out: Console, describe: Callable[[Progressed], str]) -> None:
        self._out = out
        self._describe = describe
        moves = out.is_terminal and not out.is_dumb_terminal
        self._live = Live(console=out, auto_refresh=False, transient=True) if moves else None
        self._pause = _TERMINAL if self._live else _ELSEWHERE
        self._next = time.monotonic() + self._pause

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def take(self, event: Event) -> None:
        """Show what an event says; how far the search has come only if the last time is long enough ago."""
        if isinstance(event, Progressed):
            self._show(event)
        elif isinstance(event, Found):
            self.found(event.outcome)
        elif isinstance(event, Replayed):
            skipped = f" ({event.skipped} skipped: none of this version)" if event.skipped else ""
            line(self._out, f"{event.label}: begins with {counted(event.programs, 'program')} of before{skipped}")
        elif isinstance(event, DatabaseLost):
            line(self._out, ("lost ", "bold yellow"), f"a database: {event.reason}")
        elif isinstance(event, Withheld):
            line(self._out, ("found ", "bold"), f"something that is not shown, saved in {event.place}")
        elif isinstance(event, WorkerLost):
            what = "its work is done again" if event.seed is None else f"seed {event.seed}, what it had not reported"
            line(self._out, ("lost ", "bold yellow"), f"a worker ({event.reason}): {what}; another one has its place")
        elif isinstance(event, Waiting):
            line(self._out, "waiting for the workers, at most 5 s; Ctrl-C again ends at once")
        elif isinstance(event, Stuck):
            line(self._out, ("stuck ", "bold red"), event.reason, f", saved {event.file}" if event.file else "")

    def _show(self, event: Progressed) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._pause
        if not self._live:
            self._pause = min(2 * self._pause, _SELDOM)
        text = Text(f"{event.label}: {self._describe(event)}")
        if self._live:
            self._live.update(text, refresh=True)
        else:
            self._out.print(text, soft_wrap=True)

    def found(self, outcome: Outcome) -> None:
        """Say at once what was found and where it is safe."""
        parts: list[str | tuple[str, str]] = [("found ", "bold"), outcome.bucket]
        if isinstance(outcome, Finding):
            severity = outcome.violation.severity
            parts += [" ", (severity, SEVERITY[severity])]
        line(self._out, *parts, f", saved {outcome.file}" if outcome.file else ", not saved")


def of_search(event: Progressed, noun: str = "finding") -> str:
    """``12.3 s, 1234 examples, 3210 steps/s, 87 pairs of op and result, 2 findings``."""
    counts = event.counts
    return (
        f"{event.seconds:.1f} s, {counted(counts['examples'], 'example')}, "
        f"{_rate(counts['steps'], event.seconds)} steps/s, {counts['pairs']} pairs of op and result, "
        f"{counted(event.found, noun)}"
    )


def of_exploration(event: Progressed) -> str:
    """``12.3 s, depth 9, 53040 states, 31000 transitions/s, 1200 waiting, 2 findings``."""
    counts = event.counts
    return (
        f"{event.seconds:.1f} s, depth {counts['depth']}, {counts['states']} states, "
        f"{_rate(counts['transitions'], event.seconds)} transitions/s, {counts['waiting']} waiting, "
        f"{counted(event.found, 'finding')}"
    )


def of_matrix(event: Progressed) -> str:
    """``12.3 s, 40 of 237 programs``."""
    return f"{event.seconds:.1f} s, {event.counts['done']} of {counted(event.counts['programs'], 'program')}"


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds if seconds else 0.0:.0f}"
