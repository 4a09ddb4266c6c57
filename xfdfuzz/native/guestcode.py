"""The code that a vCPU executes in a whole program: one stream, through which each KVM_RUN goes some way further.

Before each instruction R14 gets the address of its result and R15 that of what stands behind it; a fault handler notes
the vector in the one and goes on at the other.  So each instruction is done, or has faulted, or was not reached.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.native import assembler as asm
from xfdfuzz.native import layout
from xfdfuzz.native.assembler import PLAIN, Code
from xfdfuzz.native.contents import mxcsr, pattern
from xfdfuzz.program.ghost import contents_of, vcpu_token
from xfdfuzz.program.ops import Op, guest

#: Loops of a wait for a tick: from 10 ms on fast processors to 50 ms.
SPINS = 500_000
#: The instruction that an op loads contents with, and the op's field that has them.
_LOADS: dict[type[Op], tuple[str, int, str]] = {
    guest.GuestFld: ("fld", xf.X87, "contents"),
    guest.GuestMovups: ("movups", xf.SSE, "contents"),
    guest.GuestVmovups: ("vmovups", xf.YMM, "token"),
    guest.GuestLdtilecfg: ("ldtilecfg", xf.XTILE_CFG, "token"),
    guest.GuestTileload: ("tileload", xf.XTILE_DATA, "token"),
}
_STORES: dict[type[Op], int] = {
    guest.GuestVextractf128: xf.YMM,
    guest.GuestSttilecfg: xf.XTILE_CFG,
    guest.GuestTilestore: xf.XTILE_DATA,
}
_SAVES: dict[type[Op], str] = {
    guest.GuestXsave: "xsave64",
    guest.GuestXsavec: "xsavec64",
    guest.GuestXsaves: "xsaves64",
}


@dataclass(frozen=True)
class Operand:
    """Guest memory that an instruction uses: at ``address``, ``data`` before it runs (zeros: it stores there).

    ``image``: an XSAVE image of ``size`` bytes, ``restored`` the op whose image is to be put there by who knows the
    processor's offsets.
    """

    address: int
    size: int
    data: bytes = b""
    image: bool = False
    restored: guest.GuestXrstor | None = None


@dataclass(frozen=True)
class Insn:
    """An instruction of the guest: its place in the stream, its code, where its result goes.

    ``op`` is None for what waits, and ends a KVM_RUN; ``what`` says what that is for.  ``component``: its operand holds
    that component's sample afterwards.
    """

    address: int
    code: tuple[Code, ...]
    slot: int
    op: Op | None
    what: str = ""
    operand: Operand | None = None
    component: int | None = None

    @property
    def data(self) -> bytes:
        """All of its bytes."""
        return b"".join(code.data for code in self.code)


@dataclass
class Stream:
    """Collects the instructions of one vCPU, in order."""

    vcpu: int
    insns: list[Insn] = field(default_factory=list)
    _flags: int = 0
    _contents: dict[bytes, Operand] = field(default_factory=dict)
    _rooms: int = 0
    _images: int = 0

    @property
    def end(self) -> int:
        """The address where the next instruction will stand."""
        if not self.insns:
            return layout.base(self.vcpu) + layout.CODE
        return self.insns[-1].address + len(self.insns[-1].data)

    def add(self, op: Op) -> Insn:
        """The instruction of a guest op."""
        operand, component = self._operand(op)
        body = _body(op)
        tail = [asm.DONE, *_reads(op)]
        if isinstance(op, guest.GuestHlt | guest.GuestOut):
            # they leave: what would say that they are done comes first
            body, tail = [asm.DONE, *body], []
        if operand is not None:
            body = [asm.mov32("edi", operand.address), *body]
        return self._append(op, body, tail, operand=operand, component=component)

    def wait(self) -> Insn:
        """Some milliseconds pass, and a tick of the host's timer takes the CPU out of the guest."""
        return self._append(None, asm.spin(SPINS), [asm.DONE], what="wait for a tick of the host")

    def hold(self) -> tuple[Insn, int]:
        """The guest waits until the host writes a byte; with its address."""
        flag = layout.base(self.vcpu) + layout.FLAGS + self._flags
        self._flags += 1
        return self._append(None, asm.hold(flag), [], what="wait for the host, which has a signal"), flag

    def done(self) -> Insn:
        """The code ends."""
        return self._append(None, [asm.out(layout.PORT_DONE)], [], what="the end")

    def _append(
        self,
        op: Op | None,
        body: list[Code],
        tail: list[Code],
        what: str = "",
        operand: Operand | None = None,
        component: int | None = None,
    ) -> Insn:
        slot = layout.base(self.vcpu) + layout.RESULTS + len(self.insns) * layout.RESULT_SIZE
        before = asm.begins(slot, 0)
        after = self.end + asm.size(before) + asm.size(body) + asm.size(tail)
        code = (*asm.begins(slot, after), *body, *tail)
        insn = Insn(self.end, code, slot, op, what, operand, component)
        self.insns.append(insn)
        return insn

    def _operand(self, op: Op) -> tuple[Operand | None, int | None]:
        if type(op) in _LOADS:
            _, component, name = _LOADS[type(op)]
            token = self._token(getattr(op, name))
            return (self._content(component, token) if token else None), None
        if type(op) in _STORES:
            return self._room(), _STORES[type(op)]
        if isinstance(op, guest.GuestLdmxcsr):
            return self._room(mxcsr(self._token(op.contents)).to_bytes(4, "little")), None
        if isinstance(op, guest.GuestStmxcsr):
            return self._room(), xf.MXCSR
        if isinstance(op, guest.GuestFxsave) or type(op) in _SAVES:
            return self._image(None), None
        if isinstance(op, guest.GuestXrstor):
            return self._image(op), None
        return None, None

    def _token(self, number: int) -> int:
        return contents_of(number, partial(vcpu_token, self.vcpu))

    def _content(self, component: int, token: int) -> Operand:
        data = pattern(component, token)
        if data not in self._contents:
            self._contents[data] = self._room(data)
        return self._contents[data]

    def _room(self, data: bytes = b"") -> Operand:
        address = layout.base(self.vcpu) + layout.CONTENTS + self._rooms * layout.CONTENT_SIZE
        self._rooms += 1
        return Operand(address, layout.CONTENT_SIZE, data)

    def _image(self, restored: guest.GuestXrstor | None) -> Operand:
        address = layout.base(self.vcpu) + layout.IMAGES + self._images * layout.IMAGE_SIZE
        self._images += 1
        return Operand(address, layout.IMAGE_SIZE, image=True, restored=restored)


