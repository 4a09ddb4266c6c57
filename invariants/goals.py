"""The goals: by area, the situations that this part of the kernel is difficult in."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_XFD, CpuRegs
from xfdfuzz.invariants.sometimes import sometimes
from xfdfuzz.invariants.vocabulary import View
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.state import System, Task, own_sigframe_of
from xfdfuzz.program.fields import OWN
from xfdfuzz.program.ops import (
    coredump,
    guest,
    host,
    kvm,
    processes,
    protected,
    ptrace,
    run,
    signals,
    tasks,
    tracer,
    vmm,
    xsave,
)
from xfdfuzz.program.ops.base import GuestOp, Op, TaskOp
from xfdfuzz.program.step import Image


def _tiles(regs: CpuRegs) -> int:
    """The contents of TILEDATA: 0 is the initial configuration."""
    return regs.data[xf.XTILE_DATA]


def _regs_of(system: System, task: Task) -> CpuRegs:
    """The registers of the CPU that executes a task."""
    return system.cpus[task.on_cpu - 1].regs


def _has_tiles(image: object) -> bool:
    return isinstance(image, Image) and bool(image.xstate_bv & xf.MASK_XTILE_DATA)


def _allocation_failed(view: View) -> bool:
    succeeded = view.step.result.ret in (0, "ok", "resume")
    return not succeeded and view.before.alloc_failures > view.k.system.alloc_failures


def _sets_tiles(view: View) -> bool:
    """Whether a KVM_SET_XSAVE that succeeded gives the guest tiles that are not in their initial configuration."""
    op = view.step.op
    assert isinstance(op, xsave.KvmSetXsave)
    return view.step.result.ret == 0 and bool(op.image.filled & xf.MASK_XTILE_DATA)


# -- guests and KVM_RUN ------------------------------------------------------------------------------------------------


@sometimes(
    "guest-holds-tiles-under-xfd",
    "guest",
    ops=(guest.GuestWrmsr, run.VmEnter),
    needs=(guest.GuestTileload, guest.GuestWrmsr),
)
def guest_holds_tiles_under_xfd(view: View) -> bool:
    """A guest runs with tiles in the registers that its own XFD disables: XSAVES would save them as initial."""
    return bool(view.k.regs.xfd & xf.MASK_XTILE_DATA and _tiles(view.k.regs) and view.k.this_cpu.guest)


@sometimes("guest-has-room-for-tiles", "run", ops=(run.VmEnter,), needs=(guest.GuestTileload,))
def guest_has_room_for_tiles(view: View) -> bool:
    """A guest is entered whose buffer holds the dynamic feature."""
    op = view.step.op
    assert isinstance(op, run.VmEnter)
    fpstate = view.k.fpstates[view.k.vcpus[op.vcpu].arch.guest_fpu.fpstate]
    return bool(fpstate.xfeatures & xf.MASK_XTILE_DATA)


@sometimes("guest-sets-xfd-unseen", "guest", ops=(guest.GuestWrmsr,))
def guest_sets_xfd_unseen(view: View) -> bool:
    """A guest writes IA32_XFD without an exit, so that neither the fpstate nor the shadow knows of it."""
    op = view.step.op
    return isinstance(op, guest.GuestWrmsr) and op.msr == MSR_IA32_XFD and view.step.result.ret == "ok"


@sometimes(
    "softirq-in-exit-finds-tiles-under-xfd",
    "guest",
    ops=(guest.GuestInterruptKernelFpu,),
    needs=(guest.GuestTileload, guest.GuestWrmsr),
)
def softirq_in_exit_finds_tiles_under_xfd(view: View) -> bool:
    """A softirq takes the registers on the way out of a guest that holds tiles which its XFD disables."""
    op = view.step.op
    assert isinstance(op, guest.GuestInterruptKernelFpu)
    regs = _regs_of(view.before, view.before.tasks[view.before.vcpus[op.vcpu].task - 1])
    return bool(regs.xfd & xf.MASK_XTILE_DATA and _tiles(regs))


@sometimes("l1-gets-the-nm", "guest", ops=(run.HandleExit,), needs=(guest.GuestVmlaunchNm, guest.GuestTileload))
def l1_gets_the_nm(view: View) -> bool:
    """L2's XFD #NM is an exit to L1, which finds the cause in IA32_XFD_ERR."""
    op = view.step.op
    assert isinstance(op, run.HandleExit)
    before, after = view.before.vcpus[op.vcpu], view.k.vcpus[op.vcpu]
    reflected = before.arch.guest_mode and not after.arch.guest_mode
    return bool(reflected and before.exit_pending == st.EXIT_NM and before.arch.guest_fpu.xfd_err)


