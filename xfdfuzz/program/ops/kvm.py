"""ioctls on /dev/kvm, VMs and vCPUs, other than KVM_RUN."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import LEAF_XSTATE, NOTHING
from xfdfuzz.arch.registers import MSR_IA32_XFD
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.errno import EINVAL
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.kvm.msrs import (
    KVM_REG_GUEST_SSP,
    KVM_X86_REG_TYPE_KVM,
    KVM_X86_REG_TYPE_MSR,
    MSR_KVM_INTERNAL_GUEST_SSP,
)
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.kvm.x86 import KvmVcpuEvents
from xfdfuzz.kernel.kvm.xsave import KvmXcrs
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import INTENT_RESET, RESETS, System, Vcpu
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import (
    Attribute,
    AttributeGroup,
    Bit,
    CpuidLeaf,
    EntryXcr,
    Events,
    MpStateOf,
    MsrData,
    MsrIndex,
    Msrs,
    Nested,
    Nr,
    NrXcrs,
    Null,
    OneRegIndex,
    Reset,
    Room,
    Sregs,
    Subleaf,
    VcpuId,
    Xcr0,
    XcrsFlags,
)
from xfdfuzz.program.ops.base import TaskOp, VcpuIoctl, VmIoctl, in_l2, op, reserved_bits
from xfdfuzz.program.step import Mask, MpState, Result, msr_value

#: Index and value of MSRs.
Entries = tuple[tuple[int, int], ...]


@op("t{task} ioctl(kvm, KVM_CREATE_VM)")
class KvmCreateVm(TaskOp):
    """A VM that belongs to the task's address space."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        ret, vm = k.kvm_dev_ioctl_create_vm()
        return Result(ret or f"vm{vm}")


@op("t{task} ioctl(kvm, KVM_GET_SUPPORTED_CPUID)")
class KvmGetSupportedCpuid(TaskOp):
    """What KVM offers; the value is leaf 0xD.0 EDX:EAX."""

    task: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        return Result(0, Mask(k.kvm_dev_ioctl_get_cpuid().xcr0))


@op("t{task} ioctl(kvm, KVM_GET_SUPPORTED_CPUID, {leaf}, {subleaf})")
class KvmGetSupportedCpuidEntry(TaskOp):
    """One entry of what KVM offers: its four registers, or none."""

    task: Nr = 0
    leaf: CpuidLeaf = LEAF_XSTATE
    subleaf: Subleaf = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        return Result(0, k.kvm_dev_ioctl_get_cpuid_entry(self.leaf, self.subleaf))


@op("t{task} ioctl(kvm, KVM_GET_DEVICE_ATTR, {group}, {attr}, {pointer})")
class KvmGetDeviceAttr(TaskOp):
    """Read an attribute of KVM itself: 0 in group 0 is KVM_X86_XCOMP_GUEST_SUPP, 0 in group 1
    KVM_X86_SEV_VMSA_FEATURES, on ``amd`` since 6.10."""

    task: Nr = 0
    group: AttributeGroup = 0
    attr: Attribute = 0
    pointer: Null = False

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        value = k.kvm_x86_dev_get_attr(self.group, self.attr, not self.pointer)
        if value.ret:
            return Result(value.ret)
        return Result(0, value.value if self.group else Mask(value.value))


@op("t{task} ioctl(kvm, KVM_HAS_DEVICE_ATTR, {group}, {attr})")
class KvmHasDeviceAttr(TaskOp):
    """Whether KVM itself has an attribute."""

    task: Nr = 0
    group: AttributeGroup = 0
    attr: Attribute = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        return Result(k.kvm_x86_dev_has_attr(self.group, self.attr))


@op("t{task} ioctl(kvm, KVM_GET_MSR_INDEX_LIST, {msr})")
class KvmGetMsrIndexList(TaskOp):
    """Whether an MSR is on the list of those that user space is to save and restore: the value is 1 or 0."""

    task: Nr = 0
    msr: MsrIndex = MSR_IA32_XFD

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        return Result(0, int(k.kvm_probe_msr_to_save(self.msr)))


