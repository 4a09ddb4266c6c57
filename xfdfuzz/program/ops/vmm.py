"""A VMM's procedures: what it means to do with a vCPU, and what it reads of one and writes to another.

What it means are ops that write the ghost alone: from then on the guest has to find what they promise.  What it reads
and keeps, and what it writes of that, are ioctls as others are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import (
    MSR_IA32_INT_SSP_TAB,
    MSR_IA32_PL0_SSP,
    MSR_IA32_PL1_SSP,
    MSR_IA32_PL2_SSP,
    MSR_IA32_PL3_SSP,
    MSR_IA32_S_CET,
    MSR_IA32_U_CET,
    MSR_IA32_XFD,
    MSR_IA32_XFD_ERR,
    MSR_IA32_XSS,
)
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries, stored_entries
from xfdfuzz.kernel.kvm.msrs import MSR_KVM_INTERNAL_GUEST_SSP
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.kvm.xsave import KVM_XSAVE_SIZE, KvmFpu, KvmXcrs, UserBuffer
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import GhostVmm, System, Vcpu
from xfdfuzz.memory.cstruct import assign, copy_of
from xfdfuzz.program import ghost, images
from xfdfuzz.program.fields import (
    Events,
    FpuChange,
    ImageChange,
    Meant,
    MsrIndex,
    Nested,
    Nr,
    OneRegIndex,
    Sregs,
)
from xfdfuzz.program.ops.base import OK, Op, VcpuIoctl, in_l2, op, whereabouts
from xfdfuzz.program.ops.kvm import (
    Entries,
    events_in_l2,
    get_mp_state,
    get_one_reg,
    nested_state,
    seen_events,
    set_mp_state,
    set_msrs,
    set_nested_state,
    set_one_reg,
    set_sregs,
    set_vcpu_events,
    set_xcrs,
    taken_to_l2,
)
from xfdfuzz.program.step import FpuState, Mask, Result, image_of, msr_value

#: What is kept of each MSR: its bit in GhostVmm.kept, and the member.
_MSRS = {
    MSR_IA32_XFD: (st.KEPT_XFD, "xfd"),
    MSR_IA32_XFD_ERR: (st.KEPT_XFD_ERR, "xfd_err"),
    MSR_IA32_XSS: (st.KEPT_XSS, "xss"),
    MSR_IA32_U_CET: (st.KEPT_U_CET, "u_cet"),
    MSR_IA32_S_CET: (st.KEPT_S_CET, "s_cet"),
    MSR_IA32_PL0_SSP: (st.KEPT_PL0_SSP, "pl0_ssp"),
    MSR_IA32_PL1_SSP: (st.KEPT_PL1_SSP, "pl1_ssp"),
    MSR_IA32_PL2_SSP: (st.KEPT_PL2_SSP, "pl2_ssp"),
    MSR_IA32_PL3_SSP: (st.KEPT_PL3_SSP, "pl3_ssp"),
    MSR_IA32_INT_SSP_TAB: (st.KEPT_INT_SSP_TAB, "int_ssp_tab"),
}
#: The same with SSP.
_REGISTERS = _MSRS | {MSR_KVM_INTERNAL_GUEST_SSP: (st.KEPT_SSP, "ssp")}


def _user_components(k: Kernel) -> int:
    """What an XSAVE image of user space can have."""
    return k.machine.user_xfeatures or xf.MASK_FPSSE


def not_stopped(k: Kernel, nr: int) -> str:
    """Why a vCPU is not its VMM's now; nothing if it is."""
    vcpu = k.vcpus[nr]
    return whereabouts(vcpu, nr) if not vcpu.exists or vcpu.mode != st.VCPU_OUTSIDE else hidden(k, nr)


def hidden(k: Kernel, nr: int) -> str:
    """That a vCPU's state is not its VMM's any more, so that this can mean nothing with it; nothing if it is."""
    return f"v{nr} is sealed" if k.vcpus[nr].arch.guest_state_protected else ""


