"""A violation that is tried again: what of the system it was read from, and whether another system shows it, too."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from xfdfuzz.engines.judge.leaves import Leaf, leaves
from xfdfuzz.invariants.vocabulary import Invariant, Keeper, NoAnswer, View, made
from xfdfuzz.kernel.state import System
from xfdfuzz.memory.cstruct import Regions
from xfdfuzz.memory.traced import Footprint, traced
from xfdfuzz.program.executor import perform
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import PANIC, Step
from xfdfuzz.revisions import Revision

_SIZE: int = ctypes.sizeof(System)  # type: ignore[arg-type]
#: What code raises that finds a state which cannot be; in a user's invariant or series that may be anything.
_FAILURES = (Exception, SystemExit, NoAnswer)


class Case(NamedTuple):
    """That an invariant gives a message of a step; ``program`` is what it is shown if it looks at the end of one."""

    invariant: Invariant
    message: str
    step: Step
    program: tuple[Op, ...] = ()


class Read(NamedTuple):
    """What a violation was read from: by the invariant, ``behind`` the step and ``before`` it, and by the step itself
    of the state that it ``found``."""

    behind: Sequence[Leaf]
    before: Sequence[Leaf]
    found: Sequence[Leaf]


class Bench:
    """The kernels of one revision on one machine for trials: one on ordinary memory, one on memory that notes reads."""

    def __init__(self, program: Program, revision: Revision) -> None:
        self._kernel = revision.kernel(program.machine)
        self._noting = revision.kernel(program.machine)
        self._keep: Keeper = functools.cache(made)
        self._before, self._behind = Footprint(_SIZE), Footprint(_SIZE)
        system = traced(System, self._behind.now)
        self._noting.bind(system, system)
        self._executed: tuple[Step, int] | None = None

    def read(self, case: Case) -> Read:
        """What the case was read from; nothing where the invariant cannot be asked twice."""
        try:
            behind, before = self._by_invariant(case)
            found = [] if case.program else self._by_step(case.step)
            sound = case.message in self._said(case, case.step.state, bytes(case.step.after))
        except _FAILURES:
            sound = False
        return Read(behind, before, found) if sound else Read((), (), ())

    def matters(self, case: Case, leaf: Leaf, value: int, *, found: bool) -> bool:
        """Whether it matters that there is not that ``value``.

        If the step ``found`` the leaf as it is, the step is executed again, and then the violation has to end.  Else
        the invariant looks again at the states before and behind the step, and the violation has to end or to change.
        """
        before, behind = bytearray(case.step.state), bytearray(bytes(case.step.after))
        if found or leaf.of(before) == leaf.of(behind):
            leaf.put(before, value)
        leaf.put(behind, value)
        try:
            if found:
                return not self._said_again(case, bytes(before))
            return case.message not in self._said(case, bytes(before), bytes(behind))
        except _FAILURES:  # a state that cannot be says nothing
            return False

    def _said(self, case: Case, before: bytes, behind: bytes) -> list[str]:
        """What the invariant says of the step between two states, on the CPU that executed it."""
        k, step = self._kernel, case.step
        cpu = self._cpu(step)
        k.load(behind)
        k.on_cpu(cpu)
        looked_at = Step(step.number, step.op, before, k.system, step.result, step.events)
        return _messages(case, View(k, looked_at, case.program, self._keep))

    def _said_again(self, case: Case, before: bytes) -> list[str]:
        """What it says of the step when it is executed once more; the same where that cannot be told."""
        k, step = self._kernel, case.step
        k.load(before)
        if not step.op.enabled(k):
            return [case.message]
        result = perform(step.op, k)
        if result.ret == PANIC != step.result.ret:
            return [case.message]
        return _messages(case, View(k, Step(step.number, step.op, before, k.system, result, tuple(k.events))))

    def _cpu(self, step: Step) -> int:
        """The CPU that executes when the step has been executed; dozens of trials are of one step."""
        if self._executed is None or self._executed[0] is not step:
            self._kernel.load(step.state)
            perform(step.op, self._kernel)
            self._executed = step, self._kernel.cpu
        return self._executed[1]

    def _by_invariant(self, case: Case) -> tuple[list[Leaf], list[Leaf]]:
        """What it reads behind the step and of the state before it."""
        step = case.step
        self._on(bytes(step.after), self._cpu(step))
        self._before.begin(step.state)
        noting = _NotingStep(step, self._before, self._behind, self._noting.system)
        _messages(case, View(self._noting, noting, case.program, self._keep))
        return leaves(self._behind.reads), leaves(self._before.reads)

    def _by_step(self, step: Step) -> list[Leaf]:
        """What the step reads of the state that it finds."""
        self._on(step.state, 0)
        perform(step.op, self._noting)
        return leaves(self._behind.reads)

    def _on(self, state: bytes, cpu: int) -> None:
        """Let the noting kernel be on a CPU in that state, of which nothing was read."""
        self._behind.begin(state)
        self._noting.on_cpu(cpu)
        self._behind.begin(state)


def _messages(case: Case, view: View) -> list[str]:
    return [case.invariant.sound(broken).message for broken in case.invariant.look(view)]


class _NotingStep(Step):
    """A step whose two states note what is read of them."""

    __slots__ = ("_sides",)

    def __init__(self, step: Step, before: Footprint, behind: Footprint, system: Any) -> None:
        self.number, self.op, self.result, self.events = step.number, step.op, step.result, step.events
        self.after, self._before = system, traced(System, before.now)
        self._sides = before.now, behind.now

    @property
    def state(self) -> bytes:  # type: ignore[override]
        """The system before, as its bytes; who looks at all of them has read all of them."""
        return bytes(self.before)

    def changed(self, where: Regions | None = None) -> bool:
        """Whether anything differs; who asks has read what does."""
        before, behind = self._sides
        differing = [
            at
            for start, size in ([(0, _SIZE)] if where is None else where.places)
            for at in range(start, start + size)
            if before.memory[at] != behind.memory[at]
        ]
        for at in differing:
            before.read(at, 1)
            behind.read(at, 1)
        return bool(differing)
