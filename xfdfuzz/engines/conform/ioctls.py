"""Translation of ioctls on /dev/kvm, VMs and vCPUs, but for running the guest."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import SAPPHIRE_RAPIDS
from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR
from xfdfuzz.engines.conform.contents import INITIAL_X87, SIZES, TILE_CONFIGURATION, initial
from xfdfuzz.engines.conform.fields import Field, NotCompared, Stopped, returned
from xfdfuzz.engines.conform.memory import TILE_SIZE
from xfdfuzz.engines.conform.recording import Fields, Operation, number
from xfdfuzz.engines.conform.session import Session
from xfdfuzz.engines.conform.translator import translates
from xfdfuzz.kernel.errno import EBADF, EMFILE, ENOMEM
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.kvm.xsave import UserBuffer
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.memory.cstruct import assign
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import Msrs, UserImage
from xfdfuzz.program.ops import kvm, xsave
from xfdfuzz.program.step import Image

KVM_CAP_XSAVE2 = 208
#: What get_xsave fills its buffer with.
_UNTOUCHED = 0xCC
#: Offset of the first tile in a standard-format image.
_TILES = SAPPHIRE_RAPIDS.components[xf.XTILE_DATA].offset


def _result(o: Operation) -> Fields:
    """What was recorded; raises :class:`NotCompared` if the harness had nothing to act on and made no call."""
    assert o.result is not None
    if "skipped" in o.result:
        raise NotCompared("no VM or vCPU to act on")
    return o.result


# -- /dev/kvm ----------------------------------------------------------------------------------------------------------


@translates("kvm_cap", "vm_cap")
def check_extension(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_CHECK_EXTENSION."""
    recorded = returned(_result(o))
    if o.number(0) != KVM_CAP_XSAVE2:
        raise NotCompared(o.text)
    task = s.now.task
    op = xsave.KvmCheckXsave2(task) if o.op == "kvm_cap" else xsave.KvmVmCheckXsave2(task, s.vm)
    yield Field("ret", recorded, s.do(op).ret)


