"""Programs x revisions: a verdict per cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from xfdfuzz.engines.judge import windows
from xfdfuzz.engines.judge.verdict import Verdict, different_results, judge, revisions_for
from xfdfuzz.engines.processes.pool import in_spite_of_deaths
from xfdfuzz.engines.processes.workers import invariant_files, load_invariants, users_errors_named
from xfdfuzz.program.program import Program
from xfdfuzz.program.step import PANIC
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.revisions import Revision, RevisionError, resolve, selects

#: What a cell can say: nothing was broken, something was, the host died, no op could happen, no such kernel exists.
CLEAN, VIOLATES, PANICS, IDLE, NOT_APPLICABLE = "clean", "violates", "panic", "not-enabled", "n/a"


@dataclass(frozen=True)
class Cell:
    """What one program does on one revision.

    ``left_out`` counts the ops that could not happen there; ``differs`` says of the first op that could not, or did
    something else than its line says, what it did and why; ``missed`` are those that asked for an interruption of a
    call, which did not come.  ``expected`` is whether the `expect:` lines that name this revision hold, None where
    there is none.  ``reason`` says why a cell is not applicable.
    """

    state: str
    violations: tuple[str, ...] = ()
    left_out: int = 0
    differs: str = ""
    expected: bool | None = None
    reason: str = ""
    buckets: tuple[str, ...] = ()
    missed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Row:
    """One program with a cell for each revision, in the order of the columns."""

    file: str
    program: Program
    cells: tuple[Cell, ...]


def matrix(
    programs: Sequence[tuple[str, Program]],
    revisions: Sequence[Revision],
    executor: Executor,
    on_lost: Callable[[str], None] = lambda reason: None,
) -> Iterator[Row]:
    """Judge every program, given with the name of its file, on every revision; a row is one piece of work.

    ``on_lost`` is told why a process died, whose rows are judged again.  Raises BrokenExecutor where one row is the
    death of all.
    """
    texts = [format_program(program) for _, program in programs]
    addresses = tuple(revision.address for revision in revisions)
    judge_one = partial(judge_row, addresses=addresses, invariants=invariant_files())
    rows = in_spite_of_deaths(executor, judge_one, judge_one, texts, on_lost)
    for (file, program), cells in zip(programs, rows, strict=True):
        yield Row(file, program, cells)


def judge_row(text: str, addresses: Sequence[str], invariants: tuple[str, ...]) -> tuple[Cell, ...]:
    """The cells of one program, in any process."""
    load_invariants(invariants)
    program = parse(text)
    with users_errors_named():
        return tuple(_cell(program, address) for address in addresses)


def _cell(program: Program, address: str) -> Cell:
    try:
        (revision,) = revisions_for(program, [address])
    except RevisionError as error:
        return Cell(NOT_APPLICABLE, reason=str(error))
    plain = resolve(address)
    # what is expected of a revision says nothing about one with other patches
    selected = [e for e in program.expect if selects(e.revisions, plain.name)]
    spoken_of = bool(selected) and not (plain.applied or plain.reverted)
    verdict = judge(program, revision, expectations=spoken_of)
    expected = verdict.ok if spoken_of else None
    differs = next(different_results(program, verdict, selected), "")
    missed = tuple(windows.missed(verdict.trace))
    state, left_out = _state(verdict), verdict.left_out
    return Cell(state, verdict.broken, left_out, differs, expected, buckets=verdict.buckets, missed=missed)


def _state(verdict: Verdict) -> str:
    if not verdict.happened:
        return IDLE
    if any(judged.step is not None and judged.step.result.ret == PANIC for judged in verdict.trace):
        return PANICS
    return VIOLATES if verdict.broken else CLEAN
