"""Mainline from v5.17 to v7.3 as a queue of patches, oldest first.

Only what changes the behaviour of the modelled functions is here; the rest of the history comes with its revisions.
Each class names what the commit changed; commit ids marked MEMORY were not looked up again.
"""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.errno import EEXIST, EINVAL
from xfdfuzz.kernel.fpu.init import FpuInit
from xfdfuzz.kernel.fpu.xstate import Xstate
from xfdfuzz.kernel.kvm.cpuid import KvmCpuid
from xfdfuzz.kernel.kvm.fpu import KVM_XSAVE_SIZE, KvmFpu
from xfdfuzz.kernel.kvm.main import KvmMain
from xfdfuzz.kernel.kvm.x86 import KvmX86
from xfdfuzz.kernel.state import Fpstate, FpuGuest, FpuStatePerm, Vcpu
from xfdfuzz.revisions.amx_series import AmxSeries
from xfdfuzz.revisions.amx_v6 import AmxV6
from xfdfuzz.revisions.queue import patch


@patch(
    "063452fd94d1",
    "x86/fpu/xstate: Fix the ARCH_REQ_XCOMP_PERM implementation",
    version="v5.18",
    fixes=("db8268df0983",),
    stable=("v5.16.y", "v5.17.y"),
)
class PermAdds(Xstate):
    """A permission request adds to the permission word instead of overwriting it."""

    def write_state_perm(self, perm: FpuStatePerm, permitted: int, requested: int) -> None:
        """The mask that the user size was computed for, so without supervisor bits (fpu/xstate.c)."""
        perm.state_perm = (permitted | requested) & self.user_supported


@patch(
    "781c64bfcb73",
    "x86/fpu/xstate: Handle supervisor states in XSTATE permissions",
    version="v5.18",
)
class PermSizeSupervisor(Xstate):
    """The host's buffer size counts the supervisor states."""

    def xstate_perm_kernel_mask(self, mask: int, guest: bool) -> int:
        """The host's mask takes them into account, the guest's does not (fpu/xstate.c)."""
        return mask if guest else mask | self.xfeatures_mask_supervisor()


@patch("7c1ef59145f1", "x86/cpufeatures: Re-enable ENQCMD", version="v5.18")
class Enqcmd(FpuInit):
    """PASID becomes the first supervisor state in use."""

    def supervisor_xfeatures(self) -> int:
        """(include/asm/disabled-features.h)."""
        return super().supervisor_xfeatures() | xf.MASK_PASID


@patch(
    "d187ba531230",
    "x86/fpu: KVM: Set the base guest FPU uABI size to sizeof(struct kvm_xsave)",
    version="v5.19",
    fixes=("be50b2065dfa", "c60427dd50ba"),
)
class UabiSize(AmxV6):
    """KVM's XSAVE ioctls copy at least struct kvm_xsave, whatever the host's own default is (CVE-2022-49557)."""

    def guest_default_uabi_size(self) -> int:
        """4096, with a warning where that is too small (fpu/core.c)."""
        if self.warn_on(self.fpu_user_cfg.default_size > KVM_XSAVE_SIZE):
            return self.fpu_user_cfg.default_size
        return KVM_XSAVE_SIZE


@patch(
    "55cd57b596e8",
    "KVM: x86: Filter out XTILE_CFG if XTILE_DATA isn't permitted",
    version="v6.4",
    fixes=("445ecdf79be0",),
)
class FilteredXcr0(AmxV6):
    """Without the permission for TILEDATA, TILECFG is not offered either."""

    def kvm_get_filtered_xcr0(self) -> int:
        """(x86.h)."""
        permitted = self.supported_xcr0
        if permitted & self.XFEATURE_MASK_USER_DYNAMIC:
            permitted &= self.xstate_get_group_perm(True)
            if not permitted & xf.MASK_XTILE_DATA:
                permitted &= ~xf.MASK_XTILE_CFG
        return permitted

    def supported_cpuid_xcr0(self) -> int:
        """(cpuid.c)."""
        return self.kvm_get_filtered_xcr0()

    def cap_xsave2_xcr0(self) -> int:
        """(x86.c)."""
        return self.kvm_get_filtered_xcr0()


@patch("8970ef027b68", "x86/fpu/xstate: Introduce CET MSR and XSAVES supervisor states", version="v6.6")
class CetUser(FpuInit):
    """CET_USER is a supervisor state of the host (commit id MEMORY)."""

    def supervisor_xfeatures(self) -> int:
        """(include/asm/fpu/xstate.h)."""
        return super().supervisor_xfeatures() | xf.MASK_CET_USER


@patch(
    "18164f66e6c5",
    "x86/fpu: Allow caller to constrain xfeatures when copying to uabi buffer",
    version="v6.6",
    fixes=("ad856280ddea",),
)
class GetXsaveLimited(AmxV6):
    """KVM_GET_XSAVE shows only what the guest may have, with 8647c52e9504 that uses it."""

    def kvm_get_xsave_features(self, vcpu: Vcpu) -> int:
        """guest_supported_xcr0, and x87 and SSE for guests without XSAVE (x86.c)."""
        return vcpu.arch.guest_supported_xcr0 | xf.MASK_FPSSE


