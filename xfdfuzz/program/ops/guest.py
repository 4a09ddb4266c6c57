"""Instructions of the guest, and what else makes it exit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter

from xfdfuzz.arch import protected, xsave
from xfdfuzz.arch import registers as arch
from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import LEAF_XSTATE
from xfdfuzz.arch.registers import MSR_IA32_XFD, CpuRegs
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.kvm.x86 import read_cr4
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.program import ghost, images
from xfdfuzz.program.fields import (
    Bit,
    Contents,
    CpuidLeaf,
    Cr4,
    Drop,
    FpuImage,
    MsrData,
    MsrIndex,
    Mxcsr,
    Nr,
    Pkru,
    SseContents,
    Subleaf,
    Token,
    Torn,
    UserImage,
    XcompBv,
    Xcr,
    Xcr0,
    Xfeatures,
)
from xfdfuzz.program.ops.base import EXIT, OK, GuestOp, Op, in_l2, not_visible, op, reserved_bits, sample
from xfdfuzz.program.step import Content, Mask, Result, image_of, msr_value


def vm_exit(k: Kernel, vcpu: Vcpu, kind: int, kernel_fpu: bool = False, nmi: bool = False) -> Result:
    """VM exit, and the part of its handling that runs with interrupts off."""
    vcpu.exit_pending = kind
    vcpu.mode = st.VCPU_EXITED
    ghost.left(k, k.this_cpu.guest - 1)
    k.this_cpu.guest = 0
    if vcpu.arch.guest_state_protected:
        protected.leave(k.regs, vcpu.vmsa, k.td_xfam(vcpu))
    elif k.machine.cet:
        arch.save_cet_state(k.regs, vcpu.arch.vmcs)
    k.vcpu_enter_guest_exited(vcpu, kernel_fpu, nmi)
    return EXIT


class _Insn(GuestOp):
    __slots__ = ()

    def insn_exit(self, k: Kernel, vcpu: Vcpu, kind: int, msr: int = 0, value: int = 0) -> Result:
        """The instruction exits: it must later complete or fault, once."""
        vcpu.exit_msr = msr
        vcpu.exit_value = value
        ideal = k.system.ghost.vcpus[self.vcpu]
        ideal.insn_owed = kind
        ideal.owed_value = value
        return vm_exit(k, vcpu, kind)

    def read(self, k: Kernel, name: str) -> Result:
        """An instruction that stores contents to memory."""
        vcpu = self.thread(k)
        if not vcpu.arch.cr4_osxsave and name not in arch.LEGACY:
            return Result("#UD")
        try:
            return Result("ok", Content(arch.read(k.regs, k.machine, name, bool(vcpu.arch.cr0_ts))))
        except arch.InvalidOpcode:
            return Result("#UD")
        except arch.DeviceNotAvailable as fault:
            return self.device_not_available(k, vcpu, fault.xfd, 1 << arch.READS[name])

    def save(self, k: Kernel, name: str, mask: int = 0, torn: bool = False) -> Result:
        """An instruction that stores an image to memory."""
        vcpu = self.thread(k)
        if not vcpu.arch.cr4_osxsave and name not in arch.LEGACY:
            return Result("#UD")
        try:
            area = xsave.save(k.regs, k.machine, name, mask, bool(vcpu.arch.cr0_ts))
        except arch.InvalidOpcode:
            return Result("#UD")
        except arch.DeviceNotAvailable:
            return self.device_not_available(k, vcpu, False, 0)
        if torn:
            area.data[xf.XTILE_DATA] = 0
        return Result("ok", image_of(area))

    def device_not_available(self, k: Kernel, vcpu: Vcpu, xfd: bool, components: int) -> Result:
        """#NM: to the guest, or an exit if it is intercepted.  IA32_XFD_ERR is loaded before that is decided."""
        ideal = k.system.ghost.vcpus[self.vcpu]
        if xfd:
            ideal.xfd_err = ideal.xfd & components
        if not k.nm_intercepted(vcpu):
            return Result("#NM")
        ideal.nm_owed = 1
        return vm_exit(k, vcpu, st.EXIT_NM)


