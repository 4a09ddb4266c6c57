"""Commits about FPU or KVM xstate since v5.16 that the model leaves out on purpose, and why; AMX's own are in v5.16.

Every commit id was seen in a public source: lists of what was pushed to kernel.org, mails, `Fixes:` lines.
Those of v7.4 are what was in tip on 27 September 2026, after 7.3-rc4; nobody has looked whether v7.4 came with them.
The sources of 6.1.192, 6.12.117, 7.2.13 and 7.3.4 were held against each other for it, function by function; those of
5.17 against 6.1 in fpu/core.c, fpu/xstate.c, and where KVM has to do with XCR0, IA32_XSS, XFD, PKRU and CPUID.
"""

from __future__ import annotations

from dataclasses import dataclass

from xfdfuzz.revisions.commits import is_meant


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One commit with the mainline version that has it first, or was to have it, and the reason, a clause."""

    commit: str
    version: str
    title: str
    reason: str


_NEUTRAL = "a clean-up or a preparation: it changes nothing that can be observed"
_MEMORY = "where struct fpu lies in memory is not modelled: a pointer is an index"
_WORKERS = "no TIF_NEED_FPU_LOAD and no fpu__drop() of a thread that never leaves the kernel is looked at"
_BOOT = "what boot checks and prints is not modelled"
_MEMORY_ORDER = "components lie where CPUID has them, in whatever order that is"
_CET = "of CET the model has registers, no control flow, CR4.CET or SMM, and no L2 that has them apart from its L1"
_XSS_ZERO = "a guest's IA32_XSS can only be 0 until 69cc3e886582"
_MATH_EMULATION = "no machine is without an FPU"
_NMI_READS = "no NMI reads the registers of a task but its LBRs"

_V5_16 = "v5.16, which the model begins with, has it; a series can take it out (xfdfuzz new revision)"

#: By reason: commit, version, title.
_BY_REASON: dict[str, tuple[tuple[str, str, str], ...]] = {
    _NEUTRAL: (
        ("a9f84fb7158f", "v5.18", "x86/fpu: Remove redundant XCOMP_BV initialization"),
        ("d47f71f6de79", "v5.18", "x86/fpu: Remove unused supervisor only offsets"),
        ("35a77d4503d9", "v5.18", "x86/fpu/xsave: Initialize offset/size cache early"),
        ("6afbb58cc225", "v5.18", "x86/fpu: Cache xfeature flags from CPUID"),
        ("d6d6d50f1e80", "v5.18", "x86/fpu/xstate: Consolidate size calculations"),
        ("f5c0b4f30416", "v5.19", "x86/prctl: Remove pointless task argument"),
        ("945024d764a1", "v5.19", "KVM: x86: optimize PKU branching in kvm_load_{guest|host}_xsave_state"),
        ("938c8745bcf2", "v6.0", 'KVM: x86: Introduce "struct kvm_caps" to track misc caps/settings'),
        ("6a877d2450ac", "v6.2", "x86/fpu: Take task_struct* in copy_sigframe_from_user_to_xstate()"),
        ("1c813ce03055", "v6.2", "x86/fpu: Add a pkru argument to copy_uabi_from_kernel_to_xstate()."),
        ("2c87767c35ee", "v6.2", "x86/fpu: Add a pkru argument to copy_uabi_to_xstate()"),
        ("6be3ae45f567", "v6.4", "KVM: x86: Add a helper to handle filtering of unpermitted XCR0 features"),
        ("fe60e8f65f79", "v6.6", 'KVM: x86: Use KVM-governed feature framework to track "XSAVES enabled"'),
        ("90879f5dfcf6", "v6.7", "x86/fpu/xstate: Address kernel-doc warning"),
        ("af813acf8c06", "v6.10", "x86/fpu: Update fpu_swap_kvm_fpu() uses in comments as well"),
        ("24cf2bc982ff", "v6.12", "x86/pkeys: Add PKRU as a parameter in signal handling functions"),
        ("8c01290bda1a", "v6.14", "KVM: x86: Swap incoming guest CPUID into vCPU before massaging in KVM_SET_CPUID2"),
        ("7ea34578aea7", "v6.14", 'KVM: x86: Replace guts of "governed" features with comprehensive cpu_caps'),
        ("cbdeea032bfe", "v6.14", "KVM: x86: Drop superfluous host XSAVE check when adjusting guest XSAVES caps"),
        ("05186d7a8e5b", "v6.17", "KVM: SVM: Simplify MSR interception logic for IA32_XSS MSR"),
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
        ("b91c0922bf1e", "v5.19", "x86/fpu: Cleanup variable shadowing"),
        ("55228db2697c", "v6.2", "x86/fpu: Use _Alignof to avoid undefined behavior in TYPE_ALIGN"),
        ("aa81cb9d9723", "v6.3", "x86/fpu: Replace zero-length array in struct xregs_state with flexible-array member"),
        ("821ad23d0eaf", "v6.3", "cpuidle, intel_idle: Fix CPUIDLE_FLAG_INIT_XSTATE"),
        ("a03c376ebaf3", "v6.4", "x86/arch_prctl: Add AMX feature numbers as ABI constants"),
        ("1f34bb2a2464", "v6.5", "x86/fpu: Remove cpuinfo argument from init functions"),
        ("1703db2b90c9", "v6.5", "x86/fpu: Mark init functions __init"),
        ("1143c0b85c07", "v6.6", 'KVM: VMX: Recompute "XSAVES enabled" only after CPUID update'),
        ("662f6815786e", "v6.6", 'KVM: VMX: Rename XSAVES control to follow KVM\'s preferred "ENABLE_XYZ"'),
        ("24b8a23638cb", "v6.9", "x86/fpu: Clean up FPU switching in the middle of task switching"),
        ("7974c0643ee3", "v6.11", "KVM: x86: Add a struct to consolidate host values, e.g. EFER, XCR0, etc..."),
        ("1201f226c863", "v6.13", "KVM: x86: Cache CPUID.0xD XSTATE offsets+sizes during module init"),
        ("ec3d4440b2c8", "v6.14", 'KVM: x86: Explicitly do runtime CPUID updates "after" initial setup'),
        ("4c20cd4cee92", "v6.14", "KVM: x86: Avoid double RDPKRU when loading host/guest PKRU"),
        ("4348e9177813", "v6.15", 'x86/fpu: Clarify the "xa" symbolic name used in the XSTATE* macros'),
        ("aa93b6f96f64", "v6.15", "KVM: x86: Use for-loop to iterate over XSTATE size entries"),
        ("d2dcf25a4cf2", "v6.18", "KVM: x86: Rename kvm_{g,s}et_msr()* to show that they emulate guest accesses"),
        ("db07f3d0eb19", "v6.18", "KVM: x86: Use double-underscore read/write MSR helpers as appropriate"),
        ("c2aa58b226ab", "v6.18", "KVM: x86: Add kvm_msr_{read,write}() helpers"),
        ("0b28f21ad462", "v6.19", "KVM: x86: Add a helper to dedup loading guest/host XCR0 and XSS"),
        ("c862dcd19975", "v5.17", "x86/fpu: Fix inline prefix warnings"),
        ("54ee1844047c", "v6.0", "x86/pkeys: Clarify PKRU_AD_KEY macro"),
        ("754aaac3bbf1", "v6.14", "x86/fpu: Move CPUID leaf definitions to common code"),
        ("878477a59537", "v6.15", "x86/fpu: Update the outdated comment above fpstate_init_user()"),
        ("3d69596c684b", "v7.4", "x86/fpu: Document signal frame layout and portability"),
        ("344907fab5fd", "v7.4", "x86/fpu: Clean up and rename variables in signal frame handling"),
        ("6916dec7a02f", "v7.4", "x86/fpu: Extract restore_from_ia32_fxstate() and clean up fpu__restore_sig()"),
        ("731300df4f7d", "v7.4", "x86/fpu: Document reasoning of FX-only fallback"),
        ("f1751b220bc8", "v7.4", "x86/fpu: Fix potential underflow in xstate_calculate_size()"),
    ),
    "the model has it as a part of c6617c61e8fe": (
        ("ee3a5f9e3d9b", "v5.17", "KVM: x86: Do runtime CPUID update before updating vcpu->arch.cpuid_entries"),
    ),
    "the model has it as a part of f17b168734c0": (
        ("9f0112938277", "v6.0", "intel_idle: Add a new flag to initialize the AMX state"),
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
    "the model has it as a part of 50c5b071e283": (("b02dc185ee86", "v6.16", "x86/cpufeatures: Add X86_FEATURE_APX"),),
    "the model has it as a part of 8b05b3c98816": (
        ("151bf232494d", "v6.17", 'x86/fpu/xstate: Introduce "guest-only" supervisor xfeature set'),
    ),
    "the model has it as a part of 69cc3e886582": (
        ("c0a5f2989122", "v6.18", "KVM: x86: Report XSS as to-be-saved if there are supported features"),
        ("779ed05511f2", "v6.18", "KVM: x86: Initialize kvm_caps.supported_xss"),
        ("6a11c860d8a4", "v6.18", "KVM: x86: Report KVM supported CET MSRs as to-be-saved"),
        ("8b59d0275c96", "v6.18", "KVM: VMX: Emulate read and write to CET MSRs"),
        ("25f3840483e6", "v6.18", "KVM: VMX: Set up interception for CET MSRs"),
        ("d6c387fc396b", "v6.18", "KVM: VMX: Introduce CET VMCS fields and control bits"),
        ("584ba3ffb984", "v6.18", "KVM: VMX: Set host constant supervisor states to VMCS fields"),
        ("e140467bbdaf", "v6.18", "KVM: x86: Enable CET virtualization for VMX and advertise to userspace"),
        ("41f6710f99f4", "v6.18", "KVM: x86: Manually clear MPX state only on INIT"),
        ("c26675447faf", "v6.18", "KVM: x86: Zero XSTATE components on INIT by iterating over supported features"),
    ),
    _XSS_ZERO: (
        ("be4f3b3f8227", "v5.17", "KVM: x86: Keep MSR_IA32_XSS unchanged for INIT"),
        ("4c282e51e445", "v5.17", "KVM: x86: Update vCPU's runtime CPUID on write to MSR_IA32_XSS"),
        ("05a9e065059e", "v5.17", "KVM: x86: Sync the states size with the XCR0/IA32_XSS at, any time"),
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
        ("5d3b81d4d852", "v6.15", "x86/fpu: Avoid copying dynamic FP state from init_task in arch_dup_task_struct()"),
    ),
    _MEMORY_ORDER: (
        ("031b33ef1a6a", "v6.16", "x86/fpu/xstate: Remove xstate offset check"),
        ("15d51a2f6f3f", "v6.16", "x86/fpu/xstate: Introduce xfeature order table and accessor macro"),
        ("a758ae2885ea", "v6.16", "x86/fpu/xstate: Adjust XSAVE buffer size calculation"),
        ("cbe8e4dab16c", "v6.16", "x86/fpu/xstate: Adjust xstate copying logic for user ABI"),
    ),
    _WORKERS: (
        ("5bd2e97c868a", "v5.19", "fork: Generalize PF_IO_WORKER handling"),
        ("cb3ea4b7671b", "v6.3", "x86/fpu: Don't set TIF_NEED_FPU_LOAD for PF_IO_WORKER threads"),
        ("54e6842d0775", "v6.4", "fork/vm: Move common PF_IO_WORKER behavior to new flag"),
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
        ("b81fac906a8f", "v6.5", "x86/fpu: Move FPU initialization into arch_cpu_finalize_init()"),
        ("54d9a91a3d67", "v6.5", "x86/init: Initialize signal frame size late"),
        ("588e148d8bab", "v6.14", "x86/fpu: Remove unnecessary CPUID level check"),
        ("518aa9948e4f", "v7.4", "x86/fpu: Check for missing AVX and AVX-512 xstate bits"),
    ),
    _MATH_EMULATION: (
        ("ab05214025ee", "v7.2", "x86/fpu: Remove MATH_EMULATION and related glue code"),
        ("d8b55ce0c995", "v7.2", "x86/fpu: Remove the 'no387' boot option"),
        ("823caa173884", "v7.2", "x86/fpu: Remove the math-emu/ FPU emulation library"),
        ("67639ee98521", "v7.4", "x86/fpu: Remove unnecessary checks for X86_FEATURE_FPU"),
        ("7606d01b963f", "v7.4", "x86/fpu: Remove additional remnants of math emulation"),
    ),
    _NMI_READS: (
        ("450d73dc5f91", "v7.4", "x86/fpu: Add update_fpu_state_and_flag() helper"),
        ("03b89c9f202e", "v7.4", "x86/fpu/xstate: Add xsaves_nmi() helper"),
    ),
    "it is not in 7.3, with which the model ends": (
        ("fd14edd82077", "v7.4", "x86/fpu: Pre-fault only required size of xstate buffer"),
    ),
    "KVM's modules are loaded once": (
        ("c43ad19045d5", "v6.10", "KVM: x86: Fully re-initialize supported_vm_types on vendor module load"),
        ("f8ade833b733", "v6.19", "KVM: x86: Explicitly configure supported XSS from {svm,vmx}_set_cpu_caps()"),
    ),
    "the model has it as a part of 7c1ef59145f1, without which no thread gets a PASID": (
        ("fa6af69f38d3", "v5.18", "x86/traps: Demand-populate PASID MSR via #GP"),
        ("a3d29e8291b6", "v5.18", "sched: Define and initialize a flag to identify valid PASID in the task"),
    ),
    "it is about the address that a warning names": (
        ("1cec9ac2d071", "v6.17", "x86/fpu: Delay instruction pointer fixup until after warning"),
    ),
    "the number that tells the model's CPUIDs apart stands for all of their leaves": (
        ("033a3ea59a19", "v5.17", "KVM: x86: Check .flags in kvm_cpuid_check_equal() too"),
        ("e3bcfda012ed", "v5.17", "KVM: x86: Report deprecated x87 features in supported CPUID"),
    ),
    "FRED is not modelled": (("d62c02af7a96", "v6.15", "KVM: VMX: Pass XFD_ERR as pseudo-payload when injecting #NM"),),
    "the processor has all of AMX's instructions, or none": (
        ("af2872f62254", "v6.2", "x86: KVM: Advertise AMX-FP16 CPUID to user space"),
        ("99b668545356", "v6.6", "KVM: x86: Advertise AMX-COMPLEX CPUID to userspace"),
        ("e37aa1211fbf", "v6.16", "x86/cpuid: Add AMX and SPEC_CTRL dependencies"),
    ),
    "KVM_GET_SUPPORTED_CPUID gives the sizes of what is permitted in all revisions of the model": (
        ("1ffce0924a8c", "v5.17", "KVM: x86/cpuid: Exclude unpermitted xfeatures sizes at KVM_GET_SUPPORTED_CPUID"),
    ),
    "a patch of the series that v5.17 came with, which the model has as a whole, as amx-v6": (
        ("b0237dad2d7f", "v5.17", "x86/fpu: Make XFD initialization in __fpstate_reset() a function argument"),
        ("c270ce393dfd", "v5.17", "x86/fpu: Add guest support to xfd_enable_feature()"),
        ("0781d60f658e", "v5.17", "x86/fpu: Provide fpu_enable_guest_xfd_features() for KVM"),
        ("5ab2f45bba48", "v5.17", "kvm: x86: Enable dynamic xfeatures at KVM_SET_CPUID2"),
        ("8eb9a48ac1e8", "v5.17", "x86/fpu: Provide fpu_update_guest_xfd() for IA32_XFD emulation"),
        ("820a6ee944e7", "v5.17", "kvm: x86: Add emulation for IA32_XFD"),
        ("1df4fd834e8e", "v5.17", "x86/fpu: Prepare xfd_err in struct fpu_guest"),
        ("ec5be88ab29f", "v5.17", "kvm: x86: Intercept #NM for saving IA32_XFD_ERR"),
        ("548e83650a51", "v5.17", "kvm: x86: Emulate IA32_XFD_ERR for guest"),
        ("61f208134a87", "v5.17", "kvm: x86: Disable RDMSR interception of IA32_XFD_ERR"),
        ("86aff7a47992", "v5.17", "kvm: x86: Add XCR0 support for Intel AMX"),
        ("690a757d610e", "v5.17", "kvm: x86: Add CPUID support for Intel AMX"),
        ("c60427dd50ba", "v5.17", "x86/fpu: Add uabi_size to guest_fpu"),
        ("be50b2065dfa", "v5.17", "kvm: x86: Add support for getting/setting expanded xstate buffer"),
        ("980fe2fddcff", "v5.17", "x86/fpu: Extend fpu_xstate_prctl() with guest permissions"),
        ("36487e6228c4", "v5.17", "x86/fpu: Prepare guest FPU for dynamically enabled FPU features"),
        ("5429cead0119", "v5.17", "x86/fpu: Provide fpu_sync_guest_vmexit_xfd_state()"),
        ("b5274b1b7ba8", "v5.17", "kvm: x86: Disable interception for IA32_XFD on demand"),
    ),
    "of /proc/PID/arch_status the model has whether there is a line, not the time in it": (
        ("0fe4ff885f8a", "v5.17", "x86/fpu: Correct AVX512 state tracking"),
    ),
    "nobody asks whether a guest's CPUID array is freed": (
        ("811f95ff9527", "v5.17", "KVM: x86: Free kvm_cpuid_entry2 array on post-KVM_RUN KVM_SET_CPUID{,2}"),
    ),
    "no host has a component with XFD without having XFD": (
        ("e9737468829c", "v5.17", "KVM: x86/cpuid: Clear XFD for component i if the base feature is missing"),
    ),
    "a VMM gives a leaf a sub-leaf where the processor has one, and nowhere else": (
        ("277ad7d58611", "v6.0", "KVM: x86: Add dedicated helper to get CPUID entry with significant index"),
    ),
    "of OSXSAVE and OSPKE a guest's CPUID has what its CR4 has, in all revisions": (
        ("1f66590d7ff0", "v6.14", "KVM: x86: Update OS{XSAVE,PKE} bits in guest CPUID irrespective of host support"),
    ),
    "where KVM has XSAVES, VMX has it": (
        ("0497d2ac9b26", "v6.6", "KVM: VMX: Check KVM CPU caps, not just VMX MSR support, for XSAVE enabling"),
    ),
    "KVM has no MSR filter": (
        ("8a056ece45d2", "v6.17", "KVM: VMX: Manually recalc all MSR intercepts on userspace MSR filter change"),
        ("6057497336bb", "v6.18", "KVM: x86: Rework KVM_REQ_MSR_FILTER_CHANGED into a generic RECALC_INTERCEPTS"),
    ),
    "SGX is not modelled": (
        ("5c89be1dd5cf", "v5.17", "KVM: x86: Move CPUID.(EAX=0x12,ECX=1) mangling to __kvm_update_cpuid_runtime()"),
        ("ad45413d22e6", "v6.4", "KVM: VMX: Don't rely _only_ on CPUID to enforce XCR0 restrictions for ECREATE"),
        ("275a87244ec8", "v6.4", "KVM: x86: Don't adjust guest's CPUID.0x12.1 (allowed SGX enclave XFRM)"),
    ),
    "the model has it as a part of 2d39a6add422": (
        ("6ee836687a3f", "v6.6", "x86/fpu: Add helper for modifying xstate"),
        ("98cfa4630912", "v6.6", "x86: Introduce userspace API for shadow stack"),
        ("b2926a36b97a", "v6.6", "x86/shstk: Handle thread shadow stack"),
        ("18e66b695e78", "v6.6", "x86/shstk: Add Kconfig option for shadow stack"),
        ("701fb66d576e", "v6.6", "x86/cpufeatures: Add CPU feature flags for shadow stacks"),
        ("488af8ea7131", "v6.6", "x86/shstk: Wire in shadow stack interface"),
        ("0dc2a76092d9", "v6.6", "x86/cpufeatures: Enable CET CR4 bit for shadow stack"),
        ("1d62c65372ab", "v6.6", "x86/shstk: Support WRSS for userspace"),
        ("680ed2f15e70", "v6.6", "x86/shstk: Add ARCH_SHSTK_UNLOCK"),
        ("67840ad0fa14", "v6.6", "x86/shstk: Add ARCH_SHSTK_STATUS"),
    ),
    "a thread's shadow stack is one content: no address in it, no frame on it": (
        ("9874b2917b9f", "v7.1", "x86/shstk: Prevent deadlock during shstk sigreturn"),
        ("31255e072b2e", "v6.7", "x86/shstk: Delay signal entry SSP write until after user accesses"),
        ("928054769dbd", "v6.6", "x86/shstk: Introduce routines modifying shstk"),
        ("05e36022c054", "v6.6", "x86/shstk: Handle signals for shadow stack"),
        ("b93d6c78829a", "v6.6", "x86/shstk: Check that SSP is aligned on sigreturn"),
        ("7fad2a432cd3", "v6.6", "x86/shstk: Check that signal frame is shadow stack mem"),
        ("c35559f94ebc", "v6.6", "x86/shstk: Introduce map_shadow_stack syscall"),
        ("c6b53dcec07c", "v6.6", "x86/shstk: Don't retry vm_munmap() on -EINTR"),
        ("331955600ddf", "v6.6", "x86/shstk: Handle vfork clone failure correctly"),
        ("748c90c69336", "v6.6", "x86/shstk: Remove useless clone error handling"),
        ("509ff51ee652", "v6.6", "x86/shstk: Add warning for shadow stack double unmap"),
    ),
    "the model has it as a part of ac5c48027bac": (
        ("546d714b0880", "v6.10", "KVM: introduce new vendor op for KVM_GET_DEVICE_ATTR"),
    ),
    "the model has it as a part of 4f5defae7089": (
        ("517987e3fb19", "v6.10", "KVM: x86: add fields to struct kvm_arch for CoCo features"),
    ),
    "the model has it as a part of ae6012d72fa6": (
        ("6a1853bdf178", "v6.13", "x86/pkeys: Change caller of update_pkru_in_sigframe()"),
    ),
    "a guest's MSR bitmap is looked at where it runs, and made before that": (
        ("5a1a726e68ff", "v6.18", "KVM: x86: Use KVM_REQ_RECALC_INTERCEPTS to react to CPUID updates"),
    ),
    "a guest's WRMSR and RDMSR have one form, and KVM no fast path for them": (
        ("885df2d2109a", "v6.18", "KVM: x86: Add support for RDMSR/WRMSRNS w/ immediate on Intel"),
        ("ec93675a3251", "v6.18", "KVM: VMX: Support the immediate form of WRMSRNS in the VM-Exit fastpath"),
        ("d90ebf5a06ec", "v6.18", "KVM: x86: Advertise support for the immediate form of MSR instructions"),
    ),
    "no vCPU is inside KVM_RUN, or in another ioctl, while it is sealed": (
        ("cb923ee6a80f", "v7.1", "KVM: SEV: Lock all vCPUs when synchronzing VMSAs for SNP launch finish"),
    ),
    _V5_16: (
        ("1bdda24c4af6", "v5.16", "signal: Add an optional check for altstack size"),
        ("3aac3ebea08f", "v5.16", "x86/signal: Implement sigaltstack size validation"),
        ("84e4dccc8fce", "v5.16", "x86/fpu/xstate: Provide xstate_calculate_size()"),
        ("6f6a7c09c406", "v5.16", "x86/fpu: Add members to struct fpu to cache permission information"),
        ("c33f0a81a2cf", "v5.16", "x86/fpu: Add fpu_state_config::legacy_features"),
        ("db8268df0983", "v5.16", "x86/arch_prctl: Add controls for dynamic XSTATE components"),
        ("23686ef25d4a", "v5.16", "x86/fpu: Add basic helpers for dynamically enabled features"),
        ("4b7ca609a33d", "v5.16", "x86/signal: Use fpu::__state_user_size for sigalt stack validation"),
        ("53599b4d54b9", "v5.16", "x86/fpu/signal: Prepare for variable sigframe length"),
        ("9e798e9aa14c", "v5.16", "x86/fpu: Prepare fpu_clone() for dynamically enabled features"),
        ("e61d6310a0f8", "v5.16", "x86/fpu: Reset permission and fpstate on exec()"),
        ("c351101678ce", "v5.16", "x86/cpufeatures: Add eXtended Feature Disabling (XFD) feature bit"),
        ("dae1bd583896", "v5.16", "x86/msr-index: Add MSRs for XFD"),
        ("8bf26758ca96", "v5.16", "x86/fpu: Add XFD state to fpstate"),
        ("5529acf47ec3", "v5.16", "x86/fpu: Add sanity checks for XFD"),
        ("672365477ae8", "v5.16", "x86/fpu: Update XFD state where required"),
        ("783e87b40495", "v5.16", "x86/fpu/xstate: Add XFD #NM handler"),
        ("500afbf645a0", "v5.16", "x86/fpu/xstate: Add fpstate_realloc()/free()"),
        ("70c3f1671b0c", "v5.16", "x86/fpu/xstate: Prepare XSAVE feature table for gaps in state component numbers"),
        ("eec2113eabd9", "v5.16", "x86/fpu/amx: Define AMX state components and have it used for boot-time checks"),
        ("2ae996e0c1a3", "v5.16", "x86/fpu: Calculate the default sizes independently"),
        ("db3e7321b4b8", "v5.16", "x86/fpu: Add XFD handling for dynamic states"),
        ("2308ee57d93d", "v5.16", "x86/fpu/amx: Enable the AMX feature in 64-bit mode"),
        ("6c3118c32129", "v5.16", "signal: Skip the altstack update when not needed"),
    ),
    "a PASID is the number of its address space, which no other one gets while a task is in it": (
        ("2667ed10d9f0", "v5.18", "mm: Fix PASID use-after-free issue"),
    ),
    "how the kernel's command line is read is not modelled": (
        ("ef6dfc4b238a", "v6.3", "x86/signal: Fix the value returned by strict_sas_size()"),
    ),
    "between VM exit and the host's XCR0, IA32_XSS and PKRU nothing but a PMI happens, which this leaves where it is": (
        ("6e640bb5caab", "v6.19", "KVM: SVM: Handle #MCs in guest outside of fastpath"),
        ("8934c592bcbf", "v6.19", "KVM: VMX: Handle #MCs on VM-Enter/TD-Enter outside of the fastpath"),
        ("3377a9233d30", "v6.19", "KVM: x86: Load guest/host XCR0 and XSS outside of the fastpath run loop"),
        ("7df3021b622f", "v6.19", "KVM: x86: Load guest/host PKRU outside of the fastpath run loop"),
    ),
    "of instructions that use registers of the FPU KVM emulates MOVUPS and FNSTCW alone": (
        ("c57d9bafbd0b", "v6.19", "KVM: x86: Add support for emulating MOVNTDQA"),
        ("f106797f81d6", "v6.19", "KVM: x86: Add x86_emulate_ops.get_xcr() callback"),
        ("4cb21be4c3b0", "v6.19", "KVM: x86: Add AVX support to the emulator's register fetch and writeback"),
        ("f0585a714a75", "v6.19", "KVM: x86: Add emulator support for decoding VEX prefixes"),
        ("ebec25438f3d", "v6.19", "KVM: x86: Enable support for emulating AVX MOV instructions"),
    ),
    "the processor has no sub-leaf 1 of leaf 0x1E": (
        ("58cbaf64e653", "v7.0", "KVM: x86: Advertise AMX CPUIDs in subleaf 0x1E.0x1 to userspace"),
    ),
    "the model has it as a part of 27bd5fdc24c0": (
        ("a26b7cd22546", "v6.10", "KVM: SEV: Do not intercept accesses to MSR_IA32_XSS for SEV-ES guests"),
    ),
    "the model has it as a part of c5866d42f711": (
        ("97d65b544f48", "v7.3", "KVM: Check for duplicate vcpu_id as early as possible"),
        ("6418b715d5a2", "v7.3", "KVM: Protect all of kvm_vm_ioctl_create_vcpu() with kvm->lock"),
        ("700f8d24436c", "v7.3", 'Revert "KVM: Check for duplicate vcpu_id as early as possible"'),
    ),
    "of processors' errata the model has one of Sapphire Rapids, of no other": (
        ("b0563468eeac", "v6.3", "x86/CPU/AMD: Disable XSAVES on AMD family 0x17"),
        ("d52734d00b8e", "v6.8", "KVM: x86: Give a hint when Win2016 might fail to boot due to XSAVES erratum"),
    ),
    "FILD clears the error pointers whatever memory it reads": (
        ("5d31174f3c8c", "v6.10", "x86/fpu: Fix AMD X86_BUG_FXSAVE_LEAK fixup"),
    ),
    "the model has it as a part of 8db428fd5229": (
        ("38c46bdbf998", "v6.18", "KVM: SVM: Pass through shadow stack MSRs as appropriate"),
        ("48b2ec0d540c", "v6.18", "KVM: SVM: Emulate reads and writes to shadow stack MSRs"),
    ),
    "the host's XCR0 is the same at any time": (
        ("52c47f5897b6", "v6.11", "KVM: SVM: Use KVM's snapshot of the host's XCR0 for SEV-ES host state"),
    ),
    "XSAVES and XRSTORS of an L2 do not exit: L1 is taken to have no bit in its XSS exiting bitmap": (
        ("19e6e083f3f9", "v6.18", "KVM: nVMX: Always forward XSAVES/XRSTORS exits from L2 to L1"),
    ),
    "what KVM prints of a VMCB is not modelled": (
        ("c7586aa3bed4", "v6.18", "KVM: SVM: Update dump_vmcb with shadow stack save area additions"),
    ),
    _CET: (
        ("c5ba49458513", "v6.18", "KVM: nSVM: Save/load CET Shadow Stack state to/from vmcb12/vmcb02"),
        ("586ef9dcbb28", "v6.18", "KVM: x86: Add fault checks for guest CR4.CET setting"),
        ("1a61bd0d126a", "v6.18", "KVM: x86: Save and reload SSP to/from SMRAM"),
        ("57c3db7e2e26", "v6.18", "KVM: x86: Don't emulate instructions affected by CET features"),
        ("b3744c59ebc5", "v6.18", "KVM: x86: Allow setting CR4.CET if IBT or SHSTK is supported"),
        ("1f6f68fcfe43", "v6.18", "KVM: x86: Disable support for Shadow Stacks if TDP is disabled"),
        ("343acdd158a5", "v6.18", "KVM: x86: Disable support for IBT and SHSTK if allow_smaller_maxphyaddr is true"),
        ("625884996bff", "v6.18", "KVM: nVMX: Prepare for enabling CET support for nested guest"),
        ("62f7533a6b3a", "v6.18", "KVM: nVMX: Add consistency checks for CET states"),
        ("d292035fb5d2", "v6.18", "KVM: VMX: Make CR4.CET a guest owned bit"),
        ("82c0ec028258", "v6.18", "KVM: x86: Don't emulate task switches when IBT or SHSTK is enabled"),
        ("d4c03f63957c", "v6.18", "KVM: x86: Emulate SSP[63:32]!=0 #GP(0) for FAR JMP to 32-bit mode"),
        ("296599346c67", "v6.18", "KVM: x86/mmu: WARN on attempt to check permissions for Shadow Stack #PF"),
        ("843af0f2e461", "v6.18", "KVM: x86/mmu: Pretty print PK, SS, and SGX flags in MMU tracepoints"),
        ("f705de12a22c", "v6.18", "KVM: x86: Initialize allow_smaller_maxphyaddr earlier in setup"),
        ("f7336d47be53", "v6.18", "KVM: VMX: Configure nested capabilities after CPU capabilities"),
        ("033cc166f029", "v6.18", "KVM: nVMX: Virtualize NO_HW_ERROR_CODE_CC for L1 event injection to L2"),
        ("8060b2bd2dd0", "v6.18", "KVM: nVMX: Add consistency checks for CR0.WP and CR4.CET"),
        ("42ae6448531b", "v6.18", "KVM: nVMX: Advertise new VM-Entry/Exit control bits for CET state"),
        ("f2f5519aa4e3", "v6.18", "KVM: x86: Define Control Protection Exception (#CP) vector"),
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
