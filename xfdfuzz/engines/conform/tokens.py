"""The tokens of the harness' guest code: one instruction each, as ops of the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import WHOLE_LEAVES, Leaf
from xfdfuzz.arch.registers import MSR_IA32_XFD
from xfdfuzz.arch.xsave import XCOMP_BV_COMPACTED
from xfdfuzz.engines.conform.contents import SIZES, TILE_CONFIGURATION, initial
from xfdfuzz.engines.conform.fields import Stopped
from xfdfuzz.engines.conform.ioctls import MSRS
from xfdfuzz.engines.conform.memory import TILE_SIZE, GuestMemory, tdpbssd, tile_of, with_tile
from xfdfuzz.engines.conform.recording import Malformed, number
from xfdfuzz.engines.conform.session import CR0_TS, CR4_OSXSAVE, Session
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import Cr4
from xfdfuzz.program.ops import guest, run
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import Image, Result
from xfdfuzz.program.text import format_op

#: What a token came to before it was executed.
NOT_REACHED = "not_reached"
#: The exit to user space that the harness serves, to run the guest again.
SERVED = "KVM_EXIT_IO"


class Outcome(NamedTuple):
    """What a token came to: ``ok`` or the exception, and the values that it read; None for what is not compared."""

    status: int | str
    value: int | None = None
    value2: int | None = None


def enter(s: Session, vcpu: int) -> int | str:
    """VM entry: ``ok`` or the exception that it injects."""
    return s.do(run.VmEnter(vcpu)).ret


def check(token: str) -> None:
    """Raise :class:`Stopped` for an instruction that has no translation."""
    name = token.split(":")[0]
    if name not in TOKENS:
        raise Stopped(f"guest code: {name}")


class Guest(NamedTuple):
    """The vCPU that executes."""

    s: Session
    vcpu: int

    @property
    def memory(self) -> GuestMemory:
        """Its VM's."""
        return self.s.memory[self.s.vcpus[self.vcpu].vm]

    def execute(self, token: str) -> Outcome:
        """One token, to its end."""
        name, *arguments = token.split(":")
        words = [number(word) for word in arguments]
        if len(words) < FEWEST.get(name, 0):
            raise Malformed(f"{name} with {FEWEST[name]} numbers")
        return TOKENS[name](self, words)

    def leave_after(self, token: str) -> bool:
        """Execute a token whose instruction exits, and stay outside; False, and nothing happens, if it does not."""
        name, *arguments = token.split(":")
        words = [number(word) for word in arguments]
        if name == "wrmsr":
            op: Op = guest.GuestWrmsr(self.vcpu, _check_msr(words[0]), words[1])
        elif name == "rdmsr":
            op = guest.GuestRdmsr(self.vcpu, _check_msr(words[0]))
        elif name == "xsetbv":
            op = guest.GuestXsetbv(self.vcpu, words[0])
        else:
            return False
        if self.s.do(op).ret == "exit":
            self.s.do(run.HandleExit(self.vcpu))
            return True
        return False

    def step(self, op: Op) -> Result:
        """Execute an instruction; if it exits, until the guest goes on: with ``ok`` or what is injected.

        User space serves an exit for I/O.  After another one it goes on, too, but that is what the instruction came to.
        """
        result = self.s.do(op)
        if result.ret != "exit":
            return result
        written = op.value if isinstance(op, guest.GuestWrmsr) and op.msr == MSR_IA32_XFD else 0
        if self.may_lose(written):
            self.s.may_be_preempted(f"between the exit of {format_op(op)} and its emulation")
        handled = self.s.do(run.HandleExit(self.vcpu))
        if handled.ret == "exit":
            left = self.s.do(run.KvmRunReturns(self.s.now.task))
            self.s.do(run.KvmRun(self.s.now.task, self.vcpu))
            if left.ret != SERVED:
                enter(self.s, self.vcpu)
                return left
        elif handled.ret != "resume":
            return handled
        return Result(enter(self.s, self.vcpu), result.out if handled.out is None else handled.out)

    def may_lose(self, disabled: int = 0) -> bool:
        """Whether it holds what XFD, or these bits of a new one, disables: a preemption saves none of that.

        Where it does not, a preemption makes no difference to what a guest and its VMM are told.
        """
        regs = self.s.kernel.regs
        return bool((regs.xfd | disabled) & regs.xinuse)

    def token(self, held: dict[int, bytes]) -> int:
        """A number for these contents."""
        return self.s.token(partial(ghost.vcpu_token, self.vcpu), held)

    def held(self, component: int) -> bytes:
        """What the register holds now."""
        return self.s.contents.bytes_of(component, self.s.kernel.regs.data[component])


