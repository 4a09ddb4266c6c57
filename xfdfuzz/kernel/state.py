"""The whole modelled system as one C structure.

The kernel's own structs by the kernel's own names, nested; a pointer is an index into a fixed pool, so a system is
copied, hashed and sent between processes as its bytes.  0 is NULL in every pointer, so pools of things that are pointed
to start at 1 (:data:`NULL`); ``current``, which is never NULL, is a plain index.

The last member, :class:`Ghost`, is what an ideal machine would hold.  Ops write it, kernels never do, invariants
compare.

A field's type says what its number means (:mod:`~xfdfuzz.arch.kinds`).  A text beside it is what reports call the
field, where that is not its name; an empty one leaves the name out of what stands in the field: ``v0.xcr0``.
"""

from __future__ import annotations

from typing import Annotated

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.kinds import (
    COUNT,
    Count,
    Enumeration,
    Flag,
    Kind,
    Mask,
    Reference,
    RegisterIndex,
    RegisterValue,
    Size,
    Token,
    Xfd,
    Xfeatures,
)
from xfdfuzz.arch.registers import CetState, CpuRegs
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.machine import MAX_CPUS
from xfdfuzz.memory.cstruct import I8, U8, U32, Array, Struct, struct

NULL = 0
#: Register contents are ``owner << OWNER_SHIFT | number``; owner 0 is the kernel, ``nr + 1`` a user task, then come the
#: address spaces of processes, and from 16 on the guests.
OWNER_SHIFT = 3
#: The address space of a task that has exited.
NO_MM = 0xFF

#: User tasks that can exist; task 0 is the VMM's main thread, task 1 an unrelated process that exists from boot.
USER_TASKS = 5
#: User tasks, then one kernel thread per CPU (its idle loop; ``kthread`` in programs).
NR_TASKS = USER_TASKS + MAX_CPUS
NR_VMS = 3
#: So many signal frames a task's stack has at most: so deep handlers nest.
NR_SIGFRAMES = 3
#: The number, beside those, of the one that a task has made itself, in memory of its own.
OWN_SIGFRAME = NR_SIGFRAMES
#: What of the memory that a signal frame takes may not be written: all of it, or its lower end, struct rt_sigframe.
UNWRITABLE_NOTHING, UNWRITABLE_ALL, UNWRITABLE_RT_SIGFRAME = range(3)
#: What get_sigframe() leaves alone below the stack pointer, and what a call of a 64-bit task pushes, in bytes.
REDZONE_SIZE, RETURN_ADDRESS_SIZE = 128, 8
#: Bytes that are more than any signal frame takes, with what lies between two of them.
LARGEST_SIGFRAME = 32768
#: Address spaces that can exist: one for each task, or kept by a VM.
NR_MMS = NR_TASKS + NR_VMS
#: Those of them that are a process's, or were.
USER_MMS = (*range(USER_TASKS), *range(NR_TASKS, NR_MMS))
NR_VCPUS = 3
#: fpstate 1 is init_fpstate, 2.. are the tasks' embedded ones, the rest is what vzalloc() gives out.
INIT_FPSTATE = 1
FIRST_EMBEDDED = 2
FIRST_VALLOC = FIRST_EMBEDDED + NR_TASKS
NR_FPSTATES = FIRST_VALLOC + 9

#: Bit 63 of the guest permission word: the first vCPU of the thread group froze it.
FPU_GUEST_PERM_LOCKED = 1 << 63

# Where a vCPU is.  Between EXITED and the next entry the host runs with interrupts on.
VCPU_OUTSIDE, VCPU_EXITED, VCPU_IN_GUEST = range(3)

# Why the last VM exit happened and is still to be handled (vcpu.exit_pending).
(
    EXIT_NONE,
    EXIT_EXTERNAL_INTERRUPT,
    EXIT_NM,
    EXIT_MSR_READ,
    EXIT_MSR_WRITE,
    EXIT_XSETBV,
    EXIT_HLT,
    EXIT_IO,
    EXIT_CPUID,
    EXIT_VMLAUNCH,
    EXIT_CR4_WRITE,
    EXIT_SHUTDOWN,
    EXIT_EMULATED_LOAD,
    EXIT_EMULATED_STORE,
    EXIT_HYPERCALL,
    EXIT_USER_XSETBV,
) = range(16)

# kvm_run.exit_reason (include/uapi/linux/kvm.h).
KVM_EXIT_UNKNOWN = 0
KVM_EXIT_IO = 2
KVM_EXIT_HLT = 5
KVM_EXIT_SHUTDOWN = 8
KVM_EXIT_INTR = 10
#: amx-v1 only; 36 is KVM_EXIT_RISCV_CSR today.
KVM_EXIT_FPU_REALLOC = 36

# kvm_mp_state.mp_state (include/uapi/linux/kvm.h).
KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_HALTED = range(4)
KVM_MP_STATE_SIPI_RECEIVED = 4
KVM_MP_STATE_AP_RESET_HOLD = 9

