"""Invariants: the decorator, what a broken one gives, and the checker that applies them to steps."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import xfdfuzz.invariants as package
from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.kernel import event as reports
from xfdfuzz.kernel.event import Event
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.kernel.state import USER_TASKS, Fpstate, System, Task, Vcpu
from xfdfuzz.program.ops.base import GuestOp, Op, TaskOp, VcpuIoctl
from xfdfuzz.program.ops.host import Suspend
from xfdfuzz.program.ops.processes import Execve, ExecveReturns, Exit
from xfdfuzz.program.ops.run import KvmRun, KvmRunReturns
from xfdfuzz.program.step import NOT_ENABLED, PANIC, Step
from xfdfuzz.revisions import RevisionError, concerns

#: Severities, worst first.
SEVERITIES = ("panic", "corruption", "leak", "warn", "abi")
#: Every kind of report that ``events=`` may name.
EVENT_KINDS = tuple(value for name, value in vars(reports).items() if name.isupper() and isinstance(value, str))
#: What an `expect:` line can name.
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class InvariantError(Exception):
    """An invariant, or a package of them, that cannot be used; as text it is one line with its place."""


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
    """A broken invariant in a run.  ``step`` counts from 1."""

    invariant: str
    severity: str
    site: str
    message: str
    step: int

    @property
    def bucket(self) -> str:
        """What makes two violations the same finding, whatever the revision."""
        return f"{self.invariant}@{self.site}" if self.site else self.invariant


class View:
    """What an invariant looks at: a step, and the kernel, whose system is the state after it.

    ``program`` is what was executed, for those that look at the end of it.  What many invariants walk through is
    looked up once.
    """

    # made at every step, so what is looked up begins as a default of the class
    _changed: bool | None = None
    _tasks: list[tuple[int, Task]] | None = None
    _vcpus: list[tuple[int, Vcpu]] | None = None
    _own_fpstates: list[tuple[int, Task, Fpstate]] | None = None
    _installed: list[int] | None = None
    _allocated: list[tuple[int, Fpstate]] | None = None

    def __init__(self, k: Kernel, step: Step, program: tuple[Op, ...] = ()) -> None:
        self.k = k
        self.step = step
        self.program = program

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

    def events(self, kind: str) -> Iterator[Event]:
        """The reports of one kind."""
        return (event for event in self.step.events if event.kind == kind)


Predicate = Callable[[View], Iterable[Broken]]


def component_site(component: int) -> str:
    """The site of a register component: dynamic ones take paths of their own through the kernel, the others one."""
    return xf.NAMES[component] if 1 << component & (xf.MASK_XTILE | xf.MASK_DYN2) else "static"


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
#: Every file that load_file() has executed, by its resolved path, with the name of its module.
_FILES: dict[Path, str] = {}


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
        if known is not None and _source(known.predicate) != _source(predicate):
            raise ValueError(f"invariant {name} exists already ({_place(known.predicate)})")
        if not predicate.__doc__:
            raise ValueError(f"invariant {name}: its docstring must say why a violation is bad")
        INVARIANTS[name] = Invariant(
            name, severity, references, predicate, ops, events, state, at_end, progress, revisions, excluded
        )
        return predicate

    return register


def _source(predicate: Predicate) -> tuple[Path, int]:
    """The real file and the line: a file executed again gives the same invariant again, which is no second one."""
    code: CodeType = predicate.__code__
    return Path(code.co_filename).resolve(), code.co_firstlineno


def _place(predicate: Predicate) -> str:
    """``file:line``."""
    code: CodeType = predicate.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def load(files: Iterable[Path] = ()) -> dict[str, Invariant]:
    """Import the modules of this folder, the entry points of installed packages and the given files.

    Raises OSError for a file that cannot be read, whatever a file raises when it is executed, and InvariantError for a
    package that cannot be loaded.
    """
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for entry in importlib.metadata.entry_points(group="xfdfuzz.invariants"):
        _load_entry(entry)
    for file in files:
        load_file(file)
    return INVARIANTS


@functools.cache
def load_once() -> None:
    """:func:`load`, unless this process has done so: looking for entry points takes longer than judging a program."""
    load()


def _load_entry(entry: importlib.metadata.EntryPoint) -> None:
    try:
        entry.load()
    except (Exception, SystemExit) as error:
        package_name = f" of the package {entry.dist.name}" if entry.dist else ""
        raise InvariantError(
            f"entry point {entry.name} = {entry.value}{package_name}: {type(error).__name__}: {error}"
        ) from error


def load_file(file: Path) -> None:
    """Execute a file that defines invariants; :func:`loaded_files` remembers it."""
    path = file.resolve()
    # files of one name in two folders are two modules
    name = f"xfdfuzz_user_invariants_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(2, "No such file", str(file))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    _FILES[path] = name


def loaded_files() -> list[Path]:
    """The files that :func:`load_file` has executed, in that order, as absolute paths."""
    return list(_FILES)


#: A state invariant, and a way in which it is broken.
StateBroken = tuple[Invariant, Broken]


class Looks(NamedTuple):
    """The invariants that are looked at after an op: those that wait for its reports, those that look at the step
    whatever it reports, and those that speak of the state that it leads to."""

    reports: tuple[Invariant, ...]
    step: tuple[Invariant, ...]
    state: tuple[Invariant, ...]


class Selection:
    """The invariants of one revision, by when they are looked at; one serves every run of a campaign."""

    def __init__(self, invariants: Iterable[Invariant], revision: str) -> None:
        applicable = [inv for inv in invariants if _applies(inv, revision)]
        self.at_end = [inv for inv in applicable if inv.at_end]
        self.each = [inv for inv in applicable if not inv.at_end]
        self._by_op: dict[type[Op], Looks] = {}

    def after(self, op: type[Op]) -> Looks:
        """What is looked at after an ``op``."""
        known = self._by_op.get(op)
        if known is None:
            found = [inv for inv in self.each if not inv.ops or issubclass(op, inv.ops)]
            quiet = [inv for inv in found if not inv.events]
            known = self._by_op[op] = Looks(
                tuple(inv for inv in found if inv.events),
                tuple(inv for inv in quiet if not inv.state),
                tuple(inv for inv in quiet if inv.state),
            )
        return known

    def of_step(self, view: View) -> list[Violation]:
        """What the step itself breaks.  After the death of the host only its reports count."""
        step = view.step
        looks = self._by_op.get(type(step.op)) or self.after(type(step.op))
        found = _of_reports(looks.reports, view) if step.events else []
        if step.result.ret != PANIC:
            for inv in looks.step:
                for broken in inv.look(view):
                    found.append(_violation(inv, view.step, broken))
        return found

    def broken_in(self, view: View) -> list[StateBroken]:
        """What is broken in the state that the step leads to, whether the step broke it or it was so before."""
        found: list[StateBroken] = []
        step = view.step
        if step.result.ret != PANIC:
            for inv in (self._by_op.get(type(step.op)) or self.after(type(step.op))).state:
                for broken in inv.look(view):
                    found.append((inv, broken))
        return found

    def newly_broken(self, step: Step, now: Iterable[StateBroken], before: Iterable[StateBroken]) -> list[Violation]:
        """Of what is broken in the state after a step, what was not broken before it, for an engine that keeps no
        :class:`Checker` beside each of its states."""
        known = {(inv, one.key) for inv, one in before}
        return [_violation(inv, step, one) for inv, one in now if (inv, one.key) not in known]


def _of_reports(waiting: Iterable[Invariant], view: View) -> list[Violation]:
    """What the kernel's reports break."""
    kinds = {event.kind for event in view.step.events}
    judging = [inv for inv in waiting if not kinds.isdisjoint(inv.events)]
    return [_violation(inv, view.step, broken) for inv in judging for broken in inv.look(view)]


