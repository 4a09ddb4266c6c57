"""Register contents: what a guest or a host thread left there is what it finds again."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import CpuRegs
from xfdfuzz.invariants.vocabulary import VMM, Broken, View, component_site, invariant
from xfdfuzz.kernel.event import IRQ_FPU, KERNEL_MXCSR, LOST_STATE, OOPS, WARN, XRSTOR_FAULT
from xfdfuzz.kernel.fpu.init import ZEROED
from xfdfuzz.kernel.state import USER_TASKS, GhostRegs
from xfdfuzz.program import ghost
from xfdfuzz.program.ops.base import Op, TaskOp
from xfdfuzz.program.ops.guest import GuestPmi
from xfdfuzz.program.ops.host import HardirqUnasked, NmiKernelFpu, Pmi, SoftirqUnasked
from xfdfuzz.program.ops.processes import WorkerCopyFromUser
from xfdfuzz.program.ops.run import VmEnter
from xfdfuzz.program.ops.tasks import (
    KernelComputesOn,
    KernelFpuBeginUnasked,
    KernelFpuEnd,
    KernelFpuNotEnded,
    KernelFpuSleeps,
    KernelSimd,
    KernelSimdBegins,
    left_by_section,
)
from xfdfuzz.program.step import Content

#: What kernel code must not do with the FPU.
_MISTAKES: dict[type[Op], str] = {
    KernelSimd: "computes without kernel_fpu_begin()",
    KernelSimdBegins: "computes without kernel_fpu_begin()",
    KernelFpuSleeps: "sleeps between kernel_fpu_begin() and kernel_fpu_end()",
    KernelFpuNotEnded: "returns without kernel_fpu_end()",
}
#: And what only where the kernel does not use it already.
_UNASKED = (SoftirqUnasked, HardirqUnasked, KernelFpuBeginUnasked)
#: Functions between the faulting instruction and the one that decided to restore.
_PLUMBING = (
    "exc_device_not_available",
    "ex_handler_fprestore",
    "os_xrstor",
    "os_xrstor_supervisor",
    "restore_fpregs_from_fpstate",
    "fpregs_restore_userregs",
)


def _differences(regs: CpuRegs, ideal: GhostRegs, own: int, hidden: int = 0) -> Iterator[tuple[int, int, int, bool]]:
    """(component, found, expected, foreign) for what is not as it should be; ``own``: a token of the owner's.

    ``hidden``: what cannot be looked at.
    """
    all_found, all_expected = bytes(regs.data), bytes(ideal.data)
    if all_found == all_expected:
        return
    for i in xf.CONTENTS:
        found, expected = all_found[i], all_expected[i]
        if found == expected or hidden >> i & 1:
            continue
        foreign = ghost.owner(found) != 0 and not ghost.same_owner(found, own)
        if foreign or not ideal.undefined >> i & 1:
            yield i, found, expected, foreign


def _user(view: View) -> Iterator[tuple[CpuRegs, GhostRegs, int, str]]:
    for cpu in view.k.cpus:
        nr = cpu.current
        if nr < USER_TASKS and view.k.tasks[nr].user_mode:
            yield cpu.regs, view.k.system.ghost.tasks[nr], ghost.task_token(nr, 0), f"t{nr}"


def _guest(view: View) -> tuple[CpuRegs, GhostRegs, int, str]:
    nr = view.vcpu_nr
    return view.k.regs, view.k.system.ghost.vcpus[nr].regs, ghost.guest_token(view.k, nr, 0), f"v{nr}"


def _hidden_from_guest(view: View) -> int:
    """A guest without PKRU in XCR0, and with CR4.PKE clear, runs with the host's and cannot see it; nor the LBRs."""
    arch = view.k.vcpus[view.vcpu_nr].arch
    seen = arch.cr4_pke or (arch.cr4_osxsave and view.k.regs.xcr0 & xf.MASK_PKRU)
    return xf.MASK_LBR | (0 if seen else xf.MASK_PKRU)


def _hidden(regs: CpuRegs) -> int:
    """What XFD keeps a host thread from; it counts when the kernel clears XFD.  (A guest clears its own.)  LBRs only
    perf can read."""
    return regs.xcr0 & regs.xfd | xf.MASK_LBR


def _describe(who: str, i: int, found: int, expected: int) -> str:
    return f"{who} finds {ghost.content(found)} in {xf.CONTENTS[i]}, it left {ghost.content(expected)}"


