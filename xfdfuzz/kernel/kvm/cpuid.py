"""Guest CPUID (arch/x86/kvm/cpuid.c, v5.16)."""

from __future__ import annotations

from typing import NamedTuple, get_type_hints

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import (
    LEAF_FEATURES,
    LEAF_TILES,
    LEAF_XSTATE,
    NOTHING,
    OSXSAVE,
    XSAVE,
    CpuidTable,
    Leaf,
    tile_leaf,
)
from xfdfuzz.kernel.base import phase_of, seam
from xfdfuzz.kernel.errno import EINVAL
from xfdfuzz.kernel.event import USE_AFTER_FREE
from xfdfuzz.kernel.fpu.xstate import Value
from xfdfuzz.kernel.kvm.protected import KvmProtected
from xfdfuzz.kernel.state import Vcpu, VcpuArch

_LOW = 0xFFFFFFFF
#: ECX[2] of a component's sub-leaf: IA32_XFD has a bit for it.
_HAS_XFD = 1 << 2


class CpuidEntries(NamedTuple):
    """The part of a CPUID array that matters: leaf 0xD.0 EDX:EAX, 0xD.1 EAX[4] (XFD), 7.0 EDX[24] (AMX_TILE).

    ``xss`` is 0xD.1 EDX:ECX; a guest with CET_USER there has shadow stacks (7.0 ECX[7]) and indirect branch tracking
    (7.0 EDX[20]), unless ``no_shstk`` or ``no_ibt`` says that it has not.  ``leaves`` are the
    components that have a sub-leaf of 0xD; 0 stands for those of ``xcr0`` and ``xss``.  ``other`` tells arrays apart
    that differ in what does not matter here.  ``size`` is 0xD.0 ECX in bytes; 0 stands for the image of ``xcr0``.
    ``no_*`` lack something: ``no_xsave`` 1 ECX[26], the next four the flags of 0xD.1 EAX[3:0]; in ``no_palettes`` leaf
    0x1D and in ``no_tmul`` leaf 0x1E are all 0, and the processor's otherwise.
    """

    xcr0: int
    xfd: bool
    amx: bool
    xss: int = 0
    leaves: int = 0
    other: int = 0
    no_xsave: bool = False
    no_xsaves: bool = False
    no_xsaveopt: bool = False
    no_xsavec: bool = False
    no_xgetbv1: bool = False
    size: int = 0
    no_palettes: bool = False
    no_tmul: bool = False
    no_shstk: bool = False
    no_ibt: bool = False

    def whole(self, table: CpuidTable) -> CpuidEntries:
        """The same with nothing that a 0 stands for, which is how arrays are compared.

        x87, which has no sub-leaf, is always among ``leaves``.
        """
        leaves = (self.leaves or self.xcr0 | self.xss) & ~xf.MASK_FPSSE | xf.MASK_X87
        return self._replace(leaves=leaves, size=self.size or table.standard_size(self.xcr0))

    @property
    def compacts(self) -> bool:
        """Whether 0xD.1 has XSAVEC or XSAVES, without which its EBX means nothing."""
        return not (self.no_xsavec and self.no_xsaves)

    @property
    def features(self) -> int:
        """0xD.1 EAX."""
        lacks = (self.no_xsaveopt, self.no_xsavec, self.no_xgetbv1, self.no_xsaves, not self.xfd)
        return sum(1 << i for i, lacking in enumerate(lacks) if not lacking)


#: Those of its fields that are flags, in their order.
CPUID_FLAGS = tuple(name for name, kind in get_type_hints(CpuidEntries).items() if kind is bool)


def stored_entries(arch: VcpuArch) -> CpuidEntries:
    """What KVM_SET_CPUID2 has stored, whole."""
    return CpuidEntries(
        arch.cpuid_xcr0,
        bool(arch.cpuid_xfd),
        bool(arch.cpuid_amx),
        arch.cpuid_xss,
        arch.cpuid_leaves,
        arch.cpuid_other,
        bool(arch.cpuid_no_xsave),
        bool(arch.cpuid_no_xsaves),
        bool(arch.cpuid_no_xsaveopt),
        bool(arch.cpuid_no_xsavec),
        bool(arch.cpuid_no_xgetbv1),
        arch.cpuid_0xd_0_ecx,
        bool(arch.cpuid_no_palettes),
        bool(arch.cpuid_no_tmul),
        bool(arch.cpuid_no_shstk),
        bool(arch.cpuid_no_ibt),
    )


