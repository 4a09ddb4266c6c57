"""Images in the caller's memory, as programs write them: their bytes, and what of them nobody looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import HEADER_END, CpuidTable
from xfdfuzz.arch.xsave import XsaveArea
from xfdfuzz.kernel.fpu.init import FXSAVE_SIZE, ZEROED
from xfdfuzz.kernel.fpu.signal import FP_XSTATE_MAGIC2_SIZE, components_at_magic2
from xfdfuzz.kernel.kvm.xsave import KvmFpu
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import SigFrame
from xfdfuzz.memory.cstruct import assign
from xfdfuzz.program.fields import RESERVED, FpuChange, FpuImage, ImageChange, Named, UserImage
from xfdfuzz.program.ghost import contents_of

#: An owner's content by its number.
Owner = Callable[[int], int]


def write(area: XsaveArea, image: UserImage, owner: Owner) -> None:
    """Write the image over what is there; where it says nothing of a component, that stays."""
    area.xstate_bv, area.xcomp_bv, area.reserved = image.xstate_bv, image.xcomp_bv, image.reserved
    for i in xf.components_in(image.xstate_bv):
        area.data[i] = contents_of(image.data, owner)
    for i, content in ((xf.MXCSR, 0), *image.contents):
        area.data[i] = contents_of(content, owner)


def size_of(contents: Named, xstate_bv: int, cpuid: CpuidTable) -> int:
    """Where the last of these components ends in an image, in bytes, or its header."""
    return cpuid.standard_size(xstate_bv | xf.mask_of(*(i for i, _ in contents)))


def write_frame(frame: SigFrame, image: UserImage, owner: Owner, cpuid: CpuidTable) -> None:
    """The same of a signal frame's image; a second magic that stands in what is written is no more."""
    write(frame.area, image, owner)
    _was_written(frame, image.xstate_bv | xf.mask_of(*(i for i, _ in image.contents)), cpuid)


def fill_frame(frame: SigFrame, area: XsaveArea, cpuid: CpuidTable) -> None:
    """A whole image is copied there, with its header; likewise."""
    assign(frame.area, area)
    _was_written(frame, area.xstate_bv, cpuid)


def _was_written(frame: SigFrame, components: int, cpuid: CpuidTable) -> None:
    """The header is the task's, and so are these components."""
    frame.legacy = 0
    if components_at_magic2(frame.magic2, cpuid) & components:
        frame.magic2 = 0


def area_of(image: UserImage, owner: Owner) -> XsaveArea:
    """The image in memory of its own."""
    area = XsaveArea()
    write(area, image, owner)
    return area


def change(area: XsaveArea, made: ImageChange, owner: Owner) -> None:
    """Write what is changed over an image that was read."""
    area.xstate_bv = made.bits(area.xstate_bv)
    for i, content in made.contents:
        area.data[i] = contents_of(content, owner)


def change_frame(frame: SigFrame, made: ImageChange, owner: Owner, cpuid: CpuidTable) -> None:
    """The same of a signal frame's image, whose header is the kernel's as long as the task does not write it."""
    change(frame.area, made, owner)
    legacy = frame.legacy
    _was_written(frame, xf.mask_of(*(i for i, _ in made.contents)), cpuid)
    if not made.clear | made.set:
        frame.legacy = legacy


def change_fpu(fpu: KvmFpu, made: FpuChange, owner: Owner) -> KvmFpu:
    """The same of a struct kvm_fpu."""
    held = dict(zip(xf.LEGACY, fpu, strict=True)) | {i: contents_of(content, owner) for i, content in made.contents}
    return KvmFpu(*held.values())


def fpu_of(image: FpuImage, owner: Owner) -> KvmFpu:
    """The struct kvm_fpu that KVM_SET_FPU gets."""
    held = {xf.X87: image.data, xf.SSE: image.data, xf.MXCSR: 0} | dict(image.contents)
    return KvmFpu(*(contents_of(held[i], owner) for i in xf.LEGACY))


def legacy_of(image: FpuImage, owner: Owner) -> XsaveArea:
    """The same as the legacy region of an image."""
    area = XsaveArea()
    for i, token in zip(xf.LEGACY, fpu_of(image, owner), strict=True):
        area.data[i] = token
    return area


