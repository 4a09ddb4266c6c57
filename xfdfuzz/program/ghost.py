"""How the ideal machine moves.  Ops call these; kernels never do.

Tokens are made distinct per owner, so that a leak or a mix-up of register contents shows as such: guest v0's tokens and
task t0's never meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import HEADER_END
from xfdfuzz.arch.registers import CET_MSRS, INSTRUCTIONS, MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS
from xfdfuzz.arch.xsave import MXCSR_RESERVED, XsaveArea
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.fields import task_name
from xfdfuzz.kernel.fpu.init import PKRU_DEFAULT, ZEROED
from xfdfuzz.kernel.fpu.signal import components_at_magic2
from xfdfuzz.kernel.kvm.cpuid import CPUID_FLAGS, CpuidEntries, stored_entries
from xfdfuzz.kernel.kvm.msrs import MSR_KVM_INTERNAL_GUEST_SSP
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import OWNER_SHIFT, GhostCpuid, GhostRegs, GhostVcpu, GhostVmm, SigFrame, Vcpu
from xfdfuzz.memory.cstruct import assign, copy_of
from xfdfuzz.program.fields import RESERVED, TOKENS, ZERO, ImageChange, Meant

#: Of what holds a register content, and is read and written by an index: at which place it stands.
CONTENT_MSRS = CET_MSRS | {MSR_KVM_INTERNAL_GUEST_SSP: xf.SSP}
_FIRST_VCPU_OWNER = 16
#: So many tenants there can be, of all vCPUs, as many of each: a token has 8 bits.
TENANTS = 5 * st.NR_VCPUS
#: What contents are called that have no owner.
_SPECIAL = {0: "init", ZEROED: "zero", MXCSR_RESERVED: "reserved"}
#: By the numbers that a program has for them.
_NOBODYS = {0: 0, ZERO: ZEROED, RESERVED: MXCSR_RESERVED}


def task_token(task: int, token: int) -> int:
    """Task ``task``'s register content ``token``."""
    return st.task_contents(task, token)


def vcpu_token(tenant: int, token: int) -> int:
    """Register content ``token`` of a guest: of the one that vCPU ``tenant`` is made for, or of a later tenant of
    ``tenant % NR_VCPUS``."""
    return (_FIRST_VCPU_OWNER + tenant) << OWNER_SHIFT | token


def contents_of(number: int, owner: Callable[[int], int]) -> int:
    """The content that a number of a program stands for: nobody's, or one of the ``owner``'s."""
    return _NOBODYS[number] if number in _NOBODYS else owner(number)


def tenant_of(k: Kernel, vcpu: int) -> int:
    """Whose contents a vCPU's guest writes."""
    return (k.system.ghost.vmms[vcpu].tenant or vcpu + 1) - 1


def guest_token(k: Kernel, vcpu: int, token: int) -> int:
    """Register content ``token`` of the guest that a vCPU has now."""
    return vcpu_token(tenant_of(k, vcpu), token)


def tenant_name(tenant: int) -> str:
    """``v0``, and ``v0.2`` for the second one that it was given to."""
    later, vcpu = divmod(tenant, st.NR_VCPUS)
    return f"v{vcpu}.{later + 1}" if later else f"v{vcpu}"


def owner(token: int) -> int:
    """Whose content it is; 0 for the initial configuration and for the kernel's own values."""
    return token >> OWNER_SHIFT


def content(token: int) -> str:
    """A content as everybody writes it: ``init``, ``v0:3`` (vCPU 0's content 3), ``v0.2:3`` (the same of its second
    tenant), ``t1:2``, ``mm0:1`` (the PASID of address space 0), ``kernel:1``, or ``zero`` where x87 or MXCSR has no bit
    set, not even those of its initial value.
    """
    if token in _SPECIAL:
        return _SPECIAL[token]
    owners = {owner(vcpu_token(nr, 0)): tenant_name(nr) for nr in range(TENANTS)}
    owners |= {owner(task_token(nr, 0)): task_name(nr) for nr in range(st.USER_TASKS)}
    owners |= {owner(st.pasid_of(nr)): f"mm{nr}" for nr in st.USER_MMS}
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


