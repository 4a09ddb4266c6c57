"""Translation of guest code: the harness' tokens, one after another, inside KVM_RUN."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.registers import MSR_IA32_XFD, MSR_IA32_XFD_ERR
from xfdfuzz.arch.xsave import XCOMP_BV_COMPACTED
from xfdfuzz.engines.conform.contents import SIZES, TILE_CONFIGURATION, initial
from xfdfuzz.engines.conform.fields import Field, Stopped, returned
from xfdfuzz.engines.conform.memory import TILE_SIZE, GuestMemory, tdpbssd, tile_of, with_tile
from xfdfuzz.engines.conform.recording import Fields, Malformed, Operation, number
from xfdfuzz.engines.conform.session import Session
from xfdfuzz.engines.conform.translator import translates
from xfdfuzz.kernel.errno import EIO
from xfdfuzz.program import ghost
from xfdfuzz.program.fields import Sregs
from xfdfuzz.program.ops import guest, kvm, run
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import Image, Result


class Outcome(NamedTuple):
    """What a token came to: ``ok`` or the exception, and the values that it read; None for what is not compared."""

    status: int | str
    value: int | None = None
    value2: int | None = None


@translates("run_imm")
def run_immediate_exit(s: Session, o: Operation) -> Iterator[Field]:
    """KVM_RUN with immediate_exit."""
    assert o.result is not None
    result = s.do(run.KvmRun(s.now.task, s.vcpu))
    if result.ret == "ok":
        result = s.do(run.KvmRunReturns(s.now.task))
    yield Field("ret", returned(o.result), result.ret)


@translates("run_guest")
def run_guest(s: Session, o: Operation) -> Iterator[Field]:
    """Set the vCPU up if that has not been done, run the code and come back with HLT.

    The operation that killed the host has no result; it is executed all the same.
    """
    vcpu, recorded = s.vcpu, o.result or Fields()
    if recorded.get("failed_call") in ("get_sregs", "set_regs"):
        # any ioctl on a vCPU meets the same guards
        yield Field(recorded["failed_call"], -recorded["errno"], s.do(kvm.KvmGetXcrs(s.now.task, vcpu)).ret)
        return
    if not s.vcpus[vcpu].set_up:
        yield from _set_up(s, vcpu, recorded)
        if not s.vcpus[vcpu].set_up:
            return
    started = s.do(run.KvmRun(s.now.task, vcpu))
    if started.ret != "ok":
        yield Field("KVM_RUN", recorded.get("exit", -recorded.get("errno", 0)), started.ret)
        return
    if _enter(s, vcpu) != "ok":
        raise Stopped("an exception that no instruction caused")
    yield from _code(s, vcpu, o)
    s.do(guest.GuestHlt(vcpu))
    s.do(run.HandleExit(vcpu))
    ended = s.do(run.KvmRunReturns(s.now.task))
    if recorded:
        failed = recorded["ret"] != 0
        yield Field("exit", -recorded["errno"] if failed else f"KVM_EXIT_{recorded['exit']}", ended.ret)


def _set_up(s: Session, vcpu: int, recorded: dict[str, Any]) -> Iterator[Field]:
    """KVM_SET_SREGS with CR4.OSXSAVE, or without if that is refused."""
    with_osxsave = s.do(kvm.KvmSetSregs(s.now.task, vcpu, Sregs(True))).ret
    result = with_osxsave if with_osxsave in (0, -EIO) else s.do(kvm.KvmSetSregs(s.now.task, vcpu, Sregs(False))).ret
    if recorded:
        yield Field("set_sregs with OSXSAVE", -recorded.get("set_sregs_osxsave_errno", 0), with_osxsave)
        refused = recorded["errno"] if recorded.get("failed_call") == "set_sregs" else 0
        yield Field("set_sregs", -refused, result)
    s.vcpus[vcpu].set_up = result == 0 and "failed_call" not in recorded


def _enter(s: Session, vcpu: int) -> int | str:
    return s.do(run.VmEnter(vcpu)).ret


def _execute(s: Session, vcpu: int, op: Op) -> Result:
    """Execute an instruction; if it exits, until the guest goes on: with ``ok`` or what is injected."""
    result = s.do(op)
    if result.ret != "exit":
        return result
    handled = s.do(run.HandleExit(vcpu))
    if handled.ret == "exit":
        s.do(run.KvmRunReturns(s.now.task))
        s.do(run.KvmRun(s.now.task, vcpu))
    elif handled.ret != "resume":
        return handled
    return Result(_enter(s, vcpu), result.out if handled.out is None else handled.out)


def _code(s: Session, vcpu: int, o: Operation) -> Iterator[Field]:
    entries: list[dict[str, Any] | None] = list(o.result["guest"]) if o.result else [None] * len(o.args)
    if len(entries) != len(o.args):
        raise Malformed(f"result with guest, {len(o.args)} entries")
    for token, entry in zip(o.args, entries, strict=True):
        name, *arguments = token.split(":")
        if name not in TOKENS:
            raise Stopped(f"guest code: {name}")
        outcome = TOKENS[name](_Guest(s, vcpu), [number(word) for word in arguments])
        if entry is not None:
            yield from _compare(token, entry, outcome)


def _compare(token: str, entry: dict[str, Any], outcome: Outcome) -> Iterator[Field]:
    status = {"ok": "ok", "fault": entry.get("exception")}.get(entry["status"], entry["status"])
    yield Field(token, status, outcome.status)
    if status == outcome.status == "ok":
        if outcome.value is not None:
            yield Field(f"{token} value", number(entry["value"]) & _mask(token), outcome.value)
        if outcome.value2 is not None:
            yield Field(f"{token} value2", number(entry["value2"]) & _mask2(token), outcome.value2)


def _mask(token: str) -> int:
    """Of CPUID.0xD.1 only the XFD flag is modelled."""
    return 1 << 4 if token == "cpuid:0xd:1" else xf.U64_MAX


def _mask2(token: str) -> int:
    """EBX; ECX is what the VMM put there."""
    return 0xFFFFFFFF if token.startswith("cpuid:") else xf.U64_MAX


# -- tokens ------------------------------------------------------------------------------------------------------------


class _Guest(NamedTuple):
    """The vCPU that executes."""

    s: Session
    vcpu: int

    @property
    def memory(self) -> GuestMemory:
        """Its VM's."""
        return self.s.memory[self.s.vcpus[self.vcpu].vm]

    def execute(self, op: Op) -> Result:
        """One instruction, to its end."""
        return _execute(self.s, self.vcpu, op)

    def token(self, held: dict[int, bytes]) -> int:
        """A number for these contents."""
        return self.s.contents.token(partial(ghost.vcpu_token, self.vcpu), held)

    def held(self, component: int) -> bytes:
        """What the register holds now."""
        return self.s.contents.bytes_of(component, self.s.kernel.regs.data[component])