@sometimes("nm-waits-with-its-xfd-err", "run", ops=(guest.GuestTileload, guest.GuestTilestore, guest.GuestXrstor))
def nm_waits_with_its_xfd_err(view: View) -> bool:
    """A guest's #NM waits to be handled while KVM keeps its IA32_XFD_ERR and the host may use the CPU."""
    op = view.step.op
    assert isinstance(op, GuestOp)
    vcpu = view.k.vcpus[op.vcpu]
    return bool(vcpu.exit_pending == st.EXIT_NM and vcpu.arch.guest_fpu.xfd_err)


@sometimes(
    "exit-waits-while-registers-are-anothers",
    "run",
    ops=(run.HandleExit,),
    needs=(host.Schedule, tasks.UserTileload),
)
def exit_waits_while_registers_are_anothers(view: View) -> bool:
    """A VM exit is handled after another task has had its registers on that CPU."""
    op = view.step.op
    assert isinstance(op, run.HandleExit)
    thread = view.before.vcpus[op.vcpu].task
    owner = view.before.cpus[view.before.tasks[thread - 1].on_cpu - 1].fpu_fpregs_owner_ctx
    return owner not in (st.NULL, thread)


@sometimes("vcpu-moves-to-another-cpu", "run", ops=(run.VmEnter,), needs=(host.Schedule,), cpus=2)
def vcpu_moves_to_another_cpu(view: View) -> bool:
    """A vCPU is entered on another CPU than the last time: XFD, XFD_ERR and the registers have to come along."""
    op = view.step.op
    assert isinstance(op, run.VmEnter)
    vcpu = view.before.vcpus[op.vcpu]
    return vcpu.last_vmentry_cpu not in (-1, view.before.tasks[vcpu.task - 1].on_cpu - 1)


@sometimes("vcpu-enters-after-losing-its-registers", "run", ops=(run.VmEnter,), needs=(host.SoftirqKernelFpu,))
def vcpu_enters_after_losing_its_registers(view: View) -> bool:
    """Between exit and entry the registers were given away, so that entering loads them again."""
    op = view.step.op
    assert isinstance(op, run.VmEnter)
    return bool(view.before.tasks[view.before.vcpus[op.vcpu].task - 1].tif_need_fpu_load)


@sometimes("exception-outlives-its-run", "run", ops=(run.KvmRunReturns,), needs=(guest.GuestTileload,))
def exception_outlives_its_run(view: View) -> bool:
    """KVM_RUN returns with a #NM that the guest has not got yet: user space may save and change what it goes with."""
    return any(
        vcpu.mode == st.VCPU_OUTSIDE and vcpu.arch.exception_pending and vcpu.arch.exception_vector == st.NM_VECTOR
        for _, vcpu in view.vcpus
    )


# -- what a VMM sets, saves and restores -------------------------------------------------------------------------------

_GROWTH = (kvm.KvmSetCpuid2, kvm.KvmSetCpuid2Supported, kvm.KvmSetMsrs, xsave.KvmSetXsave, run.KvmRun)


@sometimes(
    "guest-buffer-cannot-grow",
    "kvm",
    ops=(*_GROWTH, run.KvmRunReturns, run.HandleExit),
    needs=(host.FailAlloc, kvm.KvmSetCpuid2),
)
def guest_buffer_cannot_grow(view: View) -> bool:
    """There is no memory for a guest's larger buffer: what was asked for must fail, and leave everything as it was."""
    return _allocation_failed(view)


@sometimes("xsave-is-set-under-xfd", "xsave", ops=(xsave.KvmSetXsave,), needs=(kvm.KvmSetMsrs,))
def xsave_is_set_under_xfd(view: View) -> bool:
    """A restore brings tiles for a guest whose XFD disables them already."""
    op = view.step.op
    assert isinstance(op, xsave.KvmSetXsave)
    return _sets_tiles(view) and bool(view.before.ghost.vcpus[op.vcpu].xfd & xf.MASK_XTILE_DATA)