class _DataInsn(_Insn):
    __slots__ = ()

    def insn(self, k: Kernel, name: str, token: int) -> Result:
        vcpu = self.thread(k)
        token = ghost.contents_of(token, partial(ghost.guest_token, k, self.vcpu))
        if not vcpu.arch.cr4_osxsave and name not in arch.LEGACY:
            return Result("#UD")
        try:
            arch.execute(k.regs, k.machine, name, token, bool(vcpu.arch.cr0_ts))
        except arch.InvalidOpcode:
            return Result("#UD")
        except arch.DeviceNotAvailable as fault:
            return self.device_not_available(k, vcpu, fault.xfd, 1 << arch.INSTRUCTIONS[name])
        ghost.execute(k.system.ghost.vcpus[self.vcpu].regs, name, token)
        return OK


@op("v{vcpu} fld({contents})")
class GuestFld(_DataInsn):
    """An x87 instruction; #NM while CR0.TS is set.  It needs no XCR0."""

    vcpu: Nr = 0
    contents: Contents = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "fld", self.contents)


@op("v{vcpu} movups({contents})")
class GuestMovups(_DataInsn):
    """An SSE instruction, likewise."""

    vcpu: Nr = 0
    contents: SseContents = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "movups", self.contents)


@op("v{vcpu} ldmxcsr({contents})")
class GuestLdmxcsr(_DataInsn):
    """LDMXCSR: MXCSR gets contents of its own, which are no component; #NM while CR0.TS is set."""

    vcpu: Nr = 0
    contents: Contents = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "ldmxcsr", self.contents)


@op("v{vcpu} stmxcsr")
class GuestStmxcsr(_Insn):
    """STMXCSR: the value is what MXCSR holds; #NM while CR0.TS is set."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.read(k, "stmxcsr")


@op("v{vcpu} vmovups({token})")
class GuestVmovups(_DataInsn):
    """An AVX instruction that writes the upper halves of registers alone (VINSERTF128): the lower ones are SSE, which
    stays as it is; #NM while CR0.TS is set."""

    vcpu: Nr = 0
    token: Token = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "vmovups", self.token)


@op("v{vcpu} ldtilecfg({token})")
class GuestLdtilecfg(_DataInsn):
    """LDTILECFG: configures the tiles and clears them; never an XFD #NM."""

    PROTECTED = False
    vcpu: Nr = 0
    token: Token = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "ldtilecfg", self.token)


@op("v{vcpu} tileload({token})")
class GuestTileload(_DataInsn):
    """TILELOADD: #NM while XFD disables TILEDATA, #UD without a configuration."""

    PROTECTED = False
    vcpu: Nr = 0
    token: Token = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "tileload", self.token)


@op("v{vcpu} tilezero({token})")
class GuestTilezero(_DataInsn):
    """TILEZERO of one tile, which leaves ``token``; tile data that are not in use stay so.  It faults as TILELOADD."""

    PROTECTED = False
    vcpu: Nr = 0
    token: Token = 1

    def run(self, k: Kernel) -> Result:
        self.thread(k)
        if k.regs.data[xf.XTILE_DATA]:
            return self.insn(k, "tileload", self.token)
        return self.read(k, "tilestore")._replace(out=None)


@op("v{vcpu} tilerelease")
class GuestTilerelease(_DataInsn):
    """TILERELEASE: tiles and configuration go to their initial state; never an XFD #NM."""

    PROTECTED = False
    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "tilerelease", 0)


@op("v{vcpu} dyn2load({token})")
class GuestDyn2load(_DataInsn):
    """An instruction of the synthetic dynamic feature."""

    PROTECTED = False
    vcpu: Nr = 0
    token: Token = 1

    def run(self, k: Kernel) -> Result:
        return self.insn(k, "dyn2load", self.token)


