"""How the ideal machine moves.  Ops call these; kernels never do.

Tokens are made distinct per owner, so that a leak or a mix-up of register contents shows as such: guest v0's tokens and
task t0's never meet.
"""

from __future__ import annotations

from collections.abc import Iterable

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import HEADER_END
from xfdfuzz.arch.registers import INSTRUCTIONS, MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS, XSTATE_MSRS
from xfdfuzz.arch.xsave import MXCSR_RESERVED, XsaveArea
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.fields import task_name
from xfdfuzz.kernel.fpu.init import PKRU_DEFAULT, ZEROED
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import GhostRegs, GhostVcpu, SigFrame, Vcpu
from xfdfuzz.program.fields import TOKENS

#: Tokens are ``owner << OWNER_SHIFT | token``.
OWNER_SHIFT = 3
_FIRST_VCPU_OWNER = 16
#: What contents are called that have no owner.
_SPECIAL = {0: "init", ZEROED: "zero", MXCSR_RESERVED: "reserved"}


def task_token(task: int, token: int) -> int:
    """Task ``task``'s register content ``token``."""
    return (task + 1) << OWNER_SHIFT | token


def vcpu_token(vcpu: int, token: int) -> int:
    """vCPU ``vcpu``'s register content ``token``."""
    return (_FIRST_VCPU_OWNER + vcpu) << OWNER_SHIFT | token


def owner(token: int) -> int:
    """Whose content it is; 0 for the initial configuration and for the kernel's own values."""
    return token >> OWNER_SHIFT


def content(token: int) -> str:
    """A content as everybody writes it: ``init``, ``v0:3`` (vCPU 0's content 3), ``t1:2``, ``kernel:1``, or ``zero``
    where x87 or MXCSR has no bit set, not even those of its initial value."""
    if token in _SPECIAL:
        return _SPECIAL[token]
    owners = {owner(vcpu_token(nr, 0)): f"v{nr}" for nr in range(st.NR_VCPUS)}
    owners |= {owner(task_token(nr, 0)): task_name(nr) for nr in range(st.NR_TASKS)}
    return f"{owners.get(owner(token), 'kernel')}:{token & (1 << OWNER_SHIFT) - 1}"


def same_owner(a: int, b: int) -> bool:
    """Whether two contents belong to one owner."""
    return owner(a) == owner(b)


def execute(regs: GhostRegs, insn: str, token: int) -> None:
    """The effect of a data instruction that did not fault."""
    if insn in ("ldtilecfg", "tilerelease"):
        define(regs, xf.XTILE_DATA, 0)
    define(regs, INSTRUCTIONS[insn], 0 if insn == "tilerelease" else token)


def define(regs: GhostRegs, component: int, token: int) -> None:
    """The component now holds exactly ``token``."""
    regs.data[component] = token
    regs.undefined &= ~(1 << component)


def initialise(k: Kernel, task: int) -> None:
    """The task's user components are in their initial configuration."""
    for i in (*xf.components_in(k.machine.user_xfeatures or xf.MASK_FPSSE), xf.MXCSR):
        define(k.system.ghost.tasks[task], i, 0)


def load(regs: GhostRegs, area: XsaveArea) -> None:
    """The components that an image in the standard format has in XSTATE_BV are loaded, and MXCSR with SSE or AVX."""
    for i in xf.components_in(area.xstate_bv):
        define(regs, i, area.data[i])
    if area.xstate_bv & xf.MASK_WITH_MXCSR:
        define(regs, xf.MXCSR, area.data[xf.MXCSR])


def set_legacy(regs: GhostRegs, values: Iterable[int]) -> None:
    """x87, SSE and MXCSR hold these."""
    for i, token in zip(xf.LEGACY, values, strict=True):
        define(regs, i, token)


def default_pkru(k: Kernel, task: int) -> None:
    """The task's PKRU has the value that Linux starts a program, and a signal handler, with (pkeys(7))."""
    if k.ospke:
        define(k.system.ghost.tasks[task], xf.PKRU, PKRU_DEFAULT)


def of_sigframe(k: Kernel, frame: SigFrame) -> tuple[dict[int, int], int]:
    """What a sigreturn loads, and what nobody promises of it.

    A frame has extended state if sw_reserved says so and the second magic stands where the image ends
    (arch/x86/include/uapi/asm/sigcontext.h): then what it has of the features that it names is loaded, else what
    FXRSTOR does.  MXCSR goes with SSE; whether AVX alone brings it is left open, as is all of a frame that is larger
    than any that this machine makes.
    """
    area = frame.area
    whole = HEADER_END <= frame.xstate_size <= frame.extended_size and frame.magic2 == frame.xstate_size
    if not (k.use_xsave and frame.magic1 and whole):
        return {i: area.data[i] for i in xf.LEGACY}, 0
    loaded = {i: area.data[i] for i in xf.components_in(area.xstate_bv & frame.xfeatures)}
    if frame.xfeatures & xf.MASK_SSE:
        loaded[xf.MXCSR] = area.data[xf.MXCSR]
    unsaid = 0 if frame.xfeatures & xf.MASK_SSE else xf.MASK_MXCSR
    if frame.xstate_size > k.fpu_user_cfg.max_size:
        unsaid |= k.machine.user_xfeatures | xf.MASK_MXCSR
    return loaded, unsaid