#: Where x87 and SSE end in the legacy region, in bytes, and where MXCSR does.
_LEGACY_ENDS = {xf.X87: 160, xf.SSE: 416, xf.MXCSR: 28}


def lost(size: int, cpuid: CpuidTable) -> int:
    """The components, and MXCSR, that a copy of the first ``size`` bytes of an image lacks, or has a part of only."""
    ends = {i: component.offset + component.size for i, component in cpuid.components.items()} | _LEGACY_ENDS
    return xf.mask_of(*(i for i, end in ends.items() if end > size))


def cut_area(area: XsaveArea, size: int, cpuid: CpuidTable) -> None:
    """Leave the first ``size`` bytes of an image and zeros behind; what is cut in two counts as lost."""
    behind = lost(size, cpuid)
    for i in xf.CONTENTS:
        if behind >> i & 1:
            area.data[i] = ZEROED if i in (xf.X87, xf.MXCSR) else 0
    if size < HEADER_END:
        area.xstate_bv = area.xcomp_bv = area.reserved = 0


def cut(frame: SigFrame, size: int, cpuid: CpuidTable) -> None:
    """The same of a signal frame."""
    cut_area(frame.area, size, cpuid)
    if size < HEADER_END:
        frame.legacy = 0
    if size < FXSAVE_SIZE:
        frame.magic1 = frame.extended_size = frame.xfeatures = frame.xstate_size = 0
    if size < frame.magic2 + FP_XSTATE_MAGIC2_SIZE:
        frame.magic2 = 0


def copy(source: SigFrame, target: SigFrame) -> None:
    """Give a signal frame the image of another one, and what surrounds it."""
    for name in ("magic1", "magic2", "extended_size", "xstate_size", "xfeatures", "fsave", "legacy"):
        setattr(target, name, getattr(source, name))
    assign(target.area, source.area)


def has_reserved_mxcsr(contents: Named) -> bool:
    """Whether reserved bits of MXCSR are set."""
    return (xf.MXCSR, RESERVED) in contents


def idle(image: UserImage, machine: Machine) -> Iterator[str]:
    """What of an image has no effect where the kernel takes it over, and why."""
    named = xf.mask_of(*(i for i, _ in image.contents))
    read = image.xstate_bv if machine.xsave else xf.MASK_FPSSE
    if image.data and not image.xstate_bv & read & ~named:
        lacks = "XSTATE_BV has no component" if not image.xstate_bv else "all that it could fill is named or not read"
        yield f"data: has no effect: {lacks}"
    for i, content in image.contents:
        if i == xf.MXCSR:
            # it lies among x87's bytes: it is checked with these, and XRSTOR loads what was copied, XRSTORS not
            with_x87 = content == RESERVED or not machine.has_xsaves
            if machine.xsave and not image.xstate_bv & (xf.MASK_WITH_MXCSR | (xf.MASK_X87 if with_x87 else 0)):
                lacks = "none of x87, sse and avx" if with_x87 else "neither sse nor avx"
                yield f"mxcsr: has no effect: XSTATE_BV has {lacks}"
        elif not read >> i & 1:
            why = "XSTATE_BV lacks it" if machine.xsave else "a kernel without XSAVE reads the legacy region"
            yield f"{xf.NAMES[i]}: has no effect: {why}"


def idle_change(made: ImageChange) -> Iterator[str]:
    """The same of what is changed in one."""
    for i, _ in made.contents:
        if i != xf.MXCSR and made.clear & ~made.set & 1 << i:
            yield f"{xf.NAMES[i]}: has no effect: XSTATE_BV lacks it"


def idle_fpu(image: FpuImage) -> Iterator[str]:
    """The same of struct kvm_fpu and struct user_fpregs."""
    if image.data and {xf.X87, xf.SSE} <= dict(image.contents).keys():
        yield "data: has no effect: all that it could fill is named"


def idle_in_xrstor(mask: int, xstate_bv: int, token: int) -> Iterator[str]:
    """The same where the processor takes an image over: it loads what both the mask and XSTATE_BV have."""
    if token and not mask & xstate_bv:
        yield f"{token}: has no effect: XSTATE_BV has nothing of what is asked for, which is initialised"
