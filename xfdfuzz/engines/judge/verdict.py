"""Replay: run a program on a revision, collect what it breaks, and hold it against what it is expected to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.cpuid import Leaf
from xfdfuzz.invariants.checker import Checker
from xfdfuzz.invariants.loading import load_once
from xfdfuzz.invariants.procedures import unpromised
from xfdfuzz.invariants.vocabulary import NoAnswer, View, Violation
from xfdfuzz.program.codecs import XFEATURES
from xfdfuzz.program.executor import Executor
from xfdfuzz.program.ghost import content
from xfdfuzz.program.program import Expectation, Program
from xfdfuzz.program.step import DEAD, NOT_ENABLED, Content, Image, Mask, Result, Step, format_ret
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import Revision, find, lines, names, resolve, selects

_COMPONENT = re.compile(rf"\b({'|'.join(xf.NAMES.values())}): (\d+)\b(?!:)")

_VALUE = re.compile(r"(\S+) \[([^\[\]]*)\]")

#: What a program without an `expect:` line is judged on: the newest mainline.
DEFAULT_REVISION = lines()[1][-1]


@dataclass(frozen=True, slots=True)
class Judged:
    """One step with what it broke; ``step.after`` is a copy of its own.  ``step`` is None for the drained end.

    ``unpromised`` are the contents that the guest finds as its VMM means them, although nothing says so.
    """

    step: Step | None
    violations: tuple[Violation, ...]
    unpromised: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What a program did on one revision.

    ``failures`` says in a line each which expectation did not hold; ``judged`` is whether there was any expectation.
    ``differs`` is the first result that is not the program's, where that speaks of other revisions only.  ``refused``
    are the calls that failed where the program does not say with what they result.
    """

    revision: Revision
    trace: tuple[Judged, ...]
    judged: bool
    failures: tuple[str, ...]
    differs: str = ""
    refused: tuple[Step, ...] = ()

    @property
    def violations(self) -> tuple[Violation, ...]:
        """All of them, in the order of the steps."""
        return tuple(violation for judged in self.trace for violation in judged.violations)

    @property
    def broken(self) -> tuple[str, ...]:
        """The names of the invariants that were broken, each once, in order."""
        return tuple(dict.fromkeys(violation.invariant for violation in self.violations))

    @property
    def buckets(self) -> tuple[str, ...]:
        """The buckets, each once, in order."""
        return tuple(dict.fromkeys(violation.bucket for violation in self.violations))

    @property
    def results(self) -> tuple[str, ...]:
        """Every op's result as text."""
        return tuple(str(judged.step.result) for judged in self.trace if judged.step is not None)

    @property
    def left_out(self) -> int:
        """How many ops could not happen in the state that they found."""
        return self.results.count(NOT_ENABLED)

    @property
    def happened(self) -> bool:
        """Whether any op did; else there is nothing to judge."""
        return self.left_out < len(self.results)

    @property
    def ok(self) -> bool:
        """Whether everything expected held; without an expectation, whether nothing was broken.

        A program of which nothing happened is never ok.
        """
        if not self.happened:
            return False
        return not self.failures if self.judged else not self.violations


def steps(program: Program, revision: Revision) -> Iterator[Judged]:
    """Run ``program`` and judge every step, then drain it and judge what is left over."""
    load_once()
    executor = Executor(revision.kernel, program.machine)
    checker = Checker(executor.kernel, revision.name)
    for step in executor.run(program.ops):
        broken, kept = tuple(checker.check(step)), tuple(unpromised(View(executor.kernel, step)))
        yield Judged(step.kept(), broken, kept)
    if checker.looks_at_end and (last := executor.drain()):
        yield Judged(None, tuple(checker.finish(last)))


def judge(program: str | Program, revision: str | Path | Revision, *, expectations: bool = True) -> Verdict:
    """Run a program, or the text of one, on a revision, or the one of that name.

    With ``expectations``, it is held against its `expect:` lines and its inline results for this revision.  Where all
    lines that say what it breaks name other revisions, its results are of those, and other ones are no failure.  Raises
    ProgramError for a text that is no program, RevisionError for a name that is no revision.
    """
    program = parse(program) if isinstance(program, str) else program
    revision = revision_of(revision)
    try:
        trace = tuple(steps(program, revision))
    except NoAnswer as error:
        error.program = program
        raise
    selected = [e for e in program.expect if expectations and selects(e.revisions, revision.name)]
    verdict = Verdict(revision, trace, False, (), refused=tuple(_refused(program, trace, selected)))
    if not expectations:
        return verdict
    different = [*different_results(program, verdict, selected)]
    judged = bool(selected or different) or any(result is not None for result in program.results)
    failures = [*_broken_expectations(verdict, selected)]
    if not selected and any(e.kind != "result" for e in program.expect):
        return replace(verdict, judged=judged, failures=tuple(failures), differs=next(iter(different), ""))
    return replace(verdict, judged=judged, failures=(*failures, *different))


def _refused(program: Program, trace: Sequence[Judged], selected: Sequence[Expectation]) -> Iterator[Step]:
    """The calls that failed of which the program says nothing."""
    said = {e.op for e in selected if e.kind == "result"}
    said.update(n for n, text in enumerate(program.results, 1) if text is not None)
    steps_of = (judged.step for judged in trace if judged.step is not None)
    yield from (step for step in steps_of if step.number not in said and step.failed)


