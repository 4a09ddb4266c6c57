"""Where calls were interrupted, or found no memory, as a program asked for it: which function was hit, or that none.

``cpu0 preempt(t1, 2)`` and ``cpu0 hardirq(kernel_fpu_begin, 2)`` count points to come, ``host fail_alloc(1)``
allocations.  A program in which they never come to their point shows nothing, and must not look as if it had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from xfdfuzz.engines.judge.verdict import Judged
from xfdfuzz.kernel.event import ALLOC_FAILED, CALLED_OFF, HARDIRQ, PREEMPTED, Event
from xfdfuzz.program.ops.host import FailAlloc, HardirqKernelFpu, Preempt
from xfdfuzz.program.step import NOT_ENABLED, Step

#: What stands between a point and the function that it is in.
_PLUMBING = ("preempt_schedule", "preempt_enable", "fpregs_unlock", "spin_unlock_irq", "do_softirq")
#: Or between an allocation and the function that needs it.
_ALLOCATORS = ("should_fail", "vzalloc")
#: The field that counts the points, by the op that sets it.
_COUNTER = {Preempt: "resched_points", HardirqKernelFpu: "hardirq_points"}
_NONE = "no memory for registers was allocated"
_KIND = {PREEMPTED: Preempt, CALLED_OFF: Preempt, HARDIRQ: HardirqKernelFpu}


class Said(NamedTuple):
    """What is said under a step; ``missed``: the step asked for what did not happen."""

    text: str
    missed: bool = False


class _Asked(NamedTuple):
    step: int
    points: int

    def miss(self, left: int, why: str) -> tuple[int, Said]:
        passed = self.points - left
        points = f"{passed} point{'' if passed == 1 else 's'}"
        return self.step, Said(f"did not hit: {points} passed{why}", True)


def said(judged: Sequence[Judged]) -> Mapping[int, Sequence[Said]]:
    """What is to be said of each step, by its number, if there is anything."""
    found: dict[int, list[Said]] = {}
    steps = [item.step for item in judged if item.step]
    for number, one in (*_each(steps), *_short(steps)):
        found.setdefault(number, []).append(one)
    return found


def missed(judged: Sequence[Judged]) -> list[int]:
    """The steps that asked for an interruption, or a lack of memory, that did not come."""
    return sorted(number for number, ones in said(judged).items() if any(one.missed for one in ones))


def told(steps: Sequence[int]) -> str:
    """The same in words."""
    return f"what op{'s' * (len(steps) > 1)} {', '.join(map(str, steps))} asked for did not hit"


def _each(steps: Sequence[Step]) -> Iterator[tuple[int, Said]]:
    asked: dict[tuple[type, int], _Asked] = {}
    for step in steps:
        for event in step.events:
            if event.kind in _KIND and (one := asked.pop((_KIND[event.kind], event.detail[0]), None)):
                yield _hit(step, event, one)
        op = step.op
        if isinstance(op, (Preempt, HardirqKernelFpu)) and step.result.ret != NOT_ENABLED:
            key = type(op), op.cpu
            if key in asked:
                left = getattr(step.before.cpus[op.cpu], _COUNTER[type(op)])
                yield asked[key].miss(left, f" until step {step.number} took its place")
            asked[key] = _Asked(step.number, op.points)
    for (kind, cpu), one in asked.items():
        yield one.miss(getattr(steps[-1].after.cpus[cpu], _COUNTER[kind]), "")


def _short(steps: Sequence[Step]) -> Iterator[tuple[int, Said]]:
    """The allocations that failed, and each ``fail_alloc`` that none did for."""
    asked = 0
    for step in steps:
        for event in step.events:
            if event.kind == ALLOC_FAILED:
                yield step.number, Said(f"no memory, in {_asks(event)}()")
                asked = 0
        if isinstance(step.op, FailAlloc) and step.result.ret != NOT_ENABLED:
            if asked:
                yield asked, Said(f"did not hit: {_NONE} until step {step.number} took its place", True)
            asked = step.number if step.op.count else 0
    if asked:
        yield asked, Said(f"did not hit: {_NONE}", True)


def _asks(event: Event) -> str:
    """The function that needs what could not be allocated."""
    return next(name for name in event.trace if name not in _ALLOCATORS)


def _hit(step: Step, event: Event, one: _Asked) -> tuple[int, Said]:
    where = f"at point {one.points} of step {one.step}, in {_function(event)}"
    if event.kind == CALLED_OFF:
        return one.miss(event.detail[1], f" until step {step.number} switched tasks, which calls it off")
    if event.kind == HARDIRQ:
        return step.number, Said(f"a hard interrupt {where}: irq_fpu_usable() is {str(bool(event.detail[1])).lower()}")
    _, task, runs = event.detail
    if not runs:
        return one.step, Said(f"did not hit: t{task} could not run {where}: it is on a CPU or gone", True)
    return step.number, Said(f"t{task} runs {where}")


def _function(event: Event) -> str:
    names = [name for name in event.trace if name not in _PLUMBING]
    return " <- ".join([f"{names[0]}()", *names[1:]]) if names else "the way back"
