"""amx-v1, "[PATCH 00/19] AMX Support in KVM" of 7 December 2021.

Source: 20211208000359.2853257-1-yang.zhong@intel.com (patch n of the series is ...2853257-<n+1>-...).  An emulated
WRMSR of XFD or an XSETBV that makes an unallocated feature usable leaves a request in struct fpu_guest and exits to
user space; the buffer grows on the way out, inside fpu_swap_kvm_fpstate().
"""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.base import seam
from xfdfuzz.kernel.errno import EFAULT, EINVAL, ENOMEM, EUNATCH
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.kvm.msrs import KVM_MSR_RET_INVALID
from xfdfuzz.kernel.kvm.xsave import UserBuffer
from xfdfuzz.kernel.state import FpuGuest, Vcpu
from xfdfuzz.revisions.amx_series import UninitialisedResult

#: "The exit reason and the completion are already set" (x86.h, patch 10).
KVM_MSR_RET_USERSPACE = 4

#: gfpu->xfd_err: the guest has no AMX, nothing to save (fpu/types.h, patch 14).
XFD_ERR_GUEST_DISABLED = 1 << 0
#: gfpu->xfd_err: the guest's value has been saved and not yet restored.
XFD_ERR_GUEST_SAVED = 1 << 1


class AmxV1(UninitialisedResult):
    """The first posting."""

    revision = "amx-v1"

    # -- reallocation --------------------------------------------------------------------------------------------

    def fpu_swap_kvm_fpstate(self, guest_fpu: FpuGuest, enter_guest: bool) -> int:
        """Serve a request first, then swap whatever came of it (fpu/core.c, patches 06 and 15).

        XFD_ERR is saved in the exit branch, after the registers; the two do not touch each other's state.
        """
        ret = 0
        if guest_fpu.realloc_request:
            ret = self.fpu_guest_realloc_fpstate(guest_fpu, enter_guest)
        if not enter_guest:
            self.fpu_save_guest_xfd_err(guest_fpu)
        super().fpu_swap_kvm_fpstate(guest_fpu, enter_guest)
        return ret

    def fpu_guest_realloc_fpstate(self, guest_fpu: FpuGuest, enter_guest: bool) -> int:
        """A request is served on the way from guest to host mode only (fpu/core.c, patch 06)."""
        if self.warn_on(enter_guest):
            guest_fpu.realloc_request = 0
            return -EUNATCH
        return self.xfd_enable_guest_features(guest_fpu)

    def xfd_enable_guest_features(self, guest_fpu: FpuGuest) -> int:
        """The request is cleared before it is known whether it can be served (fpu/xstate.c, patch 06)."""
        xfd_err = guest_fpu.realloc_request & self.user_supported
        guest_fpu.realloc_request = 0
        if not xfd_err:
            return 0
        return self._xfd_enable_feature(xfd_err, guest_fpu)

    def fpstate_realloc_guest(self, xfeatures: int, ksize: int, usize: int, guest_fpu: FpuGuest) -> int:
        """Takes it for granted that the guest's fpstate is current's; in_use is not carried over (patch 06)."""
        fpu = self.current.fpu
        old = fpu.fpstate
        curfps = self.deref(old)
        new = self.fpstate_realloc_new(ksize, usize)
        if not new:
            return -ENOMEM
        newfps = self.fpstates[new]
        newfps.is_guest = 1
        newfps.is_confidential = curfps.is_confidential
        guest_fpu.xfeatures |= xfeatures
        self.fpregs_lock()
        if self.current.tif_need_fpu_load:
            self.fpregs_restore_userregs()
        newfps.xfeatures = curfps.xfeatures | xfeatures
        newfps.user_xfeatures = curfps.user_xfeatures | xfeatures
        newfps.xfd = curfps.xfd & ~xfeatures
        guest_fpu.fpstate = new
        fpu.fpstate = new
        self.xstate_init_xcomp_bv(newfps, newfps.xfeatures)
        self.xfd_update_state(newfps)
        self.fpregs_unlock()
        if curfps.is_valloc:
            self.vfree(old)
        return 0

    def kvm_check_guest_realloc_fpstate(self, vcpu: Vcpu, xfd: int) -> bool:
        """Whether XCR0 and ``xfd`` make something usable that has no room; note the request (x86.c, patches 09, 13).

        A request replaces an earlier one, and nothing clears a stale one here.
        """
        xcr0 = vcpu.arch.xcr0 & self.XFEATURE_MASK_USER_DYNAMIC
        if xfd & xcr0 != xcr0:
            request = (xcr0 ^ xfd) & xcr0
            if vcpu.arch.guest_fpu.xfeatures & request != request:
                self.note_realloc_request(vcpu, request)
                return True
            self.vmx_set_xfd_passthrough(vcpu)
        return False

    @seam
    def note_realloc_request(self, vcpu: Vcpu, request: int) -> None:
        """guest_fpu->realloc_request = request (patch 09)."""
        vcpu.arch.guest_fpu.realloc_request = request

    @seam
    def exit_fpu_realloc(self, vcpu: Vcpu) -> None:
        """Leave to user space, skip the instruction when it comes back (patches 10 and 11)."""
        vcpu.run.exit_reason = st.KVM_EXIT_FPU_REALLOC
        vcpu.arch.complete_userspace_io = st.COMPLETE_SKIP_INSN

    # -- XFD_ERR -------------------------------------------------------------------------------------------------

    def fpu_alloc_guest_fpstate(self, gfpu: FpuGuest) -> bool:
        """Nothing to save until CPUID says AMX (fpu/core.c, patch 15)."""
        if not super().fpu_alloc_guest_fpstate(gfpu):
            return False
        gfpu.xfd_err = XFD_ERR_GUEST_DISABLED
        return True

    def fpu_save_guest_xfd_err(self, guest_fpu: FpuGuest) -> None:
        """Save the guest's XFD_ERR unless that was done, and leave 0 to the host (fpu/core.c, patch 14)."""
        if guest_fpu.xfd_err & XFD_ERR_GUEST_DISABLED:
            return
        if guest_fpu.xfd_err:
            return
        self.warn_on(not self.deref(self.current.fpu.fpstate).is_guest)
        guest_fpu.xfd_err = self.rdmsrl(MSR_IA32_XFD_ERR)
        if guest_fpu.xfd_err:
            self.wrmsrl(MSR_IA32_XFD_ERR, 0)
        guest_fpu.xfd_err |= XFD_ERR_GUEST_SAVED

    def fpu_restore_guest_xfd_err(self, guest_fpu: FpuGuest) -> None:
        """Restore it, if there was anything to save (fpu/core.c, patch 14)."""
        xfd_err = guest_fpu.xfd_err
        if xfd_err & XFD_ERR_GUEST_DISABLED:
            return
        xfd_err &= ~XFD_ERR_GUEST_SAVED
        if xfd_err:
            self.wrmsrl(MSR_IA32_XFD_ERR, xfd_err)
            guest_fpu.xfd_err = 0

    def kvm_arch_vcpu_put(self, vcpu: Vcpu) -> None:
        """A preempted vCPU saves XFD_ERR (x86.c, patch 15)."""
        super().kvm_arch_vcpu_put(vcpu)
        if vcpu.preempted:
            self.fpu_save_guest_xfd_err(vcpu.arch.guest_fpu)

    def vcpu_enter_guest_xfd_err(self, vcpu: Vcpu) -> None:
        """(x86.c, patch 15)."""
        self.fpu_restore_guest_xfd_err(vcpu.arch.guest_fpu)

    # -- CPUID ---------------------------------------------------------------------------------------------------

    def kvm_check_cpuid(self, vcpu: Vcpu, entries: CpuidEntries) -> int:
        """AMX_TILE needs the permission; leaf 0xD is not looked at (cpuid.c, patch 04)."""
        if entries.amx and not self.xstate_get_group_perm(True) & xf.MASK_XTILE_DATA:
            return -EINVAL
        return 0

    def kvm_vcpu_after_set_cpuid(self, vcpu: Vcpu) -> int:
        """AMX_TILE switches the saving of XFD_ERR on, and forgets a saved one (cpuid.c, patch 15)."""
        if vcpu.arch.cpuid_amx:
            vcpu.arch.guest_fpu.xfd_err = 0
        return super().kvm_vcpu_after_set_cpuid(vcpu)

    # -- MSRs and XCR0 -------------------------------------------------------------------------------------------

    def kvm_set_msr_common(self, vcpu: Vcpu, index: int, data: int, host_initiated: bool) -> int:
        """IA32_XFD, for the guest and for user space alike (x86.c, patch 10)."""
        if index != MSR_IA32_XFD:
            return KVM_MSR_RET_INVALID
        if not self.guest_cpuid_has_xfd(vcpu):
            return 1
        if data & ~self.XFEATURE_MASK_USER_DYNAMIC:
            self.kvm_inject_gp(vcpu)
            return 0
        return self.kvm_set_xfd(vcpu, data, host_initiated)

    @seam
    def kvm_set_xfd(self, vcpu: Vcpu, data: int, host_initiated: bool) -> int:
        """The rest of it: request and exit, or write *current's* fpstate and the MSR (x86.c, patch 10)."""
        current_fps = self.current.fpu.fpstate
        self.warn_on(current_fps != vcpu.arch.guest_fpu.fpstate)
        if self.kvm_check_guest_realloc_fpstate(vcpu, data):
            self.exit_fpu_realloc(vcpu)
            return KVM_MSR_RET_USERSPACE
        fpstate = self.deref(current_fps)
        self.fpregs_lock()
        fpstate.xfd = data
        self.xfd_update_state(fpstate)
        self.fpregs_unlock()
        return 0

    def kvm_msr_user_space(self, r: int) -> bool:
        """(x86.c, patch 10)."""
        return r == KVM_MSR_RET_USERSPACE

    def kvm_emulate_xsetbv(self, vcpu: Vcpu, index: int, value: int, cpl: int = 0) -> int:
        """XCR0 is committed, then the reallocation is found to be needed (x86.c, patch 11)."""
        if cpl or self._kvm_set_xcr(vcpu, index, value):
            self.kvm_inject_gp(vcpu)
            return 1
        xfd = self.deref(vcpu.arch.guest_fpu.fpstate).xfd
        if self.guest_cpuid_has_xfd(vcpu) and self.kvm_check_guest_realloc_fpstate(vcpu, xfd):
            self.exit_fpu_realloc(vcpu)
            return 0
        return self.kvm_skip_emulated_instruction(vcpu)

    # -- VMX -----------------------------------------------------------------------------------------------------

    def vmx_set_xfd_passthrough(self, vcpu: Vcpu) -> None:
        """The second enabling write ends the interception (vmx.c, patch 13)."""
        vcpu.arch.xfd_read_intercept = vcpu.arch.xfd_write_intercept = 0
        vcpu.arch.xfd_no_write_intercept = 1

    def kvm_x86_vcpu_after_set_cpuid(self, vcpu: Vcpu) -> None:
        """A guest with XFD reads it, and reads and writes XFD_ERR, without an exit (vmx.c, patches 10 and 15)."""
        if self.machine.has_xfd and self.guest_cpuid_has_xfd(vcpu):
            vcpu.arch.xfd_read_intercept = 0
            vcpu.arch.xfd_err_read_intercept = vcpu.arch.xfd_err_write_intercept = 0
        super().kvm_x86_vcpu_after_set_cpuid(vcpu)

    # -- KVM_RUN -------------------------------------------------------------------------------------------------

    def kvm_run_merge_put(self, r: int, put_ret: int) -> int:
        """A failed reallocation is the ioctl's error, unless it has one already (x86.c, patch 07)."""
        return put_ret if r >= 0 and put_ret < 0 else r

    def vcpu_exited_before_irqoff(self, vcpu: Vcpu) -> None:
        """Once XFD is passed through, take over what the guest left (x86.c, patches 12 and 13)."""
        if vcpu.arch.xfd_no_write_intercept:
            self.xfd_sync_state()

    def xfd_sync_state(self) -> None:
        """fpstate->xfd and the shadow follow the MSR (fpu/xstate.c, patch 12)."""
        if self.fpu_state_size_dynamic:
            fps = self.deref(self.current.fpu.fpstate)
            fps.xfd = self.rdmsrl(MSR_IA32_XFD)
            self.this_cpu.xfd_state = fps.xfd

    # -- XSAVE ioctls --------------------------------------------------------------------------------------------

    def kvm_vcpu_ioctl_x86_get_xsave2(self, vcpu: Vcpu) -> tuple[int, XsaveArea | None]:
        """A caller that says nothing of its buffer states the size of the image (x86.c, patch 16)."""
        return self.kvm_read_xsave(vcpu, self.kvm_get_xsave2_size(vcpu))

    def kvm_get_xsave2_size(self, vcpu: Vcpu) -> int:
        """As large as the image."""
        return self.machine.cpuid.standard_size(self.deref(vcpu.arch.guest_fpu.fpstate).user_xfeatures)

    def kvm_arch_vcpu_ioctl_get_xsave2(self, vcpu: Vcpu, user: UserBuffer) -> tuple[int, XsaveArea | None]:
        """The caller states the size of its buffer, which is taken as it is (x86.c, patch 16)."""
        if user.size is None:
            return super().kvm_arch_vcpu_ioctl_get_xsave2(vcpu, user)
        ret, area = self.kvm_read_xsave(vcpu, user.size)
        return (-EFAULT, None) if not ret and self.copy_to_user(user, user.size) else (ret, area)

    def kvm_vm_ioctl_check_extension_xsave2(self, vm: int | None) -> int:
        """Just "yes" (x86.c, patch 16)."""
        return 1
