"""What ioctls and system calls promise to user space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import LEAF_FEATURES, LEAF_TILES, LEAF_TMUL, LEAF_XSTATE, NOTHING, OSXSAVE, Leaf
from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR
from xfdfuzz.arch.xsave import MXCSR_RESERVED, XsaveArea
from xfdfuzz.invariants.vocabulary import VMM, Broken, View, component_site, invariant
from xfdfuzz.kernel.errno import EFAULT, EINVAL, EIO
from xfdfuzz.kernel.event import USER_COPY
from xfdfuzz.kernel.kvm.cpuid import stored_entries
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.kvm.xsave import KVM_XSAVE_SIZE
from xfdfuzz.kernel.state import EXIT_CPUID, GP_VECTOR, NR_FPSTATES, NR_VCPUS, Fpstate, KvmExitReason, System, Vcpu
from xfdfuzz.memory.cstruct import Regions, assign, copy_of
from xfdfuzz.program import ghost
from xfdfuzz.program.ops.base import VcpuIoctl, makers
from xfdfuzz.program.ops.kvm import (
    KvmGetDeviceAttr,
    KvmGetMsrIndexList,
    KvmGetMsrs,
    KvmGetOneReg,
    KvmGetSupportedCpuid,
    KvmGetSupportedCpuidEntry,
    KvmGetXcrs,
    KvmSetCpuid2,
    KvmSetCpuid2Supported,
    KvmSetMsrs,
    KvmSetNestedState,
    KvmSetRegs,
    KvmSetSregs,
    KvmSetVcpuEvents,
    KvmSetXcrs,
)
from xfdfuzz.program.ops.run import HandleExit, KvmRunReturns
from xfdfuzz.program.ops.vmm import (
    KeepFpu,
    KeepMsr,
    KeepOneReg,
    LoadCpuid,
    LoadMsrs,
    LoadNestedState,
    LoadVcpuEvents,
    LoadXsave,
)
from xfdfuzz.program.ops.xsave import KvmGetFpu, KvmGetXsave, KvmGetXsave2, KvmSetFpu, KvmSetXsave
from xfdfuzz.program.step import Content, FpuState, Image, Mask

_VCPUS = [Regions(System, f"vcpus[{nr}]") for nr in range(NR_VCPUS)]
#: The calls on a vCPU's registers that fail where its VM has protected state.
_PROTECTED_STATE = makers(
    *(KvmGetXsave, KvmGetXsave2, KvmSetXsave, KvmGetFpu, KvmSetFpu),
    *(KvmGetXcrs, KvmSetXcrs, KvmSetSregs, KvmSetRegs),
)
_VMSAS = [Regions(System, f"vcpus[{nr}].vmsa") for nr in range(NR_VCPUS)]
_FPSTATES = [Regions(System, f"fpstates[{nr}]") for nr in range(NR_FPSTATES)]

#: What shows an image, and what copies one.
_GET_XSAVE = makers(KvmGetXsave, KvmGetXsave2)
_XSAVE = (*_GET_XSAVE, *makers(KvmSetXsave))

_EXIT_REASONS = get_args(KvmExitReason)[-1].names
#: With which KVM_RUN may return that a guest of a program's can cause.
_KNOWN_EXITS = ("KVM_EXIT_IO", "KVM_EXIT_HLT", "KVM_EXIT_SHUTDOWN", "KVM_EXIT_UNKNOWN")


@invariant("failed-call-changes-nothing", "abi", ("INV-08", "INV-10", "ATOMIC"), ops=(VcpuIoctl,))
def failed_call_changes_nothing(view: View) -> Iterator[Broken]:
    """A vCPU ioctl that fails leaves the vCPU as it was: user space that looks at the error must not find half of the
    change made.  KVM_SET_MSRS fails when it takes no entry at all."""
    op, ret = view.step.op, view.step.result.ret
    failed = ret == 0 if isinstance(op, KvmSetMsrs | LoadMsrs) else isinstance(ret, int) and ret < 0
    if isinstance(op, KvmGetMsrs | KeepMsr) or not failed:
        return
    nr = view.vcpu_nr
    if view.changed and not _as_before(view, nr):
        yield Broken(f"v{nr} changed although the call returned {view.step.result}")


def _as_before(view: View, nr: int) -> bool:
    """Whether the vCPU and its fpstate are what they were."""
    before, after = view.before.vcpus[nr], view.k.vcpus[nr]
    fpstate = after.arch.guest_fpu.fpstate
    if view.step.changed(_FPSTATES[fpstate]):
        was, now = view.before.fpstates[fpstate], view.k.fpstates[fpstate]
        if _without_what_saving_adds(was) != _without_what_saving_adds(now):
            return False
    return not view.step.changed(_VCPUS[nr]) or _without_what_kvm_renews(before) == _without_what_kvm_renews(after)


def _without_what_saving_adds(fpstate: Fpstate) -> bytes:
    """A guest's fpstate without what a save of its registers may add, where KVM_SET_MSRS has loaded them and is
    preempted: PKRU, which is the VMM's there, and in XSTATE_BV components that are initial.

    A confidential one is not loaded (fpu_swap_kvm_fpstate()), so what is saved there then is all the VMM's, and nobody
    reads it."""
    copy = copy_of(fpstate)
    copy.regs.data[xf.PKRU] = 0
    if copy.is_confidential:
        assign(copy.regs, XsaveArea())
    for i in xf.components_in(copy.regs.xstate_bv):
        if not copy.regs.data[i]:
            copy.regs.xstate_bv &= ~(1 << i)
    return bytes(copy)


def _without_what_kvm_renews(vcpu: Vcpu) -> bytes:
    """The vCPU without what KVM derives from XCR0 and CR4 for its CPUID, which it may do when it likes, and the host's
    PKRU, which vcpu_load() reads."""
    copy = copy_of(vcpu)
    arch = copy.arch
    arch.cpuid_dynamic_bits_dirty = arch.cpuid_osxsave = arch.cpuid_ospke = 0
    arch.cpuid_0xd_0_ebx = arch.cpuid_0xd_1_ebx = arch.host_pkru = 0
    return bytes(copy)


@invariant("faulting-instruction-changes-nothing", "corruption", ("INV-08", "ATOMIC"), ops=(HandleExit,))
def faulting_instruction_changes_nothing(view: View) -> Iterator[Broken]:
    """A WRMSR or XSETBV that ends in #GP leaves XCR0 and XFD as they were."""
    nr = view.vcpu_nr
    before, after = view.before.vcpus[nr].arch, view.k.vcpus[nr].arch
    if not after.exception_pending or after.exception_vector != GP_VECTOR or before.exception_pending:
        return
    old_xfd = view.before.fpstates[before.guest_fpu.fpstate].xfd | before.guest_fpu.xfd
    new_xfd = view.k.fpstates[after.guest_fpu.fpstate].xfd | after.guest_fpu.xfd
    if (before.xcr0, old_xfd) != (after.xcr0, new_xfd):
        xcr0 = f"{xf.format_mask(before.xcr0)} -> {xf.format_mask(after.xcr0)}"
        yield Broken(f"v{nr}: XCR0 {xcr0}, XFD {old_xfd:#x} -> {new_xfd:#x} and #GP")


