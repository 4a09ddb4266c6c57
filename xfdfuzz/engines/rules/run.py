"""KVM_RUN in its parts."""

from __future__ import annotations

from xfdfuzz.engines.rules.base import Rules, on
from xfdfuzz.program.ops import run
from xfdfuzz.strategies.values import targets


class RunRules(Rules):
    """KVM_RUN in its parts."""

    SHARE = 6

    @on("idle_tasks", n=targets, vcpu=targets)
    def kvm_run(self, n: int, vcpu: int) -> None:
        """KVM_RUN begins."""
        self.do(run.KvmRun(self.vmm(n), self.idle_vcpu(vcpu)))

    @on("ready", vcpu=targets)
    def vm_enter(self, vcpu: int) -> None:
        """VM entry."""
        self.do(run.VmEnter(self.now.ready[vcpu % len(self.now.ready)]))

    @on("pending", vcpu=targets)
    def handle_exit(self, vcpu: int) -> None:
        """The pending exit is handled."""
        self.do(run.HandleExit(self.now.pending[vcpu % len(self.now.pending)]))

    @on("returning", n=targets)
    def kvm_run_returns(self, n: int) -> None:
        """KVM_RUN returns."""
        self.do(run.KvmRunReturns(self.now.returning[n % len(self.now.returning)]))
