"""CPU hotplug, suspend and idle, as far as the FPU is concerned (v5.16).

arch/x86/kernel/{smpboot,cpu/common}.c, arch/x86/power/cpu.c, arch/x86/kernel/fpu/{xstate,core}.c.
"""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XSS, CpuRegs, load_component
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.coredump import Coredump
from xfdfuzz.kernel.fpu.init import ZEROED
from xfdfuzz.kernel.state import NULL, USER_TASKS
from xfdfuzz.memory.cstruct import assign


class Power(Coredump):
    """What CPUs do when nobody uses them."""

    # -- hotplug -------------------------------------------------------------------------------------------------

    def cpu_down(self, nr: int) -> None:
        """A CPU goes offline: what runs there is preempted and moves on (kernel/cpu.c)."""
        self.on_cpu(nr)
        if self.current_nr != USER_TASKS + nr:
            self.schedule(USER_TASKS + nr)
        self.cpu_disable_common()

    @seam
    def cpu_disable_common(self) -> None:
        """The CPU itself gives up what others rely on: of the FPU nothing, until 2297554f01df (6.16; smpboot.c)."""

    def cpu_up(self, nr: int) -> None:
        """A CPU comes back (kernel/cpu.c)."""
        self.native_cpu_up(nr)
        self.start_secondary(nr)

    def native_cpu_up(self, nr: int) -> None:
        """By INIT, which leaves registers alone, but not CR4 (arch/x86/kernel/smpboot.c, head_64.S).

        "The FPU context is blank, nobody can own it": smpboot.c.  It goes on with load_ucode_ap(), which checks what it
        loads; interrupts are off.
        """
        self.on_cpu(nr)
        self.this_cpu.fpu_fpregs_owner_ctx = NULL
        self.this_cpu.cr4_osfxsr = 0

    def start_secondary(self, nr: int) -> None:
        """The rest of the way (arch/x86/kernel/smpboot.c).

        identify_secondary_cpu() has PKRU (arch/x86/kernel/cpu/common.c).
        """
        self.on_cpu(nr)
        self.fpu__init_cpu()
        self.pkru_write_default()
        self.intel_pmu_cpu_starting()

    def fpu__init_cpu(self) -> None:
        """Enable the FPU of this CPU (arch/x86/kernel/fpu/init.c)."""
        self.fpu_init_cpu_generic()
        self.fpu_init_cpu_xstate()
        self.kernel_fpu_allow()

    def fpu_init_cpu_xstate(self) -> None:
        """fpu__init_cpu_xstate(): XFD, XCR0 and IA32_XSS of this CPU (fpu/xstate.c)."""
        if not self.use_xsave:
            return
        if self.machine.has_xfd:
            self.fpu_init_cpu_xfd()
        self.regs.xcr0 = self.fpu_user_cfg.max_features
        if self.machine.has_xsaves:
            self.wrmsrl(MSR_IA32_XSS, self.xfeatures_mask_supervisor() | self.xfeatures_mask_independent())

    @seam
    def fpu_init_cpu_xfd(self) -> None:
        """XFD := init_fpstate.xfd; the shadow is not told, until 10e4b5166df9 (6.9)."""
        self.wrmsrl(MSR_IA32_XFD, self.init_xfd)

    # -- suspend -------------------------------------------------------------------------------------------------

    @phase_of("suspend_enter")
    def suspend(self) -> None:
        """Suspend to memory, asked for by current, and resume (kernel/power/suspend.c).

        All other tasks are frozen and all other CPUs offline; then every CPU loses its power.
        """
        boot_cpu = self.cpu
        others = [nr for nr in range(self.machine.cpus) if nr != boot_cpu]
        for nr in others:
            self.cpu_down(nr)
            self.power_off()
        self.on_cpu(boot_cpu)
        self.save_processor_state()
        self.power_off()
        self.restore_processor_state()
        for nr in others:
            self.cpu_up(nr)
        self.on_cpu(boot_cpu)

    def save_processor_state(self) -> None:
        """__save_processor_state() (arch/x86/power/cpu.c)."""
        self.kernel_fpu_begin()

    @seam
    def power_off(self) -> None:
        """The CPU's registers are as after RESET; PKRU is taken to survive (docs/fidelity.md)."""
        pkru = self.regs.data[xf.PKRU]
        xcr0 = xf.MASK_X87 if self.machine.xsave else 0
        assign(self.regs, CpuRegs(xcr0=xcr0, always_in_use=self.machine.in_use))
        load_component(self.regs, xf.PKRU, pkru)

    def restore_processor_state(self) -> None:
        """__restore_processor_state() (arch/x86/power/cpu.c, do_fpu_end())."""
        self.kernel_fpu_end()
        self.fpu_resume_cpu()

    def fpu_resume_cpu(self) -> None:
        """fpu__resume_cpu(): XFD becomes current's; the shadow is what it was before (fpu/xstate.c)."""
        if self.use_xsave:
            self.regs.xcr0 = self.fpu_user_cfg.max_features
        if self.machine.has_xsaves:
            self.wrmsrl(MSR_IA32_XSS, self.xfeatures_mask_supervisor() | self.xfeatures_mask_independent())
        if self.fpu_state_size_dynamic:
            self.wrmsrl(MSR_IA32_XFD, self.deref(self.current.fpu.fpstate).xfd)

    # -- idle ----------------------------------------------------------------------------------------------------

    def intel_idle(self) -> None:
        """Enter a deep idle state; registers are left alone until f17b168734c0 (6.0; drivers/idle/intel_idle.c), but
        that LBRs lose what they have."""
        if self.regs.data[xf.LBR]:
            load_component(self.regs, xf.LBR, ZEROED)
