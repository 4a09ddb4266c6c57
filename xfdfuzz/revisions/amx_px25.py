"""amx-px25, "[PATCH 0/5] x86, fpu/kvm: fix crash with AMX" of 24 December 2025; b45f72177594 was merged instead.

Source: 20251224001249.1041934-1-pbonzini@redhat.com, on 6.19-rc (patch n is ...1041934-<n+1>-...), read in the archive.
The guest's XFD moves to struct fpu_guest and is loaded right before VM entry; fpstate->xfd of a guest stays at its
reset value 0, so that no XRSTOR of the host can fault on it.  vmx.c and fpu/xstate.c are not part of the patches:
is_xfd_nm_fault() goes on asking fpstate->xfd, and CPU bring-up goes on calling xfd_set_state(), another function now.
"""

from __future__ import annotations

from xfdfuzz.arch.registers import MSR_IA32_XFD
from xfdfuzz.kernel.base import phase_of
from xfdfuzz.kernel.state import FpuGuest, Vcpu
from xfdfuzz.revisions.amx_v6 import AmxV6


class AmxPx25(AmxV6):
    """Guest XFD beside XFD_ERR, apart from the XFD that the host saves and restores with."""

    revision = "amx-px25"

    def guest_xfd(self, gfpu: FpuGuest) -> int:
        """guest_fpu.xfd, for kvm_get_msr_common() (x86.c, patch 2)."""
        return gfpu.xfd

    def fpu_update_guest_xfd(self, guest_fpu: FpuGuest, xfd: int) -> None:
        """Gone: kvm_set_msr_common() writes guest_fpu.xfd and nothing else (x86.c, patch 2)."""
        guest_fpu.xfd = xfd

    @phase_of("fpu_load_guest_fpstate")
    def vcpu_enter_guest_xfd_err(self, vcpu: Vcpu) -> None:
        """The rest of fpu_load_guest_fpstate(): XFD, then XFD_ERR (fpu/core.c, patches 1 and 2).

        Its start is what vcpu_enter_guest() did before, in another order and with one more debugging aid.
        """
        self.xfd_set_state(vcpu.arch.guest_fpu.xfd)
        super().vcpu_enter_guest_xfd_err(vcpu)

    def xfd_set_state(self, xfd: int) -> None:
        """Write IA32_XFD if the shadow differs (fpu/xstate.h, patch 2)."""
        if self.this_cpu.xfd_state != xfd:
            self.wrmsrl(MSR_IA32_XFD, xfd)
            self.this_cpu.xfd_state = xfd

    def fpu_init_cpu_xfd(self) -> None:
        """fpu__init_cpu_xstate() goes on to call xfd_set_state(), which trusts the shadow now (fpu/xstate.c).

        What always writes is __xfd_set_state() from patch 2 on, but fpu/xstate.c is not part of the patches.
        """
        self.xfd_set_state(self.init_xfd)

    def vcpu_exited_before_irqoff(self, vcpu: Vcpu) -> None:
        """As before, for guest_fpu.xfd (x86.c, patch 2)."""
        if vcpu.arch.xfd_no_write_intercept:
            self.fpu_sync_guest_vmexit_guest_xfd(vcpu.arch.guest_fpu)

    @phase_of("fpu_sync_guest_vmexit_xfd_state")
    def fpu_sync_guest_vmexit_guest_xfd(self, gfpu: FpuGuest) -> None:
        """guest_fpu.xfd and the shadow follow the MSR; current's fpstate is not touched (fpu/core.c, patch 2)."""
        if self.fpu_state_size_dynamic:
            gfpu.xfd = self.rdmsrl(MSR_IA32_XFD)
            self.this_cpu.xfd_state = gfpu.xfd
