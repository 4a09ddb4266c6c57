"""Signals and their handlers."""

from __future__ import annotations

from xfdfuzz.engines.rules.base import Rules, on
from xfdfuzz.program.ops import signals
from xfdfuzz.strategies.values import picks, targets


class SignalRules(Rules):
    """Signals and their handlers."""

    SHARE = 3

    @on("signalable", n=targets)
    def signal(self, n: int) -> None:
        """A frame is set up."""
        self.do(signals.Signal(self.now.signalable[n % len(self.now.signalable)]))

    @on("signalled", n=targets)
    def signal_delivered(self, n: int) -> None:
        """The handler begins."""
        self.do(signals.SignalDelivered(self.now.signalled[n % len(self.now.signalled)]))

    @on("handlers", n=targets)
    def sigframe_read(self, n: int) -> None:
        """The handler looks at its frame."""
        self.do(signals.SigframeRead(self.now.handlers[n % len(self.now.handlers)]))

    @on("handlers", n=targets, image=picks)
    def sigframe_write(self, n: int, image: int) -> None:
        """The handler writes to the image in its frame."""
        task = self.now.handlers[n % len(self.now.handlers)]
        self.do(signals.SigframeWrite(task, self.domains.image.value(image)))

    @on("handlers", n=targets)
    def sigframe_fx_only(self, n: int) -> None:
        """The handler destroys the magic number."""
        self.do(signals.SigframeFxOnly(self.now.handlers[n % len(self.now.handlers)]))

    @on("handlers", n=targets)
    def sigreturn(self, n: int) -> None:
        """The handler returns."""
        self.do(signals.Sigreturn(self.now.handlers[n % len(self.now.handlers)]))