_Token: TypeAlias = Callable[[Guest, list[int]], Outcome]
TOKENS: dict[str, _Token] = {}
#: How many numbers a token needs.
FEWEST: dict[str, int] = {}


def _token(*names: str, numbers: int = 0) -> Callable[[_Token], _Token]:
    def register(function: _Token) -> _Token:
        TOKENS.update(dict.fromkeys(names, function))
        FEWEST.update(dict.fromkeys(names, numbers))
        return function

    return register


@_token("nop")
def _nop(g: Guest, words: list[int]) -> Outcome:
    return Outcome("ok")


@_token("spin", numbers=1)
def _spin(g: Guest, words: list[int]) -> Outcome:
    """A loop, long enough for a preemption."""
    if g.may_lose() and g.s.may_be_preempted(f"in spin:{words[0]}", lambda: g.s.do(guest.GuestInterrupt(g.vcpu))):
        return Outcome(enter(g.s, g.vcpu))
    return Outcome("ok")


@_token("fill", numbers=1)
def _fill(g: Guest, words: list[int]) -> Outcome:
    g.memory.tile = bytes([words[0] & 0xFF]) * TILE_SIZE
    return Outcome("ok")


@_token("out", numbers=1)
def _out(g: Guest, words: list[int]) -> Outcome:
    return Outcome(g.step(guest.GuestOut(g.vcpu)).ret)


def _check_msr(index: int) -> int:
    if index not in MSRS:
        raise Stopped(f"guest code: MSR {index:#x}")
    return index


@_token("wrmsr", numbers=2)
def _wrmsr(g: Guest, words: list[int]) -> Outcome:
    return Outcome(g.step(guest.GuestWrmsr(g.vcpu, _check_msr(words[0]), words[1])).ret)


@_token("rdmsr", numbers=1)
def _rdmsr(g: Guest, words: list[int]) -> Outcome:
    return _reading(g.step(guest.GuestRdmsr(g.vcpu, _check_msr(words[0]))))


@_token("xsetbv", numbers=1)
def _xsetbv(g: Guest, words: list[int]) -> Outcome:
    return Outcome(g.step(guest.GuestXsetbv(g.vcpu, words[0])).ret)


@_token("xgetbv", numbers=1)
def _xgetbv(g: Guest, words: list[int]) -> Outcome:
    if words[0] > 1:
        raise Stopped(f"guest code: XGETBV({words[0]})")
    return _reading(g.step(guest.GuestXgetbv(g.vcpu, words[0])))


def _reading(result: Result) -> Outcome:
    return Outcome(result.ret, result.out if isinstance(result.out, int) else None)


@_token("cpuid", numbers=2)
def _cpuid(g: Guest, words: list[int]) -> Outcome:
    leaf, index = words[:2]
    if leaf not in WHOLE_LEAVES:
        return Outcome(g.step(guest.GuestCpuid(g.vcpu)).ret)  # it exits as any, and its values are not modelled
    result = g.step(guest.GuestCpuid(g.vcpu, leaf, index & 0xFF))
    if not isinstance(result.out, Leaf):
        return Outcome(result.ret)
    eax, ebx, ecx, edx = result.out
    return Outcome(result.ret, edx << 32 | eax, ecx << 32 | ebx)


def _saving(
    op: type[guest.GuestXsave | guest.GuestXsavec | guest.GuestXsaves], compacts: bool, only_in_use: bool = False
) -> _Token:
    def save(g: Guest, words: list[int]) -> Outcome:
        result = g.step(op(g.vcpu, words[0]))
        if not isinstance(result.out, Image):
            return Outcome(result.ret)
        regs, tokens = g.s.kernel.regs, dict(result.out.tokens)
        rfbm = words[0] & (regs.xcr0 | (regs.xss if op is guest.GuestXsaves else 0))
        xcomp_bv = rfbm | XCOMP_BV_COMPACTED if compacts else 0
        for i in xf.components_in(rfbm):
            if i in tokens or not only_in_use:
                data = g.s.contents.bytes_of(i, tokens[i]) if i in tokens else initial(i)
                g.memory.store(i, data, xcomp_bv)
        return Outcome(result.ret, result.out.xstate_bv, xcomp_bv)

    return save


