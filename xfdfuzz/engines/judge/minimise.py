"""From a violating program to the plainest one that shows the same bucket, on the plainest machine.

It works on the program, not on what an engine drew, so the result does not depend on how it was drawn: no op, no two
ops and no stretch of ops can be left out, the machine has no switch that does not matter, numbers and values are the
first of their kind, and what can trade places stands in one order.

A pass gives the programs that are plainer than one in some respect, the boldest first; :func:`reduce` takes the first
of them that still shows the bucket, and asks again.  To add one, write a function and put it into :data:`PASSES`.  It
need not know what an op does, as ops that cannot happen do no harm and are left out later, but each of its programs has
to be plainer than the one before in the same sense, or it would never end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any, NamedTuple

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.invariants.checker import Checker, Memory
from xfdfuzz.invariants.loading import load_once
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.fields import Msrs, UserImage
from xfdfuzz.program.ops.base import OPS, GuestOp, Op
from xfdfuzz.program.ops.guest import GuestTileload, GuestVmovups, GuestWrmsr, GuestXrstor, GuestXsetbv
from xfdfuzz.program.ops.kvm import KvmSetMsrs, KvmSetXcrs
from xfdfuzz.program.ops.run import KvmRun, KvmRunReturns
from xfdfuzz.program.ops.xsave import KvmSetXsave
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED
from xfdfuzz.program.templates import format_op
from xfdfuzz.revisions import Revision
from xfdfuzz.strategies.boots import BOOTS
from xfdfuzz.strategies.values import domains, kinds

Test = Callable[[Program], bool]
Pass = Callable[[Program], Iterator[Program]]
Ops = tuple[Op, ...]


def shows(program: Program, revision: Revision, bucket: str) -> bool:
    """Whether the program breaks that bucket on the revision."""
    return Shows(revision, bucket)(program)


def for_ever() -> bool:
    """There is time."""
    return True


def minimise(program: Program, revision: Revision, bucket: str, in_time: Callable[[], bool] = for_ever) -> Program:
    """The plainest program of the same bucket, with its results filled in; ``program`` itself must show it.

    It is the plainest that was found while there was still time.
    """
    still = Shows(revision, bucket)
    smallest = reduce(program, lambda candidate: in_time() and still(candidate))
    results = judge(smallest, revision, expectations=False).results
    return with_results(smallest, results)


def reduce(program: Program, still: Test) -> Program:
    """The plainest program for which ``still`` holds, as it does for ``program``; without results."""
    refuted: set[Program] = set()
    before = None
    while program != before:
        before = program
        for plainer in PASSES:
            program = _taken(program, plainer, still, refuted)
    return program


def _taken(program: Program, plainer: Pass, still: Test, refuted: set[Program]) -> Program:
    """Take plainer programs as long as one of them still shows it, going on where the last one was found."""
    place = 0
    while True:
        candidates = [*plainer(program)]
        for tried in range(len(candidates)):
            candidate = candidates[(place + tried) % len(candidates)]
            if candidate in refuted:
                continue
            if still(candidate):
                program, place = candidate, place + tried
                break
            refuted.add(candidate)
        else:
            return program


def with_results(program: Program, results: Sequence[str]) -> Program:
    """The results filled in, one per op, and the ops left out that were not enabled."""
    kept = [(op, text) for op, text in zip(program.ops, results, strict=True) if text != NOT_ENABLED]
    return replace(program, ops=tuple(op for op, _ in kept), results=tuple(text for _, text in kept))


# -- whether a candidate still shows it --------------------------------------------------------------------------------


class Shows:
    """Whether programs break a bucket on a revision.

    Candidates have much in common with each other, so on each machine one goes on from where it parts with the one
    before, and nothing but the bucket's invariant is looked at.
    """

    def __init__(self, revision: Revision, bucket: str) -> None:
        load_once()
        self._revision, self._bucket = revision, bucket
        self._paths: dict[Machine, _Path] = {}

    def __call__(self, program: Program) -> bool:
        """Whether this one does."""
        path = self._paths.get(program.machine)
        if path is None:
            executor = Executor(self._revision.kernel, program.machine)
            checker = Checker(executor.kernel, self._revision.name, only=self._bucket.partition("@")[0])
            path = self._paths[program.machine] = _Path(executor, checker)
        return any(violation.bucket == self._bucket for found in path.follow(program.ops) for violation in found)


class _Path:
    """Where the ops of a program lead, one after another."""

    def __init__(self, executor: Executor, checker: Checker) -> None:
        self._executor, self._checker = executor, checker
        self._steps = [_Reached(None, [], executor.kernel.state, checker.memory())]

    def follow(self, ops: Ops) -> Iterator[list[Violation]]:
        """What each of the ops breaks, and in the end the drained program."""
        executor, checker, steps = self._executor, self._checker, self._steps
        done = 0
        for reached, op in zip(steps[1:], ops, strict=False):
            if reached.op != op:
                break
            yield reached.found
            done += 1
        del steps[done + 1 :]
        executor.load(steps[-1].state, done)
        checker.remember(steps[-1].memory)
        for op in ops[done:]:
            found = checker.check(executor.execute(op))
            steps.append(_Reached(op, found, executor.kernel.state, checker.memory()))
            yield found
        if checker.looks_at_end and (last := executor.drain()):
            yield checker.finish(last)


class _Reached(NamedTuple):
    """Where an op has led to, and what it broke."""

    op: Op | None
    found: list[Violation]
    state: bytes
    memory: Memory


# -- passes ------------------------------------------------------------------------------------------------------------


def without_ops(program: Program) -> Iterator[Program]:
    """Without some ops that follow each other: halves first, then quarters, at last single ones, from the back."""
    length = len(program.ops)
    while length > 1:
        length //= 2
        for start in range(len(program.ops) - length, -length, -length):
            yield _with(program, program.ops[: max(start, 0)] + program.ops[start + length :])


def behind_another_boot(program: Program) -> Iterator[Program]:
    """With a boot in place of more ops than it has."""
    for boot in dict.fromkeys(BOOTS):
        ops = boot(program.machine)
        for start in range(len(ops) + 1, len(program.ops)):
            yield _with(program, (*ops, *program.ops[start:]))


def from_outside(program: Program) -> Iterator[Program]:
    """With what a guest sets in KVM_RUN set by ioctls in its place, or one of them before it."""
    ops = program.ops
    for start, begin in enumerate(ops):
        if not isinstance(begin, KvmRun):
            continue
        before: list[Op] = []
        for place, op in enumerate(ops[start + 1 :], start + 1):
            if isinstance(op, KvmRunReturns) and op.task == begin.task:
                yield _with(program, (*ops[:start], *before, *ops[place + 1 :]))
                break
            if isinstance(op, GuestOp) and op.vcpu == begin.vcpu:
                for ioctl in _same_from_outside(begin.task, op):
                    before.append(ioctl)
                    yield _with(program, (*ops[:start], ioctl, *ops[start:place], *ops[place + 1 :]))


def _same_from_outside(task: int, op: GuestOp) -> Iterator[Op]:
    if isinstance(op, GuestXsetbv):
        yield KvmSetXcrs(task, op.vcpu, op.xcr0)
    elif isinstance(op, GuestWrmsr):
        yield KvmSetMsrs(task, op.vcpu, Msrs(((op.msr, op.value),)))
    elif isinstance(op, GuestTileload):
        yield KvmSetXsave(task, op.vcpu, UserImage(xf.MASK_XTILE, op.token))
    elif isinstance(op, GuestVmovups):
        yield KvmSetXsave(task, op.vcpu, UserImage(xf.MASK_YMM, op.token))
    elif isinstance(op, GuestXrstor):
        yield KvmSetXsave(task, op.vcpu, UserImage(op.xstate_bv & op.mask, op.token))


def on_plainer_machines(program: Program) -> Iterator[Program]:
    """With one switch of the machine as it is by default; values are what they were here there, or as before."""
    machine = program.machine
    for f in fields(Machine):
        if getattr(machine, f.name) != f.default:
            switch: dict[str, Any] = {f.name: f.default}
            plain = replace(machine, **switch)
            yield _with(replace(program, machine=plain), (_translated(op, machine, plain) for op in program.ops))
            yield replace(program, machine=plain)


def _translated(op: Op, old: Machine, new: Machine) -> Op:
    """The op with what stands at the same places in the domains of another machine."""
    here, there = domains(old), domains(new)
    found: dict[str, Any] = {}
    for name, value, kind in _fields(op):
        if kind in here and value in here[kind].table:
            place = here[kind].table.index(value)
            found[name] = there[kind].table[min(place, len(there[kind].table) - 1)]
    return replace(op, **found)  # type: ignore[type-var]


def _fields(op: Op) -> Iterator[tuple[str, Any, object]]:
    """Name, value and kind of each."""
    values = {f.name: getattr(op, f.name) for f in fields(op)}  # type: ignore[arg-type]
    for name, kind in kinds(type(op), values).items():
        yield name, values[name], kind


def with_plainer_ops(program: Program) -> Iterator[Program]:
    """With an op replaced by another one of its kind that takes less, or as much and is defined before it."""
    for place, op in enumerate(program.ops):
        given = {name: value for name, value, _ in _fields(op)}
        for cls in _plainer_classes(type(op).__name__):
            same = {f.name: given[f.name] for f in fields(cls) if f.name in given}
            yield _with(program, (*program.ops[:place], cls(**same), *program.ops[place + 1 :]))


@cache
def _plainer_classes(name: str) -> list[Any]:
    cls: Any = OPS[name]
    found = [other for other in OPS.values() if other.__module__ == cls.__module__ and other.__base__ is cls.__base__]
    found.sort(key=lambda other: len(fields(other)))  # type: ignore[arg-type]
    return found[: found.index(cls)]


#: The fields that hold a number of the same kind of thing.
_NUMBERED = (("task", "tracee"), ("vcpu",), ("vm",), ("cpu",))


def renumbered(program: Program) -> Iterator[Program]:
    """With one task, vCPU, VM or CPU less, whose part the one before it takes over, or with two that trade places."""
    for names in _NUMBERED:
        before = _numbers(program.ops, names)
        for n in range(1, max(before, default=0) + 1):
            for now in ({n: n - 1}, {n: n - 1, n - 1: n}):
                ops = tuple(_renumbered(op, names, now) for op in program.ops)
                if _numbers(ops, names) < before:
                    yield _with(program, ops)


def _renumbered(op: Op, names: Sequence[str], now: Mapping[int, int]) -> Op:
    found = {name: now.get(value, value) for name, value, _ in _fields(op) if name in names}
    return replace(op, **found)  # type: ignore[type-var]


def _numbers(ops: Ops, names: Sequence[str]) -> list[int]:
    return [value for op in ops for name, value, _ in _fields(op) if name in names]


def with_plainer_arguments(program: Program) -> Iterator[Program]:
    """With one argument of an op replaced by one that stands before it in its domain, or by its default."""
    for place, op in enumerate(program.ops):
        for plainer in _plainer_ops(op, program.machine):
            yield _with(program, (*program.ops[:place], plainer, *program.ops[place + 1 :]))


def _plainer_ops(op: Op, machine: Machine) -> Iterator[Op]:
    table = domains(machine)
    defaults = {f.name: f.default for f in fields(op)}  # type: ignore[arg-type]
    for name, value, kind in _fields(op):
        if kind in table:
            before = table[kind].plainer(value)
        elif kind == "nr":
            before = list(range(value))
        else:
            before = [defaults[name]]
        for plainer in before:
            if plainer != value:
                yield replace(op, **{name: plainer})  # type: ignore[type-var]


def in_order(program: Program) -> Iterator[Program]:
    """With an op moved before one that comes after it in the order of actors and lines."""
    ops, ranks = program.ops, [_rank(op) for op in program.ops]
    for place, rank in enumerate(ranks):
        for other in range(place):
            if rank < ranks[other]:
                yield _with(program, (*ops[:other], ops[place], *ops[other:place], *ops[place + 1 :]))


#: Threads set up what guests use; the environment comes as late as it can.
_ACTORS = ("t", "v", "host", "cpu")


def _rank(op: Op) -> tuple[int, str]:
    line = format_op(op)
    return _ACTORS.index(line.split(" ")[0].rstrip("0123456789")), line


def _with(program: Program, ops: Iterable[Op]) -> Program:
    return replace(program, ops=tuple(ops), results=())


PASSES: tuple[Pass, ...] = (
    without_ops,
    behind_another_boot,
    from_outside,
    on_plainer_machines,
    renumbered,
    with_plainer_ops,
    with_plainer_arguments,
    in_order,
)
