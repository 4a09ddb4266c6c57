"""The whole modelled system as one C structure.

The kernel's own structs by the kernel's own names, nested; a pointer is an index into a fixed pool, so a system is
copied, hashed and sent between processes as its bytes.  0 is NULL in every pointer, so pools of things that are pointed
to start at 1 (:data:`NULL`); ``current``, which is never NULL, is a plain index.

The last member, :class:`Ghost`, is what an ideal machine would hold.  Ops write it, kernels never do, invariants
compare.
"""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import CpuRegs
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.machine import MAX_CPUS
from xfdfuzz.memory.cstruct import I8, U8, U32, U64, Array, Struct, struct

NULL = 0
#: The address space of a task that has exited.
NO_MM = 0xFF

#: User tasks that can exist; task 0 is the VMM's main thread, task 1 an unrelated process that exists from boot.
USER_TASKS = 5
#: User tasks, then one kernel thread per CPU (its idle loop; ``kthread`` in programs).
NR_TASKS = USER_TASKS + MAX_CPUS
NR_VMS = 3
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
) = range(10)

# kvm_run.exit_reason (include/uapi/linux/kvm.h).
KVM_EXIT_UNKNOWN = 0
KVM_EXIT_IO = 2
KVM_EXIT_HLT = 5
KVM_EXIT_INTR = 10
#: amx-v1 only; 36 is KVM_EXIT_RISCV_CSR today.
KVM_EXIT_FPU_REALLOC = 36

# vcpu->arch.complete_userspace_io: which callback the next KVM_RUN starts with.
COMPLETE_NONE, COMPLETE_SKIP_INSN, COMPLETE_FAST_PIO = range(3)

NM_VECTOR = 7
DF_VECTOR = 8
GP_VECTOR = 13


@struct()
class FpuStatePerm(Struct):
    """struct fpu_state_perm: what a thread group may use, and the buffer sizes that go with it, in bytes."""

    __slots__ = ()
    state_perm: U64
    state_size: U32
    user_state_size: U32


@struct()
class Fpstate(Struct):
    """struct fpstate.  ``alloc_size`` is what was allocated for ``regs``, in bytes; ``freed`` marks a vfree()d one."""

    __slots__ = ()
    allocated: U8
    freed: U8
    is_valloc: U8
    is_guest: U8
    is_confidential: U8
    in_use: U8
    alloc_size: U32
    size: U32
    user_size: U32
    xfeatures: U64
    user_xfeatures: U64
    xfd: U64
    regs: XsaveArea


@struct()
class Fpu(Struct):
    """struct fpu of a task.  ``task_fpstate`` is ``__task_fpstate``: the host's, while a guest's is installed."""

    __slots__ = ()
    last_cpu: I8
    fpstate: U8
    task_fpstate: U8
    perm: FpuStatePerm
    guest_perm: FpuStatePerm


@struct()
class Task(Struct):
    """struct task_struct and its thread_struct.

    ``on_cpu`` is the CPU number plus 1, or 0; ``user_mode`` says that the task executes user code rather than the
    kernel; ``kvm_run`` is the vCPU (plus 1) whose KVM_RUN ioctl the task is in, ``in_execve`` that it is inside
    execve(2), past the point of no return, ``in_signal`` that it is in the middle of handle_signal().
    ``exit_state``: it has exited and waits to be reaped.  ``vm_fds`` is the bitmap of VMs that it has open.
    ``rcu_read_lock_nesting`` is 0 between ops.
    """

    __slots__ = ()
    exists: U8
    exit_state: U8
    in_execve: U8
    in_signal: U8
    vm_fds: U8
    mm: U8
    on_cpu: U8
    kvm_run: U8
    pf_kthread: U8
    group_leader: U8
    user_mode: U8
    tif_need_fpu_load: U8
    sas_ss_size: U32
    pkru: U8
    rcu_read_lock_nesting: U8
    fpu: Fpu


@struct()
class SigFrame(Struct):
    """A signal frame on a task's stack, as far as the FPU is concerned; ``valid``: the task is in its handler.

    ``magic1``, ``extended_size``, ``xfeatures`` and ``xstate_size`` are struct _fpx_sw_bytes; of the first magic only
    whether it is intact.  ``magic2`` is where FP_XSTATE_MAGIC2 stands, in bytes from the image's start, or 0.
    """

    __slots__ = ()
    valid: U8
    magic1: U8
    magic2: U32
    extended_size: U32
    xstate_size: U32
    xfeatures: U64
    area: XsaveArea


@struct()
class Cpu(Struct):
    """One CPU: its registers and the per-CPU variables.

    ``current`` is a task index; ``fpu_fpregs_owner_ctx`` a task index plus 1, or NULL; ``guest`` the vCPU (plus 1) that
    it executes in VMX non-root operation, or 0.  ``preempt_count`` is 0 between ops, 1 while a guest runs: KVM
    enters it with preemption disabled.
    """

    __slots__ = ()
    current: U8
    fpu_fpregs_owner_ctx: U8
    guest: U8
    preempt_count: U32
    xfd_state: U64
    regs: CpuRegs


@struct()
class FpuGuest(Struct):
    """struct fpu_guest.

    ``xfeatures`` is ``user_xfeatures`` and ``perm`` is ``user_perm`` in amx-v1; ``realloc_request`` is amx-v1's alone,
    ``xfd`` amx-px25's.
    """

    __slots__ = ()
    xfeatures: U64
    perm: U64
    realloc_request: U64
    xfd: U64
    xfd_err: U64
    uabi_size: U32
    fpstate: U8


