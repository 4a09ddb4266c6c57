"""Saving what a search finds, and its exit code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from xfdfuzz.cli.exits import BAD_INPUT, CLEAN, NOT_JUDGED, VIOLATION, BadInput, complain

if TYPE_CHECKING:
    from xfdfuzz.engines.search.report import Report

#: A frozen dataclass with a field ``file``.
F = TypeVar("F", bound=Any)


class Saver(Generic[F]):
    """Saves results in a directory, each once.  What cannot be saved, and why, is told once: a full disk stays full.

    Raises BadInput at once where nothing can be saved.
    """

    def __init__(self, directory: Path) -> None:
        from xfdfuzz.report.files import check_directory

        self._directory = directory
        self._saved: dict[F, F] = {}
        self._told = False
        try:
            check_directory(directory)
        except OSError as error:
            raise BadInput(f"cannot save to {directory}: {error.strerror}") from None

    def save(self, found: F) -> F:
        """The result with its file.  If the disk is full by now it is printed all the same; the exit code tells."""
        if found not in self._saved:
            self._saved[found] = self._written(found)
        return self._saved[found]

    def _written(self, found: F) -> F:
        from xfdfuzz.report.files import save

        try:
            return replace(found, file=save(found, self._directory))
        except OSError as error:
            if not self._told:
                complain(f"cannot save to {self._directory}: {error.strerror}", BAD_INPUT)
            self._told = True
            return found


def judgement(report: Report[Any]) -> int:
    """The exit code of a search; why a result cannot be relied on is told."""
    for doubt in report.doubts:
        complain(doubt, NOT_JUDGED)
    if report.interrupted or report.doubts or not report.stats.steps:
        return NOT_JUDGED
    if any(one.file is None for one in report.found):
        return BAD_INPUT
    return VIOLATION if report.found else CLEAN
