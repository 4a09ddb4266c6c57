"""What a guest finds, and in what two guests differ: all that they can read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.invariants.vocabulary import component_site
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import VECTORS, Vcpu
from xfdfuzz.program.ghost import content
from xfdfuzz.program.step import format_ret


class GuestState(NamedTuple):
    """What a guest finds when it is entered: ``entry`` is the result of that, the rest is empty if it did not work.

    ``registers`` are components, MXCSR and CET's registers, and their contents.  ``exception`` is what it gets at once,
    ``l2`` that it goes on in its own guest.
    """

    entry: int | str
    osxsave: bool = False
    ts: bool = False
    pke: bool = False
    xcr0: int = 0
    xss: int = 0
    xfd: int = 0
    xfd_err: int = 0
    registers: tuple[tuple[int, int], ...] = ()
    exception: int = 0
    l2: bool = False


def differences(
    one: GuestState, other: GuestState, site: Callable[[int], str] = component_site
) -> Iterator[tuple[str, str]]:
    """(site, what differs) for each part that is not the same; ``site`` is that of a component."""
    if one.entry != other.entry:
        yield "entry", f"VM entry: {format_ret(one.entry)} and {format_ret(other.entry)}"
        return
    if one.l2 != other.l2:
        yield "nested", f"L{one.l2 + 1:d} goes on and L{other.l2 + 1:d}"
    if one.osxsave != other.osxsave:
        yield "cr4", f"CR4.OSXSAVE = {one.osxsave:d} and {other.osxsave:d}"
    if one.pke != other.pke:
        yield "cr4", f"CR4.PKE = {one.pke:d} and {other.pke:d}"
    if one.ts != other.ts:
        yield "cr0", f"CR0.TS = {one.ts:d} and {other.ts:d}"
    if one.exception != other.exception:
        names = {0: "none"} | VECTORS
        yield "exception", f"the exception that it gets at once is {names[one.exception]} and {names[other.exception]}"
    for name in ("xcr0", "xss", "xfd", "xfd_err"):
        a, b = getattr(one, name), getattr(other, name)
        if a != b:
            text = xf.format_mask if name in ("xcr0", "xss") else hex
            yield name, f"{name.upper()} = {text(a)} and {text(b)}"
    for (i, a), (j, b) in zip(one.registers, other.registers, strict=False):
        if i == j and a != b:
            yield site(i), f"{xf.CONTENTS[i]} = {content(a)} and {content(b)}"


def visible_components(k: Kernel, vcpu: Vcpu) -> int:
    """What the guest can have in registers, with MXCSR and what of CET its CPUID has; PKRU has a way of its own."""
    if k.guest_cpu_cap_has_shstk(vcpu):
        cet = xf.MASK_CET_REGISTERS
    else:
        cet = xf.MASK_IBT_REGISTERS if k.guest_cpu_cap_has_ibt(vcpu) else 0
    components = vcpu.arch.guest_supported_xcr0 | vcpu.arch.guest_supported_xss & ~xf.MASK_CET
    return (components | cet | xf.MASK_FPSSE | xf.MASK_MXCSR) & ~xf.MASK_PKRU
