"""Which ops user space can control: exactly, by an approximation, or not at all, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import CET_MSRS
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.fields import INNERMOST, OWN, Cr4, Sregs
from xfdfuzz.program.ops import (
    OPS,
    Op,
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
from xfdfuzz.program.program import Program


class Control(NamedTuple):
    """``how`` an op is approximated, "" where user space does just what the op says; ``no``: why it cannot."""

    how: str = ""
    no: str = ""

    @property
    def word(self) -> str:
        """As reports write it."""
        if self.no:
            return f"no: {self.no}"
        return f"approximated by {self.how}" if self.how else "exact"


EXACT = Control()
Rule = Control | Callable[[Any], Control]


def _approximated(how: str) -> Control:
    return Control(how=how)


def _no(reason: str) -> Control:
    return Control(no=reason)


_VECTOR = _approximated("an instruction that the C code around it is not known to undo")
_TICK = _approximated("waiting in the guest for some ticks of the host's timer")
_PKE = "the guest's CR4.PKE stays clear here"
_DYN2 = _no("no processor has a second dynamic component")


def _facility(op: tasks.ReqXcompGuestPerm) -> Control:
    return _approximated("leaving its compiler the choice of what is undefined") if op.undefined.value else EXACT


def _msr(op: guest.GuestWrmsr) -> Control:
    if op.msr in CET_MSRS:
        return _no("the contents of CET's MSRs are tokens here, and addresses on a real machine")
    return _approximated("leaving it to the processor whether it forgets the data") if op.drop else EXACT


def _read_msr(op: Any) -> Control:
    return _msr(guest.GuestWrmsr(0, op.msr))


def _set_msrs(op: kvm.KvmSetMsrs) -> Control:
    return next((c for index, _ in op.msrs.entries if (c := _msr(guest.GuestWrmsr(0, index))).no), EXACT)


def _pke(cr4: Sregs | Cr4) -> Control:
    return _no(_PKE) if cr4.pke else EXACT


def _set_sregs(op: kvm.KvmSetSregs) -> Control:
    return _no("the code of its guests is 64-bit") if op.sregs.no_lme else _pke(op.sregs)


def _mov_cr4(op: guest.GuestMovCr4) -> Control:
    return _pke(op.cr4)


def _save(op: Any) -> Control:
    return _no("nothing forces a VM exit into the middle of an instruction") if op.torn else EXACT


def _cpuid(op: guest.GuestCpuid) -> Control:
    return _no("of a CPUID only EBX is read here, and that of leaf 1 is no part of it") if op.leaf == 1 else EXACT


def _xrstor(op: tasks.UserXrstor) -> Control:
    return _VECTOR if op.mask & (xf.MASK_FPSSE | xf.MASK_YMM) else EXACT


#: Every op's class.
TABLE: dict[type[Op], Rule] = {
    **dict.fromkeys(
        (
            tasks.GetXcompSupp,
            tasks.GetXcompPerm,
            tasks.GetXcompGuestPerm,
            tasks.ReqXcompPerm,
            tasks.ReturnToUser,
            tasks.UserLdtilecfg,
            tasks.UserTileload,
            tasks.UserTilestore,
            tasks.UserSttilecfg,
            tasks.UserVextractf128,
            tasks.UserXsavec,
            tasks.UserFxsave,
            tasks.UserRdpkru,
            tasks.UserTilerelease,
            tasks.UserWrpkru,
            tasks.UserLdmxcsr,
            tasks.UserStmxcsr,
            tasks.UserXgetbv,
            tasks.UserXsave,
            tasks.Sigaltstack,
            processes.CloneThread,
            processes.CloneVm,
            processes.Fork,
            processes.Execve,
            processes.ExecveReturns,
            processes.Exit,
            signals.Signal,
            signals.SignalNotOnstack,
            signals.SignalDelivered,
            signals.SigframeRead,
            signals.SigframeWrite,
            signals.SigframeLegacy,
            signals.SigframeSwReserved,
            signals.SigframeCopy,
            signals.SigframeCopyOf,
            signals.SigframeNew,
            signals.SigframeFpstate,
            signals.Siglongjmp,
            signals.Sigreturn,
            ptrace.PtraceGetXstate,
            ptrace.PtraceSetXstate,
            ptrace.PtraceGetFpregs,
            ptrace.PtraceSetFpregs,
            kvm.KvmCreateVm,
            kvm.KvmGetSupportedCpuid,
            kvm.KvmGetDeviceAttr,
            kvm.KvmHasDeviceAttr,
            kvm.KvmCreateVcpu,
            kvm.CloseVm,
            kvm.KvmSetCpuid2,
            kvm.KvmSetCpuid2Supported,
            kvm.KvmGetCpuid2,
            kvm.KvmSetRegs,
            kvm.KvmSetXcrs,
            kvm.KvmGetXcrs,
            kvm.KvmGetMpState,
            xsave.KvmCheckXsave2,
            xsave.KvmVmCheckXsave2,
            xsave.KvmGetXsave,
            xsave.KvmGetXsave2,
            xsave.KvmSetXsave,
            xsave.KvmSetFpu,
            xsave.KvmGetFpu,
            run.KvmRun,
            run.VmEnter,
            run.HandleExit,
            run.KvmRunReturns,
            guest.GuestFld,
            guest.GuestMovups,
            guest.GuestVmovups,
            guest.GuestLdtilecfg,
            guest.GuestTileload,
            guest.GuestTilerelease,
            guest.GuestSttilecfg,
            guest.GuestTilestore,
            guest.GuestVextractf128,
            guest.GuestFxsave,
            guest.GuestLdmxcsr,
            guest.GuestStmxcsr,
            guest.GuestXrstor,
            guest.GuestXsetbv,
            guest.GuestXgetbv,
            guest.GuestClts,
            guest.GuestStts,
            guest.GuestHlt,
            guest.GuestOut,
            host.Schedule,
        ),
        EXACT,
    ),
    **dict.fromkeys((tasks.UserFld, tasks.UserMovups, tasks.UserVmovups, tasks.UserFxrstor), _VECTOR),
    **dict.fromkeys((tasks.UserDyn2load, guest.GuestDyn2load), _DYN2),
    **dict.fromkeys((guest.GuestXsave, guest.GuestXsavec, guest.GuestXsaves), _save),
    **dict.fromkeys((guest.GuestRdmsr, kvm.KvmGetMsrs, kvm.KvmGetMsrIndexList, host.HostRdmsr), _read_msr),
    **dict.fromkeys(
        (guest.GuestVmlaunch, guest.GuestVmlaunchNm, kvm.KvmGetNestedState, kvm.KvmSetNestedState),
        _no("the guest would have to be a hypervisor"),
    ),
    tasks.ReqXcompGuestPerm: _facility,
    tasks.UserXrstor: _xrstor,
    kvm.KvmSetMsrs: _set_msrs,
    **dict.fromkeys(
        (kvm.KvmGetVcpuEvents, kvm.KvmSetVcpuEvents, kvm.KvmEnableCapExceptionPayload),
        _no("what else is in struct kvm_vcpu_events, error codes and interrupts, is not written here"),
    ),
    kvm.KvmSetSregs: _set_sregs,
    kvm.KvmGetSregs: _no("what else is in struct kvm_sregs is not looked at here"),
    guest.GuestMovCr4: _mov_cr4,
    **dict.fromkeys((guest.GuestWrpkru, guest.GuestRdpkru), _no(_PKE)),
    **dict.fromkeys(
        (kvm.KvmGetOneReg, kvm.KvmSetOneReg, kvm.KvmGetRegList, guest.GuestRstorssp, guest.GuestRdssp),
        _no("the code of its guests has no shadow stack"),
    ),
    guest.GuestXrstors: _no("supervisor states of a guest are not written here"),
    guest.GuestTilezero: _approximated("TILEZERO of another tile, which leaves the contents as they were"),
    tasks.UserTilezero: _no("contents are told by one tile, and it would zero another"),
    tasks.UserCpuid: _no("what CPUID says is each processor's own"),
    guest.GuestFxrstor: _no("FXRSTOR of a guest is not assembled here"),
    guest.GuestWrmsr: _msr,
    guest.GuestCpuid: _cpuid,
    guest.GuestInterrupt: _TICK,
    guest.GuestInterruptKernelFpu: _approximated(f"{_TICK.how}; whether a softirq uses the FPU then is chance"),
    **dict.fromkeys(
        (guest.GuestEmulatedLoad, guest.GuestEmulatedStore, guest.GuestEmulatedFnstcw, guest.GuestHypercallXmm),
        _no("what makes KVM emulate it is not written here"),
    ),
    guest.GuestUserXsetbv: _no("its guests have no user mode"),
    guest.GuestShutdown: _no("no triple fault is written here"),
    **dict.fromkeys(
        (kvm.KvmCreateIrqchip, kvm.KvmSetMpState, guest.PendSipi, run.Wakeup),
        _no("its VMs have no local APICs in the kernel"),
    ),
    guest.PendInit: _no("an INIT takes a local APIC in the kernel, and another vCPU that sends it"),
    host.ScheduleKthread: _approximated("a pause in which nobody runs on the CPU"),
    host.SoftirqKernelFpu: _approximated("a pause; whether a softirq uses the FPU meanwhile is chance"),
    host.Pmi: _no("LBRs are not read"),
    guest.GuestPmi: _no("LBRs are not read"),
    host.Idle: _approximated("a pause, in which the CPU goes as deep as it likes"),
    **dict.fromkeys(
        (host.Hotplug, host.HotplugStarts, host.HotplugEnds),
        _no("it takes a CPU of the whole machine offline"),
    ),
    host.Suspend: _no("it suspends the whole machine"),
    **dict.fromkeys(
        (host.Preempt, host.HardirqKernelFpu),
        _no("nothing lets it fall at one point inside the kernel"),
    ),
    **dict.fromkeys(
        (
            *(host.SoftirqUnasked, host.HardirqNow, host.HardirqUnasked, host.NmiKernelFpu, host.KthreadKernelFpu),
            *(tasks.KernelFpuBegin, tasks.KernelFpuBeginUnasked, tasks.KernelFpuEnd, tasks.KernelFpuNotEnded),
            *(tasks.KernelFpuSleeps, tasks.KernelSimd, tasks.KernelSimdBegins, tasks.KernelComputesOn),
        ),
        _no("nothing lets user space say which code of the kernel's uses the FPU, and when"),
    ),
    **dict.fromkeys(
        (signals.SignalFaults, signals.SignalFaultIn, signals.SignalGone),
        _no("what the page waits for, or takes it away, is the kernel's"),
    ),
    **dict.fromkeys(
        (signals.SignalUnwritable, signals.SignalHalfUnwritable),
        _no("its stacks do not end where a frame goes"),
    ),
    signals.SigframeChange: _no("what a handler keeps of its frame's image is not written here"),
    signals.SignalPkey: _no("no key guards its alternate stacks"),
    **dict.fromkeys(
        (signals.SigreturnFaults, signals.SigreturnFaultIn, signals.SigreturnGone),
        _no("which components are loaded before the fault is the processor's choice"),
    ),
    tasks.UserGetauxval: _no("the auxiliary vector is not read here"),
    tasks.UserMovEgpr: _no("instructions with R16 to R31 are not assembled here"),
    tasks.PerfEventOpen: _no("LBRs are not read"),
    tasks.PerfEventClose: _no("LBRs are not read"),
    tasks.UserCall: _no("LBRs are not read"),
    tasks.OpenDsa: _no("a device with a shared work queue is there on few machines"),
    tasks.UserEnqcmd: _no("ENQCMD takes a device with a shared work queue"),
    **dict.fromkeys(
        (
            *(processes.ExecveReturnsIa32, signals.SigframeFsave),
            *(ptrace.PtraceGetXfpregs, ptrace.PtraceSetXfpregs),
            *(ptrace.PtraceOldGetFpregs, ptrace.PtraceOldSetFpregs),
            *(ptrace.PtraceOldGetXfpregs, ptrace.PtraceOldSetXfpregs),
        ),
        _no("its programs are 64-bit ones"),
    ),
    processes.Vfork: _no("a task that sleeps in the call answers nobody"),
    **dict.fromkeys(
        (ptrace.PtraceGetSsp, ptrace.PtraceSetSsp, ptrace.PtraceShstkUnlock),
        _no("its tasks have no shadow stacks, whose pointer a tracer could look at"),
    ),
    **dict.fromkeys(
        (tasks.ShstkEnable, tasks.ShstkDisable, tasks.ShstkLock, tasks.ShstkUnlock, tasks.ShstkStatus),
        _no("the rest of the program would have to run on the shadow stack, too"),
    ),
    **dict.fromkeys(
        (processes.CreateIoThread, processes.WorkerCopyFromUser),
        _no("nothing lets a worker of io_uring or vhost act at one point"),
    ),
    **dict.fromkeys(
        (ptrace.ReadArchStatus, ptrace.ReadArchStatusOfKthread),
        _no("what /proc says of another task is not read here"),
    ),
    **dict.fromkeys(
        (kvm.KvmGetSupportedCpuidEntry, kvm.KvmGetCpuid2Entry),
        _no("single entries of a CPUID array are not read here"),
    ),
    **dict.fromkeys(
        (cls for cls in OPS.values() if cls.__module__ == protected.__name__),
        _no("it takes a host with SEV-ES, SEV-SNP or TDX"),
    ),
    **dict.fromkeys(
        (cls for cls in OPS.values() if cls.__module__ == vmm.__name__),
        _no("what a VMM keeps of a guest, and means by it, is not written here"),
    ),
    **dict.fromkeys(
        (cls for cls in OPS.values() if cls.__module__ == tracer.__name__),
        _no("what a tracer keeps of a task, and means by it, is not written here"),
    ),
    **dict.fromkeys(
        (cls for cls in OPS.values() if cls.__module__ == coredump.__name__),
        _no("core files, which go where the machine wants them, are not read here"),
    ),
    host.FailAlloc: _no("user space cannot make one allocation of the kernel's fail"),
}

#: Switches of the machine that a real one cannot have, or few of those that run such files; by their name in
#: :class:`Machine`.
IMPOSSIBLE: dict[str, str] = {
    "dyn2": "no processor has a second dynamic component",
    "dense": "no processor lays out its components without gaps",
    "amd": "its sizes and places are those of AMD's processors",
}
#: How few hosts are booted.
BOOTED: dict[str, str] = {
    "nopku": "it is about a kernel that was booted with nopku",
    "strict_sas_size": "it is about a kernel that was booted with strict_sas_size",
}
#: Switches that are off on few machines that have the rest, by what the program would need.
MISSING: dict[str, str] = {
    "xsave": "it is about a machine without XSAVE",
    "xsaves": "it is about a machine without XSAVES",
    "xsavec": "it is about a machine without XSAVEC",
    "xgetbv1": "it is about a machine without XGETBV(1)",
    "avx": "it is about a machine without AVX",
    "xfd": "it is about a machine without XFD",
}
#: A span that others act in is approximated: they run at the same time, in rounds.
OVERLAP = _approximated("running both at the same time on the same CPU, in many rounds")
#: What its own moves are to meet.
MOVED = _approximated("moving the task from CPU to CPU at random, in many rounds")


def control_of(op: Op) -> Control:
    """How far user space controls an op, as it stands."""
    rule = TABLE[type(op)]
    return rule if isinstance(rule, Control) else rule(op)


def unfit(program: Program) -> str:
    """Why a program cannot be run on a real machine by a file in C, in one line; "" if it can."""
    reason = _machine(program.machine)
    if reason:
        return reason
    for number, op in enumerate(program.ops, 1):
        control = control_of(op)
        if control.no:
            return f"op {number} ({type(op).__name__}): {control.no}"
        if reason := _another_frame(op) or _among_c_code(op):
            return f"op {number} ({type(op).__name__}): {reason}"
        if _mentions_dyn2(op):
            return f"op {number} ({type(op).__name__}): {IMPOSSIBLE['dyn2']}"
    return ""


def _another_frame(op: Op) -> str:
    """What an op does with a signal frame, or a stack, that a handler in C does not."""
    if isinstance(op, signals.SignalNotOnstack) or (isinstance(op, tasks.Sigaltstack) and op.autodisarm):
        return "all handlers in C have the alternate stack, which stays where it is"
    if isinstance(op, signals.SigframeNew) or getattr(op, "frame", INNERMOST) == OWN:
        return "no frame is made in C but by the kernel"
    if isinstance(op, signals.SigframeLegacy):
        return "a handler in C writes the header with the image"
    if isinstance(op, signals.SigframeFpstate):
        return "a handler in C leaves the image of its frame where it is"
    other = isinstance(op, signals.SigframeCopyOf) or getattr(op, "frame", INNERMOST) != INNERMOST
    return "a handler in C comes back by its own frame" if other else ""


def _among_c_code(op: Op) -> str:
    """What an instruction would do that the C code around it does not leave alone."""
    if isinstance(op, tasks.UserFxsave | tasks.UserFxrstor):
        return "x87, all of SSE and MXCSR at once are the C code's as well"
    return "PKRU is read by XSAVE in C" if isinstance(op, tasks.UserRdpkru) else ""


def _machine(machine: Machine) -> str:
    for name, reason in (IMPOSSIBLE | BOOTED).items():
        if getattr(machine, name):
            return f"machine: {reason}"
    for name, reason in MISSING.items():
        if not getattr(machine, name):
            return f"machine: {reason}"
    for name, reason in {"spr4_erratum": "the erratum SPR4", "mpx": "MPX, which no processor with AMX has"}.items():
        if getattr(machine, name) and machine.amx:
            return f"machine: it takes {reason}"
    return ""


def _mentions_dyn2(op: Op) -> bool:
    return any(getattr(op, f.name) == xf.DYN2 for f in fields(op) if f.name == "facility")  # type: ignore[arg-type]
