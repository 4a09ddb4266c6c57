"""Scopes: finite worlds for the exhaustive engine, a machine and the ops that may happen on it.

What a scope leaves out is part of what an exhausted scope says, so each says it.  An op stands here with its arguments;
for register contents one token an owner is enough where only presence, absence and ownership count.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import OWN_SIGFRAME, USER_TASKS
from xfdfuzz.program.fields import INNERMOST, Msrs, UserImage
from xfdfuzz.program.ops import guest, host, kvm, processes, run, signals, tasks, xsave
from xfdfuzz.program.ops.base import Op


@dataclass(frozen=True)
class Scope:
    """A finite world.

    ``tasks`` user tasks and ``vcpus`` vCPUs of one VM exist at most, and ``slots`` allocated fpstates; what an op makes
    beyond that is judged but not gone on from, as is a signal in ``handlers`` handlers.  ``contents`` different values
    an owner may have in a register.  ``alike`` names what is interchangeable: renaming it leads from a reachable state
    to one that behaves the same, because the ops come for all of them.
    """

    name: str
    summary: str
    leaves_out: str
    machine: Machine
    ops: tuple[Op, ...]
    tasks: int = 1
    vcpus: int = 1
    slots: int = 4
    contents: int = 1
    handlers: int = 1
    alike: frozenset[str] = frozenset()

    @property
    def sigframes(self) -> list[int]:
        """Which of the system's signal frames there can be."""
        own = [OWN_SIGFRAME] if any(isinstance(op, signals.SigframeNew) for op in self.ops) else []
        return [depth * USER_TASKS + task for depth in (*range(self.handlers), *own) for task in range(self.tasks)]

    @property
    def returns_inside_out(self) -> bool:
        """Whether nobody looks at a frame whose handler has ended."""
        copies = any(isinstance(op, signals.SigframeCopyOf) for op in self.ops)
        # what a handler says is in its frame without writing it is what an older frame has left there
        claims = any(isinstance(op, signals.SigframeChange) and op.change.set for op in self.ops)
        return not copies and not claims and all(getattr(op, "frame", INNERMOST) == INNERMOST for op in self.ops)

    def first_alike(self, op: Op) -> Op:
        """Of the ops that differ in the number of something interchangeable only, the one with the lowest."""
        names = {name for kind in self.alike for name in _NUMBERED[kind]} & {field.name for field in fields(op)}  # type: ignore[arg-type]
        return replace(op, **dict.fromkeys(names, 0))  # type: ignore[type-var]


#: The fields of an op that say which of what is interchangeable it concerns.
_NUMBERED = {"cpus": ("cpu",), "vcpus": ("vcpu", "id"), "tasks": ("task",)}

#: x87, SSE, AVX and AMX: what is not AMX takes one path through the kernel, whatever there is of it.
_MACHINE = Machine(avx512=False, pku=False, pasid=False)
_FULL = _MACHINE.user_xfeatures
_PLAIN = _FULL & ~xf.MASK_XTILE
_TILES = xf.MASK_XTILE_DATA

_CREATION: tuple[Op, ...] = (tasks.ReqXcompGuestPerm(0), kvm.KvmCreateVm(0), kvm.KvmCreateVcpu(0, 0, 0))


def _settings(vcpu: int) -> tuple[Op, ...]:
    """What a VMM sets before and between KVM_RUNs."""
    return (
        kvm.KvmSetCpuid2(0, vcpu, CpuidEntries(_FULL, True, True)),
        kvm.KvmSetXcrs(0, vcpu, _FULL),
        kvm.KvmSetMsrs(0, vcpu, Msrs(((MSR_IA32_XFD, 0),))),
        kvm.KvmSetMsrs(0, vcpu, Msrs(((MSR_IA32_XFD, _TILES),))),
        xsave.KvmSetXsave(0, vcpu, UserImage(xf.MASK_XTILE, 1)),
    )


