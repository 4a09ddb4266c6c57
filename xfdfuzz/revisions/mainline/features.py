"""Which components the kernel knows and uses."""

from __future__ import annotations

from dataclasses import replace

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_PASID, MSR_IA32_U_CET
from xfdfuzz.kernel.base import phase_of
from xfdfuzz.kernel.errno import EINVAL, EOPNOTSUPP, EPERM
from xfdfuzz.kernel.fpu.init import FpuInit
from xfdfuzz.kernel.fpu.xstate import Value
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.process import Process
from xfdfuzz.kernel.sched import CLONE_VFORK, CLONE_VM
from xfdfuzz.kernel.shstk import (
    ARCH_SHSTK_DISABLE,
    ARCH_SHSTK_LOCK,
    ARCH_SHSTK_SHSTK,
    ARCH_SHSTK_STATUS,
    ARCH_SHSTK_UNLOCK,
    ARCH_SHSTK_WRSS,
    Shstk,
)
from xfdfuzz.kernel.state import pasid_of, task_contents
from xfdfuzz.revisions.queue import patch


@patch("7c1ef59145f1", "x86/cpufeatures: Re-enable ENQCMD", version="v5.18", neutral="a feature")
class Enqcmd(Process):
    """PASID becomes the first supervisor state in use.

    With fa6af69f38d3, which populates IA32_PASID at the first ENQCMD of a thread, and a3d29e8291b6, its flag.
    """

    def supervisor_xfeatures(self) -> int:
        """(include/asm/disabled-features.h)."""
        return super().supervisor_xfeatures() | xf.MASK_PASID

    def try_fixup_enqcmd_gp(self) -> bool:
        """Once for each thread, if its address space has a PASID (arch/x86/kernel/traps.c)."""
        if not (self.machine.pasid and self.machine.has_xsaves and self.current.mm_pasid):
            return False
        if self.current.pasid_activated:
            return False
        self.wrmsrl(MSR_IA32_PASID, pasid_of(self.current.mm))
        self.current.pasid_activated = 1
        return True


@patch(
    "72f98ef9a4be",
    "iommu: disable SVA when CONFIG_X86 is set",
    version="v6.19",
    stable=("..v6.1.192", "..v6.12.117", "v6.18.y"),
    neutral="no address space gets a PASID, and no promise is made of one",
)
class NoSva(FpuInit):
    """Address spaces cannot be bound to devices: an IOMMU may cache page tables of the kernel that are gone."""

    def sva_supported(self) -> bool:
        """iommu_sva_bind_device() (drivers/iommu/iommu-sva.c)."""
        return False


@patch(
    "e37d5a2d60a3",
    "iommu/sva: invalidate stale IOTLB entries for kernel address space",
    version="v6.19",
    stable=("v6.18.y",),
    neutral="a feature",
)
class SvaAgain(FpuInit):
    """They can again, as the IOMMU is told."""

    def sva_supported(self) -> bool:
        """iommu_sva_bind_device() (drivers/iommu/iommu-sva.c)."""
        return True


@patch(
    "2848ff28d180",
    "x86/fpu: Avoid writing LBR bit to IA32_XSS unless supported",
    version="v6.11",
    fixes=("f0dccc9da4c0",),
    stable=("..v6.1.192", "v6.6.y", "v6.10.y"),
)
class LbrByXsave(FpuInit):
    """Where XSAVES does not have LBR, as under some hypervisors, IA32_XSS does not get it."""

    def xfeatures_mask_independent(self) -> int:
        """fpu_kernel_cfg.independent_features (fpu/xstate.h)."""
        return super().xfeatures_mask_independent() & self.machine.supervisor_xfeatures


@patch("8ad7e8f69695", "x86/fpu/xsave: Support XSAVEC in the kernel", version="v5.19", neutral="a feature")
class XsavecInKernel(FpuInit):
    """Without XSAVES the kernel saves with XSAVEC, and its images are compacted all the same."""

    def xstate_compacted(self) -> bool:
        """X86_FEATURE_XCOMPACTED (fpu/xstate.c, fpu__init_system_xstate())."""
        return super().xstate_compacted() or (self.machine.xsave and self.machine.xsavec)


@patch(
    "8970ef027b21",
    "x86/fpu/xstate: Introduce CET MSR and XSAVES supervisor states",
    version="v6.6",
    neutral="a feature",
)
class CetUser(FpuInit):
    """CET_USER is a supervisor state of the host."""

    def supervisor_xfeatures(self) -> int:
        """(include/asm/fpu/xstate.h)."""
        return super().supervisor_xfeatures() | xf.MASK_CET_USER


def _locked(locked: int, option: int, meant: int) -> int:
    return int(option == ARCH_SHSTK_LOCK) if meant else locked


