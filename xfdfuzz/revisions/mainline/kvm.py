"""The vCPU path: ioctls, exits, loading and putting the guest FPU."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import CET_MSRS, MSR_IA32_XSS
from xfdfuzz.kernel.errno import E2BIG, EEXIST, EINVAL
from xfdfuzz.kernel.kvm.main import KvmMain
from xfdfuzz.kernel.kvm.msrs import (
    KVM_MSR_RET_INVALID,
    KVM_REG_GUEST_SSP,
    KVM_X86_REG_TYPE_KVM,
    KVM_X86_REG_TYPE_MSR,
    MSR_KVM_INTERNAL_GUEST_SSP,
    KvmMsrs,
)
from xfdfuzz.kernel.kvm.x86 import KvmX86
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.revisions.amx_v6 import AmxV6
from xfdfuzz.revisions.queue import patch


@patch(
    "3ef0df3f760f",
    "KVM: VMX: Don't modify guest XFD_ERR if CR0.TS=1",
    version="v6.15",
    neutral="XFD_ERR in hardware is the saved one then, so that reading it again changes nothing",
)
class XfdErrNotByTs(AmxV6):
    """A #NM that CR0.TS caused leaves XFD_ERR alone."""

    def is_xfd_nm_fault(self, vcpu: Vcpu) -> bool:
        """XFD is not 0 and CR0.TS is clear (vmx.c)."""
        return super().is_xfd_nm_fault(vcpu) and not vcpu.arch.cr0_ts


@patch("06f2969c6a12", "KVM: x86: Introduce KVM_{G,S}ET_ONE_REG uAPIs support", version="v6.18", neutral="a feature")
class OneReg(KvmMsrs):
    """User space gets and sets one MSR at a time, too."""

    def kvm_get_set_one_reg(self, vcpu: Vcpu, reg_type: int, index: int, write: int | None) -> tuple[int, int]:
        """EINVAL; the guest FPU is loaded as for KVM_GET_MSRS, from e44eb58334bb on (x86.c)."""
        if reg_type == KVM_X86_REG_TYPE_KVM:
            r, reg_type, index = self.kvm_translate_kvm_reg(vcpu, index)
            if r:
                return r, 0
        if reg_type != KVM_X86_REG_TYPE_MSR:
            return -EINVAL, 0
        loaded = self.msr_io_load_fpu(vcpu, index)
        if write is None:
            r, value = self.kvm_get_msr_ignored_check(vcpu, index, True)
        else:
            r, value = self.kvm_set_msr_ignored_check(vcpu, index, write, True), 0
        if loaded:
            self.kvm_put_guest_fpu(vcpu)
        return (-EINVAL, 0) if r else (0, value)

    def kvm_get_reg_list(self, vcpu: Vcpu, room: int) -> tuple[int, int]:
        """KVM's own registers; MSRs have a list of their own: E2BIG, and how many there are (x86.c)."""
        nr_regs = self.kvm_nr_regs(vcpu)
        return -E2BIG if room < nr_regs else 0, nr_regs


@patch(
    "338543cbe033",
    "KVM: x86: Check XSS validity against guest CPUIDs",
    version="v6.18",
    neutral="what a guest can write does not change",
)
class XssOfGuestsWithXsaves(KvmMsrs):
    """Nor does user space write IA32_XSS of a guest whose CPUID lacks XSAVES, but 0 where KVM lists it."""

    def kvm_set_xss(self, vcpu: Vcpu, data: int, host_initiated: bool) -> int:
        """KVM_MSR_RET_UNSUPPORTED, for kvm_do_msr_access() (x86.c)."""
        if not self.guest_has_xss(vcpu):
            listed = host_initiated and not data and self.kvm_probe_msr_to_save(MSR_IA32_XSS)
            return 0 if listed else KVM_MSR_RET_INVALID
        return super().kvm_set_xss(vcpu, data, host_initiated)


@patch(
    "69cc3e886582",
    "KVM: x86: Add XSS support for CET_KERNEL and CET_USER",
    version="v6.18",
    neutral="a feature",
)
class CetXss(KvmX86):
    """Guests get both CET components, or none; with 779ed05511f2 and the other patches that make CET usable.

    INIT clears them, as MPX before.
    """

    @property
    def supported_xss(self) -> int:
        """kvm_caps.supported_xss (x86.c)."""
        cet = self.host_xss & self.supported_xss_of_vendor() & xf.MASK_CET
        return cet if cet == xf.MASK_CET else 0

    def kvm_probe_msr_to_save(self, index: int) -> bool:
        """The MSRs of CET, and IA32_XSS where anything may be set there (x86.c, 6a11c860d8a4 and c0a5f2989122).

        What KVM offers CET on has shadow stacks, and so all of them.
        """
        cet = index == MSR_IA32_XSS or index in CET_MSRS
        return bool(self.supported_xss) if cet else super().kvm_probe_msr_to_save(index)

    def kvm_init_xfeatures(self) -> int:
        """MPX and CET, as far as KVM supports them (x86.c, kvm_vcpu_reset())."""
        return (self.supported_xcr0 | self.supported_xss) & (xf.MASK_MPX | xf.MASK_CET)


@patch(
    "8db428fd5229",
    "KVM: SVM: Enable shadow stack virtualization for SVM",
    version="v6.18",
    neutral="a feature",
)
class CetOnSvm(KvmX86):
    """Guests on AMD's processors get CET, too; with 38c46bdbf998, which passes its MSRs through."""

    def supported_xss_of_vendor(self) -> int:
        """Shadow stacks are not cleared any more, by which the bits in kvm_caps.supported_xss go (svm/svm.c)."""
        return xf.U64_MAX