_token("xsave", numbers=1)(_saving(guest.GuestXsave, compacts=False))
# the initial optimisation is all that makes it another instruction here
_token("xsaveopt", numbers=1)(_saving(guest.GuestXsave, compacts=False, only_in_use=True))
_token("xsavec", numbers=1)(_saving(guest.GuestXsavec, compacts=True, only_in_use=True))
_token("xsaves", numbers=1)(_saving(guest.GuestXsaves, compacts=True, only_in_use=True))


@_token("xrstor", numbers=2)
def _xrstor(g: Guest, words: list[int]) -> Outcome:
    return _restoring(g, guest.GuestXrstor, words[0], words[1], words[2] if len(words) > 2 else 0)


@_token("xrstors", numbers=2)
def _xrstors(g: Guest, words: list[int]) -> Outcome:
    xcomp_bv = words[2] if len(words) > 2 else words[1] | XCOMP_BV_COMPACTED
    return _restoring(g, guest.GuestXrstors, words[0], words[1], xcomp_bv)


def _restoring(
    g: Guest, op: type[guest.GuestXrstor | guest.GuestXrstors], mask: int, bv: int, xcomp_bv: int
) -> Outcome:
    layout = xcomp_bv if xcomp_bv & XCOMP_BV_COMPACTED and not bv & ~xcomp_bv else 0
    held = {i: g.memory.load(i, layout) for i in xf.components_in(bv) if i in SIZES}
    # what is initial in memory is as good as not there, but for the faults
    plain = [i for i in held if i != xf.XTILE_DATA and held[i] == initial(i)]
    legal = not bv & ~xcomp_bv if xcomp_bv else True
    absent = xf.mask_of(*plain) & g.s.kernel.regs.xcr0 if legal else 0
    token = g.token({i: data for i, data in held.items() if i not in plain})
    return Outcome(g.step(op(g.vcpu, mask, bv & ~absent, token, xcomp_bv)).ret)


@_token("ldtilecfg")
def _ldtilecfg(g: Guest, words: list[int]) -> Outcome:
    return Outcome(g.step(guest.GuestLdtilecfg(g.vcpu, g.token({xf.XTILE_CFG: TILE_CONFIGURATION}))).ret)


@_token("tilerelease")
def _tilerelease(g: Guest, words: list[int]) -> Outcome:
    return Outcome(g.step(guest.GuestTilerelease(g.vcpu)).ret)


@_token("sttilecfg")
def _sttilecfg(g: Guest, words: list[int]) -> Outcome:
    result = g.step(guest.GuestSttilecfg(g.vcpu))
    if result.ret != "ok" or not isinstance(result.out, int):
        return Outcome(result.ret)
    data = g.s.contents.bytes_of(xf.XTILE_CFG, result.out)
    return Outcome(result.ret, int.from_bytes(data[:8], "little"), int.from_bytes(data[16:24], "little"))


@_token("tilestore", numbers=1)
def _tilestore(g: Guest, words: list[int]) -> Outcome:
    result = g.step(guest.GuestTilestore(g.vcpu))
    if result.ret != "ok" or not isinstance(result.out, int):
        return Outcome(result.ret)
    tile = tile_of(g.s.contents.bytes_of(xf.XTILE_DATA, result.out), words[0])
    return Outcome(result.ret, int.from_bytes(tile[:8], "little"), int.from_bytes(tile[-8:], "little"))


def _tileload(g: Guest, tiles: bytes) -> Outcome:
    return Outcome(g.step(guest.GuestTileload(g.vcpu, g.token({xf.XTILE_DATA: tiles}))).ret)


@_token("tileload", numbers=1)
def _tileloadd(g: Guest, words: list[int]) -> Outcome:
    return _tileload(g, with_tile(g.held(xf.XTILE_DATA), words[0], g.memory.tile))


@_token("tilezero", numbers=1)
def _tilezero(g: Guest, words: list[int]) -> Outcome:
    tiles = with_tile(g.held(xf.XTILE_DATA), words[0], bytes(TILE_SIZE))
    return Outcome(g.step(guest.GuestTilezero(g.vcpu, g.token({xf.XTILE_DATA: tiles}))).ret)


@_token("tdpbssd")
def _tdpbssd(g: Guest, words: list[int]) -> Outcome:
    tiles = g.held(xf.XTILE_DATA)
    product = tdpbssd(tile_of(tiles, 0), tile_of(tiles, 1), tile_of(tiles, 2))
    return _tileload(g, with_tile(tiles, 0, product))


