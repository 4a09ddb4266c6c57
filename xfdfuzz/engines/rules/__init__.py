"""The Hypothesis state machine: one rule per op, a module per area as in program/ops.

A rule draws small numbers only; which vCPU, task or value they mean is looked up in the state, so that a rule is never
drawn in vain and its arguments shrink towards the first of everything.  :class:`~xfdfuzz.engines.situation.Situation`
is that look-up, made once per step, and the preconditions read it.
"""

from __future__ import annotations

from xfdfuzz.engines.rules.base import CONDITIONS
from xfdfuzz.engines.rules.guest import GuestRules
from xfdfuzz.engines.rules.host import HostRules
from xfdfuzz.engines.rules.ioctls import IoctlRules
from xfdfuzz.engines.rules.processes import ProcessRules
from xfdfuzz.engines.rules.ptrace import PtraceRules
from xfdfuzz.engines.rules.run import RunRules
from xfdfuzz.engines.rules.signals import SignalRules
from xfdfuzz.engines.rules.syscalls import SyscallRules
from xfdfuzz.engines.rules.xsave import XsaveRules
from xfdfuzz.engines.selection import SituatedRules

__all__ = ["CONDITIONS", "KernelMachine"]


class KernelMachine(
    SyscallRules, ProcessRules, SignalRules, PtraceRules, IoctlRules, XsaveRules, RunRules, GuestRules, HostRules
):
    """Everything that user space, guests, the scheduler and interrupts can do to what is under test."""

    def __init__(self) -> None:
        super().__init__()
        self._rules_strategy = SituatedRules(self, CONDITIONS)  # type: ignore[assignment]
