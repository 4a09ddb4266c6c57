"""How the ideal machine moves.  Ops call these; kernels never do.

Tokens are made distinct per owner, so that a leak or a mix-up of register contents shows as such: guest v0's tokens and
task t0's never meet.
"""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import INSTRUCTIONS, MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS, XSTATE_MSRS
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.fields import task_name
from xfdfuzz.kernel.fpu.init import PKRU_DEFAULT
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import OWNER_SHIFT, GhostRegs, GhostVcpu, SigFrame, Vcpu
from xfdfuzz.program.fields import TOKENS

_FIRST_VCPU_OWNER = 16


def task_token(task: int, token: int) -> int:
    """Task ``task``'s register content ``token``."""
    return st.task_contents(task, token)


def vcpu_token(vcpu: int, token: int) -> int:
    """vCPU ``vcpu``'s register content ``token``."""
    return (_FIRST_VCPU_OWNER + vcpu) << OWNER_SHIFT | token


def owner(token: int) -> int:
    """Whose content it is; 0 for the initial configuration and for the kernel's own values."""
    return token >> OWNER_SHIFT


def content(token: int) -> str:
    """A content as everybody writes it: ``init``, ``v0:3`` (vCPU 0's content 3), ``t1:2``, ``mm0:1`` (the PASID of
    address space 0), or ``kernel:1``."""
    if not token:
        return "init"
    owners = {owner(vcpu_token(nr, 0)): f"v{nr}" for nr in range(st.NR_VCPUS)}
    owners |= {owner(task_token(nr, 0)): task_name(nr) for nr in range(st.NR_TASKS)}
    owners |= {owner(st.pasid_of(nr)): f"mm{nr}" for nr in range(st.NR_MMS)}
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
    for i in xf.components_in(k.machine.user_xfeatures or xf.MASK_FPSSE):
        define(k.system.ghost.tasks[task], i, 0)


def default_pkru(k: Kernel, task: int) -> None:
    """The task's PKRU has the value that Linux starts a program, and a signal handler, with (pkeys(7))."""
    if k.ospke:
        define(k.system.ghost.tasks[task], xf.PKRU, PKRU_DEFAULT)


def of_sigframe(k: Kernel, frame: SigFrame) -> dict[int, int]:
    """The components that a sigreturn loads: those that the frame says it has, or x87 and SSE without its magic."""
    area = frame.area
    if not (k.use_xsave and frame.magic1):
        return {i: area.data[i] for i in (xf.X87, xf.SSE)}
    return {i: area.data[i] for i in xf.components_in(area.xstate_bv & frame.xfeatures)}


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


def set_xsave(vcpu: GhostVcpu, bv: int, token: int, components: int) -> None:
    """KVM_SET_XSAVE replaced all user components; one that XFD disables is not kept (KVM's ABI, b45f72177594)."""
    for i in xf.components_in(components):
        define(vcpu.regs, i, token if bv >> i & 1 else 0)
        if vcpu.xfd >> i & 1 and bv >> i & 1:
            vcpu.regs.undefined |= 1 << i


def init(vcpu: Vcpu, ideal: GhostVcpu) -> None:
    """INIT: CR0 and CR4 go, MPX and CET are cleared, a pending exception or instruction is forgotten."""
    for i in xf.components_in(xf.MASK_MPX | xf.MASK_CET):
        define(ideal.regs, i, 0)
    ideal.insn_owed = ideal.nm_owed = 0
    vcpu.arch.insn_skips = 0


def takes(k: Kernel, vcpu: Vcpu) -> bool:
    """Whether what user space sets of the vCPU is the guest's: that of a sealed one is not, nor the FPU of an SEV-ES
    guest that KVM_SEV_ES_INIT made (KVM's ABI, eb4441864e03)."""
    return not vcpu.arch.guest_state_protected and k.vms[vcpu.vm].type != st.VM_SEV_ES


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
