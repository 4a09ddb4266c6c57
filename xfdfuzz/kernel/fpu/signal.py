"""The FPU part of signal frames (arch/x86/kernel/fpu/signal.c, v5.16).

That of a 32-bit program has x87 twice: in front of the image there is a header as FNSAVE stores it, which sigreturn
takes it from, "for histerical raisins".

Where the image lies is told by its context: nowhere (NULL), or at an address that XRSTOR may refuse.

User memory is taken to be there, but for an image that XSAVE or XRSTOR faults on, for a frame that cannot be written,
and behind the end of the memory that a frame of the task's own lies in.
"""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch import xsave
from xfdfuzz.arch.cpuid import HEADER_END, CpuidTable
from xfdfuzz.arch.registers import DeviceNotAvailable, GeneralProtection, PageFault, load_component
from xfdfuzz.arch.xsave import MXCSR_RESERVED, XsaveArea
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.event import OVERRUN
from xfdfuzz.kernel.fpu.init import FXSAVE_SIZE, PKRU_DEFAULT
from xfdfuzz.kernel.fpu.xstate import Xstate
from xfdfuzz.kernel.state import INIT_FPSTATE, UNWRITABLE_ALL, Fpstate, SigFrame

#: What stands in front of extended state in a frame.
FP_XSTATE_MAGIC1 = 0x46505853
#: FP_XSTATE_MAGIC2_SIZE, in bytes.
FP_XSTATE_MAGIC2_SIZE = 4
#: sizeof(struct fregs_state), in bytes: the header of a 32-bit frame.
FREGS_SIZE = 112


def components_at_magic2(magic2: int, cpuid: CpuidTable) -> int:
    """The components behind the header in whose bytes the second magic stands, as a whole or in part; in the legacy
    region and in the header nobody looks for it."""
    if magic2 + FP_XSTATE_MAGIC2_SIZE <= HEADER_END:
        return 0
    places = ((i, one.offset, one.offset + one.size) for i, one in cpuid.components.items())
    return xf.mask_of(*(i for i, at, end in places if at < magic2 + FP_XSTATE_MAGIC2_SIZE and magic2 < end))


