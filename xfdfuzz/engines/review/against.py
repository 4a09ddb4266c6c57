"""What holds of a field on one revision and not on another: what a reviewer of a second version asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from xfdfuzz.engines.review.mining import Mined, Table, mined
from xfdfuzz.engines.review.space import explored
from xfdfuzz.engines.review.subjects import Subject
from xfdfuzz.engines.review.survival import Break, Survival, in_scope
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


def against(subject: Subject, first: Revision, second: Revision, scope: str) -> Comparison:
    """Hold the relations of each against all states of the other."""
    return Comparison(
        subject,
        first,
        second,
        _lost(subject, _all(subject, first, scope), second, scope),
        _lost(subject, _all(subject, second, scope), first, scope),
    )


def _all(subject: Subject, revision: Revision, scope: str) -> list[Mined]:
    return mined(Table(explored(revision, scope), subject.of), subject)


def _lost(subject: Subject, relations: Sequence[Mined], revision: Revision, scope: str) -> tuple[Lost, ...]:
    survival = Survival([one.relation for one in relations])
    in_scope(survival, revision, subject.of, scope, None)
    return tuple(Lost(one, survival.broken[one.relation]) for one in relations if one.relation in survival.broken)
