"""What can hold between a field and another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from xfdfuzz.engines.review.rows import Value


class Form(Enum):
    """The forms of relations: ``a`` is the field that is asked about, ``b`` the other one, ``c`` a constant."""

    IS = "{a} == {c}"
    EQUAL = "{a} == {b}"
    WITHIN = "{a} & ~{b} == 0"
    CONTAINS = "{b} & ~{a} == 0"
    APART = "{a} & {b} == 0"
    AT_MOST = "{a} <= {b}"
    AT_LEAST = "{a} >= {b}"
    EXACTLY_IF = "{set} <=> {b} == {c}"
    IMPLIES = "{set} => {b} == {c}"
    IMPLIES_SET = "{set} => {b} != 0"
    FORCED = "{b} != 0 => {a} == {c}"
    FORCED_SET = "{b} != 0 => {a} != 0"


@dataclass(frozen=True)
class Relation:
    """One relation.

    ``field`` is asked about, ``other`` the other field, if there is one, ``value`` the constant c.  ``when``: in an
    implication A stands for ``field == when``; None: for ``field != 0``.  ``points``: the ops after which it holds, by
    their class names; none: it holds always.
    """

    form: Form
    field: str
    other: str = ""
    value: int | None = None
    when: int | None = None
    points: tuple[str, ...] = ()

    def holds(self, here: Value, there: Value) -> bool:
        """Whether it holds of two values; it does where there is no other object."""
        if not isinstance(here, int) or (self.other and not isinstance(there, int)):
            return True
        return _HOLDS[self.form](self, here, there if isinstance(there, int) else 0)

    def antecedent(self, here: Value) -> bool:
        """Whether an implication says anything of that value."""
        return here == self.when if self.when is not None else bool(here)

    @property
    def general(self) -> Relation:
        """The same without points."""
        return replace(self, points=())

    def text(self, of_field: Callable[[int], str] = str, of_other: Callable[[int], str] = str) -> str:
        """The relation as C would write it, with its constants as those write the values of the two fields."""
        about_field = self.form in (Form.IS, Form.FORCED)
        constant = "" if self.value is None else (of_field if about_field else of_other)(self.value)
        chosen = f"{self.field} != 0" if self.when is None else f"{self.field} == {of_field(self.when)}"
        return self.form.value.format(a=self.field, b=self.other, c=constant, set=chosen)

    def __str__(self) -> str:
        return f"{self.text()} after {', '.join(self.points)}" if self.points else self.text()


_HOLDS: Mapping[Form, Callable[[Relation, int, int], bool]] = {
    Form.IS: lambda relation, a, b: a == relation.value,
    Form.EQUAL: lambda relation, a, b: a == b,
    Form.WITHIN: lambda relation, a, b: not a & ~b,
    Form.CONTAINS: lambda relation, a, b: not b & ~a,
    Form.APART: lambda relation, a, b: not a & b,
    Form.AT_MOST: lambda relation, a, b: a <= b,
    Form.AT_LEAST: lambda relation, a, b: a >= b,
    Form.EXACTLY_IF: lambda relation, a, b: relation.antecedent(a) == (b == relation.value),
    Form.IMPLIES: lambda relation, a, b: not relation.antecedent(a) or b == relation.value,
    Form.IMPLIES_SET: lambda relation, a, b: not relation.antecedent(a) or b != 0,
    Form.FORCED: lambda relation, a, b: not b or a == relation.value,
    Form.FORCED_SET: lambda relation, a, b: not b or a != 0,
}