@invariant("ioctl-leaves-run-state-alone", "abi", ("INV-09",), ops=(VcpuIoctl,))
def ioctl_leaves_run_state_alone(view: View) -> Iterator[Broken]:
    """A vCPU ioctl other than KVM_RUN executes no guest instruction, so it queues no exception, sets no exit reason and
    leaves no completion behind that would skip an instruction of the guest.  KVM_SET_REGS drops what is queued, as does
    KVM_SET_NESTED_STATE where it leaves L2, and KVM_SET_VCPU_EVENTS queues what it says."""
    nr = view.vcpu_nr
    after = view.k.vcpus[nr]
    before = view.before.vcpus[nr] if view.changed else after
    if before.arch.init_pending and not after.arch.init_pending:
        return  # KVM_GET_MP_STATE accepted an INIT
    drops = isinstance(view.step.op, KvmSetRegs)
    leaves = isinstance(view.step.op, KvmSetNestedState | LoadNestedState) and before.arch.guest_mode
    injects = isinstance(view.step.op, KvmSetVcpuEvents | LoadVcpuEvents)
    dropped = leaves or (drops and before.arch.exception_pending)
    if _queued(before) != _queued(after) and not (injects or dropped):
        yield Broken(f"v{nr}: the ioctl queued an exception for the guest", "exception")
    completes = after.arch.complete_userspace_io
    if before.arch.complete_userspace_io != completes and not (drops and not completes):
        yield Broken(f"v{nr}: the ioctl left a completion for the next KVM_RUN", "completion")
    if before.run.exit_reason != after.run.exit_reason:
        reason = _EXIT_REASONS.get(after.run.exit_reason, after.run.exit_reason)
        yield Broken(f"v{nr}: the ioctl set kvm_run->exit_reason to {reason}", "exit-reason")