# -- x87, SSE and AVX --------------------------------------------------------------------------------------------------


@_token("fnop")
def _fnop(g: Guest, words: list[int]) -> Outcome:
    """It changes nothing, but from there on x87 is in use."""
    local = g.token({xf.X87: g.held(xf.X87)})
    return Outcome(g.step(guest.GuestFld(g.vcpu, local)).ret)


@_token("wrxmm", numbers=1)
def _wrxmm(g: Guest, words: list[int]) -> Outcome:
    """MOVQ, which clears the upper half of the register."""
    data = words[0].to_bytes(8, "little") + bytes(8) + g.held(xf.SSE)[16:]
    return Outcome(g.step(guest.GuestMovups(g.vcpu, 0 if data == initial(xf.SSE) else g.token({xf.SSE: data}))).ret)


def _legacy(g: Guest, component: int) -> tuple[int | str, bytes]:
    """What FXSAVE stores for x87 or SSE, which other instructions read a part of."""
    result = g.step(guest.GuestFxsave(g.vcpu))
    tokens = dict(result.out.tokens) if isinstance(result.out, Image) else {}
    return result.ret, g.s.contents.bytes_of(component, tokens.get(component, 0))


@_token("rdxmm")
def _rdxmm(g: Guest, words: list[int]) -> Outcome:
    status, data = _legacy(g, xf.SSE)
    return Outcome(status, int.from_bytes(data[:8], "little"))


@_token("stmxcsr")
def _stmxcsr(g: Guest, words: list[int]) -> Outcome:
    result = g.step(guest.GuestStmxcsr(g.vcpu))
    if result.ret != "ok" or not isinstance(result.out, int):
        return Outcome(result.ret)
    return Outcome(result.ret, int.from_bytes(g.s.contents.bytes_of(xf.MXCSR, result.out), "little"))


@_token("fnstcw")
def _fnstcw(g: Guest, words: list[int]) -> Outcome:
    status, data = _legacy(g, xf.X87)
    return Outcome(status, int.from_bytes(data[:2], "little"))


@_token("rdymmh")
def _rdymmh(g: Guest, words: list[int]) -> Outcome:
    result = g.step(guest.GuestVextractf128(g.vcpu))
    if result.ret != "ok" or not isinstance(result.out, int):
        return Outcome(result.ret)
    return Outcome(result.ret, int.from_bytes(g.s.contents.bytes_of(xf.YMM, result.out)[:8], "little"))


@_token("ud2")
def _ud2(g: Guest, words: list[int]) -> Outcome:
    return Outcome("#UD")


# -- control registers -------------------------------------------------------------------------------------------------


def _mov_to_cr0(value_of: Callable[[int, int], int]) -> _Token:
    """CR0.TS is the guest's own (KVM_POSSIBLE_CR0_GUEST_BITS), so that nothing exits."""

    def move(g: Guest, words: list[int]) -> Outcome:
        harness = g.s.vcpus[g.vcpu]
        value = value_of(harness.cr0, words[0])
        if (value ^ harness.cr0) & ~CR0_TS:
            raise Stopped(f"guest code: CR0 {value:#x}")
        harness.cr0 = value
        return Outcome(g.step((guest.GuestStts if value & CR0_TS else guest.GuestClts)(g.vcpu)).ret, value)

    return move


_token("cr0or", numbers=1)(_mov_to_cr0(lambda old, mask: old | mask))
_token("cr0andn", numbers=1)(_mov_to_cr0(lambda old, mask: old & ~mask))


def _mov_to_cr4(value_of: Callable[[int, int], int]) -> _Token:
    """Where CR4 stays as it is nothing happens; OSXSAVE belongs to the host, and a guest that changes it exits."""

    def move(g: Guest, words: list[int]) -> Outcome:
        harness = g.s.vcpus[g.vcpu]
        value = value_of(harness.cr4, words[0])
        if value == harness.cr4:
            return Outcome("ok", value)
        if (value ^ harness.cr4) & ~CR4_OSXSAVE:
            raise Stopped(f"guest code: CR4 {value:#x}")
        result = g.step(guest.GuestMovCr4(g.vcpu, Cr4(bool(value & CR4_OSXSAVE))))
        if result.ret == "ok":
            harness.cr4 = value
        return Outcome(result.ret, value)

    return move


_token("cr4or", numbers=1)(_mov_to_cr4(lambda old, mask: old | mask))
_token("cr4andn", numbers=1)(_mov_to_cr4(lambda old, mask: old & ~mask))