@op("t{task} ioctl(vm{vm}, KVM_CREATE_IRQCHIP)")
class KvmCreateIrqchip(VmIoctl):
    """Have the local APICs in the kernel: HLT does not return to user space, and a vCPU with another id than 0 is an
    application processor, which waits for INIT and SIPI."""

    task: Nr = 0
    vm: Nr = 0

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        return Result(k.kvm_vm_ioctl_guard(k.vms[self.vm]) or k.kvm_vm_ioctl_create_irqchip(self.vm))


@op("t{task} ioctl(vm{vm}, KVM_CREATE_VCPU, {id}, {reset})")
class KvmCreateVcpu(VmIoctl):
    """A vCPU; the first one of a process freezes the guest permissions.  Without ``reset`` it gets CR4.OSXSAVE."""

    task: Nr = 0
    vm: Nr = 0
    id: VcpuId = 0
    reset: Reset = False

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        ret, nr = k.kvm_vm_ioctl_create_vcpu(self.vm, self.id)
        if ret:
            return Result(ret)
        ghost.new_vcpu(k, nr)
        if self.reset:
            k.vcpus[nr].arch.cr4_osxsave = 0
        return Result(f"v{nr}")


@op("t{task} close(vm{vm})")
class CloseVm(VmIoctl):
    """Close a VM and all its vCPUs, while none of them runs; they are destroyed when no forked process has them."""

    task: Nr = 0
    vm: Nr = 0

    def hindrance(self, k: Kernel) -> str:
        running = (nr for nr, v in enumerate(k.vcpus) if v.exists and v.vm == self.vm and v.task)
        found = next(running, None)
        return VmIoctl.hindrance(self, k) if found is None else f"v{found} is inside KVM_RUN"

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        k.kvm_vm_release(self.vm)
        return Result(0)


@op("t{task} ioctl(v{vcpu}, KVM_SET_CPUID2, {entries})")
class KvmSetCpuid2(VcpuIoctl):
    """Give the guest its CPUID: leaf 0xD.0, the XFD flag and the AMX_TILE flag."""

    task: Nr = 0
    vcpu: Nr = 0
    entries: CpuidEntries = CpuidEntries(0, False, False)

    def given(self, k: Kernel) -> CpuidEntries:
        """The array that the kernel gets."""
        return self.entries

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return Result(k.kvm_vcpu_ioctl_set_cpuid2(vcpu, self.entries))


@op("t{task} ioctl(v{vcpu}, KVM_SET_CPUID2, supported)")
class KvmSetCpuid2Supported(VcpuIoctl):
    """Give the guest just what KVM_GET_SUPPORTED_CPUID offers now."""

    call = "KvmSetCpuid2"
    task: Nr = 0
    vcpu: Nr = 0

    def given(self, k: Kernel) -> CpuidEntries:
        """The array that the kernel gets."""
        return k.kvm_dev_ioctl_get_cpuid()

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        entries = self.given(k)
        return Result(k.kvm_vcpu_ioctl_set_cpuid2(vcpu, entries), Mask(entries.xcr0))


@op("t{task} ioctl(v{vcpu}, KVM_GET_CPUID2)")
class KvmGetCpuid2(VcpuIoctl):
    """Read the guest's CPUID back; the value is leaf 0xD.0 EDX:EAX."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        leaf = k.kvm_vcpu_ioctl_get_cpuid2(vcpu, LEAF_XSTATE, 0) or NOTHING
        return Result(0, Mask(leaf.edx << 32 | leaf.eax))


@op("t{task} ioctl(v{vcpu}, KVM_GET_CPUID2, {leaf}, {subleaf})")
class KvmGetCpuid2Entry(VcpuIoctl):
    """Read one entry of the guest's CPUID back: its four registers, or none."""

    task: Nr = 0
    vcpu: Nr = 0
    leaf: CpuidLeaf = LEAF_XSTATE
    subleaf: Subleaf = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return Result(0, k.kvm_vcpu_ioctl_get_cpuid2(vcpu, self.leaf, self.subleaf))


