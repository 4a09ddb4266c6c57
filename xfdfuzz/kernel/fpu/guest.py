"""What the FPU core offers to KVM: guest fpstates and the swap (arch/x86/kernel/fpu/core.c, v5.16, CONFIG_KVM)."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import HEADER_END
from xfdfuzz.arch.xsave import MXCSR_RESERVED, XsaveArea
from xfdfuzz.kernel.base import seam
from xfdfuzz.kernel.errno import EINVAL
from xfdfuzz.kernel.event import OVERRUN
from xfdfuzz.kernel.fpu.regset import Regset
from xfdfuzz.kernel.state import NULL, Fpstate, FpuGuest


class GuestFpu(Regset):
    """Guest fpstates."""

    def fpu_alloc_guest_fpstate(self, gfpu: FpuGuest) -> bool:
        """Allocate the guest's fpstate; False when there is no memory (fpu/core.c).

        v5.16 gives it the host's XFD: no guest can use a dynamic feature.
        """
        nr = self.vzalloc(self.guest_fpstate_alloc_size())
        if not nr:
            return False
        fpstate = self.fpstates[nr]
        self.guest_fpstate_reset(fpstate)
        self.fpstate_init_user(fpstate)
        fpstate.is_valloc = 1
        fpstate.is_guest = 1
        gfpu.fpstate = nr
        return True

    @seam
    def guest_fpstate_reset(self, fpstate: Fpstate) -> None:
        """__fpstate_reset() of a guest's fpstate."""
        self._fpstate_reset(fpstate, self.guest_reset_xfd())

    @seam
    def guest_fpstate_alloc_size(self) -> int:
        """Bytes for the registers: the *user* default size, until 1937e18cc3cf (6.15)."""
        return self.fpu_user_cfg.default_size

    @seam
    def guest_xfd(self, gfpu: FpuGuest) -> int:
        """What the guest's XFD is while it does not run."""
        return self.deref(gfpu.fpstate).xfd

    @seam
    def guest_reset_xfd(self) -> int:
        """What a new guest fpstate's xfd is."""
        return self.init_xfd

    def fpu_free_guest_fpstate(self, gfpu: FpuGuest) -> None:
        """Free it, or warn and leak it while it is in use (fpu/core.c)."""
        if gfpu.fpstate == NULL:
            return
        fps = self.deref(gfpu.fpstate)
        if self.warn_on(not fps.is_valloc or not fps.is_guest or fps.in_use):
            self.leak(gfpu.fpstate)
            return
        nr = gfpu.fpstate
        gfpu.fpstate = NULL
        self.vfree(nr)

    def fpu_swap_kvm_fpstate(self, guest_fpu: FpuGuest, enter_guest: bool) -> int:
        """Exchange the host task's and the guest's fpstate and load the new one (fpu/core.c, d69c1382e1b7)."""
        fpu = self.current.fpu
        cur_fps = self.deref(fpu.fpstate)
        guest_fps = self.deref(guest_fpu.fpstate)
        self.fpregs_lock()
        if not cur_fps.is_confidential and not self.current.tif_need_fpu_load:
            self.save_fpregs_to_fpstate(fpu)
        if enter_guest:
            fpu.task_fpstate = fpu.fpstate
            fpu.fpstate = guest_fpu.fpstate
            guest_fps.in_use = 1
        else:
            guest_fps.in_use = 0
            fpu.fpstate = fpu.task_fpstate
            fpu.task_fpstate = NULL
        cur_fps = self.deref(fpu.fpstate)
        if not cur_fps.is_confidential:
            self.restore_fpregs_from_fpstate(cur_fps, self.xfeature_mask_fpstate)
        else:
            self.xfd_update_state(cur_fps)
        self.fpregs_mark_activate()
        self.fpregs_unlock()
        return 0

    def fpu_copy_guest_fpstate_to_uabi(self, gfpu: FpuGuest, size: int, xfeatures: int, pkru: int) -> XsaveArea:
        """The guest's image for a caller's buffer of ``size`` bytes; what does not fit is cut off (fpu/core.c)."""
        kstate = self.deref(gfpu.fpstate)
        if self.use_xsave:
            image = self.copy_xstate_to_uabi_buf(kstate, xfeatures, pkru, size)
            for i in xf.components_in(image.xstate_bv):
                if self.machine.cpuid.standard_size(1 << i) > size:
                    image.data[i] = 0
            return image
        if size < HEADER_END:
            self.report(OVERRUN, HEADER_END, size)
        image = self.snapshot(kstate)
        image.xstate_bv = xf.MASK_FPSSE
        return image

    def fpu_copy_uabi_to_guest_fpstate(
        self, gfpu: FpuGuest, image: XsaveArea, size: int, xcr0: int
    ) -> tuple[int, int | None]:
        """Take over user space's image of ``size`` bytes: 0 or EINVAL, and PKRU if it was in the image (fpu/core.c)."""
        kstate = self.deref(gfpu.fpstate)
        if not self.use_xsave:
            if size < HEADER_END:
                self.report(OVERRUN, HEADER_END, size)
            if image.xstate_bv & ~xf.MASK_FPSSE or image.data[xf.MXCSR] == MXCSR_RESERVED:
                return -EINVAL, None
            for i in xf.LEGACY:
                kstate.regs.data[i] = image.data[i]
            return 0, None
        if image.xstate_bv & ~xcr0:
            return -EINVAL, None
        ret = self.copy_uabi_to_xstate(kstate, image, size)
        if ret or not image.xstate_bv & xf.MASK_PKRU:
            return ret, None
        return 0, image.data[xf.PKRU]
