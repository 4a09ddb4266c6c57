"""What is saved: a finding or a difference as a program in a file, its name, and the command that shows it again."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from xfdfuzz.engines.judge.finding import Discrepancy, Finding
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.invariants.vocabulary import INVARIANTS
from xfdfuzz.program.program import Expectation, Program
from xfdfuzz.program.text import CONTROL, format_program
from xfdfuzz.revisions import Revision

#: How the name of a file ends that is being written, behind a dot, its own name and eight characters.
_PART = ".xfdfuzz-part"
#: How the comment begins that says what a saved program is of.
_BUCKETS = "buckets: "
_LEFT_OVER = re.compile(rf"\.(.+)\.[a-z0-9_]{{8}}{re.escape(_PART)}")


def check_directory(directory: Path) -> None:
    """Make ``directory`` if need be and write into it once; raises OSError if a finding could not be saved there.

    What a killed run has left half written there is cleared.
    """
    directory.mkdir(parents=True, exist_ok=True)
    clear_parts(directory)
    _check_writable(directory)


def check_file(path: Path) -> None:
    """Raises OSError if ``path`` could not be saved with :func:`save_bytes`: it is no plain file, or cannot be made.

    What a killed run has left half written of it is cleared.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    clear_parts(path.parent, path.name)
    _check_writable(path.parent)


def _check_writable(directory: Path) -> None:
    """Write a block and take it away again: on a full disk an empty file can still be made."""
    with _part(directory, "check") as (file, _):
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _part(directory: Path, name: str) -> Iterator[tuple[IO[bytes], Path]]:
    """A file to write aside; it is gone at the end unless it got another name."""
    while True:
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{name}.", suffix=_PART)
        with os.fdopen(handle, "wb") as file:
            with suppress(OSError):  # not every file system has locks; there nothing is cleared either
                fcntl.flock(file, fcntl.LOCK_EX)
            if not Path(temporary).exists():
                continue  # cleared before it was locked
            try:
                yield file, Path(temporary)
            finally:
                Path(temporary).unlink(missing_ok=True)
            return


def clear_parts(directory: Path, of: str = "") -> None:
    """Remove what nobody will finish: half-written files of ours whose writer, who would hold a lock, is dead.

    ``of`` is the name of the file that they were to be; empty means any.
    """
    for path in directory.iterdir():
        part = _LEFT_OVER.fullmatch(path.name)
        if part and of in ("", part[1]) and path.is_file() and not path.is_symlink():
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def save(found: Finding | Discrepancy, directory: Path, buckets: Sequence[str] = ()) -> Path:
    """Save its program, of which other ``buckets`` may be, too; raises OSError."""
    content = text(found, buckets).encode()
    return save_bytes(file_name(found), lambda stream: stream.write(content), directory)


def save_program(program: Program, name: str, directory: Path) -> Path:
    """Save a program that is no finding, as ``NAME-1f3870be.xfd``; raises OSError."""
    text = format_program(program)
    return save_bytes(f"{name}-{_digest(text)}.xfd", lambda stream: stream.write(text.encode()), directory)


def save_bytes(name: str, write: Callable[[IO[bytes]], object], directory: Path) -> Path:
    """Let ``write`` fill a file, which after a crash is either whole or not there; raises OSError."""
    path = directory / name
    with _part(directory, name) as (file, temporary):
        write(file)
        file.flush()
        os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp() makes it private; a finding is there to be handed on
        temporary.replace(path)
    return path


def file_name(found: Finding | Discrepancy) -> str:
    """``amx-v1-no-realloc-on-enter-1f3870be.xfd``, ``amx-v4-vs-v5.17-KvmRun-0b7c2f41.xfd``.

    The digest of a finding is of what is executed, not of titles and results.
    """
    if isinstance(found, Finding):
        program = found.program
        executed = format_program(Program(program.machine, program.ops, apply=program.apply))
        return f"{found.revision.label}-{found.violation.invariant}-{_digest(executed)}.xfd"
    first, second = found.pair
    return f"{first.label}-vs-{second.label}-{found.difference.op}-{_digest(text(found))}.xfd"


