"""exit(2) and what is freed with a task (kernel/exit.c, kernel/fork.c; arch/x86/kernel/process.c; v5.16)."""

from __future__ import annotations

from xfdfuzz.kernel.base import seam
from xfdfuzz.kernel.signal import Signals
from xfdfuzz.kernel.state import FIRST_VALLOC, NO_MM, NULL, USER_TASKS, Task
from xfdfuzz.memory.cstruct import assign


class Exit(Signals):
    """How tasks go.  Who shares an address space is taken to share the table of open files too."""

    def do_exit(self) -> None:
        """exit(2) of current (kernel/exit.c).  A leader stays until its last thread is gone.

        The parent is taken to wait for it at once.
        """
        nr, leader = self.current_nr, self.current.group_leader
        self.end_user_workers()
        self.complete_vfork_done(nr)
        self.current.mm = NO_MM
        self.current.mm_pasid = 0
        self.current.vm_fds = 0
        self.close_unused_vms()
        self.close_perf_event(nr)
        self.exit_thread()
        self.current.exit_state = 1
        self.schedule(USER_TASKS + self.cpu)
        if nr != leader:
            self.put_task_struct(nr)
        group = [task for task in self.tasks if task.exists and task.group_leader == leader]
        if all(task.exit_state for task in group):
            self.put_task_struct(leader)

    @seam
    def end_user_workers(self) -> None:
        """The last thread that can leave the kernel takes its process' workers along (io_uring_files_cancel())."""
        others = self.thread_group()
        if all(self.tasks[nr].pf_user_worker for nr in others):
            for nr in others:
                self.kill(nr)

    @seam
    def thread_group(self) -> list[int]:
        """The other threads of current's process that have not exited."""
        leader, me = self.current.group_leader, self.current_nr
        threads = ((nr, self.tasks[nr]) for nr in range(USER_TASKS) if nr != me)
        return [nr for nr, task in threads if task.exists and not task.exit_state and task.group_leader == leader]

    @seam
    def kill(self, nr: int) -> None:
        """Another task is gone, wherever it runs."""
        task, cpu = self.tasks[nr], self.cpu
        self.close_perf_event(nr)
        self.complete_vfork_done(nr)
        if task.on_cpu:
            self.on_cpu(task.on_cpu - 1)
            self.exit_thread()
            self.schedule(USER_TASKS + self.cpu)
            self.on_cpu(cpu)
        self.put_task_struct(nr)

    def complete_vfork_done(self, nr: int) -> None:
        """mm_release(): a task has no use for its address space any more, and whoever waits for that in vfork() can go
        on (kernel/fork.c)."""
        for task in self.tasks:
            if task.vfork_child == nr + 1:
                task.vfork_child = NULL

    def exit_thread(self) -> None:
        """(arch/x86/kernel/process.c)."""
        self.fpu_drop()

    def put_task_struct(self, nr: int) -> None:
        """The last reference goes: free what was allocated for it (kernel/fork.c, arch_release_task_struct()).

        fpu_fpregs_owner_ctx may go on pointing to it, as in the kernel.
        """
        if self.fpu_state_size_dynamic and self.tasks[nr].fpu.fpstate >= FIRST_VALLOC:
            self.vfree(self.tasks[nr].fpu.fpstate)
        assign(self.tasks[nr], Task())
        self.forget_sigframes(nr)

    def close_unused_vms(self) -> None:
        """Descriptors of VMs were closed: KVM destroys those that nobody has open any more (virt/kvm/kvm_main.c)."""
