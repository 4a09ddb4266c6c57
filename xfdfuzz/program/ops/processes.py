"""System calls that make, change and end tasks."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.sched import CLONE_THREAD, CLONE_VFORK, CLONE_VM
from xfdfuzz.kernel.state import GhostRegs, in_section
from xfdfuzz.memory.cstruct import assign
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import Nr
from xfdfuzz.program.ops.base import OK, Op, TaskOp, busy, inside, op
from xfdfuzz.program.step import Content, Result


class _Clone(TaskOp):
    __slots__ = ()

    def clone(self, k: Kernel, flags: int) -> Result:
        self.enter_kernel(k)
        ret, child = k.clone(flags)
        if ret:
            return Result(ret)
        self._ghost(k, child, not flags & CLONE_VFORK)
        return Result(f"t{child}")

    def _ghost(self, k: Kernel, child: int, own_stack: bool) -> None:
        """The child has the parent's registers, without the dynamic ones (caller-saved) and what belongs to another.

        A shared address space has one PASID, which the child may have already; a shadow stack is the child's own then,
        if it does not run on its parent's stacks.
        """
        tasks, shares_mm = k.system.ghost.tasks, k.tasks[child].mm == k.tasks[self.task].mm
        assign(tasks[child], tasks[self.task])
        for i in xf.components_in(k.machine.xfd_xfeatures):
            ghost.define(tasks[child], i, 0)
        if not shares_mm:
            ghost.define(tasks[child], xf.PASID, 0)
        elif tasks[child].data[xf.PASID]:
            tasks[child].undefined |= xf.MASK_PASID
        if shares_mm and own_stack and tasks[child].data[xf.CET_USER]:
            ghost.define(tasks[child], xf.CET_USER, ghost.task_token(child, 1))


@op("t{task} clone(CLONE_THREAD)")
class CloneThread(_Clone):
    """A new thread of the same process (CLONE_VM | CLONE_THREAD)."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.clone(k, CLONE_VM | CLONE_THREAD)


@op("t{task} clone(CLONE_VM)")
class CloneVm(_Clone):
    """A process of its own that shares the address space."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.clone(k, CLONE_VM)


@op("t{task} fork")
class Fork(_Clone):
    """A process of its own with a copy of the address space; it has the VMs open too, but cannot use them."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.clone(k, 0)


@op("t{task} vfork")
class Vfork(_Clone):
    """A process of its own that shares the address space, and runs on its parent's stacks: the parent sleeps until it
    executes another program, or exits."""

    task: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        in_handler = f"t{self.task} is in a signal handler, whose frame the child would share, which is not modelled"
        return _Clone.hindrance(self, k) or (in_handler if k.handlers_of(self.task) else "")

    def run(self, k: Kernel) -> Result:
        return self.clone(k, CLONE_VFORK | CLONE_VM)


@op("t{task} create_io_thread")
class CreateIoThread(TaskOp):
    """io_uring, or vhost since 6.4, makes a thread of the process that never leaves the kernel (PF_USER_WORKER).

    It has no registers but its creator's PKRU, can be scheduled, traced and looked up in /proc, and ends with its
    process."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        ret, child = k.create_io_thread()
        if ret:
            return Result(ret)
        tasks = k.system.ghost.tasks
        assign(tasks[child], GhostRegs(undefined=tasks[self.task].undefined & xf.MASK_PKRU))
        tasks[child].data[xf.PKRU] = tasks[self.task].data[xf.PKRU]
        return Result(f"t{child}")


@op("t{task} ... copy_from_user")
class WorkerCopyFromUser(Op):
    """A worker (io_uring, vhost) touches its process' memory; the value is the PKRU that decides whether it may."""

    task: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        task = k.tasks[self.task]
        if not task.pf_user_worker:
            return f"t{self.task} is no worker"
        return busy(task, self.task)

    def run(self, k: Kernel) -> Result:
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        return Result("ok", Content(k.regs.data[xf.PKRU]))


@op("t{task} execve ...")
class Execve(TaskOp):
    """execve() past the point of no return, up to the middle of fpu_flush_thread(): KVM's descriptors are closed, the
    other threads are gone.  None of them may be inside KVM_RUN, execve() or a section of kernel FPU use (the SIGKILL
    takes them out first)."""

    task: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        if found := TaskOp.hindrance(self, k):
            return found
        leader = k.tasks[self.task].group_leader
        threads = ((nr, task) for nr, task in enumerate(k.tasks) if task.exists and task.group_leader == leader)
        at_it = (inside(task, nr) for nr, task in threads if task.kvm_run or task.in_execve or in_section(task))
        return next(at_it, "")

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        k.begin_new_exec()
        return OK


class _ExecveReturns(TaskOp):
    __slots__ = ()

    def hindrance(self, k: Kernel) -> str:
        task = k.tasks[self.task]
        if not task.in_execve:
            return f"t{self.task} is not inside execve()"
        return "" if task.on_cpu else f"t{self.task} is on no CPU"

    def start(self, k: Kernel, ia32: bool) -> Result:
        """The new program begins."""
        k.on_cpu(k.tasks[self.task].on_cpu - 1)
        k.begin_new_exec_flush(ia32)
        assign(k.system.ghost.tasks[self.task], GhostRegs())
        ghost.default_pkru(k, self.task)
        return Result(0)


@op("t{task} ... execve")
class ExecveReturns(_ExecveReturns):
    """execve() flushes the registers and is done; what ran before leaves nothing behind."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.start(k, False)


@op("t{task} ... execve(ia32)")
class ExecveReturnsIa32(_ExecveReturns):
    """The same where the new program is a 32-bit one (IA32_EMULATION): it has neither AMX nor APX, and other register
    sets and signal frames."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.start(k, True)


@op("t{task} exit")
class Exit(TaskOp):
    """exit() of this thread; the last one of an address space closes its VMs.  No worker of its process may be inside
    a section of kernel FPU use: who waits for it would have to wait for that."""

    task: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        if found := TaskOp.hindrance(self, k):
            return found
        leader = k.tasks[self.task].group_leader
        workers = ((nr, task) for nr, task in enumerate(k.tasks) if task.pf_user_worker and task.group_leader == leader)
        return next((inside(task, nr) for nr, task in workers if in_section(task)), "")

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        k.do_exit()
        return OK