# -- what a VMM means to do --------------------------------------------------------------------------------------------


class _Intent(Op):
    __slots__ = ()
    vcpu: int

    def hindrance(self, k: Kernel) -> str:
        """The vCPU has to be outside KVM_RUN, where it is its VMM's."""
        return not_stopped(k, self.vcpu)


@op("v{vcpu} copy of v{source}")
class VmmCopy(_Intent):
    """The VMM makes the vCPU go on as the other one, from where that is now: at its first entry the guest finds what it
    would find there."""

    vcpu: Nr = 0
    source: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        if self.vcpu == self.source:
            return f"v{self.vcpu} is itself"
        return not_stopped(k, self.source) or _Intent.hindrance(self, k)

    def run(self, k: Kernel) -> Result:
        vmm = k.system.ghost.vmms[self.vcpu]
        vmm.tenant = ghost.tenant_of(k, self.source) + 1
        vmm.intent = st.INTENT_COPY
        ghost.promise(k, self.vcpu, self.source)
        return OK


@op("v{vcpu} invisible from here")
class VmmInvisible(_Intent):
    """What the VMM does to the vCPU from here on must not show: the guest finds what it left, whatever ioctls there
    were between."""

    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        vmm = k.system.ghost.vmms[self.vcpu]
        ghost.forget(vmm)
        vmm.intent = st.INTENT_INVISIBLE
        return OK


@op("v{vcpu} invisible to here")
class VmmVisible(_Intent):
    """Here it ends: what the VMM's ioctls have changed is in order again, and what they change from here on the guest
    may see."""

    vcpu: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        begun = k.system.ghost.vmms[self.vcpu].intent == st.INTENT_INVISIBLE
        return _Intent.hindrance(self, k) or ("" if begun else f"no `v{self.vcpu} invisible from here` comes before")

    def run(self, k: Kernel) -> Result:
        vmm = k.system.ghost.vmms[self.vcpu]
        ghost.forget(vmm)
        vmm.intent = st.INTENT_NONE
        return OK


@op("v{vcpu} to find {meant}")
class VmmToFind(_Intent):
    """What the VMM changes is meant: at its next entry the guest finds these contents, in place of what was promised
    so far: `copy of`, `invisible from here`, `out of reset` or `reset for another tenant` has to come before."""

    DRAWN = False
    vcpu: Nr = 0
    meant: Meant = Meant(((xf.SSE, 1),))

    def hindrance(self, k: Kernel) -> str:
        begun = k.system.ghost.vmms[self.vcpu].intent
        return _Intent.hindrance(self, k) or ("" if begun else f"nothing is meant with v{self.vcpu} so far")

    def run(self, k: Kernel) -> Result:
        ghost.vmm_acts(k, self.vcpu)
        promise = k.system.ghost.vmms[self.vcpu].promise.regs
        ghost.means(promise, self.meant, partial(ghost.guest_token, k, self.vcpu))
        return OK


@op("v{vcpu} reset for another tenant")
class VmmReset(_Intent):
    """The VMM gives the vCPU to another guest: that one finds the processor as it comes out of reset, but for what
    ioctls from here on have given it, and nothing of the guest before.  A vCPU can have 5 guests in all."""

    vcpu: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        following = self.vcpu + st.NR_VCPUS * (k.system.ghost.vmms[self.vcpu].tenants + 1)
        many = "" if following < ghost.TENANTS else f"v{self.vcpu} has had 5 guests, which is all that there can be"
        return many or _Intent.hindrance(self, k)

    def run(self, k: Kernel) -> Result:
        ghost.gets_tenant(k, self.vcpu)
        ghost.is_reset(k, self.vcpu, st.INTENT_RESET)
        return OK


