"""A relation as a promise: a program in which it says something, and a mistake of the kernel that breaks it there.

The mistake is one that people make, as far as one is found: a function that leaves a field as it was.  Else a function
writes a wrong value.  Whether it breaks the relation is tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from xfdfuzz.arch.kinds import Mask, Reference
from xfdfuzz.engines.review.accesses import Access, accesses
from xfdfuzz.engines.review.mining import Mined, says
from xfdfuzz.engines.review.relations import Relation
from xfdfuzz.engines.review.rows import POOLS, Column, Rows, points_to
from xfdfuzz.engines.review.space import Space
from xfdfuzz.engines.review.subjects import Subject
from xfdfuzz.engines.review.survival import sights
from xfdfuzz.kernel.base import kernel_name
from xfdfuzz.kernel.kvm.vmx import Kernel
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import NOT_ENABLED, PANIC
from xfdfuzz.revisions import Revision

#: The one value that a mistake writes which leaves a field as it was.
_KEPT: Sequence[int | None] = [None]


class NoPromiseError(Exception):
    """Nothing is found that would break a relation; as text it is one line."""


class Mistake(NamedTuple):
    """A kernel's ``method`` that leaves a field of the object number ``nr`` as it was, or writes ``value`` there."""

    method: str
    column: Column
    nr: int
    value: int | None = None


@dataclass(frozen=True)
class Promise:
    """A relation with a shortest program to a place where it ``speaks``, and one in which a mistake breaks it."""

    mined: Mined
    subject: Subject
    revision: Revision
    speaks: Program
    mistake: Mistake
    breaks: Program


def promise(one: Mined, subject: Subject, space: Space) -> Promise:
    """Look for both in what was explored; raises NoPromiseError."""
    speaks = _speaks(one.relation, subject, space)
    for mistake, program in _mistakes(one, subject, space, speaks):
        kernel = mistaken(space.revision.kernel, mistake, subject.of)
        if _breaks(one.relation, subject.of, kernel, program):
            return Promise(one, subject, space.revision, speaks, mistake, program)
    raise NoPromiseError(f"{one.relation}: found no mistake of the kernel that breaks it in {space.scope.name}")


def _speaks(relation: Relation, subject: Subject, space: Space) -> Program:
    """A shortest program to a state, or with an op, of which the relation could be wrong."""
    rows = Rows(subject.of, space.scope.machine.cpus)
    here, there = (rows.places[path] for path in (relation.field, relation.other or relation.field))
    tells = [
        any(says(relation, row[here], row[there]) for _, row in rows.of(space.raw(state)))
        for state in range(len(space.states))
    ]
    if not relation.points:
        return space.program_to(tells.index(True))
    points = {nr for nr, op in enumerate(space.scope.ops) if type(op).__name__ in relation.points}
    arc = next(arc for arc in space.arcs if arc.op in points and tells[arc.target])
    return space.program_to(arc.source, arc.op)


# -- mistakes ----------------------------------------------------------------------------------------------------------


def _mistakes(one: Mined, subject: Subject, space: Space, speaks: Program) -> Iterator[tuple[Mistake, Program]]:
    """Those that may break it, the likeliest first, each with a program in which the method is executed."""
    seen, columns = accesses(space, subject), [subject.column]
    writers = [(subject.column, access) for access in seen if access.action.writes]
    if one.other is not None and not one.other.compared:
        columns.append(one.other)
        others = accesses(space, Subject(subject.of, one.other))
        writers += [(one.other, access) for access in others if access.action.writes]
    wrong = [(column, access, _wrong(column, one.relation)) for column in columns for access in seen]
    for column, access, values in [*((column, access, _KEPT) for column, access in writers), *wrong]:
        for program in (space.program_to(access.state, access.op), speaks):
            yield from ((mistake, program) for mistake in _by(access, column, subject, space, values))


def _by(
    access: Access, column: Column, subject: Subject, space: Space, values: Sequence[int | None]
) -> Iterator[Mistake]:
    """Mistakes of a function, whatever its parts are called here."""
    kernel = space.revision.kernel
    methods = [name for name in dir(kernel) if kernel_name(name) == access.function and callable(getattr(kernel, name))]
    objects = len(Rows(subject.of, space.scope.machine.cpus).pool.starts)
    for value in values:
        for method in methods:
            yield from (Mistake(method, column, nr, value) for nr in range(objects))


def _wrong(column: Column, relation: Relation) -> Sequence[int | None]:
    """Values that may be wrong: nothing, something, and another one than the relation names."""
    largest = (1 << 8 * column.field.size - column.field.signed) - 1
    named = {value for value in (relation.value, relation.when) if value is not None}
    all_bits = [largest] if isinstance(column.kind, Mask) else []
    return list(dict.fromkeys([0, 1, *all_bits, *sorted(named), *(value + 1 & largest for value in sorted(named))]))


def mistaken(kernel: type[Kernel], mistake: Mistake, of: str) -> type[Kernel]:
    """That kernel with the mistake."""
    sound = getattr(kernel, mistake.method)
    path, _, name = mistake.column.field.member.rpartition(".")

    def method(self: Kernel, *arguments: Any, **more: Any) -> Any:
        owner = _owner(self, mistake, of, path)
        value = getattr(owner, name) if mistake.value is None else mistake.value
        result = sound(self, *arguments, **more)
        setattr(owner, name, value)
        return result

    return type("Mistake", (kernel,), {mistake.method: method})


def _owner(kernel: Kernel, mistake: Mistake, of: str, path: str) -> Any:
    """The structure that has the field."""
    pool, via = POOLS[of], mistake.column.via
    owner: Any = getattr(kernel.system, pool)[mistake.nr] if pool else kernel.system
    if via is not None:
        there, kind = points_to(via, pool), via.kind
        assert there
        assert isinstance(kind, Reference)
        owner = getattr(kernel.system, there.name)[attrgetter(via.member)(owner) - kind.offset]
    return attrgetter(path)(owner) if path else owner


def _breaks(relation: Relation, of: str, kernel: type[Kernel], program: Program) -> bool:
    """Whether the relation fails in the program, on a kernel that lives."""
    look, executor = sights([relation], of), Executor(kernel, program.machine)
    try:
        steps = executor.run(program.ops)
        return any(any(look(executor.kernel, step)) for step in steps if step.result.ret not in (NOT_ENABLED, PANIC))
    except Exception:  # a kernel that goes wrong in the model's own terms, an index out of bounds say
        return False
