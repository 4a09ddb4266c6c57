"""Saving what a search finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from xfdfuzz.cli.exits import BAD_INPUT, BadInput, complain

#: A dataclass with a field ``file``.
F = TypeVar("F", bound=Any)


class Saver(Generic[F]):
    """Saves results in a directory.  What cannot be saved, and why, is told once: a full disk stays full.

    Raises BadInput at once where nothing can be saved.
    """

    def __init__(self, directory: Path, save: Callable[[F, Path], Path]) -> None:
        from xfdfuzz.report.findings import check_directory

        self._directory = directory
        self._save = save
        self._told = False
        try:
            check_directory(directory)
        except OSError as error:
            raise BadInput(f"cannot save to {directory}: {error.strerror}") from None

    def save(self, found: F) -> F:
        """The result with its file.  If the disk is full by now it is printed all the same; the exit code tells."""
        try:
            return replace(found, file=self._save(found, self._directory))
        except OSError as error:
            if not self._told:
                complain(f"cannot save to {self._directory}: {error.strerror}", BAD_INPUT)
            self._told = True
            return found