@patch("8f2a27752e80", "KVM: x86: Replace (almost) all guest CPUID feature queries with cpu_caps", version="v6.14")
class GuestCpuCaps(KvmCpuid):
    """A CPUID flag counts for the guest only where KVM supports it (release MEMORY)."""

    def guest_cpuid_has_xfd(self, vcpu: Vcpu) -> bool:
        """guest_cpu_cap_has(vcpu, X86_FEATURE_XFD) (cpuid.h)."""
        return super().guest_cpuid_has_xfd(vcpu) and self.kvm_cpu_cap_has_xfd()


@patch(
    "1937e18cc3cf",
    "x86/fpu: Fix guest FPU state buffer allocation size",
    version="v6.15",
    fixes=("69f6ed1d14c6",),
)
class GuestAllocSize(KvmFpu):
    """A guest's buffer is allocated by the kernel's size, not by that of the user image."""

    def guest_fpstate_alloc_size(self) -> int:
        """(fpu/core.c)."""
        return self.fpu_kernel_cfg.default_size


@patch(
    "dda366083e5f",
    "x86/fpu/xstate: Fix inconsistencies in guest FPU xfeatures",
    version="v6.15",
    fixes=("36487e6228c4",),
)
class GuestXfeatures(AmxSeries):
    """gfpu->xfeatures counts the supervisor states that its buffer has room for."""

    def guest_default_xfeatures(self) -> int:
        """(fpu/core.c)."""
        return self.fpu_kernel_cfg.default_features


@patch("3ef0df3f760f", "KVM: VMX: Don't modify guest XFD_ERR if CR0.TS=1", version="v6.15")
class XfdErrNotByTs(AmxV6):
    """A #NM that CR0.TS caused leaves XFD_ERR alone."""

    def is_xfd_nm_fault(self, vcpu: Vcpu) -> bool:
        """XFD is not 0 and CR0.TS is clear (vmx.c)."""
        return super().is_xfd_nm_fault(vcpu) and not vcpu.arch.cr0_ts


@patch(
    "d8414603b29f",
    "x86/fpu/xstate: Always preserve non-user xfeatures/flags in __state_perm",
    version="v6.16",
    fixes=("781c64bfcb73",),
)
class PermKeepsSupervisor(Xstate):
    """A permission request keeps the supervisor bits of the permission word, and the size follows the word."""

    def xstate_perm_kernel_mask(self, mask: int, guest: bool) -> int:
        """The word has the supervisor bits already (fpu/xstate.c)."""
        return mask

    def write_state_perm(self, perm: FpuStatePerm, permitted: int, requested: int) -> None:
        """permitted | requested, unmodified (fpu/xstate.c)."""
        perm.state_perm = permitted | requested


@patch("bd0b10b795c5", "x86/fpu/apx: Define APX state component", version="v6.16")
class Apx(FpuInit):
    """One more component number, so index 19 is known to arch_prctl() though no facility has it."""

    XFEATURE_MAX = 20


@patch(
    "509e880b7795",
    "x86/fpu: Initialize guest fpstate and FPU pseudo container from guest defaults",
    version="v6.17",
)
class GuestDefault(AmxSeries):
    """Guests get defaults of their own, which may hold supervisor states that the host does not use.

    With 7bc4ed75f2d6, which computes them, and 7c2c89364d92, which gives them to guest_perm.
    """

    def guest_default_features(self) -> int:
        """guest_default_cfg.features (fpu/xstate.c)."""
        return self.fpu_kernel_cfg.max_features & ~self.XFEATURE_MASK_USER_DYNAMIC

    def guest_default_size(self) -> int:
        """guest_default_cfg.size, in bytes (fpu/xstate.c)."""
        if not self.use_xsave:
            return self.fpu_kernel_cfg.default_size
        return self.xstate_calculate_size(self.guest_default_features(), compacted=True)

    def guest_fpstate_alloc_size(self) -> int:
        """(fpu/core.c, fpu_alloc_guest_fpstate())."""
        return self.guest_default_size()

    def guest_default_xfeatures(self) -> int:
        """(fpu/core.c, fpu_alloc_guest_fpstate())."""
        return self.guest_default_features()

    def guest_fpstate_reset(self, fpstate: Fpstate) -> None:
        """__fpstate_reset() of a guest's (fpu/core.c)."""
        super().guest_fpstate_reset(fpstate)
        fpstate.size = self.guest_default_size()
        fpstate.xfeatures = self.guest_default_features()

    def fpstate_reset(self, nr: int) -> None:
        """guest_perm starts with the guest's defaults (fpu/core.c, 7c2c89364d92)."""
        super().fpstate_reset(nr)
        guest_perm = self.tasks[nr].fpu.guest_perm
        guest_perm.state_perm = self.guest_default_features()
        guest_perm.state_size = self.guest_default_size()