@op("v{vcpu} out of reset")
class VmmOutOfReset(_Intent):
    """The VMM makes the vCPU a processor that comes out of reset: whatever ioctls come between, its guest finds XCR0,
    MSRs and all registers as after a reset.  CR0 and CR4 may be what KVM_SET_SREGS makes them, for a kernel that is
    booted at once, and its CPUID is whatever the VMM gives it."""

    DRAWN = False
    vcpu: Nr = 0

    def run(self, k: Kernel) -> Result:
        ghost.is_reset(k, self.vcpu, st.INTENT_OUT_OF_RESET)
        return OK


# -- what it keeps -----------------------------------------------------------------------------------------------------


class _Keep(VcpuIoctl):
    """Where KVM cannot see the guest, an honest kernel gives what it has in its place."""

    __slots__ = ()

    def vmm(self, k: Kernel) -> GhostVmm:
        """Who reads."""
        return k.system.ghost.vmms[self.vcpu]

    def keep_image(self, k: Kernel, got: tuple[int, XsaveArea | None], size: int | None) -> Result:
        """What KVM gave, and what it should have given in so many bytes."""
        ret, image = got
        if ret or image is None:
            return Result(ret)
        vmm, size_of = self.vmm(k), k.machine.cpuid.standard_size
        # an image without PKRU leaves that of its destination alone, so it matters which kernel shows it
        shown = _user_components(k) & (k.kvm_get_xsave_features(k.vcpus[self.vcpu]) | ~xf.MASK_PKRU)
        fits = [i for i in xf.components_in(shown) if size is None or size_of(1 << i) <= size]
        offered = k.vcpus[self.vcpu].arch.guest_supported_xcr0 | xf.MASK_FPSSE | xf.MASK_MXCSR
        if ghost.takes(k, k.vcpus[self.vcpu]):
            ideal = k.system.ghost.vcpus[self.vcpu]
            ghost.read_image(ideal, vmm.honest.regs, _user_components(k), xf.mask_of(*fits), offered)
        else:
            ghost.define(vmm.honest.regs, xf.PKRU, 0)
            ghost.set_xsave(k, vmm.honest, image)
        assign(vmm.image, image)
        vmm.kept |= st.KEPT_IMAGE
        return Result(0, image_of(image))

    def keep_register(self, k: Kernel, index: int, value: int) -> None:
        """What KVM gave for an MSR, or SSP, and what it should have given."""
        vmm, (bit, name) = self.vmm(k), _REGISTERS[index]
        setattr(vmm, name, value)
        shows = ghost.can_read(k, k.vcpus[self.vcpu], index) and not hidden(k, self.vcpu)
        honest = ghost.read_msr(k.system.ghost.vcpus[self.vcpu], index) if shows else value
        if index in ghost.CONTENT_MSRS:
            ghost.define(vmm.honest.regs, ghost.CONTENT_MSRS[index], honest)
        else:
            setattr(vmm.honest, name, honest)
        vmm.kept |= bit


@op("t{task} ioctl(v{vcpu}, KVM_GET_XSAVE) keep")
class KeepXsave(_Keep):
    """Read the image in 4096 bytes and keep it."""

    call = "KvmGetXsave"
    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return self.keep_image(k, k.kvm_arch_vcpu_ioctl_get_xsave(vcpu, UserBuffer()), KVM_XSAVE_SIZE)


@op("t{task} ioctl(v{vcpu}, KVM_GET_XSAVE2) keep")
class KeepXsave2(_Keep):
    """Read the whole image and keep it."""

    call = "KvmGetXsave2"
    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return self.keep_image(k, k.kvm_arch_vcpu_ioctl_get_xsave2(vcpu, UserBuffer()), None)