def _queued(vcpu: Vcpu) -> tuple[int, int]:
    return vcpu.arch.exception_pending, vcpu.arch.exception_injected


@invariant(
    "supported-cpuid-is-usable",
    "abi",
    ("INV-28", "CPUIDOK"),
    ops=(KvmGetSupportedCpuid, KvmGetSupportedCpuidEntry, *makers(KvmSetCpuid2)),
)
def supported_cpuid_is_usable(view: View) -> Iterator[Broken]:
    """What KVM_GET_SUPPORTED_CPUID offers can be given back with KVM_SET_CPUID2, and a guest can set the whole of its
    XCR0 mask; a permission adds to the defaults.  VMMs do just that without looking at single bits."""
    k, op = view.k, view.step.op
    if isinstance(op, KvmSetCpuid2 | KvmSetCpuid2Supported | LoadCpuid) and _is_offered_and_refused(view, op):
        yield Broken(f"KVM_SET_CPUID2 refuses it with {view.step.result}", "refused")
    advertised = view.step.result.out
    if isinstance(op, KvmGetSupportedCpuidEntry):
        mask = (op.leaf, op.subleaf) == (LEAF_XSTATE, 0)
        advertised = advertised.edx << 32 | advertised.eax if mask and isinstance(advertised, Leaf) else None
    if not isinstance(advertised, int) or not k.use_xsave:
        return
    if not xf.legal_xcr0(advertised):
        yield Broken(f"offers XCR0 = {xf.format_mask(advertised)}, which no guest can set", "illegal")
    always = k.fpu_user_cfg.default_features & k.supported_xcr0 & ~xf.MASK_XTILE_CFG
    if always & ~advertised:
        yield Broken(
            f"offers {xf.format_mask(advertised)} without the defaults {xf.format_mask(always & ~advertised)}",
            "incomplete",
        )


def _is_offered_and_refused(view: View, op: KvmSetCpuid2 | KvmSetCpuid2Supported | LoadCpuid) -> bool:
    """Whether a vCPU that has not run does not get what KVM_GET_SUPPORTED_CPUID offers."""
    ret, vcpu, table = view.step.result.ret, view.before.vcpus[op.vcpu], view.k.machine.cpuid
    ran = vcpu.last_vmentry_cpu != -1 or vcpu.arch.guest_mode
    starved = ret == -EFAULT and view.before.alloc_failures
    if not view.k.use_xsave or ret in (0, -EIO) or ran or starved:
        return False
    return op.given(view.k).whole(table) == view.k.kvm_dev_ioctl_get_cpuid().whole(table)


@invariant("supported-cpuid-is-coherent", "abi", ("CPUIDOK",), ops=(KvmGetSupportedCpuidEntry,))
def supported_cpuid_is_coherent(view: View) -> Iterator[Broken]:
    """What KVM_GET_SUPPORTED_CPUID offers is a processor that could be: each component has its sub-leaf of 0xD, ECX of
    0xD.0 and EBX of 0xD.1 are the sizes of all of them, and what has AMX_TILE has palettes (0x1D) and TMUL (0x1E).
    VMMs compare hosts by these leaves before they migrate a guest."""
    k, op, leaf = view.k, view.step.op, view.step.result.out
    assert isinstance(op, KvmGetSupportedCpuidEntry)
    if not k.use_xsave or not isinstance(leaf, Leaf | None):
        return
    offered, table = k.kvm_dev_ioctl_get_cpuid(), k.machine.cpuid
    there = isinstance(leaf, Leaf) and leaf != NOTHING
    if op.leaf == LEAF_FEATURES:
        expected = True
    elif op.leaf in (LEAF_TILES, LEAF_TMUL):
        expected = bool(offered.amx) and k.machine.amx and op.subleaf <= (op.leaf == LEAF_TILES)
    elif op.subleaf > 1:
        expected = bool((offered.xcr0 | offered.xss) >> op.subleaf & 1)
    else:
        expected = True
        size = leaf and (leaf.ebx if op.subleaf else leaf.ecx)
        compacted = table.compacted_size(offered.xcr0 | offered.xss) if offered.compacts else 0
        needed = compacted if op.subleaf else table.standard_size(offered.xcr0)
        if size != needed:
            yield Broken(f"0xd.{op.subleaf} says {size} bytes, what is offered takes {needed}", "size")
    if there != expected:
        yield Broken(f"{op.leaf:#x}.{op.subleaf} is {'there' if there else 'empty'}", "there" if there else "empty")