@sometimes("xsave-is-set-before-xcr0", "xsave", ops=(xsave.KvmSetXsave,), needs=(kvm.KvmSetXcrs,))
def xsave_is_set_before_xcr0(view: View) -> bool:
    """A restore brings tiles before the XCR0 that enables them."""
    op = view.step.op
    assert isinstance(op, xsave.KvmSetXsave)
    return _sets_tiles(view) and not view.before.vcpus[op.vcpu].arch.xcr0 & xf.MASK_XTILE_DATA


@sometimes(
    "xsave-is-read-with-tiles",
    "xsave",
    ops=(xsave.KvmGetXsave2,),
    needs=(guest.GuestTileload,),
)
def xsave_is_read_with_tiles(view: View) -> bool:
    """User space saves a guest that has tiles."""
    return _has_tiles(view.step.result.out)


# -- the host around them ----------------------------------------------------------------------------------------------


@sometimes("suspend-takes-tiles", "host", ops=(host.Suspend,), needs=(tasks.UserTileload,))
def suspend_takes_tiles(view: View) -> bool:
    """The machine is suspended while the registers hold tiles, and a dynamic feature's XFD has to come back."""
    op = view.step.op
    assert isinstance(op, host.Suspend)
    return bool(_tiles(_regs_of(view.before, view.before.tasks[op.task])))


@sometimes("cpu-goes-offline-in-kvm-run", "host", ops=(host.Hotplug,), needs=(run.KvmRun,), cpus=2)
def cpu_goes_offline_in_kvm_run(view: View) -> bool:
    """A CPU goes offline under a vCPU between exit and entry, and comes back with blank registers."""
    op = view.step.op
    assert isinstance(op, host.Hotplug)
    return bool(view.before.tasks[view.before.cpus[op.cpu].current].kvm_run)


@sometimes("cpu-idles-with-tiles", "host", ops=(host.Idle,), needs=(tasks.UserTileload,))
def cpu_idles_with_tiles(view: View) -> bool:
    """A CPU goes to a deep idle state with somebody's tiles in the registers, which keep it from going deeper."""
    op = view.step.op
    assert isinstance(op, host.Idle)
    return bool(_tiles(view.before.cpus[op.cpu].regs))


@sometimes("task-comes-back-to-a-cpu-it-left", "host", ops=(host.Schedule,), cpus=2)
def task_comes_back_to_a_cpu_it_left(view: View) -> bool:
    """A CPU still names a task as owner of its registers, which has since loaded them on another one: one half of
    fpregs_state_valid() holds, the other does not."""
    op = view.step.op
    assert isinstance(op, host.Schedule)
    last = view.before.tasks[op.task].fpu.last_cpu
    return view.before.cpus[op.cpu].fpu_fpregs_owner_ctx == op.task + 1 and last != op.cpu


# -- signals and ptrace ------------------------------------------------------------------------------------------------


@sometimes("frame-holds-tiles", "signals", ops=(signals.Signal,), needs=(tasks.UserTileload,))
def frame_holds_tiles(view: View) -> bool:
    """A signal interrupts a task that has tiles, and its frame takes them."""
    return _has_tiles(view.step.result.out)


@sometimes("signal-delivery-is-preempted", "signals", ops=(signals.SignalDelivered,), needs=(host.ScheduleKthread,))
def signal_delivery_is_preempted(view: View) -> bool:
    """A task loses its CPU between the frame and the handler, and its registers are to be loaded."""
    op = view.step.op
    assert isinstance(op, signals.SignalDelivered)
    return bool(view.before.tasks[op.task].tif_need_fpu_load)


@sometimes("sigreturn-brings-tiles", "signals", ops=(signals.Sigreturn,), needs=(tasks.UserTileload,))
def sigreturn_brings_tiles(view: View) -> bool:
    """A handler returns, and tiles come back from its frame."""
    op = view.step.op
    assert isinstance(op, signals.Sigreturn)
    return view.step.result.ret == "ok" and bool(_tiles(_regs_of(view.k.system, view.k.tasks[op.task])))