@op("v{vcpu} sttilecfg")
class GuestSttilecfg(_Insn):
    """STTILECFG: the value is the configuration; never an XFD #NM."""

    PROTECTED = False
    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.read(k, "sttilecfg")


@op("v{vcpu} tilestore")
class GuestTilestore(_Insn):
    """TILESTORED: the value is the tile data; #NM while XFD disables TILEDATA, #UD without a configuration."""

    PROTECTED = False
    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.read(k, "tilestore")


@op("v{vcpu} vextractf128")
class GuestVextractf128(_Insn):
    """An AVX instruction that stores: the value is the contents of AVX's component.  It faults as VMOVUPS."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.read(k, "vextractf128")


@op("v{vcpu} fxsave")
class GuestFxsave(_Insn):
    """FXSAVE: the value is x87, SSE and MXCSR, which need no XCR0; #NM while CR0.TS is set."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.save(k, "fxsave")


@op("v{vcpu} fxrstor({image})")
class GuestFxrstor(_Insn):
    """FXRSTOR: loads x87, SSE and MXCSR, which need no XCR0; #NM while CR0.TS is set, #GP for reserved bits of
    MXCSR."""

    vcpu: Nr = 0
    image: FpuImage = FpuImage(1)

    def run(self, k: Kernel) -> Result:
        vcpu = self.thread(k)
        if vcpu.arch.cr0_ts:
            return self.device_not_available(k, vcpu, False, 0)
        area = images.legacy_of(self.image, partial(ghost.guest_token, k, self.vcpu))
        try:
            xsave.fxrstor(k.regs, area)
        except arch.GeneralProtection:
            return Result("#GP")
        ghost.set_legacy(k.system.ghost.vcpus[self.vcpu].regs, (area.data[i] for i in xf.LEGACY))
        return OK

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from images.idle_fpu(self.image)


class _Emulated(_Insn):
    """What KVM does in the guest's stead, with the registers that its thread has; CR0.TS makes it a #NM before that.

    Not in L2, whose hypervisor may want the exit.
    """

    __slots__ = ()
    PROTECTED = False

    def hindrance(self, k: Kernel) -> str:
        return _Insn.hindrance(self, k) or in_l2(k.vcpus[self.vcpu], self.vcpu)

    def emulated(self, k: Kernel, kind: int, component: int, value: int = 0) -> Result:
        """The exit that leads to it."""
        vcpu = self.thread(k)
        if vcpu.arch.cr0_ts and kind != st.EXIT_HYPERCALL:
            return self.device_not_available(k, vcpu, False, 0)
        return self.insn_exit(k, vcpu, kind, component, value)


@op("v{vcpu} emulated(movups, {contents})")
class GuestEmulatedLoad(_Emulated):
    """A MOVUPS from memory that KVM has to emulate; #NM while CR0.TS is set."""

    vcpu: Nr = 0
    contents: SseContents = 1

    def run(self, k: Kernel) -> Result:
        token = ghost.contents_of(self.contents, partial(ghost.guest_token, k, self.vcpu))
        return self.emulated(k, st.EXIT_EMULATED_LOAD, xf.SSE, token)


@op("v{vcpu} emulated(movups)")
class GuestEmulatedStore(_Emulated):
    """A MOVUPS to memory, likewise; `handle` gives what it stored."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.emulated(k, st.EXIT_EMULATED_STORE, xf.SSE)


@op("v{vcpu} emulated(fnstcw)")
class GuestEmulatedFnstcw(_Emulated):
    """FNSTCW, likewise; the value is what x87 holds."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.emulated(k, st.EXIT_EMULATED_STORE, xf.X87)


