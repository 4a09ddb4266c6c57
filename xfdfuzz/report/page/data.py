"""The runs of a page as an object for its script: small, because what is alike in two runs, or two steps, stands there
once.

A state is the one before and what is different in it.  Fields, values and steps are numbers of tables:

==============  ========================================================================================================
``groups``      what fields belong to: its name, and the pool that it is of
``fields``      group, name there, whether traces leave it out, the value where nobody wrote one, other words for it
``values``      texts
``invariants``  name, severity, why it is bad
``steps``       op, result, differences of the state (a field and its value by turns), what is broken, what is reported
``runs``        the numbers of the steps: the boot, the ops, and the end if anything is broken there
``revisions``   name, label, what came out, number of the run, name for the shell, what it shows first: step, place
==============  ========================================================================================================
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from xfdfuzz.arch.kinds import TOKEN
from xfdfuzz.engines.judge import windows
from xfdfuzz.engines.judge.because import Reasons
from xfdfuzz.engines.judge.leaves import Leaf, leaves
from xfdfuzz.invariants.vocabulary import INVARIANTS, Violation
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.fields import elements, fields, fields_of
from xfdfuzz.memory.traced import Place
from xfdfuzz.program.text import format_op
from xfdfuzz.report import because, changes, leaks, trace
from xfdfuzz.report.page.runs import Finding, Run

#: What a trace shows of each struct; of those that are not here all.
_SHOWN: Mapping[Any, tuple[Any, ...]] = {
    st.System: changes.HOST,
    st.Cpu: changes.CPU,
    st.Task: changes.TASK,
    st.Fpstate: changes.FPSTATE,
    st.Vm: changes.VM,
    st.Vcpu: changes.VCPU,
}


class _Place(NamedTuple):
    """The element that a field belongs to, and of which pool that is; ``quiet``: traces say nothing of the field,
    because the op and its result do."""

    element: str
    pool: str
    quiet: bool


@cache
def _places() -> Mapping[str, _Place]:
    """By the field's path."""
    found = {f"host.{field.path}": _Place("host", "host", quiet=False) for field in fields_of(st.System)}
    for element in elements():
        shown = {field.member for field in _SHOWN.get(element.struct, ())}
        for inner, field in zip(fields_of(element.struct), element.fields(), strict=True):
            quiet = bool(shown) and inner.member not in shown and inner.kind != TOKEN
            found[field.path] = _Place(element.path, element.pool, quiet)
    return found


#: The order of the pools on the page.
_ORDER = (
    *("ghost.vcpus", "ghost.vmms", "ghost.tasks", "vcpus", "cpus", "tasks", "fpstates"),
    *("sigframes", "vms", "ghost.tracers", "host"),
)
#: So many bytes are compared at once.
_BLOCK = 64


