"""Signals and their handlers."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.engines.rules.base import Rules, on, one
from xfdfuzz.program.ops import signals
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import targets


class SignalRules(Rules):
    """Signals and their handlers."""

    SHARE = 3

    signal = one(signals.Signal, on="signalable")
    signal_delivered = one(signals.SignalDelivered, on="signalled")
    sigframe_read = one(signals.SigframeRead, on="handlers")
    sigframe_write = one(signals.SigframeWrite, on="handlers")
    sigframe_sw_reserved = one(signals.SigframeSwReserved, on="handlers")
    sigframe_copy = one(signals.SigframeCopy, on="handlers")
    sigframe_fsave = one(signals.SigframeFsave, on="ia32_handlers")
    siglongjmp = one(signals.Siglongjmp, on="handlers")

    @on("signalable", n=targets)
    def siglongjmp_at_once(self, n: int) -> Iterator[Op]:
        """A handler is left as soon as it is entered: the registers are initial, and memory holds what they were."""
        task = self.choice("signalable", n)
        yield signals.Signal(task)
        if task in self.now.signalled:
            yield signals.SignalDelivered(task)
            yield signals.Siglongjmp(task)

    sigreturn = one(signals.Sigreturn, on="handlers")
    sigreturn_faults = one(signals.SigreturnFaults, on="long_mode_handlers")
    sigreturn_fault_in = one(signals.SigreturnFaultIn, on="faulting")
    sigreturn_gone = one(signals.SigreturnGone, on="faulting")

    @on("nesting", n=targets)
    def signal_in_handler(self, n: int) -> Iterator[Op]:
        """A signal interrupts a handler, and its own begins."""
        task = self.choice("nesting", n)
        yield signals.Signal(task)
        if task in self.now.signalled:
            yield signals.SignalDelivered(task)

    @on("left_frames", n=targets)
    def siglongjmp_outwards(self, n: int) -> Iterator[Op]:
        """Leave several handlers at once."""
        task, frame = self.choice("left_frames", n)
        yield signals.Siglongjmp(task, frame)

    @on("copies", n=targets)
    def sigframe_copy_of(self, n: int) -> Iterator[Op]:
        """Come back by what another frame has."""
        task, frame = self.choice("copies", n)
        yield signals.SigframeCopyOf(task, frame)

    @on("frames", n=targets)
    def sigreturn_of_frame(self, n: int) -> Iterator[Op]:
        """Come back by another frame than the innermost: an outer one, or one that was used before."""
        task, frame = self.choice("frames", n)
        yield signals.Sigreturn(task, frame)
