"""Commits about FPU or KVM xstate since v5.16 that the model leaves out on purpose, and why.

Every commit id was seen in a public source: lists of what was pushed to kernel.org, mails of tip-bot2, `Fixes:` lines.
"""

from __future__ import annotations

from dataclasses import dataclass

from xfdfuzz.revisions.commits import is_meant


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One commit with the mainline version that has it first and the reason, a clause."""

    commit: str
    version: str
    title: str
    reason: str


_NEUTRAL = "a clean-up or a preparation: it changes nothing that can be observed"
_MEMORY = "where struct fpu lies in memory is not modelled: a pointer is an index"
_WORKERS = "no TIF_NEED_FPU_LOAD and no fpu__drop() of a thread that never leaves the kernel is looked at"
_BOOT = "what boot checks and prints is not modelled"
_MEMORY_ORDER = "components lie where CPUID has them, in whatever order that is"
_CET = "of CET the model has the contents of the two components and IA32_XSS, no control flow, SSP, SMM or VMCS field"
_XSS_ZERO = "a guest's IA32_XSS can only be 0 until 69cc3e886582"
_AMD = "the model has VMX, and of SVM what seals an SEV-ES guest"

#: By reason: commit, version, title.
_BY_REASON: dict[str, tuple[tuple[str, str, str], ...]] = {
    _NEUTRAL: (
        ("a9f84fb7158f", "v5.18", "x86/fpu: Remove redundant XCOMP_BV initialization"),
        ("d47f71f6de79", "v5.18", "x86/fpu: Remove unused supervisor only offsets"),
        ("35a77d4503d9", "v5.18", "x86/fpu/xsave: Initialize offset/size cache early"),
        ("d6d6d50f1e80", "v5.18", "x86/fpu/xstate: Consolidate size calculations"),
        ("6a877d2450ac", "v6.2", "x86/fpu: Take task_struct* in copy_sigframe_from_user_to_xstate()"),
        ("1c813ce03055", "v6.2", "x86/fpu: Add a pkru argument to copy_uabi_from_kernel_to_xstate()."),
        ("2c87767c35ee", "v6.2", "x86/fpu: Add a pkru argument to copy_uabi_to_xstate()"),
        ("6be3ae45f567", "v6.4", "KVM: x86: Add a helper to handle filtering of unpermitted XCR0 features"),
        ("fe60e8f65f79", "v6.6", 'KVM: x86: Use KVM-governed feature framework to track "XSAVES enabled"'),
        ("af813acf8c06", "v6.10", "x86/fpu: Update fpu_swap_kvm_fpu() uses in comments as well"),
        ("24cf2bc982ff", "v6.12", "x86/pkeys: Add PKRU as a parameter in signal handling functions"),
        ("8c01290bda1a", "v6.14", "KVM: x86: Swap incoming guest CPUID into vCPU before massaging in KVM_SET_CPUID2"),
        ("7ea34578aea7", "v6.14", 'KVM: x86: Replace guts of "governed" features with comprehensive cpu_caps'),
        ("cbdeea032bfe", "v6.14", "KVM: x86: Drop superfluous host XSAVE check when adjusting guest XSAVES caps"),
        ("2883b4c2169a", "v6.15", "x86/fpu: Use XSAVE{,OPT,C,S} and XRSTOR{,S} mnemonics in xstate.h"),
        ("ccb7735a1ea2", "v6.15", "x86/fpu: Fully optimize out WARN_ON_FPU()"),
        ("64e54461ab6e", "v6.16", "x86/fpu: Refactor xfeature bitmask update code for sigframe XSAVE"),
        ("70fe4a0266ef", "v6.16", "x86/fpu: Remove export of mxcsr_feature_mask"),
        ("de8304c319bc", "v6.16", "x86/fpu: Rename fpu_reset_fpregs() to fpu_reset_fpstate_regs()"),
        ("730faa15a069", "v6.16", "x86/fpu: Simplify the switch_fpu_prepare() + switch_fpu_finish() logic"),
        ("392bbe11c7cf", "v6.16", "x86/fpu: Remove x86_init_fpu"),
        ("99850a1c93fe", "v6.16", "x86/fpu: Remove unused trace events"),
        ("8e269c030eca", "v6.16", "x86/fpu: Remove DEFINE_EVENT(x86_fpu, x86_fpu_copy_src)"),
        (
            "46c158e3ad0f",
            "v6.16",
            "x86/fpu: Shift fpregs_assert_state_consistent() from arch_exit_work() to its caller",
        ),
        ("32d5fa804dc9", "v6.16", "x86/fpu: Drop @perm from guest pseudo FPU container"),
        ("fafb29e18db2", "v6.17", "x86/fpu: Remove xfd argument from __fpstate_reset()"),
    ),
    "the model has it as a part of c6617c61e8fe": (
        ("ee3a5f9e3d9b", "v5.17", "KVM: x86: Do runtime CPUID update before updating vcpu->arch.cpuid_entries"),
    ),
    "the model has it as a part of a401f45e3875": (
        ("c32d7cab57e3", "v6.1", "x86/fpu: Configure init_fpstate attributes orderly"),
    ),
    "the model has it as a part of 4a804c4f8356": (
        ("d7e5aceace51", "v6.2", "x86/fpu: Emulate XRSTOR's behavior if the xfeatures PKRU bit is not set"),
    ),
    "the model has it as a part of 8647c52e9504": (
        ("18164f66e6c5", "v6.6", "x86/fpu: Allow caller to constrain xfeatures when copying to uabi buffer"),
    ),
    "the model has it as a part of 70044df250d0": (
        ("84ee6e8d195e", "v6.12", "x86/pkeys: Add helper functions to update PKRU on the sigframe"),
    ),
    "the model has it as a part of 509e880b7795": (
        ("7bc4ed75f2d6", "v6.17", "x86/fpu/xstate: Differentiate default features for host and guest FPUs"),
        ("7c2c89364d92", "v6.17", "x86/fpu: Initialize guest FPU permissions from guest defaults"),
    ),
    "the model has it as a part of 8b05b3c98816": (
        ("151bf232494d", "v6.17", 'x86/fpu/xstate: Introduce "guest-only" supervisor xfeature set'),
    ),
    "the model has it as a part of 69cc3e886582": (
        ("c0a5f2989122", "v6.18", "KVM: x86: Report XSS as to-be-saved if there are supported features"),
        ("779ed05511f2", "v6.18", "KVM: x86: Initialize kvm_caps.supported_xss"),
        ("6a11c860d8a4", "v6.18", "KVM: x86: Report KVM supported CET MSRs as to-be-saved"),
        ("8b59d0275c96", "v6.18", "KVM: VMX: Emulate read and write to CET MSRs"),
        ("25f3840483e6", "v6.18", "KVM: VMX: Set up interception for CET MSRs"),
        ("e140467bbdaf", "v6.18", "KVM: x86: Enable CET virtualization for VMX and advertise to userspace"),
    ),
    _XSS_ZERO: (
        ("be4f3b3f8227", "v5.17", "KVM: x86: Keep MSR_IA32_XSS unchanged for INIT"),
        ("4c282e51e445", "v5.17", "KVM: x86: Update vCPU's runtime CPUID on write to MSR_IA32_XSS"),
        ("05a9e065059e", "v5.17", "KVM: x86: Sync the states size with the XCR0/IA32_XSS at, any time"),
        ("338543cbe033", "v6.18", "KVM: x86: Check XSS validity against guest CPUIDs"),
        ("9622e116d0d2", "v6.18", "KVM: x86: Refresh CPUID on write to guest MSR_IA32_XSS"),
    ),
    _MEMORY: (
        ("77fbccede633", "v6.16", "x86/fpu: Introduce the x86_task_fpu() helper method"),
        ("e3bfa3859936", "v6.16", "x86/fpu: Convert task_struct::thread.fpu accesses to use x86_task_fpu()"),
        ("cb7ca40a3882", "v6.16", "x86/fpu: Make task_struct::thread constant size"),
        ("55bc30f2e34d", "v6.16", "x86/fpu: Remove the thread::fpu pointer"),
        ("ec2227e03a46", "v6.16", "x86/fpu: Push 'fpu' pointer calculation into the fpu__drop() call"),
        ("8b2a7a7294b3", "v6.16", "x86/fpu: Use 'fpstate' variable names consistently"),
        ("e3a52b67f54a", "v6.16", "x86/fpu: Clarify FPU context cacheline alignment"),
        (
            "960bc2bcba59",
            "v6.16",
            "x86/fpu: Restore fpu_thread_struct_whitelist() to fix CONFIG_HARDENED_USERCOPY=y crash",
        ),
        ("2d299e3d773d", "v6.16", "x86/fpu: Always use memcpy_and_pad() in arch_dup_task_struct()"),
    ),
    _MEMORY_ORDER: (
        ("031b33ef1a6a", "v6.16", "x86/fpu/xstate: Remove xstate offset check"),
        ("15d51a2f6f3f", "v6.16", "x86/fpu/xstate: Introduce xfeature order table and accessor macro"),
        ("a758ae2885ea", "v6.16", "x86/fpu/xstate: Adjust XSAVE buffer size calculation"),
        ("cbe8e4dab16c", "v6.16", "x86/fpu/xstate: Adjust xstate copying logic for user ABI"),
    ),
    _WORKERS: (
        ("cb3ea4b7671b", "v6.3", "x86/fpu: Don't set TIF_NEED_FPU_LOAD for PF_IO_WORKER threads"),
        (
            "c360bdc593b8",
            "v6.16",
            "x86/fpu: Make sure x86_task_fpu() doesn't get called for PF_KTHREAD|PF_USER_WORKER tasks during exit",
        ),
        (
            "016a2e6f8ae5",
            "v6.16",
            "x86/fpu: Check TIF_NEED_FPU_LOAD instead of PF_KTHREAD|PF_USER_WORKER in fpu__drop()",
        ),
    ),
    _BOOT: (
        ("d3e021adac7c", "v6.1", "x86/fpu: Fix the init_fpstate size check with the actual size"),
        ("48280042f2c6", "v6.2", "x86/fpu/xstate: Fix XSTATE_WARN_ON() to emit relevant diagnostics"),
        ("2c66ca3949dc", "v6.6", "x86/fpu: Set X86_FEATURE_OSXSAVE feature after enabling OSXSAVE in CR4"),
        ("69a2fdf44604", "v6.15", "x86/fpu/xstate: Simplify print_xstate_features()"),
        ("39cd7fad39ce", "v6.16", "x86/fpu: Log XSAVE disablement consistently"),
    ),
    "KVM's modules are loaded once": (
        ("c43ad19045d5", "v6.10", "KVM: x86: Fully re-initialize supported_vm_types on vendor module load"),
    ),
    "no op of a task has kernel_fpu_begin() in it, for a softirq to hit": (
        (
            "d02198550423",
            "v6.15",
            "x86/fpu: Improve crypto performance by making kernel-mode FPU reliably usable in softirqs",
        ),
    ),
    "the model has it as a part of 7c1ef59145f1, without which no thread gets a PASID": (
        ("fa6af69f38d3", "v5.18", "x86/traps: Demand-populate PASID MSR via #GP"),
    ),
    "of a signal frame one page may be absent, the one behind the header of its image, and it has no protection key": (
        ("d877550eaf2d", "v6.8", "x86/fpu: Stop relying on userspace for info to fault in xsave buffer"),
        ("d10b554919d4", "v6.12", "x86/pkeys: Restore altstack access in sigreturn()"),
    ),
    "it is about the address that a warning names": (
        ("1cec9ac2d071", "v6.17", "x86/fpu: Delay instruction pointer fixup until after warning"),
    ),
    "the register set of shadow stacks is not modelled": (
        ("a9d9c33132d4", "v6.13", 'x86/fpu: Ensure shadow stack is active before "getting" registers'),
    ),
    "the number that tells the model's CPUIDs apart stands for all of their leaves": (
        ("033a3ea59a19", "v5.17", "KVM: x86: Check .flags in kvm_cpuid_check_equal() too"),
    ),
    "FRED is not modelled": (("d62c02af7a96", "v6.15", "KVM: VMX: Pass XFD_ERR as pseudo-payload when injecting #NM"),),
    "the processor has all of AMX's instructions, or none": (
        ("af2872f62254", "v6.2", "x86: KVM: Advertise AMX-FP16 CPUID to user space"),
        ("99b668545356", "v6.6", "KVM: x86: Advertise AMX-COMPLEX CPUID to userspace"),
        ("e37aa1211fbf", "v6.16", "x86/cpuid: Add AMX and SPEC_CTRL dependencies"),
    ),
    "core files are not modelled": (
        ("ba386777a30b", "v6.12", "x86/elf: Add a new FPU buffer layout info to x86 core files"),
    ),
    "component 15 (LBR) is not modelled": (
        ("2848ff28d180", "v6.11", "x86/fpu: Avoid writing LBR bit to IA32_XSS unless supported"),
    ),
    "KVM_GET_SUPPORTED_CPUID gives the sizes of what is permitted in all revisions of the model": (
        ("1ffce0924a8c", "v5.17", "KVM: x86/cpuid: Exclude unpermitted xfeatures sizes at KVM_GET_SUPPORTED_CPUID"),
    ),
    _AMD: (
        ("b0563468eeac", "v6.3", "x86/CPU/AMD: Disable XSAVES on AMD family 0x17"),
        ("d52734d00b8e", "v6.8", "KVM: x86: Give a hint when Win2016 might fail to boot due to XSAVES erratum"),
        ("48b2ec0d540c", "v6.18", "KVM: SVM: Emulate reads and writes to shadow stack MSRs"),
        ("c5ba49458513", "v6.18", "KVM: nSVM: Save/load CET Shadow Stack state to/from vmcb12/vmcb02"),
        ("38c46bdbf998", "v6.18", "KVM: SVM: Pass through shadow stack MSRs as appropriate"),
        ("8db428fd5229", "v6.18", "KVM: SVM: Enable shadow stack virtualization for SVM"),
    ),
    _CET: (
        ("06f2969c6a12", "v6.18", "KVM: x86: Introduce KVM_{G,S}ET_ONE_REG uAPIs support"),
        ("586ef9dcbb28", "v6.18", "KVM: x86: Add fault checks for guest CR4.CET setting"),
        ("d6c387fc396b", "v6.18", "KVM: VMX: Introduce CET VMCS fields and control bits"),
        ("9d6812d41535", "v6.18", "KVM: x86: Enable guest SSP read/write interface with new uAPIs"),
        ("1a61bd0d126a", "v6.18", "KVM: x86: Save and reload SSP to/from SMRAM"),
        ("584ba3ffb984", "v6.18", "KVM: VMX: Set host constant supervisor states to VMCS fields"),
        ("57c3db7e2e26", "v6.18", "KVM: x86: Don't emulate instructions affected by CET features"),
        ("b3744c59ebc5", "v6.18", "KVM: x86: Allow setting CR4.CET if IBT or SHSTK is supported"),
        ("19e6e083f3f9", "v6.18", "KVM: nVMX: Always forward XSAVES/XRSTORS exits from L2 to L1"),
        ("1f6f68fcfe43", "v6.18", "KVM: x86: Disable support for Shadow Stacks if TDP is disabled"),
        ("343acdd158a5", "v6.18", "KVM: x86: Disable support for IBT and SHSTK if allow_smaller_maxphyaddr is true"),
        ("625884996bff", "v6.18", "KVM: nVMX: Prepare for enabling CET support for nested guest"),
        ("62f7533a6b3a", "v6.18", "KVM: nVMX: Add consistency checks for CET states"),
        ("d292035fb5d2", "v6.18", "KVM: VMX: Make CR4.CET a guest owned bit"),
    ),
}

#: By the version, and by the reason within one.
LEFT_OUT = sorted(
    (LeftOut(*one, reason) for reason, commits in _BY_REASON.items() for one in commits),
    key=lambda one: [int(part) for part in one.version[1:].split(".")],
)


def left_out(commit: str) -> LeftOut | None:
    """The commit, of at least 6 digits, if the model leaves it out."""
    return next((one for one in LEFT_OUT if is_meant(one.commit, commit)), None)
