"""The FPU core for host tasks: init_fpstate, exec, idle, CPU bring-up, signals."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import execute
from xfdfuzz.kernel.event import NULL_DEREF
from xfdfuzz.kernel.fork import Fork
from xfdfuzz.kernel.fpu.core import FpuCore
from xfdfuzz.kernel.fpu.init import ZEROED, FpuInit
from xfdfuzz.kernel.fpu.regset import Regset
from xfdfuzz.kernel.fpu.signal import FpuSignal
from xfdfuzz.kernel.power import Power
from xfdfuzz.kernel.sched import CLONE_THREAD
from xfdfuzz.kernel.state import FIRST_EMBEDDED, Fpstate
from xfdfuzz.revisions.queue import patch


@patch(
    "dc7507ddce59",
    "x86/fpu: Clear PASID when copying fpstate",
    version="v5.18",
    fixes=(),
)
class NoPasidForChildren(FpuCore):
    """A child has another address space, so another PASID, which it gets at its first ENQCMD."""

    def fpu_clone(self, child: int, flags: int) -> None:
        """(fpu/core.c)."""
        super().fpu_clone(child, flags)
        if self.use_xsave:
            self.fpstates[self.tasks[child].fpu.fpstate].regs.xstate_bv &= ~xf.MASK_PASID


@patch(
    "22aafe3bcb67",
    "x86/fpu: Remove init_task FPU state dependencies, add debugging warning for PF_KTHREAD tasks",
    version="v6.16",
    neutral="it checks what should not be",
)
class KthreadsHaveNoFpu(Regset):
    """Who asks for the struct fpu of a kernel thread gets none, and with CONFIG_X86_DEBUG_FPU a warning."""

    def x86_task_fpu(self, nr: int) -> None:
        """NULL, which all who call it follow (fpu/core.c)."""
        if self.config.debug_fpu and self.warn_on(self.tasks[nr].pf_kthread):
            self.die(NULL_DEREF)


@patch(
    "2d299e3d773d",
    "x86/fpu: Always use memcpy_and_pad() in arch_dup_task_struct()",
    version="v6.16",
    neutral="a clean-up",
)
class ChildBeginsWithZeros(Fork):
    """Nothing of the parent's embedded fpstate is in the child's before fpu_clone() saves there."""

    def arch_dup_task_struct(self, child: int) -> None:
        """Zeros follow struct task_struct (arch/x86/kernel/process.c)."""
        self.fpstates[FIRST_EMBEDDED + child].regs.data[xf.MXCSR] = ZEROED


@patch(
    "31cd31c9e17e",
    "x86/fpu: Fix NULL dereference in avx512_status()",
    version="v6.17",
    fixes=("22aafe3bcb67",),
)
class NoStatusOfKthreads(Regset):
    """/proc says nothing of the AVX-512 use of tasks that never run user code."""

    def avx512_status(self, nr: int) -> bool:
        """(fpu/xstate.c)."""
        task = self.tasks[nr]
        return not (task.pf_kthread or task.pf_user_worker) and super().avx512_status(nr)


@patch(
    "59f5ede3bc0f",
    "x86/fpu: Prevent FPU state corruption",
    version="v5.18",
    fixes=("5d2bd7009f30",),
)
class IrqFpuNotInLockedRegion(FpuCore):
    """A hard interrupt uses the FPU only where softirqs could: not where it hits an fpregs_lock()ed region.

    A NMI hits anywhere, and who asks in one is warned.
    """

    def irq_fpu_usable(self) -> bool:
        """(fpu/core.c)."""
        locked = self.in_hardirq() and self.in_interrupt()
        return not (self.warn_on(self.in_nmi()) or self.kernel_fpu_disabled() or locked)


@patch(
    "d02198550423",
    "x86/fpu: Improve crypto performance by making kernel-mode FPU reliably usable in softirqs",
    version="v6.15",
    neutral="a softirq that may not use the FPU computes without it",
)
class SoftirqsWaitForKernelFpu(FpuCore):
    """kernel_fpu_begin() disables bottom halves, not only preemption: softirqs wait for kernel_fpu_end().

    So who is told that the FPU is in use, and is no hard interrupt, has nested what must not be.
    """

    def irq_fpu_usable(self) -> bool:
        """WARN_ON_FPU(!in_hardirq()) where it is in use (fpu/core.c)."""
        nested = self.kernel_fpu_disabled() and not self.in_hardirq()
        self.warn_on(self.config.debug_fpu and nested)
        return super().irq_fpu_usable()

    def kernel_fpu_lock(self) -> None:
        """(fpu/core.c, kernel_fpu_begin_mask())."""
        if not self.irqs_disabled():
            self.fpregs_lock()

    def kernel_fpu_unlock(self) -> None:
        """(fpu/core.c, kernel_fpu_end())."""
        if not self.irqs_disabled():
            self.fpregs_unlock()


@patch(
    "2297554f01df",
    "x86/fpu: Fix irq_fpu_usable() to return false during CPU onlining",
    version="v6.16",
    fixes=("11d7956d526f",),
)
class KernelFpuAllowed(Power):
    """irq_fpu_usable() knows that a CPU that comes online has no FPU yet: kernel_fpu_allowed replaces in_kernel_fpu."""

    def irq_fpu_usable(self) -> bool:
        """Behind the warning of a NMI and in place of that of nesting (fpu/core.c)."""
        return (self.in_nmi() or not self.kernel_fpu_disabled()) and super().irq_fpu_usable()

    def kernel_fpu_disabled(self) -> bool:
        """!this_cpu_read(kernel_fpu_allowed) (fpu/core.c)."""
        return not self.this_cpu.kernel_fpu_allowed

    def kernel_fpu_disable(self) -> None:
        """(fpu/core.c, kernel_fpu_begin_mask())."""
        self.warn_on(self.config.debug_fpu and self.kernel_fpu_disabled())
        self.this_cpu.kernel_fpu_allowed = 0

    def kernel_fpu_enable(self) -> None:
        """(fpu/core.c, kernel_fpu_end())."""
        self.warn_on(self.config.debug_fpu and not self.kernel_fpu_disabled())
        self.this_cpu.kernel_fpu_allowed = 1

    def kernel_fpu_allow(self) -> None:
        """(arch/x86/kernel/fpu/init.c, fpu__init_cpu())."""
        self.this_cpu.kernel_fpu_allowed = 1

    def cpu_disable_common(self) -> None:
        """(arch/x86/kernel/smpboot.c)."""
        self.this_cpu.kernel_fpu_allowed = 0


@patch(
    "f17b168734c0",
    "x86/fpu: Add a helper to prepare AMX state for low-power CPU idle",
    version="v6.0",
    neutral="it saves power",
)
class IdleReleasesTiles(Power):
    """An idle CPU gives up the tiles that it still holds, and with them the registers of the task that they belong to.

    With 9f0112938277, the flag in intel_idle that asks for it.
    """

    def intel_idle(self) -> None:
        """(drivers/idle/intel_idle.c, intel_idle_xstate())."""
        self.fpu_idle_fpregs()
        super().intel_idle()

    def fpu_idle_fpregs(self) -> None:
        """TILERELEASE, and nobody owns the registers any more (fpu/core.c)."""
        if self.fpu_user_cfg.max_features & xf.MASK_XTILE and self.xfeatures_in_use() & xf.MASK_XTILE:
            execute(self.regs, self.machine, "tilerelease", 0, cr0_ts=False)
            self.cpu_invalidate_fpregs_state()


@patch(
    "a401f45e3875",
    "x86/fpu: Exclude dynamic states from init_fpstate",
    version="v6.1",
    fixes=("2308ee57d93d",),
)
class InitFpstateStatic(FpuInit):
    """init_fpstate, one page, no longer claims to hold the dynamic states (with c32d7cab57e3, d3e021adac7c)."""

    def init_fpstate_features(self) -> tuple[int, int]:
        """The defaults (fpu/xstate.c)."""
        return self.fpu_kernel_cfg.default_features, self.fpu_kernel_cfg.default_size


@patch(
    "36b038791e1e",
    "x86/fpu: Drop fpregs lock before inheriting FPU permissions",
    version="v6.1",
    fixes=("9e798e9aa14c",),
    stable=("v6.0.10",),
)
class PermsInheritedUnlocked(FpuCore):
    """fork takes siglock, a sleeping lock with PREEMPT_RT, where preemption is enabled (CVE-2022-49783).

    Merged for 6.1-rc6.
    """

    def fpu_clone_perms(self, child: int, flags: int) -> None:
        """(fpu/core.c, fpu_clone())."""
        self.fpregs_unlock()
        if not flags & CLONE_THREAD:
            self.fpu_inherit_perms(child)


@patch(
    "1f69383b203e",
    "x86/fpu: Invalidate FPU state correctly on exec()",
    version="v6.6",
    fixes=("33344368cb08",),
    stable=("..v6.1.192",),
)
class ExecInvalidatesTask(FpuCore):
    """exec drops the task's registers wherever they are, not just those of the CPU that it runs on."""

    def fpu_reset_invalidate(self) -> None:
        """__fpu_invalidate_fpregs_state() (fpu/core.c)."""
        self.current.fpu.last_cpu = -1