@op("v{vcpu} hypercall(xmm)")
class GuestHypercallXmm(_Emulated):
    """A fast hypercall of Hyper-V's, whose input is in XMM registers; `handle` gives what KVM read there."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.emulated(k, st.EXIT_HYPERCALL, xf.SSE)


class _Save(_Insn):
    __slots__ = ()
    mask: int
    torn: Torn

    def hindrance(self, k: Kernel) -> str:
        """A processor without the erratum finishes the instruction, or starts it again."""
        if self.torn and not k.machine.spr4_erratum:
            return "the machine has no spr4-erratum"
        return _Insn.hindrance(self, k)


@op("v{vcpu} xsave({mask}, {torn})")
class GuestXsave(_Save):
    """XSAVE into zeroed memory of the guest's; the value is the image that it stored.  #NM while CR0.TS is set."""

    vcpu: Nr = 0
    mask: Xfeatures = xf.MASK_X87
    torn: Torn = False

    def run(self, k: Kernel) -> Result:
        return self.save(k, "xsave", self.mask, self.torn)


@op("v{vcpu} xsavec({mask}, {torn})")
class GuestXsavec(_Save):
    """XSAVEC, likewise; #UD where the processor does not have it."""

    vcpu: Nr = 0
    mask: Xfeatures = xf.MASK_X87
    torn: Torn = False

    def run(self, k: Kernel) -> Result:
        return self.save(k, "xsavec", self.mask, self.torn)


@op("v{vcpu} xsaves({mask}, {torn})")
class GuestXsaves(_Save):
    """XSAVES, likewise; #UD until KVM_SET_CPUID2 gave it to the guest (vmx.c, SECONDARY_EXEC_ENABLE_XSAVES), or, on
    ``amd``, XSAVE."""

    PROTECTED = False
    vcpu: Nr = 0
    mask: Xfeatures = xf.MASK_X87
    torn: Torn = False

    def run(self, k: Kernel) -> Result:
        if not k.guest_cpu_cap_has_xsaves(self.thread(k)):
            return Result("#UD")
        return self.save(k, "xsaves", self.mask, self.torn)


class _Restore(_Insn):
    __slots__ = ()
    mask: int
    xstate_bv: int
    token: int
    xcomp_bv: int
    mxcsr: int

    def restore(
        self, k: Kernel, insn: Callable[[CpuRegs, XsaveArea, int], None], possible: Callable[[CpuRegs], int]
    ) -> Result:
        """``possible`` are the components that the registers of the vCPU's CPU, where :meth:`thread` goes, enable."""
        vcpu = self.thread(k)
        if not vcpu.arch.cr4_osxsave:
            return Result("#UD")
        if vcpu.arch.cr0_ts:
            return self.device_not_available(k, vcpu, False, 0)
        image = UserImage(self.xstate_bv, self.token, ((xf.MXCSR, self.mxcsr),), self.xcomp_bv)
        area = images.area_of(image, partial(ghost.guest_token, k, self.vcpu))
        rfbm = self.mask & possible(k.regs)
        try:
            insn(k.regs, area, self.mask)
        except arch.GeneralProtection:
            return Result("#GP")
        except arch.DeviceNotAvailable as fault:
            return self.device_not_available(k, vcpu, fault.xfd, rfbm & self.xstate_bv)
        ghost.restore(k.system.ghost.vcpus[self.vcpu].regs, area, rfbm)
        return OK

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from images.idle_in_xrstor(self.mask, self.xstate_bv, self.token)


@op("v{vcpu} xrstor({mask}, {xstate_bv}, {token}, {xcomp_bv}, {mxcsr})")
class GuestXrstor(_Restore):
    """XRSTOR of an image that holds ``token`` in the components of ``xstate_bv``; #NM while CR0.TS is
    set, or if XFD disables one of them.  The standard format loads MXCSR with SSE or AVX in the mask, the compacted
    one as a part of SSE."""

    vcpu: Nr = 0
    mask: Xfeatures = xf.MASK_X87
    xstate_bv: Xfeatures = 0
    token: Token = 1
    xcomp_bv: XcompBv = 0
    mxcsr: Mxcsr = 0

    def run(self, k: Kernel) -> Result:
        def xrstor(regs: CpuRegs, area: XsaveArea, mask: int) -> None:
            xsave.xrstor(regs, k.machine, area, mask)

        return self.restore(k, xrstor, attrgetter("xcr0"))


