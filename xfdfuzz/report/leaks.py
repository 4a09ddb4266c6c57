"""Where a buffer that leaks came from, and what forgot it: of that no field could tell, so no reason does."""

from __future__ import annotations

import re
from collections.abc import Sequence

from xfdfuzz.arch.kinds import Reference
from xfdfuzz.engines.judge.leaves import Leaf
from xfdfuzz.engines.judge.verdict import Judged
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.kernel.fields import fields
from xfdfuzz.program.step import Step

_LEAK = re.compile(r"fpstate (\d+) is allocated and nothing points to it")


def stories(judged: Sequence[Judged]) -> dict[Violation, str]:
    """Of each leak who allocated the buffer and who pointed to it: ``allocated by step 2; t0.fpu.fpstate pointed to it
    until this step``."""
    found = [(one, _LEAK.fullmatch(one.message)) for item in judged for one in item.violations]
    return {violation: _story(judged, violation, int(leak[1])) for violation, leak in found if leak}


def _story(judged: Sequence[Judged], violation: Violation, number: int) -> str:
    steps = [item.step for item in judged if item.step is not None and item.step.number <= violation.step]
    parts = [f"allocated by step {step.number}" for step in steps if _allocates(step, number)][-1:]
    for step in reversed(steps):
        if owners := _owners(number, step.state):
            when = "this step" if step.number == violation.step else f"step {step.number}"
            parts.append(f"{' and '.join(owners)} pointed to it until {when}")
            break
    return "; ".join(parts)


def _allocates(step: Step, number: int) -> bool:
    return bool(step.after.fpstates[number].allocated) and not step.before.fpstates[number].allocated


def _owners(number: int, state: bytes) -> list[str]:
    pointers = (field for field in fields() if field.kind == Reference("fpstate"))
    return [field.path for field in pointers if Leaf(field).of(state) == number]
