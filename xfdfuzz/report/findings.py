"""A finding as a file: its name, its text, and the commands that replay it and repeat the run."""

from __future__ import annotations

import hashlib
import os
import shlex
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.program.program import Expectation, Program
from xfdfuzz.program.text import CONTROL, format_program
from xfdfuzz.revisions import Revision


def check_directory(directory: Path) -> None:
    """Make ``directory`` if need be and write into it once; raises OSError if a finding could not be saved there."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".xfdfuzz-"):
        pass


def save(finding: Finding, directory: Path) -> Path:
    """Save a finding; raises OSError."""
    return save_text(file_name(finding), text(finding), directory)


def save_text(name: str, content: str, directory: Path) -> Path:
    """Write a text file so that after a crash it is either whole or not there; raises OSError."""
    return save_bytes(name, lambda stream: stream.write(content.encode()), directory)


def save_bytes(name: str, write: Callable[[IO[bytes]], object], directory: Path) -> Path:
    """Let ``write`` fill a file, which after a crash is either whole or not there; raises OSError."""
    path = directory / name
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp() makes it private; a finding is there to be handed on
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def file_name(finding: Finding) -> str:
    """``amx-v1-no-realloc-on-enter-1f3870be.xfd``: the digest is of what is executed, not of titles and results."""
    return f"{finding.revision.label}-{finding.violation.invariant}-{digest(finding.program)}.xfd"


def digest(program: Program) -> str:
    """What is executed, in eight digits."""
    executed = format_program(Program(program.machine, program.ops, apply=program.apply))
    return hashlib.sha256(executed.encode()).hexdigest()[:8]


def text(finding: Finding) -> str:
    """The program with a title and what it is expected to do; the patches of its revision stand in the header."""
    program, violation, revision = finding.program, finding.violation, finding.revision
    # the message may be that of a user's invariant and hold anything
    title = " ".join(CONTROL.sub(" ", f"{violation.invariant}: {violation.message}").split())
    expect = (Expectation(revision.name, "violates", (violation.invariant,)),) if finding.shown else ()
    return format_program(
        replace(program, title=title, expect=expect, apply=revision.applied, revert=revision.reverted)
    )


def replay_command(finding: Finding, invariants: Iterable[Path] = ()) -> str:
    """The one command that shows the finding again; a finding without a file has none."""
    files = [word for file in invariants for word in ("--invariants", str(file))]
    # its `expect:` line names a series from outside, which has to be loaded for it
    outside = ["--revision", str(finding.revision.file)] if finding.revision.file else []
    return shlex.join(["xfdfuzz", "replay", str(finding.file), *outside, *files])


def revision_options(revision: Revision) -> list[str]:
    """The options that name ``revision`` on the command line."""
    return [
        *("--revision", str(revision.file or revision.name)),
        *_each("--apply", revision.applied),
        *_each("--revert", revision.reverted),
    ]


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
