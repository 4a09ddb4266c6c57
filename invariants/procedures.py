"""What a VMM means to do, and what comes of its calls although the kernel does all that they ask for.

Both sides of a comparison are ideal here: the guest that the VMM means, and the guest that its calls make on a kernel
without a mistake.  Where they differ no kernel can help.  Where the calls leave open what the guest finds, as tile data
that were loaded under IA32_XFD, each kernel decides, so the guest that runs is looked at.  Where the guest is not even
what the calls make of it, the kernel is to blame, and the other invariants say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import CpuidTable
from xfdfuzz.invariants.guests import GuestState, differences, visible_components
from xfdfuzz.invariants.vocabulary import VMM, Broken, View, invariant
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries, stored_entries
from xfdfuzz.kernel.state import GhostVcpu, GhostVmm, Vcpu
from xfdfuzz.program import ghost
from xfdfuzz.program.codecs import codec_of
from xfdfuzz.program.ops.base import OK
from xfdfuzz.program.ops.run import KvmRun, VmEnter
from xfdfuzz.program.ops.tracer import TaskGoesOn
from xfdfuzz.program.ops.vmm import VmmVisible
from xfdfuzz.program.step import NOT_ENABLED, PANIC

#: What an exit that is not done with is called.
_INSTRUCTIONS = dict.fromkeys(range(st.EXIT_USER_XSETBV + 1), "an instruction") | {
    st.EXIT_NONE: "nothing",
    st.EXIT_IO: "an OUT",
    st.EXIT_MSR_WRITE: "a WRMSR",
    **dict.fromkeys((st.EXIT_XSETBV, st.EXIT_USER_XSETBV), "an XSETBV"),
}
#: What a program's author sees who did not ask for a vCPU as it comes out of reset.
_HAS_OSXSAVE = "CR4.OSXSAVE = 0 and 1"
_OSXSAVE_FROM_THE_START = " (without `reset` KVM_CREATE_VCPU makes a vCPU that has it)"


@invariant("procedure-keeps-the-guest", VMM, ("VMM", "GSTATE"), ops=(KvmRun, VmEnter, VmmVisible))
def procedure_keeps_the_guest(view: View) -> Iterator[Broken]:
    """A copy of a vCPU, and a vCPU that was only looked at, is the same guest: its VMM has to write all that KVM does
    not keep by itself, with calls and in an order that KVM's interface gives the guest for.  It waits for what the
    guest waits for, and gets the INIT that is pending.  The kernel did what it was told."""
    nr, vmm = _promise(view)
    if not vmm.pending or vmm.intent in st.RESETS:
        return
    for site, what in _broken(view, nr):
        yield Broken(f"v{nr}: {what}, as its VMM means it and as the VMM's calls make it", site)


@invariant("reset-leaves-nothing", VMM, ("VMM", "GSTATE"), ops=(KvmRun, VmEnter))
def reset_leaves_nothing(view: View) -> Iterator[Broken]:
    """A vCPU that gets another tenant is as it comes out of reset, but for what its VMM gave it: what is left of the
    guest before is data, or a way to send some, or an INIT that was meant for it.  An application processor waits for
    INIT.  The kernel did what it was told."""
    nr, vmm = _promise(view)
    if vmm.pending and vmm.intent == st.INTENT_RESET:
        for site, what in _broken(view, nr):
            yield Broken(f"v{nr}: {what}, as a new tenant finds it and as the VMM's calls leave it", site)


@invariant("reset-is-a-reset", VMM, ("VMM", "GSTATE"), ops=(KvmRun, VmEnter))
def reset_is_a_reset(view: View) -> Iterator[Broken]:
    """A processor comes out of reset with XCR0 = 1, IA32_XSS, IA32_XFD, IA32_XFD_ERR, the MSRs of CET and SSP = 0, and
    with x87, SSE and all else in its initial configuration (SDM vol. 3, "Processor State After Reset"), and waits for
    INIT if it is an application processor (ibid., "Multiple-Processor (MP) Initialization"): firmware and kernels count
    on it.
    The kernel did what it was told."""
    nr, vmm = _promise(view)
    if vmm.pending and vmm.intent == st.INTENT_OUT_OF_RESET:
        never_ran = view.before.vcpus[nr].last_vmentry_cpu == -1
        for site, what in _broken(view, nr):
            hint = _OSXSAVE_FROM_THE_START if never_ran and what == _HAS_OSXSAVE else ""
            yield Broken(f"v{nr}: {what}, after a reset and as the VMM's calls make it{hint}", site)


@invariant("guest-cpuid-is-coherent", VMM, ("VMM", "CPUIDOK"), ops=(KvmRun,))
def guest_cpuid_is_coherent(view: View) -> Iterator[Broken]:
    """The CPUID that a VMM gives a guest is that of a processor that could be (SDM vol. 1, 13.2): without XSAVE there
    is nothing in 0xD, XCR0 can be set to all of 0xD.0, user states are there, supervisor states in 0xD.1, each has its
    sub-leaf, ECX of 0xD.0 is the image's size, IA32_XSS has components where there is XSAVES alone, what a sub-leaf
    says XFD disables there is with XFD alone, and what has AMX_TILE has the components, palettes (0x1D) and TMUL
    (0x1E).  Guests look at some of it and rely on all of it.  What KVM_GET_SUPPORTED_CPUID offers is KVM's."""
    nr, k = view.vcpu_nr, view.k
    arch = view.before.vcpus[nr].arch
    if not arch.cpuid_set or view.before.vcpus[nr].last_vmentry_cpu != -1 or not k.use_xsave:
        return
    table = k.machine.cpuid
    wrong = [*_incoherent(stored_entries(arch), table)]
    # a VMM that hides something else passes on what is wrong in what it is offered
    kvms = {site for site, _ in _incoherent(k.kvm_dev_ioctl_get_cpuid().whole(table), table)} if wrong else set()
    for site, what in wrong:
        if site not in kvms:
            yield Broken(f"v{nr}: its CPUID has {what}", site)


