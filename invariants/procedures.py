"""What a VMM means to do, and what comes of its calls although the kernel does all that they ask for.

Both sides of a comparison are ideal here: the guest that the VMM means, and the guest that its calls make on a kernel
without a mistake.  Where they differ no kernel can help.  Where the guest is not even what the calls make of it,
the kernel is to blame, and the other invariants say so.
"""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.invariants.guests import GuestState, differences, visible_components
from xfdfuzz.invariants.vocabulary import VMM, Broken, View, invariant
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.state import GhostVcpu, GhostVmm, Vcpu
from xfdfuzz.program import ghost
from xfdfuzz.program.ops.base import OK
from xfdfuzz.program.ops.run import KvmRun, VmEnter
from xfdfuzz.program.ops.vmm import VmmVisible

#: What an exit that is not done with is called.
_INSTRUCTIONS = dict.fromkeys(range(st.EXIT_CR4_WRITE + 1), "an instruction") | {
    st.EXIT_NONE: "nothing",
    st.EXIT_IO: "an OUT",
    st.EXIT_MSR_WRITE: "a WRMSR",
    st.EXIT_XSETBV: "an XSETBV",
}


@invariant("procedure-keeps-the-guest", VMM, ("VMM", "GSTATE"), ops=(KvmRun, VmEnter, VmmVisible))
def procedure_keeps_the_guest(view: View) -> Iterator[Broken]:
    """A copy of a vCPU, and a vCPU that was only looked at, is the same guest: its VMM has to write all that KVM does
    not keep by itself, with calls and in an order that KVM's interface gives the guest for.  The kernel did what it was
    told."""
    nr, vmm = _promise(view)
    if not vmm.pending or vmm.intent == st.INTENT_RESET:
        return
    for site, what in _broken(view, nr):
        yield Broken(f"v{nr}: {what}, as its VMM means it and as the VMM's calls make it", site)


@invariant("reset-leaves-nothing", VMM, ("VMM", "GSTATE"), ops=(KvmRun, VmEnter))
def reset_leaves_nothing(view: View) -> Iterator[Broken]:
    """A vCPU that gets another tenant is as it comes out of reset, but for what its VMM gave it: what is left of the
    guest before is data, or a way to send some.  The kernel did what it was told."""
    nr, vmm = _promise(view)
    if vmm.pending and vmm.intent == st.INTENT_RESET:
        for site, what in _broken(view, nr):
            yield Broken(f"v{nr}: {what}, as a new tenant finds it and as the VMM's calls leave it", site)


def _promise(view: View) -> tuple[int, GhostVmm]:
    """The vCPU, and what was promised of it before the step."""
    return view.vcpu_nr, view.before.ghost.vmms[view.vcpu_nr]


def _broken(view: View, nr: int) -> Iterator[tuple[str, str]]:
    """(site, what differs) between the guest that was promised and the one that the calls make."""
    if not isinstance(view.step.op, VmEnter):
        yield from _unfinished(view, nr)
    if not isinstance(view.step.op, KvmRun):
        yield from _found_otherwise(view, nr)


def _unfinished(view: View, nr: int) -> Iterator[tuple[str, str]]:
    """What KVM_RUN completes, if it is not to be completed, or is to be and is not.

    An INIT that KVM_RUN accepts forgets it.
    """
    vcpu, ghosts = view.before.vcpus[nr], view.before.ghost
    meant, made = _waits(ghosts.vmms[nr].promise), _waits(ghosts.vcpus[nr])
    runs = not isinstance(view.step.op, KvmRun) or view.step.result == OK
    if meant != made and runs and not vcpu.arch.init_pending:
        yield "unfinished", f"KVM_RUN completes {_INSTRUCTIONS[meant]} and {_INSTRUCTIONS[made]}"


def _waits(guest: GhostVcpu) -> int:
    """The exit of an instruction that waits to complete; one that KVM has refused does not."""
    return 0 if guest.exception and not guest.injected else guest.insn_owed


def _found_otherwise(view: View, nr: int) -> Iterator[tuple[str, str]]:
    """What the guest finds at its entry that is not what was promised."""
    entered = isinstance(view.step.op, VmEnter)
    system = view.k.system if entered else view.before
    vcpu, meant, made = system.vcpus[nr], system.ghost.vmms[nr], system.ghost.vcpus[nr]
    components = _readable(view, vcpu)
    has = vcpu.arch.guest_supported_xcr0 | vcpu.arch.guest_supported_xss
    if meant.intent != st.INTENT_RESET and has != meant.supported:
        yield "cpuid", f"its CPUID has {xf.format_mask(meant.supported)} and {xf.format_mask(has)}"
    sure = components & ~meant.promise.regs.undefined
    # a VMM cares for each component, while to the kernel most are alike
    before, forgotten = view.before.ghost, entered and view.before.vcpus[nr].arch.init_pending
    to_get, gets = (0, 0) if forgotten else (before.vmms[nr].promise.exception, before.vcpus[nr].exception)
    yield from differences(
        _found(meant.promise, (bool(meant.osxsave), bool(meant.ts), bool(meant.pke)), to_get, sure, vcpu),
        _found(made, _control_registers(vcpu), gets, sure, vcpu),
        site=xf.CONTENTS.__getitem__,
    )
    own = ghost.guest_token(view.k, nr, 0)
    for i in _contents(components):
        held = made.regs.data[i]
        lost = sure >> i & 1 and made.regs.undefined >> i & 1 and held == meant.promise.regs.data[i]
        anothers = not sure >> i & 1 and ghost.owner(held) and not ghost.same_owner(held, own)
        if lost:
            yield xf.CONTENTS[i], f"nothing says that it finds {ghost.content(held)} in {xf.CONTENTS[i]}"
        elif anothers:
            yield xf.CONTENTS[i], f"it may find {ghost.content(held)} in {xf.CONTENTS[i]}"


def _readable(view: View, vcpu: Vcpu) -> int:
    """The components that the guest can enable and read, and MXCSR."""
    pkru = vcpu.arch.guest_supported_xcr0 & xf.MASK_PKRU if view.k.ospke else 0
    return visible_components(vcpu) | pkru


def _contents(mask: int) -> tuple[int, ...]:
    """The components, and MXCSR."""
    return (*xf.components_in(mask), *[xf.MXCSR] * bool(mask & xf.MASK_MXCSR))


#: CR4.OSXSAVE, CR0.TS and CR4.PKE.
_ControlRegisters = tuple[bool, bool, bool]


def _control_registers(vcpu: Vcpu) -> _ControlRegisters:
    """Those that a vCPU has."""
    return bool(vcpu.arch.cr4_osxsave), bool(vcpu.arch.cr0_ts), bool(vcpu.arch.cr4_pke)


def _found(guest: GhostVcpu, crs: _ControlRegisters, exception: int, components: int, vcpu: Vcpu) -> GuestState:
    """What an ideal guest finds, as far as its CPUID lets it look."""
    arch = vcpu.arch
    xfd, xfd_err = (guest.xfd, guest.xfd_err) if arch.cpuid_xfd else (0, 0)
    registers = tuple((i, guest.regs.data[i]) for i in _contents(components))
    return GuestState("entered", *crs, guest.xcr0, guest.xss, xfd, xfd_err, registers, exception)
