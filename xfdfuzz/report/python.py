"""Fields and relations as Python code, for an invariant that somebody reads and goes on with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from xfdfuzz.arch.kinds import Enumeration, Kind, Reference
from xfdfuzz.engines.review.relations import Form, Relation
from xfdfuzz.engines.review.rows import POOLS, Column, Rows, points_to
from xfdfuzz.kernel import state as st
from xfdfuzz.kernel.machine import MAX_CPUS
from xfdfuzz.program.about import NUMBERED

#: What a loop over the objects is over, and what it calls one of them.
LOOPS = {
    "v": ("vcpu", "view.vcpus"),
    "t": ("task", "view.tasks"),
    "t.sigframe": ("frame", "enumerate(view.k.system.sigframes)"),
    "cpu": ("cpu", "enumerate(view.k.cpus)"),
    "vm": ("vm", "enumerate(view.k.vms)"),
    "fpstate": ("fpstate", "view.allocated"),
    "host": ("system", "[(0, view.k.system)]"),
}
#: What says that an object is there, where the loop does not.
_EXISTS = {"t.sigframe": "frame.valid", "vm": "vm.exists"}
#: So long may a statement be that stands in two blocks.
_WIDTH = 108
_BROKEN = {
    Form.IS: "{a} != {c}",
    Form.EQUAL: "{a} != {b}",
    Form.WITHIN: "{a} & ~{b}",
    Form.CONTAINS: "{b} & ~{a}",
    Form.APART: "{a} & {b}",
    Form.AT_MOST: "{a} > {b}",
    Form.AT_LEAST: "{a} < {b}",
    Form.EXACTLY_IF: "({set}) != ({b} == {c})",
    Form.IMPLIES: "{set} and {b} != {c}",
    Form.IMPLIES_SET: "{set} and not {b}",
    Form.FORCED: "{b} and {a} != {c}",
    Form.FORCED_SET: "{b} and not {a}",
}


def object_of(of: str, nr: int, kernel: str) -> str:
    """One object of a kernel: ``self.vcpus[0]``."""
    pool = POOLS[of]
    owner = kernel if pool in ("vcpus", "tasks", "cpus", "vms", "fpstates") else f"{kernel}.system"
    return f"{owner}.{pool}[{nr}]" if pool else owner


def pointed_to(column: Column, of: str, owner: str, kernel: str) -> str:
    """What the pointer of a column leads to, from the object ``owner``."""
    assert column.via is not None
    there, kind = points_to(column.via, POOLS[of]), column.via.kind
    assert there
    assert isinstance(kind, Reference)
    return f"{kernel}.{there.name}[{owner}.{column.via.member}{_less(kind)}]"


def _less(kind: Reference) -> str:
    return f" - {kind.offset}" if kind.offset else ""


def constant(kind: Kind, value: int) -> str:
    """A value by the name that it has in xfdfuzz/kernel/state.py, or in hexadecimal where it is more than a few."""
    name = kind.names.get(value, "") if isinstance(kind, Enumeration) else ""
    if name and getattr(st, name, None) == value:
        return f"st.{name}"
    return str(value) if abs(value) < 10 else hex(value)


@dataclass
class Body:
    """The code that looks at each object; ``names`` are its variables, by what stands in them."""

    relation: Relation
    of: str
    column: Column
    other: Column | None
    lines: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.object, self.loop = LOOPS[self.of]
        self.names[""] = self.object
        if self.of in _EXISTS:
            self._unless(f"not {_EXISTS[self.of]}")
        if self.relation.points and self.of in NUMBERED:
            self._unless(f'about(view.step, "{self.of}") not in (nr, None)')
        here = self._value(self.column)
        there = self._value(self.other) if self.other is not None else ""
        self.broken = self._broken(here, there)
        self._shown = {here: self.column} if self.other is None else {here: self.column, there: self.other}

    def text(self) -> str:
        """All of it, with the loop."""
        seen = ", ".join(f"{name} is {{{name}{_format(column)}}}" for name, column in self._shown.items())
        message = f'f"{self._head()}: {seen}"'
        yields = [f"yield Broken({message}, key=nr)"]
        if len(yields[0]) > _WIDTH:
            yields = ["yield Broken(", f"    {message},", "    key=nr,", ")"]
        inner = [*self.lines, f"if {self.broken}:", *(f"    {line}" for line in yields)]
        return "\n".join([f"for nr, {self.object} in {self.loop}:", *(f"    {line}" for line in inner)])

    def _head(self) -> str:
        frame = "t{nr % st.USER_TASKS}.sigframe"
        return {"host": "host", "fpstate": "fpstate#{nr}", "t.sigframe": frame}.get(self.of, f"{self.of}{{nr}}")

    def _unless(self, condition: str) -> None:
        self.lines += [f"if {condition}:", "    continue"]

    def _broken(self, here: str, there: str) -> str:
        relation = self.relation
        about_field = relation.form in (Form.IS, Form.FORCED)
        kind = self.column.kind if about_field or self.other is None else self.other.kind
        value = "" if relation.value is None else constant(kind, relation.value)
        chosen = here if relation.when is None else f"{here} == {constant(self.column.kind, relation.when)}"
        if relation.form is Form.EXACTLY_IF and relation.when is None:
            chosen = f"{here} != 0"
        return _BROKEN[relation.form].format(a=here, b=there, c=value, set=chosen)

    def _value(self, column: Column) -> str:
        """A variable with what stands in a column."""
        if column.compared:
            one, other = (self._pointer(path) for path in column.path.strip("()").split(" == "))
            return self._assigned(column.path, "same_buffer", f"{one} == {other}")
        return self._assigned(column.path, _last(column.field.member), f"{self._owner(column)}.{column.field.member}")

    def _pointer(self, path: str) -> str:
        (column,) = (one for one in Rows(self.of, MAX_CPUS).columns if one.path == path)
        return f"{self._owner(column)}.{column.field.member}"

    def _owner(self, column: Column) -> str:
        """The variable with the object that has the field; where a pointer leads nowhere nothing is looked at."""
        if column.via is None:
            return self.object
        path, kind = column.via.member, column.via.kind
        if path not in self.names:
            assert isinstance(kind, Reference)
            self.lines += [*self._leads_nowhere(f"{self.object}.{path}", kind)]
            leads_to = pointed_to(column, self.of, self.object, "view.k")
            self._assigned(path, _last(path), leads_to)
        return self.names[path]

    def _leads_nowhere(self, pointer: str, kind: Reference) -> Iterator[str]:
        if kind.name == "fpstate" or kind.offset:
            yield from (f"if not {pointer}:", "    continue")
        if kind.name == "task":
            yield from (f"if {pointer}{_less(kind)} >= st.USER_TASKS:", "    continue")

    def _assigned(self, key: str, wanted: str, code: str) -> str:
        name = wanted
        while name in self.names.values():
            name = f"other_{name}"
        self.names[key] = name
        self.lines.append(f"{name} = {code}")
        return name


def _last(member: str) -> str:
    """``xfd`` for ``regs.xfd``."""
    return member.rpartition(".")[2].lstrip("_")


def _format(column: Column) -> str:
    return "" if isinstance(column.kind, Enumeration | Reference) or column.field.size == 1 else ":#x"