# What a VMM means to do with a vCPU (GhostVmm.intent).
INTENT_NONE, INTENT_COPY, INTENT_INVISIBLE, INTENT_RESET, INTENT_OUT_OF_RESET = range(5)
#: The guest is to find the processor as after a reset, so its CPUID may be any.
RESETS = (INTENT_RESET, INTENT_OUT_OF_RESET)

# What a VMM has read of a vCPU (GhostVmm.kept).
KEPT_XCR0, KEPT_IMAGE, KEPT_FPU = 1, 2, 4
KEPT_XFD, KEPT_XFD_ERR, KEPT_XSS, KEPT_U_CET, KEPT_PL0_SSP = 8, 16, 32, 64, 128
KEPT_S_CET, KEPT_PL1_SSP, KEPT_PL2_SSP, KEPT_PL3_SSP, KEPT_INT_SSP_TAB = (1 << bit for bit in range(11, 16))
KEPT_CET = KEPT_U_CET | KEPT_S_CET | KEPT_PL0_SSP | KEPT_PL1_SSP | KEPT_PL2_SSP | KEPT_PL3_SSP | KEPT_INT_SSP_TAB
KEPT_MSRS = KEPT_XFD | KEPT_XFD_ERR | KEPT_XSS | KEPT_CET
# KVM_GET_VCPU_EVENTS, and whether it gave the exception as pending; KVM_GET_NESTED_STATE.
KEPT_EVENTS, KEPT_PENDING, KEPT_NESTED = 256, 512, 1024
# KVM_GET_ONE_REG of SSP; an INIT that KVM_GET_VCPU_EVENTS gave; KVM_GET_SREGS; KVM_GET_MP_STATE.
KEPT_SSP, KEPT_INIT, KEPT_SREGS, KEPT_MP_STATE = (1 << bit for bit in range(16, 20))

# vcpu->arch.complete_userspace_io: which callback the next KVM_RUN starts with.
COMPLETE_NONE, COMPLETE_SKIP_INSN, COMPLETE_FAST_PIO = range(3)

# What a VM is: one of KVM_X86_DEFAULT_VM's type that KVM_SEV_ES_INIT made, or of its type from the start.
VM_DEFAULT, VM_SEV_ES, VM_X86_SEV_ES_VM, VM_X86_TDX_VM, VM_X86_SNP_VM = range(5)

# What the firmware has of an SEV-SNP VM: no context, one whose guest is being launched, one whose guest was.
SNP_NONE, SNP_LAUNCHING, SNP_RUNNING = range(3)

# Whether a task's LBRs are in its context (lbr_stack_state).
LBR_NONE, LBR_VALID = range(2)

NMI_VECTOR = 2
NM_VECTOR = 7
DF_VECTOR = 8
GP_VECTOR = 13
#: The exceptions that there are, by their vectors.
VECTORS = {NM_VECTOR: "#NM", DF_VECTOR: "#DF", GP_VECTOR: "#GP"}


def task_contents(task: int, number: int) -> int:
    """Register contents that belong to a task."""
    return (task + 1) << OWNER_SHIFT | number


def pasid_of(mm: int) -> int:
    """What IA32_PASID holds in a thread of that address space, of a process's: kernel threads have none."""
    return (1 + USER_TASKS + (mm if mm < USER_TASKS else mm - MAX_CPUS)) << OWNER_SHIFT | 1


def _constants(prefix: str) -> dict[int, str]:
    """The names of this module that begin so, by their values."""
    return {value: name for name, value in globals().items() if name.startswith(prefix)}


#: -1: none.
CpuNr = Annotated[I8, Reference("cpu")]
#: 0: none, as of every other that is plus 1.
CpuPlus1 = Annotated[U8, Reference("cpu", 1)]
TaskNr = Annotated[U8, Reference("task")]
TaskPlus1 = Annotated[U8, Reference("task", 1)]
VcpuNr = Annotated[U8, Reference("vcpu")]
VcpuPlus1 = Annotated[U8, Reference("vcpu", 1)]
VmNr = Annotated[U8, Reference("vm")]
#: An address space, which has no structure of its own, or :data:`NO_MM`.
MmNr = Annotated[U8, Reference("mm")]
#: A pointer to an fpstate, or :data:`NULL`.
FpstateNr = Annotated[U8, Reference("fpstate")]
VmMask = Annotated[U8, Mask("vm")]
VmType = Annotated[U8, Enumeration("VM type", _constants("VM_"))]
SnpContext = Annotated[U8, Enumeration("SNP context", _constants("SNP_"))]
VcpuMode = Annotated[U8, Enumeration("vCPU mode", _constants("VCPU_"))]
ExitKind = Annotated[U8, Enumeration("VM exit", _constants("EXIT_"))]
MP_STATE_NAMES = _constants("KVM_MP_STATE_")
KvmMpState = Annotated[U8, Enumeration("MP state", MP_STATE_NAMES)]
KvmExitReason = Annotated[U8, Enumeration("KVM exit reason", _constants("KVM_EXIT_"))]
Intent = Annotated[U8, Enumeration("intent", _constants("INTENT_"))]
#: Which of all owners of contents that guests can be, plus 1; 0: the one that the vCPU is made for.
TenantPlus1 = Annotated[U8, Reference("tenant", 1)]
#: Numbers of contents, as tokens are written in programs.
TokenMask = Annotated[U8, Mask("token")]
TenantMask = Annotated[U32, Mask("tenant")]
#: What a VMM has read (KEPT_*).
Kept = Annotated[U32, Mask("kept thing")]
UserspaceIo = Annotated[U8, Enumeration("completion of user space I/O", _constants("COMPLETE_"))]
Unwritable = Annotated[U8, Enumeration("part of a signal frame", _constants("UNWRITABLE_"))]
Vector = Annotated[U8, Enumeration("exception vector", VECTORS)]
#: 0, or an error code less than 0.
Errno = Annotated[I8, Kind("errno")]