def set_xfd(vcpu: GhostVcpu, value: int) -> None:
    """XFD was written.  What a newly disabled component held is undefined from here on (SDM vol. 1, 13.14)."""
    for i in xf.components_in(value & ~vcpu.xfd):
        if vcpu.regs.data[i]:
            vcpu.regs.undefined |= 1 << i
    vcpu.xfd = value


def msr_data(vcpu: int, index: int, value: int) -> int:
    """What a WRMSR of ``value`` writes: of an MSR that is part of a component, 0 to 7 stand for the vCPU's contents,
    and more for values with reserved bits."""
    if index not in XSTATE_MSRS or not value:
        return value
    return vcpu_token(vcpu, value) if value <= TOKENS else value | 1 << 63


def write_msr(ghost: GhostVcpu, index: int, data: int) -> None:
    """An MSR took a value."""
    if index == MSR_IA32_XFD:
        set_xfd(ghost, data)
    elif index == MSR_IA32_XFD_ERR:
        ghost.xfd_err = data
    elif index == MSR_IA32_XSS:
        ghost.xss = data
    else:
        define(ghost.regs, XSTATE_MSRS[index], data)


def read_msr(ghost: GhostVcpu, index: int) -> int:
    """What an MSR holds."""
    if index in XSTATE_MSRS:
        return ghost.regs.data[XSTATE_MSRS[index]]
    return {MSR_IA32_XFD: ghost.xfd, MSR_IA32_XFD_ERR: ghost.xfd_err, MSR_IA32_XSS: ghost.xss}[index]


def set_xsave(k: Kernel, vcpu: GhostVcpu, area: XsaveArea) -> None:
    """KVM_SET_XSAVE replaced all user components; one that XFD disables is not kept (KVM's ABI, b45f72177594).

    PKRU stays where XSTATE_BV lacks it: "KVM's odd ABI is to leave PKRU untouched in this case"
    (fpu_copy_uabi_to_guest_fpstate()).  Without XSAVE the legacy region is all there is, whatever the header says.
    """
    if not k.use_xsave:
        set_legacy(vcpu.regs, (area.data[i] for i in xf.LEGACY))
        return
    for i in (*xf.components_in(k.machine.user_xfeatures & (~xf.MASK_PKRU | area.xstate_bv)), xf.MXCSR):
        define(vcpu.regs, i, 0)
    load(vcpu.regs, area)
    vcpu.regs.undefined |= xf.mask_of(*(i for i in xf.components_in(vcpu.xfd & area.xstate_bv) if area.data[i]))


def init(vcpu: Vcpu, ideal: GhostVcpu) -> None:
    """INIT: CR0 and CR4 go, MPX and CET are cleared, a pending exception or instruction is forgotten."""
    for i in xf.components_in(xf.MASK_MPX | xf.MASK_CET):
        define(ideal.regs, i, 0)
    ideal.insn_owed = ideal.nm_owed = 0
    vcpu.arch.insn_skips = 0


def settle_insn(k: Kernel, nr: int) -> None:
    """If the kernel advanced RIP over the instruction that exited, the instruction has taken effect."""
    vcpu = k.vcpus[nr]
    ghost = k.system.ghost.vcpus[nr]
    if not (vcpu.arch.insn_skips and ghost.insn_owed):
        return
    vcpu.arch.insn_skips -= 1
    complete(vcpu, ghost, ghost.insn_owed)
    ghost.insn_owed = 0


def complete(vcpu: Vcpu, ghost: GhostVcpu, kind: int) -> None:
    """The architectural effect of a completed instruction that exited."""
    if kind == st.EXIT_MSR_WRITE:
        write_msr(ghost, vcpu.exit_msr, ghost.owed_value)
    elif kind == st.EXIT_XSETBV:
        ghost.xcr0 = ghost.owed_value


def user_wrote_xcr0(ghost: GhostVcpu, value: int) -> None:
    """KVM_SET_XCRS succeeded; an XSETBV that still waits to complete no longer decides."""
    ghost.xcr0 = value
    if ghost.insn_owed == st.EXIT_XSETBV:
        ghost.owed_value = value


def user_wrote_msr(vcpu: Vcpu, ghost: GhostVcpu, index: int, value: int) -> None:
    """KVM_SET_MSRS took an entry; a WRMSR of the same MSR that still waits to complete no longer decides."""
    write_msr(ghost, index, value)
    if ghost.insn_owed == st.EXIT_MSR_WRITE and vcpu.exit_msr == index:
        ghost.owed_value = value