@patch("e44eb58334bb", "KVM: x86: Load guest FPU state when access XSAVE-managed MSRs", version="v6.18")
class LoadFpuForMsrs(KvmMsrs):
    """KVM_GET_MSRS and KVM_SET_MSRS load the guest FPU for MSRs that XSAVES manages.

    It came before 69cc3e886582, which gave guests the first of them.
    """

    def msr_io_load_fpu(self, vcpu: Vcpu, index: int) -> bool:
        """Once per call, put at its end (x86.c, __msr_io())."""
        managed = self.is_xstate_managed_msr(vcpu, index)
        if managed:
            self.kvm_load_guest_fpu(vcpu)
        return managed

    def kvm_access_xstate_msr(self, vcpu: Vcpu) -> None:
        """in_use is held by a KVM_BUG_ON(), and on it goes (x86.c)."""
        self.kvm_bug_on(vcpu, not self.deref(vcpu.arch.guest_fpu.fpstate).in_use)
        super().kvm_access_xstate_msr(vcpu)


@patch(
    "9d6812d41535",
    "KVM: x86: Enable guest SSP read/write interface with new uAPIs",
    version="v6.18",
    neutral="a feature",
)
class SspByOneReg(KvmMsrs):
    """SSP is the first register of KVM's own."""

    def kvm_translate_kvm_reg(self, vcpu: Vcpu, index: int) -> tuple[int, int, int]:
        """An MSR inside KVM, of guests that have shadow stacks: EINVAL (x86.c)."""
        if index != KVM_REG_GUEST_SSP or not self.guest_cpu_cap_has_shstk(vcpu):
            return -EINVAL, 0, 0
        return 0, KVM_X86_REG_TYPE_MSR, MSR_KVM_INTERNAL_GUEST_SSP

    def kvm_nr_regs(self, vcpu: Vcpu) -> int:
        """(x86.c, kvm_get_reg_list())."""
        return int(self.guest_cpu_cap_has_shstk(vcpu))


@patch(
    "8819a49f9ff8",
    "KVM: x86: Unload FPU state on INIT if and only if its currently in-use",
    version="v6.18",
    fixes=("69cc3e886582",),
)
class MpStateWithoutFpu(KvmX86):
    """INIT puts and loads the guest FPU where it is loaded, and KVM_GET_MP_STATE does not load it for that."""

    def kvm_xstate_reset(self, vcpu: Vcpu) -> None:
        """in_use says whether it is loaded; KVM_RUN always loads it (x86.c)."""
        features = self.kvm_init_xfeatures()
        if not features:
            return
        in_use = self.deref(vcpu.arch.guest_fpu.fpstate).in_use
        self.warn_on(bool(vcpu.wants_to_run) != bool(in_use))
        if in_use:
            self.kvm_put_guest_fpu(vcpu)
        self.fpstate_clear_xstate_components(vcpu, features)
        if in_use:
            self.kvm_load_guest_fpu(vcpu)

    def kvm_arch_vcpu_ioctl_get_mpstate(self, vcpu: Vcpu) -> int:
        """(x86.c)."""
        self.vcpu_load(vcpu)
        self.kvm_apic_accept_events(vcpu)
        self.vcpu_put(vcpu)
        return 0


@patch(
    "9bc610b6a2a7",
    "KVM: x86: Harden KVM against imbalanced load/put of guest FPU state",
    version="v6.19",
    neutral="hardening: nothing that is left unbalances load and put",
)
class BugOnImbalance(KvmX86):
    """A second load or put in a row kills the VM instead of the host."""

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
    "c5866d42f711",
    "KVM: Move check for existing vCPU ID to the top of vCPU creation",
    version="v7.3",
    neutral="nobody says whether a KVM_CREATE_VCPU that fails locks permissions",
)
class EexistFirst(KvmMain):
    """KVM_CREATE_VCPU with an id that exists fails before it allocates, and so before it locks permissions.

    It stands on 6418b715d5a2, which takes kvm->lock for all of the creation. 97d65b544f48, of the same release, had
    done the same in another way; 700f8d24436c took that back.
    """

    def kvm_vcpu_id_precheck(self, vm_nr: int, vcpu_id: int) -> int:
        """EEXIST under kvm->lock, before kvm_arch_vcpu_precreate() (virt/kvm/kvm_main.c)."""
        return -EEXIST if self.kvm_get_vcpu_by_id(vm_nr, vcpu_id) else 0


@patch(
    "184bd464bdb6",
    "KVM: x86: Check EFER validity on KVM_SET_SREGS*",
    version="v7.3",
    stable=("..v6.12.117",),
    neutral="what user space may set, which no invariant speaks of",
)
class EferInSregs(KvmX86):
    """KVM_SET_SREGS of a 64-bit state needs a CPUID with long mode, and so a KVM_SET_CPUID2 before it."""

    def kvm_is_valid_sregs(self, vcpu: Vcpu, cr4: int, lme: bool) -> bool:
        """kvm_valid_efer(): LME and LMA take X86_FEATURE_LM, which every CPUID here has; an EFER of 0 is always valid
        (regs.c)."""
        return super().kvm_is_valid_sregs(vcpu, cr4, lme) and (not lme or bool(vcpu.arch.cpuid_set))


@patch("11df586d774f", "KVM: VMX: Handle NMI VM-Exits in noinstr region", version="v6.3", neutral="a matter of tracing")
class NmiInNoinstr(KvmX86):
    """The handler of a NMI that took the CPU out of the guest runs before the host's XCR0 and IA32_XSS are back."""

    def vmx_vcpu_enter_exit_nmi(self) -> None:
        """vmx_do_nmi_irqoff() (vmx/vmx.c)."""
        self.intel_pmu_handle_irq()

    def handle_nmi_irqoff(self) -> None:
        """It has been (vmx/vmx.c)."""
