"""The finding that a program is about, one bucket of those that it breaks, and the kernels on which that is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console

from xfdfuzz.invariants.vocabulary import INVARIANTS, SEVERITIES, invariant_of
from xfdfuzz.program.program import Program
from xfdfuzz.report.console import hanging
from xfdfuzz.revisions import selects
from xfdfuzz.revisions.ranges import in_ranges


@dataclass(frozen=True)
class Outcome:
    """What a program came to on a kernel.  ``buckets`` are those that it breaks there, ``whole`` is whether all of its
    ops could happen."""

    name: str
    buckets: tuple[str, ...]
    whole: bool


def bucket(program: Program, outcome: Outcome) -> str:
    """What the program is about there: what it expects, else the worst; of several the first.  Empty if all is well."""
    expected = {name for e in program.expect if selects(e.revisions, outcome.name) for name in e.invariants}

    def rank(one: str) -> tuple[bool, int]:
        name = invariant_of(one)
        return name not in expected, SEVERITIES.index(INVARIANTS[name].severity)

    return min(outcome.buckets, key=rank, default="")


def first(program: Program, outcomes: Sequence[Outcome]) -> str:
    """What it is about, on the first kernel that it says it breaks something on, else on the first where it does."""

    def rank(outcome: Outcome) -> bool:
        return not any(e.kind == "violates" and selects(e.revisions, outcome.name) for e in program.expect)

    broken = [outcome for outcome in outcomes if outcome.buckets]
    return bucket(program, min(broken, key=rank)) if broken else ""


def sentence(about: str, outcomes: Sequence[Outcome]) -> str:
    """On which of the kernels that bucket is, on which it cannot be known, and which break other things alone."""
    return "; ".join(_parts(about, outcomes))


def _parts(about: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    here = [one.name for one in outcomes if about in one.buckets]
    untold = [one.name for one in outcomes if about not in one.buckets and not one.whole]
    others = [one.name for one in outcomes if about not in one.buckets and one.whole and one.buckets]
    if len(here) == len(outcomes) > 1:
        yield f"on all {len(here)} kernels"
        return
    yield f"on {_listed(here)}{'' if len(here) > 1 else ' only'}"
    if untold:
        yield f"not known of {_listed(untold)} (an op could not happen)"
    if others:
        yield f"only other violations on {_listed(others)}"


def _listed(names: Iterable[str]) -> str:
    *some, last = in_ranges(names)
    return f"{', '.join(some)} and {last}" if some else last


def terminal(out: Console, program: Program, outcomes: Sequence[Outcome]) -> None:
    """The sentence, where something is broken and there is more than one kernel to tell of."""
    about = first(program, outcomes)
    if about and len(outcomes) > 1:
        hanging(out, 2, (about, "bold"), f": {sentence(about, outcomes)}")
