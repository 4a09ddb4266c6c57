"""XSAVE images as a host has them: made from what a program says of one, and read back as contents.

Contents are the samples of :mod:`xfdfuzz.native.contents`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import SAPPHIRE_RAPIDS
from xfdfuzz.arch.xsave import MXCSR_RESERVED, XCOMP_BV_COMPACTED
from xfdfuzz.kernel.fpu.init import ZEROED
from xfdfuzz.native.contents import SAMPLES, mxcsr, mxcsr_token, pattern, token_of
from xfdfuzz.program.fields import RESERVED, FpuImage, UserImage
from xfdfuzz.program.ops import guest, tasks
from xfdfuzz.program.step import FpuState, Image

#: The token of bytes that nobody has written.
UNKNOWN = 255
#: All that there can be in an image, in bytes, and its header.
SIZE, HEADER = SAPPHIRE_RAPIDS.standard_size(xf.U64_MAX), slice(512, 576)
MXCSR = slice(24, 28)
#: Of x87 the control words and the registers, of SSE the registers.
_X87, _ST, _XMM = slice(0, 24), slice(32, 160), slice(160, 416)


def x87(token: int) -> tuple[bytes, bytes]:
    """Control words and registers of x87: as FNINIT leaves them, or with a number in ST0."""
    control = struct.pack("<HHBxHQQ", 0x37F, *((0x3800, 0x80) if token else (0, 0)), 0, 0, 0)
    return control, (pattern(xf.X87, token) if token else b"").ljust(128, b"\0")


def sse(token: int) -> bytes:
    """XMM0 to XMM15."""
    place = SAMPLES[xf.SSE][0] - _XMM.start
    return (bytes(place) + pattern(xf.SSE, token)).ljust(256, b"\0")


def held(wanted: UserImage, owner: Callable[[int], int]) -> dict[int, int]:
    """What a program's image says of each component, and of MXCSR, as tokens of the ``owner``'s."""
    numbers = dict.fromkeys(xf.components_in(wanted.xstate_bv), wanted.data) | {xf.MXCSR: 0} | dict(wanted.contents)
    return {i: _token_of(number, owner) for i, number in numbers.items()}


def _token_of(number: int, owner: Callable[[int], int]) -> int:
    if number == RESERVED:
        return MXCSR_RESERVED
    return owner(number) if number else 0


def made(wanted: UserImage, owner: Callable[[int], int]) -> bytes:
    """The standard-format image that a program describes."""
    tokens = held(wanted, owner)
    data = bytearray(SIZE)
    data[_X87], data[_ST] = x87(tokens.get(xf.X87, 0))
    data[_XMM] = sse(tokens.get(xf.SSE, 0))
    data[MXCSR] = mxcsr(tokens[xf.MXCSR]).to_bytes(4, "little")
    struct.pack_into("<QQQ", data, HEADER.start, wanted.xstate_bv, wanted.xcomp_bv, 1 if wanted.reserved else 0)
    for i, content in tokens.items():
        if i in SAMPLES and i > xf.SSE:
            place = SAPPHIRE_RAPIDS.components[i].offset + SAMPLES[i][0]
            data[place : place + SAMPLES[i][1]] = pattern(i, content)
    return bytes(data)


def restored(op: guest.GuestXrstor | tasks.UserXrstor, owner: Callable[[int], int]) -> bytes:
    """What an XRSTOR reads."""
    image = made(UserImage(op.xstate_bv, op.token, ((xf.MXCSR, op.mxcsr),), op.xcomp_bv), owner)
    if not op.xcomp_bv & XCOMP_BV_COMPACTED:
        return image
    return image[: HEADER.stop] + moved(image, op.xcomp_bv, to_compacted=True)[HEADER.stop :]


def moved(image: bytes, xcomp_bv: int, *, to_compacted: bool) -> bytes:
    """The components from where one of the formats has them to where the other does."""
    found = bytearray(image[: HEADER.stop].ljust(SIZE, b"\0"))
    for i in xf.components_in(xcomp_bv & ~xf.MASK_FPSSE):
        known = SAPPHIRE_RAPIDS.components.get(i)
        if known is not None and not known.supervisor:
            places = known.offset, SAPPHIRE_RAPIDS.compacted_offset(xcomp_bv, i)
            source, target = places if to_compacted else places[::-1]
            found[target : target + known.size] = image[source : source + known.size]
    return bytes(found)


def fpu(wanted: FpuImage, owner: Callable[[int], int]) -> dict[int, int]:
    """What a program gives the legacy region, as tokens."""
    numbers = {xf.X87: wanted.data, xf.SSE: wanted.data, xf.MXCSR: 0} | dict(wanted.contents)
    return {i: _token_of(number, owner) for i, number in numbers.items()}


def legacy(tokens: dict[int, int]) -> bytes:
    """The 512 bytes that FXSAVE stores."""
    data = bytearray(512)
    data[_X87], data[_ST] = x87(tokens[xf.X87])
    data[_XMM] = sse(tokens[xf.SSE])
    data[MXCSR] = mxcsr(tokens[xf.MXCSR]).to_bytes(4, "little")
    return bytes(data)


def read(data: bytes) -> Image:
    """What a standard-format image holds."""
    xstate_bv, xcomp_bv = struct.unpack_from("<QQ", data, HEADER.start)
    tokens = tuple((i, _token(data, i)) for i in xf.components_in(xstate_bv))
    control = mxcsr_in(data[MXCSR])
    return Image(xstate_bv, (*tokens, (xf.MXCSR, control)) if control else tokens, xcomp_bv)


def read_legacy(data: bytes) -> FpuState:
    """What the legacy region holds."""
    tokens = {xf.X87: _token(data, xf.X87), xf.SSE: _token(data, xf.SSE), xf.MXCSR: mxcsr_in(data[MXCSR])}
    return FpuState(tuple(tokens.items()))


def mxcsr_in(data: bytes) -> int:
    """The token of MXCSR."""
    found = mxcsr_token(int.from_bytes(data, "little"))
    return UNKNOWN if found is None else found


def _token(data: bytes, i: int) -> int:
    if i == xf.X87:
        return x87_token(data[_X87], data[_ST])
    if i == xf.SSE:
        return sse_token(data[_XMM])
    if i not in SAMPLES:
        return 0
    place = SAPPHIRE_RAPIDS.components[i].offset + SAMPLES[i][0]
    sample = data[place : place + SAMPLES[i][1]]
    return token_in(i, sample) if len(sample) == SAMPLES[i][1] else 0


def token_in(component: int, sample: bytes) -> int:
    """The token of a component's sample."""
    found = token_of(component, sample)
    return UNKNOWN if found is None else found