class KvmCpuid(KvmProtected):
    """What the guest is told that it has."""

    #: KVM_SUPPORTED_XCR0 (arch/x86/kvm/x86.c).
    KVM_SUPPORTED_XCR0 = xf.MASK_FPSSE | xf.MASK_YMM | xf.MASK_MPX | xf.MASK_AVX512 | xf.MASK_PKRU

    @property
    def host_xcr0(self) -> int:
        """XCR0 as the host runs with it."""
        return self.fpu_user_cfg.max_features

    @property
    def supported_xcr0(self) -> int:
        """supported_xcr0 (arch/x86/kvm/x86.c, kvm_arch_hardware_setup())."""
        return self.host_xcr0 & self.KVM_SUPPORTED_XCR0

    @property
    def host_xss(self) -> int:
        """IA32_XSS as the host runs with it (x86.c, read when KVM is loaded)."""
        return self.booted_xss()

    @property
    def supported_xss(self) -> int:
        """supported_xss (arch/x86/kvm/x86.c): no supervisor state for guests until 69cc3e886582 (6.18)."""
        return 0

    @seam
    def is_svm(self) -> bool:
        """kvm_amd.ko is loaded, not kvm_intel.ko."""
        return self.machine.amd

    @seam
    def supported_xss_of_vendor(self) -> int:
        """What svm_set_cpu_caps() leaves of supported_xss: nothing, until 8db428fd5229 (6.18); VMX leaves all."""
        return 0 if self.is_svm() else xf.U64_MAX

    def kvm_cpu_cap_has_xfd(self) -> bool:
        """kvm_cpu_cap_has(X86_FEATURE_XFD) (cpuid.h)."""
        return False

    def kvm_cpu_cap_has_amx(self) -> bool:
        """kvm_cpu_cap_has(X86_FEATURE_AMX_TILE) (cpuid.h)."""
        return False

    @seam
    def kvm_cpu_cap_has_ibt(self) -> bool:
        """kvm_cpu_cap_has(X86_FEATURE_IBT), where there is CET: no processor of AMD's has it (cpuid.h)."""
        return not self.is_svm()

    def kvm_x86_vcpu_after_set_cpuid(self, vcpu: Vcpu) -> None:
        """vmx_vcpu_after_set_cpuid()."""
        raise NotImplementedError

    def kvm_x86_dev_get_attr(self, group: int, attr: int, pointer_ok: bool) -> Value:
        """KVM_GET_DEVICE_ATTR on /dev/kvm is no ioctl yet: EINVAL (x86.c)."""
        return Value(-EINVAL)

    def kvm_x86_dev_has_attr(self, group: int, attr: int) -> int:
        """KVM_HAS_DEVICE_ATTR on /dev/kvm is no ioctl yet: EINVAL (x86.c)."""
        return -EINVAL

    def kvm_probe_msr_to_save(self, index: int) -> bool:
        """Whether KVM_GET_MSR_INDEX_LIST names the MSR (x86.c, kvm_init_msr_list()): neither XFD nor XFD_ERR yet."""
        return False

    def kvm_dev_ioctl_get_cpuid(self) -> CpuidEntries:
        """KVM_GET_SUPPORTED_CPUID (kvm_dev_ioctl_get_cpuid())."""
        xfd, amx = self.kvm_cpu_cap_has_xfd(), self.kvm_cpu_cap_has_amx()
        return CpuidEntries(
            self.supported_cpuid_xcr0(),
            xfd,
            amx,
            self.supported_xss,
            no_xsave=not self.use_xsave,
            no_xsaves=not self.machine.has_xsaves,
            no_xsaveopt=not self.use_xsave,
            no_xsavec=not (self.use_xsave and self.machine.xsavec),
            no_xgetbv1=not (self.use_xsave and self.machine.xgetbv1),
            no_palettes=not amx,
            no_tmul=not amx,
            no_ibt=bool(self.supported_xss) and not self.kvm_cpu_cap_has_ibt(),
        )

    @phase_of("kvm_dev_ioctl_get_cpuid")
    def kvm_dev_ioctl_get_cpuid_entry(self, function: int, index: int) -> Leaf | None:
        """The entry of one leaf in it; None where there is none."""
        entries = self.kvm_dev_ioctl_get_cpuid().whole(self.machine.cpuid)
        table, xcr0 = self.machine.cpuid, entries.xcr0
        if function == LEAF_FEATURES:
            return Leaf(0, 0, 0 if entries.no_xsave else XSAVE, 0)
        return self.do_cpuid_func(entries, function, index, (table.standard_size(xcr0), self.given_0xd_1_ebx(entries)))

    @seam
    def given_0xd_1_ebx(self, entries: CpuidEntries) -> int:
        """EBX of 0xD.1 in an array that was made from what KVM_GET_SUPPORTED_CPUID gives: 0 without XSAVES and XSAVEC
        (__do_cpuid_func()), and the image's size with them, also where user space has hidden them since."""
        offered = self.kvm_dev_ioctl_get_cpuid().compacts
        return self.xstate_required_size(entries.xcr0 | entries.xss, compacted=True) if offered else 0

    @phase_of("__do_cpuid_func")
    def do_cpuid_func(self, entries: CpuidEntries, function: int, index: int, sizes: tuple[int, int]) -> Leaf | None:
        """The leaf in an array of entries; ``sizes`` are EBX of 0xD.0 and 0xD.1, which follow the XCR0 of the moment.

        From sub-leaf 2 of 0xD on it is the processor's, of components that the array has, and so are 0x1D and 0x1E.
        """
        if function != LEAF_XSTATE:
            lacking = entries.no_palettes if function == LEAF_TILES else entries.no_tmul
            leaf = tile_leaf(function, index) if self.machine.amx and not lacking else NOTHING
            return leaf if leaf != NOTHING or not index else None
        if index == 0:
            return Leaf(entries.xcr0 & _LOW, sizes[0], entries.size, entries.xcr0 >> 32)
        if index == 1 and not (entries.xcr0 or entries.xss or entries.features):
            # "if (!permitted_xcr0) break"
            return None
        if index == 1:
            return Leaf(entries.features, sizes[1], entries.xss & _LOW, entries.xss >> 32)
        user, supervisor = self.machine.user_xfeatures, self.machine.supervisor_xfeatures
        leaf = self.machine.cpuid.leaf(index, entries.leaves & user, entries.leaves & supervisor, 0, 0)
        if leaf == NOTHING:
            return None
        return leaf if self.kvm_cpu_cap_has_xfd() else leaf._replace(ecx=leaf.ecx & ~_HAS_XFD)

    @seam
    def supported_cpuid_xcr0(self) -> int:
        """Leaf 0xD.0 of KVM_GET_SUPPORTED_CPUID (__do_cpuid_func())."""
        return self.supported_xcr0

    @seam
    def deref_cpuid_entries(self, vcpu: Vcpu) -> None:
        """``vcpu->arch.cpuid_entries[i]``, with KASAN's eyes."""
        if vcpu.arch.cpuid_freed:
            self.report(USE_AFTER_FREE)

    @phase_of("kvfree")
    def kvfree_cpuid_entries(self, vcpu: Vcpu) -> None:
        """kvfree(vcpu->arch.cpuid_entries)."""
        self.deref_cpuid_entries(vcpu)
        vcpu.arch.cpuid_freed = 0

    def guest_cpuid_has_xfd(self, vcpu: Vcpu) -> bool:
        """guest_cpuid_has(vcpu, X86_FEATURE_XFD) (cpuid.h)."""
        self.deref_cpuid_entries(vcpu)
        return bool(vcpu.arch.cpuid_xfd)

    def kvm_vcpu_ioctl_set_cpuid2(self, vcpu: Vcpu, entries: CpuidEntries) -> int:
        """KVM_SET_CPUID2: after the first KVM_RUN, then kvm_set_cpuid(); EINVAL."""
        ret = self.kvm_cpuid_after_run(vcpu, entries)
        return self.kvm_set_cpuid(vcpu, entries) if ret is None else ret

    def kvm_set_cpuid(self, vcpu: Vcpu, entries: CpuidEntries) -> int:
        """Check, then commit; what the check gives."""
        ret = self.kvm_check_cpuid(vcpu, entries)
        if ret:
            return ret
        self.kvfree_cpuid_entries(vcpu)
        arch = vcpu.arch
        arch.cpuid_set = 1
        arch.cpuid_xcr0 = entries.xcr0
        arch.cpuid_xss = entries.xss
        arch.cpuid_xfd = entries.xfd
        arch.cpuid_amx = entries.amx
        whole = entries.whole(self.machine.cpuid)
        arch.cpuid_leaves = whole.leaves
        arch.cpuid_0xd_0_ecx = whole.size
        arch.cpuid_other = entries.other
        arch.cpuid_no_xsave = entries.no_xsave
        arch.cpuid_no_xsaves = entries.no_xsaves
        arch.cpuid_no_xsaveopt = entries.no_xsaveopt
        arch.cpuid_no_xsavec = entries.no_xsavec
        arch.cpuid_no_xgetbv1 = entries.no_xgetbv1
        arch.cpuid_no_palettes = entries.no_palettes
        arch.cpuid_no_tmul = entries.no_tmul
        arch.cpuid_no_shstk, arch.cpuid_no_ibt = entries.no_shstk, entries.no_ibt
        # should KVM not update it
        arch.cpuid_0xd_1_ebx = self.given_0xd_1_ebx(entries)
        self.kvm_update_cpuid_runtime(vcpu)
        return self.kvm_vcpu_after_set_cpuid(vcpu)

    def kvm_vcpu_ioctl_get_cpuid2(self, vcpu: Vcpu, function: int, index: int) -> Leaf | None:
        """KVM_GET_CPUID2: the entry of one leaf as it stands there, if there is one."""
        return self.kvm_find_cpuid_entry(vcpu, function, index)

    def kvm_update_cpuid_runtime(self, vcpu: Vcpu) -> None:
        """OSXSAVE and OSPKE follow CR4; EBX of 0xD.0 and 0xD.1 follow XCR0, and IA32_XSS too, that of 0xD.1 if it has
        XSAVEC or XSAVES."""
        self.deref_cpuid_entries(vcpu)
        arch = vcpu.arch
        arch.cpuid_osxsave, arch.cpuid_ospke = arch.cr4_osxsave, arch.cr4_pke
        arch.cpuid_0xd_0_ebx = self.xstate_required_size(arch.xcr0, compacted=False)
        if stored_entries(arch).compacts:
            arch.cpuid_0xd_1_ebx = self.xstate_required_size(arch.xcr0 | arch.ia32_xss, compacted=True)

    def xstate_required_size(self, xstate_bv: int, *, compacted: bool) -> int:
        """Bytes of an image with these components; without any extended one, legacy region and header."""
        return self.xstate_calculate_size(xstate_bv, compacted=compacted)

    def kvm_find_cpuid_entry(self, vcpu: Vcpu, function: int, index: int) -> Leaf | None:
        """The entry of leaf 1, 0xD, 0x1D or 0x1E, if there is one (kvm_find_cpuid_entry_index() since 6.0)."""
        self.deref_cpuid_entries(vcpu)
        arch = vcpu.arch
        if not arch.cpuid_set:
            return None
        if function == LEAF_FEATURES:
            # KVM_CPUID_FLAG_SIGNIFCANT_INDEX is not set: every sub-leaf is the leaf
            return Leaf(0, 0, (0 if arch.cpuid_no_xsave else XSAVE) | (OSXSAVE if arch.cpuid_osxsave else 0), 0)
        sizes = arch.cpuid_0xd_0_ebx, arch.cpuid_0xd_1_ebx
        return self.do_cpuid_func(stored_entries(arch), function, index, sizes)

    def kvm_cpuid(self, vcpu: Vcpu, function: int, index: int) -> Leaf:
        """What the guest's CPUID gives; no leaf is beyond what leaf 0 says, so 0 where there is no entry."""
        return self.kvm_find_cpuid_entry(vcpu, function, index) or NOTHING

    @seam
    def kvm_cpuid_after_run(self, vcpu: Vcpu, entries: CpuidEntries) -> int | None:
        """Refuse any change once the vCPU has run (x86.c, feb627e8d6f6); None: go on."""
        return -EINVAL if vcpu.last_vmentry_cpu != -1 else None

    def kvm_cpuid_check_equal(self, vcpu: Vcpu, entries: CpuidEntries) -> int:
        """EINVAL unless ``entries``, with what KVM keeps up to date in them, are those that stand there (cpuid.c).

        Came with c6617c61e8fe, which calls it.
        """
        arch = vcpu.arch
        if not arch.cpuid_set:
            return -EINVAL
        same = entries.whole(self.machine.cpuid) == stored_entries(arch)
        standard = self.xstate_required_size(arch.xcr0, compacted=False)
        if entries.compacts:
            compacted = self.xstate_required_size(arch.xcr0 | arch.ia32_xss, compacted=True)
        else:
            compacted = self.given_0xd_1_ebx(entries)
        stored = (arch.cpuid_osxsave, arch.cpuid_ospke, arch.cpuid_0xd_0_ebx, arch.cpuid_0xd_1_ebx)
        updated = stored == (arch.cr4_osxsave, arch.cr4_pke, standard, compacted)
        return 0 if same and updated else -EINVAL

    def kvm_check_cpuid(self, vcpu: Vcpu, entries: CpuidEntries) -> int:
        """Nothing about XSAVE features yet."""
        return 0

    @seam
    def guest_cpuid_has_xsaves(self, vcpu: Vcpu) -> bool:
        """guest_cpuid_has(vcpu, X86_FEATURE_XSAVES), of a guest that has XSAVE (cpuid.h)."""
        arch = vcpu.arch
        return bool(arch.cpuid_set and not arch.cpuid_no_xsave and not arch.cpuid_no_xsaves)

    @seam
    def guest_cpu_cap_has_xsaves(self, vcpu: Vcpu) -> bool:
        """guest_cpu_cap_has(vcpu, X86_FEATURE_XSAVES), vcpu->arch.xsaves_enabled until 6.6: the guest can execute it.

        "SVM doesn't provide a way to disable just XSAVES in the guest", so there it goes by XSAVE in the guest's CPUID
        (svm/svm.c, svm_vcpu_after_set_cpuid()), with VMX by XSAVES (vmx/vmx.c, vmx_compute_secondary_exec_control()).
        """
        arch = vcpu.arch
        if not self.is_svm():
            return self.machine.has_xsaves and self.guest_cpuid_has_xsaves(vcpu)
        return bool(self.machine.has_xsaves and arch.cpuid_set and not arch.cpuid_no_xsave)

    def guest_cpu_cap_has_shstk(self, vcpu: Vcpu) -> bool:
        """guest_cpu_cap_has(vcpu, X86_FEATURE_SHSTK) (cpuid.h)."""
        return bool(vcpu.arch.guest_supported_xss & xf.MASK_CET_USER and not vcpu.arch.cpuid_no_shstk)

    def guest_cpu_cap_has_ibt(self, vcpu: Vcpu) -> bool:
        """guest_cpu_cap_has(vcpu, X86_FEATURE_IBT) (cpuid.h).  SEV is AMD's, whatever the machine is otherwise."""
        has = vcpu.arch.guest_supported_xss & xf.MASK_CET_USER and not vcpu.arch.cpuid_no_ibt
        return bool(has) and self.kvm_cpu_cap_has_ibt() and not self.vms[vcpu.vm].es_active

    @seam
    def kvm_guest_supported_xcr0(self, vcpu: Vcpu) -> int:
        """Which components the guest may set in XCR0."""
        return vcpu.arch.guest_supported_xcr0

    @seam
    def kvm_limit_user_xfeatures(self, vcpu: Vcpu) -> None:
        """What the guest's CPUID means for KVM_GET_XSAVE and KVM_SET_XSAVE: nothing."""

    def kvm_vcpu_after_set_cpuid(self, vcpu: Vcpu) -> int:
        """Derive what the guest may set in XCR0; neither XCR0 nor XFD nor XSTATE is looked at again."""
        vcpu.arch.guest_supported_xcr0 = vcpu.arch.cpuid_xcr0 & self.supported_xcr0
        vcpu.arch.guest_supported_xss = vcpu.arch.cpuid_xss & self.supported_xss
        self.kvm_limit_user_xfeatures(vcpu)
        self.kvm_x86_vcpu_after_set_cpuid(vcpu)
        vcpu.arch.xss_intercept = 0
        return 0