@sometimes("sigreturn-refuses-its-frame", "signals", ops=(signals.Sigreturn,), needs=(signals.SigframeWrite,))
def sigreturn_refuses_its_frame(view: View) -> bool:
    """A handler left a frame that faults in XRSTOR: the task gets initial registers and SIGSEGV."""
    return view.step.result.ret == "SIGSEGV"


@sometimes("registers-come-from-a-made-frame", "signals", ops=(signals.Sigreturn,), needs=(signals.SigframeNew,))
def registers_come_from_a_made_frame(view: View) -> bool:
    """A task returns by a frame that it has made itself, and more than x87 and SSE come from it."""
    op = view.step.op
    assert isinstance(op, signals.Sigreturn)
    extended = own_sigframe_of(view.before, op.task).area.xstate_bv & ~xf.MASK_FPSSE
    held = _regs_of(view.k.system, view.k.tasks[op.task])
    brought = any(held.data[i] for i in xf.components_in(extended & view.k.machine.user_xfeatures))
    return op.frame == OWN and view.step.result.ret == "ok" and brought


@sometimes("tracer-sets-tiles", "ptrace", ops=(ptrace.PtraceSetXstate,))
def tracer_sets_tiles(view: View) -> bool:
    """A tracer writes tiles into a tracee's buffer."""
    op = view.step.op
    assert isinstance(op, ptrace.PtraceSetXstate)
    return view.step.result.ret == 0 and bool(op.image.filled & xf.MASK_XTILE_DATA)


@sometimes("tracer-reads-tiles", "ptrace", ops=(ptrace.PtraceGetXstate,), needs=(tasks.UserTileload,))
def tracer_reads_tiles(view: View) -> bool:
    """A tracer finds a tracee's tiles in its buffer."""
    return _has_tiles(view.step.result.out)


# -- core dumps --------------------------------------------------------------------------------------------------------


@sometimes("core-dump-has-tiles", "coredump", ops=(coredump.CoredumpXstate,), needs=(tasks.UserTileload,))
def core_dump_has_tiles(view: View) -> bool:
    """A thread's tiles are in the core file."""
    return _has_tiles(view.step.result.out)


# -- tasks: first use, fork, exec, exit --------------------------------------------------------------------------------

_USING: tuple[type[Op], ...] = (tasks.UserTileload, tasks.UserTilestore)


@sometimes("first-use-grows-the-buffer", "tasks", ops=_USING)
def first_use_grows_the_buffer(view: View) -> bool:
    """The first use of a dynamic feature is a #NM that gives the task a larger buffer."""
    op = view.step.op
    assert isinstance(op, TaskOp)
    fpstates, task = view.k.fpstates, view.k.tasks[op.task]
    grown = not view.before.fpstates[view.before.tasks[op.task].fpu.fpstate].is_valloc
    return grown and bool(fpstates[task.fpu.fpstate].is_valloc)


@sometimes("first-use-finds-no-memory", "tasks", ops=_USING, needs=(host.FailAlloc, tasks.ReqXcompPerm))
def first_use_finds_no_memory(view: View) -> bool:
    """There is no memory for the larger buffer at the first use."""
    return _allocation_failed(view)


@sometimes("restore-is-skipped", "tasks", ops=(tasks.ReturnToUser,), needs=(host.ScheduleKthread,))
def restore_is_skipped(view: View) -> bool:
    """A task comes back to registers that nobody else has used: fpregs_state_valid() says so, and nothing is loaded."""
    op = view.step.op
    assert isinstance(op, tasks.ReturnToUser)
    task = view.before.tasks[op.task]
    owner = view.before.cpus[task.on_cpu - 1].fpu_fpregs_owner_ctx
    return bool(task.tif_need_fpu_load and owner == op.task + 1 and task.fpu.last_cpu == task.on_cpu - 1)


@sometimes("fork-copies-tiles-in-use", "processes", ops=(processes.Fork, processes.CloneThread, processes.CloneVm))
def fork_copies_tiles_in_use(view: View) -> bool:
    """A task forks with tiles in its registers, which the child must not get."""
    op = view.step.op
    assert isinstance(op, TaskOp)
    return bool(_tiles(_regs_of(view.before, view.before.tasks[op.task])))