@translates("dev_attr")
def get_device_attribute(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_DEVICE_ATTR on /dev/kvm."""
    recorded = _result(o)
    result = s.do(kvm.KvmGetDeviceAttr(s.now.task, o.number(0), o.number(1)))
    yield Field("ret", returned(recorded), result.ret)
    if not recorded["ret"]:
        yield Field("val", number(recorded["val"]), result.out)


@translates("msr_list")
def get_msr_index_list(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_MSR_INDEX_LIST."""
    index = o.number(0)
    if index not in (MSR_IA32_XFD, MSR_IA32_XFD_ERR):
        raise NotCompared(o.text)
    yield Field("present", bool(_result(o)["present"]), bool(s.do(kvm.KvmGetMsrIndexList(s.now.task, index)).out))


@translates("supported_cpuid")
def get_supported_cpuid(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_SUPPORTED_CPUID: of leaf 0xD the masks and sizes, of leaf 7 AMX_TILE."""
    recorded = _result(o)
    if "errno" in recorded:  # of opening /dev/kvm, or of asking with too little room
        raise NotCompared("the harness could not ask")
    offered = s.do(kvm.KvmGetSupportedCpuid(s.now.task)).out
    assert isinstance(offered, int)
    leaf, index = o.number(0), o.number(1)
    if (leaf, index) == (0xD, 0):
        yield Field("edx:eax", number(recorded["edx"]) << 32 | number(recorded["eax"]), offered)
        yield Field("ecx", number(recorded["ecx"]), SAPPHIRE_RAPIDS.standard_size(offered))
    elif leaf == 0xD and index in SAPPHIRE_RAPIDS.components:
        yield Field("absent", bool(recorded.get("absent")), not offered >> index & 1)
    elif (leaf, index) == (7, 0):
        yield Field("AMX_TILE", bool(number(recorded["edx"]) >> 24 & 1), s.kernel.kvm_cpu_cap_has_amx())
    else:
        raise NotCompared(o.text)


# -- VMs and vCPUs -----------------------------------------------------------------------------------------------------


@translates("create_vm")
def create_vm(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_CREATE_VM, a memory slot and KVM_SET_TSS_ADDR."""
    recorded = returned(_result(o))
    if recorded in (-EMFILE, -EBADF):
        # before anything was made; EBADF: another process of the harness closed its /dev/kvm
        raise NotCompared("a descriptor beyond RLIMIT_NOFILE" if recorded == -EMFILE else "/dev/kvm is closed")
    result = s.do(kvm.KvmCreateVm(s.now.task))
    if result.ret == -ENOMEM:
        raise Stopped("more VMs than the model has")
    yield Field("ret", min(recorded, 0), 0 if isinstance(result.ret, str) else result.ret)
    if recorded < 0 or not isinstance(result.ret, str):
        raise Stopped("a VM that only one of the two has")
    s.opened_vm(_result(o)["vm"], int(result.ret.removeprefix("vm")))


def _destroy(k: Kernel, nr: int) -> None:
    k.kvm_arch_vcpu_destroy(k.vcpus[nr])
    assign(k.vcpus[nr], Vcpu())


@translates("create_vcpu")
def create_vcpu(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_CREATE_VCPU."""
    recorded = returned(_result(o))
    vm = s.vm
    result = s.do(kvm.KvmCreateVcpu(s.now.task, vm, o.number(0), reset=True))
    if recorded == -EMFILE and isinstance(result.ret, str):
        nr = int(result.ret.removeprefix("v"))
        s.aside("no descriptor: KVM destroys the vCPU again", partial(_destroy, nr=nr))
        raise NotCompared("a descriptor beyond RLIMIT_NOFILE")
    if result.ret == -ENOMEM:
        raise Stopped("more vCPUs than the model has")
    yield Field("ret", min(recorded, 0), 0 if isinstance(result.ret, str) else result.ret)
    if isinstance(result.ret, str) != (recorded >= 0):
        raise Stopped("a vCPU that only one of the two has")
    if isinstance(result.ret, str):
        s.opened_vcpu(_result(o)["vcpu"], int(result.ret.removeprefix("v")), vm)


@translates("sel_vm")
def select_vm(s: Session, o: Operation) -> Iterator[Field]:
    """Act on this VM from here on."""
    s.now.vm = s.now.names.vms[o.number(0)]
    yield from ()


@translates("sel_vcpu")
def select_vcpu(s: Session, o: Operation) -> Iterator[Field]:
    """Act on this vCPU, and on its VM, from here on."""
    s.now.vcpu = s.now.names.vcpus[o.number(0)]
    s.now.vm = s.vcpus[s.now.vcpu].vm
    yield from ()


@translates("close_vm")
def close_vm(s: Session, o: Operation) -> Iterator[Field]:
    """close() of the VM's descriptor; its vCPUs keep it alive."""
    _result(o)
    s.close({s.vm}, set())
    s.now.vm = None
    yield Field("ret", returned(_result(o)), 0)


@translates("close_vcpu")
def close_vcpu(s: Session, o: Operation) -> Iterator[Field]:
    """close() of the vCPU's descriptor; it lives as long as its VM."""
    _result(o)
    s.close(set(), {s.vcpu})
    s.now.vcpu = None
    yield Field("ret", returned(_result(o)), 0)


# -- the vCPU's state --------------------------------------------------------------------------------------------------


@translates("set_cpuid2")
def set_cpuid2(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_SUPPORTED_CPUID, edited, given to KVM_SET_CPUID2."""
    recorded, vcpu, edits = _result(o), s.vcpu, o.settings
    if not edits.keys() <= {"xcr0", "xfd", "amx"}:
        raise Stopped(f"a CPUID without what {', '.join(sorted(edits.keys() - {'xcr0', 'xfd', 'amx'}))} takes away")
    s.do(kvm.KvmGetSupportedCpuid(s.now.task))
    entries = s.kernel.kvm_dev_ioctl_get_cpuid()
    entries = entries._replace(
        xcr0=edits.get("xcr0", entries.xcr0),
        xfd=bool(edits.get("xfd", entries.xfd)),
        amx=bool(edits.get("amx", entries.amx)),
    )
    yield Field("ret", returned(recorded), s.do(kvm.KvmSetCpuid2(s.now.task, vcpu, entries)).ret)


@translates("get_cpuid2")
def get_cpuid2(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_CPUID2, leaf 0xD.0."""
    recorded, vcpu = _result(o), s.vcpu
    if [number(word) for word in o.args] != [0xD, 0]:
        raise NotCompared(o.text)
    result = s.do(kvm.KvmGetCpuid2(s.now.task, vcpu))
    yield Field("edx:eax", number(recorded["edx"]) << 32 | number(recorded["eax"]), result.out)
    yield Field("ebx", number(recorded["ebx"]), s.kernel.vcpus[vcpu].arch.cpuid_0xd_0_ebx)


@translates("set_msr", "set_msrs")
def set_msrs(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_SET_MSRS."""
    recorded, vcpu = _result(o), s.vcpu
    words = [number(word) for word in o.args]
    entries = tuple(zip(words[::2], words[1::2], strict=True))
    if any(index not in (MSR_IA32_XFD, MSR_IA32_XFD_ERR) for index, _ in entries):
        raise Stopped("KVM_SET_MSRS of another MSR")
    yield Field("ret", returned(recorded), s.do(kvm.KvmSetMsrs(s.now.task, vcpu, Msrs(entries))).ret)


@translates("get_msr")
def get_msr(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_MSRS."""
    recorded, vcpu, index = _result(o), s.vcpu, o.number(0)
    if index not in (MSR_IA32_XFD, MSR_IA32_XFD_ERR):
        raise NotCompared(o.text)
    result = s.do(kvm.KvmGetMsrs(s.now.task, vcpu, index))
    yield Field("ret", returned(recorded), result.ret)
    if recorded["ret"] == 1:
        yield Field("val", number(recorded["val"]), result.out)


@translates("set_xcr0")
def set_xcr0(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_SET_XCRS."""
    recorded = _result(o)
    yield Field("ret", returned(recorded), s.do(kvm.KvmSetXcrs(s.now.task, s.vcpu, o.number(0))).ret)


@translates("get_xcr0")
def get_xcr0(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_XCRS."""
    recorded = _result(o)
    result = s.do(kvm.KvmGetXcrs(s.now.task, s.vcpu))
    yield Field("ret", returned(recorded), result.ret)
    if not recorded["ret"]:
        yield Field("val", number(recorded["val"]), result.out)


# -- XSAVE images ------------------------------------------------------------------------------------------------------


def _image(s: Session, vcpu: int, held: dict[int, bytes], xcomp_bv: int = 0, extra: int = 0) -> UserImage:
    """An image with these components, and the bits ``extra`` that name none."""
    # tile data that were loaded are in use even if they are all 0
    init = xf.mask_of(*(i for i, data in held.items() if i != xf.XTILE_DATA and data == initial(i)))
    distinct = {i: data for i, data in held.items() if not init >> i & 1}
    token = s.contents.token(partial(ghost.vcpu_token, vcpu), distinct)
    return UserImage(xf.mask_of(*held) | extra, token, init, xcomp_bv)


def _given(edits: dict[str, int]) -> dict[int, bytes]:
    """What set_xsave puts into its image for the components of bv."""
    configuration = bytes([edits.get("pal", 1)]) + TILE_CONFIGURATION[1:]
    data = {
        xf.X87: edits.get("fcw", 0x37F).to_bytes(2, "little") + INITIAL_X87[2:24] + bytes([edits.get("x87", 0)]) * 128,
        xf.PKRU: edits.get("pkru", 0).to_bytes(8, "little"),
        xf.XTILE_CFG: configuration if edits.get("cfg", 1) else bytes(64),
    }
    names = {xf.SSE: "sse", xf.YMM: "avx", xf.OPMASK: "opmask", xf.ZMM_HI256: "zmm", xf.HI16_ZMM: "zmm"}
    names[xf.XTILE_DATA] = "tile"
    bv = edits.get("bv", 0)
    filled = {i: bytes([edits.get(names.get(i, ""), 0) & 0xFF]) * size for i, size in SIZES.items()}
    return {i: data.get(i, filled[i]) for i in SIZES if bv >> i & 1}


def _set_xsave(s: Session, o: Operation, buffer: UserBuffer) -> Iterator[Field]:
    recorded, vcpu, edits = _result(o), s.vcpu, o.settings
    held = _given(edits)
    image = _image(s, vcpu, held, edits.get("xcomp", 0), edits.get("bv", 0) & ~xf.mask_of(*held))
    image = image._replace(reserved=bool(edits.get("rsv")), mxcsr=bool(edits.get("mxcsr", 0) >> 16))
    yield Field("ret", returned(recorded), s.do(xsave.KvmSetXsave(s.now.task, vcpu, image, buffer)).ret)


@translates("set_xsave")
def set_xsave(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_SET_XSAVE from 64 KiB."""
    yield from _set_xsave(s, o, UserBuffer())


@translates("set_xsave_short")
def set_xsave_short(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_SET_XSAVE from a buffer behind which nothing is mapped."""
    yield from _set_xsave(s, o, UserBuffer(o.number(0), guarded=True))


def _read(s: Session) -> tuple[int | str, dict[int, bytes], int]:
    """KVM_GET_XSAVE2: result, all components (those that are not there as initial) and XSTATE_BV."""
    result = s.do(xsave.KvmGetXsave2(s.now.task, s.vcpu))
    image = result.out if isinstance(result.out, Image) else Image(0)
    tokens = dict(image.tokens)
    held = {i: s.contents.bytes_of(i, tokens[i]) if i in tokens else initial(i) for i in SIZES}
    return result.ret, held, image.xstate_bv


@translates("get_xsave", "get_xsave_x")
def get_xsave(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_XSAVE2 into a buffer that is filled with 0xcc before."""
    recorded, vcpu = _result(o), s.vcpu
    size = s.do(xsave.KvmVmCheckXsave2(s.now.task, s.vcpus[vcpu].vm)).ret
    ret, held, xstate_bv = _read(s)
    yield Field("ret", returned(recorded), ret)
    if recorded["ret"] or ret:
        return
    yield Field("size", recorded["size"], size)
    yield Field("xstate_bv", number(recorded["xstate_bv"]), xstate_bv)
    yield Field("xcomp_bv", number(recorded["xcomp_bv"]), 0)
    yield Field("fcw", number(recorded["fcw"]), int.from_bytes(held[xf.X87][:2], "little"))
    if "tile7" not in recorded:
        return
    written = s.kernel.kvm_get_xsave2_size(s.kernel.vcpus[vcpu])
    yield Field("cfg_palette", recorded["cfg_palette"], held[xf.XTILE_CFG][0])
    for name, at in (("tile0_first", 0), ("tile0_last", TILE_SIZE - 1), ("tile7", SIZES[xf.XTILE_DATA] - 1)):
        shown = held[xf.XTILE_DATA][at] if written > _TILES + at else _UNTOUCHED
        yield Field(name, number(recorded[name]), shown)


@translates("get_xsave1")
def get_xsave1(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_XSAVE."""
    recorded = _result(o)
    yield Field("ret", returned(recorded), s.do(xsave.KvmGetXsave(s.now.task, s.vcpu)).ret)


@translates("save_xsave")
def save_xsave(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_XSAVE2 into a slot."""
    recorded = _result(o)
    ret, held, xstate_bv = _read(s)
    yield Field("ret", returned(recorded), ret)
    if not ret:
        s.slots[o.number(0)] = {i: data for i, data in held.items() if xstate_bv >> i & 1}


@translates("load_xsave")
def load_xsave(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_SET_XSAVE from a slot; one that was never written is all zero."""
    recorded, vcpu = _result(o), s.vcpu
    image = _image(s, vcpu, s.slots.get(o.number(0), {}))
    yield Field("ret", returned(recorded), s.do(xsave.KvmSetXsave(s.now.task, vcpu, image)).ret)