@patch("2d39a6add422", "x86/shstk: Add user-mode shadow stack support", version="v6.6", neutral="a feature")
class UserShadowStacks(Shstk):
    """Threads can have shadow stacks (with b2926a36b97a, that of a new thread, and 98cfa4630912, the options)."""

    @property
    def user_shstk(self) -> bool:
        """(arch/x86/kernel/cpu/common.c)."""
        return self.machine.cet and self.machine.has_xsaves

    def shstk_prctl(self, nr: int, option: int, arg2: int) -> Value:
        """(arch/x86/kernel/shstk.c, with CONFIG_CHECKPOINT_RESTORE).

        arch_prctl(2) of 32-bit programs does not know it (arch/x86/kernel/process_64.c, do_arch_prctl_common()).
        """
        task, own = self.tasks[nr], nr == self.current_nr
        if self.current.ia32:
            return Value(-EINVAL)
        if option == ARCH_SHSTK_STATUS:
            return self.put_user(ARCH_SHSTK_SHSTK * task.shstk | ARCH_SHSTK_WRSS * task.wrss, arg2)
        if option == ARCH_SHSTK_LOCK or (option == ARCH_SHSTK_UNLOCK and not own):
            task.shstk_locked = _locked(task.shstk_locked, option, arg2 & ARCH_SHSTK_SHSTK)
            task.wrss_locked = _locked(task.wrss_locked, option, arg2 & ARCH_SHSTK_WRSS)
            return Value(0)
        if not own:
            return Value(-EINVAL)
        if arg2 & (ARCH_SHSTK_SHSTK * task.shstk_locked | ARCH_SHSTK_WRSS * task.wrss_locked):
            return Value(-EPERM)
        return Value(self.shstk_prctl_own(option, arg2))

    @phase_of("shstk_prctl")
    def shstk_prctl_own(self, option: int, features: int) -> int:
        """Enable or disable one feature of current's that is not locked; who is asked to unlock one of its own enables
        it (arch/x86/kernel/shstk.c)."""
        if self.shstk_prctl_unknown(option) or features not in (ARCH_SHSTK_SHSTK, ARCH_SHSTK_WRSS):
            return -EINVAL
        enable = option != ARCH_SHSTK_DISABLE
        if features == ARCH_SHSTK_WRSS:
            return self.wrss_control(enable)
        return self.shstk_setup() if enable else self.shstk_disable()

    def shstk_setup(self) -> int:
        """EOPNOTSUPP without the feature; what is so already is no error (arch/x86/kernel/shstk.c)."""
        if self.current.shstk:
            return 0
        if not self.user_shstk:
            return -EOPNOTSUPP
        self.might_sleep()  # alloc_shstk() maps memory
        self.fpregs_lock_and_load()
        self.wrmsrl(MSR_IA32_U_CET, task_contents(self.current_nr, 1))
        self.fpregs_unlock()
        self.current.shstk = 1
        return 0

    def shstk_disable(self) -> int:
        """WRSS goes with it (arch/x86/kernel/shstk.c)."""
        if not self.user_shstk:
            return -EOPNOTSUPP
        if self.current.shstk:
            self.fpregs_lock_and_load()
            self.wrmsrl(MSR_IA32_U_CET, 0)
            self.fpregs_unlock()
            self.current.shstk = self.current.wrss = 0
        return 0

    def wrss_control(self, enable: bool) -> int:
        """Only with a shadow stack; the bit of IA32_U_CET is no content here (arch/x86/kernel/shstk.c)."""
        if not self.user_shstk:
            return -EOPNOTSUPP
        if not self.current.shstk:
            return -EPERM
        if self.current.wrss != enable:
            self.fpregs_lock_and_load()
            self.fpregs_unlock()
            self.current.wrss = enable
        return 0

    def fpregs_lock_and_load(self) -> None:
        """What is written to the registers then is the task's (fpu/core.c, 6ee836687a3f)."""
        self.fpregs_lock()
        if self.current.tif_need_fpu_load:
            self.fpregs_restore_userregs()

    def shstk_alloc_thread_stack(self, child: int, flags: int) -> int:
        """A new one where the address space is shared, but for vfork(), whose child uses its parent's
        (arch/x86/kernel/shstk.c)."""
        shared = flags & (CLONE_VM | CLONE_VFORK) == CLONE_VM
        return task_contents(child, 1) if self.current.shstk and shared else 0

    def update_fpu_shstk(self, child: int, ssp: int) -> None:
        """The state in the new task's buffer is there, since its parent's registers had it (fpu/core.c)."""
        regs = self.fpstates[self.tasks[child].fpu.fpstate].regs
        if ssp and not self.warn_on(not regs.xstate_bv & xf.MASK_CET_USER):
            regs.data[xf.CET_USER] = ssp

    def reset_thread_features(self) -> None:
        """(arch/x86/kernel/shstk.c)."""
        self.current.shstk = self.current.wrss = self.current.shstk_locked = self.current.wrss_locked = 0


@patch("bd0b10b795c5", "x86/fpu/apx: Define APX state component", version="v6.16", neutral="a feature")
class Apx(FpuInit):
    """One more component number, so index 19 is known to arch_prctl() though no facility has it."""

    XFEATURE_MAX = 20


@patch(
    "ea68e39190cf", "x86/fpu/apx: Disallow conflicting MPX presence", version="v6.16", neutral="no processor has both"
)
class ApxWithoutMpx(FpuInit):
    """A processor that enumerates APX and MPX, which lie at one place, is used without XSAVE."""

    def usable(self, machine: Machine) -> Machine:
        """(fpu/xstate.c, fpu__init_system_xstate())."""
        usable = super().usable(machine)
        return replace(usable, xsave=False) if machine.apx and machine.mpx else usable


@patch("50c5b071e283", "x86/fpu/apx: Enable APX state support", version="v6.16", neutral="a feature")
class ApxEnabled(FpuInit):
    """The registers of APX are a user feature."""

    XFEATURE_MASK_USER_SUPPORTED = FpuInit.XFEATURE_MASK_USER_SUPPORTED | xf.MASK_APX


@patch(
    "8b05b3c98816",
    "x86/fpu/xstate: Add CET supervisor xfeature support as a guest-only feature",
    version="v6.17",
    neutral="a feature",
)
class CetKernelGuestOnly(FpuInit):
    """CET_KERNEL is saved and restored for guests only (with 151bf232494d)."""

    def supervisor_xfeatures(self) -> int:
        """(include/asm/fpu/xstate.h)."""
        return super().supervisor_xfeatures() | xf.MASK_CET_KERNEL

    def guest_supervisor_xfeatures(self) -> int:
        """(include/asm/fpu/xstate.h)."""
        return super().guest_supervisor_xfeatures() | xf.MASK_CET_KERNEL