def _incoherent(entries: CpuidEntries, table: CpuidTable) -> Iterator[tuple[str, str]]:
    """(site, what is wrong) in an array as KVM_SET_CPUID2 stores it."""
    supervisor = xf.mask_of(*(i for i, component in table.components.items() if component.supervisor))
    user = (xf.mask_of(*table.components) | xf.MASK_FPSSE) & ~supervisor
    if entries.no_xsave and (enumerated := entries.xcr0 | entries.xss):
        yield "xsave", f"{xf.format_mask(enumerated)} in 0xD and no XSAVE"
    if strangers := entries.xcr0 & supervisor:
        yield "kind", f"{xf.format_mask(strangers)}, which IA32_XSS enables, in 0xD.0"
    if strangers := entries.xss & user:
        yield "kind", f"{xf.format_mask(strangers)}, which XCR0 enables, in 0xD.1"
    if not entries.no_xsave and not xf.legal_xcr0(entries.xcr0):
        yield "xcr0", f"{xf.format_mask(entries.xcr0)} in 0xD.0, which XCR0 cannot be set to"
    if lacking := (entries.xcr0 | entries.xss) & ~xf.MASK_FPSSE & ~entries.leaves:
        yield "leaf", f"{xf.format_mask(lacking)} in 0xD.0 or 0xD.1, and no sub-leaf of it"
    if entries.size != (needed := table.standard_size(entries.xcr0)):
        yield "size", f"{entries.size} bytes in ECX of 0xD.0 for an image of {needed}"
    if entries.xss and entries.no_xsaves:
        yield "xss", f"{xf.format_mask(entries.xss)} in 0xD.1 and no XSAVES"
    if entries.amx and (entries.xcr0 & xf.MASK_XTILE != xf.MASK_XTILE or entries.no_palettes or entries.no_tmul):
        yield "amx", "AMX_TILE and not all that AMX needs"
    if not entries.xfd and (disabled := [i for i in xf.components_in(entries.xcr0) if table.xfd_capable(i)]):
        yield "xfd", f"{xf.format_mask(xf.mask_of(*disabled))}, whose sub-leaf says XFD, and no XFD in 0xD.1"


