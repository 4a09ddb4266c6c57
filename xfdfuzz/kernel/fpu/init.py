"""Boot: which features the kernel uses, and the sizes that follow (arch/x86/kernel/fpu/{init,xstate}.c)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import load_component
from xfdfuzz.arch.xsave import XCOMP_BV_COMPACTED
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import FIRST_EMBEDDED, INIT_FPSTATE, NULL, USER_TASKS, Fpstate, System
from xfdfuzz.kernel.vmalloc import Vmalloc
from xfdfuzz.memory.cstruct import assign

#: sizeof(struct fxregs_state): what a kernel without XSAVE saves, in bytes.
FXSAVE_SIZE = 512

#: sizeof(union fpregs_state), what init_fpstate has, in bytes.
INIT_FPSTATE_SIZE = 4096

#: The token of the default PKRU value (init_pkru_value); 0 is the hardware's initial value.
PKRU_DEFAULT = 1
#: What vzalloc() leaves where x87 and MXCSR lie in an image: FCW and MXCSR are 0 there, not 0x37f and 0x1f80 as in the
#: initial configuration.  Who loads the image does not see it, since XSTATE_BV is 0 as well.
ZEROED = 2


@dataclass(frozen=True, slots=True)
class FpuStateConfig:
    """struct fpu_state_config: feature masks and the sizes of the buffers that hold them, in bytes."""

    max_size: int
    default_size: int
    max_features: int
    default_features: int


class FpuInit(Vmalloc):
    """Feature masks of this revision on this machine, and the state that boot leaves behind."""

    #: arch/x86/include/asm/fpu/types.h: 19 until APX came in 6.16.
    XFEATURE_MAX = 19
    XFEATURE_MASK_USER_SUPPORTED = (
        xf.MASK_FPSSE | xf.MASK_YMM | xf.MASK_AVX512 | xf.MASK_PKRU | xf.MASK_MPX | xf.MASK_XTILE
    )

    def __init__(self, machine: Machine) -> None:
        super().__init__(self.usable(machine))
        if machine.dyn2:
            self.XFEATURE_MAX = xf.DYN2 + 1
        self.XFEATURE_MASK_SUPERVISOR_SUPPORTED = self.supervisor_xfeatures()
        self.XFEATURE_MASK_GUEST_SUPERVISOR = self.guest_supervisor_xfeatures()
        self.XFEATURE_MASK_USER_DYNAMIC = xf.MASK_XTILE_DATA | (xf.MASK_DYN2 if machine.dyn2 else 0)
        self.fpu__init_system_xstate()

    @seam
    def usable(self, machine: Machine) -> Machine:
        """What the kernel uses of a machine: all, but where fpu__init_disable_system_xstate() gives up XSAVE."""
        return machine

    @seam
    def supervisor_xfeatures(self) -> int:
        """XFEATURE_MASK_SUPERVISOR_SUPPORTED, as far as it is in use (include/asm/fpu/xstate.h).

        PASID is in the kernel's mask, but ENQCMD, which it depends on, was disabled until 5.18 (7c1ef59145f1), so no
        supervisor state is in use before (commit message of 781c64bfcb73).
        """
        return 0

    @seam
    def guest_supervisor_xfeatures(self) -> int:
        """XFEATURE_MASK_GUEST_SUPERVISOR: what only guests use; none until 8b05b3c98816 (6.17)."""
        return 0

    @seam
    def sva_supported(self) -> bool:
        """Whether an address space can be bound to a device, and so get a PASID (drivers/iommu/iommu-sva.c)."""
        return True

    def fpu__init_system_xstate(self) -> None:
        """Choose the features (arch/x86/kernel/fpu/xstate.c, fpu__init_system_xstate(), v5.16).

        Without XFD the dynamic features are dropped.  TILECFG is not one, but no such machine has AMX
        (:class:`Machine`).
        """
        machine = self.machine
        self.user_supported = self.XFEATURE_MASK_USER_SUPPORTED | (xf.MASK_DYN2 if machine.dyn2 else 0)
        #: X86_FEATURE_OSPKE: CR4.PKE is set; protection keys depend on XSAVE (cpuid-deps.c).
        self.ospke = machine.xsave and machine.pku and not machine.nopku
        user = machine.user_xfeatures & self.user_supported & ~self.disabled_xfeatures()
        if not machine.has_xfd:
            user &= ~self.XFEATURE_MASK_USER_DYNAMIC
        supervisor = machine.supervisor_xfeatures & self.XFEATURE_MASK_SUPERVISOR_SUPPORTED
        dynamic = self.XFEATURE_MASK_USER_DYNAMIC
        self.use_xsave = machine.xsave
        self.compacted = self.xstate_compacted()
        self.fpu_user_cfg = self._config(user, user & ~dynamic, machine.cpuid.standard_size)
        most = user | supervisor
        default = most & ~dynamic & ~self.XFEATURE_MASK_GUEST_SUPERVISOR
        kernel_size = partial(self.xstate_calculate_size, compacted=self.compacted)
        self.fpu_kernel_cfg = self._config(most, default, kernel_size)
        self.init_xfd = user & dynamic
        #: The static key __fpu_state_size_dynamic.
        self.fpu_state_size_dynamic = self.init_xfd != 0
        self.legacy_features = xf.MASK_FPSSE
        #: XFEATURE_MASK_FPSTATE: all but PKRU, which is switched eagerly.
        self.xfeature_mask_fpstate = (self.user_supported & ~xf.MASK_PKRU) | self.XFEATURE_MASK_SUPERVISOR_SUPPORTED

    def _config(self, most: int, default: int, size_of: Callable[[int], int]) -> FpuStateConfig:
        if not self.use_xsave:
            return FpuStateConfig(FXSAVE_SIZE, FXSAVE_SIZE, 0, 0)
        return FpuStateConfig(size_of(most), size_of(default), most, default)

    @seam
    def disabled_xfeatures(self) -> int:
        """What xsave_cpuid_features[] takes away of that which CPUID enumerates: nothing here, until 18032b47adf1."""
        return 0

    @seam
    def xstate_compacted(self) -> bool:
        """Whether the kernel's own images are compacted: where it has XSAVES, until 8ad7e8f69695 (5.19)."""
        return self.machine.has_xsaves

    def xfeatures_mask_supervisor(self) -> int:
        """Supervisor states in use (arch/x86/kernel/fpu/xstate.h)."""
        return self.fpu_kernel_cfg.max_features & self.XFEATURE_MASK_SUPERVISOR_SUPPORTED

    def xfeatures_mask_independent(self) -> int:
        """Supervisor states that are in no fpstate (fpu/xstate.h).

        LBR where the processor has LBRs, whether XSAVES manages them or not, until 2848ff28d180 (6.11).
        """
        return xf.MASK_LBR if self.machine.lbr else 0

    @seam
    def booted_xss(self) -> int:
        """IA32_XSS after boot: a write that is a #GP leaves it 0 (fpu/xstate.c, fpu__init_cpu_xstate())."""
        xss = self.xfeatures_mask_supervisor() | self.xfeatures_mask_independent()
        return 0 if xss & ~self.machine.supervisor_xfeatures else xss

    def xstate_calculate_size(self, mask: int, *, compacted: bool) -> int:
        """Bytes that ``mask`` takes (arch/x86/kernel/fpu/xstate.c)."""
        table = self.machine.cpuid
        return table.compacted_size(mask) if compacted else table.standard_size(mask)

    # -- the booted system -----------------------------------------------------------------------------------------

    @seam
    def boot(self) -> None:
        """Reset the system to what a booted machine looks like (task and CPU set-up; DERIVED).

        Task 0 runs on CPU 0 in user mode with its registers loaded, task 1 waits, every other CPU idles.  MSR and
        shadow of XFD agree on every CPU, as they do once a user task has run there: until 10e4b5166df9 (6.9) CPU
        bring-up wrote only the MSR.  Both tasks have opened a device that takes ENQCMD, if there is one.
        """
        assign(self.system, System())
        self._boot_init_fpstate()
        for nr, task in enumerate(self.tasks):
            task.pf_kthread = nr >= USER_TASKS
            if task.pf_kthread or nr < 2:
                self.boot_task(nr)
                self._boot_cloned(nr)
                task.mm_pasid = self.machine.pasid and not task.pf_kthread and self.sva_supported()
        for cpu in range(self.machine.cpus):
            self._boot_cpu(cpu)
        self.on_cpu(0)

    def _boot_init_fpstate(self) -> None:
        init = self.fpstates[INIT_FPSTATE]
        init.allocated = 1
        self._fpstate_reset(init, self.init_xfd)
        init.xfeatures, init.size = self.init_fpstate_features()
        init.alloc_size = INIT_FPSTATE_SIZE
        self.xstate_init_xcomp_bv(init, init.xfeatures)

    @seam
    def init_fpstate_features(self) -> tuple[int, int]:
        """init_fpstate's xfeatures and size, in bytes: all, until a401f45e3875 (6.1)."""
        return self.fpu_kernel_cfg.max_features, self.fpu_kernel_cfg.max_size

    @seam
    def boot_task(self, nr: int) -> None:
        """A new task with its own process, its embedded fpstate in the initial state and nothing in registers."""
        task = self.tasks[nr]
        task.exists = 1
        task.group_leader = nr
        task.mm = nr
        task.pkru = PKRU_DEFAULT if self.ospke else 0
        task.tif_need_fpu_load = 1
        task.fpu.last_cpu = -1
        task.fpu.task_fpstate = NULL
        embedded = FIRST_EMBEDDED + nr
        fpstate = self.fpstates[embedded]
        assign(fpstate, Fpstate())
        fpstate.allocated = 1
        fpstate.alloc_size = self.fpu_kernel_cfg.default_size
        self.fpstate_reset(nr)
        self.fpstate_init_user(fpstate)

    @seam
    def _boot_cloned(self, nr: int) -> None:
        """Its image is its parent's, as fpu_clone() saves it: XSAVES takes PKRU along, which is never initial then."""
        if self.ospke:
            image = self.fpstates[self.tasks[nr].fpu.fpstate].regs
            image.xstate_bv |= xf.MASK_PKRU
            image.data[xf.PKRU] = PKRU_DEFAULT

    def _boot_cpu(self, nr: int) -> None:
        self.on_cpu(nr)
        regs = self.regs
        regs.xcr0 = self.fpu_user_cfg.max_features
        regs.xss = self.booted_xss()
        regs.xfd = self.this_cpu.xfd_state = self.init_xfd
        regs.always_in_use = self.machine.in_use
        self.fpu_init_cpu_generic()
        self.kernel_fpu_allow()
        first = nr == 0
        self.set_current(0 if first else USER_TASKS + nr)
        self.current.on_cpu = nr + 1
        if self.ospke:
            load_component(regs, xf.PKRU, PKRU_DEFAULT)
        if first:
            self.current.user_mode = 1
            self.current.tif_need_fpu_load = 0
            self.current.fpu.last_cpu = 0
            self.this_cpu.fpu_fpregs_owner_ctx = 1

    @phase_of("fpu__init_cpu")
    def fpu_init_cpu_generic(self) -> None:
        """fpu__init_cpu_generic(): this CPU can execute SSE and XSAVE (arch/x86/kernel/fpu/init.c)."""
        self.this_cpu.cr4_osfxsr = 1

    @seam
    def kernel_fpu_allow(self) -> None:
        """The end of fpu__init_cpu(): irq_fpu_usable() is not told, until 2297554f01df (6.16)."""

    def xstate_init_xcomp_bv(self, fpstate: Fpstate, mask: int) -> None:
        """Format the image as compacted, or XRSTORS would raise #GP (arch/x86/kernel/fpu/xstate.h)."""
        if self.compacted:
            fpstate.regs.xcomp_bv = mask | XCOMP_BV_COMPACTED

    def fpstate_init_user(self, fpstate: Fpstate) -> None:
        """Initial image of a user or guest fpstate (arch/x86/kernel/fpu/core.c)."""
        self.xstate_init_xcomp_bv(fpstate, fpstate.xfeatures)

    def _fpstate_reset(self, fpstate: Fpstate, xfd: int) -> None:
        """__fpstate_reset(): sizes and feature masks (arch/x86/kernel/fpu/core.c, v5.16 and later)."""
        fpstate.size = self.fpu_kernel_cfg.default_size
        fpstate.user_size = self.fpu_user_cfg.default_size
        fpstate.xfeatures = self.fpu_kernel_cfg.default_features
        fpstate.user_xfeatures = self.fpu_user_cfg.default_features
        fpstate.xfd = xfd

    def fpstate_reset(self, nr: int) -> None:
        """Point a task at its embedded fpstate and give it the default permissions (core.c, fpstate_reset()).

        An fpstate that was allocated for it is not freed here, nor by exec, which calls this.
        """
        fpu = self.tasks[nr].fpu
        fpu.fpstate = FIRST_EMBEDDED + nr
        self._fpstate_reset(self.fpstates[fpu.fpstate], self.init_xfd)
        fpu.perm.state_perm = self.fpu_kernel_cfg.default_features
        fpu.perm.state_size = self.fpu_kernel_cfg.default_size
        fpu.perm.user_state_size = self.fpu_user_cfg.default_size
        assign(fpu.guest_perm, fpu.perm)
