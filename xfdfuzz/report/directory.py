"""A directory that any number of campaigns save into: a file for each revision, or pair, and bucket in a shape."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from xfdfuzz.engines.judge.finding import Discrepancy, Finding
from xfdfuzz.engines.judge.lockstep import differences
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.extensions import read_file
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import ProgramError, parse
from xfdfuzz.report import files

F = TypeVar("F", bound=Finding | Discrepancy)

#: Seconds to wait for another campaign that saves just now: one that was stopped in the middle holds nobody up.
_PATIENCE = 2.0


def keep(found: F, directory: Path) -> F:
    """The result with its file; raises OSError.

    Where a file there is of the same revision and bucket, and its program still shows it, in the same shape, no second
    one is added: that file is the result's, and its program too.
    """
    with _alone(directory):
        there = {path: program for path in _candidates(found, directory) if (program := _read(path))}
        for path, program in there.items():
            again = _as_shown(found, program) if files.on_a_line(found.bucket) in files.buckets(program) else None
            if again is not None:
                kept: F = replace(again, file=path)
                return kept
        # the plainest program of two buckets may be one
        same = there.get(directory / files.file_name(found))
        return replace(found, file=files.save(found, directory, files.buckets(same) if same else ()))


def put_in_place(kept: Sequence[F], old: Sequence[Path], directory: Path) -> tuple[list[F], list[Path]]:
    """The results with their files, which take the place of ``old`` ones, and those of these that were removed.

    Nothing is removed before all are saved; raises OSError.
    """
    with _alone(directory):
        buckets: dict[str, list[str]] = {}
        for found in kept:
            buckets.setdefault(files.file_name(found), []).append(files.on_a_line(found.bucket))
        saved = [replace(one, file=files.save(one, directory, buckets[files.file_name(one)])) for one in kept]
        removed = [path for path in old if path not in {one.file for one in saved}]
        for path in removed:
            path.unlink(missing_ok=True)
        return saved, removed


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """No other campaign saves there meanwhile, as far as the file system has locks."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + _PATIENCE
        while not _locked(handle) and time.monotonic() < end:
            time.sleep(0.01)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        pass
    return True


def _candidates(found: Finding | Discrepancy, directory: Path) -> list[Path]:
    """The files whose names differ in the digest at most."""
    name = re.escape(files.file_name(found).rpartition("-")[0])
    return [path for path in sorted(directory.iterdir()) if re.fullmatch(rf"{name}-[0-9a-f]{{8}}\.xfd", path.name)]


def _read(path: Path) -> Program | None:
    """Its program; None for a file that has none any more."""
    try:
        return parse(read_file(path).decode(), str(path))
    except (OSError, UnicodeDecodeError, ProgramError):
        return None


def _as_shown(found: Any, program: Program) -> Any:
    """The same result as that program shows it, None if it does not."""
    bare = Program(program.machine, program.ops, program.results)
    if (bare.machine, bare.ops) == (found.program.machine, found.program.ops):
        return found
    if isinstance(found, Finding):
        violations = judge(bare, found.revision, expectations=False).violations
        violation = next((one for one in violations if one.kind == found.violation.kind), None)
        return violation and replace(found, violation=violation, program=bare)
    shown = differences(bare, found.pair)
    difference = next((one for one in shown if one.bucket == found.bucket), None)
    also = tuple(one for one in shown if difference and one.step == difference.step and one != difference)
    return difference and replace(found, difference=difference, program=bare, also=also)