@op("t{task} ioctl(v{vcpu}, KVM_GET_FPU) keep")
class KeepFpu(_Keep):
    """Read x87, SSE and MXCSR and keep them."""

    call = "KvmGetFpu"
    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        ret, fpu = k.kvm_vcpu_ioctl_get_fpu(vcpu)
        if ret or fpu is None:
            return Result(ret)
        vmm, ideal = self.vmm(k), k.system.ghost.vcpus[self.vcpu].regs
        vmm.fpu.x87, vmm.fpu.sse, vmm.fpu.mxcsr = fpu
        seen = ghost.takes(k, vcpu)
        for i, given in zip(xf.LEGACY, fpu, strict=True):
            vmm.honest_fpu.data[i] = ideal.data[i] if seen else given
        vmm.honest_fpu.undefined = ideal.undefined & xf.mask_of(*xf.LEGACY) if seen else 0
        vmm.kept |= st.KEPT_FPU
        return Result(ret, FpuState(tuple(zip(xf.LEGACY, fpu, strict=True))))


@op("t{task} ioctl(v{vcpu}, KVM_GET_XCRS) keep")
class KeepXcrs(_Keep):
    """Read XCR0 and keep it."""

    call = "KvmGetXcrs"
    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        ret, value = k.kvm_vcpu_ioctl_x86_get_xcrs(vcpu)
        if value is not None:
            vmm = self.vmm(k)
            vmm.xcr0 = value
            vmm.honest.xcr0 = value if hidden(k, self.vcpu) else k.system.ghost.vcpus[self.vcpu].xcr0
            vmm.kept |= st.KEPT_XCR0
        return Result(ret, None if value is None else Mask(value))


@op("t{task} ioctl(v{vcpu}, KVM_GET_MSRS, {msr}) keep")
class KeepMsr(_Keep):
    """Read an MSR and keep it; what KVM does not give is not there to be written."""

    call = "KvmGetMsrs"
    task: Nr = 0
    vcpu: Nr = 0
    msr: MsrIndex = MSR_IA32_XFD

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        count, value = k.kvm_get_msrs(vcpu, self.msr)
        if not count:
            return Result(count)
        self.keep_register(k, self.msr, value)
        return Result(count, msr_value(self.msr, value))

    def asked(self, before: System) -> int:
        return 1


@op("t{task} ioctl(v{vcpu}, KVM_GET_ONE_REG, {msr}) keep")
class KeepOneReg(_Keep):
    """Read SSP, or an MSR, and keep it."""

    call = "KvmGetOneReg"
    OF_VISIBLE = True
    task: Nr = 0
    vcpu: Nr = 0
    msr: OneRegIndex = MSR_KVM_INTERNAL_GUEST_SSP

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        ret, value = get_one_reg(k, vcpu, self.msr)
        if ret:
            return Result(ret)
        self.keep_register(k, self.msr, value)
        return Result(ret, msr_value(self.msr, value))


@op("t{task} ioctl(v{vcpu}, KVM_GET_VCPU_EVENTS) keep")
class KeepVcpuEvents(_Keep):
    """Read which exception the guest will get, and whether an INIT is pending, and keep both."""

    call = "KvmGetVcpuEvents"
    OF_VISIBLE = True
    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        vmm = self.vmm(k)
        events = k.kvm_vcpu_ioctl_x86_get_vcpu_events(vcpu)
        vmm.exception = events.vector
        vmm.honest.exception = k.system.ghost.vcpus[self.vcpu].exception
        vmm.kept = vmm.kept & ~(st.KEPT_PENDING | st.KEPT_INIT) | st.KEPT_EVENTS
        vmm.kept |= (st.KEPT_PENDING if events.pending else 0) | (st.KEPT_INIT if events.latched_init else 0)
        return Result(0, seen_events(events))


@op("t{task} ioctl(v{vcpu}, KVM_GET_NESTED_STATE) keep")
class KeepNestedState(_Keep):
    """Read whether L2 runs and keep it, with what goes with it."""

    call = "KvmGetNestedState"
    OF_VISIBLE = True
    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        vmm, nested = self.vmm(k), nested_state(vcpu)
        vmm.nested_guest_mode, vmm.nested_nm = nested
        vmm.kept |= st.KEPT_NESTED
        return Result(0, nested)


