"""The biography of a field: who writes and reads it, how it lives, what holds of it, and how well that was tried."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from xfdfuzz.engines.processes.interrupt import PatientInterrupt
from xfdfuzz.engines.review.accesses import Access, accesses
from xfdfuzz.engines.review.life import Life, life
from xfdfuzz.engines.review.mining import Mined, Table, mined
from xfdfuzz.engines.review.space import Space, in_shares, others
from xfdfuzz.engines.review.subjects import Subject
from xfdfuzz.engines.review.survival import Break, Checked, Survival, fuzzed, has_objects, in_scope
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.program.program import Program
from xfdfuzz.revisions import Revision
from xfdfuzz.strategies.scopes import SCOPES

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
    tried, and the others not to the end if that was ``interrupted``."""

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
    interrupted: bool

    def held(self, known: Known) -> tuple[Checked, ...]:
        """All that a relation was held against."""
        return Checked(self.scope, self.states, self.exhausted), *known.checked


def biography(
    subject: Subject,
    space: Space,
    plan: Plan,
    *,
    elsewhere: Sequence[str] | None = None,
    shown: int | None = SHOWN,
    tell: Callable[[str], None] = lambda what: None,
) -> Biography:
    """Write it from what was explored.

    Relations are then tried ``elsewhere``, in all other scopes if none is named, for half of the plan's time, and by
    the fuzzer in the other half.  ``tell`` is told what comes next.  Ctrl-C ends the trial, and if it has ended
    the exploration there is none.
    """
    began = time.monotonic()
    tell("looking for relations")
    with PatientInterrupt(everywhere=True) as ctrl_c:
        table = Table(space, subject.of)
        relations = mined(table, subject)
        seen, lives = accesses(space, subject), life(space, table, subject)
    chosen = relations[:shown]
    survival = Survival([one.relation for one in chosen])
    interrupted = space.interrupted or ctrl_c.pressed
    try:
        if not interrupted:
            tried(survival, subject, space.revision, others(space.scope.name, elsewhere), plan, tell)
    except KeyboardInterrupt:
        interrupted = True
    return Biography(
        subject,
        space.revision,
        space.scope.name,
        len(space.states),
        space.exhausted,
        tuple(Written(one, space.program_to(one.state, one.op)) for one in seen if one.action.writes),
        tuple(one for one in seen if not one.action.writes),
        lives,
        tuple(_known(one, survival) for one in chosen),
        len(relations) - len(chosen),
        time.monotonic() - began,
        interrupted,
    )


def tried(
    survival: Survival,
    subject: Subject,
    revision: Revision,
    scopes: Sequence[str],
    plan: Plan,
    tell: Callable[[str], None],
) -> None:
    """Hold relations against other scopes and the fuzzer; raises KeyboardInterrupt, when what is known is noted."""
    half = replace(plan, seconds=plan.seconds and plan.seconds / 2)
    chosen = [name for name in scopes if has_objects(SCOPES[name], subject.of)]
    for name, share in in_shares(chosen, half.seconds):
        if survival.left():
            tell(f"trying {len(survival.left())} relations in {name}")
            in_scope(survival, revision, subject.of, name, share)
    if survival.left():
        tell(f"looking for programs that break {len(survival.left())} relations")
        fuzzed(survival, revision, subject.of, half)


def _known(one: Mined, survival: Survival) -> Known:
    relation = one.relation
    return Known(one, tuple(survival.checked.get(relation, ())), survival.broken.get(relation))