class FpuSignal(Xstate):
    """Registers into a signal frame, out of it, and into their initial state for the handler."""

    @property
    def xfeature_mask_user_restore(self) -> int:
        """XFEATURE_MASK_USER_RESTORE: all user features but PKRU (include/asm/fpu/xstate.h)."""
        return self.user_supported & ~xf.MASK_PKRU

    def xstate_sigframe_size(self, fpstate: Fpstate) -> int:
        """Bytes of the frame's FPU part."""
        return fpstate.user_size + (FP_XSTATE_MAGIC2_SIZE if self.use_xsave else 0)

    # -- delivery ------------------------------------------------------------------------------------------------

    def copy_fpstate_to_sigframe(self, frame: SigFrame, pkru: int) -> bool:
        """__clear_user() of the header, which finds a page that is to be had, then XSAVE; False: it cannot be written.

        ``pkru`` is the task's, an argument since 24cf2bc982ff (6.12).
        """
        if self.use_xsave:
            self.might_fault()
            if frame.unwritable == UNWRITABLE_ALL or self.pkey_denies(frame):
                return False
        frame.area.xstate_bv = frame.area.xcomp_bv = frame.area.reserved = 0
        return self.copy_fpstate_retry(frame, pkru)

    @phase_of("copy_fpstate_to_sigframe")
    def copy_fpstate_retry(self, frame: SigFrame, pkru: int) -> bool:
        """From its label ``retry`` on: XSAVE into the user's stack, then what only software knows of the frame.

        Under the lock page faults are disabled, so the copy does not sleep.  Where it faults on a page that may be had,
        ``in_sigframe`` says so; one that may not be written is noticed at once.
        """
        fpstate = self.deref(self.current.fpu.fpstate)
        self.fpregs_lock()
        if self.current.tif_need_fpu_load:
            self.fpregs_restore_userregs()
        saved = self.copy_fpregs_to_sigframe(frame, fpstate, pkru)
        self.fpregs_unlock()
        if not saved:
            self.current.in_sigframe = frame.absent
            return False
        if self.current.ia32:
            self.save_fsave_header(frame, fpstate)
        self.save_xstate_epilog(frame, fpstate)
        return True

    def copy_fpregs_to_sigframe(self, frame: SigFrame, fpstate: Fpstate, pkru: int) -> bool:
        """With XSAVE or FXSAVE; False where it faults."""
        if self.use_xsave:
            return self.xsave_to_user_sigframe(frame, fpstate, pkru)
        if self.sigframe_faults(frame):
            return False
        for i in xf.LEGACY:
            frame.area.data[i] = self.regs.data[i]
        return True

    @seam
    def pkey_denies(self, frame: SigFrame) -> bool:
        """Whether current's PKRU denies access to the memory of the frame, to the kernel on its behalf too."""
        return bool(frame.pkey and self.regs.data[xf.PKRU])

    @seam
    def sigframe_faults(self, frame: SigFrame) -> bool:
        """Whether an instruction that stores the image meets a page that it cannot write; no register changes."""
        return bool(frame.absent) or frame.unwritable == UNWRITABLE_ALL

    def xsave_to_user_sigframe(self, frame: SigFrame, fpstate: Fpstate, pkru: int) -> bool:
        """PKRU included; with dynamic features, tiles only while they are in use (fpu/xstate.h)."""
        mask = fpstate.user_xfeatures
        if self.fpu_state_size_dynamic:
            mask &= self.xfeatures_need_sigframe_write()
        self.xfd_validate_state(fpstate, mask, False)
        self.hardirq_window()
        if self.sigframe_faults(frame):
            return False
        xsave.xsave(self.regs, frame.area, mask)
        end = self.machine.cpuid.standard_size(mask & self.regs.xcr0)
        if end > fpstate.user_size:
            self.report(OVERRUN, end, fpstate.user_size)
        self.sigframe_pkru(frame, mask, pkru)
        return True

    @seam
    def sigframe_pkru(self, frame: SigFrame, mask: int, pkru: int) -> None:
        """What happens to PKRU in the image that XSAVE wrote with ``mask``: nothing, until 70044df250d0 (6.12)."""

    def xfeatures_need_sigframe_write(self) -> int:
        """What is in use, and all but tiles (fpu/xstate.h).

        XFEATURE_MASK_SIGFRAME_INITOPT is XFEATURE_MASK_XTILE; the synthetic component is taken to be like it.
        """
        optimisable = xf.MASK_XTILE | xf.MASK_DYN2
        return self.xfeatures_in_use() | self.user_supported & ~optimisable

    def save_fsave_header(self, frame: SigFrame, fpstate: Fpstate) -> None:
        """FXSAVE into current's own buffer, if the registers are there, and x87 from there into the header."""
        self.fpregs_lock()
        self.fsave_header_regs(fpstate)
        self.fpregs_unlock()
        frame.fsave = fpstate.regs.data[xf.X87]
        self.might_fault()

    @seam
    def fsave_header_regs(self, fpstate: Fpstate) -> None:
        """What save_fsave_header() does under the lock."""
        if not self.current.tif_need_fpu_load:
            for i in xf.LEGACY:
                fpstate.regs.data[i] = self.regs.data[i]

    def save_xstate_epilog(self, frame: SigFrame, fpstate: Fpstate) -> None:
        """sw_reserved and the second magic; XSTATE_BV always has x87 and SSE."""
        self.might_fault()
        frame.magic1 = 1
        frame.extended_size = fpstate.user_size + FP_XSTATE_MAGIC2_SIZE + (FREGS_SIZE if self.current.ia32 else 0)
        frame.xfeatures = fpstate.user_xfeatures
        frame.xstate_size = fpstate.user_size
        if self.use_xsave:
            frame.magic2 = fpstate.user_size
            frame.area.xstate_bv |= xf.MASK_FPSSE

    def fpu_clear_user_states(self) -> None:
        """fpu__clear_user_states(): the handler starts with initial user states (fpu/core.c)."""
        fpu = self.current.fpu
        self.fpregs_lock()
        fpstate = self.deref(fpu.fpstate)
        if self.xfeatures_mask_supervisor() and not self.fpregs_state_valid(fpu, self.current_nr):
            self.os_xrstor_supervisor(fpstate)
        self.fpu_clear_user_states_xfd(fpstate)
        self.restore_fpregs_from_init_fpstate(self.xfeature_mask_user_restore)
        self.fpregs_mark_activate()
        self.fpregs_unlock()

    @seam
    def fpu_clear_user_states_xfd(self, fpstate: Fpstate) -> None:
        """Nothing looks at XFD before the registers are called current's, until 388eff894d6b (6.18)."""

    def restore_fpregs_from_init_fpstate(self, mask: int) -> None:
        """Into their initial state, and PKRU to its default (fpu/core.c)."""
        init = self.fpstates[INIT_FPSTATE]
        if self.use_xsave:
            self.os_xrstor(init, mask)
        else:
            for i in xf.LEGACY:
                load_component(self.regs, i, init.regs.data[i])
        self.pkru_write_default()

    def pkru_write_default(self) -> None:
        """pkru_write_default() (include/asm/pkru.h)."""
        if self.ospke:
            load_component(self.regs, xf.PKRU, PKRU_DEFAULT)

    # -- sigreturn -----------------------------------------------------------------------------------------------

    @phase_of("fpu_restore_sig")
    def fpu_restore_sig_begin(self, frame: SigFrame) -> bool:
        """fpu__restore_sig() but for its end: without an image the registers get their initial values, and PKRU its
        default, as for a handler, and that is a success."""
        if frame.null:
            self.fpu_clear_user_states()
            return True
        return self._fpu_restore_sig(frame)

    @phase_of("fpu_restore_sig")
    def fpu_restore_sig_end(self, success: bool) -> None:
        """The end of fpu__restore_sig(): initial registers for a frame that cannot be used."""
        if not success:
            self.fpu_clear_user_states()

    def _fpu_restore_sig(self, frame: SigFrame) -> bool:
        """__fpu_restore_sig()."""
        extended = self.use_xsave and self.check_xstate_in_sigframe(frame)
        if extended is None:
            return False
        fx_only = self.use_xsave and not extended
        xfeatures = frame.xfeatures if self.use_xsave and not fx_only else xf.MASK_FPSSE
        if self.current.ia32:
            return self.fpu_restore_sig_ia32(frame, xfeatures, fx_only)
        return self.restore_fpregs_from_user(frame, xfeatures, fx_only)

    @phase_of("__fpu_restore_sig")
    def fpu_restore_sig_ia32(self, frame: SigFrame, user_xfeatures: int, fx_only: bool) -> bool:
        """A 32-bit frame: all of it into current's own buffer, whose supervisor states stay, and from there into the
        registers.

        thread.pkru, which copy_uabi_to_xstate() writes since 4a804c4f8356, is that of the registers by the next switch.
        """
        fpstate = self.deref(self.current.fpu.fpstate)
        self.might_fault()
        self.fpregs_lock()
        if not self.current.tif_need_fpu_load:
            if self.xfeatures_mask_supervisor():
                self.os_xsave(fpstate)
            self.current.tif_need_fpu_load = 1
        self.current.fpu.last_cpu = -1
        self.cpu_invalidate_fpregs_state()
        self.fpregs_unlock()
        if not self.copy_sigframe_to_fpstate(frame, fpstate, fx_only):
            return False
        fpstate.regs.data[xf.X87] = frame.fsave
        self.fpregs_lock()
        if self.use_xsave:
            fpstate.regs.xstate_bv &= user_xfeatures | self.xfeatures_mask_supervisor()
            success = self.os_xrstor_safe(fpstate, self.fpu_kernel_cfg.max_features)
        else:
            success = self.fxrstor_safe(fpstate.regs)
        if success:
            self.fpregs_mark_activate()
        self.fpregs_unlock()
        return success

    @phase_of("__fpu_restore_sig")
    def copy_sigframe_to_fpstate(self, frame: SigFrame, fpstate: Fpstate, fx_only: bool) -> bool:
        """The image of a 32-bit frame, or its legacy region, as current's; False if it is refused."""
        self.might_fault()
        if not self.readable(frame, FXSAVE_SIZE if fx_only or not self.use_xsave else self.read_by_xrstor(frame, ~0)):
            return False
        if self.use_xsave and not fx_only:
            return not self.copy_uabi_to_xstate(fpstate, frame.area, self.fpu_user_cfg.max_size)
        for i in xf.LEGACY:
            fpstate.regs.data[i] = frame.area.data[i]
        if frame.area.data[xf.MXCSR] == MXCSR_RESERVED:
            return False
        if self.use_xsave:
            fpstate.regs.xstate_bv |= xf.MASK_FPSSE
        return True

    def check_xstate_in_sigframe(self, frame: SigFrame) -> bool | None:
        """Whether there is more than the legacy region: both magics, the second where the frame ends, and a size that
        can be; None where that cannot be read."""
        self.might_fault()
        if not self.readable(frame, FXSAVE_SIZE):
            return None
        if not frame.magic1 or not HEADER_END <= frame.xstate_size <= self.sigframe_max_xstate_size():
            return False
        return frame.xstate_size <= frame.extended_size and self.has_magic2(frame, frame.xstate_size)

    @seam
    def has_magic2(self, frame: SigFrame, at: int) -> bool | None:
        """Whether FP_XSTATE_MAGIC2 stands there, as __get_user() sees it; None where it cannot be read."""
        return frame.magic2 == at if self.readable(frame, at + FP_XSTATE_MAGIC2_SIZE) else None

    @seam
    def readable(self, frame: SigFrame, size: int) -> bool:
        """Whether the first ``size`` bytes of the image can be had, as fault_in_readable() tells."""
        return not frame.mapped or size <= frame.mapped

    @seam
    def read_by_xrstor(self, frame: SigFrame, mask: int) -> int:
        """How many bytes of the image XRSTOR reads: header and legacy region, and what it loads (INFERRED)."""
        return self.machine.cpuid.standard_size(mask & frame.area.xstate_bv)

    @seam
    def sigframe_fault_in_size(self, frame: SigFrame) -> int:
        """How many bytes restore_fpregs_from_user() faults in where XRSTOR meets a page that is not there.

        What the frame says, until d877550eaf2d (6.8).  Of one without extended state FXRSTOR finds all.
        """
        user_size: int = self.deref(self.current.fpu.fpstate).user_size
        return frame.xstate_size if self.use_xsave else user_size

    @seam
    def sigframe_max_xstate_size(self) -> int:
        """The largest image that check_xstate_in_sigframe() takes, in bytes: what current's own frames have."""
        user_size: int = self.deref(self.current.fpu.fpstate).user_size
        return user_size

    def restore_fpregs_from_user(self, frame: SigFrame, xrestore: int, fx_only: bool) -> bool:
        """Load what the frame speaks of; then the registers are current's.  Under the lock page faults are disabled.

        That the task may not use all of it was not looked at before d877550eaf2d (6.8): XRSTOR of tile data is a #NM in
        the kernel then.
        """
        fpstate = self.deref(self.current.fpu.fpstate)
        self.fpregs_lock()
        self.xfd_update_state(fpstate)
        if not self._restore_fpregs_from_user(frame, fpstate.user_xfeatures, xrestore, fx_only):
            if self.current.tif_need_fpu_load:
                self.cpu_invalidate_fpregs_state()
            self.fpregs_unlock()
            return False
        if self.current.tif_need_fpu_load and self.xfeatures_mask_supervisor():
            self.os_xrstor_supervisor(fpstate)
        self.fpregs_mark_activate()
        self.fpregs_unlock()
        return True

    def _restore_fpregs_from_user(self, frame: SigFrame, ufeatures: int, xrestore: int, fx_only: bool) -> bool:
        """__restore_fpregs_from_user(): of ``ufeatures``, initialise what the frame does not speak of."""
        if not self.use_xsave:
            return self.fxrstor_from_user_sigframe(frame)
        loaded = self.fxrstor_from_user_sigframe(frame) if fx_only else self.xrstor_from_user_sigframe(frame, xrestore)
        init_bv = ufeatures & ~xrestore
        if loaded and init_bv:
            self.initialise_others(init_bv)
        return loaded

    @seam
    def initialise_others(self, init_bv: int) -> None:
        """os_xrstor(&init_fpstate, init_bv), the end of __restore_fpregs_from_user()."""
        self.os_xrstor(self.fpstates[INIT_FPSTATE], init_bv)

    def fxrstor_from_user_sigframe(self, frame: SigFrame) -> bool:
        """FXRSTOR, where the image lies (fpu/legacy.h)."""
        try:
            xsave.check_alignment(frame.misaligned, xsave.FXSAVE_ALIGNMENT)
        except GeneralProtection:
            return False
        if not self.readable(frame, FXSAVE_SIZE):
            self.current.in_sigreturn = 1
            return False
        return self.fxrstor_safe(frame.area)

    def fxrstor_safe(self, area: XsaveArea) -> bool:
        """FXRSTOR; a bad MXCSR makes it fault (fpu/legacy.h)."""
        try:
            xsave.fxrstor(self.regs, area)
        except GeneralProtection:
            return False
        return True

    def xrstor_from_user_sigframe(self, frame: SigFrame, mask: int) -> bool:
        """XRSTOR; a fault is the frame's, and a page fault one to be handled (fpu/xstate.h)."""
        self.xfd_validate_state(self.deref(self.current.fpu.fpstate), mask, True)
        area: XsaveArea = frame.area
        try:
            xsave.check_alignment(frame.misaligned, xsave.XSAVE_ALIGNMENT)
            if frame.absent or not self.readable(frame, self.read_by_xrstor(frame, mask & self.regs.xcr0)):
                xsave.xrstor_page_fault(self.regs, self.machine, area, mask, frame.loadable)
            xsave.xrstor(self.regs, self.machine, area, mask)
        except DeviceNotAvailable:
            self.exc_device_not_available_in_kernel()
        except GeneralProtection:
            return False
        except PageFault:
            self.current.in_sigreturn = 1  # X86_TRAP_PF: the caller reads the page in
            return False
        self.hardirq_window()
        return True