@op("t{task} ioctl(v{vcpu}, KVM_GET_SREGS) keep")
class KeepSregs(_Keep):
    """Read CR4.OSXSAVE, CR0.TS and CR4.PKE and keep them."""

    call = "KvmGetSregs"
    OF_VISIBLE = True
    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        vmm, sregs = self.vmm(k), Sregs.of(*k.kvm_vcpu_ioctl_get_sregs(vcpu))
        vmm.sregs_osxsave, vmm.sregs_ts, vmm.sregs_pke = sregs.osxsave, sregs.ts, sregs.pke
        vmm.kept |= st.KEPT_SREGS
        return Result(0, sregs)


@op("t{task} ioctl(v{vcpu}, KVM_GET_MP_STATE) keep")
class KeepMpState(_Keep):
    """Read the MP state and keep it; a pending INIT or SIPI is accepted before that."""

    call = "KvmGetMpState"
    OF_VISIBLE = True
    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        result = get_mp_state(k, self.vcpu)
        if not result.ret:
            vmm = self.vmm(k)
            vmm.kept_mp_state = vcpu.arch.mp_state
            vmm.kept |= st.KEPT_MP_STATE
        return result


# -- what it writes of that --------------------------------------------------------------------------------------------


class _Load(VcpuIoctl):
    __slots__ = ()
    source: int

    def hindrance(self, k: Kernel) -> str:
        return self.missing(k) or VcpuIoctl.hindrance(self, k)

    def missing(self, k: Kernel) -> str:
        """Why the VMM does not have what it would write; nothing where it has."""
        raise NotImplementedError

    def not_kept(self, k: Kernel, what: int, name: str) -> str:
        """That none of these was kept."""
        return "" if self.kept(k).kept & what else f"nothing that {name} gave was kept of v{self.source}"

    def kept(self, k: Kernel) -> GhostVmm:
        """What it has."""
        return k.system.ghost.vmms[self.source]


@op("t{task} ioctl(v{vcpu}, KVM_SET_CPUID2) of v{source}")
class LoadCpuid(_Load):
    """Give the guest the CPUID that another vCPU has."""

    call = "KvmSetCpuid2"
    task: Nr = 0
    vcpu: Nr = 0
    source: Nr = 0

    def missing(self, k: Kernel) -> str:
        source = k.vcpus[self.source]
        return "" if source.exists and source.arch.cpuid_set else f"v{self.source} has no CPUID"

    def given(self, k: Kernel) -> CpuidEntries:
        """The array that the kernel gets."""
        return stored_entries(k.vcpus[self.source].arch)

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return Result(k.kvm_vcpu_ioctl_set_cpuid2(vcpu, self.given(k)))


@op("t{task} ioctl(v{vcpu}, KVM_SET_SREGS) of v{source}")
class LoadSregs(_Load):
    """Set or clear CR4.OSXSAVE, CR4.PKE and CR0.TS as KVM_GET_SREGS gave them of a vCPU, if they were kept, or else as
    it has them now; the rest is a 64-bit state."""

    call = "KvmSetSregs"
    task: Nr = 0
    vcpu: Nr = 0
    source: Nr = 0

    def missing(self, k: Kernel) -> str:
        there = self.kept(k).kept & st.KEPT_SREGS or k.vcpus[self.source].exists
        return "" if there else f"there is no v{self.source}"

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return set_sregs(k, self.vcpu, self.sregs(k))

    def sregs(self, k: Kernel) -> Sregs:
        """What was kept, or what there is."""
        kept = self.kept(k)
        if kept.kept & st.KEPT_SREGS:
            return Sregs(bool(kept.sregs_osxsave), bool(kept.sregs_ts), bool(kept.sregs_pke))
        return Sregs.of(*k.kvm_vcpu_ioctl_get_sregs(k.vcpus[self.source]))