@invariant("guest-registers-preserved", "corruption", ("GSTATE",), ops=(VmEnter,))
def guest_registers_preserved(view: View) -> Iterator[Broken]:
    """A guest must find its registers as it, or user space on its behalf, left them; anything else is silent data
    corruption in the guest.  What the architecture leaves undefined (tile data after XFD was set) may be either the old
    value or the initial one."""
    regs, ideal, own, who = _guest(view)
    k = view.k
    cet = xf.MASK_CET_REGISTERS if k.vcpus[view.vcpu_nr].arch.guest_supported_xss & xf.MASK_CET else 0
    has = xf.MASK_MXCSR | regs.xcr0 | cet
    for i, found, expected, foreign in _differences(regs, ideal, own, _hidden_from_guest(view)):
        if not foreign and has >> i & 1:
            yield Broken(_describe(who, i, found, expected), component_site(i))


@invariant("host-registers-preserved", "corruption", ("HSTATE",), ops=(TaskOp, WorkerCopyFromUser))
def host_registers_preserved(view: View) -> Iterator[Broken]:
    """A host thread must find its registers in user mode as it left them; anything else is silent data corruption.  A
    worker has a PKRU to touch its process' memory with: that of its creator, or what a tracer has written."""
    op, touched = view.step.op, view.step.result.out
    if isinstance(op, WorkerCopyFromUser) and isinstance(touched, Content):
        ideal = view.k.system.ghost.tasks[op.task]
        if touched != ideal.data[xf.PKRU] and not ideal.undefined >> xf.PKRU & 1:
            yield Broken(_describe(f"t{op.task}", xf.PKRU, touched, ideal.data[xf.PKRU]), component_site(xf.PKRU))
    for regs, ideal, own, who in _user(view):
        for i, found, expected, foreign in _differences(regs, ideal, own, _hidden(regs)):
            if not foreign:
                yield Broken(_describe(who, i, found, expected), component_site(i))


@invariant("no-foreign-registers", "leak", ("HSTATE", "GSTATE"), ops=(VmEnter, TaskOp))
def no_foreign_registers(view: View) -> Iterator[Broken]:
    """Register contents of one owner must never be visible to another: a guest that sees the VMM's registers, a thread
    that sees another's, has read memory that it must not read."""
    in_guest = isinstance(view.step.op, VmEnter)
    parties = [_guest(view)] if in_guest else _user(view)
    for regs, ideal, own, who in parties:
        hidden = _hidden_from_guest(view) if in_guest else _hidden(regs)
        for i, found, expected, foreign in _differences(regs, ideal, own, hidden):
            if foreign:
                yield Broken(_describe(who, i, found, expected), component_site(i))
        pointers = regs.error_pointers
        if ghost.owner(pointers) and not ghost.same_owner(pointers, own):
            yield Broken(f"{who} can read {ghost.content(pointers)} in x87's error pointers", "error_pointers")


@invariant("sampled-branches-are-the-threads", "leak", ("HSTATE",), ops=(Pmi, GuestPmi))
def sampled_branches_are_the_threads(view: View) -> Iterator[Broken]:
    """A sample of a perf event has the branches that its thread has taken (PERF_SAMPLE_BRANCH_STACK): those of another
    tell where that has its code, older ones of its own are a false profile."""
    nr = view.k.current_nr
    if not view.k.this_cpu.lbr_users:
        return
    found, ideal = view.k.this_cpu.lbr_entries, view.k.system.ghost.tasks[nr]
    if found != (ideal.data[xf.LBR] or ZEROED) and not ideal.undefined >> xf.LBR & 1:
        whose = "own" if ghost.same_owner(found, ghost.task_token(nr, 0)) or not ghost.owner(found) else "foreign"
        its = ghost.content(ideal.data[xf.LBR])
        yield Broken(f"t{nr} samples {ghost.content(found)}, its branches are {its}", whose)


@invariant("live-state-saved", "corruption", ("INV-15", "GSTATE", "HSTATE"), events=(LOST_STATE,))
def live_state_saved(view: View) -> Iterator[Broken]:
    """When the kernel saves current's registers, every component that is in use and that XFD does not disable must have
    a place in the buffer.  XSAVES writes only what its mask asks for, so the rest is lost without a word."""
    for event in view.events(LOST_STATE):
        yield Broken(f"XSAVES leaves out {xf.format_mask(event.detail[0])}, which is in use", _caller(event.trace))


