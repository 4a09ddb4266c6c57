"""One logical processor's XSAVE-managed registers, XCR0, IA32_XSS, IA32_XFD and IA32_XFD_ERR.

Register contents are tokens: 0 is the initial configuration, anything else says whose data it is and which.  A
component is in use when its token is not 0; a processor may report more (SDM vol. 1, 13.6), which ``always_in_use`` is
for.  MXCSR, which is no component, has a place beside them: XINUSE[1] does not speak of it.
"""

from __future__ import annotations

from typing import Annotated

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import (
    LEAF_FEATURES,
    LEAF_XSTATE,
    NOTHING,
    OSXSAVE,
    XFD,
    XGETBV1,
    XSAVE,
    XSAVEC,
    XSAVES,
    Leaf,
    tile_leaf,
)
from xfdfuzz.arch.kinds import Token, Xfd, Xfeatures
from xfdfuzz.arch.processor import Processor
from xfdfuzz.memory.cstruct import Array, Struct, struct

MSR_IA32_XFD = 0x1C4
MSR_IA32_XFD_ERR = 0x1C5
MSR_IA32_XSS = 0xDA0
MSR_IA32_U_CET, MSR_IA32_S_CET = 0x6A0, 0x6A2
MSR_IA32_PL0_SSP, MSR_IA32_PL1_SSP, MSR_IA32_PL2_SSP, MSR_IA32_PL3_SSP = range(0x6A4, 0x6A8)
MSR_IA32_INT_SSP_TAB = 0x6A8
MSR_IA32_PASID = 0xD93
CR4_OSXSAVE, CR4_PKE = 1 << 18, 1 << 22

#: MSRs that are part of a state component, which XSAVES and XRSTORS move: at which place their token stands
#: (asm/fpu/types.h, cet_user_state and cet_supervisor_state).
XSTATE_MSRS: dict[int, int] = {
    MSR_IA32_U_CET: xf.CET_USER,
    MSR_IA32_PL0_SSP: xf.CET_KERNEL,
    MSR_IA32_PL1_SSP: xf.PL1_SSP,
    MSR_IA32_PL2_SSP: xf.PL2_SSP,
    MSR_IA32_PL3_SSP: xf.PL3_SSP,
}
#: The same of all that CET has.
CET_MSRS: dict[int, int] = XSTATE_MSRS | {MSR_IA32_S_CET: xf.S_CET, MSR_IA32_INT_SSP_TAB: xf.INT_SSP_TAB}

#: Register contents fit in a byte.
TOKEN_MAX = 0xFF


class Fault(Exception):
    """An instruction faulted; unless its own text says otherwise it changed nothing but what the fault itself loads."""

    name = "#??"


class GeneralProtection(Fault):
    """#GP(0)."""

    name = "#GP"


class InvalidOpcode(Fault):
    """#UD."""

    name = "#UD"


class PageFault(Fault):
    """#PF: some of the operand's memory is not there.  XRSTOR may have changed registers by then."""

    name = "#PF"


class DeviceNotAvailable(Fault):
    """#NM; ``xfd`` tells an XFD #NM (which loaded IA32_XFD_ERR) from one that CR0.TS caused."""

    name = "#NM"

    def __init__(self, xfd: bool) -> None:
        super().__init__("XFD" if xfd else "CR0.TS")
        self.xfd = xfd


@struct(data=xf.PLACES)
class CpuRegs(Struct):
    """The registers.  ``data[i]`` is component i's token; ``xinuse`` is the bitmap of those that are not 0.

    ``data[MXCSR]`` is MXCSR's, and those behind are of CET's other registers.  ``always_in_use``, which never changes,
    has the components that XINUSE holds even while they are 0.  ``error_pointers`` are x87's where no instruction saves
    them (``fxsave_leak``): whose instruction it was that set them, 0 for the kernel's and after FNINIT; elsewhere they
    are part of x87's token.
    """

    __slots__ = ()
    xcr0: Annotated[Xfeatures, "XCR0"]
    xss: Annotated[Xfeatures, "MSR_IA32_XSS"]
    xfd: Annotated[Xfd, "MSR_IA32_XFD"]
    xfd_err: Annotated[Xfd, "MSR_IA32_XFD_ERR"]
    xinuse: Xfeatures
    always_in_use: Xfeatures
    error_pointers: Annotated[Token, "FOP, FIP, FDP"]
    data: Annotated[Array[Token], "regs"]


def load_component(regs: CpuRegs, component: int, token: int) -> None:
    """Set component ``component``, or a register of one, or MXCSR, to ``token`` (0: its initial configuration)."""
    regs.data[component] = token
    bit = xf.COMPONENT_BITS[component]
    if token or any(regs.data[i] for i in xf.together(component)):
        regs.xinuse |= bit
    else:
        regs.xinuse &= ~bit