@op("v{vcpu} xrstors({mask}, {xstate_bv}, {token}, {xcomp_bv}, {mxcsr})")
class GuestXrstors(_Restore):
    """XRSTORS, likewise, of a compacted image with supervisor states; #UD until KVM_SET_CPUID2 gave XSAVES to the guest
    (vmx.c, SECONDARY_EXEC_ENABLE_XSAVES), or, on ``amd``, XSAVE."""

    PROTECTED = False
    vcpu: Nr = 0
    mask: Xfeatures = xf.MASK_X87
    xstate_bv: Xfeatures = 0
    token: Token = 1
    xcomp_bv: XcompBv = 0
    mxcsr: Mxcsr = 0

    def run(self, k: Kernel) -> Result:
        if not k.guest_cpu_cap_has_xsaves(self.thread(k)):
            return Result("#UD")
        return self.restore(k, xsave.xrstors, xsave.enabled)


@op("v{vcpu} wrmsr({msr}, {value}, {drop})")
class GuestWrmsr(_Insn):
    """WRMSR: exits while it is intercepted, else writes the register.

    ``drop`` tells whether setting XFD directly makes this processor forget tile data at once, which it may (SDM vol. 1,
    13.14).
    """

    PROTECTED = False
    vcpu: Nr = 0
    msr: MsrIndex = MSR_IA32_XFD
    value: MsrData = 0
    drop: Drop = False

    def run(self, k: Kernel) -> Result:
        vcpu = self.thread(k)
        value = ghost.msr_data(k, self.vcpu, self.msr, self.value)
        if k.msr_intercepted(vcpu, self.msr, write=True):
            return self.insn_exit(k, vcpu, st.EXIT_MSR_WRITE, self.msr, value)
        try:
            arch.wrmsr(k.regs, k.machine, self.msr, value)
        except arch.GeneralProtection:
            return Result("#GP")
        ideal = k.system.ghost.vcpus[self.vcpu]
        ghost.write_msr(ideal, self.msr, value)
        if self.msr == MSR_IA32_XFD and self.drop:
            for i in xf.components_in(value & k.regs.xinuse):
                arch.load_component(k.regs, i, 0)
        return OK

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from reserved_bits(self.msr, self.value)


@op("v{vcpu} rdmsr({msr})")
class GuestRdmsr(_Insn):
    """RDMSR: exits while it is intercepted, else reads the register."""

    PROTECTED = False
    vcpu: Nr = 0
    msr: MsrIndex = MSR_IA32_XFD

    def run(self, k: Kernel) -> Result:
        vcpu = self.thread(k)
        if k.msr_intercepted(vcpu, self.msr, write=False):
            return self.insn_exit(k, vcpu, st.EXIT_MSR_READ, self.msr)
        try:
            return Result("ok", msr_value(self.msr, arch.rdmsr(k.regs, k.machine, self.msr)))
        except arch.GeneralProtection:
            return Result("#GP")


@op("v{vcpu} rstorssp({token})")
class GuestRstorssp(_Insn):
    """RSTORSSP: SSP points to another shadow stack, which the token stands for; #UD in a guest without shadow stacks.

    What else moves SSP, as calls do, moves it within the same one.  CR4.CET and the enable bits in IA32_S_CET and
    IA32_U_CET are taken to be set where a guest executes it.
    """

    PROTECTED = False
    vcpu: Nr = 0
    token: Token = 1

    def run(self, k: Kernel) -> Result:
        if not k.guest_cpu_cap_has_shstk(self.thread(k)):
            return Result("#UD")
        ssp = ghost.guest_token(k, self.vcpu, self.token)
        arch.load_component(k.regs, xf.SSP, ssp)
        ghost.define(k.system.ghost.vcpus[self.vcpu].regs, xf.SSP, ssp)
        return OK


