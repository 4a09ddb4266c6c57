"""Saving and restoring, register ownership and the kernel's own FPU use.

arch/x86/kernel/fpu/{xstate.h,context.h,core.c} and arch/x86/include/asm/fpu/sched.h, v5.16.
"""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch import xsave
from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR, DeviceNotAvailable, GeneralProtection, load_component
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.event import HARDIRQ, IRQ_FPU, KERNEL_MXCSR, LOST_STATE, OOPS, OVERRUN, XRSTOR_FAULT
from xfdfuzz.kernel.fpu.init import FXSAVE_SIZE, FpuInit
from xfdfuzz.kernel.locking import HARDIRQ_OFFSET, NMI_OFFSET, SOFTIRQ_OFFSET
from xfdfuzz.kernel.sched import CLONE_THREAD
from xfdfuzz.kernel.state import INIT_FPSTATE, NULL, Fpstate, Fpu
from xfdfuzz.memory.cstruct import assign

#: What the kernel computes with in an interrupt; it is nobody's.
KERNEL_CONTENTS = 4
#: And in a task's context: in a section, in one that is nested in it, and so on.
SECTION_CONTENTS = (5, 6, 7)


class FpuCore(FpuInit):
    """The FPU core's dealings with the registers."""

    # -- xstate.h ------------------------------------------------------------------------------------------------

    def xfd_update_state(self, fpstate: Fpstate) -> None:
        """Write IA32_XFD if the per-CPU shadow says that it differs (fpu/xstate.h, xfd_update_state()).

        Trusts the shadow: if the MSR changed behind its back the write is wrongly skipped.
        """
        if self.fpu_state_size_dynamic:
            xfd = fpstate.xfd
            if self.this_cpu.xfd_state != xfd:
                self.wrmsrl(MSR_IA32_XFD, xfd)
                self.this_cpu.xfd_state = xfd

    def xstate_op_valid(self, fpstate: Fpstate, mask: int, rstor: bool) -> bool:
        """Whether XSAVE or XRSTOR with RFBM = ``mask`` may run (fpu/xstate.c, CONFIG_X86_DEBUG_FPU)."""
        xfd = self.this_cpu.xfd_state
        if fpstate.xfd == xfd:
            return True
        if fpstate.xfd == self.fpstates[self.current.fpu.fpstate].xfd:
            return False
        if fpstate is self.fpstates[INIT_FPSTATE]:
            return rstor
        return not mask & ~xfd & ~fpstate.xfeatures

    def xfd_validate_state(self, fpstate: Fpstate, mask: int, rstor: bool) -> None:
        """The FPU core's own check, compiled in with CONFIG_X86_DEBUG_FPU (fpu/xstate.c)."""
        if self.config.debug_fpu:
            self.warn_on(not self.xstate_op_valid(fpstate, mask, rstor))

    def xfeatures_in_use(self) -> int:
        """What XGETBV with ECX = 1 shows (arch/x86/include/asm/fpu/xcr.h)."""
        return xsave.xgetbv_in_use(self.regs)

    def os_xsave(self, fpstate: Fpstate) -> None:
        """XSAVES with RFBM = fpstate->xfeatures, not XCR0 (fpu/xstate.h, os_xsave())."""
        mask = fpstate.xfeatures
        self.hardirq_window()
        self.xfd_validate_state(fpstate, mask, False)
        regs = self.regs
        live = xsave.effective_xinuse(regs)
        # what is initial is not lost, whatever the processor calls it
        lost = live & regs.xinuse & ~mask & regs.xcr0
        # a task in exec has given its registers up, and a protected guest's are not there
        given_up = self.current.in_execve or fpstate.is_confidential
        if lost and fpstate is self.fpstates[self.current.fpu.fpstate] and not given_up:
            self.report(LOST_STATE, lost)
        self.xstate_xsave(fpstate, mask)
        if fpstate.size > fpstate.alloc_size or fpstate.xfeatures & self.XFEATURE_MASK_USER_DYNAMIC:
            end = self.machine.cpuid.compacted_end(mask & xsave.enabled(regs), live)
            if self.compacted and end > fpstate.alloc_size:
                self.report(OVERRUN, end, fpstate.alloc_size)

    @seam
    def xstate_xsave(self, fpstate: Fpstate, mask: int) -> None:
        """XSTATE_XSAVE(): XSAVES, else XSAVEC where the kernel's images are compacted, else XSAVEOPT (fpu/xstate.h)."""
        if self.machine.has_xsaves:
            xsave.xsaves(self.regs, fpstate.regs, mask, self.machine.exact_sse)
        elif self.compacted:
            xsave.xsavec(self.regs, fpstate.regs, mask, self.machine.exact_sse)
        else:
            xsave.xsaveopt(self.regs, fpstate.regs, mask)

    @seam
    def xstate_xrstor(self, fpstate: Fpstate, mask: int) -> None:
        """The instruction of XSTATE_XRESTORE(): XRSTORS, else XRSTOR (fpu/xstate.h)."""
        if self.machine.has_xsaves:
            xsave.xrstors(self.regs, fpstate.regs, mask)
        else:
            xsave.xrstor(self.regs, self.machine, fpstate.regs, mask)

    def os_xrstor(self, fpstate: Fpstate, mask: int) -> None:
        """XRSTORS of a buffer under the XFD that fits it (fpu/xstate.h)."""
        self.xfd_validate_state(fpstate, mask, True)
        self.xstate_xrestore(fpstate, mask)

    def os_xrstor_supervisor(self, fpstate: Fpstate) -> None:
        """XRSTORS of the supervisor states, which do not depend on XFD: nothing is validated (fpu/xstate.h)."""
        self.xstate_xrestore(fpstate, self.xfeatures_mask_supervisor())

    def os_xrstor_safe(self, fpstate: Fpstate, mask: int) -> bool:
        """The same once XFD is up to date; whether it did not fault (fpu/xstate.h)."""
        self.xfd_update_state(fpstate)
        try:
            self.xstate_xrstor(fpstate, mask)
        except DeviceNotAvailable:
            self.exc_device_not_available_in_kernel()
        except GeneralProtection:
            return False
        self.hardirq_window()
        return True

    @seam
    def xstate_xrestore(self, fpstate: Fpstate, mask: int) -> None:
        """XSTATE_XRESTORE(): a fault goes through the exception table or kills the kernel (fpu/xstate.h).

        XRSTORS may read all of what XCOMP_BV lays out (commit message of a401f45e3875).
        """
        if fpstate.regs.xcomp_bv & self.XFEATURE_MASK_USER_DYNAMIC:
            end = self.machine.cpuid.compacted_size(fpstate.regs.xcomp_bv & ~xsave.XCOMP_BV_COMPACTED)
            if end > fpstate.alloc_size:
                self.report(OVERRUN, end, fpstate.alloc_size)
        try:
            self.xstate_xrstor(fpstate, mask)
        except DeviceNotAvailable:
            self.exc_device_not_available_in_kernel()
        except GeneralProtection:
            self.ex_handler_fprestore()
        self.hardirq_window()

    @phase_of("exc_device_not_available")
    def exc_device_not_available_in_kernel(self) -> None:
        """#NM from kernel mode: "unexpected #NM exception", die() (arch/x86/kernel/traps.c)."""
        self.handle_xfd_event_in_kernel()
        self.die(XRSTOR_FAULT)

    @phase_of("handle_xfd_event")
    def handle_xfd_event_in_kernel(self) -> None:
        """Clear XFD_ERR, then WARN_ON(!user_mode(regs)) (arch/x86/kernel/traps.c)."""
        self.wrmsrl(MSR_IA32_XFD_ERR, 0)
        self.warn_on(True)

    def ex_handler_fprestore(self) -> None:
        """Report bad FPU state and reinitialise the registers (arch/x86/mm/extable.c; core.c)."""
        self.report(XRSTOR_FAULT)
        init = self.fpstates[INIT_FPSTATE]
        self.xfd_update_state(init)
        try:
            self.xstate_xrstor(init, self.fpu_kernel_cfg.max_features & self.xfeature_mask_fpstate)
        except GeneralProtection:  # the handler again, until the stack is used up
            self.die(OOPS)

    # -- core.c --------------------------------------------------------------------------------------------------

    def save_fpregs_to_fpstate(self, fpu: Fpu) -> None:
        """Save the registers into fpu->fpstate; they stay as they are (fpu/core.c)."""
        fpstate = self.deref(fpu.fpstate)
        if self.use_xsave:
            self.os_xsave(fpstate)
        else:
            self.fxsave(fpstate)

    def fpu_sync_fpstate(self) -> None:
        """Current's fpstate has what its registers have (fpu/core.c)."""
        self.fpregs_lock()
        if not self.current.tif_need_fpu_load:
            self.save_fpregs_to_fpstate(self.current.fpu)
        self.fpregs_unlock()

    def fxsave(self, fpstate: Fpstate) -> None:
        """FXSAVE: x87, SSE and MXCSR, no header (fpu/legacy.h)."""
        for i in xf.LEGACY:
            fpstate.regs.data[i] = self.regs.data[i]
        if fpstate.alloc_size < FXSAVE_SIZE:
            self.report(OVERRUN, FXSAVE_SIZE, fpstate.alloc_size)

    def restore_fpregs_from_fpstate(self, fpstate: Fpstate, mask: int) -> None:
        """Load all of ``mask``, whatever the task may use, with XFD set first (fpu/core.c).

        So a feature that the previous task used goes to its initial state although this one has no permission for it.
        """
        self.clear_error_pointers()
        if self.use_xsave:
            self.xfd_update_state(fpstate)
            self.os_xrstor(fpstate, self.fpu_kernel_cfg.max_features & mask)
        else:
            for i in xf.LEGACY:
                load_component(self.regs, i, fpstate.regs.data[i])

    @phase_of("restore_fpregs_from_fpstate")
    def clear_error_pointers(self) -> None:
        """X86_BUG_FXSAVE_LEAK: FNCLEX, EMMS and FILD, so that x87's error pointers are the kernel's (fpu/core.c)."""
        if self.machine.fxsave_leak:
            self.regs.error_pointers = 0

    def fpregs_state_valid(self, fpu: Fpu, task: int) -> bool:
        """Whether the registers of this CPU still hold the task's state (fpu/context.h)."""
        return self.this_cpu.fpu_fpregs_owner_ctx == task + 1 and fpu.last_cpu == self.cpu

    def fpregs_activate(self) -> None:
        """current owns this CPU's registers (fpu/context.h)."""
        self.this_cpu.fpu_fpregs_owner_ctx = self.current_nr + 1

    def cpu_invalidate_fpregs_state(self) -> None:
        """__cpu_invalidate_fpregs_state(): nobody owns this CPU's registers (fpu/context.h)."""
        self.this_cpu.fpu_fpregs_owner_ctx = NULL

    def fpregs_restore_userregs(self) -> None:
        """Load current's registers unless they are still there; then XFD is not touched either (fpu/context.h)."""
        fpu = self.current.fpu
        if self.warn_on(self.current.pf_kthread):
            return
        if not self.fpregs_state_valid(fpu, self.current_nr):
            self.restore_fpregs_from_fpstate(self.deref(fpu.fpstate), self.xfeature_mask_fpstate)
            self.fpregs_activate()
            fpu.last_cpu = self.cpu
        self.current.tif_need_fpu_load = 0

    def switch_fpu_return(self) -> None:
        """Load the FPU context before user space or the guest goes on (fpu/core.c)."""
        self.fpregs_restore_userregs()

    def fpregs_mark_activate(self) -> None:
        """The registers now hold current's state (fpu/core.c)."""
        self.fpregs_activate()
        self.current.fpu.last_cpu = self.cpu
        self.current.tif_need_fpu_load = 0

    def fpregs_assert_state_consistent(self) -> None:
        """CONFIG_X86_DEBUG_FPU: TIF_NEED_FPU_LOAD clear means that the registers are current's (fpu/core.c)."""
        if not self.config.debug_fpu or self.current.tif_need_fpu_load:
            return
        self.warn_on(not self.fpregs_state_valid(self.current.fpu, self.current_nr))

    def kernel_fpu_begin(self) -> None:
        """kernel_fpu_begin_mask(): the kernel wants the registers for itself, until kernel_fpu_end() (fpu/core.c).

        With KFPU_MXCSR, which kernel_fpu_begin() has, MXCSR gets its default, by LDMXCSR, which is #UD while
        CR4.OSFXSR is clear.
        """
        self.kernel_fpu_lock()
        self.kernel_fpu_check()
        nested = self.kernel_fpu_disabled()
        self.kernel_fpu_disable()
        current = self.current
        loaded = not current.tif_need_fpu_load and not current.in_execve
        shadowed = self.fpstates[current.fpu.fpstate].xfd if loaded else -1
        self.report(IRQ_FPU, self.cpu, self.regs.xfd, self.this_cpu.xfd_state, shadowed, int(nested))
        if not current.pf_kthread and not current.tif_need_fpu_load:
            current.tif_need_fpu_load = 1
            self.save_fpregs_to_fpstate(current.fpu)
        self.cpu_invalidate_fpregs_state()
        if not self.this_cpu.cr4_osfxsr:
            self.die(OOPS)
        self.kernel_fpu_mxcsr()

    @seam
    def kernel_fpu_mxcsr(self) -> None:
        """ldmxcsr(MXCSR_DEFAULT) of kernel_fpu_begin_mask(), with KFPU_MXCSR (fpu/core.c)."""
        load_component(self.regs, xf.MXCSR, 0)

    @seam
    def kernel_fpu_check(self) -> None:
        """WARN_ON_FPU(!irq_fpu_usable()) of kernel_fpu_begin_mask() (fpu/core.c)."""
        self.warn_on(self.config.debug_fpu and not self.irq_fpu_usable())

    def kernel_fpu_end(self) -> None:
        """The registers are anybody's again (fpu/core.c)."""
        self.kernel_fpu_enable()
        self.kernel_fpu_unlock()

    @seam
    def kernel_fpu_lock(self) -> None:
        """How kernel_fpu_begin() stays on this CPU: softirqs go on, until d02198550423 (6.15)."""
        self.preempt_disable()

    @seam
    def kernel_fpu_unlock(self) -> None:
        """Undo kernel_fpu_lock()."""
        self.preempt_enable()

    def kernel_fpu_disabled(self) -> bool:
        """Whether the kernel uses the FPU already (fpu/core.c)."""
        return bool(self.this_cpu.in_kernel_fpu)

    @seam
    def kernel_fpu_disable(self) -> None:
        """WARN_ON_FPU(this_cpu_read(in_kernel_fpu)) of kernel_fpu_begin_mask(), and set it (fpu/core.c)."""
        self.warn_on(self.config.debug_fpu and self.kernel_fpu_disabled())
        self.this_cpu.in_kernel_fpu = 1

    @seam
    def kernel_fpu_enable(self) -> None:
        """WARN_ON_FPU(!this_cpu_read(in_kernel_fpu)) of kernel_fpu_end(), and clear it (fpu/core.c)."""
        self.warn_on(self.config.debug_fpu and not self.kernel_fpu_disabled())
        self.this_cpu.in_kernel_fpu = 0

    def irq_fpu_usable(self) -> bool:
        """Whether the FPU can be used here: in an interrupt unless it hit the kernel using it (fpu/core.c).

        ``!in_interrupt() || interrupted_user_mode() || interrupted_kernel_fpu_idle()``, until 59f5ede3bc0f (5.18).
        """
        return not (self.in_interrupt() or self.in_hardirq()) or not self.kernel_fpu_disabled()

    @seam
    def kernel_fpu_use(self, asks: bool = True) -> str:
        """Kernel code computes with the FPU, if irq_fpu_usable() says that it can, or ``asks`` nobody."""
        if asks and not self.irq_fpu_usable():
            return "unusable"
        self.kernel_fpu_begin()
        self.kernel_fpu_compute(KERNEL_CONTENTS)
        self.kernel_fpu_end()
        return "ok"

    @seam
    def kernel_fpu_compute(self, token: int) -> None:
        """SSE and AVX instructions of the kernel's."""
        if self.regs.data[xf.MXCSR]:
            self.report(KERNEL_MXCSR, self.regs.data[xf.MXCSR])
        for i in (xf.SSE, xf.YMM):
            if self.regs.xcr0 >> i & 1 or i == xf.SSE:
                load_component(self.regs, i, token)

    @seam
    def raise_softirq(self, asks: bool = True) -> str:
        """A softirq that uses the FPU: it runs at once, or where bottom halves are enabled again."""
        self.this_cpu.softirq_pending = 1 if asks else 2
        return "pending" if self.in_interrupt() else self.do_softirq()

    def do_softirq(self) -> str:
        """__do_softirq(): what is pending runs (kernel/softirq.c)."""
        asks = self.this_cpu.softirq_pending == 1
        self.this_cpu.softirq_pending = 0
        self.this_cpu.preempt_count += SOFTIRQ_OFFSET
        result = self.kernel_fpu_use(asks)
        self.this_cpu.preempt_count -= SOFTIRQ_OFFSET
        return result

    @seam
    def hardirq_window(self) -> None:
        """Right before the registers are saved, or after they were loaded: a hard interrupt may hit, whatever lock is
        held there.

        Not with interrupts off, nor where the kernel's own use of the FPU keeps everybody from it.
        """
        if self.this_cpu.hardirq_points and not (self.irqs_disabled() or self.kernel_fpu_disabled()):
            self.this_cpu.hardirq_points -= 1
            if not self.this_cpu.hardirq_points:
                self.report(HARDIRQ, self.cpu, int(self.hardirq_uses_fpu() == "ok"))

    @seam
    def hardirq_uses_fpu(self, asks: bool = True) -> str:
        """An interrupt whose handler uses the FPU, as that of the random number generator did."""
        self.this_cpu.preempt_count += HARDIRQ_OFFSET
        result = self.kernel_fpu_use(asks)
        self.this_cpu.preempt_count -= HARDIRQ_OFFSET
        return result

    @seam
    def nmi_uses_fpu(self) -> str:
        """A NMI whose handler uses the FPU, as efi-pstore does when a machine check or a lockup is the end."""
        self.this_cpu.preempt_count += NMI_OFFSET + HARDIRQ_OFFSET
        result = self.kernel_fpu_use()
        self.this_cpu.preempt_count -= NMI_OFFSET + HARDIRQ_OFFSET
        return result

    # -- fork, exec and exit -----------------------------------------------------------------------------------------

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

    @phase_of("fpu_clone")
    def fpu_clone_minimal(self, child: int) -> None:
        """A kernel thread, or a worker, inherits nothing: legacy region and header of init_fpstate (fpu/core.c)."""
        regs, init = self.fpstates[self.tasks[child].fpu.fpstate].regs, self.fpstates[INIT_FPSTATE].regs
        for i in xf.LEGACY:
            regs.data[i] = init.data[i]
        regs.xstate_bv, regs.xcomp_bv = init.xstate_bv, init.xcomp_bv

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

    def fpu_drop(self) -> None:
        """fpu__drop(): the registers of current are nobody's (fpu/core.c, fpregs_deactivate())."""
        self.preempt_disable()
        self.cpu_invalidate_fpregs_state()
        self.preempt_enable()

    def fpu_reset_fpregs(self) -> None:
        """The memory image becomes that of init_fpstate, to be loaded on the way to user mode (fpu/core.c).

        Only the legacy region and the header are copied, with the XCOMP_BV of init_fpstate.
        """
        fpstate = self.deref(self.current.fpu.fpstate)
        init = self.fpstates[INIT_FPSTATE]
        self.fpregs_lock()
        self.fpu_reset_invalidate()
        for i in xf.LEGACY:
            fpstate.regs.data[i] = init.regs.data[i]
        fpstate.regs.xstate_bv = init.regs.xstate_bv
        fpstate.regs.xcomp_bv = init.regs.xcomp_bv
        self.current.tif_need_fpu_load = 1
        self.fpregs_unlock()

    @seam
    def fpu_reset_invalidate(self) -> None:
        """How exec says that the registers no longer hold its state: on this CPU, until 1f69383b203e (6.6)."""
        self.fpu_drop()

    def fpu_flush_thread(self) -> None:
        """exec's new program: its first half, back to the embedded fpstate (fpu/core.c)."""
        old = self.current.fpu.fpstate
        self.fpstate_reset(self.current_nr)
        self.fpu_flush_thread_reset(old)

    @seam
    def fpu_flush_thread_reset(self, old: int) -> None:
        """Behind fpstate_reset(), which forgets fpstate ``old``: nothing; for the cures of findings 4 and 5."""

    @phase_of("fpu_flush_thread")
    def fpu_flush_thread_regs(self) -> None:
        """Its second half: the registers follow."""
        self.fpu_reset_fpregs()

    # -- context switch ------------------------------------------------------------------------------------------

    def switch_fpu_prepare(self) -> None:
        """Save the outgoing task's registers; they stay on the CPU (include/asm/fpu/sched.h, __switch_to())."""
        prev = self.current
        if not prev.tif_need_fpu_load and not prev.pf_kthread:
            self.save_fpregs_to_fpstate(prev.fpu)
            prev.fpu.last_cpu = self.cpu

    def switch_fpu_finish(self) -> None:
        """The incoming task loads its registers before it leaves the kernel (include/asm/fpu/sched.h)."""
        self.current.tif_need_fpu_load = 1
