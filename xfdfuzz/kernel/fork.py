"""clone(2) (kernel/fork.c, arch/x86/kernel/process.c; v5.16)."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.base import seam
from xfdfuzz.kernel.errno import EAGAIN, ENOMEM
from xfdfuzz.kernel.exit import Exit
from xfdfuzz.kernel.sched import CLONE_THREAD, CLONE_VFORK, CLONE_VM
from xfdfuzz.kernel.state import FIRST_EMBEDDED, NO_MM, USER_TASKS, SigFrame, Task
from xfdfuzz.memory.cstruct import assign


class Fork(Exit):
    """How tasks come."""

    def clone(self, flags: int) -> tuple[int, int]:
        """clone(2): 0 and the new task's number, EAGAIN, ENOMEM (kernel/fork.c, copy_process(); copy_thread())."""
        ret, child = self.dup_task_struct()
        if ret:
            return ret, 0
        mm = self.current.mm if flags & CLONE_VM else self.free_mm()
        self.boot_task(child)
        self.arch_dup_task_struct(child)
        task = self.tasks[child]
        task.mm = mm
        task.mm_pasid = self.current.mm_pasid if flags & CLONE_VM else 0
        task.vm_fds = self.current.vm_fds
        if flags & CLONE_THREAD:
            task.group_leader = self.current.group_leader
        self.sas_ss_reset(task)
        if flags & (CLONE_VM | CLONE_VFORK) != CLONE_VM:
            task.sas_ss_size, task.sas_ss_disable = self.current.sas_ss_size, self.current.sas_ss_disable
            task.sas_ss_autodisarm = self.current.sas_ss_autodisarm
        if not flags & CLONE_VM:
            self.copy_sigframes(child)
        task.pkru = self.regs.data[xf.PKRU] if self.ospke else 0
        task.ia32 = self.current.ia32
        self.dup_thread_features(task)
        ssp = self.shstk_alloc_thread_stack(child, flags)
        self.fpu_clone(child, flags)
        self.update_fpu_shstk(child, ssp)
        if flags & CLONE_VFORK:
            self.wait_for_vfork_done(child)
        return 0, child

    def wait_for_vfork_done(self, child: int) -> None:
        """Until mm_release() of the child the caller sleeps, while the child runs on its stack (kernel/fork.c).

        What is left of frames below the stack pointer is taken to be overwritten by it; it is called in no handler.
        """
        for frame in self.sigframes_of(self.current_nr):
            assign(frame, SigFrame())
        self.current.vfork_child = child + 1
        self.schedule(USER_TASKS + self.cpu)

    def create_io_thread(self) -> tuple[int, int]:
        """A thread of current's process that never leaves the kernel: 0 and its number, EAGAIN, ENOMEM (kernel/fork.c).

        io_uring has them, and vhost since 6.4 (create_user_worker()).  Its open files are the process', and it ends
        with it.
        """
        ret, child = self.dup_task_struct()
        if ret:
            return ret, 0
        self.boot_task(child)
        task = self.tasks[child]
        task.pf_user_worker = 1
        task.mm = self.current.mm
        task.mm_pasid = self.current.mm_pasid
        task.group_leader = self.current.group_leader
        task.pkru = self.regs.data[xf.PKRU] if self.ospke else 0
        task.ia32 = self.current.ia32
        self.dup_thread_features(task)
        self.fpu_clone_minimal(child)
        return 0, child

    def dup_task_struct(self) -> tuple[int, int]:
        """Memory for a task, which its first fpstate is in: 0 and its number, EAGAIN when the model's pool is used up,
        ENOMEM (kernel/fork.c)."""
        child = next((nr for nr in range(USER_TASKS) if not self.tasks[nr].exists), None)
        if child is None:
            return -EAGAIN, 0
        return (-ENOMEM, 0) if self.should_fail() else (0, child)

    @seam
    def dup_thread_features(self, task: Task) -> None:
        """A new task_struct is a copy of current's, with thread.features and thread.features_locked in it."""
        me = self.current
        task.shstk, task.wrss = me.shstk, me.wrss
        task.shstk_locked, task.wrss_locked = me.shstk_locked, me.wrss_locked

    def arch_dup_task_struct(self, child: int) -> None:
        """The child's embedded fpstate begins as a copy of the parent's, until 2d299e3d773d (6.16)
        (arch/x86/kernel/process.c).

        Of it, fpu_clone() leaves what its XSAVES does not write; only MXCSR can be seen of that.
        """
        source, target = self.fpstates[FIRST_EMBEDDED + self.current_nr], self.fpstates[FIRST_EMBEDDED + child]
        target.regs.data[xf.MXCSR] = source.regs.data[xf.MXCSR]

    @seam
    def free_mm(self) -> int:
        """A new address space: the first number that neither a task nor a VM has."""
        taken = {task.mm for task in self.tasks if task.exists} | {vm.mm for vm in self.vms if vm.exists}
        return next(mm for mm in range(NO_MM) if mm not in taken)