@op("t{task} ioctl(v{vcpu}, KVM_SET_SREGS, {sregs})")
class KvmSetSregs(VcpuIoctl):
    """Set or clear CR4.OSXSAVE, without which the guest has neither XCR0 nor AVX nor AMX, CR0.TS, and CR4.PKE, without
    which it has no WRPKRU.

    A vCPU has CR4.OSXSAVE from the start unless it was made with `reset`.  The state has EFER.LME, so it is -EINVAL
    before KVM_SET_CPUID2 since 184bd464bdb6, unless `no_lme` says that it is one in real mode."""

    task: Nr = 0
    vcpu: Nr = 0
    sregs: Sregs = Sregs(True)

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return set_sregs(k, self.vcpu, self.sregs)


def set_sregs(k: Kernel, nr: int, sregs: Sregs) -> Result:
    """KVM_SET_SREGS with CR4, CR0.TS and EFER.LME as given."""
    ret = k.kvm_vcpu_ioctl_set_sregs(k.vcpus[nr], sregs.cr4, sregs.ts, not sregs.no_lme)
    vmm = k.system.ghost.vmms[nr]
    if not ret and vmm.intent in RESETS:
        vmm.osxsave, vmm.ts, vmm.pke = sregs.osxsave, sregs.ts, sregs.pke
    return Result(ret)


@op("t{task} ioctl(v{vcpu}, KVM_SET_REGS)")
class KvmSetRegs(VcpuIoctl):
    """Let the guest go on elsewhere: RIP and the other general registers.  A pending exception is dropped, one that
    KVM_SET_VCPU_EVENTS has injected is not, and an OUT that user space has served is not completed."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        if not k.refuses_protected(vcpu):
            ghost.goes_elsewhere(k.system.ghost.vcpus[self.vcpu])
        return Result(k.kvm_arch_vcpu_ioctl_set_regs(vcpu))


class _OfVisible(VcpuIoctl):
    """A guest that KVM cannot see gets its exceptions by ways of its own, and has no L2."""

    __slots__ = ()
    OF_VISIBLE = True


@op("t{task} ioctl(vm{vm}, KVM_ENABLE_CAP, KVM_CAP_EXCEPTION_PAYLOAD, {enable})")
class KvmEnableCapExceptionPayload(VmIoctl):
    """Let user space tell a pending exception from an injected one, in KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS; 0
    takes it back."""

    task: Nr = 0
    vm: Nr = 0
    enable: Bit = 1

    def run(self, k: Kernel) -> Result:
        self.enter_kernel(k)
        vm = k.vms[self.vm]
        return Result(k.kvm_vm_ioctl_guard(vm) or k.kvm_vm_ioctl_enable_cap_exception_payload(vm, self.enable))


@op("t{task} ioctl(v{vcpu}, KVM_GET_VCPU_EVENTS)")
class KvmGetVcpuEvents(_OfVisible):
    """Read which exception the guest will get, and whether an INIT is pending; an exception that is pending reads as
    injected, unless the VM has KVM_CAP_EXCEPTION_PAYLOAD."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return Result(0, seen_events(k.kvm_vcpu_ioctl_x86_get_vcpu_events(vcpu)))


def seen_events(events: KvmVcpuEvents) -> Events:
    """What a result shows of KVM_GET_VCPU_EVENTS: it always says whether an INIT is latched, so none is not named."""
    return Events.of(events.vector, events.pending, events.latched_init or None)


@op("t{task} ioctl(v{vcpu}, KVM_SET_VCPU_EVENTS, {events})")
class KvmSetVcpuEvents(_OfVisible):
    """Inject an exception, or, with ``{}``, drop what the guest would get.  ``pending`` takes a VM with
    KVM_CAP_EXCEPTION_PAYLOAD.  ``latched_init`` makes an INIT pending and ``no_latched_init`` takes back one that is,
    of a VM with KVM_CREATE_IRQCHIP; with neither it stays.  ``pending`` and ``latched_init`` not in L2, where L1 may
    want to have it."""

    task: Nr = 0
    vcpu: Nr = 0
    events: Events = Events()

    def hindrance(self, k: Kernel) -> str:
        return _OfVisible.hindrance(self, k) or events_in_l2(k, self.vcpu, self.events)

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return set_vcpu_events(k, self.vcpu, self.events, self.events.vector)