@struct()
class FpuStatePerm(Struct):
    """struct fpu_state_perm: what a thread group may use, and the buffer sizes that go with it, in bytes."""

    __slots__ = ()
    state_perm: Annotated[Xfeatures, "__state_perm"]
    state_size: Annotated[Size, "__state_size"]
    user_state_size: Annotated[Size, "__user_state_size"]


@struct()
class Fpstate(Struct):
    """struct fpstate.  ``alloc_size`` is what was allocated for ``regs``, in bytes; ``freed`` marks a vfree()d one."""

    __slots__ = ()
    allocated: Flag
    freed: Flag
    is_valloc: Flag
    is_guest: Flag
    is_confidential: Flag
    in_use: Flag
    alloc_size: Size
    size: Size
    user_size: Size
    xfeatures: Xfeatures
    user_xfeatures: Xfeatures
    xfd: Xfd
    regs: XsaveArea


@struct()
class Fpu(Struct):
    """struct fpu of a task.  ``task_fpstate`` is ``__task_fpstate``: the host's, while a guest's is installed."""

    __slots__ = ()
    last_cpu: CpuNr
    fpstate: FpstateNr
    task_fpstate: Annotated[FpstateNr, "__task_fpstate"]
    perm: FpuStatePerm
    guest_perm: FpuStatePerm


@struct()
class LbrXsave(Struct):
    """struct x86_perf_task_context_arch_lbr_xsave: of its header whether XSTATE_BV and XCOMP_BV have LBR, and whether
    anything was saved to it."""

    __slots__ = ()
    xstate_bv: Annotated[Flag, "header.xfeatures.lbr"]
    xcomp_bv: Annotated[Flag, "header.xcomp_bv.lbr"]
    compacted: Annotated[Flag, "header.xcomp_bv.compacted"]
    entries: Annotated[Token, "lbr.entries"]


@struct()
class LbrContext(Struct):
    """A task's perf event with LBRs, if it has one, and its context."""

    __slots__ = ()
    event: Flag
    lbr_callstack_users: Count
    lbr_stack_state: Annotated[U8, Enumeration("LBR stack state", {LBR_NONE: "LBR_NONE", LBR_VALID: "LBR_VALID"})]
    xsave: LbrXsave


@struct()
class Task(Struct):
    """struct task_struct and its thread_struct.

    ``on_cpu`` is the CPU number plus 1, or 0; ``user_mode`` says that the task executes user code rather than the
    kernel; ``kvm_run`` is the vCPU (plus 1) whose KVM_RUN ioctl the task is in, ``in_execve`` that it is inside
    execve(2), past the point of no return, ``in_signal`` that it is in the middle of handle_signal(), ``in_sigreturn``
    that it is in that of rt_sigreturn(), ``in_sigframe`` in that of copy_fpstate_to_sigframe().  ``sig_pkru`` is what
    get_sigframe() has read of PKRU.
    ``pf_user_worker`` is PF_IO_WORKER until 6.4: a thread of a process that never leaves the kernel.
    ``ia32``: its program is a 32-bit one (user_64bit_mode() is false, in_ia32_syscall() true).
    ``mm_pasid`` is mm_valid_pasid() of its address space, the same for all that share it; ``pasid_activated``: it has
    that PASID in IA32_PASID.  ``shstk`` is ARCH_SHSTK_SHSTK in
    thread.features: it has a shadow stack; ``wrss`` is ARCH_SHSTK_WRSS, and the two that are locked are
    thread.features_locked.  ``exit_state``: it has exited and waits to be reaped.
    ``vm_fds`` is the bitmap of VMs that it has open.  ``rcu_read_lock_nesting`` is 0 between ops.  ``lbr`` is its perf
    event's.  ``vfork_child``: it sleeps in vfork(), until that child has another address space, or none.
    ``kernel_fpu``: so many times kernel code of it is between kernel_fpu_begin() and kernel_fpu_end(); ``kernel_simd``:
    kernel code of it computes without.
    """

    __slots__ = ()
    exists: Flag
    exit_state: Flag
    in_execve: Flag
    in_signal: Flag
    in_sigreturn: Flag
    in_sigframe: Flag
    kernel_fpu: Count
    kernel_simd: Flag
    vfork_child: TaskPlus1
    vm_fds: VmMask
    mm: MmNr
    on_cpu: CpuPlus1
    kvm_run: VcpuPlus1
    pf_kthread: Flag
    pf_user_worker: Flag
    ia32: Flag
    mm_pasid: Annotated[Flag, "mm.iommu_mm"]
    pasid_activated: Flag
    shstk: Annotated[Flag, "thread.features.shstk"]
    wrss: Annotated[Flag, "thread.features.wrss"]
    shstk_locked: Annotated[Flag, "thread.features_locked.shstk"]
    wrss_locked: Annotated[Flag, "thread.features_locked.wrss"]
    group_leader: TaskNr
    user_mode: Flag
    tif_need_fpu_load: Annotated[Flag, "TIF_NEED_FPU_LOAD"]
    sas_ss_size: Size
    sas_ss_disable: Annotated[Flag, "sas_ss_flags.SS_DISABLE"]
    sas_ss_autodisarm: Annotated[Flag, "sas_ss_flags.SS_AUTODISARM"]
    pkru: Token
    sig_pkru: Annotated[Token, "get_sigframe().pkru"]
    rcu_read_lock_nesting: Count
    lbr: LbrContext
    fpu: Fpu