_Token: TypeAlias = Callable[[_Guest, list[int]], Outcome]
TOKENS: dict[str, _Token] = {}


def _token(*names: str) -> Callable[[_Token], _Token]:
    def register(function: _Token) -> _Token:
        TOKENS.update(dict.fromkeys(names, function))
        return function

    return register


@_token("nop", "spin")
def _nothing(g: _Guest, words: list[int]) -> Outcome:
    return Outcome("ok")


@_token("fill")
def _fill(g: _Guest, words: list[int]) -> Outcome:
    g.memory.tile = bytes([words[0] & 0xFF]) * TILE_SIZE
    return Outcome("ok")


@_token("out")
def _out(g: _Guest, words: list[int]) -> Outcome:
    return Outcome(g.execute(guest.GuestOut(g.vcpu)).ret)


def _check_msr(index: int) -> int:
    if index not in (MSR_IA32_XFD, MSR_IA32_XFD_ERR):
        raise Stopped(f"guest code: MSR {index:#x}")
    return index


@_token("wrmsr")
def _wrmsr(g: _Guest, words: list[int]) -> Outcome:
    return Outcome(g.execute(guest.GuestWrmsr(g.vcpu, _check_msr(words[0]), words[1])).ret)


@_token("rdmsr")
def _rdmsr(g: _Guest, words: list[int]) -> Outcome:
    return _reading(g.execute(guest.GuestRdmsr(g.vcpu, _check_msr(words[0]))))


@_token("xsetbv")
def _xsetbv(g: _Guest, words: list[int]) -> Outcome:
    return Outcome(g.execute(guest.GuestXsetbv(g.vcpu, words[0])).ret)


@_token("xgetbv")
def _xgetbv(g: _Guest, words: list[int]) -> Outcome:
    if words[0] > 1:
        raise Stopped(f"guest code: XGETBV({words[0]})")
    return _reading(g.execute(guest.GuestXgetbv(g.vcpu, words[0])))


def _reading(result: Result) -> Outcome:
    return Outcome(result.ret, result.out if isinstance(result.out, int) else None)


@_token("cpuid")
def _cpuid(g: _Guest, words: list[int]) -> Outcome:
    leaf, index = words
    if leaf != 0xD or index > 1:
        raise Stopped(f"guest code: CPUID {leaf:#x}.{index:#x}")
    result = g.execute(guest.GuestCpuid(g.vcpu, index))
    stored = g.s.kernel.kvm_find_cpuid_entry(g.s.kernel.vcpus[g.vcpu], index)
    return _reading(result)._replace(value=stored.edx_eax, value2=_reading(result).value)


