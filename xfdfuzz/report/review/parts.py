"""What a review says, a section for each question; the terminal and the mail write the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from xfdfuzz.engines.judge.finding import Discrepancy
from xfdfuzz.engines.review.accesses import Action
from xfdfuzz.engines.review.biography import Written
from xfdfuzz.engines.review.life import Life as FieldLife
from xfdfuzz.engines.review.outcomes import Outcome, Outcomes
from xfdfuzz.engines.review.review import Life, Review
from xfdfuzz.engines.review.warnings import Verdict
from xfdfuzz.invariants.sometimes import GOALS
from xfdfuzz.kernel.base import SEAMS
from xfdfuzz.program.ops import OPS
from xfdfuzz.program.ops.base import GuestOp
from xfdfuzz.program.program import Program
from xfdfuzz.report import reach, warnings
from xfdfuzz.report.biography import relation_text
from xfdfuzz.report.console import counted
from xfdfuzz.report.finding import groups
from xfdfuzz.revisions import RevisionError, find
from xfdfuzz.strategies.scopes import SCOPES

#: How the results begin with which KVM_RUN asks user space to do something.
_EXIT = "KVM_EXIT_"


class Part(NamedTuple):
    """A line, so far in, and the program that shows it, which is printed if the line is to be told ``whole``."""

    text: str
    indent: int = 2
    program: Program | None = None
    whole: bool = True


def verdict(review: Review) -> str:
    """All of it in a sentence."""
    sites = counted(len(review.touched), "WARN site")
    fire = (
        f"{len(review.fires)} of {sites} in what it changes fire"
        if review.touched
        else "no WARN site in what it changes"
    )
    differ = _promised(review) if review.differences else ""
    said = [one for one in (_broken(review), fire if review.warnings else "", differ) if one]
    return f"{review.revision.label} against {review.base.label}: {'; '.join(said) or 'nothing was looked at'}"


def _broken(review: Review) -> str:
    if review.findings is None:
        return ""
    gathered = groups(review.new, review.roots)
    if not gathered:
        return "no finding that the base does not have"
    worst = min((one for one in review.new), key=lambda one: one.rank).violation.severity
    follow = len(review.new) - len(gathered)
    return f"{counted(len(gathered), 'root finding')}, the worst {worst}, {counted(follow, 'consequence')}"


def _promised(review: Review) -> str:
    promised = sum(one.bucket in review.promises for one in review.visible)
    return f"{counted(len(review.visible), 'difference')} for user space, {promised} of them promised"


# -- 1. what the series changes ----------------------------------------------------------------------------------------


def changes(review: Review) -> Iterator[Part]:
    """Functions, fields, what user space gets."""
    for origin, functions in review.replaced.items():
        yield Part(f"{_title(origin)}:")
        yield Part(", ".join(f"{name}()" for name in functions), 4)
    if review.gone:
        yield Part(f"no more there: {', '.join(f'{name}()' for name in review.gone)}")
    if not (review.replaced or review.gone):
        yield Part("no function differs")
    anew, otherwise = ([one.path for one in those] for those in review.written)
    yield Part(f"fields that {review.base.label} never writes: {', '.join(anew) or 'none'}")
    if otherwise:
        yield Part(f"fields that are written otherwise: {', '.join(otherwise)}")
    yield from _differences(review)
    if review.outcomes:
        yield from _outcomes(review, review.outcomes)


def _title(origin: str) -> str:
    try:
        return f'{origin} ("{find(origin).title}")'
    except RevisionError:
        return origin  # a mail, or a version


def _differences(review: Review) -> Iterator[Part]:
    if review.differences is None:
        return
    yield Part(f"what user space gets: {counted(len(review.visible), 'difference')}")
    for one in sorted(review.visible, key=lambda one: len(one.program.ops)):
        yield Part(_difference(review, one), 4, one.program)
    missed = [one for one in review.promises if one not in {seen.bucket for seen in review.visible}]
    if missed:
        yield Part(f"promised, and not seen: {', '.join(missed)}")


def _difference(review: Review, one: Discrepancy) -> str:
    promised = " (promised)" if one.bucket in review.promises else ""
    sides = f"{one.difference.first} | {one.difference.second}"
    said = "" if one.bucket.endswith(sides) else f": {sides.replace(' | ', f' on {review.base.label}, now ')}"
    return f"{one.bucket}{said}{promised}"


def _outcomes(review: Review, found: Outcomes) -> Iterator[Part]:
    base, here = found.states
    whole = "every" if found.exhausted else "not every"
    yield Part(f"in scope {found.scope} ({whole} state: {base:,} and {here:,})")
    exits = [one.result for one in found.only_revision if one.result.startswith(_EXIT)]
    if exits:
        yield Part(f"user space has to handle an exit that {review.base.label} does not have: {', '.join(exits)}", 4)
    told = {one.difference.op for one in review.visible}
    for one in found.only_revision:
        shown = one.op not in told and not issubclass(OPS[one.op], GuestOp)
        yield Part(f"now {_gives(one)}", 4, one.program if shown else None)
    for one in found.only_base:
        yield Part(f"no more: {_gives(one)}", 4)


def _gives(one: Outcome) -> str:
    return f"{one.op} gives {one.result} (after {counted(len(one.program.ops) - 1, 'op')})"


# -- 3. WARN sites -----------------------------------------------------------------------------------------------------


def sites(review: Review) -> Iterator[Part]:
    """A verdict for each, those first that stand in what the series changes."""
    if review.warnings is None:
        return
    of_series = [one for one in review.warnings.verdicts if one.site in review.touched]
    rest = [one for one in review.warnings.verdicts if one.site not in review.touched]
    for title, those in (("in what the series changes", of_series), ("elsewhere", rest)):
        if those:
            yield Part(f"{title}:")
        for one in sorted(those, key=lambda one: one.fires is None):
            yield from _site(one, whole=one in of_series)
    yield Part(warnings.statement(review.warnings))


def _site(one: Verdict, whole: bool) -> Iterator[Part]:
    if one.fires is None:
        never = {True: "reached, never fired", False: "never reached", None: "never fired"}[one.reached]
        yield Part(f"{never}: {warnings.place(one)}", 4)
        return
    needed = warnings.needed_for(one.fires.program)
    where = "the fuzzer" if one.fires.where == "fuzz" else f"scope {one.fires.where}"
    behind = f", behind {one.fires.behind}" if one.fires.behind else ""
    needs = f", needs {' and '.join(needed)}" if needed else ""
    said = f"FIRES: {warnings.place(one)} ({where}{behind}{needs})"
    yield Part(said, 4, one.fires.program, whole)


# -- 4. fields ---------------------------------------------------------------------------------------------------------


def lives(review: Review) -> Iterator[Part]:
    """The short biography of each field that the series writes and the base does not."""
    for one in review.lives:
        yield from _life(one)
    if review.findings and not review.written.anew:
        yield Part("the series writes no field that the base does not write")


def _life(one: Life) -> Iterator[Part]:
    found = one.biography
    yield Part(f"{found.subject.path} ({found.subject.column.field.kind}):")
    for written in found.written:
        yield _written(written)
    if not found.written:
        yield Part(f"nobody writes it in scope {found.scope}", 4)
    elif not any(one.access.action is Action.CLEARS for one in found.written):
        yield Part("nobody clears it", 4)
    readers = [_name(access.function) for access in found.read]
    yield Part(f"read by {', '.join(readers) or 'nobody'}", 4)
    if found.written:
        yield from _for_ever(found.life)
    yield from _cleared(one.cleared)
    for known in found.relations:
        if not known.broken:
            yield Part(f"holds: {relation_text(known.mined, found.subject.column.kind)}", 4)


def _for_ever(life: FieldLife) -> Iterator[Part]:
    """Whether it can stay set for ever: although KVM_RUN returns to user space, or else while others get on."""
    loop = life.returning or life.loop
    if loop is None:
        yield Part("cannot stay set for ever: it is cleared where user space or the guest gets on", 4)
        return
    memory = ", while no memory can be had" if loop.without_memory else ""
    though = "although KVM_RUN returns again and again" if life.returning else "but not where KVM_RUN returns"
    said = f"can stay set for ever, {though}{memory}: the last {loop.turns} ops can be repeated"
    yield Part(said, 4, loop.program)


def _written(one: Written) -> Part:
    callers = f", called by {', '.join(map(_name, one.access.callers))}" if one.access.callers else ""
    said = f"{_name(one.access.function)} {one.access.action.value}{callers}"
    waiting = one.access.action in (Action.OVERWRITES, Action.REPEATS)
    return Part(said, 4, one.program if waiting else None)


def _name(function: str) -> str:
    return function if function in OPS or function in SEAMS else f"{function}()"


def _cleared(outcomes: Sequence[Outcome]) -> Iterator[Part]:
    """Which ops find it set and leave it clear, those that fail with a program: nobody has served what it stood for."""
    plain = [f"{one.op} = {one.result}" for one in outcomes if not _fails(one)]
    if plain:
        yield Part(f"is clear after {', '.join(plain)}", 4)
    for one in outcomes:
        if _fails(one):
            yield Part(f"is cleared although {one.op} fails with {one.result}", 4, one.program)


def _fails(one: Outcome) -> bool:
    """-EINTR says that a signal came."""
    return one.result.startswith("-") and one.result != "-EINTR"


# -- 5. and 6. what this does not say ----------------------------------------------------------------------------------


def unreached(review: Review) -> Iterator[Part]:
    """Functions and lines of the series and ops that never ran, and goals that were never met."""
    if review.reach:
        yield from map(Part, reach.lines(review.reach))
    searches = [one for one in (review.differences, review.findings) if one]
    ran = {op for one in searches for op in one.stats.coverage}
    never = [op for op in OPS if op not in ran]
    if searches and never:
        yield Part(f"ops that never ran: {', '.join(never)}")
    if review.findings:
        goals = [name for name in GOALS if not review.findings.stats.goals[name]]
        yield Part(f"goals that were never met: {', '.join(goals) or 'none'}")


def silent(review: Review) -> Iterator[Part]:
    """Where nothing was looked at, or not at all of it."""
    checked = review.warnings.checked if review.warnings else ()
    for one in checked:
        if one.where in SCOPES and one.exhausted:
            yield Part(f"scope {one.where} was exhausted, which leaves out {SCOPES[one.where].leaves_out}")
    partly = [one.where for one in checked if one.where in SCOPES and not one.exhausted]
    partly += [name for name in SCOPES if checked and name not in {one.where for one in checked}]
    if partly:
        yield Part(f"scopes that were not exhausted: {', '.join(partly)}")
    if review.unread:
        yield Part(f"inferred, not read in a source: {', '.join(f'{name}()' for name in review.unread)}")
    if review.untold:
        yield Part(f"no time was left for the biography of {', '.join(one.path for one in review.untold)}")
    if review.old:
        buckets = counted(len(review.old), "finding")
        yield Part(f"{buckets} that the base has too: what else the series breaks of that, fuzz --mode change asks")
    if review.findings and not review.findings.found:
        yield Part("no finding is no proof: see what was never reached")
    yield Part("what the model leaves out of Linux, docs/fidelity.md says; nothing ran on hardware")
    if review.interrupted:
        yield Part("the review was interrupted: what is missing was not looked at")
