"""XSAVE images as a host has them: made from what a program says of one, and read back as contents.

Contents are the samples of :mod:`xfdfuzz.native.contents`, and lie where the host's processor has them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import SAPPHIRE_RAPIDS, CpuidTable
from xfdfuzz.arch.xsave import XCOMP_BV_COMPACTED
from xfdfuzz.kernel.fpu.init import ZEROED
from xfdfuzz.native.contents import SAMPLES, mxcsr, mxcsr_token, pattern, token_of
from xfdfuzz.program.fields import FpuImage, UserImage
from xfdfuzz.program.ghost import contents_of
from xfdfuzz.program.ops import guest, tasks
from xfdfuzz.program.step import FpuState, Image

#: The token of bytes that nobody has written.
UNKNOWN = 255
#: All that there can be in an image, in bytes (no layout is larger than this one), and its header.
SIZE, HEADER = SAPPHIRE_RAPIDS.standard_size(xf.U64_MAX), slice(512, 576)
MXCSR, XCOMP_BV = slice(24, 28), slice(520, 528)
#: Of x87 the control words and the registers, of SSE the registers.
_X87, _ST, _XMM = slice(0, 24), slice(32, 160), slice(160, 416)


def x87(token: int) -> tuple[bytes, bytes]:
    """Control words and registers of x87: as FNINIT leaves them, or with a number in ST0, or without a bit."""
    if token == ZEROED:
        return bytes(24), bytes(128)
    control = struct.pack("<HHBxHQQ", 0x37F, *((0x3800, 0x80) if token else (0, 0)), 0, 0, 0)
    return control, (pattern(xf.X87, token) if token else b"").ljust(128, b"\0")


def sse(token: int) -> bytes:
    """XMM0 to XMM15."""
    place = SAMPLES[xf.SSE][0] - _XMM.start
    return (bytes(place) + pattern(xf.SSE, token)).ljust(256, b"\0")


def held(wanted: UserImage, owner: Callable[[int], int]) -> dict[int, int]:
    """What a program's image says of each component, and of MXCSR, as tokens of the ``owner``'s."""
    numbers = dict.fromkeys(xf.components_in(wanted.xstate_bv), wanted.data) | {xf.MXCSR: 0} | dict(wanted.contents)
    return {i: contents_of(number, owner) for i, number in numbers.items()}


def fpu(wanted: FpuImage, owner: Callable[[int], int]) -> dict[int, int]:
    """What a program gives the legacy region, as tokens."""
    numbers = {xf.X87: wanted.data, xf.SSE: wanted.data, xf.MXCSR: 0} | dict(wanted.contents)
    return {i: contents_of(number, owner) for i, number in numbers.items()}


def legacy(tokens: dict[int, int]) -> bytes:
    """The 512 bytes that FXSAVE stores."""
    data = bytearray(512)
    data[_X87], data[_ST] = x87(tokens[xf.X87])
    data[_XMM] = sse(tokens[xf.SSE])
    data[MXCSR] = mxcsr(tokens[xf.MXCSR]).to_bytes(4, "little")
    return bytes(data)


def read_legacy(data: bytes) -> FpuState:
    """What the legacy region holds."""
    tokens = {xf.X87: x87_token(data[_X87], data[_ST]), xf.SSE: sse_token(data[_XMM]), xf.MXCSR: mxcsr_in(data[MXCSR])}
    return FpuState(tuple(tokens.items()))


def mxcsr_in(data: bytes) -> int:
    """The token of MXCSR."""
    found = mxcsr_token(int.from_bytes(data, "little"))
    return UNKNOWN if found is None else found


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


class Images:
    """Images in the layout that one kind of processor has."""

    def __init__(self, cpuid: CpuidTable) -> None:
        self.cpuid = cpuid

    def made(self, wanted: UserImage, owner: Callable[[int], int]) -> bytes:
        """The standard-format image that a program describes; what the processor does not have is not in it."""
        tokens = held(wanted, owner)
        data = bytearray(SIZE)
        data[_X87], data[_ST] = x87(tokens.get(xf.X87, 0))
        data[_XMM] = sse(tokens.get(xf.SSE, 0))
        data[MXCSR] = mxcsr(tokens[xf.MXCSR]).to_bytes(4, "little")
        struct.pack_into("<QQQ", data, HEADER.start, wanted.xstate_bv, wanted.xcomp_bv, 1 if wanted.reserved else 0)
        for i, content in tokens.items():
            place = self._sample(i)
            if place is not None:
                data[place] = pattern(i, content)
        return bytes(data)

    def restored(
        self, op: guest.GuestXrstor | guest.GuestXrstors | tasks.UserXrstor, owner: Callable[[int], int]
    ) -> bytes:
        """What an XRSTOR reads."""
        wanted = UserImage(op.xstate_bv, op.token, ((xf.MXCSR, op.mxcsr),), op.xcomp_bv)
        return self.compacted(self.made(wanted, owner), op.xcomp_bv)

    def _sample(self, i: int) -> slice | None:
        """Where the sample of a component lies, if that is behind the header."""
        if i not in SAMPLES or i not in self.cpuid.components:
            return None
        start = self.cpuid.components[i].offset + SAMPLES[i][0]
        return slice(start, start + SAMPLES[i][1])

    def read(self, data: bytes) -> Image:
        """What a standard-format image holds."""
        xstate_bv, xcomp_bv = struct.unpack_from("<QQ", data, HEADER.start)
        tokens = tuple((i, self._token(data, i)) for i in xf.components_in(xstate_bv))
        control = mxcsr_in(data[MXCSR])
        return Image(xstate_bv, (*tokens, (xf.MXCSR, control)) if control else tokens, xcomp_bv)

    def stored(self, data: bytes, whole: bool) -> Image:
        """What an image holds that XSAVE or XSAVEC stored, or FXSAVE, which writes no header."""
        header = b"" if whole else struct.pack("<Q", xf.MASK_FPSSE) + bytes(56)
        return self.read(self.standard(data[: HEADER.start] + header if header else data))

    def _token(self, data: bytes, i: int) -> int:
        if i == xf.X87:
            return x87_token(data[_X87], data[_ST])
        if i == xf.SSE:
            return sse_token(data[_XMM])
        place = self._sample(i)
        return token_in(i, data[place]) if place is not None and place.stop <= len(data) else 0

    def places(self, mask: int) -> list[slice]:
        """Where the components of a mask lie in a standard-format image."""
        found = [_X87, _ST] if mask & xf.MASK_X87 else []
        found += [_XMM] if mask & xf.MASK_SSE else []
        known = (self.cpuid.components[i] for i in xf.components_in(mask) if i in self.cpuid.components)
        return found + [slice(one.offset, one.offset + one.size) for one in known if not one.supervisor]

    def compacted(self, image: bytes, xcomp_bv: int) -> bytes:
        """A standard-format image in the format that ``xcomp_bv`` is for."""
        return self._moved(image, xcomp_bv, to_compacted=True) if xcomp_bv & XCOMP_BV_COMPACTED else image

    def standard(self, image: bytes) -> bytes:
        """An image in the standard format, whatever it came in."""
        xcomp_bv = int.from_bytes(image[XCOMP_BV], "little")
        return self._moved(image, xcomp_bv, to_compacted=False) if xcomp_bv & XCOMP_BV_COMPACTED else image

    def _moved(self, image: bytes, xcomp_bv: int, *, to_compacted: bool) -> bytes:
        """The components from where one of the formats has them to where the other does."""
        found = bytearray(image[: HEADER.stop].ljust(SIZE, b"\0"))
        for i in xf.components_in(xcomp_bv & ~xf.MASK_FPSSE):
            known = self.cpuid.components.get(i)
            if known is not None and not known.supervisor:
                places = known.offset, self.cpuid.compacted_offset(xcomp_bv, i)
                source, target = places if to_compacted else places[::-1]
                found[target : target + known.size] = image[source : source + known.size]
        return bytes(found)
