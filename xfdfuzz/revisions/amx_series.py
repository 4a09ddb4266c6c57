"""What every posting of "AMX support in KVM" shares: the guest permission word, a guest form of the buffer growth, AMX
in KVM's CPUID and the XCR0 rule for tiles.

Source: amx-v1 patches 01-06, 18 and 19 (20211208000359.2853257-1-yang.zhong@intel.com) as they were merged:
980fe2fddcff, 36487e6228c4, c270ce393dfd, 86aff7a47992, 690a757d610e.
"""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.errno import EBUSY, EFAULT, ENOMEM, EPERM
from xfdfuzz.kernel.fpu.xstate import ARCH_GET_XCOMP_GUEST_PERM, ARCH_REQ_XCOMP_GUEST_PERM, Value
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import FPU_GUEST_PERM_LOCKED, FpuGuest, Vcpu


class AmxSeries(Kernel):
    """v5.16 plus what no posting of the series changed."""

    # -- permissions ---------------------------------------------------------------------------------------------

    def fpu_xstate_prctl(self, option: int, arg2: int, undefined: int = 0) -> Value:
        """The two guest options (fpu/xstate.c, 980fe2fddcff)."""
        if option == ARCH_GET_XCOMP_GUEST_PERM:
            return self.put_user(self.xstate_get_group_perm(True) & self.user_supported, arg2)
        if option == ARCH_REQ_XCOMP_GUEST_PERM:
            return Value(self.xstate_request_perm(arg2, True, undefined))
        return super().fpu_xstate_prctl(option, arg2, undefined)

    def xstate_request_perm_locked(self, permitted: int, requested: int, guest: bool, undefined: int) -> int:
        """EBUSY once the first vCPU of the group locked the guest's permissions (980fe2fddcff)."""
        permitted = self.xstate_get_group_perm(guest)
        if guest and permitted & FPU_GUEST_PERM_LOCKED:
            return -EBUSY
        return self._xstate_request_perm(permitted, requested, guest)

    def fpu_init_guest_permissions(self, gfpu: FpuGuest) -> None:
        """Copy the group's guest permissions and lock them (fpu/core.c, 36487e6228c4)."""
        self.spin_lock_irq()
        fpuperm = self.tasks[self.current.group_leader].fpu.guest_perm
        perm = fpuperm.state_perm
        fpuperm.state_perm = perm | FPU_GUEST_PERM_LOCKED
        self.spin_unlock_irq()
        gfpu.perm = perm & ~FPU_GUEST_PERM_LOCKED

    # -- guest fpstate -------------------------------------------------------------------------------------------

    def fpu_alloc_guest_fpstate(self, gfpu: FpuGuest) -> bool:
        """As before, with what the storage is sized for, and the permissions locked (fpu/core.c, 36487e6228c4)."""
        if not super().fpu_alloc_guest_fpstate(gfpu):
            return False
        gfpu.xfeatures = self.guest_default_xfeatures()
        gfpu.perm = gfpu.xfeatures
        self.fpu_init_guest_permissions(gfpu)
        return True

    @seam
    def guest_default_xfeatures(self) -> int:
        """What a new guest fpstate is said to be sized for: the *user* default, until dda366083e5f (6.15)."""
        return self.fpu_user_cfg.default_features

    def guest_reset_xfd(self) -> int:
        """The reset value that the SDM gives: 0 (fpu/core.c)."""
        return 0

    # -- growth --------------------------------------------------------------------------------------------------

    def xfd_enable_feature(self, xfd_err: int) -> int:
        """The host's form (fpu/xstate.c, c270ce393dfd)."""
        return self._xfd_enable_feature(xfd_err, None)

    def _xfd_enable_feature(self, xfd_err: int, guest_fpu: FpuGuest | None) -> int:
        """__xfd_enable_feature(): 0, EPERM, or EFAULT for any failure to allocate (fpu/xstate.c, c270ce393dfd)."""
        event = xfd_err & self.XFEATURE_MASK_USER_DYNAMIC
        if not event:
            return 0
        self.spin_lock_irq()
        if self.xstate_get_group_perm(guest_fpu is not None) & event != event:
            self.spin_unlock_irq()
            return -EPERM
        fpu = self.tasks[self.current.group_leader].fpu
        perm = fpu.perm if guest_fpu is None else fpu.guest_perm
        ksize, usize = perm.state_size, perm.user_state_size
        self.spin_unlock_irq()
        if guest_fpu is None:
            failed = self.fpstate_realloc(event, ksize, usize)
        else:
            failed = self.fpstate_realloc_guest(event, ksize, usize, guest_fpu)
        return -EFAULT if failed else 0

    @phase_of("fpstate_realloc")
    def fpstate_realloc_guest(self, xfeatures: int, ksize: int, usize: int, guest_fpu: FpuGuest) -> int:
        """fpstate_realloc() for a guest FPU, loaded or not (fpu/xstate.c, c270ce393dfd; as merged).

        If the guest's fpstate is not current's, the old memory image is dropped: nothing copies it.
        """
        fpu = self.current.fpu
        new = self.fpstate_realloc_new(ksize, usize)
        if not new:
            return -ENOMEM
        newfps = self.fpstates[new]
        old = guest_fpu.fpstate
        curfps = self.deref(old)
        in_use = fpu.fpstate == old
        newfps.is_guest = 1
        newfps.is_confidential = curfps.is_confidential
        newfps.in_use = curfps.in_use
        guest_fpu.xfeatures |= xfeatures
        self.set_uabi_size(guest_fpu, usize)
        self.fpregs_lock()
        if in_use and self.current.tif_need_fpu_load:
            self.fpregs_restore_userregs()
        newfps.xfeatures = curfps.xfeatures | xfeatures
        newfps.user_xfeatures = curfps.user_xfeatures | xfeatures
        newfps.xfd = curfps.xfd & ~xfeatures
        self.xstate_init_xcomp_bv(newfps, newfps.xfeatures)
        guest_fpu.fpstate = new
        if in_use:
            fpu.fpstate = new
            self.xfd_update_state(newfps)
        self.fpregs_unlock()
        if curfps.is_valloc:
            self.vfree(old)
        return 0

    @seam
    def set_uabi_size(self, guest_fpu: FpuGuest, usize: int) -> None:
        """guest_fpu->uabi_size, which the first posting does not have."""

    # -- KVM -----------------------------------------------------------------------------------------------------

    @property
    def supported_xcr0(self) -> int:
        """KVM_SUPPORTED_XCR0 with XTILE (x86.c, 86aff7a47992), and the synthetic component."""
        return self.host_xcr0 & (self.KVM_SUPPORTED_XCR0 | xf.MASK_XTILE | xf.MASK_DYN2)

    def kvm_cpu_cap_has_xfd(self) -> bool:
        """kvm_set_cpu_caps(): F(XFD) (cpuid.c, 690a757d610e)."""
        return self.machine.has_xfd

    def kvm_cpu_cap_has_amx(self) -> bool:
        """kvm_set_cpu_caps(): F(AMX_TILE) (cpuid.c, 690a757d610e)."""
        return self.host_xcr0 & xf.MASK_XTILE == xf.MASK_XTILE

    def kvm_set_xcr_tail(self, vcpu: Vcpu, xcr0: int) -> int:
        """TILECFG and TILEDATA only together (x86.c, __kvm_set_xcr(), 86aff7a47992)."""
        if not self.legal_tile_pair(xcr0):
            return 1
        return super().kvm_set_xcr_tail(vcpu, xcr0)

    @seam
    def legal_tile_pair(self, xcr0: int) -> bool:
        """Both tile components or none."""
        return xcr0 & xf.MASK_XTILE in (0, xf.MASK_XTILE)


class UninitialisedResult(AmxSeries):
    """amx-v1, amx-tglx and amx-v2: __xstate_request_perm() returns a variable that nothing assigns for a guest."""

    def xstate_request_perm_locked(self, permitted: int, requested: int, guest: bool, undefined: int) -> int:
        """`int ret;`, and its only assignment is the one that is skipped for guests (fpu/xstate.c).

        amx-v1 patch 01, amx-tglx patch 1, amx-v2 patch 01 as quoted in 8735mrcbpd.ffs@tglx ("needs to be int ret = 0").
        """
        held = self.xstate_get_group_perm(guest) & requested == requested
        ret = super().xstate_request_perm_locked(permitted, requested, guest, undefined)
        return undefined if guest and not ret and not held else ret