@struct()
class CetState(Struct):
    """What a VMCS, or a VMCB, has of CET: VM entry loads it ("load CET state"), and VM exit saves it (SDM vol. 3, VM
    entries and VM exits)."""

    __slots__ = ()
    s_cet: Token
    ssp: Token
    int_ssp_tab: Token


def load_cet_state(regs: CpuRegs, state: CetState) -> None:
    """VM entry."""
    regs.data[xf.S_CET], regs.data[xf.SSP] = state.s_cet, state.ssp
    regs.data[xf.INT_SSP_TAB] = state.int_ssp_tab


def save_cet_state(regs: CpuRegs, state: CetState) -> None:
    """VM exit: the host's are back (VM_EXIT_LOAD_CET_STATE), which are taken to be 0."""
    state.s_cet, state.ssp, state.int_ssp_tab = (regs.data[i] for i in (xf.S_CET, xf.SSP, xf.INT_SSP_TAB))
    regs.data[xf.S_CET] = regs.data[xf.SSP] = regs.data[xf.INT_SSP_TAB] = 0


def wrmsr(regs: CpuRegs, processor: Processor, index: int, value: int) -> None:
    """WRMSR; #GP for an MSR or a bit without CPUID support (SDM vol. 1, 13.14), and for more than a token."""
    if index == MSR_IA32_PASID and processor.pasid:
        load_component(regs, xf.PASID, value)
        return
    if index in CET_MSRS:
        if not processor.cet or value > TOKEN_MAX:
            raise GeneralProtection
        load_component(regs, CET_MSRS[index], value)
        return
    if index == MSR_IA32_XSS:
        if not processor.has_xsaves or value & ~processor.supervisor_xfeatures:
            raise GeneralProtection
        regs.xss = value
        return
    if not processor.has_xfd or value & ~processor.xfd_xfeatures:
        raise GeneralProtection
    if index == MSR_IA32_XFD:
        regs.xfd = value
    else:
        regs.xfd_err = value


def rdmsr(regs: CpuRegs, processor: Processor, index: int) -> int:
    """RDMSR; #GP where the MSR does not exist."""
    if index in CET_MSRS:
        if not processor.cet:
            raise GeneralProtection
        return regs.data[CET_MSRS[index]]
    if index == MSR_IA32_XSS:
        if not processor.has_xsaves:
            raise GeneralProtection
        return regs.xss
    if not processor.has_xfd:
        raise GeneralProtection
    return regs.xfd if index == MSR_IA32_XFD else regs.xfd_err


def xsetbv(regs: CpuRegs, processor: Processor, value: int) -> None:
    """XSETBV with ECX = 0 at CPL 0 and CR4.OSXSAVE = 1 (SDM vol. 2)."""
    if value & ~processor.user_xfeatures or not xf.legal_xcr0(value):
        raise GeneralProtection
    regs.xcr0 = value


def check_xfd(regs: CpuRegs, components: int) -> None:
    """Raise the #NM of an instruction that accesses ``components``, if XFD disables one of them.

    IA32_XFD_ERR := IA32_XFD AND the components that the instruction needs (SDM vol. 1, 13.14).
    """
    if regs.xcr0 & regs.xfd & components:
        regs.xfd_err = regs.xfd & components
        raise DeviceNotAvailable(xfd=True)


#: The component, or MXCSR, that each modelled data instruction writes, by the name that programs use for it.
INSTRUCTIONS: dict[str, int] = {
    "fld": xf.X87,
    "movups": xf.SSE,
    "ldmxcsr": xf.MXCSR,
    "vmovups": xf.YMM,
    "ldtilecfg": xf.XTILE_CFG,
    "tileload": xf.XTILE_DATA,
    "tilerelease": xf.XTILE_CFG,
    "mov_egpr": xf.APX,
    "dyn2load": xf.DYN2,
}
#: What each instruction reads that only stores it to memory, likewise.
READS: dict[str, int] = {
    "stmxcsr": xf.MXCSR,
    "vextractf128": xf.YMM,
    "sttilecfg": xf.XTILE_CFG,
    "tilestore": xf.XTILE_DATA,
}
#: Those of them that exist in 64-bit mode only.
LONG_MODE_ONLY = frozenset(("ldtilecfg", "sttilecfg", "tileload", "tilestore", "tilerelease", "mov_egpr"))


def enqcmd(regs: CpuRegs, processor: Processor) -> int:
    """ENQCMD at CPL 3: the PASID under which the command goes to the device; #GP without one (SDM vol. 2)."""
    if not processor.pasid:
        raise InvalidOpcode
    if not regs.data[xf.PASID]:
        raise GeneralProtection
    return regs.data[xf.PASID]


def _check_enabled(regs: CpuRegs, processor: Processor, components: int) -> None:
    if regs.xcr0 & components != components or components & ~processor.user_xfeatures:
        raise InvalidOpcode


