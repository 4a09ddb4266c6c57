"""What minimise() tries: programs that are plainer than one in some respect.

A pass is a function that gives such programs, the boldest first.  To add one, write it and put it into :data:`PASSES`.
It need not know what an op does: whether a program still shows the bucket is tried, ops that can no longer happen do no
harm, and :func:`without_ops` takes them away.  Nor need it go far: as long as one of its programs is taken it is asked
again about that one, and after it all passes are, until none has anything left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.engines.judge.stand_ins import plainer_classes
from xfdfuzz.kernel.kvm.cpuid import CpuidEntries
from xfdfuzz.kernel.kvm.xsave import UserBuffer
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.kernel.state import USER_TASKS
from xfdfuzz.program.fields import Msrs, UserImage
from xfdfuzz.program.ops.base import GuestOp, Op, TaskOp
from xfdfuzz.program.ops.guest import (
    GuestDyn2load,
    GuestInterrupt,
    GuestTileload,
    GuestVmovups,
    GuestWrmsr,
    GuestXrstor,
    GuestXsetbv,
)
from xfdfuzz.program.ops.host import Schedule, ScheduleKthread
from xfdfuzz.program.ops.kvm import KvmSetCpuid2, KvmSetCpuid2Supported, KvmSetMsrs, KvmSetXcrs
from xfdfuzz.program.ops.processes import CloneThread, CloneVm, Fork, Vfork
from xfdfuzz.program.ops.run import HandleExit, KvmRun, KvmRunReturns
from xfdfuzz.program.ops.tasks import ReqXcompGuestPerm, UserDyn2load, UserTileload
from xfdfuzz.program.ops.xsave import KvmSetXsave
from xfdfuzz.program.program import Program
from xfdfuzz.program.templates import format_op
from xfdfuzz.strategies.values import domains, kinds

Pass = Callable[[Program], Iterator[Program]]
Ops = tuple[Op, ...]

#: The fields that hold the number of a task, and how many tasks there are before one is made.
_TASKS, _FIRST_TASKS = ("task", "tracee", "thread"), 2


def without_ops(program: Program) -> Iterator[Program]:
    """Without some ops that follow each other: halves first, then quarters, at last single ones, from the back."""
    length = len(program.ops)
    while length > 1:
        length //= 2
        for start in range(len(program.ops) - length, -length, -length):
            yield _with(program, program.ops[: max(start, 0)] + program.ops[start + length :])


def by_fewer_tasks(program: Program) -> Iterator[Program]:
    """Without a switch to a task, whose part until the next switch the one before it takes over, or without a task."""
    ops = program.ops
    running, made = 0, _FIRST_TASKS
    for place, op in enumerate(ops):
        if isinstance(op, Schedule) and len(ops) > 1:
            end = next((n for n in range(place + 1, len(ops)) if isinstance(ops[n], Schedule)), len(ops))
            taken_over = (_renumbered(later, _TASKS, {op.task: running}) for later in ops[place + 1 : end])
            yield _with(program, (*ops[:place], *taken_over, *ops[end:]))
        elif isinstance(op, CloneThread | CloneVm | Fork | Vfork) and len(ops) > 1:
            now = {n: n - 1 for n in range(made + 1, USER_TASKS)}
            yield _with(program, (*ops[:place], *(_renumbered(later, _TASKS, now) for later in ops[place + 1 :])))
            made += 1
        if isinstance(op, TaskOp | Schedule):
            running = op.task


def without_permission(program: Program) -> Iterator[Program]:
    """Without a guest's permission, with a CPUID that needs none, and with the images as they are or the plainest."""
    table = domains(program.machine)
    image = table[UserImage].table[0]
    rest = [op for op in program.ops if not isinstance(op, ReqXcompGuestPerm)]
    if 0 < len(rest) < len(program.ops):
        plain = [replace(op, image=image) if isinstance(op, KvmSetXsave) else op for op in rest]
        harmless = [entries for entries in table[CpuidEntries].table if not (entries.xfd or entries.amx)]
        for ops in (rest, plain):
            yield from (_with(program, (_with_cpuid(op, entries) for op in ops)) for entries in harmless[:2])


def _with_cpuid(op: Op, entries: CpuidEntries) -> Op:
    if isinstance(op, KvmSetCpuid2 | KvmSetCpuid2Supported):
        return KvmSetCpuid2(op.task, op.vcpu, entries)
    return op


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
    """With one switch of the machine as it is by default, and all values what they are there, or as they were."""
    machine = program.machine
    for f in fields(Machine):
        switch: dict[str, Any] = {f.name: f.default}
        plain = replace(machine, **switch)
        if plain != machine:
            yield _with(replace(program, machine=plain), (_translated(op, machine, plain) for op in program.ops))
            yield replace(program, machine=plain)
    for i in xf.components_in(machine.in_use):
        yield replace(program, machine=replace(machine, in_use=machine.in_use & ~(1 << i)))


