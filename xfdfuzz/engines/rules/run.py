"""KVM_RUN in its parts."""

from __future__ import annotations

from xfdfuzz.engines.rules.base import Rules, one
from xfdfuzz.program.ops import run


class RunRules(Rules):
    """KVM_RUN in its parts."""

    SHARE = 6

    kvm_run = one(run.KvmRun, on="run_calls")
    vm_enter = one(run.VmEnter, on="ready")
    wakeup = one(run.Wakeup, on="waking")
    handle_exit = one(run.HandleExit, on="pending")
    kvm_run_returns = one(run.KvmRunReturns, on="returning")
