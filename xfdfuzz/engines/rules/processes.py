"""How tasks come, change and go."""

from __future__ import annotations

from xfdfuzz.engines.rules.base import Rules, one
from xfdfuzz.program.ops import processes


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
    exit_task = one(processes.Exit, on="leaving")