def _rare_settings(vcpu: int) -> tuple[Op, ...]:
    """The same with what a VMM sets less often."""
    return (
        kvm.KvmSetCpuid2(0, vcpu, CpuidEntries(_PLAIN, False, False)),
        kvm.KvmSetXcrs(0, vcpu, _PLAIN),
        kvm.KvmSetMsrs(0, vcpu, Msrs(((MSR_IA32_XFD_ERR, _TILES),))),
        xsave.KvmSetXsave(0, vcpu, UserImage(0)),
        kvm.KvmGetMsrs(0, vcpu, MSR_IA32_XFD),
        xsave.KvmGetXsave2(0, vcpu),
    )


def _running(vcpu: int) -> tuple[Op, ...]:
    """KVM_RUN in its parts, and what interrupts the guest."""
    return (
        run.KvmRun(0, vcpu),
        run.VmEnter(vcpu),
        run.HandleExit(vcpu),
        guest.GuestInterrupt(vcpu),
        guest.GuestInterruptKernelFpu(vcpu),
    )


def _guest(vcpu: int) -> tuple[Op, ...]:
    """What a guest does with AMX."""
    return (
        guest.GuestXsetbv(vcpu, _FULL),
        guest.GuestWrmsr(vcpu, MSR_IA32_XFD, 0),
        guest.GuestWrmsr(vcpu, MSR_IA32_XFD, _TILES),
        guest.GuestLdtilecfg(vcpu, 1),
        guest.GuestTileload(vcpu, 1),
        guest.GuestTilerelease(vcpu),
    )


def _rare_guest(vcpu: int) -> tuple[Op, ...]:
    """What it does less often."""
    return (
        guest.GuestXsetbv(vcpu, _PLAIN),
        guest.GuestWrmsr(vcpu, MSR_IA32_XFD_ERR, 0),
        guest.GuestRdmsr(vcpu, MSR_IA32_XFD_ERR),
        guest.GuestHlt(vcpu),
    )


_RETURN = run.KvmRunReturns(0)
_FAILURE = host.FailAlloc(1)


def _host_amx(task: int) -> tuple[Op, ...]:
    """What a process does with AMX of its own."""
    return (
        tasks.ReqXcompPerm(task),
        tasks.UserLdtilecfg(task, 1),
        tasks.UserTileload(task, 1),
        tasks.UserTilerelease(task),
    )


def _exec(task: int) -> tuple[Op, ...]:
    """Another program in the process."""
    return (processes.Execve(task), processes.ExecveReturns(task))


def _signal(task: int) -> tuple[Op, ...]:
    """A signal and its handler."""
    return (signals.Signal(task), signals.SignalDelivered(task), signals.Sigreturn(task))


def _cpu(*turns: int) -> tuple[Op, ...]:
    """What else CPU 0 does: tasks by turns, each of which may return to user mode, its kernel thread, a softirq."""
    user = (op for task in turns for op in (host.Schedule(0, task), tasks.ReturnToUser(task)))
    return (*user, host.ScheduleKthread(0), host.SoftirqKernelFpu(0))


TINY = Scope(
    name="tiny",
    summary="1 CPU, 1 vCPU, the VMM's thread",
    leaves_out=(
        "scheduling, other processes and their use of AMX, signals, a second vCPU, CPU or VM, a second dynamic "
        "feature, other masks than all, all but AMX, and none, register contents beyond one value an owner, close(), "
        "nesting"
    ),
    machine=_MACHINE,
    ops=(
        *_CREATION,
        *_settings(0),
        *_rare_settings(0),
        *_running(0),
        _RETURN,
        *_guest(0),
        *_rare_guest(0),
        host.SoftirqKernelFpu(0),
        _FAILURE,
    ),
)

CONTENTS = replace(
    TINY,
    name="contents",
    summary="as tiny, with 2 values an owner may have in a register",
    leaves_out=TINY.leaves_out.replace("beyond one value", "beyond two values"),
    ops=(
        *TINY.ops,
        guest.GuestLdtilecfg(0, 2),
        guest.GuestTileload(0, 2),
        xsave.KvmSetXsave(0, 0, UserImage(xf.MASK_XTILE, 2)),
        xsave.KvmSetXsave(0, 0, UserImage(0)),
    ),
    contents=2,
)

