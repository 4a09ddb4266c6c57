"""IA32_XFD, IA32_XFD_ERR and #NM: MSR, shadow, fpstate and guest agree."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.invariants.vocabulary import Broken, View, invariant
from xfdfuzz.kernel.event import IRQ_FPU
from xfdfuzz.kernel.state import (
    DF_VECTOR,
    EXIT_EMULATED_STORE,
    EXIT_HYPERCALL,
    EXIT_MSR_READ,
    GP_VECTOR,
    VECTORS,
)
from xfdfuzz.program import ghost
from xfdfuzz.program.ops.base import GuestOp, VcpuIoctl, VcpuRunOp
from xfdfuzz.program.ops.guest import GuestRdmsr
from xfdfuzz.program.ops.run import HandleExit, KvmRun, KvmRunReturns, VmEnter
from xfdfuzz.program.step import Content

#: Ops after which what KVM keeps of a vCPU can have changed.
_VCPU_OPS = (VcpuIoctl, VcpuRunOp, KvmRun, KvmRunReturns)


@invariant("xfd-shadow-matches-msr", "corruption", ("INV-12", "SHADOW"), state=True)
def xfd_shadow_matches_msr(view: View) -> Iterator[Broken]:
    """In the host, the per-CPU shadow of IA32_XFD equals the MSR.  xfd_update_state() trusts the shadow: where it
    lies, a needed write is skipped and the next XRSTOR runs under the wrong XFD."""
    if not view.k.fpu_state_size_dynamic:
        return
    for nr, cpu in enumerate(view.k.cpus):
        if cpu.regs.xfd != cpu.xfd_state and not cpu.guest:
            yield Broken(f"cpu{nr}: IA32_XFD is {cpu.regs.xfd:#x}, its shadow {cpu.xfd_state:#x}", key=nr)


@invariant("xfd-matches-fpstate", "corruption", ("INV-12", "XFDMATCH"), state=True)
def xfd_matches_fpstate(view: View) -> Iterator[Broken]:
    """While current's registers are loaded, IA32_XFD is its fpstate's xfd: otherwise the task uses what its buffer has
    no room for, or is refused what it may use.  (Inside execve() a task has given its registers up.)"""
    k = view.k
    if not k.fpu_state_size_dynamic:
        return
    for nr, cpu in enumerate(k.cpus):
        task = k.tasks[cpu.current]
        xfd = k.fpstates[task.fpu.fpstate].xfd
        if xfd != cpu.regs.xfd and not (task.tif_need_fpu_load or task.in_execve or task.pf_kthread or cpu.guest):
            whose = "guest" if k.fpstates[task.fpu.fpstate].is_guest else "host"
            yield Broken(f"cpu{nr}: IA32_XFD is {cpu.regs.xfd:#x}, t{cpu.current}'s fpstate says {xfd:#x}", whose, nr)


@invariant("xfd-coherent-in-interrupt", "corruption", ("INV-13", "SHADOW"), events=(IRQ_FPU,))
def xfd_coherent_in_interrupt(view: View) -> Iterator[Broken]:
    """A softirq may use the FPU, so the same agreement must hold whenever one can run, also between a VM exit and the
    moment when KVM enables interrupts."""
    if not view.k.fpu_state_size_dynamic:
        return
    for event in view.events(IRQ_FPU):
        cpu, msr, shadow, fpstate_xfd, _ = event.detail
        if msr != shadow or fpstate_xfd not in (-1, msr):
            yield Broken(
                f"cpu{cpu}: IA32_XFD {msr:#x}, shadow {shadow:#x}, loaded fpstate's xfd {fpstate_xfd:#x}",
                event.trace[-1],
            )


@invariant("xfd-err-clean-in-host", "leak", ("INV-16", "XFDERR"), state=True)
def xfd_err_clean_in_host(view: View) -> Iterator[Broken]:
    """Outside its #NM handler the host runs with IA32_XFD_ERR = 0.  A guest's value that is left there is taken for the
    host's by the next #NM, and the guest may find it changed."""
    for nr, cpu in enumerate(view.k.cpus):
        if cpu.regs.xfd_err and not cpu.guest:
            yield Broken(f"cpu{nr}: IA32_XFD_ERR is {cpu.regs.xfd_err:#x} in the host", key=nr)


@invariant("guest-sees-its-xfd", "corruption", ("GSTATE", "XFDMATCH"), ops=(VmEnter,))
def guest_sees_its_xfd(view: View) -> Iterator[Broken]:
    """IA32_XFD in the guest is what the guest or user space wrote last.  A bit that differs makes a feature fault that
    was enabled, or work that was disabled.  Bits without a feature in XCR0, or with CR4.OSXSAVE clear, count only where
    the guest can read the MSR."""
    nr = view.vcpu_nr
    arch = view.k.vcpus[nr].arch
    ideal = view.k.system.ghost.vcpus[nr]
    readable = arch.cpuid_xfd and not arch.xfd_read_intercept
    enabled = view.k.regs.xcr0 if arch.cr4_osxsave else 0
    visible = xf.U64_MAX if readable else enabled
    if (view.k.regs.xfd ^ ideal.xfd) & visible:
        yield Broken(f"v{nr} runs with IA32_XFD = {view.k.regs.xfd:#x}, it was set to {ideal.xfd:#x}")