@invariant(
    "same-cpuid-again-is-accepted",
    "abi",
    ("ABI",),
    ops=makers(KvmSetCpuid2),
    revisions=("v5.17..", "amx-px25", "v6.1.192", "v6.12.117", "v6.17.13"),
)
def same_cpuid_again_is_accepted(view: View) -> Iterator[Broken]:
    """KVM_SET_CPUID2 of the CPUID that the vCPU has succeeds after KVM_RUN, whatever the guest did meanwhile: VMMs that
    reuse vCPUs for hotplug rely on it (c6617c61e8fe)."""
    op = view.step.op
    assert isinstance(op, KvmSetCpuid2 | KvmSetCpuid2Supported | LoadCpuid)
    before = view.before.vcpus[op.vcpu]
    ran = before.arch.cpuid_set and before.last_vmentry_cpu != -1
    again = ran and op.given(view.k).whole(view.k.machine.cpuid) == stored_entries(before.arch)
    if again and view.step.result.ret not in (0, -EIO):
        yield Broken(f"v{op.vcpu}: KVM_SET_CPUID2 refuses the CPUID that it has with {view.step.result}")


@invariant("guest-cpuid-follows-xcr0", "corruption", ("GSTATE",), ops=(HandleExit,))
def guest_cpuid_follows_xcr0(view: View) -> Iterator[Broken]:
    """CPUID.0xD.0:EBX tells the guest how many bytes XSAVE writes for its XCR0 (SDM vol. 1, 13.2): a guest that reads
    less allocates less, and XSAVE runs over the end."""
    nr = view.vcpu_nr
    before = view.before.vcpus[nr]
    if before.exit_pending != EXIT_CPUID or not before.arch.cpuid_set or before.exit_msr > 1 or before.arch.guest_mode:
        return
    leaf = view.step.result.out
    if not isinstance(leaf, Leaf) or before.exit_value != LEAF_XSTATE:
        return
    if before.arch.guest_state_protected and (before.exit_msr or before.vmsa.xcr0 & ~before.arch.guest_supported_xcr0):
        return  # KVM has its IA32_XSS and XCR0 by hearsay, and takes nothing that the guest's CPUID lacks
    if before.exit_msr and not stored_entries(before.arch).compacts:
        return  # without XSAVEC and XSAVES nothing is compacted
    table, ideal = view.k.machine.cpuid, view.k.system.ghost.vcpus[nr]
    xcr0 = ideal.xcr0
    expected = table.compacted_size(xcr0 | ideal.xss) if before.exit_msr else table.standard_size(xcr0)
    if leaf.ebx != expected:
        yield Broken(f"v{nr} reads {leaf.ebx}, XCR0 = {xf.format_mask(xcr0)} takes {expected} bytes")


@invariant("guest-cpuid-follows-cr4", "abi", ("GSTATE",), ops=(HandleExit,))
def guest_cpuid_follows_cr4(view: View) -> Iterator[Broken]:
    """CPUID.1:ECX.OSXSAVE is CR4.OSXSAVE (SDM vol. 2, CPUID): by it software knows that XGETBV, and with it AVX and
    AMX, can be executed; where it is wrong it dies of #UD, or does without."""
    nr = view.vcpu_nr
    before, leaf = view.before.vcpus[nr], view.step.result.out
    if before.exit_pending != EXIT_CPUID or before.exit_value != LEAF_FEATURES or not isinstance(leaf, Leaf):
        return
    if not before.arch.cpuid_set or before.arch.guest_state_protected:
        return
    if bool(leaf.ecx & OSXSAVE) != bool(before.arch.cr4_osxsave):
        yield Broken(f"v{nr} reads OSXSAVE = {bool(leaf.ecx & OSXSAVE):d}, CR4.OSXSAVE = {before.arch.cr4_osxsave}")


