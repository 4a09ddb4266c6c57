"""Operations that are ops of a program already, as `xfdfuzz live --record` writes them."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.engines.conform.fields import Field
from xfdfuzz.engines.conform.recording import Malformed, Operation
from xfdfuzz.engines.conform.session import Session
from xfdfuzz.engines.conform.translator import translates
from xfdfuzz.engines.judge.verdict import gives
from xfdfuzz.native.agreement import plain
from xfdfuzz.program.step import Mask
from xfdfuzz.program.text import ProgramError, parse_op


@translates("xfd")
def line_of_a_program(s: Session, o: Operation) -> Iterator[Field]:
    """The line of an op, and what it came to, without what differs from machine to machine."""
    assert o.result is not None
    try:
        (line,) = o.args
        op = parse_op(line)
    except (ProgramError, ValueError):
        raise Malformed("one argument, the line of an op") from None
    recorded, model = o.result["gives"], plain(op, s.do(op))
    # recordings of before have masks as numbers
    same_mask = isinstance(model.out, Mask) and "[" in recorded and gives(model, recorded)
    yield Field("gives", recorded, recorded if same_mask else str(model))
