"""What mutants make of the recordings: which of them they change, and whether the comparison notices."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

from xxhash import xxh128_digest

from bench.mutants.source import Mutant
from xfdfuzz.cli.inputs import CORPUS, find_programs, read_program
from xfdfuzz.engines.conform.known import known_violations
from xfdfuzz.engines.conform.recording import Explanation, Recording, explanations, read
from xfdfuzz.engines.conform.score import Judgement, judge, model_of
from xfdfuzz.engines.conform.session import Session
from xfdfuzz.program.ops.base import Op
from xfdfuzz.program.step import Result
from xfdfuzz.revisions import Revision, resolve

#: What a mutant comes to: those that change what an op of the model comes to, and those that do not.
NOTICED = "noticed: a recorded result is another"
BROKEN = "noticed: an invariant breaks"
SURVIVES = "survives"
SILENT_BROKEN = "the state only: an invariant breaks"
SILENT = "the state only"
WITHOUT_EFFECT = "nothing"
NOT_REACHED = "not executed"
OUTCOMES = (NOTICED, BROKEN, SURVIVES, SILENT_BROKEN, SILENT, WITHOUT_EFFECT, NOT_REACHED)
#: Seconds that one recording may take; a mutant that loops is noticed.
PATIENCE = 20


class _TooLong(BaseException):
    """A mutant that loops."""


@dataclass
class Log:
    """What a recording's ops came to on the model, one after another, and the states behind them."""

    results: list[tuple[str, str]] = field(default_factory=list)
    states: list[bytes] = field(default_factory=list)


@dataclass
class Known:
    """A recording on the model as it is: what it runs on, what its ops come to, and which lines are executed."""

    recording: Recording
    revision: Revision
    explained: list[Explanation]
    log: Log
    lines: dict[str, set[int]]

    def reaches(self, mutant: Mutant) -> bool:
        """Whether the statement that the mutant changes is executed."""
        return not self.lines.get(str(mutant.file), set()).isdisjoint(mutant.lines)


def learn(files: Collection[Path], watched: Collection[Path]) -> Iterator[Known]:
    """Judge all recordings on the model as it is, which has to hold for each of them."""
    for file in files:
        explained = explanations(file.parent)
        for recording in read(file):
            revision = _revision(model_of(recording))
            with logging() as log:
                judgement = _judge(recording, revision, explained)
            assert judgement.holds, recording.program
            assert not judgement.violations, recording.program
            with executed_lines({str(path) for path in watched}) as lines:
                _judge(recording, revision, explained)
            yield Known(recording, revision, explained, log, lines)


@dataclass
class Shown:
    """Where a mutant shows first: in a comparison, by an invariant, in what an op came to, in the state behind one."""

    different: str = ""
    broken: str = ""
    result: str = ""
    state: str = ""
    executed: bool = False

    @property
    def outcome(self) -> str:
        """One of :data:`OUTCOMES`."""
        if self.different:
            return NOTICED
        if self.result:
            return BROKEN if self.broken else SURVIVES
        if self.state:
            return SILENT_BROKEN if self.broken else SILENT
        return WITHOUT_EFFECT if self.executed else NOT_REACHED

    @property
    def where(self) -> str:
        """The recording that shows it first."""
        return self.different or self.broken or self.result or self.state


def shown_by(recordings: Collection[Known], mutant: Mutant) -> Shown:
    """What is seen of the mutant, which is being executed, until a comparison differs."""
    shown = Shown()
    for known in recordings:
        if known.reaches(mutant):
            shown.executed = True
            _compare(known, shown)
        if shown.different:
            break
    return shown


def _compare(known: Known, shown: Shown) -> None:
    where = f"{known.recording.kernel} {known.recording.program}"
    with logging() as log:
        try:
            with patience():
                judgement = _judge(known.recording, known.revision, known.explained)
        except (Exception, _TooLong):  # whatever a mistake leads to: the command ends with it, or never
            shown.different = where
            return
    if judgement.different:
        shown.different = where
    if judgement.violations:
        shown.broken = shown.broken or where
    if log.results != known.log.results:
        shown.result = shown.result or where
    if log.states != known.log.states:
        shown.state = shown.state or where


def _judge(recording: Recording, revision: Revision, explained: Collection[Explanation]) -> Judgement:
    return judge(recording, revision, explained, known_on)


@cache
def _revision(name: str) -> Revision:
    return resolve(name)


@cache
def known_on(revision: Revision) -> Collection[str]:
    """What the revision is known to break; to be asked of each before there is a mutant."""
    return known_violations(_corpus(), revision)


@cache
def _corpus() -> list[Any]:
    return [read_program(file) for file in find_programs([CORPUS])]


# -- watching ----------------------------------------------------------------------------------------------------------


@contextmanager
def logging() -> Iterator[Log]:
    """Note what the ops of recorded programs come to."""
    log, do = Log(), Session.do

    def noting(self: Session, op: Op) -> Result:
        try:
            return do(self, op)
        finally:
            if self.last is not None:
                log.results.append((str(op), str(self.last.result)))
                log.states.append(xxh128_digest(self.kernel.state))

    with patch.object(Session, "do", noting):
        yield log


@contextmanager
def executed_lines(files: Collection[str]) -> Iterator[dict[str, set[int]]]:
    """Note which lines of these files are executed."""
    lines: dict[str, set[int]] = {file: set() for file in files}

    def on_line(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        lines[frame.f_code.co_filename].add(frame.f_lineno)
        return on_line

    def on_call(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        return on_line if frame.f_code.co_filename in lines else None

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        yield lines
    finally:
        sys.settrace(before)


@contextmanager
def patience() -> Iterator[None]:
    """Raise :class:`_TooLong` in what takes too long."""

    def stop(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
