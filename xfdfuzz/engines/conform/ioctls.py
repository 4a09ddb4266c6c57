"""Translation of ioctls on /dev/kvm, VMs and vCPUs, but for running the guest."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import LEAF_XSTATE, SAPPHIRE_RAPIDS, WHOLE_LEAVES, Leaf
from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS
from xfdfuzz.engines.conform.contents import INITIAL_X87, SIZES, TILE_CONFIGURATION, initial
from xfdfuzz.engines.conform.fields import Field, NotCompared, Stopped, returned
from xfdfuzz.engines.conform.memory import TILE_SIZE
from xfdfuzz.engines.conform.recording import Fields, Malformed, Operation, number
from xfdfuzz.engines.conform.session import Session
from xfdfuzz.engines.conform.translator import translates
from xfdfuzz.kernel.errno import EEXIST, EINVAL, EMFILE, ENOMEM
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries, stored_entries
from xfdfuzz.kernel.kvm.main import KVM_MAX_VCPU_IDS
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.kvm.xsave import UserBuffer
from xfdfuzz.kernel.state import Vcpu
from xfdfuzz.memory.cstruct import assign
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import RESERVED, FpuImage, Msrs, Named, UserImage
from xfdfuzz.program.ops import kvm, xsave
from xfdfuzz.program.step import FpuState, Image

KVM_CAP_XSAVE2 = 208
#: Those whose values recordings and the model can have in common.
MSRS = (MSR_IA32_XFD, MSR_IA32_XFD_ERR, MSR_IA32_XSS)
#: The kernel's KVM_MAX_VCPU_IDS (arch/x86/include/asm/kvm_host.h).
_HIGHEST_VCPU_IDS = 4096
#: What get_xsave fills its buffer with.
_UNTOUCHED = 0xCC
#: Offset of the first tile in a standard-format image.
_TILES = SAPPHIRE_RAPIDS.components[xf.XTILE_DATA].offset


def _result(o: Operation) -> Fields:
    assert o.result is not None
    return o.result


# -- /dev/kvm ----------------------------------------------------------------------------------------------------------


@translates("kvm_cap", "vm_cap")
def check_extension(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_CHECK_EXTENSION."""
    recorded, task = returned(_result(o)), s.now.task
    if o.op == "kvm_cap" and (refused := s.open_kvm()):
        yield Field("ret", recorded, refused)
        return
    if o.number(0) != KVM_CAP_XSAVE2:
        raise NotCompared(o.text)
    op = xsave.KvmCheckXsave2(task) if o.op == "kvm_cap" else xsave.KvmVmCheckXsave2(task, s.vm)
    yield Field("ret", recorded, s.do(op).ret)