@op("v{vcpu} rdssp")
class GuestRdssp(_Insn):
    """RDSSP: the value is which shadow stack SSP points to; a NOP, without a value, in a guest that has none."""

    PROTECTED = False
    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        if not k.guest_cpu_cap_has_shstk(self.thread(k)):
            return OK
        return Result("ok", Content(k.regs.data[xf.SSP]))


@op("v{vcpu} xsetbv({xcr0}, {index})")
class GuestXsetbv(_Insn):
    """XSETBV of XCR0, or, which is #GP, of the register that ECX names; it always exits, but in protected guests,
    unless it is #UD because CR4.OSXSAVE is clear.  What the XFAM of a TD lacks is #GP there: it has AVX at most here,
    whatever KVM_SET_CPUID2 says, so AMX is #GP, which a TD that was made with AMX would not see."""

    vcpu: Nr = 0
    xcr0: Xcr0 = xf.MASK_X87
    index: Xcr = 0

    def run(self, k: Kernel) -> Result:
        vcpu = self.thread(k)
        if not vcpu.arch.cr4_osxsave:
            return Result("#UD")
        if not vcpu.arch.guest_state_protected:
            return self.insn_exit(k, vcpu, st.EXIT_XSETBV, self.index, self.xcr0)
        if self.index:
            return Result("#GP")
        xfam = k.td_xfam(vcpu)
        if xfam is not None and self.xcr0 & ~xfam:
            return Result("#GP")
        try:
            arch.xsetbv(k.regs, k.machine, self.xcr0)
        except arch.GeneralProtection:
            return Result("#GP")
        k.system.ghost.vcpus[self.vcpu].xcr0 = self.xcr0
        return OK


@op("v{vcpu} xsetbv({xcr0}, user)")
class GuestUserXsetbv(_Insn):
    """XSETBV in the guest's user mode: #GP, on ``amd`` behind an exit.

    "Faults based on privilege level" come before VM exits (SDM vol. 3, 26.1.1); that AMD's processors exit first, as
    KVM is prepared for, is INFERRED.
    """

    vcpu: Nr = 0
    xcr0: Xcr0 = xf.MASK_X87

    def run(self, k: Kernel) -> Result:
        vcpu = self.thread(k)
        if not vcpu.arch.cr4_osxsave:
            return Result("#UD")
        if vcpu.arch.guest_state_protected or not k.is_svm():
            return Result("#GP")
        return self.insn_exit(k, vcpu, st.EXIT_USER_XSETBV, value=self.xcr0)


@op("v{vcpu} xgetbv({index})")
class GuestXgetbv(_Insn):
    """XGETBV: 0 reads XCR0, 1 the components of it that are in use; XFD does not count."""

    vcpu: Nr = 0
    index: Bit = 0

    def run(self, k: Kernel) -> Result:
        vcpu = self.thread(k)
        if not vcpu.arch.cr4_osxsave:
            return Result("#UD")
        try:
            return Result("ok", Mask(xsave.xgetbv(k.regs, k.machine, self.index)))
        except arch.GeneralProtection:
            return Result("#GP")


