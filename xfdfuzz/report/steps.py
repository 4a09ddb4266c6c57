"""A program as its ops alone, for where it is an example and not what is reported."""

from __future__ import annotations

from rich.console import Console

from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_op, format_program
from xfdfuzz.report.console import line
from xfdfuzz.report.hiding import NOT_SHOWN, Hidden


def terminal(out: Console, program: Program, indent: str, *, machine: bool = False) -> None:
    """A line for each op, with its number; the ``machine`` above them, where it is not a scope's."""
    if isinstance(program, Hidden):
        line(out, indent, NOT_SHOWN)
        return
    if machine:
        line(out, indent, (" ".join(("   machine", *program.machine.words())), "dim"))
    for number, op in enumerate(program.ops, 1):
        line(out, indent, (f"{number:4}  ", "dim"), format_op(op))


def as_object(program: Program | None) -> str | None:
    """The text of its file, if there is one that is shown."""
    return None if program is None or isinstance(program, Hidden) else format_program(program)