def events_in_l2(k: Kernel, nr: int, events: Events) -> str:
    """That KVM_SET_VCPU_EVENTS would make an exception or an INIT pending for L2; nothing if not."""
    vcpu = k.vcpus[nr]
    if events.latched_init and (found := in_l2(vcpu, nr)):
        return found
    return _pending_for_l2(nr, bool(events.pending and vcpu.arch.guest_mode))


def _pending_for_l2(nr: int, would_be: bool) -> str:
    return f"an exception that is pending for v{nr}'s L2 is not modelled" if would_be else ""


def set_vcpu_events(k: Kernel, nr: int, events: Events, honest: int) -> Result:
    """KVM_SET_VCPU_EVENTS with an exception that should be ``honest``."""
    pending = bool(events.pending)
    ret = k.kvm_vcpu_ioctl_x86_set_vcpu_events(k.vcpus[nr], KvmVcpuEvents(events.vector, pending, events.latched))
    for ideal in () if ret else ghost.told(k, nr):
        ghost.user_injected(ideal, honest, pending)
    if not ret:
        ghost.user_wrote_init(k, nr, events.latched)
    return Result(ret)


@op("t{task} ioctl(v{vcpu}, KVM_GET_SREGS)")
class KvmGetSregs(_OfVisible):
    """Read CR4.OSXSAVE, CR0.TS and CR4.PKE."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return Result(0, Sregs.of(*k.kvm_vcpu_ioctl_get_sregs(vcpu)))


@op("t{task} ioctl(v{vcpu}, KVM_GET_NESTED_STATE)")
class KvmGetNestedState(_OfVisible):
    """Read whether L2 runs, and whether its #NM exits to L1."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return Result(0, nested_state(vcpu))


def nested_state(vcpu: Vcpu) -> Nested:
    """What KVM_GET_NESTED_STATE gives."""
    return Nested(bool(vcpu.arch.guest_mode), bool(vcpu.arch.guest_mode and vcpu.arch.vmcs12_nm))


@op("t{task} ioctl(v{vcpu}, KVM_SET_NESTED_STATE, {nested})")
class KvmSetNestedState(_OfVisible):
    """Let the guest go on in its L2, for which it needs a CPUID, or, with ``{}``, in L1; an exception that waits in L2
    is dropped, but on ``amd``.  One that is pending in L1 does not go to L2 here, where L1 may want to have it."""

    task: Nr = 0
    vcpu: Nr = 0
    nested: Nested = Nested(True)

    def hindrance(self, k: Kernel) -> str:
        return _OfVisible.hindrance(self, k) or taken_to_l2(k, self.vcpu, self.nested)

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return set_nested_state(k, self.vcpu, self.nested)

    def without_effect(self, machine: Machine) -> Iterator[str]:
        if self.nested == Nested(False, True):
            yield "intercept_nm: has no effect: no L2 runs"


def taken_to_l2(k: Kernel, nr: int, nested: Nested) -> str:
    """That KVM_SET_NESTED_STATE would take an exception that is pending to L2; nothing if not."""
    arch = k.vcpus[nr].arch
    stays = arch.exception_pending and not (arch.guest_mode and k.leaving_l2_drops_events())
    return _pending_for_l2(nr, bool(nested.guest_mode and stays))


def set_nested_state(k: Kernel, nr: int, nested: Nested) -> Result:
    """KVM_SET_NESTED_STATE with that."""
    vcpu, vmm = k.vcpus[nr], k.system.ghost.vmms[nr]
    drops = vcpu.arch.guest_mode and k.leaving_l2_drops_events()
    ret = k.vmx_set_nested_state(vcpu, *nested)
    if ret:
        return Result(ret)
    for ideal in ghost.told(k, nr) if drops else ():
        ghost.user_injected(ideal, 0)
    if vmm.intent == INTENT_RESET:
        vmm.guest_mode = nested.guest_mode
    return Result(ret)


@op("t{task} ioctl(v{vcpu}, KVM_SET_XCRS, {xcr0}, {xcr}, {nr_xcrs}, {flags})")
class KvmSetXcrs(VcpuIoctl):
    """Set XCR0 from user space; an entry for another register is passed over."""

    task: Nr = 0
    vcpu: Nr = 0
    xcr0: Xcr0 = xf.MASK_X87
    xcr: EntryXcr = 0
    nr_xcrs: NrXcrs = 1
    flags: XcrsFlags = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return set_xcrs(k, self.vcpu, KvmXcrs(self.xcr0, self.xcr, self.nr_xcrs, self.flags), self.xcr0)