def check_tile_access(regs: CpuRegs, processor: Processor, component: int, cr0_ts: bool) -> None:
    """Raise the fault of an AMX instruction that reads or writes TILECFG or TILEDATA.

    LDTILECFG, STTILECFG and TILERELEASE, which access TILECFG, never raise the XFD #NM; the others do, before they look
    at the configuration, or, with ``amx_ud_first``, behind that.  With CR0.TS = 1 all of them are #NM, which leaves
    IA32_XFD_ERR alone (SDM vol. 1, 13.14), unless the processor says that AMX instructions ignore CR0.TS.
    """
    _check_enabled(regs, processor, xf.MASK_XTILE)
    if cr0_ts and not processor.amx_ignores_ts:
        raise DeviceNotAvailable(xfd=False)
    if component == xf.XTILE_DATA:
        unconfigured = not regs.data[xf.XTILE_CFG]
        if unconfigured and processor.amx_ud_first:
            raise InvalidOpcode
        check_xfd(regs, xf.MASK_XTILE)
        if unconfigured:
            raise InvalidOpcode


#: Those of them that need neither CR4.OSXSAVE nor XCR0 (x87 and SSE, as before XSAVE).
LEGACY = frozenset({"fld", "movups", "ldmxcsr", "stmxcsr", "fxsave", "fxrstor"})


def execute(regs: CpuRegs, processor: Processor, insn: str, token: int, cr0_ts: bool) -> None:
    """Execute one data instruction: load ``token`` into the component it writes.

    ``fld`` stands for x87, ``movups`` for SSE, ``ldmxcsr`` for MXCSR, ``vmovups`` for AVX (CR0.TS makes them #NM),
    ``ldtilecfg``, ``tileload`` and ``tilerelease`` for AMX, ``mov_egpr`` for APX, ``dyn2load`` for the synthetic
    component. LDTILECFG and TILERELEASE initialise TILEDATA.
    """
    component = INSTRUCTIONS[insn]
    _check_access(regs, processor, insn, component, cr0_ts)
    if insn in ("ldtilecfg", "tilerelease"):
        load_component(regs, xf.XTILE_DATA, 0)
    if insn == "fld" and processor.fxsave_leak:
        regs.error_pointers = token
    load_component(regs, component, 0 if insn == "tilerelease" else token)


def read(regs: CpuRegs, processor: Processor, insn: str, cr0_ts: bool) -> int:
    """Execute one of :data:`READS`: the contents that it stores.  It faults as one that writes them does."""
    _check_access(regs, processor, insn, READS[insn], cr0_ts)
    return regs.data[READS[insn]]


def _check_access(regs: CpuRegs, processor: Processor, insn: str, component: int, cr0_ts: bool) -> None:
    """Raise the fault of an instruction that accesses a component, or MXCSR."""
    if component in (xf.XTILE_CFG, xf.XTILE_DATA):
        check_tile_access(regs, processor, component, cr0_ts)
    elif insn in LEGACY:
        if cr0_ts:
            raise DeviceNotAvailable(xfd=False)
    else:
        needs = {xf.YMM: xf.MASK_YMM | xf.MASK_SSE, xf.APX: xf.MASK_APX, xf.DYN2: xf.MASK_DYN2}[component]
        _check_enabled(regs, processor, needs)
        if cr0_ts and (component == xf.YMM or not processor.amx_ignores_ts):
            raise DeviceNotAvailable(xfd=False)
        check_xfd(regs, needs & xf.MASK_DYN2)


def cpuid(regs: CpuRegs, processor: Processor, function: int, index: int, osxsave: bool) -> Leaf:
    """CPUID of one of the leaves that programs know, on a processor whose CR4.OSXSAVE is as told (SDM vol. 2)."""
    if function == LEAF_FEATURES:
        return Leaf(0, 0, (XSAVE | OSXSAVE * osxsave) if processor.xsave else 0, 0)
    if function != LEAF_XSTATE:
        return tile_leaf(function, index) if processor.amx else NOTHING
    if not processor.xsave:
        return NOTHING
    user, supervisor = processor.user_xfeatures, processor.supervisor_xfeatures
    leaf = processor.cpuid.leaf(index, user, supervisor, regs.xcr0, regs.xss)
    if index != 1:
        # a sub-leaf says of a component that IA32_XFD has a bit for it
        return leaf if index == 0 or processor.has_xfd else leaf._replace(ecx=leaf.ecx & ~(1 << 2))
    lacks = XSAVEC * (not processor.xsavec) | XGETBV1 * (not processor.xgetbv1) | XSAVES * (not processor.has_xsaves)
    sized = processor.xsavec or processor.has_xsaves
    return leaf._replace(eax=leaf.eax & ~(lacks | XFD * (not processor.has_xfd)), ebx=leaf.ebx if sized else 0)