def on_fewer_cpus(program: Program) -> Iterator[Program]:
    """With no CPUs that no op names, or with what happens on one on the one before it, where tasks alternate then."""
    used = max(_numbers(program.ops, ("cpu",)), default=0) + 1
    if used < program.machine.cpus:
        yield replace(program, machine=replace(program.machine, cpus=used), results=())
    for n in range(1, used):
        yield _with(program, _alternating(program.ops, n))


def _alternating(ops: Ops, cpu: int) -> Iterator[Op]:
    """What the CPU does is done by the one before it, and its kernel thread is the task that runs there."""
    task = 0
    for op in ops:
        if isinstance(op, Schedule) and op.cpu == cpu - 1:
            task = op.task
        idle = isinstance(op, ScheduleKthread) and op.cpu == cpu
        yield Schedule(cpu - 1, task) if idle else _renumbered(op, ("cpu",), {cpu: cpu - 1})


#: Instructions of the synthetic feature, and what is like them on any machine with AMX.
_WITHOUT_DYN2: dict[type[Op], type[Op]] = {GuestDyn2load: GuestTileload, UserDyn2load: UserTileload}


def _translated(op: Op, old: Machine, new: Machine) -> Op:
    """The op with what stands at the same places in the domains of another machine."""
    here, there = domains(old), domains(new)
    values: dict[str, Any] = {}
    for name, value, kind in _fields(op):
        place = here[kind].table.index(value) if kind in here and value in here[kind].table else None
        values[name] = value if place is None else there[kind].value(place)
    cls = type(op) if new.dyn2 else _WITHOUT_DYN2.get(type(op), type(op))
    return cls(**values)


def _fields(op: Op) -> Iterator[tuple[str, Any, object]]:
    """Name, value and kind of each."""
    values = {f.name: getattr(op, f.name) for f in fields(op)}  # type: ignore[arg-type]
    for name, kind in kinds(type(op), values).items():
        yield name, values[name], kind


def with_plainer_ops(program: Program) -> Iterator[Program]:
    """With an op replaced by a plainer one that may do as well (:mod:`~xfdfuzz.engines.judge.stand_ins`)."""
    for place, op in enumerate(program.ops):
        given = {name: value for name, value, _ in _fields(op)}
        rest = program.ops[place + 1 :]
        for cls in plainer_classes(type(op).__name__):
            # nothing is left to handle, and what handles nothing would handle the next exit
            handled = cls is GuestInterrupt and bool(rest) and isinstance(rest[0], HandleExit)
            plain = _plainest(cls, given, program.machine)
            yield _with(program, (*program.ops[:place], plain, *(rest[1:] if handled else rest)))


def _plainest(cls: type[Op], given: Mapping[str, Any], machine: Machine) -> Op:
    """An op with those of the values that it takes; the others are the first of their domains."""
    table = domains(machine)
    values = {name: table[kind].table[0] if kind in table else value for name, value, kind in _fields(cls())}
    return cls(**{name: given.get(name, value) for name, value in values.items()})


#: The fields that hold a number of the same kind of thing.
_NUMBERED = (_TASKS, ("vcpu",), ("vm",), ("cpu",))


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
            before = [*table[kind].plainer(value), *(_rounder(value) if value not in table[kind].table else ())]
        elif kind == "nr":
            before = list(range(value))
        else:
            before = [defaults[name]]
        for plainer in before:
            if plainer != value:
                yield replace(op, **{name: plainer})  # type: ignore[type-var]


def _rounder(value: object) -> Iterator[object]:
    """A number that is like no other, or such a size, with one bit less, the highest first."""
    if isinstance(value, UserBuffer) and value.size is not None:
        yield from (value._replace(size=size) for size in _with_a_bit_less(value.size))
    elif isinstance(value, int):
        yield from _with_a_bit_less(value)


def _with_a_bit_less(number: int) -> Iterator[int]:
    return (number & ~(1 << bit) for bit in reversed(range(number.bit_length())) if number >> bit & 1)


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


#: In the order of what they save the others.
PASSES: tuple[Pass, ...] = (
    without_ops,
    by_fewer_tasks,
    without_permission,
    from_outside,
    on_plainer_machines,
    on_fewer_cpus,
    renumbered,
    with_plainer_ops,
    with_plainer_arguments,
    in_order,
)