def inside_call(task: Task) -> bool:
    """Whether it is inside a call that is cut in two: KVM_RUN, execve(), the delivery of a signal, rt_sigreturn(),
    vfork(), or one that uses the FPU."""
    signals = task.in_signal or task.in_sigframe or task.in_sigreturn
    return bool(task.kvm_run or task.in_execve or signals or task.vfork_child or in_section(task))


def in_section(task: Task) -> bool:
    """Whether kernel code of a task's is between two ops that use the FPU, with kernel_fpu_begin() or without."""
    return bool(task.kernel_fpu or task.kernel_simd)


@struct()
class SigFrame(Struct):
    """A signal frame, as far as the FPU is concerned, on a task's stack; ``valid``: the task is in its handler.

    ``stale``: it is in that no more, and the frame still stands where the stack was, below the stack pointer.
    ``magic1``, ``extended_size``, ``xfeatures`` and ``xstate_size`` are struct _fpx_sw_bytes; of the first magic only
    whether it is intact.  ``magic2`` is where FP_XSTATE_MAGIC2 stands, in bytes from the image's start, or 0.
    ``on_altstack``: it lies on the alternate stack, ``altstack_sp`` bytes from its lowest address, and so does the
    stack pointer while it is the innermost that is ``valid``.  ``disarmed``: that stack is the task's no more, as it
    had SS_AUTODISARM.  ``ss_size``, ``ss_disable`` and ``ss_autodisarm`` are uc.uc_stack, the alternate stack that its
    sigreturn brings back.
    ``absent``: the page behind the image's header is not there, so XSAVE and XRSTOR fault; an XRSTOR gets as far as the
    components of ``loadable``.  ``unwritable``: what of the memory that a frame is about to take may not be written.
    ``pkey``: a protection key guards it, which each PKRU but 0 denies.  ``mapped``: memory ends behind so many bytes of
    the image, or, 0, not where anybody looks.
    ``fsave`` is x87 in the header that a 32-bit frame has before the image, as FNSAVE stores it.
    ``null``: uc_mcontext.fpstate is NULL, so nobody looks at the image.  ``misaligned`` is how many bytes lie between
    the image's address and the multiple of 64 below.
    ``user_size`` is fpstate->user_size when it was set up: it says with the place on the stack where the image begins.
    Behind the frame's end ``area`` stays as it is: of what XSAVE does not write the next frame there has these bytes.
    ``legacy`` is the ghost's: what sigreturn has to load whatever XSTATE_BV says, as that is the kernel's, and programs
    that know nothing of XSAVE edit the image without a look at it.

    Of a frame that the task has made itself, which lies in memory of its own, ``valid`` says that the stack pointer is
    at it, inside of rt_sigreturn(), ``stale`` that it is there.
    """

    __slots__ = ()
    valid: Flag
    stale: Flag
    on_altstack: Flag
    disarmed: Flag
    absent: Flag
    unwritable: Unwritable
    pkey: Flag
    null: Annotated[Flag, "uc_mcontext.fpstate.NULL"]
    misaligned: Annotated[Count, "uc_mcontext.fpstate.misaligned"]
    mapped: Size
    user_size: Size
    altstack_sp: Size
    ss_size: Annotated[Size, "uc_stack.ss_size"]
    ss_disable: Annotated[Flag, "uc_stack.SS_DISABLE"]
    ss_autodisarm: Annotated[Flag, "uc_stack.SS_AUTODISARM"]
    loadable: Xfeatures
    magic1: Flag
    magic2: Size
    extended_size: Size
    xstate_size: Size
    xfeatures: Xfeatures
    fsave: Token
    legacy: Xfeatures
    area: XsaveArea


