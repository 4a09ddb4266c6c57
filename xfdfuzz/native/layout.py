"""The memory of a guest: flat 64-bit mode, ring 0, everything mapped one to one.

Each vCPU has a block of its own, :data:`BLOCK` bytes from ``base(nr)``, with its page tables, GDT, IDT, handlers,
stack, results, code and operands, so that vCPUs of one VM do not meet.
"""

from __future__ import annotations

from xfdfuzz.native import assembler

BLOCK = 0x400000
#: All of a VM's memory: a block for each vCPU that a program can have.
MEMORY = 4 * BLOCK
#: Offsets in a block.  PD maps :data:`MEMORY` by pages of 2 MiB.
GDT, IDT, HANDLERS, PML4, PDPT, PD, STACK, RESULTS, FLAGS, CODE, CONTENTS, IMAGES = (
    0x1000,
    0x2000,
    0x3000,
    0x4000,
    0x5000,
    0x6000,
    0x8000,
    0x9000,
    0xC000,
    0x10000,
    0x40000,
    0x100000,
)
#: Bytes of a result: status (0 not reached, 1 done, 2 faulted), vector, then at 8 the value that was read.
RESULT_SIZE = 16
#: What an operand takes: contents of a component, or a whole image.
CONTENT_SIZE, IMAGE_SIZE = 0x400, 0x4000
VECTORS, HANDLER_SIZE = 32, 32
CODE_SELECTOR, DATA_SELECTOR = 8, 16
#: Control registers: PE, ET, NE, PG; PAE, OSFXSR, OSXMMEXCPT, and OSXSAVE where the vCPU has it; LME, LMA.
CR0, CR0_TS, CR4, CR4_OSXSAVE, EFER = 0x80000031, 1 << 3, 0x620, 1 << 18, 0x500
#: OUT to these: the guest has an OUT in the program; it has come to the end of its code.
PORT_OUT, PORT_DONE = 0x10, 0x11
_PRESENT_WRITABLE, _LARGE = 0x3, 0x80


def base(vcpu: int) -> int:
    """The first address of a vCPU's block."""
    return vcpu * BLOCK


def tables(vcpu: int) -> dict[int, bytes]:
    """Page tables, GDT, IDT and handlers of a vCPU: guest physical address to bytes."""
    start = base(vcpu)
    directory = [page << 21 | _PRESENT_WRITABLE | _LARGE for page in range(MEMORY >> 21)]
    return {
        start + GDT: _words([0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF]),
        start + IDT: b"".join(_gate(start + HANDLERS + nr * HANDLER_SIZE) for nr in range(VECTORS)),
        start + HANDLERS: b"".join(handler(vcpu, nr).ljust(HANDLER_SIZE, b"\xcc") for nr in range(VECTORS)),
        start + PML4: _words([start + PDPT | _PRESENT_WRITABLE]),
        start + PDPT: _words([start + PD | _PRESENT_WRITABLE]),
        start + PD: _words(directory),
    }


def handler(vcpu: int, vector: int) -> bytes:
    """The handler of a vector."""
    return b"".join(code.data for code in assembler.fault_handler(vector, base(vcpu) + STACK))


def _gate(address: int) -> bytes:
    """An interrupt gate of 64-bit mode, present, DPL 0."""
    low, middle, high = address & 0xFFFF, address >> 16 & 0xFFFF, address >> 32
    return _words([low | CODE_SELECTOR << 16 | 0x8E00 << 32 | middle << 48, high])


def _words(values: list[int]) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)