def _saving(op: type[guest.GuestXsave | guest.GuestXsavec | guest.GuestXsaves], compacts: bool) -> _Token:
    def save(g: _Guest, words: list[int]) -> Outcome:
        result = g.execute(op(g.vcpu, words[0]))
        if not isinstance(result.out, Image):
            return Outcome(result.ret)
        regs, tokens = g.s.kernel.regs, dict(result.out.tokens)
        rfbm = words[0] & (regs.xcr0 | (regs.xss if op is guest.GuestXsaves else 0))
        xcomp_bv = rfbm | XCOMP_BV_COMPACTED if compacts else 0
        for i in xf.components_in(rfbm):
            if i in tokens or not compacts:
                data = g.s.contents.bytes_of(i, tokens[i]) if i in tokens else initial(i)
                g.memory.store(i, data, xcomp_bv)
        return Outcome(result.ret, result.out.xstate_bv, xcomp_bv)

    return save


TOKENS["xsave"] = _saving(guest.GuestXsave, compacts=False)
TOKENS["xsavec"] = _saving(guest.GuestXsavec, compacts=True)
TOKENS["xsaves"] = _saving(guest.GuestXsaves, compacts=True)


@_token("xrstor")
def _xrstor(g: _Guest, words: list[int]) -> Outcome:
    mask, bv = words[:2]
    if len(words) > 2 and words[2]:
        raise Stopped("guest code: xrstor of a compacted image")
    held = {i: g.memory.load(i) for i in xf.components_in(bv) if i in SIZES}
    # what is initial in memory is as good as not there, but for the faults
    plain = [i for i in held if i != xf.XTILE_DATA and held[i] == initial(i)]
    absent = xf.mask_of(*plain) & g.s.kernel.regs.xcr0
    token = g.token({i: data for i, data in held.items() if i not in plain})
    return Outcome(g.execute(guest.GuestXrstor(g.vcpu, mask, bv & ~absent, token)).ret)


@_token("ldtilecfg")
def _ldtilecfg(g: _Guest, words: list[int]) -> Outcome:
    return Outcome(g.execute(guest.GuestLdtilecfg(g.vcpu, g.token({xf.XTILE_CFG: TILE_CONFIGURATION}))).ret)


@_token("tilerelease")
def _tilerelease(g: _Guest, words: list[int]) -> Outcome:
    return Outcome(g.execute(guest.GuestTilerelease(g.vcpu)).ret)


@_token("sttilecfg")
def _sttilecfg(g: _Guest, words: list[int]) -> Outcome:
    result = g.execute(guest.GuestSttilecfg(g.vcpu))
    if result.ret != "ok" or not isinstance(result.out, int):
        return Outcome(result.ret)
    data = g.s.contents.bytes_of(xf.XTILE_CFG, result.out)
    return Outcome(result.ret, int.from_bytes(data[:8], "little"), int.from_bytes(data[16:24], "little"))


@_token("tilestore")
def _tilestore(g: _Guest, words: list[int]) -> Outcome:
    result = g.execute(guest.GuestTilestore(g.vcpu))
    if result.ret != "ok" or not isinstance(result.out, int):
        return Outcome(result.ret)
    tile = tile_of(g.s.contents.bytes_of(xf.XTILE_DATA, result.out), words[0])
    return Outcome(result.ret, int.from_bytes(tile[:8], "little"), int.from_bytes(tile[-8:], "little"))


def _tileload(g: _Guest, tiles: bytes) -> Outcome:
    return Outcome(g.execute(guest.GuestTileload(g.vcpu, g.token({xf.XTILE_DATA: tiles}))).ret)


@_token("tileload")
def _tileloadd(g: _Guest, words: list[int]) -> Outcome:
    return _tileload(g, with_tile(g.held(xf.XTILE_DATA), words[0], g.memory.tile))


@_token("tilezero")
def _tilezero(g: _Guest, words: list[int]) -> Outcome:
    return _tileload(g, with_tile(g.held(xf.XTILE_DATA), words[0], bytes(TILE_SIZE)))


@_token("tdpbssd")
def _tdpbssd(g: _Guest, words: list[int]) -> Outcome:
    tiles = g.held(xf.XTILE_DATA)
    product = tdpbssd(tile_of(tiles, 0), tile_of(tiles, 1), tile_of(tiles, 2))
    return _tileload(g, with_tile(tiles, 0, product))
