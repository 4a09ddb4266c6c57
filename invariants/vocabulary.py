"""What an invariant is written with: the decorator, the view that it looks at, and what a broken one gives."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple, TypeVar

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel import event as reports
from xfdfuzz.kernel.event import Event
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import USER_TASKS, Fpstate, System, Task, Vcpu
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import Step
from xfdfuzz.revisions import concerns

T = TypeVar("T")

#: What the kernel did as it was told, and the VMM did not tell it what it meant to.
VMM = "vmm"
#: Severities, worst first.
SEVERITIES = ("panic", "corruption", "leak", "warn", "abi", VMM)
#: Every kind of report that ``events=`` may name.
EVENT_KINDS = tuple(value for name, value in vars(reports).items() if name.isupper() and isinstance(value, str))
#: What an `expect:` line can name.
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class InvariantError(Exception):
    """An invariant, or a package of them, that cannot be used; as text it is one line with its place."""


class NoAnswer(BaseException):
    """A user's function does not return; as text it is one line with its place.  ``program`` leads there, if anybody
    knew.

    Not an Exception, so that neither Hypothesis nor that function takes it for one of its own.
    """

    program: Program | None = None


class Broken(NamedTuple):
    """One way in which an invariant is broken.

    ``message`` says what was seen, in a sentence; ``site`` is where, for the bucket (a kernel function, a component,
    the op); ``key`` tells apart the objects that a state invariant speaks of.
    """

    message: str
    site: str = ""
    key: int = 0


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant in a run.  ``step`` counts from 1.

    ``shape`` is the way on which the kernel came to what it reported, as ``os_xrstor <- switch_fpu_return``; empty for
    what no report shows.
    """

    invariant: str
    severity: str
    site: str
    message: str
    step: int
    shape: str = ""

    @property
    def bucket(self) -> str:
        """What makes two violations the same finding, whatever the revision."""
        return f"{self.invariant}@{self.site}" if self.site else self.invariant

    @property
    def kind(self) -> str:
        """The bucket and the shape: what tells two bugs apart that have one bucket, as far as that can be told."""
        return f"{self.bucket} in {self.shape}" if self.shape else self.bucket


def invariant_of(bucket: str) -> str:
    """The name of the invariant that a bucket, or a kind, is of."""
    name = _NAME.match(bucket)
    return name[0] if name else ""


def made(make: Callable[[type[Kernel], Machine], T], kernel: type[Kernel], machine: Machine) -> T:
    """What an invariant wants to keep, made anew."""
    return make(kernel, machine)


#: What gives that: :func:`made`, or one who remembers what it gave.
Keeper = Callable[..., Any]


class View:
    """What an invariant looks at: a step, and the kernel, whose system is the state after it.

    ``program`` is what was executed, for those that look at the end of it, and ``kept`` what they go on with from one
    program to the next.  What many invariants walk through is looked up once.
    """

    # made at every step, so what is looked up begins as a default of the class
    _changed: bool | None = None
    _tasks: list[tuple[int, Task]] | None = None
    _vcpus: list[tuple[int, Vcpu]] | None = None
    _own_fpstates: list[tuple[int, Task, Fpstate]] | None = None
    _installed: list[int] | None = None
    _allocated: list[tuple[int, Fpstate]] | None = None

    def __init__(self, k: Kernel, step: Step, program: tuple[Op, ...] = (), keep: Keeper = made) -> None:
        self.k = k
        self.step = step
        self.program = program
        self._keep = keep

    @property
    def before(self) -> System:
        """The state before the step."""
        return self.step.before

    @property
    def changed(self) -> bool:
        """Whether the step changed anything: many do not, and comparing all is quicker than looking into a part."""
        if self._changed is None:
            self._changed = self.step.changed()
        return self._changed

    @property
    def vcpu_nr(self) -> int:
        """The vCPU that the op is about, where all of ``ops=`` are about one."""
        nr: int = self.step.op.vcpu  # type: ignore[attr-defined]
        return nr

    @property
    def tasks(self) -> list[tuple[int, Task]]:
        """The user tasks that exist."""
        if self._tasks is None:
            self._tasks = [(nr, task) for nr, task in enumerate(self.k.tasks[:USER_TASKS]) if task.exists]
        return self._tasks

    @property
    def vcpus(self) -> list[tuple[int, Vcpu]]:
        """The vCPUs that exist."""
        if self._vcpus is None:
            self._vcpus = [(nr, vcpu) for nr, vcpu in enumerate(self.k.vcpus) if vcpu.exists]
        return self._vcpus

    @property
    def own_fpstates(self) -> list[tuple[int, Task, Fpstate]]:
        """Each user task with its own fpstate, installed or put aside."""
        if self._own_fpstates is None:
            fpstates = self.k.fpstates
            self._own_fpstates = [
                (nr, task, fpstates[task.fpu.task_fpstate or task.fpu.fpstate]) for nr, task in self.tasks
            ]
        return self._own_fpstates

    @property
    def installed(self) -> list[int]:
        """What the tasks have installed, kernel threads too: a number of an fpstate, or NULL, for each."""
        if self._installed is None:
            self._installed = [task.fpu.fpstate for task in self.k.tasks if task.exists]
        return self._installed

    @property
    def allocated(self) -> list[tuple[int, Fpstate]]:
        """The fpstates that there are."""
        if self._allocated is None:
            self._allocated = [(nr, fpstate) for nr, fpstate in enumerate(self.k.fpstates) if fpstate.allocated]
        return self._allocated

    def kept(self, make: Callable[[type[Kernel], Machine], T]) -> T:
        """What ``make`` gives for this kernel on this machine, another system to run it on, say; the same one again for
        a later program, if it is not long ago."""
        kept: T = self._keep(make, type(self.k), self.k.machine)
        return kept

    def events(self, kind: str) -> Iterator[Event]:
        """The reports of one kind."""
        return (event for event in self.step.events if event.kind == kind)


