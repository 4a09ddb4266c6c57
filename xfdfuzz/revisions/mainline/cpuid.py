"""What KVM offers to guests, and what their CPUID means."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import Leaf
from xfdfuzz.kernel.errno import ENXIO
from xfdfuzz.kernel.fpu.xstate import Value
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries, KvmCpuid
from xfdfuzz.kernel.kvm.x86 import KvmX86
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.revisions.amx_v6 import AmxV6
from xfdfuzz.revisions.queue import patch

#: include/uapi asm/kvm.h, attribute of group 0 of /dev/kvm.
KVM_X86_XCOMP_GUEST_SUPP = 0


@patch(
    "dd6e63122018",
    "KVM: x86: add system attribute to retrieve full set of supported xsave states",
    version="v5.17",
    neutral="a feature",
)
class SystemAttribute(KvmCpuid):
    """KVM_X86_XCOMP_GUEST_SUPP: which components guests can have once their process asks for them."""

    def kvm_x86_dev_get_attr(self, group: int, attr: int, pointer_ok: bool) -> Value:
        """Group, then attribute, then pointer; ENXIO, EFAULT (x86.c)."""
        ret = self.kvm_x86_dev_has_attr(group, attr)
        return Value(ret) if ret else self.put_user(self.supported_xcr0, pointer_ok)

    def kvm_x86_dev_has_attr(self, group: int, attr: int) -> int:
        """There is one, in group 0; ENXIO (x86.c)."""
        return -ENXIO if group or attr != KVM_X86_XCOMP_GUEST_SUPP else 0


@patch(
    "c6617c61e8fe",
    "KVM: x86: Partially allow KVM_SET_CPUID{,2} after KVM_RUN",
    version="v5.17",
    fixes=("feb627e8d6f6",),
    stable=("v5.16.3",),
)
class SameCpuidAfterRun(KvmCpuid):
    """The CPUID that the vCPU has already may be set again once it has run."""

    def kvm_cpuid_after_run(self, vcpu: Vcpu, entries: CpuidEntries) -> int | None:
        """(cpuid.c)."""
        return None if vcpu.last_vmentry_cpu == -1 else self.kvm_cpuid_check_equal(vcpu, entries)


@patch(
    "b47b93c15b12",
    "KVM: x86: Disallow setting CPUID and/or feature MSRs if L2 is active",
    version="v7.0",
    neutral="no document promises a second CPUID to a guest that KVM_SET_NESTED_STATE has sent into L2",
)
class NoOtherCpuidInL2(KvmCpuid):
    """Nor may it be another one while L2 runs, as in a vCPU that has not run and got there by KVM_SET_NESTED_STATE."""

    def kvm_cpuid_after_run(self, vcpu: Vcpu, entries: CpuidEntries) -> int | None:
        """kvm_can_set_cpuid_and_feature_msrs() (x86.h)."""
        if vcpu.arch.guest_mode:
            return self.kvm_cpuid_check_equal(vcpu, entries)
        return super().kvm_cpuid_after_run(vcpu, entries)


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


@patch(
    "85e5ba83c016",
    "KVM: x86: Do all post-set CPUID processing during vCPU creation",
    version="v6.14",
    neutral="what user space may set, which no invariant speaks of",
)
class CpuidProcessedAtCreation(KvmX86):
    """Before KVM_SET_CPUID2 a guest has no features, where it had all."""

    def kvm_is_valid_cr4(self, vcpu: Vcpu, cr4: int) -> bool:
        """cr4_guest_rsvd_bits has both from the start (x86.c; set in cpuid.c, kvm_vcpu_after_set_cpuid())."""
        return super().kvm_is_valid_cr4(vcpu, cr4) and not (cr4 and not vcpu.arch.cpuid_set)


@patch(
    "8f2a27752e80",
    "KVM: x86: Replace (almost) all guest CPUID feature queries with cpu_caps",
    version="v6.14",
    neutral="a feature",
)
class GuestCpuCaps(KvmCpuid):
    """A CPUID flag counts for the guest only where KVM supports it."""

    def guest_cpuid_has_xfd(self, vcpu: Vcpu) -> bool:
        """guest_cpu_cap_has(vcpu, X86_FEATURE_XFD) (cpuid.h)."""
        return super().guest_cpuid_has_xfd(vcpu) and self.kvm_cpu_cap_has_xfd()


@patch(
    "93da6af3ae56",
    "KVM: x86: Defer runtime updates of dynamic CPUID bits until CPUID emulation",
    version="v6.15",
    neutral="a feature",
)
class DeferredCpuid(AmxV6):
    """A change of XCR0 or CR4.OSXSAVE only marks the guest's CPUID as out of date; it is updated when it is looked at.

    KVM_SET_CPUID2 after KVM_RUN does not: it compares the updated new entries with the old ones, which are not
    updated, and the mark is gone afterwards.
    """

    def kvm_cpuid_runtime_changed(self, vcpu: Vcpu) -> None:
        """(x86.c, __kvm_set_xcr(); vmx.c, vmx_set_cr4())."""
        vcpu.arch.cpuid_dynamic_bits_dirty = 1

    def kvm_update_cpuid_runtime(self, vcpu: Vcpu) -> None:
        """(cpuid.c)."""
        vcpu.arch.cpuid_dynamic_bits_dirty = 0
        super().kvm_update_cpuid_runtime(vcpu)

    def kvm_vcpu_ioctl_get_cpuid2(self, vcpu: Vcpu, function: int, index: int) -> Leaf | None:
        """(cpuid.c)."""
        if vcpu.arch.cpuid_dynamic_bits_dirty:
            self.kvm_update_cpuid_runtime(vcpu)
        return super().kvm_vcpu_ioctl_get_cpuid2(vcpu, function, index)

    def kvm_cpuid(self, vcpu: Vcpu, function: int, index: int) -> Leaf:
        """(cpuid.c)."""
        if vcpu.arch.cpuid_dynamic_bits_dirty:
            self.kvm_update_cpuid_runtime(vcpu)
        return super().kvm_cpuid(vcpu, function, index)

    def kvm_cpuid_check_equal(self, vcpu: Vcpu, entries: CpuidEntries) -> int:
        """kvm_update_cpuid_runtime() works on the new entries, which are swapped in meanwhile (cpuid.c)."""
        ret = super().kvm_cpuid_check_equal(vcpu, entries)
        vcpu.arch.cpuid_dynamic_bits_dirty = 0
        return ret


@patch(
    "e2b43fb25243",
    "KVM: x86: Apply runtime updates to current CPUID during KVM_SET_CPUID{,2}",
    version="v6.19",
    fixes=("93da6af3ae56",),
    stable=("v6.18.3",),
)
class CpuidUpdatedFirst(KvmCpuid):
    """KVM_SET_CPUID2 brings the old entries up to date before anything else."""

    def kvm_vcpu_ioctl_set_cpuid2(self, vcpu: Vcpu, entries: CpuidEntries) -> int:
        """(cpuid.c, kvm_set_cpuid())."""
        if vcpu.arch.cpuid_dynamic_bits_dirty:
            self.kvm_update_cpuid_runtime(vcpu)
        return super().kvm_vcpu_ioctl_set_cpuid2(vcpu, entries)