@invariant("get-xsave-hides-disabled", "abi", ("INV-30", "ABI"), ops=_GET_XSAVE)
def get_xsave_hides_disabled(view: View) -> Iterator[Broken]:
    """KVM_GET_XSAVE does what XSAVE does: a component that XFD disables is reported as initial (KVM's ABI as
    b45f72177594 states it)."""
    nr = view.vcpu_nr
    image = view.step.result.out
    xfd = view.k.guest_xfd(view.k.vcpus[nr].arch.guest_fpu)
    if isinstance(image, Image) and image.xstate_bv & xfd:
        yield Broken(f"v{nr}: XSTATE_BV {xf.format_mask(image.xstate_bv)} holds components that XFD {xfd:#x} disables")


@invariant("get-xsave-keeps-to-the-guest", "abi", ("ABI",), ops=_GET_XSAVE)
def get_xsave_keeps_to_the_guest(view: View) -> Iterator[Broken]:
    """The image has nothing but what the guest's CPUID offers, and x87 and SSE: KVM_SET_XSAVE on a host without such a
    component would refuse it, and a migration between hosts that both can run the guest fails."""
    image = view.step.result.out
    arch = view.k.vcpus[view.vcpu_nr].arch
    if isinstance(image, Image) and arch.cpuid_set:
        extra = image.xstate_bv & ~(arch.cpuid_xcr0 & view.k.supported_xcr0 | xf.MASK_FPSSE)
        if extra:
            held, more = xf.format_mask(image.xstate_bv), xf.format_mask(extra)
            yield Broken(f"XSTATE_BV {held} has {more}, which the guest does not have")


@invariant("set-xsave-takes-what-the-host-has", "abi", ("ABI",), ops=makers(KvmSetXsave))
def set_xsave_takes_what_the_host_has(view: View) -> Iterator[Broken]:
    """KVM_SET_XSAVE takes every component that KVM supports and that needs no permission, whatever the guest's CPUID:
    it always did, images of older kernels have such components, and VMMs that ignore the error lose the state."""
    op, k = view.step.op, view.k
    assert isinstance(op, KvmSetXsave | LoadXsave)
    if not ghost.takes(k, k.vcpus[op.vcpu]):
        return
    image = op.given(k)
    always = k.fpu_user_cfg.default_features & k.supported_xcr0 if k.use_xsave else xf.MASK_FPSSE
    malformed = image.xcomp_bv or image.reserved or image.data[xf.MXCSR] == MXCSR_RESERVED
    if view.step.result.ret == -EINVAL and not malformed and not image.xstate_bv & ~always:
        # x87 and SSE are there without XSAVE too
        site = "legacy" if not image.xstate_bv & ~xf.MASK_FPSSE else ""
        yield Broken(f"v{op.vcpu}: XSTATE_BV {xf.format_mask(image.xstate_bv)} is refused", site)


@invariant("get-xsave-is-complete", "abi", ("INV-23", "ABI"), ops=makers(KvmGetXsave))
def get_xsave_is_complete(view: View) -> Iterator[Broken]:
    """KVM_GET_XSAVE copies 4096 bytes.  Once the image is larger it must fail: a cut image loses tile data in a
    migration that looks successful."""
    if view.step.result.ret == 0 and view.k.use_xsave:
        pointer = view.k.vcpus[view.vcpu_nr].arch.guest_fpu.fpstate
        size = view.k.machine.cpuid.standard_size(view.k.fpstates[pointer].user_xfeatures)
        if size > KVM_XSAVE_SIZE:
            yield Broken(f"succeeds with {KVM_XSAVE_SIZE} of {size} bytes")


@invariant(
    "xsave-copies-what-it-promised",
    "corruption",
    ("INV-23", "BUF", "ABI"),
    ops=_XSAVE,
    excluded=("amx-v1..amx-tglx",),
)
def xsave_copies_what_it_promised(view: View) -> Iterator[Broken]:
    """KVM_GET_XSAVE, KVM_GET_XSAVE2 and KVM_SET_XSAVE copy no more than KVM_CHECK_EXTENSION(KVM_CAP_XSAVE2) says
    (Documentation/virt/kvm/api.rst): more overruns the caller's buffer.  It says what the calling process may give to
    guests, so a vCPU that another process set up, with features of its own, promises nothing to this one.  (amx-v1's
    KVM_GET_XSAVE2 is told the size.)"""
    nr, k = view.vcpu_nr, view.k
    copied = max([event.detail[0] for event in view.events(USER_COPY)], default=0)
    # asked for only where it matters: that much it always promises
    promised = _promised(k, k.vcpus[nr]) if copied > KVM_XSAVE_SIZE else KVM_XSAVE_SIZE
    if copied > promised:
        yield Broken(f"v{nr}: {copied} bytes are copied, KVM_CAP_XSAVE2 says {promised}")


