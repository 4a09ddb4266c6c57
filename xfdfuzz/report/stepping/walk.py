"""Where somebody is who walks through a program: a revision, a step, and what of the state is looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from xfdfuzz.report.page.data import as_object
from xfdfuzz.report.page.runs import Finding, Run

#: What says of an element that it is there.
_THERE = ("exists", "allocated", "valid")
#: The writer of what stood there before the boot, and the boot itself.
NOBODY, BOOT = -1, 0


class Field(NamedTuple):
    """A field as ``page.data`` has it; ``path`` and ``words`` are two ways to call it."""

    group: int
    name: str
    quiet: bool
    blank: int
    path: str
    words: str


class Reason(NamedTuple):
    """What a violation follows from: a field, the number of its value, the step that wrote it."""

    field: int
    value: int
    step: int
    contradicts: bool
    found: bool


class Broken(NamedTuple):
    """A violation of a step."""

    invariant: str
    severity: str
    why: str
    message: str
    reasons: tuple[Reason, ...]


class Step(NamedTuple):
    """A step of a run; ``changed`` are fields with the number of their new value."""

    op: str
    result: str
    changed: Mapping[int, int]
    broken: tuple[Broken, ...]
    events: tuple[str, ...]


class Trail(NamedTuple):
    """A run with its states: behind each step, the boot is the first one, the value of each field and who wrote it."""

    steps: Sequence[Step]
    values: Sequence[Sequence[int]]
    writers: Sequence[Sequence[int]]

    @property
    def last(self) -> int:
        """The number of the last step."""
        return len(self.steps) - 1

    @property
    def bad(self) -> list[int]:
        """The steps that break something."""
        return [at for at, step in enumerate(self.steps) if step.broken]


class Walk:
    """Begins at the violation that the finding is about; ``everything`` shows all of the state, ``words`` the fields
    that have these in their names."""

    def __init__(self, found: Finding) -> None:
        self.found = found
        self._data: dict[str, Any] = as_object(found)
        self._trails: dict[int, Trail] = {}
        self.revision: int = self._data["opens"]
        self.step = 1
        self.everything = False
        self.words = ""
        self.go(found.opens(found.chosen))

    # -- going about ---------------------------------------------------------------------------------------------------

    def go(self, step: int) -> None:
        """To that step, or to the first or the last one."""
        self.step = max(1, min(step, self.trail.last))

    def turn(self, revision: int) -> None:
        """To another run, by its number; the step stays."""
        self.revision = revision
        self.go(self.step)

    def violation(self, forth: bool) -> None:
        """To the next one or the one before; behind the last comes the first."""
        bad = self.trail.bad if forth else self.trail.bad[::-1]
        if bad:
            self.go(next((at for at in bad if (at > self.step if forth else at < self.step)), bad[0]))

    # -- what is there -------------------------------------------------------------------------------------------------

    @property
    def runs(self) -> Sequence[Run]:
        """Those that can be turned to."""
        return self.found.runs

    @property
    def run(self) -> Run:
        """The one that is shown."""
        return self.runs[self.revision]

    @property
    def trail(self) -> Trail:
        """Its states."""
        number = self._data["revisions"][self.revision][3]
        if number not in self._trails:
            self._trails[number] = self._trail(self._data["runs"][number])
        return self._trails[number]

    @property
    def here(self) -> Step:
        """The step that is shown."""
        return self.trail.steps[self.step]

    @property
    def ops(self) -> int:
        """How many steps are ops of the program: what comes later is its end."""
        return int(self._data["ops"])

    @property
    def causes(self) -> set[int]:
        """The other steps that what is broken here follows from."""
        return {reason.step for broken in self.here.broken for reason in broken.reasons} - {self.step}

    @cached_property
    def groups(self) -> list[tuple[str, str]]:
        """What fields belong to, with its pool, in the order in which it is shown."""
        return [(name, pool) for name, pool in self._data["groups"]]

    @cached_property
    def fields(self) -> list[Field]:
        """All that can be shown."""
        found = []
        for group, name, quiet, blank, *words in self._data["fields"]:
            path = f"{self.groups[group][0]}.{name}"
            found.append(Field(group, name, bool(quiet), blank, path, words[0] if words else path))
        return found

    def text(self, value: int) -> str:
        """A value, by its number."""
        return str(self._data["values"][value])

    def wanted(self, field: Field) -> bool:
        """Whether all words that are looked for stand in its names."""
        names = f"{field.path} {field.words}".lower()
        return all(word in names for word in self.words.lower().split())

    def called(self, number: int, at: int) -> str:
        """What a field is called behind a step: buffers are followed from who points to them, as in a trace."""
        words = self.fields[number].words
        buffer = re.match(r"fpstate#\d+", words)
        if buffer is None:
            return words
        owners = self.owners(buffer[0], at)
        return min(owners, key=lambda owner: not owner.startswith("v"), default=buffer[0]) + words[buffer.end() :]

    def owners(self, buffer: str, at: int) -> list[str]:
        """What points to a buffer behind a step."""
        values = self.trail.values[at]
        return [self.fields[number].path for number in self._pointers if self.text(values[number]) == buffer]

    def present(self, group: str, at: int) -> bool:
        """Whether there is an element behind a step; of the ghost's, whether there is what they are about."""
        flags = (f"{group.removeprefix('ghost.')}.{flag}" for flag in _THERE)
        known = next((self._numbers[flag] for flag in flags if flag in self._numbers), None)
        return known is None or self.text(self.trail.values[at][known]) == "1"

    def state(self) -> Iterator[tuple[str, str, list[int]]]:
        """What is to be shown of the state behind the step: elements, their pools, their fields."""
        writers = self.trail.writers[self.step]
        by_group: dict[int, list[int]] = {}
        for number, field in enumerate(self.fields):
            touched = writers[number] > (NOBODY if self.everything else BOOT)
            if touched and (self.everything or not field.quiet) and self.wanted(field):
                by_group.setdefault(field.group, []).append(number)
        for group in sorted(by_group):
            name, pool = self.groups[group]
            if self.present(name, self.step):
                yield name, pool, by_group[group]

    def changed(self) -> list[int]:
        """The fields that the step changed, as far as they are to be shown."""
        numbers = ((number, self.fields[number]) for number in self.here.changed)
        return [number for number, field in numbers if (self.everything or not field.quiet) and self.wanted(field)]

    # -- unfolding -----------------------------------------------------------------------------------------------------

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {field.path: number for number, field in enumerate(self.fields)}

    @cached_property
    def _pointers(self) -> list[int]:
        return [number for number, field in enumerate(self.fields) if re.search(r"(^|[._])fpstate$", field.name)]

    def _trail(self, numbers: Sequence[int]) -> Trail:
        steps = [self._step(*self._data["steps"][number]) for number in numbers]
        value, writer = [field.blank for field in self.fields], [NOBODY] * len(self.fields)
        values, writers = [], []
        for at, step in enumerate(steps):
            for field, new in step.changed.items():
                value[field], writer[field] = new, at
            values.append(tuple(value))
            writers.append(tuple(writer))
        return Trail(steps, values, writers)

    def _step(self, op: str, result: str, difference: list[int], broken: list[Any], events: Sequence[str] = ()) -> Step:
        changed = dict(zip(difference[::2], difference[1::2], strict=True))
        return Step(op, result, changed, tuple(self._broken(*one) for one in broken), tuple(events))

    def _broken(self, invariant: int, message: str, reasons: list[Any], story: str = "") -> Broken:
        named = tuple(
            Reason(field, value, step, bool(contradicts), bool(found))
            for field, value, step, contradicts, found in reasons
        )
        name, severity, why = self._data["invariants"][invariant]
        return Broken(name, severity, why, f"{message}; {story}" if story else message, named)
