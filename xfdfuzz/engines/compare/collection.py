"""Programs that are kept together: what each breaks where, what its lines can say, and what tells nothing new."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import groupby

from xfdfuzz.engines.compare.matrix import matrix
from xfdfuzz.engines.judge.minimise import Shows, reduce
from xfdfuzz.engines.judge.verdict import Verdict, gives, judge, revisions_for
from xfdfuzz.program.program import Expectation, Program
from xfdfuzz.revisions import Revision, RevisionError, lines, selects

#: How long the name of a file gets, without `.xfd`.
_LONGEST = 60


@dataclass(frozen=True)
class Kept:
    """A program of a collection; ``broken`` are the names of revisions, each with a bucket."""

    file: str
    program: Program
    broken: frozenset[tuple[str, str]]


def collected(
    programs: Sequence[tuple[str, Program]], revisions: Sequence[Revision], executor: Executor
) -> Iterator[Kept]:
    """Programs, given with their files, with what they break on the revisions; raises BrokenExecutor."""
    for row in matrix(programs, revisions, executor):
        cells = zip(revisions, row.cells, strict=True)
        broken = frozenset((revision.name, bucket) for revision, cell in cells for bucket in cell.buckets)
        yield Kept(row.file, row.program, broken)


def same_program(program: Program, others: Iterable[Kept]) -> str | None:
    """The file that has the same machine, ops and patches."""
    return next((kept.file for kept in others if bare(kept.program) == bare(program)), None)


def bare(program: Program) -> Program:
    """What is executed, without what is said of it."""
    return Program(program.machine, program.ops, apply=program.apply, revert=program.revert)


def shown_by(broken: frozenset[tuple[str, str]], others: Iterable[Kept]) -> list[str]:
    """The files that break all of that between them, on the same revisions; nothing if they do not."""
    left, files, others = set(broken), [], list(others)
    while left:
        most = max(others, key=lambda kept: len(left & kept.broken), default=None)
        if most is None or not left & most.broken:
            return []
        left -= most.broken
        files.append(most.file)
    return files


# -- what is said of a program -----------------------------------------------------------------------------------------


def failures(program: Program) -> list[str]:
    """What does not hold, and where, of all that the program says of revisions; raises RevisionError."""
    found = []
    for revision in revisions_for(program) if program.expect else ():
        verdict = judge(program, revision)
        silent = [] if verdict.happened else ["nothing was executed"]
        found += [f"{revision.label}: {failure}" for failure in [*verdict.failures, *silent]]
    return found


def spoken(program: Program, revisions: Sequence[Revision]) -> Program:
    """With an `expect:` line for each of the revisions that none speaks of, and no result that not all of them give.

    A revision that cannot have the program's patches, or on which nothing happens, is left out.
    """
    verdicts = dict(_verdicts(program, revisions))
    said = [e.revisions for e in program.expect if e.kind != "result"]
    unsaid = {name: v.broken for name, v in verdicts.items() if not any(selects(spec, name) for spec in said)}
    more = [Expectation(where, "violates" if broken else "clean", broken) for where, broken in _by_ranges(unsaid)]
    results = [
        None if text is not None and _differs(text, place, verdicts.values()) else text
        for place, text in enumerate(program.results)
    ]
    return replace(program, expect=(*program.expect, *more), results=tuple(results))


def _verdicts(program: Program, revisions: Iterable[Revision]) -> Iterator[tuple[str, Verdict]]:
    for plain in revisions:
        try:
            (revision,) = revisions_for(program, [plain.address])
        except RevisionError:
            continue
        verdict = judge(program, revision, expectations=False)
        if verdict.happened:
            yield plain.name, verdict


def _differs(text: str, place: int, verdicts: Iterable[Verdict]) -> bool:
    """Whether some give that result and others do not; what none gives is a mistake, and stays to be told."""
    steps = [verdict.trace[place].step for verdict in verdicts]
    return len({step is not None and gives(step.result, text) for step in steps}) > 1


def _by_ranges(broken: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What holds of neighbours in a line of revisions, in one; a range that mainline ends with is left open."""
    posted, mainline = lines()
    for line in (posted, mainline):
        for (_, found), group in groupby(line, key=lambda name: (name in broken, broken.get(name))):
            if found is not None:
                first, *_, last = [*group] * 2
                yield _range(first, last, mainline[-1]), found
    yield from ((name, found) for name, found in broken.items() if name not in (*posted, *mainline))


def _range(first: str, last: str, newest: str) -> str:
    if first == last:
        return first
    return f"{first}.." if last == newest else f"{first}..{last}"


def slug(title: str) -> str:
    """A file's name, without `.xfd`, from the first words of a title."""
    words = re.findall(r"[a-z0-9]+", title.lower())
    while len("-".join(words)) > _LONGEST and len(words) > 1:
        words.pop()
    return "-".join(words)[:_LONGEST]


def is_slug(name: str) -> bool:
    """Whether a file may be called that, without `.xfd`."""
    return re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) is not None


# -- less of it --------------------------------------------------------------------------------------------------------


def is_told(program: Program) -> bool:
    """Whether somebody has written about it, or asks for results: such a program stays as it is."""
    return bool(program.comments or program.notes or any(e.kind == "result" for e in program.expect))


def plainest(kept: Kept) -> Program:
    """The plainest program that breaks the same, with the same `expect:` lines, which hold; it has no results."""
    shows = [Shows(revisions_for(kept.program, [name])[0], bucket) for name, bucket in sorted(kept.broken)]
    small = reduce(kept.program, lambda candidate: all(still(candidate) for still in shows))
    return kept.program if bare(small) == bare(kept.program) or failures(small) else small


def superfluous(collection: Sequence[Kept]) -> Iterator[tuple[Kept, list[str]]]:
    """Programs that break nothing that the others do not, the longest first, with the files that show it."""
    left = list(collection)
    for kept in sorted(collection, key=lambda one: len(one.program.ops), reverse=True):
        others = [other for other in left if other is not kept]
        files = [] if is_told(kept.program) else shown_by(kept.broken, others)
        if files:
            left = others
            yield kept, files