@invariant("buffer-has-room", VMM, ("VMM", "BUF", "ABI"), ops=(KvmGetXsave, KvmGetXsave2, KvmSetXsave))
def buffer_has_room(view: View) -> Iterator[Broken]:
    """A VMM's buffer for an XSAVE image has as many bytes as KVM_CHECK_EXTENSION(KVM_CAP_XSAVE2) says now, and 4096 at
    least: KVM knows nothing of its size, and reads or writes what lies behind it.  What it says grows with
    permissions, so it has to be asked behind them (Documentation/virt/kvm/api.rst).  The kernel did as it was told."""
    op, k = view.step.op, view.k
    assert isinstance(op, KvmGetXsave | KvmGetXsave2 | KvmSetXsave)
    if view.step.result.ret == "overrun":
        promised = _promised(k, k.vcpus[op.vcpu])
        if op.buffer.overrun_by(promised):
            yield Broken(f"v{op.vcpu}: the buffer has {op.buffer.size} bytes, KVM_CAP_XSAVE2 says {promised}")


def _promised(k: Kernel, vcpu: Vcpu) -> int:
    """What KVM_CAP_XSAVE2 tells the calling process, in bytes; no limit where the vCPU has what it may not give."""
    own = k.tasks[k.current.group_leader].fpu.guest_perm.state_perm
    dynamic = k.fpstates[vcpu.arch.guest_fpu.fpstate].user_xfeatures & k.XFEATURE_MASK_USER_DYNAMIC
    if dynamic & ~own:
        return xf.U64_MAX
    return max(KVM_XSAVE_SIZE, k.kvm_vm_ioctl_check_extension_xsave2(vcpu.vm))


@invariant("xcomp-guest-supp-is-complete", "abi", ("ABI", "PERM"), ops=(KvmGetDeviceAttr,))
def xcomp_guest_supp_is_complete(view: View) -> Iterator[Broken]:
    """KVM_X86_XCOMP_GUEST_SUPP tells a VMM which permissions are worth asking for, so it names all that guests can
    have, whatever the caller has asked for already."""
    k, value = view.k, view.step.result.out
    if isinstance(value, Mask):
        possible = k.kvm_dev_ioctl_get_cpuid().xcr0 | k.fpu_user_cfg.max_features & k.XFEATURE_MASK_USER_DYNAMIC
        if possible & ~value:
            yield Broken(f"is {xf.format_mask(value)}, without {xf.format_mask(possible & ~value)}")


@invariant("get-xsave-is-true", "corruption", ("GSTATE", "ABI"), ops=_GET_XSAVE)
def get_xsave_is_true(view: View) -> Iterator[Broken]:
    """The image that user space reads holds what the guest had in its registers, or user space put there; a migration
    would carry anything else to the other side."""
    nr = view.vcpu_nr
    image = view.step.result.out
    if not isinstance(image, Image) or not ghost.takes(view.k, view.k.vcpus[nr]):
        return
    ideal = view.k.system.ghost.vcpus[nr]
    shown = view.k.vcpus[nr].arch.guest_supported_xcr0 | xf.MASK_FPSSE
    tokens = dict(image.tokens)
    for i in (*xf.components_in(shown & ~ideal.xfd), xf.MXCSR):
        if tokens.get(i, 0) != ideal.regs.data[i] and not ideal.regs.undefined >> i & 1:
            found, expected = ghost.content(tokens.get(i, 0)), ghost.content(ideal.regs.data[i])
            yield Broken(f"v{nr}: {xf.CONTENTS[i]} reads {found}, it is {expected}", component_site(i))


@invariant("get-fpu-is-true", "corruption", ("GSTATE", "ABI"), ops=makers(KvmGetFpu))
def get_fpu_is_true(view: View) -> Iterator[Broken]:
    """KVM_GET_FPU "reads the floating point state from the vcpu" (Documentation/virt/kvm/api.rst): its x87 and SSE are
    those that the guest has, and a VMM that saves a guest by it carries them to the other side."""
    yield from _fpu_differs(view, (xf.X87, xf.SSE))


