"""The bytes that a token of register contents stands for on a real machine, and back.

A component is seen through a *sample*: one register of it, or so much of it as tells the contents apart.  ``t0:1`` and
``v0:1`` differ in each component, and no two components hold the same bytes, so a leak and a mix-up show as such.
"""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.xsave import MXCSR_RESERVED
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.fpu.init import PKRU_DEFAULT, ZEROED
from xfdfuzz.program.fields import TOKENS
from xfdfuzz.program.ghost import content, task_token, vcpu_token

#: PKRU as Linux starts a program with: every key but 0 denies access (arch/x86/mm/pkeys.c, init_pkru_value).
LINUX_PKRU = 0x55555554
#: Where the sample of a component lies from the component's start in an XSAVE image, and its bytes: of several
#: registers the last one, which compilers and libraries use least.  x87 (ST(0)) and SSE lie in the legacy region; of
#: tiles it is the whole configuration, and tile 0.
SAMPLES: dict[int, tuple[int, int]] = {
    xf.X87: (32, 10),
    xf.SSE: (160 + 15 * 16, 16),
    xf.YMM: (15 * 16, 16),
    xf.BNDREGS: (0, 16),
    xf.BNDCSR: (0, 8),
    xf.OPMASK: (7 * 8, 8),
    # VEX instructions on register 15 clear what of it is here
    xf.ZMM_HI256: (14 * 32, 32),
    xf.HI16_ZMM: (15 * 64, 64),
    xf.PKRU: (0, 4),
    xf.XTILE_CFG: (0, 64),
    xf.XTILE_DATA: (0, 1024),
}
TILES, TILE_ROWS, TILE_BYTES = 8, 16, 64


def mxcsr(token: int) -> int:
    """A MXCSR that no other token has, with every exception masked: by its flags and how it rounds; initial for 0.

    Nobody's are a MXCSR without a bit, and one with reserved ones.
    """
    if token in (ZEROED, MXCSR_RESERVED):
        return 0 if token == ZEROED else 0xFFFFFFFF
    return 0x1F80 | token & 0x3F | token >> 6 << 13


def mxcsr_token(value: int) -> int | None:
    """The token of a MXCSR, None for one of nobody's."""
    return next((token for token in (0, ZEROED, MXCSR_RESERVED, *tokens()) if mxcsr(token) == value), None)


def word(component: int, token: int) -> bytes:
    """Eight bytes that no other token or component has; with an exponent behind them they are a ten-byte real."""
    return bytes([token & 0xFF, component, 0x58, 0x46, 0x44, 0x7A, token ^ 0xFF, 0x80 | component])


def pattern(component: int, token: int) -> bytes:
    """The sample of ``component`` that holds ``token``; the initial configuration for 0.

    Raises KeyError for a component that has no sample, as supervisor states, which user space never gets to see.
    """
    size = SAMPLES[component][1]
    if component == xf.PKRU:
        # keys 1 to 4 are denied something; key 0, which all memory has, never is
        return (LINUX_PKRU if token == PKRU_DEFAULT else token << 2).to_bytes(4, "little")
    if token in (0, ZEROED):
        return bytes(size)
    if component == xf.XTILE_CFG:
        return _tile_config(token)
    if component == xf.X87:
        return word(component, token) + b"\x01\x40"
    if component == xf.BNDCSR:
        return bytes(8)
    return (word(component, token) * size)[:size]


def _tile_config(token: int) -> bytes:
    """Palette 1, eight tiles of 16 rows of 64 bytes; but the shape of tile 7, which nobody loads, tells the token."""
    rows, columns = [TILE_ROWS] * TILES, [TILE_BYTES] * TILES
    rows[7], columns[7] = 1 + token % 16, 4 * (1 + token // 16)
    image = bytearray(64)
    image[0] = 1
    for tile in range(TILES):
        image[16 + 2 * tile : 18 + 2 * tile] = columns[tile].to_bytes(2, "little")
        image[48 + tile] = rows[tile]
    return bytes(image)


def tokens() -> list[int]:
    """Every token that a program can write, and the kernel's own."""
    own = range(1, TOKENS + 1)
    tasks = [task_token(nr, n) for nr in range(st.USER_TASKS) for n in own]
    return [PKRU_DEFAULT, *tasks, *(vcpu_token(nr, n) for nr in range(st.NR_VCPUS) for n in own)]


def token_of(component: int, sample: bytes) -> int | None:
    """The token whose bytes these are, 0 for the initial configuration, None for bytes of nobody's."""
    if component == xf.PKRU and sample == LINUX_PKRU.to_bytes(4, "little"):
        return PKRU_DEFAULT
    if sample == pattern(component, 0):
        return 0
    return next((t for t in tokens() if t != PKRU_DEFAULT and pattern(component, t) == sample), None)


def describe(component: int, sample: bytes) -> str:
    """What was seen, as programs write contents: ``v0:3``, ``init``; the bytes if they are of nobody's."""
    token = token_of(component, sample)
    return f"bytes {sample[:8].hex(' ')} ..." if token is None else content(token)