@struct()
class KvmRun(Struct):
    """struct kvm_run, the part that the FPU paths touch."""

    __slots__ = ()
    exit_reason: U8


@struct()
class VcpuArch(Struct):
    """struct kvm_vcpu_arch, and what the VMCS holds for it.

    ``cpuid_*`` is what KVM_SET_CPUID2 stored: leaf 0xD.0, and the XFD and AMX_TILE flags; ``cpuid_osxsave`` (leaf 1)
    and the two ``*_ebx``, image sizes for the guest's XCR0, KVM itself keeps up to date.  ``cpuid_freed``:
    ``cpuid_entries`` points to an array that was freed.  ``nm_intercept`` is bit 7 of the exception bitmap, the
    ``*_intercept`` ones are the MSR bitmap (1: exits).  ``xfd_no_write_intercept`` is ``xfd_out_of_sync`` until amx-v3.
    ``xfd_realloc_request`` exists in the review's alternatives only.  ``init_pending`` is
    KVM_APIC_INIT in the local APIC's pending_events.  ``guest_mode``: L2 runs;
    ``vmcs12_nm``: bit 7 of L1's exception bitmap.  ``insn_skips`` counts
    kvm_skip_emulated_instruction() since the last VM entry.
    """

    __slots__ = ()
    xcr0: U64
    guest_supported_xcr0: U64
    cpuid_xcr0: U64
    cpuid_xss: U64
    guest_supported_xss: U64
    ia32_xss: U64
    cpuid_set: U8
    cpuid_freed: U8
    cpuid_xfd: U8
    cpuid_amx: U8
    cpuid_osxsave: U8
    cpuid_dynamic_bits_dirty: U8
    cpuid_0xd_0_ebx: U32
    cpuid_0xd_1_ebx: U32
    cr0_ts: U8
    cr4_osxsave: U8
    xfd_no_write_intercept: U8
    nm_intercept: U8
    xfd_read_intercept: U8
    xfd_write_intercept: U8
    xfd_err_read_intercept: U8
    xfd_err_write_intercept: U8
    exception_pending: U8
    exception_vector: U8
    complete_userspace_io: U8
    init_pending: U8
    guest_mode: U8
    vmcs12_nm: U8
    insn_skips: U8
    pkru: U8
    host_pkru: U8
    xfd_realloc_request: U64
    guest_fpu: FpuGuest


@struct()
class Vcpu(Struct):
    """struct kvm_vcpu.

    ``task`` is the thread inside its KVM_RUN (plus 1); ``cpu`` the CPU it is loaded on (plus 1); ``last_vmentry_cpu``
    is -1 before the first VM entry.  ``exit_*`` is the VM exit that waits to be handled, with its MSR index and value.
    """

    __slots__ = ()
    exists: U8
    vm: U8
    mode: U8
    task: U8
    exit_pending: U8
    run_over: U8
    id: U8
    cpu: U8
    preempted: U8
    wants_to_run: U8
    last_vmentry_cpu: I8
    run_ret: I8
    exit_msr: U32
    exit_value: U64
    run: KvmRun
    arch: VcpuArch


@struct()
class Vm(Struct):
    """struct kvm: the mm that owns it, whether KVM_BUG_ON() declared it dead, and ``vcpus[0]`` (plus 1), or NULL."""

    __slots__ = ()
    exists: U8
    mm: U8
    vm_bugged: U8
    vcpus_0: U8


@struct(data=xf.COMPONENTS + 3)
class GhostRegs(Struct):
    """What an ideal machine would hold for one guest or one host thread.

    ``undefined``: components whose content the architecture (or an ABI) leaves open; they may hold the old value or the
    initial one, never somebody else's.
    """

    __slots__ = ()
    undefined: U64
    data: Array[U8]


@struct()
class GhostVcpu(Struct):
    """The ideal vCPU: its registers, XCR0, IA32_XSS, XFD and XFD_ERR, and what the hardware owes it.

    ``insn_owed``: a guest instruction exited and must now complete or fault, exactly once; ``owed_value`` is what it
    will have written then, or what user space wrote to the same register since.  ``nm_owed``: an XFD #NM
    was intercepted and must be delivered, exactly once.
    """

    __slots__ = ()
    regs: GhostRegs
    xcr0: U64
    xss: U64
    xfd: U64
    xfd_err: U64
    owed_value: U64
    insn_owed: U8
    nm_owed: U8


@struct(tasks=USER_TASKS, vcpus=NR_VCPUS)
class Ghost(Struct):
    """Nothing that a kernel may read."""

    __slots__ = ()
    tasks: Array[GhostRegs]
    vcpus: Array[GhostVcpu]


@struct(cpus=MAX_CPUS, tasks=NR_TASKS, sigframes=USER_TASKS, fpstates=NR_FPSTATES, vms=NR_VMS, vcpus=NR_VCPUS)
class System(Struct):
    """Everything.  ``alloc_failures`` is how many of the next vzalloc()s fail; ``dead``: the host kernel died."""

    __slots__ = ()
    dead: U8
    alloc_failures: U8
    cpus: Array[Cpu]
    tasks: Array[Task]
    sigframes: Array[SigFrame]
    fpstates: Array[Fpstate]
    vms: Array[Vm]
    vcpus: Array[Vcpu]
    ghost: Ghost