@invariant("get-fpu-has-mxcsr", "abi", ("GSTATE", "ABI"), ops=makers(KvmGetFpu))
def get_fpu_has_mxcsr(view: View) -> Iterator[Broken]:
    """struct kvm_fpu has a mxcsr (Documentation/virt/kvm/api.rst): KVM_GET_FPU gives the guest's.  0, what it would be
    if nobody set it, unmasks all exceptions of whoever loads it."""
    yield from _fpu_differs(view, (xf.MXCSR,))


def _fpu_differs(view: View, parts: tuple[int, ...]) -> Iterator[Broken]:
    """Which of the parts of struct kvm_fpu are not what the guest has."""
    op, state = view.step.op, view.step.result.out
    assert isinstance(op, KvmGetFpu | KeepFpu)
    if not isinstance(state, FpuState) or not ghost.takes(view.k, view.k.vcpus[op.vcpu]):
        return
    ideal = view.k.system.ghost.vcpus[op.vcpu].regs
    shown = dict(state.tokens)
    for i in parts:
        if shown[i] != ideal.data[i] and not ideal.undefined >> i & 1:
            found, expected = ghost.content(shown[i]), ghost.content(ideal.data[i])
            yield Broken(f"v{op.vcpu}: {xf.CONTENTS[i]} reads {found}, it is {expected}", component_site(i))


@invariant("protected-guest-is-hidden", "leak", ("GSTATE", "ABI"), ops=(*_GET_XSAVE, *makers(KvmGetFpu, KvmGetMsrs)))
def protected_guest_is_hidden(view: View) -> Iterator[Broken]:
    """Of a guest whose registers are sealed user space is shown none, and nothing of anybody else's in their place: the
    memory that ioctls would show holds what the host last had in its registers.  What user space has written there it
    knows."""
    nr, out = view.vcpu_nr, view.step.result.out
    if not view.k.vcpus[nr].arch.guest_state_protected:
        return
    held = [token for _, token in out.tokens] if isinstance(out, Image | FpuState) else []
    given = ghost.given(view.k, nr)
    shown = [one for one in ([out] if isinstance(out, Content) else held) if ghost.owner(one) and one not in given]
    if shown:
        yield Broken(f"the ioctl shows {', '.join(map(ghost.content, shown))}")


@invariant("protected-state-is-refused", "abi", ("ABI",), ops=_PROTECTED_STATE)
def protected_state_is_refused(view: View) -> Iterator[Broken]:
    """A call that reads or sets registers of a sealed guest fails, where the VM is of a type that says so
    (has_protected_state): its user space is not to take for the guest's what is not (517987e3fb19)."""
    nr = view.vcpu_nr
    vcpu = view.k.vcpus[nr]
    sealed = vcpu.arch.guest_state_protected and view.k.has_protected_state(vcpu)
    if sealed and view.step.result.ret in (0, "overrun"):
        yield Broken(f"v{nr} is sealed, and the call says that it has done what it was asked to")


@invariant("protected-guest-is-untouched", "corruption", ("GSTATE", "ABI"), ops=(VcpuIoctl,))
def protected_guest_is_untouched(view: View) -> Iterator[Broken]:
    """No ioctl changes the registers of a guest that are sealed: its owner relies on what was measured."""
    nr = view.vcpu_nr
    if view.before.vcpus[nr].arch.guest_state_protected and view.step.changed(_VMSAS[nr]):
        yield Broken(f"v{nr}: the ioctl changed its sealed registers")


@invariant("get-msrs-is-true", "corruption", ("GSTATE", "INV-17"), ops=makers(KvmGetMsrs, KvmGetOneReg))
def get_msrs_is_true(view: View) -> Iterator[Broken]:
    """KVM_GET_MSRS and KVM_GET_ONE_REG give what the guest would read."""
    op, value = view.step.op, view.step.result.out
    assert isinstance(op, KvmGetMsrs | KeepMsr | KvmGetOneReg | KeepOneReg)
    if not isinstance(value, int) or not ghost.takes(view.k, view.k.vcpus[op.vcpu]):
        return
    ideal, vcpu = view.k.system.ghost.vcpus[op.vcpu], view.k.vcpus[op.vcpu]
    expected = ghost.read_msr(ideal, op.msr)
    if ghost.can_read(view.k, vcpu, op.msr) and value != expected:
        yield Broken(f"v{op.vcpu} reads {value:#x}, expected {expected:#x}")