class Table:
    """Different things, by number."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def number(self, value: Any) -> int:
        """Its number: the next one, if it is new."""
        return self.numbers.setdefault(value, len(self.numbers))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.numbers)


def as_object(found: Finding) -> dict[str, Any]:
    """What the script gets."""
    return _Writer(found).written()


class _Writer:
    def __init__(self, found: Finding) -> None:
        self._found = found
        self._groups, self._fields, self._values = Table(), Table(), Table()
        self._steps, self._runs = Table(), Table()
        self._broken: dict[str, None] = {}
        self._seen: dict[tuple[bytes, bytes], list[int]] = {}

    def written(self) -> dict[str, Any]:
        for leaf in leaves((field.start, field.size) for field in fields() if field.path.endswith(".current")):
            self._field(leaf)  # who is on a CPU is shown even where that never changes
        numbers = [self._steps_of(run) for run in self._found.runs]
        # the boot comes last: of what nobody touches later it says less
        runs = [
            self._runs.number((self._boot(run), *steps)) for run, steps in zip(self._found.runs, numbers, strict=True)
        ]
        revisions = [self._revision(*both) for both in zip(self._found.runs, runs, strict=True)]
        groups = list(self._groups)
        # the ideal machine first, then who acts, where, and on what
        order = sorted(range(len(groups)), key=lambda number: (_ORDER.index(groups[number][1]), number))
        place = {number: at for at, number in enumerate(order)}
        return {
            "cpus": [f"cpu{nr}" for nr in range(self._found.program.machine.cpus)],
            "groups": [groups[number] for number in order],
            "fields": [[place[group], *rest] for group, *rest in self._fields],
            "values": list(self._values),
            "invariants": [[name, INVARIANTS[name].severity, INVARIANTS[name].doc] for name in self._broken],
            "steps": [json.loads(step) for step in self._steps],
            "runs": list(self._runs),
            "ops": len(self._found.program.ops),
            "revisions": revisions,
            "opens": self._found.runs.index(self._found.chosen),
            "command": self._found.command,
        }

    def _revision(self, run: Run, number: int) -> list[Any]:
        main = None
        shown, step = self._found.shown(run), self._found.opens(run)
        if shown is not None:
            main = [step, run.verdict.trace[step - 1].violations.index(shown)]
        return [run.name, run.label, self._found.state(run), number, shlex.quote(run.name), main]

    def _boot(self, run: Run) -> int:
        """The state in which the program begins; of the kernel threads no more than what is touched later."""
        blank = bytes(len(run.beginning))
        known = set(self._fields)
        found: list[int] = []
        for leaf in leaves(_differing(blank, run.beginning)):
            described = self._described(leaf)
            if described in known or not re.match(r"k\d", leaf.field.path):
                found += [
                    self._fields.number(described),
                    self._values.number(because.value(leaf, leaf.of(run.beginning))),
                ]
        return self._step("", "", found, [], [])

    def _steps_of(self, run: Run) -> list[int]:
        states = [run.beginning, *(bytes(step.after) for step in run.steps)]
        if run.end is not None:
            states.append(run.end)
        numbers = []
        stories, interrupted = leaks.stories(run.verdict.trace), windows.said(run.verdict.trace)
        for judged, before, after in zip(run.verdict.trace, states, states[1:], strict=False):
            broken = [
                self._violation(violation, run.because[violation], stories.get(violation, ""))
                for violation in judged.violations
            ]
            difference = self._differences(before, after)
            if judged.step is None:
                numbers.append(self._step("", "", difference, broken, []))
            else:
                reports = trace.untold(judged.step, judged.violations)
                reports += [one.text for one in interrupted.get(judged.step.number, ())]
                op = format_op(judged.step.op)
                numbers.append(self._step(op, trace.result(judged.step), difference, broken, reports))
        return numbers

    def _step(self, op: str, result: str, difference: list[int], broken: list[Any], events: list[str]) -> int:
        return self._steps.number(json.dumps([op, result, difference, broken, *([events] if events else [])]))

    def _violation(self, violation: Violation, reasons: Reasons, story: str) -> list[Any]:
        named = [
            [
                self._field(reason.leaf),
                self._values.number(because.value(reason.leaf, reason.value)),
                reason.step,
                int(reason.contradicts),
                int(reason.found),
            ]
            for reason in reasons
        ]
        return [self._invariant(violation), violation.message, named, *([story] if story else [])]

    def _invariant(self, violation: Violation) -> int:
        self._broken.setdefault(violation.invariant)
        return list(self._broken).index(violation.invariant)

    def _differences(self, before: bytes, after: bytes) -> list[int]:
        if (before, after) not in self._seen:
            found: list[int] = []
            for leaf in leaves(_differing(before, after)):
                found += [self._field(leaf), self._values.number(because.value(leaf, leaf.of(after)))]
            self._seen[before, after] = found
        return self._seen[before, after]

    def _field(self, leaf: Leaf) -> int:
        return self._fields.number(self._described(leaf))

    def _described(self, leaf: Leaf) -> tuple[Any, ...]:
        """Its group, its name there, whether traces leave it out, its value where nobody wrote one, other words."""
        place = _places()[leaf.field.path]
        path, words = because.path(leaf), because.field(leaf)
        name = path.removeprefix(f"{place.element}.")
        blank = self._values.number(because.value(leaf, 0))
        group = self._groups.number((place.element, place.pool))
        return (group, name, int(place.quiet), blank, *([words] if words != path else []))


def _differing(before: bytes, after: bytes) -> Iterator[Place]:
    """The places of the bytes that differ."""
    for start in range(0, len(after), _BLOCK):
        end = start + _BLOCK
        if before[start:end] != after[start:end]:
            yield from ((at, 1) for at in range(start, min(end, len(after))) if before[at] != after[at])