@invariant("host-xrstor-never-faults", "panic", ("INV-14", "HOST_NM"), events=(XRSTOR_FAULT,))
def host_xrstor_never_faults(view: View) -> Iterator[Broken]:
    """The host must never execute an XRSTOR that faults: #NM, because the image holds a component that IA32_XFD
    disables, kills the kernel; #GP, because header and XCR0 do not fit, makes it throw the task's state away."""
    for event in view.events(XRSTOR_FAULT):
        yield Broken(f"fault in {' <- '.join(event.trace)}", _caller(event.trace))


@invariant("host-kernel-never-oopses", "panic", ("HOST_NM", "LOCK"), events=(OOPS,))
def host_kernel_never_oopses(view: View) -> Iterator[Broken]:
    """No instruction of the host kernel faults without a handler: an XSETBV of an illegal value, a #NM that nobody
    expects, a BUG_ON(): vmalloc() has one that forbids it with bottom halves disabled, as fpregs_lock() leaves them."""
    for event in view.events(OOPS):
        yield Broken(f"oops in {' <- '.join(event.trace)}", next(name for name in event.trace if name != "vzalloc"))


def _caller(trace: tuple[str, ...]) -> str:
    skip = (*_PLUMBING, "os_xsave", "save_fpregs_to_fpstate")
    return next((name for name in trace if name not in skip), trace[-1])


@invariant("kernel-computes-with-default-mxcsr", "panic", ("KFPU",), events=(KERNEL_MXCSR,))
def kernel_computes_with_default_mxcsr(view: View) -> Iterator[Broken]:
    """Between kernel_fpu_begin() and kernel_fpu_end() MXCSR has its default (KFPU_MXCSR, asm/fpu/api.h).  With a
    user's, an exception that the user has unmasked is raised in the kernel, which dies of it, and results are rounded
    as the user likes.  Code that does not call kernel_fpu_begin() is itself to blame."""
    op = view.step.op
    unbegun = isinstance(op, KernelComputesOn) and view.before.tasks[op.task].kernel_simd
    to_blame = unbegun or isinstance(op, KernelSimd | KernelSimdBegins)
    for event in () if to_blame else view.events(KERNEL_MXCSR):
        yield Broken(f"kernel code computes with MXCSR = {ghost.content(event.detail[0])}")


@invariant("kernel-fpu-section-is-undisturbed", "corruption", ("KFPU",), ops=(KernelFpuEnd, KernelComputesOn))
def kernel_fpu_section_is_undisturbed(view: View) -> Iterator[Broken]:
    """Kernel code finds in the registers what it left there, until it has computed: no context switch, no
    softirq and no hard interrupt uses them meanwhile.  What crypto and RAID code computes goes to disks and networks.
    Code that breaks ``kernel-fpu-is-used-by-its-rules`` is itself to blame."""
    op, found = view.step.op, view.step.result.out
    assert isinstance(op, KernelFpuEnd | KernelComputesOn)
    if isinstance(found, Content):
        left = Content(left_by_section(view.before.tasks[op.task]))
        if found != left:
            yield Broken(f"its SSE register holds {found}, it left {left} there")


@invariant("kernel-fpu-is-used-by-its-rules", VMM, ("KFPU",), ops=(*_UNASKED, *_MISTAKES, NmiKernelFpu))
def kernel_fpu_is_used_by_its_rules(view: View) -> Iterator[Broken]:
    """Kernel code uses the FPU between kernel_fpu_begin() and kernel_fpu_end(), which cannot be nested and between
    which it must not sleep; an interrupt asks irq_fpu_usable() first, and a NMI not at all, which that warns of
    (asm/fpu/api.h, fpu/core.c).  The FPU core does
    what it is told: whatever comes of this is the fault of the code that uses it, on every kernel."""
    op = view.step.op
    if type(op) in _MISTAKES:
        yield Broken(f"kernel code {_MISTAKES[type(op)]}", type(op).__name__)
    elif isinstance(op, NmiKernelFpu):
        for _ in view.events(WARN):
            yield Broken("kernel code asks irq_fpu_usable() in a NMI", "nmi")
    elif any(event.detail[-1] for event in view.events(IRQ_FPU)):
        yield Broken("kernel code calls kernel_fpu_begin() where the kernel uses the FPU already", "nested")