@struct()
class Cpu(Struct):
    """One CPU: its registers and the per-CPU variables.

    ``current`` is a task index; ``fpu_fpregs_owner_ctx`` a task index plus 1, or NULL; ``guest`` the vCPU (plus 1) that
    it executes in VMX non-root operation, or 0.  ``preempt_count`` is 0 between ops, but while a guest runs, which KVM
    enters with preemption disabled, and between kernel_fpu_begin() and kernel_fpu_end().  ``irqs_off``: interrupts are,
    of which the model has the parts that save or load registers.  ``in_kernel_fpu`` is
    ``kernel_fpu_allowed``, and inverted, since 2297554f01df (6.16).  ``cr4_osfxsr`` stands for all bits of CR4 that SSE
    and XSAVE take: INIT clears them.  ``softirq_pending`` is 1, or 2 if its handler does not ask irq_fpu_usable().
    ``resched_points`` counts down to the point at which the task in the kernel there is preempted by ``resched_task``,
    ``hardirq_points`` to that at which an interrupt hits whose handler wants the FPU.
    ``lbr_users``, ``last_task_ctx`` (a task index plus 1, or NULL), ``lbr_xsave`` and ``lbr_entries``, the branches of
    the last sample, are struct cpu_hw_events'.
    """

    __slots__ = ()
    current: TaskNr
    fpu_fpregs_owner_ctx: TaskPlus1
    guest: VcpuPlus1
    preempt_count: Annotated[U32, COUNT]
    resched_points: Count
    resched_task: TaskPlus1
    hardirq_points: Count
    irqs_off: Flag
    lbr_users: Count
    last_task_ctx: TaskPlus1
    lbr_xsave: LbrXsave
    lbr_entries: Token
    softirq_pending: Count
    cr4_osfxsr: Flag
    in_kernel_fpu: Flag
    kernel_fpu_allowed: Flag
    xfd_state: Xfd
    regs: Annotated[CpuRegs, ""]


@struct()
class FpuGuest(Struct):
    """struct fpu_guest.

    ``xfeatures`` is ``user_xfeatures`` and ``perm`` is ``user_perm`` in amx-v1; ``realloc_request`` is amx-v1's alone,
    ``xfd`` amx-px25's.
    """

    __slots__ = ()
    xfeatures: Xfeatures
    perm: Xfeatures
    realloc_request: Xfeatures
    xfd: Xfd
    xfd_err: Xfd
    uabi_size: Size
    fpstate: FpstateNr


@struct()
class KvmRun(Struct):
    """struct kvm_run, the part that the FPU paths touch."""

    __slots__ = ()
    exit_reason: KvmExitReason


@struct()
class VcpuArch(Struct):
    """struct kvm_vcpu_arch, and what the VMCS holds for it.

    ``cpuid_*`` is what KVM_SET_CPUID2 stored: leaf 0xD.0, which sub-leaves of 0xD there are, the flags, and which of
    0x1D and 0x1E are empty (:class:`~xfdfuzz.kernel.kvm.cpuid.CpuidEntries`);
    ``cpuid_osxsave`` (leaf 1), ``cpuid_ospke`` (leaf 7) and the two ``*_ebx``, image sizes for the guest's XCR0, KVM
    itself keeps up to date; ``cpuid_other`` tells CPUIDs apart that differ in nothing else.  ``cpuid_freed``:
    ``cpuid_entries`` points to an array that was freed.  ``nm_intercept`` is bit 7 of the exception bitmap, the
    ``*_intercept`` ones are the MSR bitmap (1: exits).  ``xfd_no_write_intercept`` is ``xfd_out_of_sync`` until
    amx-v3. ``xfd_realloc_request`` exists in the review's alternatives only.  ``init_pending`` is KVM_APIC_INIT in
    the local APIC's pending_events, ``sipi_pending`` KVM_APIC_SIPI.  ``guest_mode``: L2 runs; ``vmcs12_nm``: bit 7 of
    L1's exception bitmap.  ``insn_skips`` counts kvm_skip_emulated_instruction() since the last VM entry.
    ``guest_state_protected``: its registers are encrypted; ``xss_intercept``: IA32_XSS exits although they are and its
    CPUID has XSAVES.  ``vmcs`` is what the VMCS, or VMCB, has of CET while the guest does not run.
    """

    __slots__ = ()
    xcr0: Xfeatures
    guest_supported_xcr0: Xfeatures
    cpuid_xcr0: Annotated[Xfeatures, "cpuid.xcr0"]
    cpuid_xss: Annotated[Xfeatures, "cpuid.xss"]
    cpuid_leaves: Annotated[Xfeatures, "cpuid.leaves"]
    guest_supported_xss: Xfeatures
    ia32_xss: Xfeatures
    cpuid_set: Flag
    cpuid_freed: Annotated[Flag, "cpuid.freed"]
    cpuid_xfd: Annotated[Flag, "cpuid.xfd"]
    cpuid_amx: Annotated[Flag, "cpuid.amx_tile"]
    cpuid_osxsave: Annotated[Flag, "cpuid.osxsave"]
    cpuid_ospke: Annotated[Flag, "cpuid.ospke"]
    cpuid_no_xsave: Annotated[Flag, "cpuid.no_xsave"]
    cpuid_no_xsaves: Annotated[Flag, "cpuid.no_xsaves"]
    cpuid_no_xsaveopt: Annotated[Flag, "cpuid.no_xsaveopt"]
    cpuid_no_xsavec: Annotated[Flag, "cpuid.no_xsavec"]
    cpuid_no_xgetbv1: Annotated[Flag, "cpuid.no_xgetbv1"]
    cpuid_no_palettes: Annotated[Flag, "cpuid.no_palettes"]
    cpuid_no_tmul: Annotated[Flag, "cpuid.no_tmul"]
    cpuid_no_shstk: Annotated[Flag, "cpuid.no_shstk"]
    cpuid_no_ibt: Annotated[Flag, "cpuid.no_ibt"]
    cpuid_other: Annotated[Count, "cpuid.other"]
    cpuid_dynamic_bits_dirty: Flag
    cpuid_0xd_0_ecx: Annotated[Size, "cpuid.0xd.0.ecx"]
    cpuid_0xd_0_ebx: Annotated[Size, "cpuid.0xd.0.ebx"]
    cpuid_0xd_1_ebx: Annotated[Size, "cpuid.0xd.1.ebx"]
    cr0_ts: Annotated[Flag, "cr0.ts"]
    cr4_osxsave: Annotated[Flag, "cr4.osxsave"]
    cr4_pke: Annotated[Flag, "cr4.pke"]
    xfd_no_write_intercept: Flag
    nm_intercept: Flag
    xfd_read_intercept: Flag
    xfd_write_intercept: Flag
    xfd_err_read_intercept: Flag
    xfd_err_write_intercept: Flag
    exception_pending: Annotated[Flag, "exception.pending"]
    exception_injected: Annotated[Flag, "exception.injected"]
    exception_vector: Annotated[Vector, "exception.vector"]
    complete_userspace_io: UserspaceIo
    init_pending: Annotated[Flag, "apic.init_pending"]
    sipi_pending: Annotated[Flag, "apic.sipi_pending"]
    mp_state: KvmMpState
    guest_mode: Annotated[Flag, "nested.guest_mode"]
    vmcs12_nm: Annotated[Flag, "nested.vmcs12.nm_intercept"]
    insn_skips: Count
    guest_state_protected: Flag
    xss_intercept: Flag
    vmcs: CetState
    pkru: Token
    host_pkru: Token
    xfd_realloc_request: Xfeatures
    guest_fpu: FpuGuest