@translates("dev_attr")
def get_device_attribute(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_DEVICE_ATTR on /dev/kvm."""
    recorded = _result(o)
    if refused := s.open_kvm():
        yield Field("ret", returned(recorded), refused)
        return
    result = s.do(kvm.KvmGetDeviceAttr(s.now.task, o.number(0), o.number(1)))
    yield Field("ret", returned(recorded), result.ret)
    if not recorded["ret"]:
        yield Field("val", number(recorded["val"]), result.out)


@translates("msr_list")
def get_msr_index_list(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_MSR_INDEX_LIST."""
    index, recorded = o.number(0), _result(o)
    if refused := s.open_kvm():
        yield Field("ret", returned(recorded), refused)
        return
    if index not in (MSR_IA32_XFD, MSR_IA32_XFD_ERR):
        raise NotCompared(o.text)
    yield Field("present", bool(recorded["present"]), bool(s.do(kvm.KvmGetMsrIndexList(s.now.task, index)).out))


@translates("supported_cpuid")
def get_supported_cpuid(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_SUPPORTED_CPUID, one entry."""
    recorded = _result(o)
    refused = s.open_kvm()
    if refused or "errno" in recorded:
        yield Field("ret", returned(recorded) if "errno" in recorded else 0, refused)
        return
    leaf, index = o.number(0), o.number(1)
    if leaf in WHOLE_LEAVES:
        offered = s.do(kvm.KvmGetSupportedCpuidEntry(s.now.task, leaf, index & 0xFF)).out
        yield from _registers(recorded, offered)
        return
    s.do(kvm.KvmGetSupportedCpuid(s.now.task))
    yield _flag(o, s.kernel.kvm_dev_ioctl_get_cpuid())


def _registers(recorded: Fields, leaf: object) -> Iterator[Field]:
    """An entry's four registers, if there is one."""
    yield Field("absent", bool(recorded.get("absent")), leaf is None)
    if isinstance(leaf, Leaf) and not recorded.get("absent"):
        for name, value in zip(leaf._fields, leaf, strict=True):
            yield Field(name, number(recorded[name]), value)


def _flag(o: Operation, array: CpuidEntries) -> Field:
    """What the model has of another entry of a CPUID array; raises :class:`NotCompared` if it has nothing."""
    if (o.number(0), o.number(1)) == (7, 0):
        return Field("AMX_TILE", bool(number(_result(o)["edx"]) >> 24 & 1), array.amx)
    raise NotCompared(o.text)


# -- VMs and vCPUs -----------------------------------------------------------------------------------------------------


@translates("create_vm")
def create_vm(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_CREATE_VM, a memory slot and KVM_SET_TSS_ADDR."""
    recorded = returned(_result(o))
    refused = s.open_kvm() or (0 if s.now.descriptors else -EMFILE)
    if refused:  # before anything was made
        yield Field("ret", recorded, refused)
        return
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
    wanted = o.number(0)
    if KVM_MAX_VCPU_IDS <= wanted < _HIGHEST_VCPU_IDS:
        raise Stopped("a vCPU id that is larger than the model's")
    result = s.do(kvm.KvmCreateVcpu(s.now.task, vm, min(wanted, 255), reset=True))
    if not s.now.descriptors and isinstance(result.ret, str):
        nr = int(result.ret.removeprefix("v"))
        s.aside("no descriptor: KVM destroys the vCPU again", partial(_destroy, nr=nr))
        yield Field("ret", recorded, -EMFILE)
        return
    if result.ret == -ENOMEM:
        raise Stopped("more vCPUs than the model has")
    yield Field("ret", min(recorded, 0), 0 if isinstance(result.ret, str) else result.ret)
    if isinstance(result.ret, str) != (recorded >= 0):
        raise Stopped("a vCPU that only one of the two has")
    if isinstance(result.ret, str):
        s.opened_vcpu(_result(o)["vcpu"], int(result.ret.removeprefix("v")), vm)


def _created(names: dict[int, int], o: Operation) -> int:
    """What the harness calls by that number."""
    if o.number(0) not in names:
        raise Malformed(f"a number that was given to one before, not {o.args[0]}")
    return names[o.number(0)]


@translates("create_irqchip")
def create_irqchip(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_CREATE_IRQCHIP: once, and before there are vCPUs (kvm_arch_vm_ioctl()); a guest's HLT waits from then on."""
    has_vcpus = any(vcpu.vm == s.vm for vcpu in s.vcpus.values())
    ret = -EEXIST if s.vm in s.irqchips else -EINVAL if has_vcpus else 0
    if not ret:
        s.irqchips.add(s.vm)
    yield Field("ret", returned(_result(o)), ret)


@translates("sel_vm")
def select_vm(s: Session, o: Operation) -> Iterator[Field]:
    """Act on this VM from here on."""
    s.now.vm = _created(s.now.names.vms, o)
    yield from ()


@translates("sel_vcpu")
def select_vcpu(s: Session, o: Operation) -> Iterator[Field]:
    """Act on this vCPU, and on its VM, from here on."""
    s.now.vcpu = _created(s.now.names.vcpus, o)
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
    recorded, edits = _result(o), o.settings
    if refused := s.open_kvm():
        yield Field("ret", returned(recorded), refused)
        return
    vcpu = s.vcpu
    unknown = edits.keys() - {"xcr0", "xfd", "amx", "xsave", "xsaves", "d18ecx"}
    if unknown:
        raise Stopped(f"a CPUID with {', '.join(sorted(unknown))}")
    s.do(kvm.KvmGetSupportedCpuid(s.now.task))
    # ECX of 0xD.0 is the size of what was offered, and stays as it is
    entries = _edited(s.kernel.kvm_dev_ioctl_get_cpuid().whole(s.kernel.machine.cpuid), edits)
    if "d18ecx" in edits:
        entries = entries._replace(other=s.cpuids.setdefault(edits["d18ecx"], len(s.cpuids) + 1))
    yield Field("ret", returned(recorded), s.do(kvm.KvmSetCpuid2(s.now.task, vcpu, entries)).ret)


def _edited(offered: CpuidEntries, edits: dict[str, int]) -> CpuidEntries:
    """What the harness makes of the entries that KVM offers.

    Which sub-leaves of 0xD there are follows the given XCR0 if there is one, those of supervisor states too.
    """
    if edits.get("xsave") == 0:
        return offered._replace(xcr0=0, xss=0, xfd=False, amx=bool(edits.get("amx", offered.amx)), no_xsave=True)
    leaves = offered.leaves
    if "xcr0" in edits:
        leaves = leaves & (edits["xcr0"] | xf.MASK_X87) | (xf.MASK_XTILE if edits["xcr0"] & xf.MASK_XTILE_DATA else 0)
    return offered._replace(
        xcr0=edits.get("xcr0", offered.xcr0),
        xfd=bool(edits.get("xfd", offered.xfd)),
        amx=bool(edits.get("amx", offered.amx)),
        leaves=leaves,
        no_xsaves=edits.get("xsaves") == 0,
    )


@translates("get_cpuid2")
def get_cpuid2(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_CPUID2, one entry."""
    recorded, vcpu, leaf = _result(o), s.vcpu, o.number(0)
    arch = s.kernel.vcpus[vcpu].arch
    if leaf not in WHOLE_LEAVES:
        s.do(kvm.KvmGetCpuid2(s.now.task, vcpu))
        yield _flag(o, stored_entries(arch))
        return
    stored = s.do(kvm.KvmGetCpuid2Entry(s.now.task, vcpu, leaf, o.number(1) & 0xFF)).out
    yield from _registers(recorded, None if arch.cpuid_no_xsave and leaf == LEAF_XSTATE else stored)


@translates("set_msr", "set_msrs")
def set_msrs(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_SET_MSRS."""
    recorded, vcpu = _result(o), s.vcpu
    words = [number(word) for word in o.args]
    if not words or len(words) % 2:
        raise Malformed("MSRs with their values")
    entries = tuple(zip(words[::2], words[1::2], strict=True))
    modelled = [index in MSRS for index, _ in entries]
    if not any(modelled):
        raise NotCompared(o.op)
    if not all(modelled):
        raise Stopped("KVM_SET_MSRS of another MSR beside one that the model has")
    yield Field("ret", returned(recorded), s.do(kvm.KvmSetMsrs(s.now.task, vcpu, Msrs(entries))).ret)


@translates("get_msr")
def get_msr(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_MSRS."""
    recorded, vcpu, index = _result(o), s.vcpu, o.number(0)
    if index not in MSRS:
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
    """An image with these components and MXCSR, and the bits ``extra`` that name none."""
    token, contents = _contents(s, vcpu, held)
    return UserImage(xf.mask_of(*held) & ~xf.MASK_MXCSR | extra, token, contents, xcomp_bv)


def _contents(s: Session, vcpu: int, held: dict[int, bytes]) -> tuple[int, Named]:
    """A number for all of these contents, and those for which another stands."""
    # tile data that were loaded are in use even if they are all 0
    init = {i: 0 for i, data in held.items() if i != xf.XTILE_DATA and data == initial(i)}
    if held.get(xf.MXCSR, bytes(4))[2:] != bytes(2):
        init[xf.MXCSR] = RESERVED
    distinct = {i: data for i, data in held.items() if i not in init}
    token = s.token(partial(ghost.vcpu_token, vcpu), distinct)
    own = {xf.MXCSR: token} if xf.MXCSR in distinct else {}
    return token, tuple(sorted((init | own).items()))


def _given(edits: dict[str, int]) -> dict[int, bytes]:
    """What set_xsave puts into its image for the components of bv, and for MXCSR."""
    configuration = _low(edits.get("pal", 1), 1) + TILE_CONFIGURATION[1:]
    data = {
        xf.X87: _low(edits.get("fcw", 0x37F), 2) + INITIAL_X87[2:24] + bytes([edits.get("x87", 0) & 0xFF]) * 128,
        xf.MXCSR: _low(edits.get("mxcsr", 0x1F80), 4),
        xf.PKRU: _low(edits.get("pkru", 0), 8),
        xf.XTILE_CFG: configuration if edits.get("cfg", 1) else bytes(64),
    }
    names = {xf.SSE: "sse", xf.YMM: "avx", xf.OPMASK: "opmask", xf.ZMM_HI256: "zmm", xf.HI16_ZMM: "zmm"}
    names[xf.XTILE_DATA] = "tile"
    bv = edits.get("bv", 0) | xf.MASK_MXCSR
    filled = {i: bytes([edits.get(names.get(i, ""), 0) & 0xFF]) * size for i, size in SIZES.items()}
    return {i: data.get(i, filled[i]) for i in SIZES if bv >> i & 1}


def _low(value: int, size: int) -> bytes:
    """So many bytes of a number."""
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def _set_xsave(s: Session, o: Operation, buffer: UserBuffer) -> Iterator[Field]:
    recorded, vcpu, edits = _result(o), s.vcpu, o.settings
    held = _given(edits)
    image = _image(s, vcpu, held, edits.get("xcomp", 0), edits.get("bv", 0) & ~xf.mask_of(*held))
    image = image._replace(reserved=bool(edits.get("rsv")))
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


@translates("get_xsave", "get_xsave_x", "save_xsave")
def get_xsave(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_XSAVE2 into a buffer that is filled with 0xcc before, or into a slot."""
    recorded, vcpu = _result(o), s.vcpu
    size = s.do(xsave.KvmVmCheckXsave2(s.now.task, s.vcpus[vcpu].vm)).ret if "size" in recorded else None
    ret, held, xstate_bv = _read(s)
    if o.op == "save_xsave" and not ret:
        s.slots[o.number(0)] = {i: data for i, data in held.items() if (xstate_bv | xf.MASK_MXCSR) >> i & 1}
    yield Field("ret", returned(recorded), ret)
    if recorded["ret"] or ret:
        return
    if size is not None:
        yield Field("size", recorded["size"], size)
    shown = {"xstate_bv": xstate_bv, "xcomp_bv": 0, "fcw": int.from_bytes(held[xf.X87][:2], "little")}
    for name, value in shown.items():
        if o.op != "save_xsave" or name in recorded:
            yield Field(name, number(recorded[name]), value)
    if "mxcsr" in recorded:
        yield Field("mxcsr", number(recorded["mxcsr"]), int.from_bytes(held[xf.MXCSR], "little"))
    yield from _samples(recorded, held)
    yield from _tiles(s, vcpu, recorded, held)


def _tiles(s: Session, vcpu: int, recorded: Fields, held: dict[int, bytes]) -> Iterator[Field]:
    """Some bytes of the tiles, as far as the kernel has written."""
    if "tile7" not in recorded:
        return
    written = s.kernel.kvm_get_xsave2_size(s.kernel.vcpus[vcpu])
    yield Field("cfg_palette", recorded["cfg_palette"], held[xf.XTILE_CFG][0])
    for name, at in (("tile0_first", 0), ("tile0_last", TILE_SIZE - 1), ("tile7", SIZES[xf.XTILE_DATA] - 1)):
        shown = held[xf.XTILE_DATA][at] if written > _TILES + at else _UNTOUCHED
        yield Field(name, number(recorded[name]), shown)


#: What get_xsave_x and get_fpu_x show of contents: component, first byte in it, bytes.
_SAMPLES = {
    "st0": (xf.X87, 24, 8),
    "xmm0": (xf.SSE, 0, 8),
    "ymmh0": (xf.YMM, 0, 8),
    "k0": (xf.OPMASK, 0, 8),
    "zmmh0": (xf.ZMM_HI256, 0, 8),
    "pkru": (xf.PKRU, 0, 4),
}


def _samples(recorded: Fields, held: dict[int, bytes]) -> Iterator[Field]:
    for name, (component, start, size) in _SAMPLES.items():
        if name in recorded:
            shown = held[component][start : start + size]
            yield Field(name, number(recorded[name]), int.from_bytes(shown, "little"))


@translates("get_xsave1")
def get_xsave1(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_XSAVE."""
    recorded = _result(o)
    yield Field("ret", returned(recorded), s.do(xsave.KvmGetXsave(s.now.task, s.vcpu)).ret)


@translates("load_xsave")
def load_xsave(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_SET_XSAVE from a slot; one that was never written is all zero."""
    recorded, vcpu = _result(o), s.vcpu
    image = _image(s, vcpu, s.slots.get(o.number(0), {}))
    yield Field("ret", returned(recorded), s.do(xsave.KvmSetXsave(s.now.task, vcpu, image)).ret)


# -- the older interface -----------------------------------------------------------------------------------------------


@translates("set_fpu")
def set_fpu(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_SET_FPU."""
    recorded, vcpu, edits = _result(o), s.vcpu, o.settings
    image = FpuImage(*_contents(s, vcpu, _given({**edits, "bv": xf.MASK_FPSSE})))
    yield Field("ret", returned(recorded), s.do(xsave.KvmSetFpu(s.now.task, vcpu, image)).ret)


@translates("get_fpu", "get_fpu_x")
def get_fpu(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_GET_FPU."""
    recorded, vcpu = _result(o), s.vcpu
    result = s.do(xsave.KvmGetFpu(s.now.task, vcpu))
    yield Field("ret", returned(recorded), result.ret)
    if recorded["ret"] or not isinstance(result.out, FpuState):
        return
    held = {i: s.contents.bytes_of(i, token) for i, token in result.out.tokens}
    if "fcw" in recorded:
        yield Field("fcw", number(recorded["fcw"]), int.from_bytes(held[xf.X87][:2], "little"))
    if "mxcsr" in recorded:
        yield Field("mxcsr", number(recorded["mxcsr"]), int.from_bytes(held[xf.MXCSR], "little"))
    yield from _samples(recorded, held)