@patch(
    "8b05b3c98816",
    "x86/fpu/xstate: Add CET supervisor xfeature support as a guest-only feature",
    version="v6.17",
)
class CetKernelGuestOnly(FpuInit):
    """CET_KERNEL is saved and restored for guests only (with 151bf232494d)."""

    def supervisor_xfeatures(self) -> int:
        """(include/asm/fpu/xstate.h)."""
        return super().supervisor_xfeatures() | xf.MASK_CET_KERNEL

    def guest_supervisor_xfeatures(self) -> int:
        """(include/asm/fpu/xstate.h)."""
        return super().guest_supervisor_xfeatures() | xf.MASK_CET_KERNEL


@patch(
    "8819a49f9ff8",
    "KVM: x86: Unload FPU state on INIT if and only if its currently in-use",
    version="v6.18",
    fixes=("69cc3e886582",),
)
class MpStateWithoutFpu(KvmX86):
    """KVM_GET_MP_STATE does not touch the guest FPU."""

    def kvm_arch_vcpu_ioctl_get_mpstate(self, vcpu: Vcpu) -> int:
        """(x86.c)."""
        self.vcpu_load(vcpu)
        self.vcpu_put(vcpu)
        return 0


@patch(
    "9bc610b6a2a7",
    "KVM: x86: Harden KVM against imbalanced load/put of guest FPU state",
    version="v6.19",
)
class BugOnImbalance(KvmX86):
    """A second load or put in a row kills the VM instead of the host."""

    def kvm_bug_on(self, vcpu: Vcpu, condition: object) -> bool:
        """KVM_BUG_ON(): warn, and refuse every later ioctl (include/linux/kvm_host.h)."""
        vm = self.vms[vcpu.vm]
        if self.warn_on(condition and not vm.vm_bugged):
            vm.vm_bugged = 1
        return bool(condition)

    def kvm_load_guest_fpu(self, vcpu: Vcpu) -> None:
        """(arch/x86/kvm/fpu.h)."""
        if not self.kvm_bug_on(vcpu, self.deref(vcpu.arch.guest_fpu.fpstate).in_use):
            super().kvm_load_guest_fpu(vcpu)

    def kvm_put_guest_fpu(self, vcpu: Vcpu) -> int:
        """(arch/x86/kvm/fpu.h)."""
        if self.kvm_bug_on(vcpu, not self.deref(vcpu.arch.guest_fpu.fpstate).in_use):
            return 0
        return super().kvm_put_guest_fpu(vcpu)


@patch(
    "b45f72177594",
    "x86/fpu: Clear XSTATE_BV[i] in guest XSAVE state whenever XFD[i]=1",
    version="v6.19",
    fixes=("820a6ee944e7",),
    stable=("v6.1.192", "v6.6.y", "v6.12.117", "v6.18.y"),
)
class ClearXstateBv(AmxV6):
    """State that XFD disables does not stay in the saved image, where XRSTOR would fault on it (CVE-2026-23005)."""

    def fpu_update_guest_xfd(self, guest_fpu: FpuGuest, xfd: int) -> None:
        """Clear XSTATE_BV if the *current thread's* registers are in memory (fpu/core.c)."""
        if xfd and self.current.tif_need_fpu_load:
            self.deref(guest_fpu.fpstate).regs.xstate_bv &= ~xfd
        super().fpu_update_guest_xfd(guest_fpu, xfd)

    def kvm_vcpu_ioctl_x86_set_xsave(self, vcpu: Vcpu, image: XsaveArea) -> int:
        """What XFD disables is dropped from the image, without an error (x86.c)."""
        image.xstate_bv &= ~self.deref(vcpu.arch.guest_fpu.fpstate).xfd
        return super().kvm_vcpu_ioctl_x86_set_xsave(vcpu, image)

    def fpu_copy_uabi_to_guest_fpstate(
        self, gfpu: FpuGuest, image: XsaveArea, size: int, xcr0: int
    ) -> tuple[int, int | None]:
        """The FPU core insists on it: warn and EINVAL (fpu/core.c); with XSAVE only."""
        disabled = image.xstate_bv & self.deref(gfpu.fpstate).xfd
        if self.use_xsave and not image.xstate_bv & ~xcr0 and self.warn_on(disabled):
            return -EINVAL, None
        return super().fpu_copy_uabi_to_guest_fpstate(gfpu, image, size, xcr0)


@patch(
    "kvm-eexist-first",
    "KVM: look for an existing vCPU id before anything is created (in 7.3-rc7; commit not identified)",
    version="v7.3",
)
class EexistFirst(KvmMain):
    """KVM_CREATE_VCPU with an id that exists fails before it allocates, and so before it locks permissions."""

    def kvm_vcpu_id_precheck(self, vm_nr: int, vcpu_id: int) -> int:
        """EEXIST under kvm->lock, before kvm_arch_vcpu_precreate() (virt/kvm/kvm_main.c)."""
        return -EEXIST if self.kvm_get_vcpu_by_id(vm_nr, vcpu_id) else 0
