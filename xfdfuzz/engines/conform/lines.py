"""Operations that are ops of a program already, as `xfdfuzz live --record` writes them."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.engines.conform.fields import Field
from xfdfuzz.engines.conform.recording import Malformed, Operation
from xfdfuzz.engines.conform.session import Session
from xfdfuzz.engines.conform.translator import translates
from xfdfuzz.native.agreement import plain
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
    yield Field("gives", o.result["gives"], str(plain(op, s.do(op))))