@struct()
class Vcpu(Struct):
    """struct kvm_vcpu.

    ``task`` is the thread inside its KVM_RUN (plus 1), ``preempt_notifier`` the one that has it loaded; ``cpu`` the CPU
    it is loaded on (plus 1); ``last_vmentry_cpu`` is -1 before the first VM entry.  ``exit_*`` is the VM exit that
    waits to be handled, with its MSR index and value; of CPUID these are ECX and EAX before it is handled, then
    EDX:EAX, and ECX:EBX in ``exit_value2``.  ``vmsa`` has the registers of a protected guest, and while it runs those
    of the host that the processor keeps.
    """

    __slots__ = ()
    exists: Flag
    vm: VmNr
    mode: VcpuMode
    task: TaskPlus1
    preempt_notifier: TaskPlus1
    exit_pending: ExitKind
    run_over: Flag
    id: VcpuNr
    cpu: CpuPlus1
    preempted: Flag
    wants_to_run: Flag
    last_vmentry_cpu: CpuNr
    run_ret: Errno
    exit_msr: RegisterIndex
    exit_value: RegisterValue
    exit_value2: RegisterValue
    run: KvmRun
    arch: Annotated[VcpuArch, ""]
    vmsa: CpuRegs


@struct()
class Vm(Struct):
    """struct kvm: its type, the mm that owns it, whether KVM_BUG_ON() declared it dead, and ``vcpus[0]`` (plus 1), or
    NULL.  ``es_active``: it has an SEV-ES guest, or SEV-SNP one; ``need_init``: of such a type, KVM_SEV_INIT2 is
    missing; ``vm_dead``: its guest has gone to another VM.  ``snp_context`` is the firmware's, with the state that it
    is in; ``irqchip_in_kernel``: KVM has its local APICs; ``exception_payload_enabled``: user space can tell a pending
    exception from an injected one."""

    __slots__ = ()
    exists: Flag
    type: VmType
    es_active: Flag
    need_init: Flag
    snp_context: SnpContext
    mm: MmNr
    vm_bugged: Flag
    vm_dead: Flag
    exception_payload_enabled: Flag
    irqchip_in_kernel: Flag
    vcpus_0: VcpuPlus1


@struct(data=xf.PLACES)
class GhostRegs(Struct):
    """What an ideal machine would hold for one guest or one host thread.

    ``undefined``: components whose content the architecture (or an ABI) leaves open; they may hold the old value or the
    initial one, never somebody else's.
    """

    __slots__ = ()
    undefined: Xfeatures
    data: Array[Token]


@struct()
class GhostVcpu(Struct):
    """The ideal vCPU: its registers, XCR0, IA32_XSS, XFD and XFD_ERR, and what the hardware owes it.

    ``insn_owed``: a guest instruction exited and must now complete or fault, exactly once; ``owed_value`` is what it
    will have written then, or what user space wrote to the same register since.  ``nm_owed``: an XFD #NM
    was intercepted and must be delivered, exactly once.  ``exception`` is what the guest gets at its next entry,
    whatever the reason; ``injected``: user space said so, and KVM_SET_REGS leaves it, unless user space called it
    ``pending``.
    """

    __slots__ = ()
    regs: GhostRegs
    xcr0: Xfeatures
    xss: Xfeatures
    xfd: Xfd
    xfd_err: Xfd
    owed_value: RegisterValue
    insn_owed: ExitKind
    nm_owed: Flag
    exception: Vector
    injected: Annotated[Flag, "exception.injected"]
    pending: Annotated[Flag, "exception.pending"]


