"""A plugin for pytest: each `.xfd` file is a test on each revision, and a failure shows what `xfdfuzz replay` shows.

Every run of pytest loads this module where xfdfuzz is installed, so the model is loaded by the first program only.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest._code.code import ExceptionInfo, TerminalRepr, TracebackStyle

    from xfdfuzz.engines.judge.verdict import Verdict
    from xfdfuzz.program.program import Program
    from xfdfuzz.revisions import Revision

#: The revisions and the invariants that a run names, as files and labels that lead there from any directory.
_REVISIONS = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, and the same for the ini file."""
    group = parser.getgroup("xfdfuzz", "programs of xfdfuzz (*.xfd)")
    group.addoption(
        "--xfd-revision",
        action="append",
        default=[],
        metavar="R",
        help="judge on this revision: a name, a label, or a file *.py with a series; repeatable "
        "(default: the ini file's xfd_revisions, else those that a program's expect: lines name, else amx-v1)",
    )
    group.addoption("--xfd-invariants", action="append", default=[], metavar="FILE", help="more invariants; repeatable")
    parser.addini("xfd_revisions", "the revisions that .xfd files are judged on; files from rootdir on", "args")
    parser.addini("xfd_invariants", "files with more invariants for .xfd files, from rootdir on", "args")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A program, by the end of its name."""
    return XfdFile.from_parent(parent, path=file_path) if file_path.suffix == ".xfd" else None


class XfdFile(pytest.File):
    """A program: a test for each revision that it is judged on, as `xfdfuzz replay` chooses them."""

    def collect(self) -> Iterator[pytest.Item]:
        """Raises BadInput for what is no program, and for revisions that do not exist."""
        from xfdfuzz.cli.exits import BadInput
        from xfdfuzz.cli.inputs import read_program
        from xfdfuzz.engines.judge.verdict import revisions_for
        from xfdfuzz.revisions import RevisionError

        wanted = _revisions(self.config)
        program = read_program(_shown(self.path))
        try:
            revisions = revisions_for(program, wanted)
        except RevisionError as error:
            raise BadInput(f"{_shown(self.path)}: {error}") from None
        for label, revision in {revision.label: revision for revision in revisions}.items():
            yield XfdItem.from_parent(self, name=label, program=program, revision=revision)

    def repr_failure(
        self, excinfo: ExceptionInfo[BaseException], style: TracebackStyle | None = None
    ) -> str | TerminalRepr:
        """What is wrong with the file, in its one line."""
        return _told(self, excinfo) or super().repr_failure(excinfo)


class XfdItem(pytest.Item):
    """A program on one revision."""

    def __init__(self, *, program: Program, revision: Revision, **node: object) -> None:
        super().__init__(**node)  # type: ignore[arg-type]
        self.program, self.revision = program, revision

    def runtest(self) -> None:
        """Raises Unexpected where an expectation fails or, without one, something is broken."""
        from xfdfuzz.engines.judge.verdict import judge
        from xfdfuzz.engines.processes.answering import STEP_TIMEOUT, answers_within
        from xfdfuzz.engines.processes.workers import users_errors_named

        with answers_within(STEP_TIMEOUT), users_errors_named():
            verdict = judge(self.program, self.revision)
        if not verdict.ok:
            raise Unexpected(verdict)

    def repr_failure(
        self, excinfo: ExceptionInfo[BaseException], style: TracebackStyle | None = None
    ) -> str | TerminalRepr:
        """The annotated trace; the summary gets the line that says what was expected and what was broken."""
        if not isinstance(excinfo.value, Unexpected):
            return _told(self, excinfo) or super().repr_failure(excinfo)
        from xfdfuzz.report import verdict as report
        from xfdfuzz.report.console import console
        from xfdfuzz.report.trace import Notes

        verdict, text = excinfo.value.verdict, io.StringIO()
        report.terminal(console(text), str(_shown(self.path)), self.program, verdict, Notes(full=False))
        return _representation(text.getvalue().strip("\n"), self.path, _line(self.program, verdict), _message(verdict))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where it stands, and what it is called in the heading of a failure."""
        return self.path, None, f"{_shown(self.path)} on {self.name}"


class Unexpected(Exception):
    """A program did what it is not expected to do."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(_message(verdict))
        self.verdict = verdict


def _message(verdict: Verdict) -> str:
    from xfdfuzz.report.verdict import conclusion

    return conclusion(verdict)


def _revisions(config: pytest.Config) -> list[str]:
    """Those that the options or else the ini file names; loads the invariants that they name.  Raises BadInput."""
    from xfdfuzz.cli.inputs import load_invariants, resolve_revisions

    if _REVISIONS not in config.stash:
        here, root = config.invocation_params.dir, config.rootpath
        given = _from(here, config.getoption("xfd_revision")) or _from(root, config.getini("xfd_revisions"))
        named = [*_from(root, config.getini("xfd_invariants")), *_from(here, config.getoption("xfd_invariants"))]
        load_invariants([Path(file) for file in named])
        resolve_revisions(given, [], [])
        config.stash[_REVISIONS] = given
    return config.stash[_REVISIONS]


def _from(directory: Path, names: Iterable[str]) -> list[str]:
    """With files, which may be the beginning of a label, as they are called from anywhere."""
    return [str(directory / name) if ".py" in name else name for name in names]


def _shown(path: Path) -> Path:
    return Path(os.path.relpath(path))


def _line(program: Program, verdict: Verdict) -> int:
    """The line of the op that broke something, else the first line."""
    broken = next((judged.step for judged in verdict.trace if judged.violations), None)
    return program.lines[broken.number - 1] if broken else 1


def _told(node: pytest.File | pytest.Item, excinfo: ExceptionInfo[BaseException]) -> TerminalRepr | None:
    """An error that says in its text all that there is to say; None for any other."""
    from xfdfuzz.cli.exits import BadInput
    from xfdfuzz.invariants.vocabulary import InvariantError, NoAnswer
    from xfdfuzz.revisions import RevisionError

    if not isinstance(excinfo.value, BadInput | InvariantError | NoAnswer | RevisionError):
        return None
    return _representation(str(excinfo.value), node.path, 1, str(excinfo.value))


def _representation(text: str, path: Path, line: int, message: str) -> TerminalRepr:
    """What pytest shows, and xdist sends: only pytest's own kind travels with its place and message."""
    from _pytest._code.code import ReprEntryNative, ReprExceptionInfo, ReprFileLocation, ReprTraceback

    shown = ReprTraceback([ReprEntryNative([f"{text}\n"])], None, "native")
    return ReprExceptionInfo(reprtraceback=shown, reprcrash=ReprFileLocation(str(_shown(path)), line, message))
