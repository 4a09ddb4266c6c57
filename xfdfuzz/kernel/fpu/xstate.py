"""Permissions, buffer growth and the uABI copies (arch/x86/kernel/fpu/xstate.c, v5.16)."""

from __future__ import annotations

from typing import NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch import xsave
from xfdfuzz.arch.cpuid import HEADER_END
from xfdfuzz.arch.registers import GeneralProtection
from xfdfuzz.arch.xsave import MXCSR_RESERVED, XsaveArea
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.errno import EFAULT, EINVAL, ENOMEM, ENOSPC, EOPNOTSUPP, EPERM
from xfdfuzz.kernel.event import NULL_DEREF, OVERRUN
from xfdfuzz.kernel.fpu.core import FpuCore
from xfdfuzz.kernel.fpu.init import ZEROED
from xfdfuzz.kernel.state import INIT_FPSTATE, NULL, Fpstate, FpuStatePerm, LbrXsave
from xfdfuzz.memory.cstruct import copy_of

ARCH_GET_XCOMP_SUPP = 0x1021
ARCH_GET_XCOMP_PERM = 0x1022
ARCH_REQ_XCOMP_PERM = 0x1023
ARCH_GET_XCOMP_GUEST_PERM = 0x1024
ARCH_REQ_XCOMP_GUEST_PERM = 0x1025

#: sizeof(struct sigframe_ia32), which is the largest (MAX_FRAME_SIGINFO_UCTXT_SIZE), FRAME_ALIGNMENT, and
#: MAX_XSAVE_PADDING, in bytes (arch/x86/kernel/signal.c).
_SIGFRAME_IA32_SIZE, _FRAME_ALIGNMENT, _XSAVE_PADDING = 736, 16, 63
#: FP_XSTATE_MAGIC2_SIZE and sizeof(struct fregs_state), in bytes (arch/x86/kernel/fpu/signal.c).
_MAGIC2_SIZE, _FREGS_SIZE = 4, 112


class Value(NamedTuple):
    """The return value of a call that also writes something to its caller: ``ret`` and, if 0, ``value``."""

    ret: int
    value: int = 0


