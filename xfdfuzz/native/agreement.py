"""Whether a real machine shows what the model says: as far as it is the same on every machine."""

from __future__ import annotations

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.native.values import Value, value_of
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import Image, Result


def same(op: Op, model: Result, real: Result) -> bool:
    """Whether both say the same of an op."""
    return plain(op, model) == plain(op, real)


def _components(held: tuple[tuple[int, int], ...]) -> int:
    return xf.mask_of(*(i for i, _ in held if i != xf.MXCSR))


def plain(op: Op, result: Result) -> Result:
    """A result without what may differ on another machine.

    XSTATE_BV may have components that are initial; what XGETBV(1) calls in use also depends on who else ran.
    """
    match value_of(op):
        case None:
            return Result(result.ret)
        case Value.IN_USE if isinstance(result.out, int):
            return Result(result.ret)
        case Value.IMAGE if isinstance(result.out, Image):
            held = tuple((i, token) for i, token in result.out.tokens if token)
            return Result(result.ret, result.out._replace(xstate_bv=_components(held), tokens=held))
    return result
