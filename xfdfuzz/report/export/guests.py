"""The code of guests, and the memory that it uses, in C."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import MXCSR_RESERVED
from xfdfuzz.kernel.fpu.init import PKRU_DEFAULT, ZEROED
from xfdfuzz.native import assembler, layout
from xfdfuzz.native.assembler import Code
from xfdfuzz.native.contents import SAMPLES, mxcsr, pattern
from xfdfuzz.native.guestcode import Insn, Stream
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import Named, UserImage
from xfdfuzz.program.text import format_op

_COLUMN = 40
#: Components as C names them; the others go by their numbers.
COMPONENTS = {0: "X87", 1: "SSE", 2: "AVX", 9: "PKRU", 17: "XTILECFG", 18: "XTILEDATA", xf.MXCSR: "MXCSR"}
#: Tokens that are nobody's.
_SPECIAL = {PKRU_DEFAULT: "LINUX_PKRU_TOKEN", ZEROED: "ZERO", MXCSR_RESERVED: "RESERVED"}


def number_of(stream: Stream, insn: Insn) -> int:
    """The number of an instruction's result."""
    return (insn.slot - layout.base(stream.vcpu) - layout.RESULTS) // layout.RESULT_SIZE


def token(value: int) -> str:
    """A token of contents as C writes it."""
    if not value:
        return "INIT"
    owner, number = ghost.owner(value), value & 7
    if not owner:
        return _SPECIAL[value]
    first = ghost.owner(ghost.vcpu_token(0, 0))
    return f"V({owner - first}, {number})" if owner >= first else f"T({owner - 1}, {number})"


def lines(streams: Sequence[Stream]) -> Iterator[str]:
    """What all vCPUs execute, and the function that puts it into their memory."""
    yield "/* Where the result goes and where a fault goes on: mov $result,%r14d; mov $next,%r15d */"
    yield "#define BEGIN(result, next) 0x41, 0xbe, U32(result), 0x41, 0xbf, U32(next)"
    if any(assembler.DONE in insn.code for stream in streams for insn in stream.insns):
        yield "#define DONE 0x41, 0xc6, 0x06, 0x01 /* movb $0x1,(%r14) */"
    for stream in streams:
        yield ""
        yield f"static const unsigned char code_of_v{stream.vcpu}[] = {{"
        for insn in stream.insns:
            yield from _insn(stream, insn)
        yield "};"
    yield ""
    yield from _load(streams)


def _insn(stream: Stream, insn: Insn) -> Iterator[str]:
    what = insn.what or (format_op(insn.op) if insn.op else "")
    yield f"\t/* result {number_of(stream, insn)}: {what} */"
    first, second, *body = insn.code
    result, after = (int.from_bytes(code.data[2:], "little") for code in (first, second))
    yield f"\tBEGIN({result:#x}, {after:#x}),"
    for code in body:
        yield "\tDONE," if code == assembler.DONE else _bytes(code)


def _bytes(code: Code) -> str:
    left = "\t" + " ".join(f"{byte:#04x}," for byte in code.data)
    return f"{left:<{_COLUMN}}\t/* {code.text} */"


def _load(streams: Sequence[Stream]) -> Iterator[str]:
    yield "static void load_guest(int vcpu)"
    yield "{"
    for stream in streams:
        code = f"code_of_v{stream.vcpu}"
        yield f"\tif (vcpu == {stream.vcpu}) {{" if len(streams) > 1 else "\t(void)vcpu;"
        indent = "\t\t" if len(streams) > 1 else "\t"
        start = layout.base(stream.vcpu) + layout.CODE
        yield f"{indent}memcpy(guest_memory({stream.vcpu}, {start:#x}), {code}, sizeof({code}));"
        for text in dict.fromkeys(_operands(stream)):
            yield indent + text
        if len(streams) > 1:
            yield "\t}"
    yield "}"


def _operands(stream: Stream) -> Iterator[str]:
    for insn in stream.insns:
        operand = insn.operand
        if operand is None:
            continue
        where = f"guest_memory({stream.vcpu}, {operand.address:#x})"
        if operand.restored is not None:
            op = operand.restored
            named = ((xf.MXCSR, op.mxcsr),) if op.mxcsr else ()
            held = image(UserImage(op.xstate_bv, op.token, named, op.xcomp_bv), partial(ghost.vcpu_token, stream.vcpu))
            yield f"fill_image({where}, {operand.size:#x}, {held});"
        elif any(operand.data):
            component, value = _contents(operand.data)
            yield f"put_sample({where}, {component}, {token(value)});"


def _contents(data: bytes) -> tuple[str, int]:
    """Which component and token these bytes are."""
    if len(data) == 4:
        return "MXCSR", next(t for t in (0, *_tokens()) if mxcsr(t) == int.from_bytes(data, "little"))
    return next(
        (name, value)
        for component, name in COMPONENTS.items()
        if component in SAMPLES and SAMPLES[component][1] == len(data)
        for value in _tokens()
        if pattern(component, value) == data
    )


def _tokens() -> list[int]:
    return [ghost.vcpu_token(nr, number) for nr in range(3) for number in range(1, 8)]


def image(held: UserImage, owner: Callable[[int], int]) -> str:
    """An image as C has it: the content number n of its owner's is ``owner(n)``."""
    fields = [f".bv = {held.xstate_bv:#x}"]
    fields += [f".token = {token(owner(held.data))}"] if held.data else []
    fields += [f".named = {_named(held.contents, owner)}"] if held.contents else []
    fields += [f".xcomp_bv = {held.xcomp_bv:#x}"] if held.xcomp_bv else []
    fields += [".reserved = true"] * held.reserved
    return f"&(struct image){{ {', '.join(fields)} }}"


def _named(named: Named, owner: Callable[[int], int]) -> str:
    return content_list((i, ghost.contents_of(number, owner)) for i, number in named)


def content_list(held: Iterable[tuple[int, int]]) -> str:
    """Components with their tokens."""
    rows = [f"{{ {COMPONENTS.get(i, i)}, {token(value)} }}, " for i, value in held]
    return f"(struct content[]){{ {''.join(rows)}{{ -1, 0 }} }}"