@sometimes("exec-drops-a-grown-buffer", "processes", ops=(processes.Execve,), needs=(tasks.UserTileload,))
def exec_drops_a_grown_buffer(view: View) -> bool:
    """exec() gives a task that used a dynamic feature its first buffer back."""
    op = view.step.op
    assert isinstance(op, processes.Execve)
    return bool(view.before.fpstates[view.before.tasks[op.task].fpu.fpstate].is_valloc)


@sometimes("exec-is-preempted", "processes", ops=(processes.ExecveReturns,), needs=(host.ScheduleKthread,))
def exec_is_preempted(view: View) -> bool:
    """A task loses its CPU in the middle of fpu_flush_thread(), and its registers are to be loaded."""
    op = view.step.op
    assert isinstance(op, processes.ExecveReturns)
    return bool(view.before.tasks[op.task].tif_need_fpu_load)


@sometimes("leader-exits-before-its-threads", "processes", ops=(processes.Exit,))
def leader_exits_before_its_threads(view: View) -> bool:
    """A thread group's leader, whose permissions count for all, is a zombie while another thread runs."""
    return any(
        task.group_leader != nr and view.k.tasks[task.group_leader].exit_state and not task.exit_state
        for nr, task in view.tasks
    )


@sometimes(
    "vm-outlives-its-process",
    "processes",
    ops=(processes.Exit, processes.Execve),
    needs=(processes.Fork, kvm.KvmCreateVm),
)
def vm_outlives_its_process(view: View) -> bool:
    """A VM is kept by a forked process that cannot use it, after the one that made it is gone."""
    alive = {task.mm for _, task in view.tasks if not task.exit_state}
    return any(vm.exists and vm.mm not in alive for vm in view.k.vms)


@sometimes("another-vcpu-gets-what-was-kept", "vmm", ops=(vmm.LoadXsave,))
def another_vcpu_gets_what_was_kept(view: View) -> bool:
    """A VMM loads what it has read of one vCPU into another one."""
    op = view.step.op
    assert isinstance(op, vmm.LoadXsave)
    held = view.before.ghost.vmms[op.source].image.xstate_bv
    return view.step.result.ret == 0 and op.vcpu != op.source and bool(held)


@sometimes("changed-register-is-written-back", "tracer", ops=(tracer.LoadXstate,))
def changed_register_is_written_back(view: View) -> bool:
    """A tracer writes back what it has read, with a register changed that was initial."""
    op = view.step.op
    assert isinstance(op, tracer.LoadXstate)
    held = view.before.ghost.tracers[op.source].image.xstate_bv
    return view.step.result.ret == 0 and any(
        op.change.set & ~held & 1 << i for i, content in op.change.contents if content
    )


@sometimes("new-tenant-is-entered", "vmm", ops=(run.VmEnter,), needs=(vmm.VmmReset,))
def new_tenant_is_entered(view: View) -> bool:
    """A guest runs in a vCPU that was another one's."""
    before = view.before.ghost.vmms[view.vcpu_nr]
    return bool(before.pending) and before.intent == st.INTENT_RESET


@sometimes(
    "sealed-guest-had-registers-set", "protected", ops=(protected.KvmSevLaunchUpdateVmsa,), needs=(xsave.KvmSetXsave,)
)
def sealed_guest_had_registers_set(view: View) -> bool:
    """A guest is sealed whose VMM has given it registers that are not initial."""
    regs = [view.before.fpstates[vcpu.arch.guest_fpu.fpstate].regs for vcpu in view.before.vcpus if vcpu.exists]
    return view.step.result.ret == 0 and any(area.xstate_bv & ~xf.MASK_PKRU for area in regs)


@sometimes(
    "softirq-hits-a-protected-guests-exit",
    "protected",
    ops=(host.SoftirqKernelFpu,),
    needs=(protected.KvmCreateVmOfType,),
)
def softirq_hits_a_protected_guests_exit(view: View) -> bool:
    """The kernel uses the FPU while a guest is loaded that it cannot save."""
    op = view.step.op
    assert isinstance(op, host.SoftirqKernelFpu)
    current = view.before.tasks[view.before.cpus[op.cpu].current]
    return bool(current.kvm_run and view.before.vcpus[current.kvm_run - 1].arch.guest_state_protected)
