"""How tasks come, change and go."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.engines.rules.base import Rules, on, one
from xfdfuzz.program.ops import coredump, host, processes, ptrace, tasks
from xfdfuzz.program.ops.base import Op
from xfdfuzz.strategies.values import Range, flags, targets, tokens

#: The notes of a thread, the plainest last.
_NOTES = (coredump.CoredumpXfpregs, coredump.CoredumpFpregs, coredump.CoredumpSsp, coredump.CoredumpXstate)


class ProcessRules(Rules):
    """How tasks come, change and go."""

    SHARE = 3

    clone_thread = one(processes.CloneThread, on="cloning")
    clone_vm = one(processes.CloneVm, on="cloning")
    fork = one(processes.Fork, on="cloning")
    create_io_thread = one(processes.CreateIoThread, on="cloning")
    worker_copy_from_user = one(processes.WorkerCopyFromUser, on="workers")

    @on("cloning", n=targets, how=Range(0, 2), traced=flags)
    def child_first(self, n: int, how: int, traced: int) -> Iterator[Op]:
        """A task makes another one, which runs at once, or which a tracer that follows forks looks at, if it
        is a process of its own."""
        task, before = self.choice("cloning", n), self.now.stopped
        yield (processes.Fork, processes.CloneThread, processes.CloneVm)[how](task)
        for child in (nr for nr in self.now.stopped if nr not in before):
            if (task, child) in self.now.traces and traced:
                yield ptrace.PtraceGetXstate(task, child)
            else:
                yield host.Schedule(self.now.current.index(task), child)
                yield tasks.ReturnToUser(child)

    @on("vforking", n=targets, how=Range(0, 2))
    def vfork(self, n: int, how: int) -> Iterator[Op]:
        """A task starts a program by vfork(), mostly: its child runs, and executes another program or exits, or not
        yet."""
        task, before = self.choice("vforking", n), self.now.stopped
        cpu = self.now.current.index(task)
        yield processes.Vfork(task)
        for child in (nr for nr in self.now.stopped if nr not in before):
            yield host.Schedule(cpu, child)
            if how == 0:
                yield processes.Exit(child)
            elif how == 1:
                yield processes.Execve(child)

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

    @on("dumps", n=targets, note=Range(0, 9))
    def coredump(self, n: int, note: int) -> Iterator[Op]:
        """A process dumps core, and somebody looks at the layout or at a note of a thread, most often at its image."""
        task, thread = self.choice("dumps", n)
        if note > 4:  # the process is gone behind each
            yield coredump.CoredumpLayout(task)
        else:
            yield _NOTES[min(note, len(_NOTES) - 1)](task, thread)
