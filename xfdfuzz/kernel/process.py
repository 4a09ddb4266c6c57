"""Tasks: the scheduler's context switch, the way back to user mode, user instructions and their #NM.

arch/x86/kernel/{process,process_64,traps,signal}.c and kernel/sched/core.c of v5.16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import (
    LEGACY,
    LONG_MODE_ONLY,
    MSR_IA32_XFD_ERR,
    DeviceNotAvailable,
    GeneralProtection,
    InvalidOpcode,
    enqcmd,
    execute,
    load_component,
    read,
)
from xfdfuzz.arch.xsave import XsaveArea, fxrstor, save, xrstor
from xfdfuzz.kernel.base import seam
from xfdfuzz.kernel.errno import EFAULT, EOPNOTSUPP, EPERM
from xfdfuzz.kernel.event import ATOMIC_SLEEP, CALLED_OFF, OOPS, PREEMPTED
from xfdfuzz.kernel.locking import PREEMPT_OFFSET
from xfdfuzz.kernel.perf import Perf
from xfdfuzz.kernel.state import NULL, USER_TASKS, inside_call

_T = TypeVar("_T")


class Process(Perf):
    """What tasks do with the FPU core."""

    # -- context switch ------------------------------------------------------------------------------------------

    def fire_sched_out_preempt_notifiers(self) -> None:
        """Called before the switch, with prev as current (kernel/sched/core.c); KVM registers one per loaded vCPU."""

    def fire_sched_in_preempt_notifiers(self) -> None:
        """Called after the switch, with next as current."""

    def schedule(self, nr: int) -> None:
        """Switch this CPU to task ``nr``, with preemption disabled (kernel/sched/core.c, context_switch())."""
        prev = self.current
        prev.user_mode = 0
        self.call_preemption_off()
        self.preempt_disable()
        self.schedule_debug()
        self.perf_event_task_sched_out()
        self.fire_sched_out_preempt_notifiers()
        self._switch_to(nr)
        self.perf_event_task_sched_in()
        self.fire_sched_in_preempt_notifiers()
        self.preempt_enable()

    @seam
    def schedule_debug(self) -> None:
        """in_atomic_preempt_off(): "BUG: scheduling while atomic", and on it goes as if nothing had been disabled
        (kernel/sched/core.c)."""
        count = self.this_cpu.preempt_count
        if count != PREEMPT_OFFSET:
            self.report(ATOMIC_SLEEP, count, self.current.rcu_read_lock_nesting)
            self.this_cpu.preempt_count = PREEMPT_OFFSET

    def preempt_schedule(self, nr: int) -> None:
        """The task in the kernel is preempted (kernel/sched/core.c): task ``nr`` computes for a while, if it has a user
        mode and is not inside a call, and the task goes on where it was."""
        me, task = self.current_nr, self.tasks[nr]
        self.this_cpu.resched_task = NULL
        runs = task.exists and not (task.on_cpu or task.exit_state or task.vfork_child)
        self.report(PREEMPTED, self.cpu, nr, int(runs))
        if not runs:
            return
        self.schedule(nr)
        if not (inside_call(task) or task.pf_kthread or task.pf_user_worker):
            self.exit_to_user_mode()
        self.schedule(me)

    @seam
    def call_preemption_off(self) -> None:
        """The task that was to be preempted on this CPU is about to leave it."""
        if self.this_cpu.resched_points:
            self.report(CALLED_OFF, self.cpu, self.this_cpu.resched_points)
            self.this_cpu.resched_points = 0

    def _switch_to(self, nr: int) -> None:
        """__switch_to() (arch/x86/kernel/process_64.c): save prev, make next current, eager PKRU.

        __schedule() has interrupts off (kernel/sched/core.c).
        """
        self.local_irq_disable()
        self.switch_fpu_prepare()
        self.local_irq_enable()
        prev = self.current
        prev.on_cpu = 0
        self.x86_pkru_load(nr)
        self.set_current(nr)
        self.current.on_cpu = self.cpu + 1
        self.switch_fpu_finish()

    def x86_pkru_load(self, nr: int) -> None:
        """PKRU is switched eagerly (arch/x86/kernel/process_64.c)."""
        if self.ospke:
            self.current.pkru = self.regs.data[xf.PKRU]
            load_component(self.regs, xf.PKRU, self.tasks[nr].pkru)

    # -- user mode -----------------------------------------------------------------------------------------------

    def exit_to_user_mode(self) -> None:
        """arch_exit_to_user_mode_prepare(): load the registers if they are not there (entry-common.h).

        Interrupts are off (exit_to_user_mode_prepare(): lockdep_assert_irqs_disabled()).
        """
        self.local_irq_disable()
        self.fpregs_assert_state_consistent()
        if self.current.tif_need_fpu_load:
            self.switch_fpu_return()
        self.local_irq_enable()
        self.current.user_mode = 1

    def syscall_enter_from_user_mode(self) -> None:
        """Interrupts are on from here, so that the task can be preempted before it locks anything
        (kernel/entry/common.c)."""
        self.current.user_mode = 0
        self.preemptible()

    @seam
    def user_insn(self, insn: str, token: int) -> str:
        """One data instruction in user mode: ``ok``, or the signal that it ends in.

        Signal delivery itself is not modelled: the handler is taken to leave the registers as they were.
        """

        def attempt() -> None:
            self.long_mode_only(insn)
            execute(self.regs, self.machine, insn, token, cr0_ts=False)

        return self.user_attempts(attempt)[0]

    @seam
    def long_mode_only(self, insn: str) -> None:
        """#UD for an instruction that a 32-bit program does not have."""
        if self.current.ia32 and insn in LONG_MODE_ONLY:
            raise InvalidOpcode

    @seam
    def user_read(self, insn: str) -> tuple[str, int | None]:
        """One that stores contents, in user mode: ``ok`` and these, or the signal that it ends in."""

        def attempt() -> int:
            self.long_mode_only(insn)
            return read(self.regs, self.machine, insn, cr0_ts=False)

        return self.user_attempts(attempt)

    @seam
    def user_save(self, insn: str, mask: int) -> tuple[str, XsaveArea | None]:
        """One that stores an image, in user mode, likewise: FXSAVE, or XSAVE and what belongs to it, which take
        CR4.OSXSAVE."""

        def attempt() -> XsaveArea:
            if insn not in LEGACY and not self.use_xsave:
                raise InvalidOpcode
            return save(self.regs, self.machine, insn, mask, cr0_ts=False)

        return self.user_attempts(attempt)

    @seam
    def user_fxrstor(self, area: XsaveArea) -> str:
        """FXRSTOR in user mode: ``ok``, or the signal that it ends in."""
        return self.user_attempts(lambda: fxrstor(self.regs, area))[0]

    @seam
    def user_xrstor(self, area: XsaveArea, mask: int) -> str:
        """XRSTOR in user mode: ``ok``, or the signal that it ends in; of a #NM the same as of other instructions'."""
        if not self.use_xsave:
            return "SIGILL"
        return self.user_attempts(lambda: xrstor(self.regs, self.machine, area, mask))[0]

    @seam
    def user_attempts(self, attempt: Callable[[], _T]) -> tuple[str, _T | None]:
        """An instruction, again after each #NM: ``ok`` and what it reads, or the signal that it ends in."""
        for _ in range(3):
            self.exit_to_user_mode()
            try:
                return "ok", attempt()
            except InvalidOpcode:
                return "SIGILL", None
            except GeneralProtection:
                return "SIGSEGV", None
            except DeviceNotAvailable:
                self.current.user_mode = 0
                signal = self.exc_device_not_available()
                if signal:
                    return signal, None
        return "livelock", None

    @seam
    def user_wrpkru(self, token: int) -> str:
        """WRPKRU in user mode: ``ok``, or the signal that it ends in."""
        self.exit_to_user_mode()
        if not self.ospke:
            return "SIGILL"
        load_component(self.regs, xf.PKRU, token)
        return "ok"

    @seam
    def user_enqcmd(self) -> tuple[str, int]:
        """ENQCMD in user mode: ``ok`` and the PASID that it used, or the signal that it ends in."""
        for _ in range(2):
            self.exit_to_user_mode()
            try:
                return "ok", enqcmd(self.regs, self.machine)
            except InvalidOpcode:
                return "SIGILL", 0
            except GeneralProtection:
                self.current.user_mode = 0
                if not self.try_fixup_enqcmd_gp():
                    break
        return "SIGSEGV", 0

    def iommu_sva_bind_device(self) -> int:
        """Bind current's address space to a device, which gives it a PASID (drivers/iommu/iommu-sva.c).

        It stays the address space's until that is freed (Documentation/arch/x86/sva.rst).
        """
        if not self.sva_supported():
            return -EOPNOTSUPP
        for task in self.tasks[:USER_TASKS]:
            if task.exists and task.mm == self.current.mm:
                task.mm_pasid = 1
        return 0

    def try_fixup_enqcmd_gp(self) -> bool:
        """Whether the instruction can run again: never before fa6af69f38d3 (arch/x86/kernel/traps.c)."""
        return False

    def exc_device_not_available(self) -> str:
        """#NM from user mode (arch/x86/kernel/traps.c, handle_xfd_event()): grow the buffer or kill the task."""
        xfd_err = self.rdmsrl(MSR_IA32_XFD_ERR) if self.machine.has_xfd else 0
        if not xfd_err:
            self.die(OOPS)
        self.wrmsrl(MSR_IA32_XFD_ERR, 0)
        err = self.xfd_enable_feature(xfd_err)
        return {-EPERM: "SIGILL", -EFAULT: "SIGSEGV"}.get(err, "")