def x87_token(control: bytes, registers: bytes) -> int:
    """The token of x87: what is in ST0 counts where a tag says so, for FNINIT leaves it there."""
    fcw, _, tags = struct.unpack_from("<HHB", control)
    if tags:
        return token_in(xf.X87, registers[: SAMPLES[xf.X87][1]])
    if fcw == 0x37F:
        return 0
    # a bit of FCW is always set (SDM vol. 1, 8.1.5): 0 is read back as 0x40
    return ZEROED if fcw in (0, 0x40) and not any(control[2:]) else UNKNOWN


def sse_token(registers: bytes) -> int:
    """The token of SSE, by XMM15."""
    place = SAMPLES[xf.SSE][0] - _XMM.start
    return token_in(xf.SSE, registers[place : place + SAMPLES[xf.SSE][1]])


def places(mask: int) -> list[slice]:
    """Where the components of a mask lie in a standard-format image."""
    found = [_X87, _ST] if mask & xf.MASK_X87 else []
    found += [_XMM] if mask & xf.MASK_SSE else []
    known = (SAPPHIRE_RAPIDS.components[i] for i in xf.components_in(mask) if i in SAPPHIRE_RAPIDS.components)
    return found + [slice(one.offset, one.offset + one.size) for one in known if not one.supervisor]