def select(revision: str) -> Selection:
    """The invariants that exist now and that are checked on the revision with that name."""
    return _selection(tuple(INVARIANTS.values()), revision)


@functools.cache
def _selection(invariants: tuple[Invariant, ...], revision: str) -> Selection:
    return Selection(invariants, revision)


class Memory(NamedTuple):
    """What a checker remembers: which state invariants are broken for which objects, and what was executed."""

    broken: dict[str, frozenset[int]]
    program: tuple[Op, ...]


class Checker:
    """Applies the invariants of one revision to the steps of one run; with ``only``, no other than that one."""

    def __init__(self, kernel: Kernel, revision: str, only: str = "") -> None:
        self.kernel = kernel
        self._selection = Selection([INVARIANTS[only]], revision) if only else select(revision)
        self._broken: dict[str, frozenset[int]] = {}
        self._program: list[Op] = []

    @property
    def looks_at_end(self) -> bool:
        """Whether any invariant wants to see the drained program."""
        return bool(self._selection.at_end)

    def check(self, step: Step) -> list[Violation]:
        """What ``step`` broke.  After the death of the host only its reports count."""
        if step.result.ret == NOT_ENABLED:
            return []
        self._program.append(step.op)
        view = View(self.kernel, step)
        found = self._selection.of_step(view)
        broken = self._selection.broken_in(view)
        # nearly always nothing is broken and nothing was
        if (broken or self._broken) and step.result.ret != PANIC:
            found += self._newly(view, broken)
        return found

    def memory(self) -> Memory:
        """What it remembers of the steps so far."""
        return Memory(dict(self._broken), tuple(self._program))

    def remember(self, memory: Memory) -> None:
        """Go on as if it had seen those steps."""
        self._broken = dict(memory.broken)
        self._program = list(memory.program)

    def finish(self, last: Step) -> list[Violation]:
        """What the drained program leaves broken."""
        view = View(self.kernel, last, tuple(self._program))
        return [_violation(inv, view.step, broken) for inv in self._selection.at_end for broken in inv.look(view)]

    def _newly(self, view: View, broken: list[StateBroken]) -> list[Violation]:
        """Of what is broken, what was not broken before; a state that stays broken is one violation."""
        found: list[Violation] = []
        for inv in self._selection.after(type(view.step.op)).state:
            known = self._broken.pop(inv.name, frozenset())
            now = [_sound(inv, one) for other, one in broken if other is inv]
            if now:
                self._broken[inv.name] = frozenset(one.key for one in now)
                found += [_violation(inv, view.step, one) for one in now if one.key not in known]
        return found