@invariant("guest-sees-its-xcr0", "corruption", ("GSTATE",), ops=(VmEnter,))
def guest_sees_its_xcr0(view: View) -> Iterator[Broken]:
    """XCR0 in the guest is what the guest or user space set last, where the guest can see it (CR4.OSXSAVE)."""
    nr = view.vcpu_nr
    ideal = view.k.system.ghost.vcpus[nr].xcr0
    if view.k.vcpus[nr].arch.cr4_osxsave and view.k.regs.xcr0 != ideal:
        yield Broken(
            f"v{nr} runs with XCR0 = {xf.format_mask(view.k.regs.xcr0)}, it was set to {xf.format_mask(ideal)}"
        )


@invariant("guest-sees-its-xss", "corruption", ("GSTATE",), ops=(VmEnter,))
def guest_sees_its_xss(view: View) -> Iterator[Broken]:
    """IA32_XSS in a guest that can execute XSAVES is what the guest or user space wrote last: with another its XSAVES
    loses state, its XRSTORS is a #GP, or they reach the host's.  On AMD's processors XSAVE is enough for that."""
    nr = view.vcpu_nr
    arch, ideal = view.k.vcpus[nr].arch, view.k.system.ghost.vcpus[nr].xss
    if not (view.k.machine.has_xsaves and arch.cr4_osxsave and arch.cpuid_set) or arch.cpuid_no_xsave:
        return
    if arch.cpuid_no_xsaves and not view.k.machine.amd:
        return
    if view.k.regs.xss != ideal:
        found, set_to = xf.format_mask(view.k.regs.xss), xf.format_mask(ideal)
        yield Broken(f"v{nr} runs with IA32_XSS = {found}, it was set to {set_to}")


@invariant("host-runs-with-its-own-xcr0", "panic", ("HOST_NM",), ops=(GuestOp, VcpuRunOp), state=True)
def host_runs_with_its_own_xcr0(view: View) -> Iterator[Broken]:
    """Whenever interrupts are on in the host, XCR0 and IA32_XSS are the host's: with a guest's, the next XRSTORS is a
    #GP for every task that has more in its buffer, and XSAVES leaves components out."""
    if not view.k.use_xsave:
        return
    xcr0, xss = view.k.host_xcr0, view.k.host_xss
    for nr, cpu in enumerate(view.k.cpus):
        if (cpu.regs.xcr0 != xcr0 or cpu.regs.xss != xss) and not cpu.guest:
            found = f"XCR0 is {xf.format_mask(cpu.regs.xcr0)}, IA32_XSS {xf.format_mask(cpu.regs.xss)}"
            yield Broken(f"cpu{nr}: {found} in the host", key=nr)


@invariant("guest-sees-its-xfd-err", "corruption", ("INV-17", "XFDERR"), ops=(VmEnter,))
def guest_sees_its_xfd_err(view: View) -> Iterator[Broken]:
    """IA32_XFD_ERR in the guest is what its last XFD #NM, or the last write, left there: the guest's #NM handler
    decides by it whether to grow a buffer or to kill."""
    nr = view.vcpu_nr
    ideal = view.k.system.ghost.vcpus[nr].xfd_err
    if view.k.regs.xfd_err != ideal:
        yield Broken(f"v{nr} runs with IA32_XFD_ERR = {view.k.regs.xfd_err:#x}, expected {ideal:#x}")


@invariant("nm-delivered-once", "corruption", ("INV-18",), ops=(VmEnter,))
def nm_delivered_once(view: View) -> Iterator[Broken]:
    """A #NM that was intercepted is delivered to the guest exactly once; a lost one hangs the guest's task, one too
    many kills it."""
    nr = view.vcpu_nr
    if view.before.vcpus[nr].arch.init_pending:
        return  # INIT forgets it
    owed = view.before.ghost.vcpus[nr].nm_owed
    if owed and view.step.result.ret != "#NM":
        yield Broken(f"v{nr}: the #NM that was intercepted is not delivered", "lost")
    if not owed and view.step.result.ret == "#NM":
        yield Broken(f"v{nr} gets a #NM that no instruction caused", "spurious")


@invariant("guest-reads-its-msrs", "corruption", ("INV-17", "GSTATE"), ops=(GuestRdmsr, HandleExit))
def guest_reads_its_msrs(view: View) -> Iterator[Broken]:
    """RDMSR gives what the guest or user space wrote, or its #NM loaded, intercepted or not."""
    op, out = view.step.op, view.step.result.out
    if not isinstance(out, int):
        return
    nr = view.vcpu_nr
    if isinstance(op, HandleExit) and view.before.vcpus[nr].exit_pending != EXIT_MSR_READ:
        return
    ideal = view.k.system.ghost.vcpus[nr]
    msr = op.msr if isinstance(op, GuestRdmsr) else view.k.vcpus[nr].exit_msr
    expected = ghost.read_msr(ideal, msr)
    if out != expected:
        yield Broken(f"v{nr} reads {out:#x}, expected {expected:#x}")


