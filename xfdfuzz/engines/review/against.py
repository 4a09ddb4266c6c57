"""What holds of a field on one revision and not on another: what a reviewer of a second version asks."""

from __future__ import annotations

from typing import NamedTuple

from xfdfuzz.engines.review.mining import Mined, Table, mined
from xfdfuzz.engines.review.space import Space
from xfdfuzz.engines.review.subjects import Subject
from xfdfuzz.engines.review.survival import Break, Survival, in_space
from xfdfuzz.revisions import Revision


class Lost(NamedTuple):
    """A relation, and what breaks it on the other revision."""

    mined: Mined
    broken: Break


class Comparison(NamedTuple):
    """The relations that hold in a scope on one of two revisions alone."""

    subject: Subject
    first: Revision
    second: Revision
    only_first: tuple[Lost, ...]
    only_second: tuple[Lost, ...]


def against(subject: Subject, first: Space, second: Space, shown: int | None = None) -> Comparison:
    """Hold the relations of each of two revisions, the first so many, against all states of the other."""
    only_first, only_second = _lost(subject, first, second, shown), _lost(subject, second, first, shown)
    return Comparison(subject, first.revision, second.revision, only_first, only_second)


def _lost(subject: Subject, here: Space, there: Space, shown: int | None) -> tuple[Lost, ...]:
    relations = mined(Table(here, subject.of), subject)[:shown]
    survival = Survival([one.relation for one in relations])
    in_space(survival, there, subject.of)
    return tuple(Lost(one, survival.broken[one.relation]) for one in relations if one.relation in survival.broken)