@invariant("xfd-msrs-can-be-saved", "abi", ("ABI",), ops=makers(KvmGetMsrs))
def xfd_msrs_can_be_saved(view: View) -> Iterator[Broken]:
    """Where KVM offers XFD to guests, user space can read IA32_XFD and IA32_XFD_ERR: they are part of the state that a
    migration must carry.  That of a guest whose ioctls say that it is protected user space cannot carry."""
    op = view.step.op
    assert isinstance(op, KvmGetMsrs | KeepMsr)
    if view.k.has_protected_state(view.k.vcpus[op.vcpu]):
        return
    xfd = op.msr in (MSR_IA32_XFD, MSR_IA32_XFD_ERR)
    if view.step.result.ret == 0 and xfd and view.k.kvm_cpu_cap_has_xfd() and view.k.vcpus[op.vcpu].arch.cpuid_xfd:
        yield Broken(f"v{op.vcpu} has XFD in its CPUID and KVM_GET_MSRS refuses it")


@invariant("listed-msrs-can-be-saved", "abi", ("ABI",), ops=makers(KvmGetMsrs))
def listed_msrs_can_be_saved(view: View) -> Iterator[Broken]:
    """User space can read what KVM_GET_MSR_INDEX_LIST names, whatever the guest's CPUID: VMMs save all of it, and give
    up where an MSR is missing.  Only VM types whose ioctls say that the guest's state is protected may refuse."""
    op = view.step.op
    assert isinstance(op, KvmGetMsrs | KeepMsr)
    listed = view.k.kvm_probe_msr_to_save(op.msr)
    if view.step.result.ret == 0 and listed and not view.k.has_protected_state(view.k.vcpus[op.vcpu]):
        yield Broken(f"v{op.vcpu}: KVM_GET_MSRS refuses an MSR that is on the list")


@invariant("xfd-msrs-are-listed", "abi", ("ABI",), ops=(KvmGetMsrIndexList,))
def xfd_msrs_are_listed(view: View) -> Iterator[Broken]:
    """Where KVM offers XFD to guests, KVM_GET_MSR_INDEX_LIST names IA32_XFD and IA32_XFD_ERR: VMMs migrate what is on
    the list."""
    op = view.step.op
    assert isinstance(op, KvmGetMsrIndexList)
    offered = op.msr in (MSR_IA32_XFD, MSR_IA32_XFD_ERR) and view.k.kvm_cpu_cap_has_xfd()
    if offered and not view.step.result.out:
        yield Broken("KVM offers XFD, and its MSR is not on the list")


@invariant("xfd-msrs-can-be-restored", "abi", ("ABI",), ops=makers(KvmSetMsrs))
def xfd_msrs_can_be_restored(view: View) -> Iterator[Broken]:
    """User space may always write 0, the reset value, to IA32_XFD and IA32_XFD_ERR where KVM offers XFD, whatever the
    guest's CPUID: VMMs write every MSR of the index list.  Only a protected guest's ioctls may say that they cannot."""
    op = view.step.op
    assert isinstance(op, KvmSetMsrs | LoadMsrs)
    if view.k.has_protected_state(view.k.vcpus[op.vcpu]):
        return
    taken = view.step.result.ret
    refused = op.given(view.k)[taken : taken + 1] if isinstance(taken, int) and taken >= 0 else ()
    if view.k.kvm_cpu_cap_has_xfd() and any(
        value == 0 and index in (MSR_IA32_XFD, MSR_IA32_XFD_ERR) for index, value in refused
    ):
        yield Broken(f"v{op.vcpu}: KVM_SET_MSRS refuses the reset value")


@invariant(
    "exit-reason-is-known",
    "abi",
    ("INV-31",),
    ops=(KvmRunReturns,),
    excluded=("amx-v1", "amx-review-a", "amx-review-b"),
)
def exit_reason_is_known(view: View) -> Iterator[Broken]:
    """KVM_RUN returns with an exit reason that the ABI documents."""
    ret = view.step.result.ret
    if isinstance(ret, str) and ret not in _KNOWN_EXITS:
        yield Broken(f"{ret} is not part of the ABI, or nothing that this guest can cause")