def user_contents(k: Kernel) -> tuple[int, ...]:
    """The components that a task has in user mode, and MXCSR."""
    return (*xf.components_in(k.machine.user_xfeatures or xf.MASK_FPSSE), xf.MXCSR)


def initialise(k: Kernel, task: int) -> None:
    """The task's user components are in their initial configuration."""
    for i in user_contents(k):
        define(k.system.ghost.tasks[task], i, 0)


def with_mxcsr(k: Kernel) -> int:
    """The components of XSTATE_BV with which the MXCSR of an image that is written counts: SSE and AVX.

    MXCSR lies among x87's bytes, so the kernel's copy has it with x87, too, and checks it ("when any of the related
    features is in use", copy_uabi_to_xstate()).  Who loads the standard format has it then; in the compacted one it is
    initial with SSE.
    """
    return xf.MASK_WITH_MXCSR if k.compacted else xf.MASK_WITH_MXCSR | xf.MASK_X87


def load(k: Kernel, regs: GhostRegs, area: XsaveArea) -> None:
    """The components that an image in the standard format has in XSTATE_BV are loaded, and MXCSR if it counts."""
    for i in xf.components_in(area.xstate_bv):
        define(regs, i, area.data[i])
    if area.xstate_bv & with_mxcsr(k):
        define(regs, xf.MXCSR, area.data[xf.MXCSR])


