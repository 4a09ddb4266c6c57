"""How tasks come, change and go."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.engines.rules.base import Rules, on, one
from xfdfuzz.program.ops import processes, tasks
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import targets, tokens


class ProcessRules(Rules):
    """How tasks come, change and go."""

    SHARE = 3

    clone_thread = one(processes.CloneThread, on="cloning")
    clone_vm = one(processes.CloneVm, on="cloning")
    fork = one(processes.Fork, on="cloning")
    create_io_thread = one(processes.CreateIoThread, on="cloning")
    worker_copy_from_user = one(processes.WorkerCopyFromUser, on="workers")
    execve = one(processes.Execve, on="exec_ready")
    execve_returns = one(processes.ExecveReturns, on="execs")
    execve_returns_ia32 = one(processes.ExecveReturnsIa32, on="execs")

    @on("ia32_ready", n=targets, token=tokens)
    def begin_ia32(self, n: int, token: int) -> Iterator[Op]:
        """A task begins a 32-bit program, which computes with x87, as they do."""
        task = self.choice("ia32_ready", n)
        yield processes.Execve(task)
        yield processes.ExecveReturnsIa32(task)
        yield tasks.UserFld(task, token)

    exit_task = one(processes.Exit, on="leaving")