@patch(
    "10e4b5166df9",
    "x86/fpu: Keep xfd_state in sync with MSR_IA32_XFD",
    version="v6.9",
    fixes=("672365477ae8",),
    stable=("v6.1.84", "v6.6.24", "v6.7.12", "v6.8.3"),
)
class XfdStateInSync(Power):
    """CPU bring-up tells the per-CPU shadow what it writes to IA32_XFD (CVE-2024-35801)."""

    def fpu_init_cpu_xfd(self) -> None:
        """xfd_set_state() (fpu/xstate.c)."""
        super().fpu_init_cpu_xfd()
        self.this_cpu.xfd_state = self.init_xfd


@patch(
    "388eff894d6b",
    "x86/fpu: Ensure XFD state on signal delivery",
    version="v6.18",
    fixes=("672365477ae8",),
    stable=("v6.1.159", "v6.6.117", "v6.12.58", "v6.17.8"),
)
class XfdOnSignal(FpuSignal):
    """A handler starts under its task's XFD, whoever ran since the frame was set up (CVE-2025-68171)."""

    def fpu_clear_user_states_xfd(self, fpstate: Fpstate) -> None:
        """(fpu/core.c)."""
        super().fpu_clear_user_states_xfd(fpstate)
        self.xfd_update_state(fpstate)