@struct()
class GhostFpu(Struct):
    """What a VMM has of struct kvm_fpu, x87, SSE and MXCSR."""

    __slots__ = ()
    x87: Token
    sse: Token
    mxcsr: Token


@struct()
class GhostCpuid(Struct):
    """A CPUID array as KVM_SET_CPUID2 stores it; ``flags`` are those of
    :class:`~xfdfuzz.kernel.kvm.cpuid.CpuidEntries`, in their order from bit 0 on."""

    __slots__ = ()
    xcr0: Xfeatures
    xss: Xfeatures
    leaves: Xfeatures
    other: Count
    size: Size
    flags: Annotated[U32, Mask("CPUID flag")]


@struct()
class GhostVmm(Struct):
    """What the VMM of a vCPU means to do, and what it has read of the vCPU and keeps.

    ``tenant`` is whose contents the guest's are, ``tenants`` how often the vCPU was given to another.  While
    ``pending`` is set ``promise`` is the guest as it has to be at its next entry, with CR4.OSXSAVE as ``osxsave``
    has it, CR0.TS as ``ts``, its CPUID as ``cpuid`` has it, and in its L2 or not, whatever the VMM's calls have made of
    it.  ``init_pending`` and ``mp_state``, behind a SIPI that is pending, are promised where KVM_RUN is called.

    ``kept`` says what there is of XCR0, MSRs, ``exception``, the nested state, ``sregs_*``, ``kept_mp_state``,
    ``image`` and ``fpu``, as KVM gave them;
    ``honest`` and ``honest_fpu`` are what it should have given.  ``given`` are the contents that it wrote to the FPU of
    a vCPU that is, or will be, protected: it knows them, and those of ``known`` guests, which came from another vCPU or
    were this one's before.
    """

    __slots__ = ()
    intent: Intent
    pending: Flag
    osxsave: Annotated[Flag, "promise.cr4.osxsave"]
    ts: Annotated[Flag, "promise.cr0.ts"]
    pke: Annotated[Flag, "promise.cr4.pke"]
    guest_mode: Annotated[Flag, "promise.nested.guest_mode"]
    init_pending: Annotated[Flag, "promise.apic.init_pending"]
    mp_state: Annotated[KvmMpState, "promise.mp_state"]
    cpuid: Annotated[GhostCpuid, "promise.cpuid"]
    tenant: TenantPlus1
    tenants: Count
    given: TokenMask
    known: TenantMask
    kept: Kept
    xcr0: Annotated[Xfeatures, "kept.xcr0"]
    xss: Annotated[Xfeatures, "kept.xss"]
    xfd: Annotated[Xfd, "kept.xfd"]
    xfd_err: Annotated[Xfd, "kept.xfd_err"]
    u_cet: Annotated[Token, "kept.u_cet"]
    s_cet: Annotated[Token, "kept.s_cet"]
    pl0_ssp: Annotated[Token, "kept.pl0_ssp"]
    pl1_ssp: Annotated[Token, "kept.pl1_ssp"]
    pl2_ssp: Annotated[Token, "kept.pl2_ssp"]
    pl3_ssp: Annotated[Token, "kept.pl3_ssp"]
    int_ssp_tab: Annotated[Token, "kept.int_ssp_tab"]
    ssp: Annotated[Token, "kept.ssp"]
    exception: Annotated[Vector, "kept.exception"]
    nested_guest_mode: Annotated[Flag, "kept.nested.guest_mode"]
    nested_nm: Annotated[Flag, "kept.nested.vmcs12_nm"]
    sregs_osxsave: Annotated[Flag, "kept.cr4.osxsave"]
    sregs_ts: Annotated[Flag, "kept.cr0.ts"]
    sregs_pke: Annotated[Flag, "kept.cr4.pke"]
    kept_mp_state: Annotated[KvmMpState, "kept.mp_state"]
    image: Annotated[XsaveArea, "kept.image"]
    fpu: Annotated[GhostFpu, "kept.fpu"]
    honest: GhostVcpu
    honest_fpu: GhostRegs
    promise: GhostVcpu


@struct()
class GhostTracer(Struct):
    """What somebody means to do with a task, and the image that was read of it and is kept.

    While there is an ``intent`` the task has to have the registers of ``promise`` when it goes on.  ``image`` is as
    ptrace gave it, ``honest`` what it should have had; ``kept``: there is one.
    """

    __slots__ = ()
    intent: Intent
    kept: Flag
    image: Annotated[XsaveArea, "kept.image"]
    honest: GhostRegs
    promise: GhostRegs


