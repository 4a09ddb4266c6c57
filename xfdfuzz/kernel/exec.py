"""execve(2) past the point of no return (fs/exec.c, arch/x86/kernel/process.c; v5.16)."""

from __future__ import annotations

from xfdfuzz.kernel.base import phase_of
from xfdfuzz.kernel.fork import Fork
from xfdfuzz.kernel.state import USER_TASKS


class Exec(Fork):
    """How tasks begin another program."""

    def begin_new_exec(self) -> None:
        """execve(2) past the point of no return, up to the middle of fpu_flush_thread() (fs/exec.c, flush_thread()).

        The other threads die, descriptors are closed (KVM's are close-on-exec), the address space is new, without a
        PASID.  Between
        fpstate_reset() and fpu_reset_fpregs() nothing keeps the task from being preempted and migrated.
        """
        self.de_thread()
        self.current.vm_fds = 0
        self.close_perf_event(self.current_nr)
        self.complete_vfork_done(self.current_nr)
        self.current.mm = self.free_mm()
        self.current.mm_pasid = 0
        self.close_unused_vms()
        self.current.in_execve = 1
        self.forget_sigframes(self.current_nr)
        self.fpu_flush_thread()

    def de_thread(self) -> None:
        """The other threads are killed, and the caller becomes the leader (fs/exec.c)."""
        leader = self.current.group_leader
        self.current.group_leader = self.current_nr
        for nr in range(USER_TASKS):
            task = self.tasks[nr]
            if task.exists and task.group_leader == leader and nr != self.current_nr:
                self.kill(nr)

    @phase_of("begin_new_exec")
    def begin_new_exec_flush(self, ia32: bool) -> None:
        """From the middle of fpu_flush_thread() on, to start_thread() or compat_start_thread()."""
        self.fpu_flush_thread_regs()
        self.pkru_write_default()
        self.reset_thread_features()
        self.current.ia32 = ia32
        self.current.sas_ss_size = 0
        self.current.in_execve = 0
