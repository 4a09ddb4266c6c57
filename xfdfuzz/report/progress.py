"""How a campaign gets on: one line that moves on a terminal, a new line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.search.stats import Stats
from xfdfuzz.report.console import SEVERITY, counted, line

#: Seconds between two looks at the statistics, on a terminal and elsewhere.
_TERMINAL, _ELSEWHERE = 0.25, 5.0


class Progress:
    """The progress of one campaign.  Use it as a context manager; :meth:`update` may be called as often as one likes.

    Nothing runs in the background: the engine's statistics may only be read when the engine calls.
    """

    def __init__(self, out: Console, label: str) -> None:
        self._out = out
        self._label = label
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

    def update(self, stats: Stats, found: Sequence[object]) -> None:
        """Show the state of the campaign, if the last time is long enough ago."""
        self.show(lambda: summary(stats, len(found)))

    def show(self, describe: Callable[[], str]) -> None:
        """Show a line of any search, if the last time is long enough ago."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._pause
        text = Text(f"{self._label}: {describe()}")
        if self._live:
            self._live.update(text, refresh=True)
        else:
            self._out.print(text, soft_wrap=True)

    def found(self, finding: Finding) -> None:
        """Say at once what was found and where it is safe."""
        where = f"saved {finding.file}" if finding.file else "not saved"
        violation = finding.violation
        severity = (violation.severity, SEVERITY[violation.severity])
        line(self._out, ("found ", "bold"), violation.bucket, " ", severity, f", {where}")


def summary(stats: Stats, findings: int) -> str:
    """``12.3 s, 1234 examples, 3210 steps/s, 87 pairs of op and result, 2 findings``."""
    rate = stats.steps / stats.seconds if stats.seconds else 0.0
    return (
        f"{stats.seconds:.1f} s, {counted(stats.examples, 'example')}, {rate:.0f} steps/s, "
        f"{stats.pairs} pairs of op and result, {counted(findings, 'finding')}"
    )
