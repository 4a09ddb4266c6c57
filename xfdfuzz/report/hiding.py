"""Programs that are left out where the public reads: what stands in their place says so (SECURITY.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from xfdfuzz.engines.review.survival import Break
from xfdfuzz.program.program import Program
from xfdfuzz.report.privacy import CURRENT, for_everybody
from xfdfuzz.revisions import Revision

T = TypeVar("T")
#: What is told instead of a program.
NOT_SHOWN = f"not shown here: it may be a vulnerability of {CURRENT} (SECURITY.md)"


class Hidden(Program):
    """A program of which nothing is shown."""


def hide(found: T, revisions: tuple[Revision, ...]) -> T:
    """What was found on those, with each program that is not for everybody replaced by a :class:`Hidden` one."""
    hidden: T = _hidden(found, lambda program: not for_everybody(program, revisions))
    return hidden


def _hidden(value: Any, private: Callable[[Program], bool]) -> Any:
    if isinstance(value, Program):
        return Hidden(value.machine, ()) if private(value) else value
    if isinstance(value, Break) and private(value.program):
        return replace(value, program=Hidden(value.program.machine, ()), behind="")
    if isinstance(value, Revision):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        changed = {one.name: _hidden(getattr(value, one.name), private) for one in fields(value) if one.init}
        return replace(value, **changed)
    if isinstance(value, tuple):
        parts = [_hidden(one, private) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