def restore(regs: GhostRegs, area: XsaveArea, rfbm: int) -> None:
    """XRSTOR or XRSTORS of an image: what XSTATE_BV lacks is initialised.  MXCSR goes with SSE or AVX in the standard
    format, and is a part of SSE in the compacted one."""
    for i in xf.registers_of(rfbm):
        define(regs, i, area.data[i] if area.xstate_bv & xf.COMPONENT_BITS[i] else 0)
    if area.xcomp_bv and rfbm & xf.MASK_SSE:
        define(regs, xf.MXCSR, area.data[xf.MXCSR] if area.xstate_bv & xf.MASK_SSE else 0)
    elif not area.xcomp_bv and rfbm & xf.MASK_WITH_MXCSR:
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
    than any that this machine makes, and what a component holds in whose bytes the second magic stands.  A 32-bit frame
    has x87 in its header, and what an XSTATE_BV without x87 or SSE does to that, and to MXCSR, is left open.  Without a
    pointer to an image "no FPU/extended context" is there (ibid.): all is initial, and PKRU the default.  x87 and SSE
    of a frame whose header is the kernel's are loaded, whatever was in use: a handler that has edited them may be older
    than XSAVE (04944b793e18).
    """
    if frame.null:
        return {xf.PKRU: PKRU_DEFAULT} if k.ospke else {}, 0
    loaded, unsaid = _of_image(k, frame)
    if k.current.ia32:
        unsaid |= xf.MASK_X87 if xf.X87 not in loaded else 0
        unsaid |= xf.MASK_MXCSR if xf.SSE not in loaded else 0
        loaded[xf.X87] = frame.fsave
    # of what nobody promises a task has what its frame has, or the initial state, and so have those that inherit it
    for i in xf.CONTENTS:
        if unsaid >> i & 1:
            loaded.setdefault(i, frame.area.data[i])
    return loaded, unsaid


def _of_image(k: Kernel, frame: SigFrame) -> tuple[dict[int, int], int]:
    """The same of a frame without a header."""
    area = frame.area
    whole = HEADER_END <= frame.xstate_size <= frame.extended_size and frame.magic2 == frame.xstate_size
    if not (k.use_xsave and frame.magic1 and whole):
        return {i: area.data[i] for i in xf.LEGACY}, 0
    held = (area.xstate_bv | frame.legacy) & frame.xfeatures & k.machine.user_xfeatures
    loaded = {i: area.data[i] for i in xf.components_in(held)}
    if frame.xfeatures & xf.MASK_SSE:
        loaded[xf.MXCSR] = area.data[xf.MXCSR]
    unsaid = 0 if frame.xfeatures & xf.MASK_SSE else xf.MASK_MXCSR
    unsaid |= components_at_magic2(frame.magic2, k.machine.cpuid) & xf.mask_of(*loaded)
    if frame.xstate_size > k.fpu_user_cfg.max_size:
        unsaid |= k.machine.user_xfeatures | xf.MASK_MXCSR
    return loaded, unsaid


def set_xfd(vcpu: GhostVcpu, value: int) -> None:
    """XFD was written.  What a newly disabled component held is undefined from here on (SDM vol. 1, 13.14)."""
    for i in xf.components_in(value & ~vcpu.xfd):
        if vcpu.regs.data[i]:
            vcpu.regs.undefined |= 1 << i
    vcpu.xfd = value


def msr_data(k: Kernel, vcpu: int, index: int, value: int) -> int:
    """What a WRMSR of ``value`` writes: of an MSR of CET 0 to 7 stand for the vCPU's contents, and more for values that
    it cannot have."""
    if index not in CONTENT_MSRS or not value:
        return value
    return value | 1 << 63 if has_reserved_bits(index, value) else guest_token(k, vcpu, value)


def has_reserved_bits(index: int, value: int) -> bool:
    """Whether a number of a program stands for a value that an MSR of CET cannot have."""
    return index in CONTENT_MSRS and value > TOKENS


def write_msr(ghost: GhostVcpu, index: int, data: int) -> None:
    """An MSR took a value."""
    if index == MSR_IA32_XFD:
        set_xfd(ghost, data)
    elif index == MSR_IA32_XFD_ERR:
        ghost.xfd_err = data
    elif index == MSR_IA32_XSS:
        ghost.xss = data
    else:
        define(ghost.regs, CONTENT_MSRS[index], data)


def read_msr(ghost: GhostVcpu, index: int) -> int:
    """What an MSR holds."""
    if index in CONTENT_MSRS:
        return ghost.regs.data[CONTENT_MSRS[index]]
    return {MSR_IA32_XFD: ghost.xfd, MSR_IA32_XFD_ERR: ghost.xfd_err, MSR_IA32_XSS: ghost.xss}[index]


def can_read(k: Kernel, vcpu: Vcpu, index: int) -> bool:
    """Whether the guest has the MSR by its CPUID: of others user space gets whatever KVM takes them to be."""
    if index in CONTENT_MSRS:
        return k.guest_has_cet_msr(vcpu, index)
    return bool(vcpu.arch.cpuid_xfd or index == MSR_IA32_XSS)


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
    load(k, vcpu.regs, area)
    vcpu.regs.undefined |= xf.mask_of(*(i for i in xf.components_in(vcpu.xfd & area.xstate_bv) if area.data[i]))


def init(k: Kernel, nr: int, shutdown: bool = False) -> None:
    """INIT: CR0 and CR4 go, MPX and CET are cleared, an exception or instruction that waits is forgotten.

    Whether AMD's processors clear what of CET is in no component was not found: there it stays, as KVM has it, but
    behind a ``shutdown``, which leaves nothing of the VMCB.  One that was not promised leaves what is.
    """
    not_in_xsave = () if k.is_svm() and not shutdown else (xf.S_CET, xf.INT_SSP_TAB, xf.SSP)
    vcpu, vmm = k.vcpus[nr], k.system.ghost.vmms[nr]
    # where the local APIC is its VMM's the INIT is, too: KVM shows none, and takes none
    meant = vmm.pending and (vmm.init_pending or not k.lapic_in_kernel(vcpu))
    for ideal in lived(k, nr) if meant else (k.system.ghost.vcpus[nr],):
        for i in (*xf.registers_of(xf.MASK_MPX | xf.MASK_CET), *not_in_xsave):
            define(ideal.regs, i, 0)
        owes_nothing(ideal)
    if meant:
        # of CR0 and CR4 the ghost has what is promised alone
        vmm.osxsave = vmm.ts = vmm.pke = vmm.init_pending = 0
        vmm.mp_state = st.mp_state_to_be(k.system, vcpu)
    vcpu.arch.insn_skips = 0


def owes_nothing(ideal: GhostVcpu) -> None:
    """No instruction waits to complete, and no exception to be delivered."""
    ideal.insn_owed = ideal.nm_owed = ideal.exception = ideal.injected = ideal.pending = 0


def goes_elsewhere(ideal: GhostVcpu) -> None:
    """RIP was moved: what the instruction there owed is forgotten, but not what user space has injected, if it has not
    called it pending."""
    injected = ideal.exception if ideal.injected and not ideal.pending else 0
    owes_nothing(ideal)
    if injected:
        user_injected(ideal, injected)


def was_handled(vcpu: Vcpu, ideal: GhostVcpu) -> None:
    """An exit was handled: a #NM that was intercepted is to be delivered, and so is the #GP of an instruction that KVM
    refused."""
    if ideal.nm_owed:
        ideal.exception = st.NM_VECTOR
    elif ideal.insn_owed and vcpu.arch.exception_pending:
        ideal.exception = vcpu.arch.exception_vector


def user_injected(ideal: GhostVcpu, vector: int, pending: bool = False) -> None:
    """KVM_SET_VCPU_EVENTS took an exception, or none: an instruction that was refused has nothing to wait for."""
    if ideal.exception and not ideal.injected:
        ideal.insn_owed = 0
    ideal.exception, ideal.injected, ideal.pending = vector, bool(vector), bool(vector) and pending
    ideal.nm_owed = vector == st.NM_VECTOR


def takes(k: Kernel, vcpu: Vcpu) -> bool:
    """Whether what user space sets of the vCPU is the guest's: that of a sealed one is not, nor the FPU of an SEV-ES
    guest that KVM_SEV_ES_INIT made (KVM's ABI, eb4441864e03)."""
    return not vcpu.arch.guest_state_protected and k.vms[vcpu.vm].type != st.VM_SEV_ES


def was_sealed(k: Kernel, vcpu: Vcpu, ideal: GhostVcpu) -> None:
    """The registers went into a VMSA, where XFD and what lies beyond AVX have no place but PKRU.

    The guest begins with what it was given, but one that KVM_SEV_ES_INIT made with a VMSA of zeros, on which its launch
    measurement depends: "to avoid breaking older measurements" (eb4441864e03).
    """
    ideal.xfd = ideal.xfd_err = 0
    ideal.regs.undefined = 0
    for i in xf.registers_of(~(xf.MASK_FPSSE | xf.MASK_YMM | xf.MASK_PKRU)):
        define(ideal.regs, i, 0)
    if k.vms[vcpu.vm].type == st.VM_SEV_ES:
        define(ideal.regs, xf.X87, ZEROED)
        define(ideal.regs, xf.MXCSR, ZEROED)


def was_moved(k: Kernel, nr: int, source: int) -> None:
    """The sealed guest of ``source`` is the vCPU's now.  What this one had before was no secret from user space.

    An instruction that KVM_RUN has left for user space is not completed on another vCPU: who moves a guest enters
    KVM_RUN once more before that (Documentation/virt/kvm/api.rst).
    """
    vmm, old = k.system.ghost.vmms[nr], k.system.ghost.vmms[source]
    forget(vmm)
    vmm.intent = st.INTENT_NONE
    vmm.known |= 1 << tenant_of(k, nr) | old.known
    vmm.given = old.given
    vmm.tenant = tenant_of(k, source) + 1
    assign(k.system.ghost.vcpus[nr], k.system.ghost.vcpus[source])
    k.system.ghost.vcpus[nr].insn_owed = 0
    assign(k.system.ghost.vcpus[source], GhostVcpu(xcr0=xf.MASK_X87))


def gave(k: Kernel, nr: int, contents: Iterable[int]) -> None:
    """The VMM of a protected guest, or of one that will be, wrote these contents: it is told nothing new by them."""
    vmm = k.system.ghost.vmms[nr]
    for token in contents if k.vms[k.vcpus[nr].vm].type != st.VM_DEFAULT else ():
        if token == guest_token(k, nr, token & TOKENS):
            vmm.given |= 1 << (token & TOKENS)
        elif owner(token) >= _FIRST_VCPU_OWNER:
            vmm.known |= 1 << (owner(token) - _FIRST_VCPU_OWNER)


def given(k: Kernel, nr: int) -> set[int]:
    """Those contents, and all that another guest had whose contents were there."""
    vmm = k.system.ghost.vmms[nr]
    own = {guest_token(k, nr, token) for token in range(1, TOKENS + 1) if vmm.given >> token & 1}
    others = (tenant for tenant in range(TENANTS) if vmm.known >> tenant & 1 and tenant != tenant_of(k, nr))
    return own | {vcpu_token(tenant, token) for tenant in others for token in range(1, TOKENS + 1)}


def settle_insn(k: Kernel, nr: int) -> None:
    """If the kernel advanced RIP over the instruction that exited, the instruction has taken effect."""
    vcpu = k.vcpus[nr]
    kind = k.system.ghost.vcpus[nr].insn_owed
    if not (vcpu.arch.insn_skips and kind):
        return
    vcpu.arch.insn_skips -= 1
    for ideal in lived(k, nr):
        if ideal.insn_owed == kind:
            complete(vcpu, ideal, kind)
            ideal.insn_owed = 0


def complete(vcpu: Vcpu, ghost: GhostVcpu, kind: int) -> None:
    """The architectural effect of a completed instruction that exited."""
    if kind == st.EXIT_MSR_WRITE:
        write_msr(ghost, vcpu.exit_msr, ghost.owed_value)
    elif kind == st.EXIT_XSETBV:
        ghost.xcr0 = ghost.owed_value
    elif kind == st.EXIT_EMULATED_LOAD:
        define(ghost.regs, xf.SSE, ghost.owed_value)


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


# -- what a VMM means to do --------------------------------------------------------------------------------------------


def lived(k: Kernel, nr: int) -> Iterator[GhostVcpu]:
    """Who changes by what the guest and its processor do: the ideal vCPU, and what is promised of it."""
    yield k.system.ghost.vcpus[nr]
    if k.system.ghost.vmms[nr].pending:
        yield k.system.ghost.vmms[nr].promise


def told(k: Kernel, nr: int) -> Iterator[GhostVcpu]:
    """Who changes by a call of the VMM's: the ideal vCPU, and what is promised where a new tenant gets it."""
    yield k.system.ghost.vcpus[nr]
    if k.system.ghost.vmms[nr].intent == st.INTENT_RESET:
        yield k.system.ghost.vmms[nr].promise


def promise(k: Kernel, nr: int, source: int) -> None:
    """At its next entry the guest of a vCPU has to be the one that ``source`` has now."""
    vmm, arch = k.system.ghost.vmms[nr], k.vcpus[source].arch
    assign(vmm.promise, k.system.ghost.vcpus[source])
    vmm.osxsave, vmm.ts, vmm.pke = arch.cr4_osxsave, arch.cr0_ts, arch.cr4_pke
    vmm.guest_mode = arch.guest_mode
    vmm.init_pending, vmm.mp_state = arch.init_pending, st.mp_state_to_be(k.system, k.vcpus[source])
    store_cpuid(vmm.cpuid, stored_entries(arch))
    vmm.pending = 1


def store_cpuid(stored: GhostCpuid, entries: CpuidEntries) -> None:
    """Note a CPUID array."""
    stored.xcr0, stored.xss, stored.leaves = entries.xcr0, entries.xss, entries.leaves
    stored.other, stored.size = entries.other, entries.size
    stored.flags = sum(1 << bit for bit, name in enumerate(CPUID_FLAGS) if getattr(entries, name))


def cpuid_in(stored: GhostCpuid) -> CpuidEntries:
    """The array that was noted."""
    flags = {name: bool(stored.flags >> bit & 1) for bit, name in enumerate(CPUID_FLAGS)}
    return CpuidEntries(
        stored.xcr0, xss=stored.xss, leaves=stored.leaves, other=stored.other, size=stored.size, **flags
    )


def vmm_acts(k: Kernel, nr: int) -> None:
    """The VMM begins an ioctl on a vCPU: where that is to be invisible, the guest stays as it is now."""
    vmm = k.system.ghost.vmms[nr]
    if vmm.intent == st.INTENT_INVISIBLE and not vmm.pending:
        promise(k, nr, nr)


def left(k: Kernel, nr: int) -> None:
    """The guest was entered, and has left again: what was promised of its entry was kept or not."""
    vmm = k.system.ghost.vmms[nr]
    if vmm.pending:
        forget(vmm)
        if vmm.intent != st.INTENT_INVISIBLE:
            vmm.intent = st.INTENT_NONE


def forget(vmm: GhostVmm) -> None:
    """Nothing is promised any more."""
    vmm.pending = vmm.osxsave = vmm.ts = vmm.pke = vmm.guest_mode = vmm.init_pending = 0
    vmm.mp_state = st.KVM_MP_STATE_RUNNABLE
    assign(vmm.promise, GhostVcpu())
    assign(vmm.cpuid, GhostCpuid())


def new_vcpu(k: Kernel, nr: int) -> None:
    """A vCPU was made; what a VMM keeps of an earlier one of that number it still has."""
    assign(k.system.ghost.vcpus[nr], GhostVcpu(xcr0=xf.MASK_X87))
    vmm = k.system.ghost.vmms[nr]
    forget(vmm)
    vmm.intent = vmm.tenant = vmm.given = vmm.known = 0


def gets_tenant(k: Kernel, nr: int) -> None:
    """The guest of a vCPU is another one from now on."""
    vmm = k.system.ghost.vmms[nr]
    vmm.tenants += 1
    vmm.tenant = nr + st.NR_VCPUS * vmm.tenants + 1


def is_reset(k: Kernel, nr: int, intent: int) -> None:
    """The guest of a vCPU has to find the processor as it comes out of reset."""
    vmm = k.system.ghost.vmms[nr]
    vmm.intent = intent
    forget(vmm)
    vmm.promise.xcr0 = xf.MASK_X87
    bsp = st.is_bsp(k.system, k.vcpus[nr])
    vmm.mp_state = st.KVM_MP_STATE_RUNNABLE if bsp else st.KVM_MP_STATE_UNINITIALIZED
    vmm.pending = 1


def init_arrived(k: Kernel, nr: int) -> None:
    """An INIT is pending, whatever the VMM means."""
    vmm = k.system.ghost.vmms[nr]
    vmm.init_pending = vmm.pending


def sipi_arrived(k: Kernel, nr: int) -> None:
    """A SIPI is pending, which ends the wait for one."""
    vmm = k.system.ghost.vmms[nr]
    if vmm.mp_state == st.KVM_MP_STATE_INIT_RECEIVED:
        vmm.mp_state = st.KVM_MP_STATE_RUNNABLE


def goes_on(k: Kernel, nr: int) -> None:
    """KVM_RUN has begun, or ended: what the vCPU was to wait for, or not, has been looked at, and KVM goes on with what
    there is."""
    vcpu, vmm = k.vcpus[nr], k.system.ghost.vmms[nr]
    if vmm.pending:
        vmm.init_pending, vmm.mp_state = vcpu.arch.init_pending, st.mp_state_to_be(k.system, vcpu)


def user_wrote_init(k: Kernel, nr: int, latched: bool | None) -> None:
    """KVM_SET_VCPU_EVENTS said whether an INIT is latched, or nothing: a new tenant gets what it is given."""
    vmm = k.system.ghost.vmms[nr]
    if latched is not None and vmm.intent == st.INTENT_RESET and k.lapic_in_kernel(k.vcpus[nr]):
        vmm.init_pending = latched


def user_wrote_mp_state(k: Kernel, nr: int, mp_state: int) -> None:
    """KVM_SET_MP_STATE succeeded: likewise."""
    vmm = k.system.ghost.vmms[nr]
    if vmm.intent == st.INTENT_RESET:
        runs = mp_state == st.KVM_MP_STATE_SIPI_RECEIVED
        vmm.mp_state = st.KVM_MP_STATE_RUNNABLE if runs else mp_state


def read_image(ideal: GhostVcpu, image: GhostRegs, components: int, fits: int, offered: int) -> None:
    """What an honest KVM_GET_XSAVE shows of these components and MXCSR: those that ``fits`` has, the rest are initial.

    Those that XFD disables, or that the guest's CPUID has not ``offered``, may be shown or not.
    """
    for i in (*xf.components_in(components), xf.MXCSR):
        image.data[i] = ideal.regs.data[i] if (fits | xf.MASK_MXCSR) >> i & 1 else 0
        open_to = ideal.regs.undefined | (ideal.xfd | ~offered if image.data[i] else 0)
        image.undefined = image.undefined & ~(1 << i) | open_to & 1 << i


def load_image(vcpu: GhostVcpu, image: GhostRegs, components: int) -> None:
    """KVM_SET_XSAVE of an image that shows these components and MXCSR; PKRU stays as it was if it is initial there."""
    for i in (*xf.components_in(components), xf.MXCSR):
        if i == xf.PKRU and not image.data[i]:
            # XSTATE_BV may have it, or not
            vcpu.regs.undefined |= xf.MASK_PKRU if vcpu.regs.data[i] else 0
            continue
        vcpu.regs.data[i] = image.data[i]
        lost = image.undefined | (vcpu.xfd if image.data[i] else 0)
        vcpu.regs.undefined = vcpu.regs.undefined & ~(1 << i) | lost & 1 << i


def changed(
    k: Kernel, image: GhostRegs, given: XsaveArea, change: ImageChange, owner: Callable[[int], int]
) -> GhostRegs:
    """What an image holds that an honest kernel gave, with these changes: what its XSTATE_BV lacks then is initial.

    Of a component that is initial XSTATE_BV may have the bit or not (SDM vol. 1, 13.6): that of the image ``given``
    counts.  Without XSAVE the legacy region is all there is.
    """
    regs: GhostRegs = copy_of(image)
    if not any(change):
        return regs
    named = {i: contents_of(content, owner) for i, content in change.contents}
    in_use = xf.mask_of(*(i for i in user_contents(k) if regs.data[i])) & ~regs.undefined
    in_use |= xf.MASK_SSE if in_use & xf.MASK_MXCSR else 0
    bits = change.bits(given.xstate_bv | in_use) if k.use_xsave else xf.MASK_FPSSE
    for i in xf.components_in(k.machine.user_xfeatures or xf.MASK_FPSSE):
        if i in named or (change.clear | change.set) >> i & 1:
            define(regs, i, named.get(i, regs.data[i]) if bits >> i & 1 else 0)
    if xf.MXCSR in named or not bits & with_mxcsr(k):
        define(regs, xf.MXCSR, named.get(xf.MXCSR, 0) if bits & with_mxcsr(k) else 0)
    return regs


def means(promise: GhostRegs, meant: Meant, owner: Callable[[int], int]) -> None:
    """These contents are promised in place of those before."""
    for i, content in meant.contents:
        define(promise, i, contents_of(content, owner))


# -- what somebody means to do with a task -----------------------------------------------------------------------------


def promise_task(k: Kernel, task: int, source: int, intent: int) -> None:
    """When a task goes on it has to have the registers that ``source`` has now."""
    tracer = k.system.ghost.tracers[task]
    assign(tracer.promise, k.system.ghost.tasks[source])
    tracer.intent = intent


def become(k: Kernel, task: int, regs: GhostRegs) -> None:
    """The task's user components are what these registers are."""
    ideal = k.system.ghost.tasks[task]
    for i in user_contents(k):
        define(ideal, i, regs.data[i])
        ideal.undefined |= regs.undefined & 1 << i