@struct(tasks=USER_TASKS, vcpus=NR_VCPUS, vmms=NR_VCPUS, tracers=USER_TASKS)
class Ghost(Struct):
    """Nothing that a kernel may read."""

    __slots__ = ()
    tasks: Array[GhostRegs]
    vcpus: Array[GhostVcpu]
    vmms: Array[GhostVmm]
    tracers: Array[GhostTracer]


@struct(
    cpus=MAX_CPUS,
    tasks=NR_TASKS,
    sigframes=(OWN_SIGFRAME + 1) * USER_TASKS,
    fpstates=NR_FPSTATES,
    vms=NR_VMS,
    vcpus=NR_VCPUS,
)
class System(Struct):
    """Everything.  ``alloc_failures`` is how many of the next vzalloc()s fail; ``dead``: the host kernel died.

    Of ``sigframes`` the first are each user task's outermost, then come those of handlers that interrupted the first
    ones, and so on (:func:`sigframes_of`), at last those that the tasks have made themselves
    (:func:`own_sigframe_of`).
    """

    __slots__ = ()
    dead: Flag
    alloc_failures: Count
    cpus: Array[Cpu]
    tasks: Array[Task]
    sigframes: Array[SigFrame]
    fpstates: Array[Fpstate]
    vms: Array[Vm]
    vcpus: Array[Vcpu]
    ghost: Ghost


def is_bsp(system: System, vcpu: Vcpu) -> bool:
    """Whether a vCPU is the bootstrap processor, as every one of a VM without KVM_CREATE_IRQCHIP is taken for."""
    return not (system.vms[vcpu.vm].irqchip_in_kernel and vcpu.id)


def can_enter(system: System, vcpu: Vcpu) -> bool:
    """Whether KVM_RUN's loop comes to a VM entry: the vCPU does not wait, and no INIT without a SIPI will have it
    wait."""
    arch = vcpu.arch
    return not arch.mp_state and not (arch.init_pending and not arch.sipi_pending and not is_bsp(system, vcpu))


def can_wake(system: System, vcpu: Vcpu) -> bool:
    """Whether the loop goes round without an entry: an interrupt may wake a halted vCPU, INIT and SIPI any but one that
    is not initialised, whose KVM_RUN has no loop."""
    arch = vcpu.arch
    if can_enter(system, vcpu) or arch.mp_state == KVM_MP_STATE_UNINITIALIZED:
        return False
    return bool(arch.mp_state != KVM_MP_STATE_INIT_RECEIVED or arch.init_pending or arch.sipi_pending)


def mp_state_to_be(system: System, vcpu: Vcpu) -> int:
    """The MP state once KVM has accepted the INIT and the SIPI that are pending."""
    arch = vcpu.arch
    state = arch.mp_state
    if arch.init_pending:
        state = KVM_MP_STATE_RUNNABLE if is_bsp(system, vcpu) else KVM_MP_STATE_INIT_RECEIVED
    return KVM_MP_STATE_RUNNABLE if arch.sipi_pending and state == KVM_MP_STATE_INIT_RECEIVED else state


def sigframes_of(system: System, task: int) -> list[SigFrame]:
    """A user task's signal frames, the outermost first, whether there is anything in them or not."""
    return [system.sigframes[depth * USER_TASKS + task] for depth in range(NR_SIGFRAMES)]


def own_sigframe_of(system: System, task: int) -> SigFrame:
    """The signal frame that a user task has made itself, whether there is anything in it or not."""
    return system.sigframes[OWN_SIGFRAME * USER_TASKS + task]


def handlers_of(system: System, task: int) -> int:
    """In how many signal handlers a user task is, each of which interrupted the one before."""
    return sum([frame.valid for frame in sigframes_of(system, task)])


def enters_altstack(system: System, task: int) -> bool:
    """Whether the next frame would be the first on the alternate stack."""
    return bool(system.tasks[task].sas_ss_size and not on_sig_stack(system, task))


def on_sig_stack(system: System, task: int) -> bool:
    """Whether the stack pointer is on the alternate stack, which is not known of one with SS_AUTODISARM."""
    if system.tasks[task].sas_ss_autodisarm:
        return False
    frame = innermost_handlers_frame(system, task)
    return bool(frame and frame.on_altstack and not frame.disarmed)


def innermost_handlers_frame(system: System, task: int) -> SigFrame | None:
    """The frame of the handler that the task is in, if it is in one."""
    handlers = handlers_of(system, task)
    return sigframes_of(system, task)[handlers - 1] if handlers else None


def may_overflow(system: System, task: int) -> bool:
    """Whether the next frame would be on a stack that SS_AUTODISARM has taken away, with so little room that it might
    lie below: nobody looks at that."""
    frame = innermost_handlers_frame(system, task)
    return bool(frame and frame.disarmed and frame.altstack_sp < LARGEST_SIGFRAME)


def altstack_begins_anew(system: System, task: int) -> bool:
    """Whether the next frame would be at the top of the alternate stack again, over those there: get_sigframe() asks
    sas_ss_flags() below the red zone, where the stack has ended."""
    frame = innermost_handlers_frame(system, task)
    if not frame or system.tasks[task].ia32 or not on_sig_stack(system, task):
        return False
    return frame.altstack_sp <= RETURN_ADDRESS_SIZE + REDZONE_SIZE
