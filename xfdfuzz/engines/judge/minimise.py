"""From a violating program to the plainest one that shows the same bucket: 1-minimal, on the plainest machine.

It works on the program, not on what Hypothesis drew, so the result does not depend on how it was drawn: no op can be
left out, the machine has no switch that does not matter, numbers and values are the first of their kind.  A candidate
costs what its ops cost, without the state machine around them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

from xfdfuzz.engines.judge.verdict import judge, steps
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.fields import Msrs
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.ops.guest import GuestWrmsr, GuestXsetbv
from xfdfuzz.program.ops.kvm import KvmSetMsrs, KvmSetXcrs
from xfdfuzz.program.ops.run import KvmRun, KvmRunReturns
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED
from xfdfuzz.revisions import Revision
from xfdfuzz.strategies.values import Domain, domains

Test = Callable[[Program], bool]


def shows(program: Program, revision: Revision, bucket: str) -> bool:
    """Whether the program breaks that bucket on the revision."""
    return any(violation.bucket == bucket for judged in steps(program, revision) for violation in judged.violations)


def for_ever() -> bool:
    """There is time."""
    return True


def minimise(program: Program, revision: Revision, bucket: str, in_time: Callable[[], bool] = for_ever) -> Program:
    """The plainest program of the same bucket, with its results filled in; ``program`` itself must show it.

    It is the plainest that was found while there was still time.
    """
    smallest = reduce(program, lambda candidate: in_time() and shows(candidate, revision, bucket))
    results = judge(smallest, revision, expectations=False).results
    return with_results(smallest, results)


def reduce(program: Program, still: Test) -> Program:
    """The plainest program for which ``still`` holds, as it does for ``program``; without results."""
    before = None
    while program != before:
        before = program
        program = _drop_ops(program, still)
        program = _first_of(program, _without_a_run, still)
        program = _first_of(program, _plainer_machines, still)
        program = _first_of(program, _renumbered, still)
        program = _first_of(program, _plainer_arguments, still)
    return program


def with_results(program: Program, results: Sequence[str]) -> Program:
    """The results filled in, one per op, and the ops left out that were not enabled."""
    kept = [(op, text) for op, text in zip(program.ops, results, strict=True) if text != NOT_ENABLED]
    return replace(program, ops=tuple(op for op, _ in kept), results=tuple(text for _, text in kept))


def _drop_ops(program: Program, still: Test) -> Program:
    """Leave out ops: halves first, then quarters, at last single ones, from the back, until none can go."""
    length = max(len(program.ops) // 2, 1)
    while True:
        shorter = _drop_runs(program, length, still)
        if length == 1 and len(shorter.ops) == len(program.ops):
            return program
        program = shorter
        length = max(length // 2, 1)


def _drop_runs(program: Program, length: int, still: Test) -> Program:
    start = len(program.ops) - length
    while start >= 0:
        candidate = replace(program, ops=program.ops[:start] + program.ops[start + length :], results=())
        if still(candidate):
            program = candidate
        start -= length
    return program


def _first_of(program: Program, plainer: Callable[[Program], Iterator[Program]], still: Test) -> Program:
    """Take plainer programs as long as one of them still shows it."""
    while True:
        found = next((candidate for candidate in plainer(program) if still(candidate)), None)
        if found is None:
            return program
        program = found


def _without_a_run(program: Program) -> Iterator[Program]:
    """With a whole KVM_RUN replaced by the ioctls that set what the guest set in it."""
    for start, op in enumerate(program.ops):
        if not isinstance(op, KvmRun):
            continue
        rest = program.ops[start + 1 :]
        end = next((n for n, o in enumerate(rest) if isinstance(o, KvmRunReturns) and o.task == op.task), None)
        if end is not None:
            ioctls = tuple(ioctl for o in rest[:end] for ioctl in _same_from_outside(op.task, o))
            yield replace(program, ops=program.ops[:start] + ioctls + rest[end + 1 :], results=())


def _same_from_outside(task: int, op: Op) -> Iterator[Op]:
    if isinstance(op, GuestXsetbv):
        yield KvmSetXcrs(task, op.vcpu, op.xcr0)
    elif isinstance(op, GuestWrmsr):
        yield KvmSetMsrs(task, op.vcpu, Msrs(((op.msr, op.value),)))


def _plainer_machines(program: Program) -> Iterator[Program]:
    machine = program.machine
    for f in fields(Machine):
        if getattr(machine, f.name) != f.default:
            plain: dict[str, Any] = {f.name: f.default}
            yield replace(program, machine=replace(machine, **plain))


def _renumbered(program: Program) -> Iterator[Program]:
    """The program with one number less among its tasks, vCPUs, VMs or CPUs: two that trade places."""
    for name in ("task", "vcpu", "vm", "cpu"):
        highest = max((getattr(op, name, 0) for op in program.ops), default=0)
        for n in range(1, highest + 1):
            swapped = tuple(_swap(op, name, n) for op in program.ops)
            if _numbers(swapped, name) < _numbers(program.ops, name):
                yield replace(program, ops=swapped, results=())


def _swap(op: Op, name: str, n: int) -> Op:
    value = getattr(op, name, None)
    if value not in (n, n - 1):
        return op
    return replace(op, **{name: n - 1 if value == n else n})  # type: ignore[type-var]


def _numbers(ops: tuple[Op, ...], name: str) -> list[int]:
    return [getattr(op, name, 0) for op in ops]


def _plainer_arguments(program: Program) -> Iterator[Program]:
    for i, op in enumerate(program.ops):
        for plainer in _plainer_ops(op, program.machine):
            yield replace(program, ops=(*program.ops[:i], plainer, *program.ops[i + 1 :]), results=())


def _plainer_ops(op: Op, machine: Machine) -> Iterator[Op]:
    """The op with one argument replaced by one that stands before it in its domain, or by what it is left out for."""
    table = domains(machine)
    candidates: dict[str, Domain[Any]] = {
        "xcr0": table.xcr0,
        "msrs": table.msrs,
        "value": table.xfd,
        "entries": table.cpuid,
        "image": table.image,
        "mask": table.xfeatures,
        "xstate_bv": table.xfeatures,
        "facility": table.facility,
        "size": table.altstack,
        "id": table.vcpu_id,
    }
    for f in fields(op):  # type: ignore[arg-type]
        value = getattr(op, f.name)
        if f.name in candidates:
            plain = list(candidates[f.name].table)
            before = plain[: plain.index(value)] if value in plain else plain
        elif f.name in ("task", "vcpu", "vm", "cpu"):
            before = list(range(value))
        else:
            before = [] if f.default is MISSING else [f.default]
        for plainer in before:
            if plainer != value:
                yield replace(op, **{f.name: plainer})  # type: ignore[type-var]
