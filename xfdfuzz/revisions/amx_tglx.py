"""amx-tglx, "[patch 0/6] x86/fpu: Preparatory changes for guest AMX support" of 14 December 2021, FPU core only.

Source: 20211214022825.563892248@linutronix.de (patches 1 to 6: 20211214024947.818549574, .878061856, .935581464,
.991506193, 20211214024948.048572883 and .108057289).  What patch 6 adds is not used: nothing passes XFD through.  KVM's
side was never posted.  INFERRED: it is amx-review-c's, with this posting's functions at its two call sites; XFD_ERR and
KVM_GET_XSAVE2 are amx-v1's.
"""

from __future__ import annotations

from xfdfuzz.kernel.base import phase_of
from xfdfuzz.kernel.errno import ENOMEM, ENOTSUPP, EPERM
from xfdfuzz.kernel.state import FpuGuest, Vcpu
from xfdfuzz.revisions.amx_review import AmxReviewC


class AmxTglx(AmxReviewC):
    """Thomas Gleixner's counterproposal: the FPU core validates XCR0 and XFD and grows the buffer."""

    revision = "amx-tglx"

    # -- FPU core ------------------------------------------------------------------------------------------------

    def fpu_update_guest_xcr0(self, guest_fpu: FpuGuest, xcr0: int) -> int:
        """XCR0 with the current XFD (fpu/api.h, 20211214024948.048572883@linutronix.de)."""
        return self._fpu_update_guest_features(guest_fpu, xcr0, self.deref(guest_fpu.fpstate).xfd)

    def fpu_update_guest_xfd(self, guest_fpu: FpuGuest, xcr0: int, xfd: int) -> int:
        """XFD with the current XCR0 (fpu/api.h, 20211214024948.048572883@linutronix.de)."""
        return self._fpu_update_guest_features(guest_fpu, xcr0, xfd)

    def _fpu_update_guest_features(self, guest_fpu: FpuGuest, xcr0: int, xfd: int) -> int:
        """EPERM, ENOTSUPP, then write XFD or grow, not both (fpu/core.c, 20211214024948.048572883@linutronix.de)."""
        if xcr0 & ~guest_fpu.perm:
            return -EPERM
        if xfd & ~(self.XFEATURE_MASK_USER_DYNAMIC & self.fpu_user_cfg.max_features):
            return -ENOTSUPP
        expand = xcr0 & ~xfd & ~guest_fpu.xfeatures
        if expand:
            return self._xfd_enable_feature(expand, guest_fpu)
        fpstate = self.deref(guest_fpu.fpstate)
        self.fpregs_lock()
        fpstate.xfd = xfd
        if fpstate.in_use:
            self.xfd_update_state(fpstate)
        self.fpregs_unlock()
        return 0

    @phase_of("fpstate_realloc")
    def fpstate_realloc_guest(self, xfeatures: int, ksize: int, usize: int, guest_fpu: FpuGuest) -> int:
        """The new fpstate takes after *current's*, be it the guest's or not (fpu/xstate.c,
        20211214024947.991506193@linutronix.de)."""
        fpu = self.current.fpu
        curfps = self.deref(fpu.fpstate)
        new = self.fpstate_realloc_new(ksize, usize)
        if not new:
            return -ENOMEM
        newfps = self.fpstates[new]
        newfps.is_guest = 1
        newfps.is_confidential = curfps.is_confidential
        newfps.in_use = curfps.in_use
        guest_fpu.xfeatures |= xfeatures
        self.fpregs_lock()
        if self.current.tif_need_fpu_load:
            self.fpregs_restore_userregs()
        newfps.xfeatures = curfps.xfeatures | xfeatures
        newfps.user_xfeatures = curfps.user_xfeatures | xfeatures
        newfps.xfd = curfps.xfd & ~xfeatures
        self.xstate_init_xcomp_bv(newfps, newfps.xfeatures)
        old = guest_fpu.fpstate
        guest_fpu.fpstate = new
        if fpu.fpstate == old:
            fpu.fpstate = new
        self.xfd_update_state(self.deref(fpu.fpstate))
        self.fpregs_unlock()
        if self.deref(old).is_valloc:
            self.vfree(old)
        return 0

    # -- KVM (INFERRED) --------------------------------------------------------------------------------------------

    def kvm_set_xfd(self, vcpu: Vcpu, data: int, host_initiated: bool) -> int:
        """An error fails the ioctl or is a #GP; the FPU core has written XFD (INFERRED)."""
        return 1 if self.fpu_update_guest_xfd(vcpu.arch.guest_fpu, vcpu.arch.xcr0, data) < 0 else 0

    def fpu_guest_alloc_xcr0(self, guest_fpu: FpuGuest, xcr0: int) -> int:
        """XCR0 may change only if fpu_update_guest_xcr0() succeeds (INFERRED)."""
        return self.fpu_update_guest_xcr0(guest_fpu, xcr0)
