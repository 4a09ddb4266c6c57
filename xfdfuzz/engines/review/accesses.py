"""Who writes a field and who reads it, observed while every op is executed in every state of a space.

What stands in the field counts as read by every op, or one that sets it blindly would be seen to set what is clear and
not to overwrite what waits.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import FrameType

from xfdfuzz.engines.review.cases import Cases
from xfdfuzz.engines.review.rows import Rows
from xfdfuzz.engines.review.space import Space
from xfdfuzz.engines.review.subjects import Subject
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.base import SEAMS, KernelBase, kernel_name
from xfdfuzz.memory.traced import Place, Watched
from xfdfuzz.program.ops.base import Op


class Action(Enum):
    """What somebody does to a field; one that is set again gets the value that it has."""

    SETS = "sets it"
    CLEARS = "clears it"
    OVERWRITES = "overwrites it while it is set"
    REPEATS = "sets it again while it is set"
    READS = "reads it"

    @property
    def writes(self) -> bool:
        """Whether it is a write."""
        return self is not Action.READS


@dataclass
class Access:
    """What one function does to the field: a kernel function or, with an op, the hardware, by the op's class name.

    ``callers`` are the functions that call it then; ``state`` and ``op`` are where it does so first, after the fewest
    ops.
    """

    action: Action
    function: str
    state: int
    op: int
    callers: dict[str, None] = field(default_factory=dict)


def accesses(space: Space, subject: Subject) -> list[Access]:
    """All of them, writers first, each at the end of a shortest way."""
    observer = _Observer(space, subject)
    for state in range(len(space.states)):
        observer.look(state, space.states[state])
    order = list(Action)
    return sorted(observer.found.values(), key=lambda one: (order.index(one.action), one.state, one.function))


class _Observer:
    """A kernel on a system that tells of accesses to one field."""

    def __init__(self, space: Space, subject: Subject) -> None:
        self._kernel = space.revision.kernel(space.scope.machine)
        self._column, self._rows = subject.column, Rows(subject.of, space.scope.machine.cpus)
        size: int = ctypes.sizeof(st.System)  # type: ignore[arg-type]
        self._footprint = Watched(size, self._rows.possible_places(self._column), self._accessed)
        self.found: dict[tuple[Action, str], Access] = {}
        #: None while the kernel is made, which reads something, too.
        self._cases: Cases | None = None
        expander, decisive = space.search.expander, partial(self._rows.decisive, self._column)
        self._cases = Cases(expander, self._kernel, self._footprint, decisive)

    def look(self, state: int, packed: bytes) -> None:
        """Execute what was not executed so far, of all that can happen in a state."""
        assert self._cases is not None
        self._cases.look(state, packed)

    def _accessed(self, place: Place, new: bytes | None) -> None:
        if self._cases is None or self._cases.now is None:
            return
        memory = self._footprint.now.memory
        if place not in self._rows.places_now(self._column, memory):
            return
        action = _action(bytes(memory[place[0] : sum(place)]), new)
        if action is None:
            return
        names = _callers(sys._getframe(2), self._kernel)
        known = self.found.setdefault((action, names[0]), Access(action, names[0], *self._cases.now))
        known.callers.update(dict.fromkeys(names[1:2]))


def _action(old: bytes, new: bytes | None) -> Action | None:
    """What it is to find the old value, or to write a new one; None for clearing what is clear."""
    if new is None:
        return Action.READS
    if old == new:
        return Action.REPEATS if any(new) else None
    if not any(old):
        return Action.SETS
    return Action.OVERWRITES if any(new) else Action.CLEARS


def _callers(frame: FrameType | None, kernel: KernelBase) -> tuple[str, ...]:
    """The kernel functions that are being executed, the innermost first, or the op that does something itself."""
    names: list[str] = []
    while frame is not None:
        owner, method = frame.f_locals.get("self"), frame.f_code.co_name
        if isinstance(owner, Op):
            return tuple(names) or (type(owner).__name__,)
        if owner is kernel and method not in SEAMS and (not names or names[-1] != kernel_name(method)):
            names.append(kernel_name(method))
        frame = frame.f_back
    return tuple(names) or ("?",)