def set_xcrs(k: Kernel, nr: int, xcrs: KvmXcrs, honest: int) -> Result:
    """KVM_SET_XCRS with a value that should be ``honest``."""
    vcpu = k.vcpus[nr]
    ret = k.kvm_vcpu_ioctl_x86_set_xcrs(vcpu, xcrs)
    passed_over = xcrs.xcr or not xcrs.nr_xcrs
    for ideal in () if ret or passed_over or vcpu.arch.guest_state_protected else ghost.told(k, nr):
        ghost.user_wrote_xcr0(ideal, honest)
    return Result(ret)


@op("t{task} ioctl(v{vcpu}, KVM_GET_XCRS)")
class KvmGetXcrs(VcpuIoctl):
    """Read XCR0; no value on a machine without XSAVE, where nr_xcrs is 0."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        ret, value = k.kvm_vcpu_ioctl_x86_get_xcrs(vcpu)
        return Result(ret, None if value is None else Mask(value))


@op("t{task} ioctl(v{vcpu}, KVM_SET_MSRS, {msrs})")
class KvmSetMsrs(VcpuIoctl):
    """Write MSRs from user space; returns how many entries were taken."""

    task: Nr = 0
    vcpu: Nr = 0
    msrs: Msrs = Msrs(((MSR_IA32_XFD, 0),))

    def given(self, k: Kernel) -> Entries:
        """The entries that the kernel gets."""
        return tuple((index, ghost.msr_data(k, self.vcpu, index, value)) for index, value in self.msrs.entries)

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        entries = self.given(k)
        return set_msrs(k, self.vcpu, entries, entries)

    def asked(self, before: System) -> int:
        return len(self.msrs.entries)

    def without_effect(self, machine: Machine) -> Iterator[str]:
        for index, value in self.msrs.entries:
            yield from reserved_bits(index, value)


def set_msrs(k: Kernel, nr: int, entries: Entries, honest: Entries) -> Result:
    """KVM_SET_MSRS with values that should be the ``honest`` ones."""
    vcpu = k.vcpus[nr]
    count = k.kvm_set_msrs(vcpu, entries)
    ghost.gave(k, nr, (value for index, value in entries if index in ghost.CONTENT_MSRS))
    taken = honest[: 0 if vcpu.arch.guest_state_protected else max(count, 0)]
    written = [(index, value) for index, value in taken if has_register(k, vcpu, index)]
    for ideal in ghost.told(k, nr):
        for index, value in written:
            ghost.user_wrote_msr(vcpu, ideal, index, value)
    return Result(count)


def has_register(k: Kernel, vcpu: Vcpu, index: int) -> bool:
    """Whether the guest has the register: of one without CET, KVM takes a 0 for its MSRs and does nothing."""
    return index not in ghost.CONTENT_MSRS or k.guest_has_cet_msr(vcpu, index)


@op("t{task} ioctl(v{vcpu}, KVM_GET_MSRS, {msr})")
class KvmGetMsrs(VcpuIoctl):
    """Read one MSR from user space; returns how many entries were read, 0 or 1."""

    task: Nr = 0
    vcpu: Nr = 0
    msr: MsrIndex = MSR_IA32_XFD

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        count, value = k.kvm_get_msrs(vcpu, self.msr)
        return Result(count, msr_value(self.msr, value) if count > 0 else None)

    def asked(self, before: System) -> int:
        return 1


@op("t{task} ioctl(v{vcpu}, KVM_GET_ONE_REG, {msr})")
class KvmGetOneReg(_OfVisible):
    """Read an MSR, or SSP, which is in no other ioctl."""

    task: Nr = 0
    vcpu: Nr = 0
    msr: OneRegIndex = MSR_KVM_INTERNAL_GUEST_SSP

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        ret, value = get_one_reg(k, vcpu, self.msr)
        return Result(ret, None if ret else msr_value(self.msr, value))


def get_one_reg(k: Kernel, vcpu: Vcpu, index: int) -> tuple[int, int]:
    """KVM_GET_ONE_REG: what it returns, and the value."""
    return k.kvm_get_set_one_reg(vcpu, *_reg_id(index), None)


def _reg_id(index: int) -> tuple[int, int]:
    """Type and index in the id of a register."""
    if index == MSR_KVM_INTERNAL_GUEST_SSP:
        return KVM_X86_REG_TYPE_KVM, KVM_REG_GUEST_SSP
    return KVM_X86_REG_TYPE_MSR, index


@op("t{task} ioctl(v{vcpu}, KVM_SET_ONE_REG, {msr}, {value})")
class KvmSetOneReg(_OfVisible):
    """Write an MSR, or SSP."""

    task: Nr = 0
    vcpu: Nr = 0
    msr: OneRegIndex = MSR_KVM_INTERNAL_GUEST_SSP
    value: MsrData = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        value = ghost.msr_data(k, self.vcpu, self.msr, self.value)
        return set_one_reg(k, self.vcpu, self.msr, (value, value))

    def without_effect(self, machine: Machine) -> Iterator[str]:
        yield from reserved_bits(self.msr, self.value)


def set_one_reg(k: Kernel, nr: int, index: int, values: tuple[int, int]) -> Result:
    """KVM_SET_ONE_REG: of the values the kernel gets the first one, and it should be the second one."""
    vcpu, (value, honest) = k.vcpus[nr], values
    ret, _ = k.kvm_get_set_one_reg(vcpu, *_reg_id(index), value)
    for ideal in ghost.told(k, nr) if not ret and has_register(k, vcpu, index) else ():
        ghost.user_wrote_msr(vcpu, ideal, index, honest)
    return Result(ret)


@op("t{task} ioctl(v{vcpu}, KVM_GET_REG_LIST, {room})")
class KvmGetRegList(_OfVisible):
    """Read which registers KVM_GET_ONE_REG has that are not MSRs, into a list with that much room: the value is how
    many there are, 1 with SSP and 0 without."""

    task: Nr = 0
    vcpu: Nr = 0
    room: Room = 1

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        ret, nr_regs = k.kvm_get_reg_list(vcpu, self.room)
        return Result(ret, None if ret == -EINVAL else nr_regs)


@op("t{task} ioctl(v{vcpu}, KVM_GET_MP_STATE)")
class KvmGetMpState(VcpuIoctl):
    """Read the MP state, which is the value, and accept a pending INIT or SIPI before that; on an MPX host this loads
    and puts the guest FPU, until 8819a49f9ff8."""

    task: Nr = 0
    vcpu: Nr = 0

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return get_mp_state(k, self.vcpu)


def get_mp_state(k: Kernel, nr: int) -> Result:
    """KVM_GET_MP_STATE, which accepts an INIT."""
    vcpu = k.vcpus[nr]
    if vcpu.arch.init_pending:
        ghost.init(k, nr)
    return Result(k.kvm_arch_vcpu_ioctl_get_mpstate(vcpu), MpState(vcpu.arch.mp_state))


@op("t{task} ioctl(v{vcpu}, KVM_SET_MP_STATE, {mp_state})")
class KvmSetMpState(_OfVisible):
    """Write the MP state; all but KVM_MP_STATE_RUNNABLE take a VM with KVM_CREATE_IRQCHIP.  Not in L2, where a SIPI
    would be an exit to L1."""

    task: Nr = 0
    vcpu: Nr = 0
    mp_state: MpStateOf = st.KVM_MP_STATE_RUNNABLE

    def hindrance(self, k: Kernel) -> str:
        return _OfVisible.hindrance(self, k) or in_l2(k.vcpus[self.vcpu], self.vcpu)

    def ioctl(self, k: Kernel, vcpu: Vcpu) -> Result:
        return set_mp_state(k, self.vcpu, self.mp_state)


def set_mp_state(k: Kernel, nr: int, mp_state: int) -> Result:
    """KVM_SET_MP_STATE with that."""
    ret = k.kvm_arch_vcpu_ioctl_set_mpstate(k.vcpus[nr], mp_state)
    if not ret:
        ghost.user_wrote_mp_state(k, nr, mp_state)
    return Result(ret)