class Xstate(FpuCore):
    """What user space asks for, and how an fpstate grows."""

    # -- permissions ---------------------------------------------------------------------------------------------

    def xstate_get_group_perm(self, guest: bool) -> int:
        """The thread group leader's permission word; the guest's came with the KVM series (fpu/xstate.h)."""
        fpu = self.tasks[self.current.group_leader].fpu
        return (fpu.guest_perm if guest else fpu.perm).state_perm

    def xstate_prctl_req(self, idx: int) -> int:
        """xstate_prctl_req[]: which components a facility needs (fpu/xstate.c)."""
        return 1 << idx & self.XFEATURE_MASK_USER_DYNAMIC

    def fpu_xstate_prctl(self, option: int, arg2: int, undefined: int = 0) -> Value:
        """arch_prctl(2) for XSAVE features; ``arg2`` is an index, or for GET whether the pointer is good.

        fpu/xstate.c, fpu_xstate_prctl().  ``undefined`` is what an uninitialised variable returns, where a revision has
        one.  Errors: EFAULT, EINVAL, EOPNOTSUPP, EBUSY, ENOSPC.
        """
        if option == ARCH_GET_XCOMP_SUPP:
            return self.put_user(self.fpu_user_cfg.max_features | self.legacy_features, arg2)
        if option == ARCH_GET_XCOMP_PERM:
            return self.put_user(self.xstate_get_group_perm(False) & self.user_supported, arg2)
        if option == ARCH_REQ_XCOMP_PERM:
            return Value(self.xstate_request_perm(arg2, False, undefined))
        return Value(-EINVAL)

    @seam
    def put_user(self, value: int, pointer_ok: int) -> Value:
        """put_user()."""
        self.might_fault()
        return Value(0, value) if pointer_ok else Value(-EFAULT)

    def xstate_request_perm(self, idx: int, guest: bool, undefined: int = 0) -> int:
        """Permission for one facility: index, table, support, already permitted, then grant (fpu/xstate.c)."""
        if idx >= self.XFEATURE_MAX:
            return -EINVAL
        requested = self.xstate_prctl_req(idx)
        if not requested:
            return -EOPNOTSUPP
        if self.fpu_user_cfg.max_features & requested != requested:
            return -EOPNOTSUPP
        permitted = self.xstate_get_group_perm(guest)
        if permitted & requested == requested:
            return 0
        self.spin_lock_irq()
        ret = self.xstate_request_perm_locked(permitted, requested, guest, undefined)
        self.spin_unlock_irq()
        return ret

    @seam
    def xstate_request_perm_locked(self, permitted: int, requested: int, guest: bool, undefined: int) -> int:
        """The part of xstate_request_perm() that runs under siglock (fpu/xstate.c)."""
        return self._xstate_request_perm(permitted, requested, guest)

    def _xstate_request_perm(self, permitted: int, requested: int, guest: bool) -> int:
        """__xstate_request_perm(): sizes, sigaltstacks, grant (fpu/xstate.c, db8268df0983)."""
        if permitted & requested == requested:
            return 0
        mask = permitted | requested
        ksize = self.xstate_calculate_size(self.xstate_perm_kernel_mask(mask, guest), compacted=self.compacted)
        usize = self.xstate_calculate_size(mask & self.user_supported, compacted=False)
        if not guest:
            ret = self.validate_sigaltstack(usize)
            if ret:
                return ret
        fpu = self.tasks[self.current.group_leader].fpu
        perm = fpu.guest_perm if guest else fpu.perm
        self.write_state_perm(perm, permitted, requested)
        perm.state_size = ksize
        perm.user_state_size = usize
        return 0

    @seam
    def xstate_perm_kernel_mask(self, mask: int, guest: bool) -> int:
        """The features that the kernel's buffer size is computed for; a seam for 781c64bfcb73."""
        return mask

    @seam
    def write_state_perm(self, perm: FpuStatePerm, permitted: int, requested: int) -> None:
        """The WRITE_ONCE(perm->__state_perm, ...) of __xstate_request_perm(): v5.16 overwrites, so that only the
        requested bit is left; a seam for 063452fd94d1."""
        perm.state_perm = requested

    def validate_sigaltstack(self, usize: int) -> int:
        """ENOSPC when a thread's alternate stack could not hold the frame (fpu/xstate.c)."""
        framesize = self.get_sigframe_size() - self.fpu_user_cfg.max_size + usize
        for task in self.tasks:
            if task.exists and task.group_leader == self.current.group_leader and 0 < task.sas_ss_size < framesize:
                return -ENOSPC
        return 0

    def sigaltstack_size_valid(self, size: int) -> bool:
        """Whether a new alternate stack is big enough for what the process may use (arch/x86/kernel/signal.c).

        It is not asked of one that may use no dynamic feature, unless the kernel is strict.
        """
        fpu = self.tasks[self.current.group_leader].fpu
        if not (self.config.strict_sas_size or fpu.perm.state_perm & self.XFEATURE_MASK_USER_DYNAMIC):
            return True
        return size > self.get_sigframe_size() - self.fpu_get_fpstate_size() + fpu.perm.user_state_size

    def fpu_get_fpstate_size(self) -> int:
        """fpu__get_fpstate_size(): what the FPU takes of the largest frame, in bytes, with that of a 32-bit program
        (arch/x86/kernel/fpu/signal.c)."""
        return self.fpu_user_cfg.max_size + _FREGS_SIZE + (_MAGIC2_SIZE if self.use_xsave else 0)

    def get_sigframe_size(self) -> int:
        """The largest frame there is, in bytes, max_frame_size: AT_MINSIGSTKSZ (arch/x86/kernel/signal.c)."""
        most = _SIGFRAME_IA32_SIZE + _FRAME_ALIGNMENT - 1 + self.fpu_get_fpstate_size() + _XSAVE_PADDING
        return -(-most // _FRAME_ALIGNMENT) * _FRAME_ALIGNMENT

    # -- growth --------------------------------------------------------------------------------------------------

    def xfd_enable_feature(self, xfd_err: int) -> int:
        """Give current the features in ``xfd_err``; 0, EPERM or EFAULT (fpu/xstate.c, 783e87b40495)."""
        event = xfd_err & self.XFEATURE_MASK_USER_DYNAMIC
        if not event:
            return 0
        self.spin_lock_irq()
        if self.xstate_get_group_perm(False) & event != event:
            self.spin_unlock_irq()
            return -EPERM
        perm = self.tasks[self.current.group_leader].fpu.perm
        ksize, usize = perm.state_size, perm.user_state_size
        self.spin_unlock_irq()
        if self.fpstate_realloc(event, ksize, usize):
            return -EFAULT
        return 0

    @seam
    def fpstate_realloc_new(self, ksize: int, usize: int) -> int:
        """The head of fpstate_realloc(): a zeroed fpstate of those sizes, in bytes; NULL without memory.

        fpstate_init_user(), which would set FCW and MXCSR, is not called for it (fpu/xstate.c, fpstate_realloc()).
        """
        new = self.vzalloc(ksize)
        if new:
            newfps = self.fpstates[new]
            newfps.regs.data[xf.X87] = newfps.regs.data[xf.MXCSR] = ZEROED
            newfps.size = ksize
            newfps.user_size = usize
            newfps.is_valloc = 1
        return new

    def fpstate_realloc(self, xfeatures: int, ksize: int, usize: int) -> int:
        """A bigger fpstate for current; the registers carry the state over (fpu/xstate.c, 500afbf645a0)."""
        fpu = self.current.fpu
        new = self.fpstate_realloc_new(ksize, usize)
        if not new:
            return -ENOMEM
        newfps = self.fpstates[new]
        self.fpregs_lock()
        if self.current.tif_need_fpu_load:
            self.fpregs_restore_userregs()
        old = fpu.fpstate
        curfps = self.deref(old)
        newfps.xfeatures = curfps.xfeatures | xfeatures
        newfps.user_xfeatures = curfps.user_xfeatures | xfeatures
        newfps.xfd = curfps.xfd & ~xfeatures
        self.xstate_init_xcomp_bv(newfps, newfps.xfeatures)
        fpu.fpstate = new
        self.xfd_update_state(newfps)
        self.fpregs_unlock()
        if curfps.is_valloc:
            self.vfree(old)
        return 0

    # -- uABI images ---------------------------------------------------------------------------------------------

    @phase_of("__copy_xstate_to_uabi_buf")
    def copy_xstate_to_uabi_buf(self, fpstate: Fpstate, xfeatures: int, pkru: int, size: int) -> XsaveArea:
        """The standard-format image of ``fpstate`` for a buffer of ``size`` bytes; absent components as initial."""
        image = XsaveArea()
        image.xstate_bv = self.uabi_xfeatures(fpstate) & fpstate.user_xfeatures & xfeatures
        for i in xf.components_in(image.xstate_bv):
            image.data[i] = pkru if i == xf.PKRU else fpstate.regs.data[i]
        if self.uabi_has_mxcsr(image.xstate_bv):
            image.data[xf.MXCSR] = fpstate.regs.data[xf.MXCSR]
        for i in xf.components_in(self.uabi_copied(fpstate, image.xstate_bv) & ~(xf.MASK_FPSSE | xf.MASK_PKRU)):
            component = self.machine.cpuid.components[i]
            room = min(component.size, size - component.offset)
            self.uabi_copy_component(fpstate, i, bool(image.xstate_bv >> i & 1), room)
        return image

    @seam
    def uabi_has_mxcsr(self, header: int) -> bool:
        """ "Copy MXCSR when SSE or YMM are set in the feature mask": from the image, else from init_fpstate."""
        return bool(header & xf.MASK_WITH_MXCSR)

    @seam
    def uabi_xfeatures(self, fpstate: Fpstate) -> int:
        """What the header of a copy begins with: the image's XSTATE_BV, even for PKRU, whose value is ``pkru``."""
        return fpstate.regs.xstate_bv

    @seam
    def uabi_copied(self, fpstate: Fpstate, header: int) -> int:
        """``mask`` of __copy_xstate_to_uabi_buf(): what is copied from somewhere, and not just zeroed."""
        return fpstate.user_xfeatures

    @seam
    def uabi_copy_component(self, fpstate: Fpstate, i: int, there: bool, size: int) -> None:
        """copy_feature(): from ``fpstate`` if it is there, else from init_fpstate; both addresses are taken first.

        init_fpstate is one page, which TILEDATA lies beyond.
        """
        init = self.fpstates[INIT_FPSTATE]
        xstate, init_xstate = self._raw_xsave_addr(fpstate, i), self._raw_xsave_addr(init, i)
        if there:
            self.touch_component(fpstate, xstate, size)
        else:
            self.touch_component(init, init_xstate, size)

    @seam
    def touch_component(self, fpstate: Fpstate, address: int, size: int) -> None:
        """membuf_write() or memcpy(): ``size`` bytes at ``address`` in an image; none where the caller has no room."""
        if size <= 0:
            return
        if address == NULL:
            self.die(NULL_DEREF)
        if address + size > fpstate.alloc_size:
            self.report(OVERRUN, address + size, fpstate.alloc_size)

    def _raw_xsave_addr(self, fpstate: Fpstate, i: int) -> int:
        """__raw_xsave_addr(): where a component lies in an image, in bytes from its start, or NULL.

        Until 7aa5128b5fea (5.18) that is where boot put it among all features, xstate_comp_offsets[], whatever the
        image has.  Contents are found all the same: they lie elsewhere only where an image has the synthetic second
        dynamic feature and lacks TILEDATA.
        """
        if not self.fpu_kernel_cfg.max_features >> i & 1:
            self.warn_on(self.config.debug_fpu)
            return NULL
        return self.xfeature_get_offset(self.fpu_kernel_cfg.max_features, i)

    def xfeature_get_offset(self, layout: int, i: int) -> int:
        """Where component ``i`` lies among those of ``layout``, which only a compacted image has a choice of
        (fpu/xstate.c)."""
        cpuid = self.machine.cpuid
        return cpuid.compacted_offset(layout, i) if self.compacted else cpuid.components[i].offset

    def validate_user_xstate_header(self, image: XsaveArea, fpstate: Fpstate) -> int:
        """EINVAL for unknown components, a compacted image or reserved bytes that are not 0 (fpu/xstate.c)."""
        if image.xstate_bv & ~fpstate.user_xfeatures or image.xcomp_bv or image.reserved:
            return -EINVAL
        return 0

    def copy_uabi_to_xstate(self, fpstate: Fpstate, image: XsaveArea, size: int) -> int:
        """Take over a standard-format image of ``size`` bytes (fpu/xstate.c, copy_uabi_to_xstate()).

        Does not look at XCR0; at MXCSR only where a component in it needs that: "SSE and YMM require MXCSR even when FP
        is not in use", and with x87's bytes it comes along.  What lies beyond ``size`` is read all the same.
        """
        if size < HEADER_END:
            self.report(OVERRUN, HEADER_END, size)
        ret = self.validate_user_xstate_header(image, fpstate)
        if ret:
            return ret
        area = fpstate.regs
        if image.xstate_bv & (xf.MASK_FPSSE | xf.MASK_YMM):
            if image.data[xf.MXCSR] == MXCSR_RESERVED:
                return -EINVAL
            area.data[xf.MXCSR] = image.data[xf.MXCSR]
        for i in xf.components_in(image.xstate_bv):
            if i not in (xf.X87, xf.SSE):
                self.touch_component(fpstate, self._raw_xsave_addr(fpstate, i), self.machine.cpuid.components[i].size)
            area.data[i] = image.data[i]
        end = self.machine.cpuid.standard_size(image.xstate_bv)
        if end > size >= HEADER_END:
            self.report(OVERRUN, end, size)
        area.xstate_bv = area.xstate_bv & self.xfeatures_mask_supervisor_all() | image.xstate_bv
        return 0

    def xfeatures_mask_supervisor_all(self) -> int:
        """XFEATURE_MASK_SUPERVISOR_ALL (include/asm/fpu/xstate.h)."""
        return self.machine.supervisor_xfeatures

    # -- independent features ------------------------------------------------------------------------------------

    def validate_independent_components(self, mask: int) -> bool:
        """Whether XSAVES is there, and the mask of nothing else; WARN if not (fpu/xstate.c)."""
        if not self.machine.has_xsaves:
            self.warn_on(self.config.debug_fpu)
            return False
        return not self.warn_on(not mask or mask & ~self.xfeatures_mask_independent())

    def xsaves(self, xstate: LbrXsave, mask: int) -> None:
        """Save independent features to a buffer that is no fpstate (fpu/xstate.c)."""
        if self.validate_independent_components(mask):
            image = XsaveArea()
            xsave.xsaves(self.regs, image, mask)
            if image.xstate_bv & xf.MASK_LBR:
                xstate.entries = image.data[xf.LBR]
            xstate.xstate_bv = image.xstate_bv >> xf.LBR & 1
            xstate.xcomp_bv = image.xcomp_bv >> xf.LBR & 1
            xstate.compacted = 1

    def xrstors(self, xstate: LbrXsave, mask: int) -> None:
        """Restore them; a #GP is a WARN (fpu/xstate.c)."""
        if self.validate_independent_components(mask):
            image = XsaveArea(xstate_bv=xstate.xstate_bv << xf.LBR, xcomp_bv=xstate.xcomp_bv << xf.LBR)
            image.xcomp_bv |= xsave.XCOMP_BV_COMPACTED if xstate.compacted else 0
            image.data[xf.LBR] = xstate.entries
            try:
                xsave.xrstors(self.regs, image, mask)
            except GeneralProtection:
                self.warn_on(True)

    @seam
    def snapshot(self, fpstate: Fpstate) -> XsaveArea:
        """A copy of the memory image."""
        area: XsaveArea = copy_of(fpstate.regs)
        return area
