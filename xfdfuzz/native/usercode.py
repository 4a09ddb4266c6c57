"""The machine code of instructions that a task executes in user mode."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.native import assembler as asm
from xfdfuzz.native.assembler import PLAIN, Code
from xfdfuzz.native.contents import SAMPLES, mxcsr, pattern
from xfdfuzz.program.ghost import contents_of, task_token
from xfdfuzz.program.ops import Op, tasks

#: The instruction that an op loads contents with, their component, and the op's field that has them.
_LOADS: dict[type[Op], tuple[str, int, str]] = {
    tasks.UserFld: ("fld", xf.X87, "contents"),
    tasks.UserMovups: ("movups", xf.SSE, "contents"),
    tasks.UserVmovups: ("vmovups", xf.YMM, "token"),
    tasks.UserLdtilecfg: ("ldtilecfg", xf.XTILE_CFG, "token"),
    tasks.UserTileload: ("tileload", xf.XTILE_DATA, "token"),
}
#: The component that an op stores.
_STORES: dict[type[Op], int] = {
    tasks.UserVextractf128: xf.YMM,
    tasks.UserSttilecfg: xf.XTILE_CFG,
    tasks.UserTilestore: xf.XTILE_DATA,
}


@dataclass(frozen=True)
class UserInsn:
    """``code`` with RDI at its operand: ``data``, or ``room`` zeroed bytes that it stores to; at neither an image.

    A value that it reads is in RAX.  It clobbers RAX, RCX, RDX and RSI.
    """

    code: tuple[Code, ...]
    data: bytes = b""
    room: int = 0

    @property
    def bytes(self) -> bytes:
        """All of the code, without a return."""
        return b"".join(code.data for code in self.code)


def user_insn(op: Op) -> UserInsn | None:
    """The code of an op of user mode, None if it is none."""
    if type(op) in _LOADS:
        name, component, contents = _LOADS[type(op)]
        token = contents_of(getattr(op, contents), partial(task_token, op.task))  # type: ignore[attr-defined]
        return UserInsn(tuple(asm.loads(name, token)), pattern(component, token) if token else b"")
    if type(op) in _STORES:
        component = _STORES[type(op)]
        return UserInsn(tuple(asm.STORES[component]), room=SAMPLES[component][1])
    match op:
        case tasks.UserLdmxcsr():
            token = contents_of(op.contents, partial(task_token, op.task))
            return UserInsn((PLAIN["ldmxcsr"],), mxcsr(token).to_bytes(4, "little"))
        case tasks.UserStmxcsr():
            return UserInsn((PLAIN["stmxcsr"],), room=4)
        case tasks.UserTilerelease():
            return UserInsn((PLAIN["tilerelease"],))
        case tasks.UserXsave():
            return UserInsn((*asm.edx_eax(op.mask), PLAIN["xsave64"]), room=0x4000)
        case tasks.UserXsavec():
            return UserInsn((*asm.edx_eax(op.mask), PLAIN["xsavec64"]), room=0x4000)
        case tasks.UserFxsave():
            return UserInsn((PLAIN["fxsave64"],), room=0x200)
        case tasks.UserFxrstor():
            return UserInsn((PLAIN["fxrstor64"],))
        case tasks.UserXrstor():
            return UserInsn((*asm.edx_eax(op.mask), PLAIN["xrstor64"]))
        case tasks.UserXgetbv():
            return UserInsn((asm.mov32("ecx", op.index), PLAIN["xgetbv"], *asm.JOIN))
        case tasks.UserRdpkru():
            return UserInsn((asm.mov32("ecx", 0), PLAIN["rdpkru"]))
        case tasks.UserWrpkru():
            token = task_token(op.task, op.pkru) if op.pkru else 0
            value = int.from_bytes(pattern(xf.PKRU, token), "little")
            return UserInsn((asm.mov32("ecx", 0), asm.mov32("edx", 0), asm.mov32("eax", value), PLAIN["wrpkru"]))
    return None