SMALL = Scope(
    name="small",
    summary="1 CPU, 1 vCPU, the VMM's thread, another process that uses AMX, a kernel thread",
    leaves_out=(
        "signals, exec and exit, a second vCPU, CPU or VM, a second dynamic feature, what a VMM or a guest sets but "
        "for full CPUID and XCR0 and both values of XFD, register contents beyond one value an owner, failing "
        "allocations, close(), nesting"
    ),
    machine=_MACHINE,
    ops=(
        *_CREATION,
        *_settings(0),
        *_running(0),
        _RETURN,
        *_guest(0),
        *_host_amx(1),
        host.Schedule(0, 0),
        host.Schedule(0, 1),
        host.ScheduleKthread(0),
        host.SoftirqKernelFpu(0),
    ),
    tasks=2,
)

MIGRATION = Scope(
    name="migration",
    summary="2 CPUs, 1 vCPU, the VMM's thread that moves between them, kernel threads",
    leaves_out=(
        "other processes, signals, a second vCPU or VM, a second dynamic feature, what a VMM or a guest sets but for "
        "full CPUID and XCR0 and both values of XFD, KVM_SET_XSAVE, register contents beyond one value an owner, "
        "failing allocations, close(), nesting, hotplug"
    ),
    machine=replace(_MACHINE, cpus=2),
    ops=(
        *_CREATION,
        *_settings(0)[:4],
        *_running(0),
        _RETURN,
        *_guest(0),
        *(
            op
            for cpu in (0, 1)
            for op in (host.Schedule(cpu, 0), host.ScheduleKthread(cpu), host.SoftirqKernelFpu(cpu))
        ),
    ),
    alike=frozenset({"cpus"}),
)

TWO_VCPUS = Scope(
    name="two-vcpus",
    summary="1 CPU, 2 vCPUs of one VM that the VMM's thread runs by turns",
    leaves_out=(
        "a thread for each vCPU, scheduling, other processes, a second CPU or VM, a second dynamic feature, what a "
        "VMM or a guest sets but for full CPUID and both values of XFD, KVM_SET_XSAVE, TILERELEASE, register contents "
        "beyond one value an owner, failing allocations, close(), nesting"
    ),
    machine=_MACHINE,
    ops=(
        *_CREATION,
        kvm.KvmCreateVcpu(0, 0, 1),
        *(op for vcpu in (0, 1) for op in (*_settings(vcpu)[:1], *_settings(vcpu)[2:4])),
        *(op for vcpu in (0, 1) for op in (*_running(vcpu), *_guest(vcpu)[:-1])),
        _RETURN,
    ),
    vcpus=2,
    slots=5,
    alike=frozenset({"vcpus"}),
)

HOST = Scope(
    name="host",
    summary="1 CPU, 2 processes that use AMX and execute other programs, a kernel thread; no KVM",
    leaves_out=(
        "KVM, a second CPU, threads, fork and exit, signals, a second dynamic feature, ptrace, register contents "
        "beyond one value an owner, failing allocations"
    ),
    machine=_MACHINE,
    ops=(*(op for task in (0, 1) for op in (*_host_amx(task), *_exec(task))), *_cpu(0, 1)),
    tasks=2,
    alike=frozenset({"tasks"}),
)

SIGNALS = Scope(
    name="signals",
    summary="1 CPU, 2 processes that use AMX and handle signals, a kernel thread; no KVM",
    leaves_out=(
        "KVM, a second CPU, threads, fork, exec and exit, a second dynamic feature, signal frames that their handler "
        "changed, what comes of signals in handlers, other stacks than the default, ptrace, TILERELEASE, register "
        "contents beyond one value an owner, failing allocations"
    ),
    machine=_MACHINE,
    ops=(*(op for task in (0, 1) for op in (*_host_amx(task)[:-1], *_signal(task))), *_cpu(0, 1)),
    tasks=2,
    alike=frozenset({"tasks"}),
)

#: Every scope by its name.
SCOPES: dict[str, Scope] = {scope.name: scope for scope in (TINY, CONTENTS, SMALL, MIGRATION, TWO_VCPUS, HOST, SIGNALS)}