def _look(inv: Invariant, view: View) -> Iterable[Broken]:
    """What the predicate gives; InvariantError where that is no iterable.  What it raises itself is left alone."""
    given: object = inv.predicate(view)
    if not isinstance(given, Iterable):
        raise _wrong(inv, f"returns {_described(given)}")
    return given


def _sound(inv: Invariant, broken: object) -> Broken:
    """What the predicate gave, if it is what it has to be."""
    if not isinstance(broken, Broken):
        raise _wrong(inv, f"gives {_described(broken)}")
    return broken


def _wrong(inv: Invariant, what: str) -> InvariantError:
    return InvariantError(f"{_place(inv.predicate)}: invariant {inv.name} {what}: expected an iterable of Broken")


def _described(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _applies(inv: Invariant, revision: str) -> bool:
    try:
        return inv.applies_to(revision)
    except RevisionError:
        return not inv.revisions


def _violation(inv: Invariant, step: Step, broken: Broken) -> Violation:
    site = _sound(inv, broken).site or _site_of(step.op)
    return Violation(inv.name, inv.severity, site, broken.message, step.number)


_OWN_SITE = (KvmRun, KvmRunReturns, VcpuIoctl, Execve, ExecveReturns, Exit, Suspend)


def _site_of(op: Op) -> str:
    """Where an op shows what its kernel functions did; ops that take the same way through the kernel are one site.

    Every exiting instruction leaves the guest alike, and every system call or user instruction enters user mode alike,
    but for those that have more to do to registers and buffers.
    """
    if isinstance(op, GuestOp):
        return "vm-exit"
    if isinstance(op, TaskOp) and not isinstance(op, _OWN_SITE):
        return "task"
    return type(op).__name__