@op("t{task} ioctl(v{vcpu}, KVM_SET_VCPU_EVENTS) of v{source}")
class LoadVcpuEvents(_Load):
    """Inject the exception that was kept of a vCPU, as pending where KVM gave it so, or drop what the guest would get
    where it had none; in the same way an INIT is pending then, or none."""

    call = "KvmSetVcpuEvents"
    OF_VISIBLE = True
    task: Nr = 0
    vcpu: Nr = 0
    source: Nr = 0

    def missing(self, k: Kernel) -> str:
        return self.not_kept(k, st.KEPT_EVENTS, "KVM_GET_VCPU_EVENTS")

    def hindrance(self, k: Kernel) -> str:
        return _Load.hindrance(self, k) or events_in_l2(k, self.vcpu, self.events(k))

    def events(self, k: Kernel) -> Events:
        """What it has, pending and latched where KVM gave it so."""
        kept = self.kept(k)
        return Events.of(kept.exception, bool(kept.kept & st.KEPT_PENDING), bool(kept.kept & st.KEPT_INIT))

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return set_vcpu_events(k, self.vcpu, self.events(k), self.kept(k).honest.exception)


@op("t{task} ioctl(v{vcpu}, KVM_SET_MP_STATE) of v{source}")
class LoadMpState(_Load):
    """Write the MP state that was kept of a vCPU.  Not in L2."""

    call = "KvmSetMpState"
    OF_VISIBLE = True
    task: Nr = 0
    vcpu: Nr = 0
    source: Nr = 0

    def missing(self, k: Kernel) -> str:
        return self.not_kept(k, st.KEPT_MP_STATE, "KVM_GET_MP_STATE")

    def hindrance(self, k: Kernel) -> str:
        return _Load.hindrance(self, k) or in_l2(k.vcpus[self.vcpu], self.vcpu)

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return set_mp_state(k, self.vcpu, self.kept(k).kept_mp_state)


@op("t{task} ioctl(v{vcpu}, KVM_SET_NESTED_STATE) of v{source}")
class LoadNestedState(_Load):
    """Let the guest go on in L2 or in L1, as was kept of a vCPU."""

    call = "KvmSetNestedState"
    OF_VISIBLE = True
    task: Nr = 0
    vcpu: Nr = 0
    source: Nr = 0

    def missing(self, k: Kernel) -> str:
        return self.not_kept(k, st.KEPT_NESTED, "KVM_GET_NESTED_STATE")

    def hindrance(self, k: Kernel) -> str:
        return _Load.hindrance(self, k) or taken_to_l2(k, self.vcpu, self.nested(k))

    def nested(self, k: Kernel) -> Nested:
        """What it has."""
        kept = self.kept(k)
        return Nested(bool(kept.nested_guest_mode), bool(kept.nested_nm))

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return set_nested_state(k, self.vcpu, self.nested(k))


@op("t{task} ioctl(v{vcpu}, KVM_SET_XCRS) of v{source}")
class LoadXcrs(_Load):
    """Write the XCR0 that was kept of a vCPU."""

    call = "KvmSetXcrs"
    task: Nr = 0
    vcpu: Nr = 0
    source: Nr = 0

    def missing(self, k: Kernel) -> str:
        return self.not_kept(k, st.KEPT_XCR0, "KVM_GET_XCRS")

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        kept = self.kept(k)
        return set_xcrs(k, self.vcpu, KvmXcrs(kept.xcr0), kept.honest.xcr0)


@op("t{task} ioctl(v{vcpu}, KVM_SET_MSRS) of v{source}")
class LoadMsrs(_Load):
    """Write all MSRs that were kept of a vCPU, in one call; returns how many entries were taken."""

    call = "KvmSetMsrs"
    task: Nr = 0
    vcpu: Nr = 0
    source: Nr = 0

    def missing(self, k: Kernel) -> str:
        return self.not_kept(k, st.KEPT_MSRS, "KVM_GET_MSRS")

    def given(self, k: Kernel) -> Entries:
        """The entries that the kernel gets."""
        kept = self.kept(k)
        return tuple((msr, getattr(kept, name)) for msr, (bit, name) in _MSRS.items() if kept.kept & bit)

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        entries, honest = self.given(k), self.kept(k).honest
        return set_msrs(k, self.vcpu, entries, tuple((msr, ghost.read_msr(honest, msr)) for msr, _ in entries))

    def asked(self, before: System) -> int:
        return (before.ghost.vmms[self.source].kept & st.KEPT_MSRS).bit_count()


