"""Whether a host shows what the model says: as far as it is the same on every machine."""

from __future__ import annotations

from xfdfuzz.engines.live import kvm as _kvm  # noqa: F401  (what carries ops out)
from xfdfuzz.native.values import Value, value_of
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import Image, Result


def same(op: Op, model: Result, host: Result) -> bool:
    """Whether both say the same of an op."""
    if model.ret != host.ret:
        return False
    one, other = model.out, host.out
    match value_of(op):
        case None:
            return True
        case Value.IN_USE:
            # processors may say that more is in use than was written
            return isinstance(one, int) and isinstance(other, int) and not one & ~other
        case Value.IMAGE:
            return _contents(one) == _contents(other)
    return one == other


def _contents(image: object) -> object:
    """What is not initial: XSTATE_BV may have components that are, on a real processor."""
    if not isinstance(image, Image):
        return image
    return image.xcomp_bv, {i: token for i, token in image.tokens if token}
