"""How tasks come, change and go."""

from __future__ import annotations

from xfdfuzz.engines.rules.base import Rules, on
from xfdfuzz.program.ops import processes
from xfdfuzz.strategies.values import targets


class ProcessRules(Rules):
    """How tasks come, change and go."""

    SHARE = 3

    @on("cloning", n=targets)
    def clone_thread(self, n: int) -> None:
        """clone(CLONE_THREAD)."""
        self.do(processes.CloneThread(self.task(n)))

    @on("cloning", n=targets)
    def clone_vm(self, n: int) -> None:
        """clone(CLONE_VM)."""
        self.do(processes.CloneVm(self.task(n)))

    @on("cloning", n=targets)
    def fork(self, n: int) -> None:
        """fork()."""
        self.do(processes.Fork(self.task(n)))

    @on("leaving", n=targets)
    def execve(self, n: int) -> None:
        """execve() begins."""
        self.do(processes.Execve(self.now.leaving[n % len(self.now.leaving)]))

    @on("execs", n=targets)
    def execve_returns(self, n: int) -> None:
        """execve() is done."""
        self.do(processes.ExecveReturns(self.now.execs[n % len(self.now.execs)]))

    @on("leaving", n=targets)
    def exit_task(self, n: int) -> None:
        """exit()."""
        self.do(processes.Exit(self.now.leaving[n % len(self.now.leaving)]))