@op("t{task} ioctl(v{vcpu}, KVM_SET_ONE_REG, {msr}) of v{source}")
class LoadOneReg(_Load):
    """Write the SSP, or the MSR, that was kept of a vCPU."""

    call = "KvmSetOneReg"
    OF_VISIBLE = True
    task: Nr = 0
    vcpu: Nr = 0
    source: Nr = 0
    msr: OneRegIndex = MSR_KVM_INTERNAL_GUEST_SSP

    def missing(self, k: Kernel) -> str:
        return self.not_kept(k, _REGISTERS[self.msr][0], "KVM_GET_ONE_REG")

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        kept = self.kept(k)
        value = getattr(kept, _REGISTERS[self.msr][1])
        return set_one_reg(k, self.vcpu, self.msr, (value, ghost.read_msr(kept.honest, self.msr)))


@op("t{task} ioctl(v{vcpu}, KVM_SET_XSAVE) of v{source} {change}")
class LoadXsave(_Load):
    """Load the image that was kept of a vCPU, or what the VMM has made of it."""

    call = "KvmSetXsave"
    task: Nr = 0
    vcpu: Nr = 0
    source: Nr = 0
    change: ImageChange = ImageChange()

    def missing(self, k: Kernel) -> str:
        return self.not_kept(k, st.KEPT_IMAGE, "KVM_GET_XSAVE")

    def given(self, k: Kernel) -> XsaveArea:
        """The image that the kernel gets."""
        image: XsaveArea = copy_of(self.kept(k).image)
        images.change(image, self.change, partial(ghost.guest_token, k, self.vcpu))
        return image

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        kept, own = self.kept(k), partial(ghost.guest_token, k, self.vcpu)
        given = self.given(k)
        ret = k.kvm_arch_vcpu_ioctl_set_xsave(vcpu, copy_of(given), UserBuffer())
        ghost.gave(k, self.vcpu, given.data)
        honest = ghost.changed(k, kept.honest.regs, kept.image, self.change, own)
        for ideal in ghost.told(k, self.vcpu) if not ret and ghost.takes(k, vcpu) else ():
            ghost.load_image(ideal, honest, _user_components(k))
        return Result(ret)

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from images.idle_change(self.change)


@op("t{task} ioctl(v{vcpu}, KVM_SET_FPU) of v{source} {change}")
class LoadFpu(_Load):
    """Write the x87, SSE and MXCSR that were kept of a vCPU, or what the VMM has made of them."""

    call = "KvmSetFpu"
    task: Nr = 0
    vcpu: Nr = 0
    source: Nr = 0
    change: FpuChange = FpuChange()

    def missing(self, k: Kernel) -> str:
        return self.not_kept(k, st.KEPT_FPU, "KVM_GET_FPU")

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        kept, own = self.kept(k), partial(ghost.guest_token, k, self.vcpu)
        fpu = images.change_fpu(KvmFpu(kept.fpu.x87, kept.fpu.sse, kept.fpu.mxcsr), self.change, own)
        ret = k.kvm_vcpu_ioctl_set_fpu(vcpu, fpu)
        ghost.gave(k, self.vcpu, fpu)
        for ideal in ghost.told(k, self.vcpu) if not ret and ghost.takes(k, vcpu) else ():
            ghost.set_legacy(ideal.regs, (kept.honest_fpu.data[i] for i in xf.LEGACY))
            ideal.regs.undefined |= kept.honest_fpu.undefined
            ghost.means(ideal.regs, Meant(self.change.contents), own)
        return Result(ret)
