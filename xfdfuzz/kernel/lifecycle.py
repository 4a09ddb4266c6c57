"""The life of a task: clone, exec, exit (kernel/fork.c, fs/exec.c, kernel/exit.c; arch/x86/kernel/process.c; v5.16)."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cstruct import assign
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.errno import EAGAIN
from xfdfuzz.kernel.signal import Signals
from xfdfuzz.kernel.state import FIRST_VALLOC, NO_MM, USER_TASKS, SigFrame, Task

CLONE_VM = 0x100
CLONE_THREAD = 0x10000


class Lifecycle(Signals):
    """How tasks come, change and go.

    Who shares an address space is taken to share the table of open files too.
    """

    # -- clone ---------------------------------------------------------------------------------------------------

    def clone(self, flags: int) -> tuple[int, int]:
        """clone(2): 0 and the new task's number, or -EAGAIN (kernel/fork.c, copy_process(); copy_thread())."""
        child = next((nr for nr in range(USER_TASKS) if not self.tasks[nr].exists), None)
        if child is None:
            return -EAGAIN, 0
        mm = self.current.mm if flags & CLONE_VM else self.free_mm()
        self.boot_task(child)
        task = self.tasks[child]
        task.mm = mm
        task.vm_fds = self.current.vm_fds
        if flags & CLONE_THREAD:
            task.group_leader = self.current.group_leader
        if not flags & CLONE_VM:
            task.sas_ss_size = self.current.sas_ss_size
            assign(self.system.sigframes[child], self.system.sigframes[self.current_nr])
        task.pkru = self.regs.data[xf.PKRU] if self.ospke else 0
        self.fpu_clone(child, flags)
        return 0, child

    @seam
    def free_mm(self) -> int:
        """A new address space: the first number that neither a task nor a VM has."""
        taken = {task.mm for task in self.tasks if task.exists} | {vm.mm for vm in self.vms if vm.exists}
        return next(mm for mm in range(NO_MM) if mm not in taken)

    def fpu_clone(self, child: int, flags: int) -> None:
        """The child starts with a copy of the default part of the parent's registers (fpu/core.c, fpu_clone()).

        Dynamic state is caller-saved by definition and is not copied.
        """
        dst = self.tasks[child].fpu
        self.fpregs_lock()
        if self.current.tif_need_fpu_load:
            self.fpregs_restore_userregs()
        self.save_fpregs_to_fpstate(dst)
        self.fpu_clone_perms(child, flags)
        self.fpstates[dst.fpstate].regs.xstate_bv &= ~xf.MASK_PASID

    @seam
    def fpu_clone_perms(self, child: int, flags: int) -> None:
        """The end of fpu_clone()'s locked region: the lock is let go last, until 36b038791e1e (6.1)."""
        if not flags & CLONE_THREAD:
            self.fpu_inherit_perms(child)
        self.fpregs_unlock()

    def fpu_inherit_perms(self, child: int) -> None:
        """A forked process has its parent's permissions, the LOCKED bit among them (fpu/core.c)."""
        if self.fpu_state_size_dynamic:
            src = self.tasks[self.current.group_leader].fpu
            dst = self.tasks[child].fpu
            self.spin_lock_irq()
            assign(dst.perm, src.perm)
            assign(dst.guest_perm, src.guest_perm)
            self.spin_unlock_irq()

    # -- exec ----------------------------------------------------------------------------------------------------

    def begin_new_exec(self) -> None:
        """execve(2) past the point of no return, up to the middle of fpu_flush_thread() (fs/exec.c, flush_thread()).

        The other threads die, descriptors are closed (KVM's are close-on-exec), the address space is new.  Between
        fpstate_reset() and fpu_reset_fpregs() nothing keeps the task from being preempted and migrated.
        """
        self.de_thread()
        self.current.vm_fds = 0
        self.current.mm = self.free_mm()
        self.close_unused_vms()
        self.current.in_execve = 1
        assign(self.system.sigframes[self.current_nr], SigFrame())
        self.fpu_flush_thread()

    def de_thread(self) -> None:
        """The other threads are killed, and the caller becomes the leader (fs/exec.c)."""
        leader = self.current.group_leader
        self.current.group_leader = self.current_nr
        cpu = self.cpu
        for nr in range(USER_TASKS):
            task = self.tasks[nr]
            if task.exists and task.group_leader == leader and nr != self.current_nr:
                if task.on_cpu:
                    self.on_cpu(task.on_cpu - 1)
                    self.exit_thread()
                    self.schedule(USER_TASKS + self.cpu)
                    self.on_cpu(cpu)
                self.put_task_struct(nr)

    def fpu_flush_thread(self) -> None:
        """Its first half: back to the embedded fpstate (fpu/core.c)."""
        self.fpstate_reset(self.current_nr)

    @phase_of("begin_new_exec")
    def begin_new_exec_flush(self) -> None:
        """From the middle of fpu_flush_thread() on."""
        self.fpu_flush_thread_regs()
        self.pkru_write_default()
        self.current.sas_ss_size = 0
        self.current.in_execve = 0

    @phase_of("fpu_flush_thread")
    def fpu_flush_thread_regs(self) -> None:
        """Its second half."""
        self.fpu_reset_fpregs()

    # -- exit ----------------------------------------------------------------------------------------------------

    def do_exit(self) -> None:
        """exit(2) of current (kernel/exit.c).  A leader stays until its last thread is gone.

        The parent is taken to wait for it at once.
        """
        nr, leader = self.current_nr, self.current.group_leader
        self.current.mm = NO_MM
        self.current.vm_fds = 0
        self.close_unused_vms()
        self.exit_thread()
        self.current.exit_state = 1
        self.schedule(USER_TASKS + self.cpu)
        if nr != leader:
            self.put_task_struct(nr)
        group = [task for task in self.tasks if task.exists and task.group_leader == leader]
        if all(task.exit_state for task in group):
            self.put_task_struct(leader)

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
        assign(self.system.sigframes[nr], SigFrame())

    def close_unused_vms(self) -> None:
        """Descriptors of VMs were closed: KVM destroys those that nobody has open any more (virt/kvm/kvm_main.c)."""