def _body(op: Op) -> list[Code]:
    if type(op) in _LOADS:
        name, _, contents = _LOADS[type(op)]
        return asm.loads(name, contents_of(getattr(op, contents), partial(vcpu_token, op.vcpu)))  # type: ignore[attr-defined]
    if type(op) in _STORES:
        return asm.STORES[_STORES[type(op)]]
    if type(op) in _SAVES:
        return [*asm.edx_eax(op.mask), PLAIN[_SAVES[type(op)]]]  # type: ignore[attr-defined]
    match op:
        case guest.GuestXrstor():
            return [*asm.edx_eax(op.mask), PLAIN["xrstor64"]]
        case guest.GuestWrmsr():
            return [asm.mov32("ecx", op.msr), *asm.edx_eax(op.value), PLAIN["wrmsr"]]
        case guest.GuestRdmsr():
            return [asm.mov32("ecx", op.msr), PLAIN["rdmsr"], *asm.JOIN]
        case guest.GuestXsetbv():
            return [asm.mov32("ecx", op.index), *asm.edx_eax(op.xcr0), PLAIN["xsetbv"]]
        case guest.GuestXgetbv():
            return [asm.mov32("ecx", op.index), PLAIN["xgetbv"], *asm.JOIN]
        case guest.GuestCpuid():
            return [asm.mov32("eax", op.leaf), asm.mov32("ecx", op.subleaf), PLAIN["cpuid"]]
        case guest.GuestMovCr4():
            return asm.SET_OSXSAVE if op.cr4.osxsave else asm.CLEAR_OSXSAVE
        case guest.GuestStts():
            return asm.STTS
        case guest.GuestOut():
            return [asm.out(layout.PORT_OUT)]
    plain = {
        guest.GuestTilerelease: "tilerelease",
        guest.GuestTilezero: "tilezero",
        guest.GuestFxsave: "fxsave64",
        guest.GuestLdmxcsr: "ldmxcsr",
        guest.GuestStmxcsr: "stmxcsr",
        guest.GuestClts: "clts",
        guest.GuestHlt: "hlt",
    }
    return [PLAIN[plain[type(op)]]]


def _reads(op: Op) -> list[Code]:
    if isinstance(op, guest.GuestRdmsr | guest.GuestXgetbv):
        return [asm.STORE_RAX]
    return [asm.STORE_RBX] if isinstance(op, guest.GuestCpuid) else []
