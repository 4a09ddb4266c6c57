"""The machine code of the instructions that ops stand for: hand-assembled, a pair of bytes and disassembly each.

Memory operands are at the address in RDI, for a task as for a guest.  SSE and AVX use register 15, which compilers and
C libraries rarely touch.  tests/test_native.py holds the bytes against objdump.
"""

from __future__ import annotations

from typing import NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel.fpu.init import ZEROED

Address = int


class Code(NamedTuple):
    """One instruction: its bytes, and how objdump writes it (AT&T syntax)."""

    data: bytes
    text: str


def _code(hexadecimal: str, text: str) -> Code:
    return Code(bytes.fromhex(hexadecimal), text)


def _imm32(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


_MOV32 = {
    "eax": "b8",
    "ecx": "b9",
    "edx": "ba",
    "esp": "bc",
    "esi": "be",
    "edi": "bf",
    "r14d": "41be",
    "r15d": "41bf",
}


def mov32(register: str, value: int) -> Code:
    """MOV of 32 bits to a register, which clears the upper half."""
    return Code(bytes.fromhex(_MOV32[register]) + _imm32(value), f"mov ${value & 0xFFFFFFFF:#x},%{register}")


def edx_eax(value: int) -> list[Code]:
    """The operand EDX:EAX of XSAVE, WRMSR and others."""
    return [mov32("eax", value), mov32("edx", value >> 32)]


#: Instructions without an immediate, by their names.
PLAIN: dict[str, Code] = {
    code.text.split()[0] if key is None else key: code
    for key, code in (
        (None, _code("dbe3", "fninit")),
        (None, _code("db2f", "fldt (%rdi)")),
        (None, _code("d92f", "fldcw (%rdi)")),
        ("movups", _code("440f103f", "movups (%rdi),%xmm15")),
        ("xorps", _code("450f57ff", "xorps %xmm15,%xmm15")),
        ("vinsertf128", _code("c46305183f01", "vinsertf128 $0x1,(%rdi),%ymm15,%ymm15")),
        ("vextractf128", _code("c4637d193f01", "vextractf128 $0x1,%ymm15,(%rdi)")),
        ("ldtilecfg", _code("c4e2784907", "ldtilecfg (%rdi)")),
        ("sttilecfg", _code("c4e2794907", "sttilecfg (%rdi)")),
        ("tilerelease", _code("c4e27849c0", "tilerelease")),
        ("tilezero", _code("c4e27b49c8", "tilezero %tmm1")),
        ("tileloadd", _code("c4e27b4b0437", "tileloadd (%rdi,%rsi,1),%tmm0")),
        ("tilestored", _code("c4e27a4b0437", "tilestored %tmm0,(%rdi,%rsi,1)")),
        ("ldmxcsr", _code("0fae17", "ldmxcsr (%rdi)")),
        ("stmxcsr", _code("0fae1f", "stmxcsr (%rdi)")),
        ("fxsave64", _code("480fae07", "fxsave64 (%rdi)")),
        ("fxrstor64", _code("480fae0f", "fxrstor64 (%rdi)")),
        ("xsave64", _code("480fae27", "xsave64 (%rdi)")),
        ("xsavec64", _code("480fc727", "xsavec64 (%rdi)")),
        ("xsaves64", _code("480fc72f", "xsaves64 (%rdi)")),
        ("xrstor64", _code("480fae2f", "xrstor64 (%rdi)")),
        ("xrstors64", _code("480fc71f", "xrstors64 (%rdi)")),
        ("wrmsr", _code("0f30", "wrmsr")),
        ("rdmsr", _code("0f32", "rdmsr")),
        ("xsetbv", _code("0f01d1", "xsetbv")),
        ("xgetbv", _code("0f01d0", "xgetbv")),
        ("wrpkru", _code("0f01ef", "wrpkru")),
        ("rdpkru", _code("0f01ee", "rdpkru")),
        ("cpuid", _code("0fa2", "cpuid")),
        ("clts", _code("0f06", "clts")),
        ("hlt", _code("f4", "hlt")),
        ("pause", _code("f390", "pause")),
    )
}
#: EDX:EAX as one number in RAX.
JOIN = [_code("48c1e220", "shl $0x20,%rdx"), _code("4809d0", "or %rdx,%rax")]
#: Set CR0.TS; set and clear CR4.OSXSAVE.
STTS = [_code("0f20c0", "mov %cr0,%rax"), _code("4883c808", "or $0x8,%rax"), _code("0f22c0", "mov %rax,%cr0")]
_FROM_CR4, _TO_CR4 = _code("0f20e0", "mov %cr4,%rax"), _code("0f22e0", "mov %rax,%cr4")
SET_OSXSAVE = [_FROM_CR4, _code("480fbae812", "bts $0x12,%rax"), _TO_CR4]
CLEAR_OSXSAVE = [_FROM_CR4, _code("480fbaf012", "btr $0x12,%rax"), _TO_CR4]
#: The stride of tiles in memory, for TILELOADD and TILESTORED.
STRIDE = mov32("esi", 64)


def loads(instruction: str, token: int) -> list[Code]:
    """The instruction of an op that loads contents from RDI; without a token it leaves the initial configuration."""
    initial = not token
    return {
        "fld": [PLAIN["fninit"], *([] if initial else [PLAIN["fldcw" if token == ZEROED else "fldt"]])],
        "movups": [PLAIN["xorps" if initial else "movups"]],
        "vmovups": [PLAIN["vinsertf128"]],
        "ldtilecfg": [PLAIN["ldtilecfg"]],
        "tileload": [STRIDE, PLAIN["tileloadd"]],
    }[instruction]


#: What stores the contents of a component to RDI, by component.
STORES: dict[int, list[Code]] = {
    xf.YMM: [PLAIN["vextractf128"]],
    xf.XTILE_CFG: [PLAIN["sttilecfg"]],
    xf.XTILE_DATA: [STRIDE, PLAIN["tilestored"]],
}


def out(port: int) -> Code:
    """OUT of AL."""
    return Code(bytes([0xE6, port]), f"out %al,${port:#x}")


def spin(count: int) -> list[Code]:
    """Wait for some milliseconds, so that a tick of the host's timer interrupts the guest."""
    return [
        mov32("ecx", count),
        PLAIN["pause"],
        _code("ffc9", "dec %ecx"),
        _code("75fa", "jne .-0x4"),
    ]


def hold(flag: Address) -> list[Code]:
    """Wait until the host writes the byte at ``flag``."""
    return [
        PLAIN["pause"],
        Code(b"\x80\x3c\x25" + _imm32(flag) + b"\x00", f"cmpb $0x0,{flag:#x}"),
        _code("74f4", "je .-0xa"),
    ]


def begins(slot: Address, after: Address) -> list[Code]:
    """What stands before each instruction: where its result goes, and where the fault handler goes on."""
    return [mov32("r14d", slot), mov32("r15d", after)]


#: What stands behind each: the instruction took effect.
DONE = _code("41c60601", "movb $0x1,(%r14)")
#: RAX, or RBX, is the value that it read.
STORE_RAX, STORE_RBX = _code("49894608", "mov %rax,0x8(%r14)"), _code("49895e08", "mov %rbx,0x8(%r14)")


def fault_handler(vector: int, stack: Address) -> list[Code]:
    """Note the vector in the result of the instruction that faulted, and go on behind it.

    There is no IRET: nothing of the frame is wanted, and emulators of guest code do not all have it.
    """
    return [
        Code(bytes([0x41, 0xC6, 0x46, 0x01, vector]), f"movb ${vector:#x},0x1(%r14)"),
        _code("41c60602", "movb $0x2,(%r14)"),
        mov32("esp", stack),
        _code("41ffe7", "jmp *%r15"),
    ]


def size(codes: list[Code]) -> int:
    """How many bytes they have."""
    return sum(len(code.data) for code in codes)
