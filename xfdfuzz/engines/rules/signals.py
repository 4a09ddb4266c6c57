"""Signals and their handlers."""

from __future__ import annotations

from xfdfuzz.engines.rules.base import Rules, one
from xfdfuzz.program.ops import signals


class SignalRules(Rules):
    """Signals and their handlers."""

    SHARE = 3

    signal = one(signals.Signal, on="signalable")
    signal_delivered = one(signals.SignalDelivered, on="signalled")
    sigframe_read = one(signals.SigframeRead, on="handlers")
    sigframe_write = one(signals.SigframeWrite, on="handlers")
    sigframe_sw_reserved = one(signals.SigframeSwReserved, on="handlers")
    sigframe_copy = one(signals.SigframeCopy, on="handlers")
    siglongjmp = one(signals.Siglongjmp, on="handlers")
    sigreturn = one(signals.Sigreturn, on="handlers")
    sigreturn_faults = one(signals.SigreturnFaults, on="handlers")
    sigreturn_fault_in = one(signals.SigreturnFaultIn, on="faulting")
    sigreturn_gone = one(signals.SigreturnGone, on="faulting")