@invariant("procedure-keeps-the-task", VMM, ("VMM", "HSTATE"), ops=(TaskGoesOn,))
def procedure_keeps_the_task(view: View) -> Iterator[Broken]:
    """A checkpoint that is restored, and a task that a tracer, a signal handler or a call made in its place has been
    at, goes on with the registers that were there: whoever changed some has to put them back.  The kernel did what it
    was told."""
    op = view.step.op
    assert isinstance(op, TaskGoesOn)
    system = view.k.system
    meant, has = system.ghost.tracers[op.task].promise, system.ghost.tasks[op.task]
    for i in ghost.user_contents(view.k):
        unsure = has.undefined >> i & 1
        if not meant.undefined >> i & 1 and (unsure or has.data[i] != meant.data[i]):
            found = "nothing for sure" if unsure else ghost.content(has.data[i])
            wanted = ghost.content(meant.data[i])
            yield Broken(f"t{op.task} goes on with {found} in {xf.CONTENTS[i]}, not {wanted}", xf.CONTENTS[i])


def _promise(view: View) -> tuple[int, GhostVmm]:
    """The vCPU, and what was promised of it before the step."""
    return view.vcpu_nr, view.before.ghost.vmms[view.vcpu_nr]


def _broken(view: View, nr: int) -> Iterator[tuple[str, str]]:
    """(site, what differs) between the guest that was promised and the one that the calls make."""
    if not isinstance(view.step.op, VmEnter):
        yield from _unfinished(view, nr)
        yield from _waits_otherwise(view, nr)
    if not isinstance(view.step.op, KvmRun):
        yield from _found_otherwise(view, nr)


def _unfinished(view: View, nr: int) -> Iterator[tuple[str, str]]:
    """What KVM_RUN completes, if it is not to be completed, or is to be and is not.

    An INIT that KVM_RUN accepts forgets it.
    """
    vcpu, ghosts = view.before.vcpus[nr], view.before.ghost
    meant, made = _owes(ghosts.vmms[nr].promise), _owes(ghosts.vcpus[nr])
    if meant != made and _goes_on(view) and not vcpu.arch.init_pending:
        yield "unfinished", f"KVM_RUN completes {_INSTRUCTIONS[meant]} and {_INSTRUCTIONS[made]}"


def _goes_on(view: View) -> bool:
    """Whether KVM_RUN has begun, or what is invisible has ended."""
    return not isinstance(view.step.op, KvmRun) or view.step.result == OK


def _waits_otherwise(view: View, nr: int) -> Iterator[tuple[str, str]]:
    """An INIT that is pending, or its MP state, which is KVM's if the local APIC is.

    Behind an INIT the MP state is what that makes it.
    """
    system = view.before
    vcpu, vmm = system.vcpus[nr], system.ghost.vmms[nr]
    if not system.vms[vcpu.vm].irqchip_in_kernel or not _goes_on(view):
        return
    state = st.mp_state_to_be(system, vcpu)
    if vmm.init_pending != vcpu.arch.init_pending:
        yield "init", "an INIT is pending and none is" if vmm.init_pending else "no INIT is pending and one is"
    elif not vmm.init_pending and vmm.mp_state != state:
        yield "mp_state", f"its MP state is {st.MP_STATE_NAMES[vmm.mp_state]} and {st.MP_STATE_NAMES[state]}"


def _owes(guest: GhostVcpu) -> int:
    """The exit of an instruction that waits to complete; one that KVM has refused does not."""
    return 0 if guest.exception and not guest.injected else guest.insn_owed


def _found_otherwise(view: View, nr: int) -> Iterator[tuple[str, str]]:
    """What the guest finds at its entry that is not what was promised."""
    entered = isinstance(view.step.op, VmEnter)
    system = view.k.system if entered else view.before
    vcpu, meant, made = system.vcpus[nr], system.ghost.vmms[nr], system.ghost.vcpus[nr]
    components = _readable(view, vcpu)
    written = codec_of(CpuidEntries).write
    if meant.intent not in st.RESETS and (has := stored_entries(vcpu.arch)) != (
        promised := ghost.cpuid_in(meant.cpuid)
    ):
        yield "cpuid", f"its CPUID is {written(promised)} and {written(has)}"
    sure = xf.contents_in(components & ~meant.promise.regs.undefined)
    finds = _finds(view, nr, components)
    # a VMM cares for each component, while to the kernel most are alike
    before, forgotten = view.before.ghost, entered and view.before.vcpus[nr].arch.init_pending
    to_get, gets = (0, 0) if forgotten else (before.vmms[nr].promise.exception, before.vcpus[nr].exception)
    wanted = tuple((i, meant.promise.regs.data[i]) for i in sure)
    yield from differences(
        _found(meant.promise, _Control.promised(meant), to_get, wanted, vcpu),
        # what is delivered at an entry to L2 may lead to L1
        _found(made, _Control.of(vcpu, view.before.vcpus[nr]), gets, tuple((i, finds[i]) for i in sure), vcpu),
        site=xf.CONTENTS.__getitem__,
    )
    own = ghost.guest_token(view.k, nr, 0)
    for i, held in finds.items():
        if i not in sure and ghost.owner(held) and not ghost.same_owner(held, own):
            yield xf.CONTENTS[i], f"it may find {ghost.content(held)} in {xf.CONTENTS[i]}"