@op("v{vcpu} cpuid({leaf}, {subleaf})")
class GuestCpuid(_Insn):
    """CPUID, which always exits; `handle` gives the four registers.  EBX of 0xD is the image's size for XCR0 (0), the
    compacted one (1), a component's offset; of leaf 1 there are XSAVE and OSXSAVE, bits 26 and 27 of ECX.  Not in a TD,
    which has these leaves from the TDX module, nor in an SEV-SNP guest, which has them from its CPUID page."""

    vcpu: Nr = 0
    leaf: CpuidLeaf = LEAF_XSTATE
    subleaf: Subleaf = 0

    def hindrance(self, k: Kernel) -> str:
        """A TD gets these leaves of the TDX module, by its XFAM, an SNP guest from the page that the firmware has
        checked, and KVM hears nothing of it."""
        of_type = k.vms[k.vcpus[self.vcpu].vm].type
        whose = {st.VM_X86_TDX_VM: "a TD's", st.VM_X86_SNP_VM: "an SNP guest's"}.get(of_type)
        not_modelled = f"that of v{self.vcpu}, which is {whose}, is not modelled" if whose else ""
        return _Insn.hindrance(self, k) or not_modelled

    def run(self, k: Kernel) -> Result:
        return self.insn_exit(k, self.thread(k), st.EXIT_CPUID, self.subleaf, self.leaf)


@op("v{vcpu} clts")
class GuestClts(_Insn):
    """Clear CR0.TS."""

    PROTECTED = False
    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.thread(k).arch.cr0_ts = 0
        return OK


@op("v{vcpu} stts")
class GuestStts(_Insn):
    """Set CR0.TS (MOV to CR0)."""

    PROTECTED = False
    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.thread(k).arch.cr0_ts = 1
        return OK


@op("v{vcpu} mov_cr4({cr4})")
class GuestMovCr4(_Insn):
    """MOV to CR4 that changes OSXSAVE or PKE, which exits, or, on ``amd``, any; #GP if the guest has no XSAVE or no
    PKU.  Not in L2."""

    PROTECTED = False
    vcpu: Nr = 0
    cr4: Cr4 = Cr4(True)

    def hindrance(self, k: Kernel) -> str:
        return _Insn.hindrance(self, k) or in_l2(k.vcpus[self.vcpu], self.vcpu)

    def run(self, k: Kernel) -> Result:
        vcpu = self.thread(k)
        if read_cr4(vcpu) == self.cr4.value and not k.is_svm():
            return OK
        return self.insn_exit(k, vcpu, st.EXIT_CR4_WRITE, value=self.cr4.value)


@op("v{vcpu} wrpkru({pkru})")
class GuestWrpkru(_Insn):
    """WRPKRU, which never exits; #UD while CR4.PKE is clear, whatever XCR0 has.  0 is the initial value."""

    PROTECTED = False
    vcpu: Nr = 0
    pkru: Pkru = 1

    def run(self, k: Kernel) -> Result:
        if not self.thread(k).arch.cr4_pke:
            return Result("#UD")
        token = ghost.guest_token(k, self.vcpu, self.pkru) if self.pkru else 0
        arch.load_component(k.regs, xf.PKRU, token)
        ghost.define(k.system.ghost.vcpus[self.vcpu].regs, xf.PKRU, token)
        return OK


@op("v{vcpu} rdpkru")
class GuestRdpkru(_Insn):
    """RDPKRU, likewise: the value is PKRU."""

    PROTECTED = False
    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        if not self.thread(k).arch.cr4_pke:
            return Result("#UD")
        return Result("ok", Content(k.regs.data[xf.PKRU]))


class _Vmlaunch(_Insn):
    __slots__ = ()
    PROTECTED = False

    def hindrance(self, k: Kernel) -> str:
        vcpu = k.vcpus[self.vcpu]
        if found := _Insn.hindrance(self, k) or in_l2(vcpu, self.vcpu):
            return found
        return f"an INIT of v{self.vcpu} is pending" if vcpu.arch.init_pending else ""


@op("v{vcpu} vmlaunch")
class GuestVmlaunch(_Vmlaunch):
    """The guest is a hypervisor and launches a guest of its own, L2; from the next VM entry on
    it is L2 that executes."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.insn_exit(k, self.thread(k), st.EXIT_VMLAUNCH)


@op("v{vcpu} vmlaunch intercept-nm")
class GuestVmlaunchNm(_Vmlaunch):
    """The same, with #NM in L1's exception bitmap."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.insn_exit(k, self.thread(k), st.EXIT_VMLAUNCH, value=1)