def revision_of(revision: str | Path | Revision) -> Revision:
    """The revision itself, or the one with that name, label or file, as for --revision; raises RevisionError."""
    return revision if isinstance(revision, Revision) else resolve(str(revision))


def _broken_expectations(verdict: Verdict, selected: Sequence[Expectation]) -> Iterator[str]:
    kinds = {e.kind for e in selected}
    if verdict.violations and ("clean" in kinds or "violates" not in kinds):
        yield f"expected {'clean' if 'clean' in kinds else 'no violation'}, breaks {', '.join(verdict.broken)}"
    for expectation in selected:
        missing = [name for name in expectation.invariants if name not in verdict.broken]
        if missing:
            yield f"expected to break {', '.join(missing)}, breaks {', '.join(verdict.broken) or 'nothing'}"


def different_results(program: Program, verdict: Verdict, selected: Sequence[Expectation]) -> Iterator[str]:
    """Of each op that did something else than its line says, or one of ``selected``, and of the first one that could
    not happen although nothing says so: what it did, and why."""
    special: dict[int, list[str]] = {}
    for e in selected:
        if e.kind == "result":
            special.setdefault(e.op, []).append(e.result)
    inline = {n: [text] for n, text in enumerate(program.results, 1) if text is not None}
    stopped = False
    for judged in verdict.trace:
        if judged.step is None:
            continue
        number, result, why = judged.step.number, judged.step.result, judged.step.hindrance
        texts = (inline | special).get(number, ())
        for text in texts:
            if not gives(result, text):
                yield f"op {number}: expected {text}, got {result}" + (f" ({why})" if why else "")
        # what a dead host cannot do any more is told by its death; what comes behind the first may follow from it
        if result.ret == NOT_ENABLED:
            if not (texts or stopped or why == DEAD):
                yield f"op {number} could not happen: {why}"
            stopped = True


def gives(result: Result, text: str) -> bool:
    """Whether a result is what a program says, with or without what stands behind the returned value.

    A mask of components may be written by names or as a number.  Programs of before have contents as numbers,
    ``avx: 129`` for ``avx: v0:1``, and of CPUID EBX alone.
    """
    if isinstance(result.out, Image):
        text = _COMPONENT.sub(lambda match: f"{match[1]}: {content(int(match[2]))}", text)
    elif isinstance(result.out, Content):
        text = re.sub(r"\[(0x[0-9a-f]+)\]", lambda match: f"[{content(int(match[1], 16))}]", text)
    elif isinstance(result.out, Mask) and (behind := _VALUE.fullmatch(text)):
        return behind[1] == format_ret(result.ret) and XFEATURES.in_text(behind[2]) == result.out
    elif isinstance(result.out, Leaf) and text == str(result._replace(out=result.out.ebx)):
        return True
    return text in (str(result), format_ret(result.ret))


#: By the kind of an expectation: the kind that cannot hold beside it; of results, another one of the same op.
_OPPOSITE = {"clean": "violates", "violates": "clean", "result": "result"}


def contradiction(program: Program) -> tuple[Expectation, str] | None:
    """The first `expect:` line that cannot hold beside one above it, and why; None if there is none.

    Raises RevisionError for a line that names an unknown revision.
    """
    selected = cache(selects)
    for name in names():
        first: dict[tuple[str, int], Expectation] = {}
        for expectation in (e for e in program.expect if selected(e.revisions, name)):
            other = first.get((_OPPOSITE[expectation.kind], expectation.op))
            if other is not None and (other.kind != "result" or other.result != expectation.result):
                return expectation, f"contradicts line {other.line} on {name}: {other}"
            first.setdefault((expectation.kind, expectation.op), expectation)
    return None


def revisions_for(
    program: Program, wanted: Sequence[str] = (), apply: Sequence[str] = (), revert: Sequence[str] = ()
) -> list[Revision]:
    """The revisions to judge a program on: those asked for, else those its `expect:` lines select, else the default.

    Each gets the program's own `apply:` patches where it does not have them, and loses its `revert:` patches where it
    has them.  Raises RevisionError.
    """
    chosen = list(wanted) or named_by(program) or [DEFAULT_REVISION]
    return [_with_patches(program, name, apply, revert) for name in chosen]


def named_by(program: Program) -> list[str]:
    """The revisions that the `expect:` lines select; raises RevisionError."""
    ranges = {e.revisions for e in program.expect}
    return [name for name in names() if any(selects(one, name) for one in ranges)]


def _with_patches(program: Program, name: str, apply: Sequence[str], revert: Sequence[str]) -> Revision:
    if not (program.apply or program.revert):
        return resolve(name, apply, revert)
    plain = {p.commit for p in resolve(name).patches}
    given = {find(commit).commit for commit in (*apply, *revert)}
    added, removed = (
        [c for c in dict.fromkeys(find(commit).commit for commit in header) if c not in given]
        for header in (program.apply, program.revert)
    )
    return resolve(
        name, [*apply, *(c for c in added if c not in plain)], [*revert, *(c for c in removed if c in plain)]
    )
