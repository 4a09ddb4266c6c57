"""Guests whose registers the processor, or its firmware, keeps from the host: entry and exit.

AMD SEV-ES loads and saves them with VMRUN (APM vol. 2, 15.35); Intel's TDX module does so around a TD, and leaves XCR0,
IA32_XSS and PKRU as they come (Intel TDX module ABI, TDH.VP.ENTER).
"""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import CpuRegs, load_component
from xfdfuzz.memory.cstruct import assign, copy_of


def swap(regs: CpuRegs, vmsa: CpuRegs) -> None:
    """VM entry: the guest's registers are loaded, and ``vmsa`` keeps the host's until the exit."""
    held = copy_of(regs)
    assign(regs, vmsa)
    assign(vmsa, held)
    # that is no register, but what this processor calls in use
    regs.always_in_use, vmsa.always_in_use = held.always_in_use, 0


def leave(regs: CpuRegs, vmsa: CpuRegs, clobbered: int | None) -> None:
    """VM exit: the guest's registers are kept, and those that XSAVE manages initial, so that the host sees none.

    The host's XCR0, IA32_XSS, XFD, LBRs and PKRU are back, but of a TD, whose ``clobbered`` is what XCR0 holds then.
    """
    swap(regs, vmsa)
    pkru = regs.data[xf.PKRU]
    for i in xf.CONTENTS:
        if i != xf.LBR:
            load_component(regs, i, 0)
    regs.error_pointers = 0
    if clobbered is None:
        load_component(regs, xf.PKRU, pkru)
    else:
        regs.xcr0, regs.xss = clobbered, 0
