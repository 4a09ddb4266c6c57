"""The rules: one per op, a module per area as in program/ops.

A rule gets small numbers only; which vCPU, task or value they mean is looked up in the state, so that a rule is never
drawn in vain and its arguments shrink towards the first of everything.
:class:`~xfdfuzz.engines.rules.situation.Situation` is that look-up, made once per step, and the conditions of the rules
name its lists.
"""

from __future__ import annotations

from xfdfuzz.engines.rules.base import RULES, Rule
from xfdfuzz.engines.rules.guest import GuestRules
from xfdfuzz.engines.rules.host import HostRules
from xfdfuzz.engines.rules.ioctls import IoctlRules
from xfdfuzz.engines.rules.processes import ProcessRules
from xfdfuzz.engines.rules.ptrace import PtraceRules
from xfdfuzz.engines.rules.run import RunRules
from xfdfuzz.engines.rules.signals import SignalRules
from xfdfuzz.engines.rules.syscalls import SyscallRules
from xfdfuzz.engines.rules.vmm import VmmRules
from xfdfuzz.engines.rules.xsave import CetRules, XsaveRules

__all__ = ["RULES", "EveryRule", "Rule"]


class EveryRule(
    SyscallRules,
    ProcessRules,
    SignalRules,
    PtraceRules,
    IoctlRules,
    XsaveRules,
    VmmRules,
    RunRules,
    GuestRules,
    HostRules,
    CetRules,
):
    """Everything that user space, guests, the scheduler and interrupts can do to what is under test."""
