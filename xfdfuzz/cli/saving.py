"""Saving what a search finds, telling every report of it, and the exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, VIOLATION, BadInput, complain

if TYPE_CHECKING:
    from xfdfuzz.engines.search.report import Report
    from xfdfuzz.engines.stream.events import Event, Listener
    from xfdfuzz.program.program import Program

#: The folder, beside what everybody may see, of what is not shown.
PRIVATE = "private"

#: A frozen dataclass with a field ``file``.
F = TypeVar("F", bound=Any)


class Saver(Generic[F]):
    """Saves results in a directory, each once, also where other campaigns save.  What cannot be saved, and why, is told
    once: a full disk stays full.

    ``private`` are those that go to the folder of that name there, because they are not for everybody.
    Raises BadInput at once where nothing can be saved.
    """

    def __init__(self, directory: Path, private: Callable[[F], bool] | None = None) -> None:
        from xfdfuzz.report.files import check_directory

        self._directory = directory
        self._private = private
        self._saved: dict[F, F] = {}
        self._told = False
        try:
            check_directory(directory)
        except OSError as error:
            raise BadInput(f"cannot save to {directory}: {error.strerror}") from None

    @property
    def hidden(self) -> str:
        """Where what is private goes."""
        return str(self._directory / PRIVATE)

    def save(self, found: F) -> F:
        """The result with its file.  If the disk is full by now it is printed all the same; the exit code tells."""
        if found not in self._saved:
            self._saved[found] = self._written(found)
        return self._saved[found]

    def save_program(self, program: Program, name: str) -> Path | None:
        """A program that is no result; None if it cannot be saved, which is told."""
        from xfdfuzz.program.text import format_program
        from xfdfuzz.report.files import save_program

        try:
            return save_program(program, name, self._directory)
        except OSError as error:
            complain(f"cannot save to {self._directory}: {error.strerror}; the program:", NOT_JUDGED)
            print(format_program(program), end="", file=sys.stderr)
            return None

    def _written(self, found: F) -> F:
        from xfdfuzz.report.directory import keep

        try:
            return keep(found, self._place(found))
        except OSError as error:
            if not self._told:
                complain(f"cannot save to {self._directory}: {error.strerror}", NOT_JUDGED)
            self._told = True
            return found

    def _place(self, found: F) -> Path:
        if self._private is None or not self._private(found):
            return self._directory
        place = self._directory / PRIVATE
        place.mkdir(exist_ok=True)
        return place


class Reporting:
    """The listener of a command: what was found is saved first, then each event goes to every report, in their order.

    ``result`` is what the last search came to, with the files.
    """

    def __init__(self, saver: Saver[Any], reports: Sequence[Listener]) -> None:
        self._saver, self._reports = saver, reports
        self.result: Any = None

    def __call__(self, event: Event) -> None:
        """An event."""
        from xfdfuzz.engines.stream.events import Ended, Found, Stuck

        if isinstance(event, Found):
            self._tell(replace(event, outcome=self._saver.save(event.outcome)))
        elif isinstance(event, Stuck) and event.program:
            self._tell(replace(event, file=self._saver.save_program(event.program, "stuck")))
        elif isinstance(event, Ended):
            self.result = event.result.with_each(self._saver.save)
            self._tell(replace(event, result=self.result))
        else:
            self._tell(event)

    def _tell(self, event: Event) -> None:
        for report in self._reports:
            report(event)


def check_output(path: Path) -> None:
    """Raises BadInput where a file could not be written at the end."""
    from xfdfuzz.report.files import check_file

    try:
        check_file(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from None


def saved_in(directory: Path) -> list[Path]:
    """Where results may be that were saved in a directory, the private ones last."""
    return [directory, *(place for place in [directory / PRIVATE] if place.is_dir())]


def open_saver(args: argparse.Namespace) -> Saver[Any]:
    """For where ``--save`` says; raises BadInput where nothing can be saved."""
    from xfdfuzz.cli.output import is_public
    from xfdfuzz.report.privacy import may_be_vulnerable

    return Saver(args.save, may_be_vulnerable if is_public(args) else None)


def tell_doubts(doubts: Sequence[str]) -> None:
    """Say why a result cannot be relied on."""
    for doubt in doubts:
        complain(doubt, NOT_JUDGED)


def judgement(report: Report[Any]) -> int:
    """The exit code of a search."""
    if report.interrupted or report.doubts or not report.stats.steps:
        return NOT_JUDGED
    if any(one.file is None for one in report.found):
        return NOT_JUDGED
    return VIOLATION if report.found or report.known.expired else CLEAN
