"""Architectural LBRs of perf events: when they are saved, restored and read (arch/x86/events/intel/lbr.c; v5.16).

A task can have one event, which samples the call stack of its user code (PERF_SAMPLE_BRANCH_CALL_STACK), and whose
descriptor is closed on exec.  The branches that a CPU has recorded are the contents of component 15; without a branch
they are :data:`~xfdfuzz.kernel.fpu.init.ZEROED`, as the enabled LBRs themselves are never in their initial state.
"""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import load_component
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.errno import EOPNOTSUPP
from xfdfuzz.kernel.fpu.guest import GuestFpu
from xfdfuzz.kernel.fpu.init import ZEROED
from xfdfuzz.kernel.state import LBR_NONE, LBR_VALID, NULL, LbrContext, LbrXsave
from xfdfuzz.memory.cstruct import assign


class Perf(GuestFpu):
    """What perf does with the LBRs of this CPU."""

    @property
    def arch_lbr(self) -> bool:
        """boot_cpu_has(X86_FEATURE_ARCH_LBR)."""
        return self.machine.lbr

    def is_arch_lbr_xsave_available(self) -> bool:
        """Whether XSAVES moves them, and not RDMSR and WRMSR (arch/x86/events/intel/lbr.c)."""
        return bool(self.machine.supervisor_xfeatures & xf.MASK_LBR)

    # -- events ----------------------------------------------------------------------------------------------------

    def perf_event_open(self) -> int:
        """Of current, with PERF_SAMPLE_BRANCH_CALL_STACK and user code only: 0 (kernel/events/core.c)."""
        if not self.arch_lbr:
            return -EOPNOTSUPP
        context = self.current.lbr
        assign(context, LbrContext(event=1))
        self.intel_pmu_lbr_add(context, total_time_running=0)
        return 0

    @seam
    def close_perf_event(self, nr: int) -> None:
        """A task's event goes, with its context (kernel/events/core.c, perf_remove_from_context())."""
        context = self.tasks[nr].lbr
        if not context.event:
            return
        if self.tasks[nr].on_cpu:
            here = self.cpu
            self.on_cpu(self.tasks[nr].on_cpu - 1)
            self.intel_pmu_lbr_del(context)
            self.on_cpu(here)
        self._forget(nr)
        assign(context, LbrContext())

    def _forget(self, nr: int) -> None:
        """What log_id and last_log_id are for: no CPU's LBRs are what is saved of the task."""
        for cpu in self.cpus:
            if cpu.last_task_ctx == nr + 1:
                cpu.last_task_ctx = NULL

    def intel_pmu_lbr_add(self, context: LbrContext, total_time_running: int) -> None:
        """The event begins to count on this CPU (arch/x86/events/intel/lbr.c)."""
        context.lbr_callstack_users += 1
        self.this_cpu.lbr_users += 1
        if self.this_cpu.lbr_users == 1 and not total_time_running:
            self.intel_pmu_lbr_reset()

    def intel_pmu_lbr_del(self, context: LbrContext) -> None:
        """It ends; the LBRs are disabled, and hold what they held (arch/x86/events/intel/lbr.c)."""
        context.lbr_callstack_users -= 1
        self.this_cpu.lbr_users -= 1

    # -- context switch --------------------------------------------------------------------------------------------

    def perf_event_task_sched_out(self) -> None:
        """Before the switch, with prev as current (kernel/events/core.c)."""
        context = self.current.lbr
        if context.event:
            self._intel_pmu_lbr_save(context)
            self.intel_pmu_lbr_del(context)

    def perf_event_task_sched_in(self) -> None:
        """Behind it, with next as current (kernel/events/core.c)."""
        context = self.current.lbr
        if context.event:
            self.intel_pmu_lbr_add(context, total_time_running=1)
            self._intel_pmu_lbr_restore(context)

    def _intel_pmu_lbr_save(self, context: LbrContext) -> None:
        """(arch/x86/events/intel/lbr.c)."""
        if not context.lbr_callstack_users:
            context.lbr_stack_state = LBR_NONE
            return
        self.lbr_save(context.xsave)
        context.lbr_stack_state = LBR_VALID
        self._forget(self.current_nr)
        self.this_cpu.last_task_ctx = self.current_nr + 1

    def _intel_pmu_lbr_restore(self, context: LbrContext) -> None:
        """Unless nobody else has touched them since, nor a deep idle state (arch/x86/events/intel/lbr.c)."""
        if not context.lbr_callstack_users or context.lbr_stack_state == LBR_NONE:
            self.intel_pmu_lbr_reset()
            return
        if self.this_cpu.last_task_ctx != self.current_nr + 1 or self.lbr_is_reset_in_cstate():
            self.lbr_restore(context.xsave)
        context.lbr_stack_state = LBR_NONE

    # -- the LBRs --------------------------------------------------------------------------------------------------

    def intel_pmu_lbr_reset(self) -> None:
        """No branch is recorded (arch/x86/events/intel/lbr.c)."""
        load_component(self.regs, xf.LBR, ZEROED)
        self.this_cpu.last_task_ctx = NULL

    def lbr_is_reset_in_cstate(self) -> bool:
        """No branch is recorded, on a processor whose deep idle states do that (arch/x86/events/intel/lbr.c)."""
        return self.regs.data[xf.LBR] in (0, ZEROED)

    @phase_of("intel_pmu_arch_lbr_save")
    def lbr_save(self, context: LbrXsave) -> None:
        """x86_pmu.lbr_save: by XSAVES, else by MSRs (arch/x86/events/intel/lbr.c)."""
        if self.is_arch_lbr_xsave_available():
            self.intel_pmu_arch_lbr_xsaves(context)
        else:
            context.entries = self.regs.data[xf.LBR]

    @phase_of("intel_pmu_arch_lbr_restore")
    def lbr_restore(self, context: LbrXsave) -> None:
        """x86_pmu.lbr_restore, likewise (arch/x86/events/intel/lbr.c)."""
        if self.is_arch_lbr_xsave_available():
            self.intel_pmu_arch_lbr_xrstors(context)
        else:
            load_component(self.regs, xf.LBR, context.entries)

    def intel_pmu_arch_lbr_xsaves(self, context: LbrXsave) -> None:
        """(arch/x86/events/intel/lbr.c)."""
        self.xsaves(context, xf.MASK_LBR)

    def intel_pmu_arch_lbr_xrstors(self, context: LbrXsave) -> None:
        """(arch/x86/events/intel/lbr.c)."""
        self.xrstors(context, xf.MASK_LBR)

    # -- PMI -------------------------------------------------------------------------------------------------------

    def intel_pmu_handle_irq(self) -> None:
        """A PMI, which is an NMI: the event of the CPU's task samples its branches (arch/x86/events/intel/core.c)."""
        if self.this_cpu.lbr_users:
            if self.is_arch_lbr_xsave_available():
                self.intel_pmu_arch_lbr_read_xsave(self.this_cpu.lbr_xsave)
            else:
                self.intel_pmu_store_lbr(self.regs.data[xf.LBR])

    def intel_pmu_arch_lbr_read_xsave(self, buffer: LbrXsave) -> None:
        """All that is in the buffer then, whatever XSAVES has stored (arch/x86/events/intel/lbr.c)."""
        self.xsaves(buffer, xf.MASK_LBR)
        self.intel_pmu_store_lbr(buffer.entries)

    def intel_pmu_store_lbr(self, entries: int) -> None:
        """Up to the first that is 0 (arch/x86/events/intel/lbr.c)."""
        self.this_cpu.lbr_entries = entries or ZEROED

    def intel_pmu_cpu_starting(self) -> None:
        """A CPU comes online (arch/x86/events/intel/core.c)."""
        if self.arch_lbr:
            self.intel_pmu_lbr_reset()