Predicate = Callable[[View], Iterable[Broken]]


def component_site(component: int) -> str:
    """The site of a register component: dynamic ones and MXCSR take paths of their own through the kernel, the others
    one."""
    own_path = 1 << component & (xf.MASK_XTILE | xf.MASK_DYN2 | xf.MASK_MXCSR)
    return xf.CONTENTS[component] if own_path else "static"


@dataclass(frozen=True, slots=True, eq=False)
class Invariant:
    """A named predicate.  Two are equal when they are the same object, which keeps hashing them cheap.

    ``ops``: the op classes after which it is looked at (empty: all).  ``events``: report kinds that it judges; it is
    called only when there is one.  ``state``: it speaks of a state, so it counts when it *becomes* false.  ``at_end``:
    it is looked at once, after the program was drained.  ``progress``: what it finds may wait, but not while these ops
    happen again and again; the exhaustive engine looks for such a cycle.  ``revisions``: `expect:`-style selections
    (empty: all); ``excluded`` are taken out.  ``look`` is the predicate, or raises InvariantError where that gives no
    iterable.
    """

    name: str
    severity: str
    references: tuple[str, ...]
    predicate: Predicate
    ops: tuple[type[Op], ...]
    events: tuple[str, ...]
    state: bool
    at_end: bool
    progress: tuple[type[Op], ...]
    revisions: tuple[str, ...]
    excluded: tuple[str, ...]
    look: Predicate = field(init=False)

    def __post_init__(self) -> None:
        # nearly all are generator functions, which need no watching: there are ten looks a step
        watched = not inspect.isgeneratorfunction(self.predicate)
        object.__setattr__(self, "look", functools.partial(_look, self) if watched else self.predicate)

    def sound(self, given: object) -> Broken:
        """One of the things that the predicate gave, if it is what it has to be; else InvariantError."""
        if not isinstance(given, Broken):
            raise _wrong(self, f"gives {_described(given)}")
        return given

    @property
    def doc(self) -> str:
        """Why a violation is bad."""
        return " ".join((self.predicate.__doc__ or "").split())

    def applies_to(self, revision: str) -> bool:
        """Whether it is checked on the revision with that name."""
        if any(concerns(spec, revision) for spec in self.excluded):
            return False
        return not self.revisions or any(concerns(spec, revision) for spec in self.revisions)


#: Every invariant by name.
INVARIANTS: dict[str, Invariant] = {}


def invariant(
    name: str,
    severity: str,
    references: tuple[str, ...] = (),
    *,
    ops: tuple[type[Op], ...] = (),
    events: tuple[str, ...] = (),
    state: bool = False,
    at_end: bool = False,
    progress: tuple[type[Op], ...] = (),
    revisions: tuple[str, ...] = (),
    excluded: tuple[str, ...] = (),
) -> Callable[[Predicate], Predicate]:
    """Register an invariant; its docstring is what reports print under "why this is bad".

    Raises ValueError for a name, severity or kind of report that cannot be used, and for a second one of the same name.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"invariant {name}: expected a name in kebab-case, such as no-realloc-on-enter")
    if severity not in SEVERITIES:
        raise ValueError(f"invariant {name}: severity {severity!r} is none of {', '.join(SEVERITIES)}")
    for kind in events:
        if kind not in EVENT_KINDS:
            raise ValueError(f"invariant {name}: event {kind!r} is none of {', '.join(EVENT_KINDS)}")

    def register(predicate: Predicate) -> Predicate:
        known = INVARIANTS.get(name)
        if known is not None and defined_at(known.predicate) != defined_at(predicate):
            raise ValueError(f"invariant {name} exists already ({_place(known.predicate)})")
        if not predicate.__doc__:
            raise ValueError(f"invariant {name}: its docstring must say why a violation is bad")
        INVARIANTS[name] = Invariant(
            name, severity, references, predicate, ops, events, state, at_end, progress, revisions, excluded
        )
        return predicate

    return register


def defined_at(predicate: Callable[..., object]) -> tuple[Path, int]:
    """The real file and the line: a file executed again gives the same invariants and goals again, no second ones."""
    code: CodeType = predicate.__code__
    return Path(code.co_filename).resolve(), code.co_firstlineno


def _place(predicate: Predicate) -> str:
    """``file:line``."""
    code: CodeType = predicate.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def _look(inv: Invariant, view: View) -> Iterable[Broken]:
    """What the predicate gives; InvariantError where that is no iterable.  What it raises itself is left alone."""
    given: object = inv.predicate(view)
    if not isinstance(given, Iterable):
        raise _wrong(inv, f"returns {_described(given)}")
    return given


def _wrong(inv: Invariant, what: str) -> InvariantError:
    return InvariantError(f"{_place(inv.predicate)}: invariant {inv.name} {what}: expected an iterable of Broken")


def _described(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
