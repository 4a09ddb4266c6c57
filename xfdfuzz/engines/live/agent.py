"""What the tasks of a program are on the host: a few instructions that wait for orders and leave other registers alone.

A task reads a byte from its socket, then calls the function that its slot of the shared memory names, with the
registers that stand there, and answers with a byte.  So what runs beside it computes with registers of its own, and
system calls, instructions, forks and signal handlers are all orders.  The code is x86-64's: bytes, and what they mean.
"""

from __future__ import annotations

import struct

#: Where the shared memory lies in every task, and how much of it there is, in bytes.
ARENA, ARENA_SIZE = 0x2000_0000_0000, 0x400_0000
#: Where the agent lies in it, the code that tasks are given (so much for each), and the memory of guests.
CODE, GIVEN, GIVEN_SIZE, GUESTS = 0x8_0000, 0x9_0000, 0x1_0000, 0x100_0000
#: Bytes of a task's slot; that of task 0 is the first.
SLOT = 0x1_0000
#: Descriptors that every task has: the shared memory, the program that it executes, and its socket, plus its number.
ARENA_FD, PROGRAM_FD, FIRST_SOCKET = 110, 111, 100
#: What a function of the agent's returns that has ended in a signal.
FAULTED = -4096

#: Fields of a slot.
TARGET, RAX, RDI, RSI, RDX, R10, R8, R9, RET = range(0, 72, 8)
SOCKET, WAKE, SIGNAL, SIGNAL_CODE, FRAME, UCONTEXT, STACK = range(72, 128, 8)

_AGENT = """
loop:
    8b7b48                mov edi,[rbx+0x48]
    488d7350              lea rsi,[rbx+0x50]
    ba01000000            mov edx,0x1
    31c0                  xor eax,eax
    0f05                  syscall
    83f8fc                cmp eax,0xfffffffc
    74eb                  je loop
    83f801                cmp eax,0x1
    7537                  jne die
    488b4308              mov rax,[rbx+0x8]
    488b7b10              mov rdi,[rbx+0x10]
    488b7318              mov rsi,[rbx+0x18]
    488b5320              mov rdx,[rbx+0x20]
    4c8b5328              mov r10,[rbx+0x28]
    4c8b4330              mov r8,[rbx+0x30]
    4c8b4b38              mov r9,[rbx+0x38]
    ff13                  call [rbx]
answer:
    48894340              mov [rbx+0x40],rax
    8b7b48                mov edi,[rbx+0x48]
    488d7350              lea rsi,[rbx+0x50]
    ba01000000            mov edx,0x1
    b801000000            mov eax,0x1
    0f05                  syscall
    ebaf                  jmp loop
die:
    bf09000000            mov edi,0x9
    b8e7000000            mov eax,0xe7
    0f05                  syscall
syscall:
    0f05                  syscall
return:
    c3                    ret
copy:
    4889d1                mov rcx,rdx
    f3a4                  rep movs es:[rdi],ds:[rsi]
    31c0                  xor eax,eax
    c3                    ret
clone:
    0f05                  syscall
    4885c0                test rax,rax
    7401                  je the child
    c3                    ret
    4c89cb                mov rbx,r9
    eb8b                  jmp loop
sigreturn:
    48899e80000000        mov [rsi+0x80],rbx
    488d6708              lea rsp,[rdi+0x8]
    b80f000000            mov eax,0xf
    0f05                  syscall
longjmp:
    488b6378              mov rsp,[rbx+0x78]
    31c0                  xor eax,eax
    eba9                  jmp answer
handler:
    48897b58              mov [rbx+0x58],rdi
    48896368              mov [rbx+0x68],rsp
    48895370              mov [rbx+0x70],rdx
    31c0                  xor eax,eax
    eb99                  jmp answer
fault:
    48897b58              mov [rbx+0x58],rdi
    8b4608                mov eax,[rsi+0x8]
    48894360              mov [rbx+0x60],rax
    488d0512000000        lea rax,[faulted]
    488982a8000000        mov [rdx+0xa8],rax
    4883c408              add rsp,0x8
    b80f000000            mov eax,0xf
    0f05                  syscall
faulted:
    48c7c000f0ffff        mov rax,0xfffffffffffff000
    c3                    ret
"""

#: The entry of a task's program: argv[0] is its number, as a digit.
_START = """
    488b742408            mov rsi,[rsp+0x8]
    0fb61e                movzx ebx,[rsi]
    83eb30                sub ebx,0x30
    48bf0000000000200000  movabs rdi,0x200000000000
    be00000004            mov esi,0x4000000
    ba07000000            mov edx,0x7
    41ba11000000          mov r10d,0x11
    41b86e000000          mov r8d,0x6e
    4531c9                xor r9d,r9d
    b809000000            mov eax,0x9
    0f05                  syscall
    48c1e310              shl rbx,0x10
    48b90000000000200000  movabs rcx,0x200000000000
    4801cb                add rbx,rcx
    48896378              mov [rbx+0x78],rsp
    48b93800080000200000  movabs rcx,0x200000080038
    31c0                  xor eax,eax
    ffe1                  jmp rcx
"""


def assemble(listing: str) -> tuple[bytes, dict[str, int]]:
    """The bytes of a listing, and where its labels are."""
    code, labels = bytearray(), {}
    for line in listing.split("\n"):
        if line.endswith(":"):
            labels[line[:-1]] = len(code)
        elif line:
            code += bytes.fromhex(line.split()[0])
    return bytes(code), labels


AGENT, LABELS = assemble(_AGENT)


def address(label: str) -> int:
    """Where a function of the agent's is in a task's memory."""
    return ARENA + CODE + LABELS[label]


def program() -> bytes:
    """The program that a task executes: a static ELF file of one page that maps the shared memory and goes there."""
    base, headers = 0x40_0000, 64 + 2 * 56
    code = assemble(_START)[0]
    size = headers + len(code)
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 2, 0, 0, 0,
    )  # fmt: skip
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
    return elf + load + stack + code