def unpromised(view: View) -> Iterator[str]:
    """The contents that a guest finds as its VMM means them, by the entry or the end of what is invisible that the step
    is, although the calls leave them open: another kernel may do otherwise."""
    if not isinstance(view.step.op, VmEnter | VmmVisible) or view.step.result.ret in (NOT_ENABLED, PANIC):
        return
    nr, vmm = _promise(view)
    if vmm.pending:
        system = view.k.system if isinstance(view.step.op, VmEnter) else view.before
        meant, made = system.ghost.vmms[nr].promise.regs, system.ghost.vcpus[nr].regs
        components = _readable(view, system.vcpus[nr]) & ~meant.undefined & made.undefined
        finds = _finds(view, nr, components)
        yield from (xf.CONTENTS[i] for i, held in finds.items() if held == meant.data[i])


def _finds(view: View, nr: int, components: int) -> dict[int, int]:
    """What a guest finds by its VMM's calls, and in this kernel where those leave it open."""
    entered = isinstance(view.step.op, VmEnter)
    system = view.k.system if entered else view.before
    vcpu, made = system.vcpus[nr], system.ghost.vcpus[nr].regs
    area = system.fpstates[vcpu.arch.guest_fpu.fpstate].regs

    def in_kernel(i: int) -> int:
        if i == xf.PKRU:
            return vcpu.arch.pkru
        if entered:
            return view.k.regs.data[i]
        return area.data[i] if (area.xstate_bv | xf.MASK_MXCSR) >> i & 1 else 0

    return {i: in_kernel(i) if made.undefined >> i & 1 else made.data[i] for i in xf.contents_in(components)}


def _readable(view: View, vcpu: Vcpu) -> int:
    """The components that the guest can enable and read, MXCSR and CET's registers."""
    pkru = vcpu.arch.guest_supported_xcr0 & xf.MASK_PKRU if view.k.ospke else 0
    return visible_components(view.k, vcpu) | pkru


class _Control(NamedTuple):
    """CR4.OSXSAVE, CR0.TS and CR4.PKE, and whether it is L2 that goes on."""

    osxsave: bool
    ts: bool
    pke: bool
    l2: bool

    @staticmethod
    def promised(vmm: GhostVmm) -> _Control:
        """As the VMM means it."""
        return _Control(bool(vmm.osxsave), bool(vmm.ts), bool(vmm.pke), bool(vmm.guest_mode))

    @staticmethod
    def of(vcpu: Vcpu, before: Vcpu) -> _Control:
        """What a vCPU has, and where it was ``before`` its entry."""
        arch = vcpu.arch
        return _Control(bool(arch.cr4_osxsave), bool(arch.cr0_ts), bool(arch.cr4_pke), bool(before.arch.guest_mode))


def _found(
    guest: GhostVcpu, control: _Control, exception: int, registers: tuple[tuple[int, int], ...], vcpu: Vcpu
) -> GuestState:
    """What an ideal guest finds, as far as its CPUID lets it look."""
    arch = vcpu.arch
    xfd, xfd_err = (guest.xfd, guest.xfd_err) if arch.cpuid_xfd else (0, 0)
    osxsave, ts, pke, l2 = control
    return GuestState("entered", osxsave, ts, pke, guest.xcr0, guest.xss, xfd, xfd_err, registers, exception, l2)
