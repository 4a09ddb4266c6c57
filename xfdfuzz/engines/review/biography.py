"""The biography of a field: who writes and reads it, how it lives, what holds of it, and how well that was tried."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xfdfuzz.engines.review.accesses import Access, accesses
from xfdfuzz.engines.review.life import Life, life
from xfdfuzz.engines.review.mining import Mined, Table, mined
from xfdfuzz.engines.review.space import explored
from xfdfuzz.engines.review.subjects import Subject
from xfdfuzz.engines.review.survival import Break, Checked, Survival, fuzzed, other_scopes
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision

#: How many relations are shown, and tried, unless all are asked for.
SHOWN = 12


@dataclass(frozen=True)
class Known:
    """A relation that holds in the scope, what else it was held against, and what broke it there."""

    mined: Mined
    checked: tuple[Checked, ...]
    broken: Break | None


@dataclass(frozen=True)
class Written:
    """What a function does to the field, and a shortest program that ends with it."""

    access: Access
    program: Program


@dataclass(frozen=True)
class Biography:
    """All of it, from all ``states`` of a scope, or from those that there was time for; ``more`` relations were not
    tried."""

    subject: Subject
    revision: Revision
    scope: str
    states: int
    exhausted: bool
    written: tuple[Written, ...]
    read: tuple[Access, ...]
    life: Life
    relations: tuple[Known, ...]
    more: int
    seconds: float


def biography(
    subject: Subject,
    revision: Revision,
    scope: str,
    plan: Plan,
    *,
    shown: int | None = SHOWN,
    tell: Callable[[str], None] = lambda what: None,
) -> Biography:
    """Write it: half of the plan's time is for other scopes, half for the fuzzer.  ``tell`` is told what comes next."""
    began = time.monotonic()
    tell(f"exploring {scope}")
    space = explored(revision, scope)
    table = Table(space, subject.of)
    tell("looking for relations")
    relations = mined(table, subject)
    chosen = relations[:shown]
    survival = tried(chosen, subject, revision, scope, plan, tell)
    seen = accesses(space, revision, subject)
    return Biography(
        subject,
        revision,
        scope,
        len(space.states),
        space.exhausted,
        tuple(Written(one, space.program_to(one.state, one.op)) for one in seen if one.action.writes),
        tuple(one for one in seen if not one.action.writes),
        life(space, table, subject),
        tuple(_known(one, survival) for one in chosen),
        len(relations) - len(chosen),
        time.monotonic() - began,
    )


def tried(
    relations: Sequence[Mined],
    subject: Subject,
    revision: Revision,
    scope: str,
    plan: Plan,
    tell: Callable[[str], None],
) -> Survival:
    """Hold relations against other scopes and the fuzzer."""
    survival = Survival([one.relation for one in relations])
    if relations and plan.seconds:
        tell("trying the relations in other scopes")
        other_scopes(survival, revision, subject.of, scope, plan.seconds)
    if survival.left():
        tell("looking for programs that break them")
        fuzzed(survival, revision, subject.of, plan)
    return survival


def _known(one: Mined, survival: Survival) -> Known:
    relation = one.relation
    return Known(one, tuple(survival.checked.get(relation, ())), survival.broken.get(relation))