@invariant("emulator-reads-the-guest", "corruption", ("GSTATE",), ops=(HandleExit,))
def emulator_reads_the_guest(view: View) -> Iterator[Broken]:
    """What KVM reads of x87 and XMM registers in the guest's stead, for an instruction that it emulates or a hypercall,
    is the guest's, whatever ran on the CPU since the exit."""
    nr, out = view.vcpu_nr, view.step.result.out
    before = view.before.vcpus[nr]
    if before.exit_pending not in (EXIT_EMULATED_STORE, EXIT_HYPERCALL) or not isinstance(out, Content):
        return
    regs, component = view.k.system.ghost.vcpus[nr].regs, before.exit_msr
    expected = regs.data[component]
    if out != expected and not regs.undefined >> component & 1:
        yield Broken(f"v{nr}: KVM reads {out} in {xf.CONTENTS[component]}, expected {ghost.content(expected)}")


@invariant("guest-instruction-completes-once", "corruption", ("GSTATE",), ops=(VmEnter,))
def guest_instruction_completes_once(view: View) -> Iterator[Broken]:
    """An instruction that exited either completes or faults, and no other is skipped: KVM must not advance the guest's
    RIP over an instruction that it did not emulate, nor raise #GP for one that it did."""
    nr = view.vcpu_nr
    before = view.before
    if before.vcpus[nr].arch.init_pending:
        return  # the guest starts anew
    if before.vcpus[nr].arch.insn_skips:
        yield Broken(f"v{nr}: RIP was advanced over an instruction that never exited", "skipped")
    faulted, ideal = view.step.result.ret in ("#GP", "#DF"), before.ghost.vcpus[nr]
    fault = ideal.exception in (GP_VECTOR, DF_VECTOR)
    if not faulted and ideal.insn_owed:
        yield Broken(f"v{nr} goes on at an instruction that was neither emulated nor refused", "unfinished")
    elif not faulted and fault:
        yield Broken(f"v{nr} does not get the {VECTORS[ideal.exception]} that its VMM has injected", "lost")
    if faulted and not (ideal.insn_owed or fault):
        yield Broken(f"v{nr} gets {view.step.result} although its instruction completed", "faulted")


@invariant("legal-xfd", "abi", ("INV-26",), ops=_VCPU_OPS, state=True)
def legal_xfd(view: View) -> Iterator[Broken]:
    """A guest's XFD has no bit that the processor does not support: WRMSR of it would be a #GP in the host."""
    possible = view.k.machine.xfd_xfeatures
    for nr, vcpu in view.vcpus:
        if view.k.guest_xfd(vcpu.arch.guest_fpu) & ~possible:
            yield Broken(f"v{nr}: its XFD has a bit that IA32_XFD does not have", key=nr)


@invariant("legal-xcr0", "abi", ("INV-25",), ops=_VCPU_OPS, state=True)
def legal_xcr0(view: View) -> Iterator[Broken]:
    """A guest's XCR0 is one that the processor accepts: XSETBV of it would be a #GP in the host."""
    for nr, vcpu in view.vcpus:
        xcr0 = vcpu.arch.xcr0
        unsupported = xcr0 & ~view.k.machine.user_xfeatures if view.k.use_xsave else 0
        if unsupported or not xf.legal_xcr0(xcr0):
            yield Broken(f"v{nr}: XCR0 = {xf.format_mask(xcr0)} cannot be loaded", key=nr)


@invariant(
    "passthrough-needs-nm-intercept",
    "corruption",
    ("INV-19",),
    ops=_VCPU_OPS,
    state=True,
    excluded=("amx-v1..amx-tglx",),
)
def passthrough_needs_nm_intercept(view: View) -> Iterator[Broken]:
    """Once the guest writes IA32_XFD without an exit, KVM must intercept #NM: it cannot know when XFD_ERR changes
    otherwise.  (amx-v1 and its alternatives save XFD_ERR at preemption instead.)"""
    for nr, vcpu in view.vcpus:
        if not vcpu.arch.xfd_write_intercept and not vcpu.arch.nm_intercept:
            yield Broken(f"v{nr}: IA32_XFD is passed through, #NM is not intercepted", key=nr)


@invariant("passthrough-needs-buffer", "corruption", ("INV-19", "PERM"), ops=_VCPU_OPS, state=True)
def passthrough_needs_buffer(view: View) -> Iterator[Broken]:
    """Once the guest writes IA32_XFD without an exit, it can enable every dynamic feature that its XCR0 may have: the
    buffer must have room for all of them."""
    dynamic = view.k.XFEATURE_MASK_USER_DYNAMIC
    for nr, vcpu in view.vcpus:
        arch = vcpu.arch
        missing = dynamic & arch.guest_supported_xcr0 & ~arch.guest_fpu.xfeatures
        if missing and not arch.xfd_write_intercept:
            yield Broken(f"v{nr}: XFD is passed through, the buffer has no room for {xf.format_mask(missing)}", key=nr)