def invariant_in_name(name: str, revision: Revision) -> str | None:
    """The invariant whose violation on ``revision`` was saved in a file of that name; None for any other file."""
    match = re.fullmatch(rf"{re.escape(revision.label)}-(.+)-[0-9a-f]{{8}}\.xfd", name)
    return match[1] if match and match[1] in INVARIANTS else None


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def text(found: Finding | Discrepancy, buckets: Sequence[str] = ()) -> str:
    """The program with a title, its buckets, and what it is expected to do; patches of its revisions stand in the
    header."""
    return format_program(_broken(found, buckets) if isinstance(found, Finding) else _different(found))


def buckets(program: Program) -> tuple[str, ...]:
    """What a saved program is of: it may break more, but there are plainer ones for that."""
    named = [comment.removeprefix(_BUCKETS) for comment in program.comments if comment.startswith(_BUCKETS)]
    return tuple(bucket for line in named for bucket in line.split("  ")) or (program.title,)


def _broken(finding: Finding, buckets: Sequence[str]) -> Program:
    violation, revision = finding.violation, finding.revision
    expect = (Expectation(revision.name, "violates", (violation.invariant,)),) if finding.shown else ()
    every = dict.fromkeys((*buckets, on_a_line(finding.bucket)))
    return replace(
        finding.program,
        title=on_a_line(f"{violation.invariant}: {violation.message}"),
        expect=expect,
        apply=revision.applied,
        revert=revision.reverted,
        comments=(_BUCKETS + "  ".join(every),),
    )


def on_a_line(said: str) -> str:
    """Without what a line of a program cannot hold, or two blanks: a user's invariant may say anything."""
    return " ".join(CONTROL.sub(" ", said).split()).rstrip(" \\")


def _different(found: Discrepancy) -> Program:
    """With what each revision makes of it.

    A revision with patches of its own cannot be named in an `expect:` line; there the comments alone say it.
    """
    first, second = found.pair
    difference = found.difference
    comments = [f"{first.label}: {difference.first}", f"{second.label}: {difference.second}"]
    same = (first.applied, first.reverted) == (second.applied, second.reverted)
    named = [r for r in found.pair if same or not (r.applied or r.reverted)]
    return replace(
        found.program,
        title=difference.bucket,
        expect=tuple(expectation for r in named for expectation in _expectations(found.program, r)),
        apply=first.applied if same else (),
        revert=first.reverted if same else (),
        comments=(*comments, *(f"also: {other.what}" for other in found.also)),
    )


def _expectations(program: Program, revision: Revision) -> Iterator[Expectation]:
    """What the program breaks on the revision, and the results that are not those in its lines."""
    verdict = judge(program, revision, expectations=False)
    yield Expectation(revision.name, "violates" if verdict.broken else "clean", verdict.broken)
    for number, (result, written) in enumerate(zip(verdict.results, program.results, strict=True), 1):
        if result != written:
            yield Expectation(revision.name, "result", op=number, result=result)


def replay_command(found: Finding | Discrepancy, invariants: Iterable[Path] = ()) -> str:
    """The one command that shows it again, step by step; what has no file has none."""
    if isinstance(found, Finding):
        # its `expect:` line names a series from outside, which has to be loaded for it
        named = [str(found.revision.file)] if found.revision.file else []
    else:
        named = [revision.address for revision in found.pair]
    options = [*_each("--revision", named), *_each("--invariants", map(str, invariants))]
    return command("replay", str(found.file), *options)


def command(*words: str) -> str:
    """A command line of xfdfuzz that can be pasted: by the path of this one where the shell finds no other."""
    started = Path(sys.argv[0])
    unfound = started.name == "xfdfuzz" and shutil.which("xfdfuzz") is None
    return shlex.join([str(started) if unfound else "xfdfuzz", *words])


def revision_options(revision: Revision) -> list[str]:
    """The options that name ``revision`` on the command line."""
    return [
        *("--revision", str(revision.file or revision.name)),
        *_each("--apply", revision.applied),
        *_each("--revert", revision.reverted),
    ]


def _each(option: str, values: Iterable[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