@op("v{vcpu} hlt")
class GuestHlt(_Insn):
    """HLT: exits, and KVM_RUN returns."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.insn_exit(k, self.thread(k), st.EXIT_HLT)


@op("v{vcpu} out")
class GuestOut(_Insn):
    """OUT to a port that user space serves."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return self.insn_exit(k, self.thread(k), st.EXIT_IO)


@op("v{vcpu} shutdown")
class GuestShutdown(GuestOp):
    """A triple fault, which is the guest's end: KVM_RUN returns, on ``amd`` behind an INIT of the vCPU.  Not in L2."""

    PROTECTED = False
    vcpu: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        return GuestOp.hindrance(self, k) or in_l2(k.vcpus[self.vcpu], self.vcpu)

    def run(self, k: Kernel) -> Result:
        return vm_exit(k, self.thread(k), st.EXIT_SHUTDOWN)


@op("v{vcpu} interrupt")
class GuestInterrupt(GuestOp):
    """An external interrupt takes the CPU out of the guest; nothing is left to handle."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return vm_exit(k, self.thread(k), st.EXIT_NONE)


@op("v{vcpu} interrupt kernel_fpu_begin")
class GuestInterruptKernelFpu(GuestOp):
    """The same, and a softirq on the interrupt's way out uses the FPU before KVM enables interrupts."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        return vm_exit(k, self.thread(k), st.EXIT_NONE, kernel_fpu=True)


@op("v{vcpu} pmi")
class GuestPmi(GuestOp):
    """A performance monitoring interrupt of the host's, which is a NMI, takes the CPU out of the guest: the event of
    the VMM's thread samples its branches, which are the value."""

    vcpu: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        if found := GuestOp.hindrance(self, k):
            return found
        protected_guest = k.vcpus[self.vcpu].arch.guest_state_protected
        return f"that of v{self.vcpu}, which is protected, is not modelled" if protected_guest else ""

    def run(self, k: Kernel) -> Result:
        vm_exit(k, self.thread(k), st.EXIT_NONE, nmi=True)
        return sample(k)


class _ToApic(Op):
    __slots__ = ()
    vcpu: int

    def hindrance(self, k: Kernel) -> str:
        vcpu = k.vcpus[self.vcpu]
        if not vcpu.exists:
            return f"there is no v{self.vcpu}"
        # KVM resets its copy of CR4, and the guest goes on with its own
        if why := not_visible(k, self.vcpu):
            return why
        return f"v{self.vcpu} is to launch its L2" if vcpu.exit_pending == st.EXIT_VMLAUNCH else in_l2(vcpu, self.vcpu)


@op("v{vcpu} init")
class PendInit(_ToApic):
    """An INIT arrives at the vCPU's local APIC, from another processor; KVM accepts it before the next VM entry, or in
    KVM_GET_MP_STATE: CR0.TS, CR4.OSXSAVE and CR4.PKE are clear then.  Not while L2 runs, when it would be an exit to
    L1."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        arch = k.vcpus[self.vcpu].arch
        # of the events that are pending it is the only one then (lapic.c, __apic_accept_irq())
        arch.init_pending, arch.sipi_pending = 1, 0
        ghost.init_arrived(k, self.vcpu)
        return OK


@op("v{vcpu} sipi")
class PendSipi(_ToApic):
    """A SIPI arrives there, of a VM with KVM_CREATE_IRQCHIP: an application processor that has got an INIT begins to
    run."""

    vcpu: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        if found := _ToApic.hindrance(self, k):
            return found
        vm = k.vcpus[self.vcpu].vm
        return "" if k.vms[vm].irqchip_in_kernel else f"vm{vm} has no local APICs in the kernel"

    def run(self, k: Kernel) -> Result:
        k.vcpus[self.vcpu].arch.sipi_pending = 1
        ghost.sipi_arrived(k, self.vcpu)
        return OK
