"""What may not be run on a host: what the model says can panic or corrupt it, or leak, on a kernel like it.

The host's kernel has fixes, and lacks some, that its version does not tell.  So every op is done on several revisions
first: the nearest one and what lies around it on mainline.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from xfdfuzz.invariants.checker import Checker
from xfdfuzz.invariants.loading import load_once
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import NULL
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision, resolve
from xfdfuzz.revisions.table import MAINLINE

#: Severities of what a host may suffer by.
_SEVERE = {"panic", "corruption", "leak"}


class Danger(NamedTuple):
    """What an op breaks, and on which revision."""

    revision: str
    violation: Violation

    def __str__(self) -> str:
        return f"{self.violation.bucket} ({self.violation.severity}) on {self.revision}"


def severities() -> set[str]:
    """The severities that count: warnings, too, where the host panics at one."""
    panics = Path("/proc/sys/kernel/panic_on_warn")
    return _SEVERE | ({"warn"} if panics.exists() and panics.read_text().strip() != "0" else set())


def neighbours(revision: Revision, release: str) -> tuple[Revision, ...]:
    """The revision, and what a host may be of mainline that it is held to be like: from the last that its release is
    not before, which it has all fixes of, to the next behind the revision, of which it may have some."""
    place = _place(revision.name)
    near = [*MAINLINE][min(place, _place(release)) : place + 2]
    return tuple({one.label: one for one in (revision, *map(resolve, near))}.values())


def _place(name: str) -> int:
    """Of the last on mainline that is not later than that version, or of the first."""
    older = [place for place, one in enumerate(MAINLINE) if _version(one) <= _version(name)]
    return older[-1] if older else 0


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name)[:3])


class Lookout:
    """A program on all of them, an op ahead of the host."""

    def __init__(self, revisions: Sequence[Revision], machine: Machine) -> None:
        load_once()
        self._severe = severities()
        self._sides = [_Side(revision, machine) for revision in revisions]

    def ahead(self, op: Op) -> Danger | None:
        """What is wrong with going on with the op; if nothing is, it is done."""
        for side in self._sides:
            side.begin()
        for side in self._sides:
            for violation in side.go_on(op):
                if violation.severity in self._severe:
                    self._back()
                    return Danger(side.name, violation)
        return None

    def again(self) -> None:
        """Begin anew."""
        for side in self._sides:
            side.again()

    def _back(self) -> None:
        for side in self._sides:
            side.back()


#: What stands in front of the registers in a struct fpstate, ALIGN(offsetof(struct fpstate, regs), 64), in bytes.
_BEFORE_REGS = 64
_PAGE = 4096


def _in_whole_pages(kernel: type[Kernel]) -> type[Kernel]:
    class WholePages(kernel):  # type: ignore[misc, valid-type]
        """vmalloc() gives whole pages: a host does not suffer by what an allocation lacks within its last one."""

        def vzalloc(self, size: int) -> int:
            nr: int = super().vzalloc(size)
            if nr != NULL:
                self.fpstates[nr].alloc_size = -(-(size + _BEFORE_REGS) // _PAGE) * _PAGE - _BEFORE_REGS
            return nr

    return WholePages


class _Side:
    """One revision."""

    def __init__(self, revision: Revision, machine: Machine) -> None:
        self.name = revision.label
        self._executor = Executor(_in_whole_pages(revision.kernel), machine)
        self._checker = Checker(self._executor.kernel, revision.name)
        self._booted = self._saved = (self._executor.kernel.state, self._checker.memory())

    def again(self) -> None:
        self._saved = self._booted
        self.back()

    def begin(self) -> None:
        self._saved = (self._executor.kernel.state, self._checker.memory())

    def back(self) -> None:
        state, memory = self._saved
        self._executor.load(state)
        self._checker.remember(memory)

    def go_on(self, op: Op) -> Iterator[Violation]:
        """What the op breaks, and what does if all that is under way comes to its end then."""
        yield from self._checker.check(self._executor.execute(op))
        state, memory = self._executor.kernel.state, self._checker.memory()
        for step in self._executor.draining():
            yield from self._checker.check(step)
        self._executor.load(state)
        self._checker.remember(memory)


def danger_of(program: Program, revisions: Sequence[Revision], machine: Machine) -> tuple[int, Danger] | None:
    """The first op that may not be run, counted from 1, and why."""
    lookout = Lookout(revisions, machine)
    for number, op in enumerate(program.ops, 1):
        found = lookout.ahead(op)
        if found:
            return number, found
    return None
