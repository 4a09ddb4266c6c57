"""What the command line names, read and checked: invariants, revisions, programs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.exits import CLEAN, VIOLATION, BadInput, NotModelled, complain, reason
from xfdfuzz.extensions import LARGEST, line_of, read_file

if TYPE_CHECKING:
    from rich.console import Console

    from xfdfuzz.baseline.entries import Baseline
    from xfdfuzz.engines.stream.known import Known
    from xfdfuzz.invariants.vocabulary import Invariant
    from xfdfuzz.program.program import Expectation, Program
    from xfdfuzz.revisions import Revision, RevisionError

#: A program on standard input.
STDIN = Path("-")
#: The corpus: a folder at the top, a link to it in the package, real files in the wheel.
CORPUS = Path(__file__).parent.parent / "corpus"


def load_invariants(files: Sequence[Path]) -> None:
    """Load the built-in invariants and the given files; raises BadInput for a file that cannot be used."""
    from xfdfuzz.invariants.loading import load, load_file
    from xfdfuzz.invariants.vocabulary import INVARIANTS, InvariantError

    load()
    for file in files:
        if file.suffix != ".py":
            raise BadInput(f"{file}: expected a Python file, *.py")
        known = set(INVARIANTS)
        try:
            _check_text(file)
            load_file(file)
            for name in INVARIANTS.keys() - known:
                _check_revisions(INVARIANTS[name], file)
        except OSError as error:
            raise BadInput(f"{file}: {error.strerror}") from None
        except SyntaxError as error:
            # a file that this one imports may be the broken one
            where = error.filename if error.filename not in (None, str(file.resolve())) else file
            raise BadInput(f"{where}:{error.lineno or 1}:{error.offset or 1}: {error.msg}") from None
        except (BadInput, InvariantError):
            raise
        except (Exception, SystemExit) as error:
            raise BadInput(f"{file}:{line_of(error, file)}: {type(error).__name__}: {error}") from None


def _check_revisions(inv: Invariant, file: Path) -> None:
    """That the revisions exist which the invariant names."""
    from xfdfuzz.revisions import RevisionError, names

    try:
        inv.applies_to(names()[0])
    except RevisionError as error:
        raise BadInput(f"{file}:{inv.predicate.__code__.co_firstlineno}: {error}") from None


def _check_text(file: Path) -> None:
    """Refuse a binary file with the place of the first bad byte: Python's own error has none."""
    data = read_file(file)
    position, reason = data.find(b"\0"), "not a text: it has a NUL byte"
    if position < 0 and not re.match(rb"(.*\n)?[ \t]*#.*coding[:=]", data):  # another encoding is Python's business
        try:
            data.decode()
        except UnicodeDecodeError as error:
            position, reason = error.start, "not a UTF-8 text"
    if position >= 0:
        above, _, before = data[:position].rpartition(b"\n")
        line = above.count(b"\n") + 1 + (b"\n" in data[:position])
        raise BadInput(f"{file}:{line}:{len(before.decode(errors='replace')) + 1}: {reason}")


def resolve_revisions(wanted: Sequence[str], apply: Sequence[str], revert: Sequence[str]) -> list[Revision]:
    """The revisions asked for, each once; what there is to know about their names is said."""
    return resolve_names(revision_names(wanted), apply, revert)


def resolve_names(names: Sequence[str], apply: Sequence[str], revert: Sequence[str]) -> list[Revision]:
    """The revisions with names that :func:`revision_names` gave, each once."""
    from xfdfuzz.revisions import RevisionError, resolve

    try:
        found = [resolve(name, apply, revert) for name in names]
    except RevisionError as error:
        raise BadInput(str(error)) from None
    return list({revision.label: revision for revision in found}.values())


def revision_names(wanted: Sequence[str]) -> list[str]:
    """Those asked for; ``-`` is the one that models the series of the mail on standard input.

    Raises NotModelled where none does.  Standard input is read once, so what follows has to go on with these names.
    """
    return [_mailed() if name == "-" else _meant(name) for name in wanted]


def _meant(name: str) -> str:
    """The name itself; of an alias or a version, the revision that it stands for.  What there is to know is said."""
    from xfdfuzz.revisions import stands_for

    model, note = stands_for(name)
    if note:
        with suppress(OSError):
            print(note, file=sys.stderr, flush=True)
    return model


def _mailed() -> str:
    from email.parser import BytesHeaderParser

    from xfdfuzz.revisions.mails import revision_of_mail

    mail = sys.stdin.buffer.read()
    found = revision_of_mail(mail)
    if found is None:
        raise NotModelled(str(BytesHeaderParser().parsebytes(mail).get("Message-Id", "without a Message-Id")))
    return found


def find_programs(paths: Sequence[Path]) -> list[Path]:
    """The programs that the command line names, each once."""
    return find_files(paths, ".xfd")


def today() -> date:
    """The day on which what expires is looked at."""
    return date.today()


def read_baseline(paths: Sequence[Path], err: Console) -> Baseline:
    """What is known, by files and directories; one that does not exist yet has nothing, which is said.

    Raises BadInput.
    """
    from xfdfuzz.baseline.entries import Baseline, BaselineError
    from xfdfuzz.baseline.reading import read
    from xfdfuzz.report.console import line

    found = Baseline()
    for path in paths:
        try:
            programs = find_programs([path]) if path.is_dir() or path.suffix != ".toml" else []
            found += read(path, programs, read_program, program_of)
        except BaselineError as error:
            raise BadInput(str(error)) from None
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}") from None
    for absent in found.absent:
        line(err, f"{absent}: an empty baseline")
    return found


def known_on(baseline: Baseline, revision: Revision, err: Console) -> Known:
    """What of it shows on the revision under test, just as it is; what was to be gone by now is told."""
    from xfdfuzz.engines.stream.known import NOTHING
    from xfdfuzz.report.console import counted, line

    if not baseline.sources:
        return NOTHING
    known = baseline.known_on(revision, today())
    gone = f", {len(known.gone)} gone" if known.gone else ""
    if baseline.entries:
        programs = counted(len(baseline.entries), "program")
        line(err, f"{revision.label}: {counted(len(known), 'known bucket')} of {programs}{gone}")
    for one in known.expired:
        complain(f"{revision.label}: {one.bucket}: expired since {one.since}", VIOLATION)
    return known


def find_files(paths: Sequence[Path], suffix: str) -> list[Path]:
    """The files that the command line names, each once; of a directory those whose name ends so.

    What begins with ``corpus`` and is not there is looked for in the corpus that comes along.
    """
    return list(dict.fromkeys(file for path in paths for file in _files_below(path, suffix)))


def _files_below(path: Path, suffix: str) -> Iterator[Path]:
    """``path`` itself if it is a file, else every such file below it, in a stable order."""
    there = _located(path)
    if not there.is_dir():
        yield path
        return

    def fail(error: OSError) -> None:
        raise BadInput(reason(error))

    for folder, inner, names in os.walk(there, onerror=fail):
        inner.sort()
        yield from (path / Path(folder, name).relative_to(there) for name in sorted(names) if name.endswith(suffix))


def _located(path: Path) -> Path:
    """Where to read what the command line calls so."""
    if path.parts[:1] == ("corpus",) and not path.exists():
        return CORPUS.joinpath(*path.parts[1:])
    return path


def read_program(file: Path, asked: Sequence[str] | None = None) -> Program:
    """Read and check a program; raises BadInput with the place of what is wrong.

    ``asked``: the revisions that the user wants it to be judged on, where a command can be told.  If there are some,
    lines about revisions that are not known here are of no concern: a finding of a series has them.
    """
    if file == STDIN:
        return _mailed_program(asked)
    try:
        # not read_text(), which would take a lone carriage return for the end of a line
        return program_of(read_file(_located(file)).decode(), str(file), asked)
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not a UTF-8 text (byte {error.start})") from None


def _mailed_program(asked: Sequence[str] | None) -> Program:
    """That on standard input, by itself or in a mail."""
    from xfdfuzz.program.mail import cut

    text = sys.stdin.buffer.read(LARGEST).decode(errors="replace")
    program = cut(text)
    if program is None:
        raise BadInput("-: no program on standard input: no line '# xfdfuzz program 1'")
    return program_of(program, str(STDIN), asked)


def program_of(text: str, file: str, asked: Sequence[str] | None = None) -> Program:
    """Check a program that was read; raises BadInput with the place of what is wrong."""
    from xfdfuzz.program.text import ProgramError, parse

    try:
        program = parse(text, file)
    except ProgramError as error:
        raise BadInput(str(error)) from None
    program = _of_known_revisions(program, file, asked)
    _check_expectations(program, file)
    _check_patches(program, file)
    return program


def _of_known_revisions(program: Program, file: str, asked: Sequence[str] | None) -> Program:
    """The program without `expect:` lines of unknown revisions, if others are asked for, which is told.

    Where these alone say what it breaks, its results are of them, too.
    """
    from xfdfuzz.revisions import UnknownRevision

    unknown: dict[str, None] = {}
    lines = []
    for line in program.expect:
        error = _wrong_revisions(line)
        if error is None:
            lines.append(line)
        elif asked and isinstance(error, UnknownRevision):
            unknown[line.revisions] = None
        else:
            known = asked is None or not isinstance(error, UnknownRevision)
            hint = "" if known else "; this line does not count with --revision REVISION"
            raise BadInput(f"{file}:{line.line}:{line.columns[0]}: {error}{hint}")
    if unknown:
        complain(f"{file}: left out what it expects of {', '.join(unknown)}, not known here", CLEAN)
    left = replace(program, expect=tuple(lines))
    if any(line.kind != "result" for line in program.expect) and all(line.kind == "result" for line in lines):
        return replace(left, results=())
    return left


def _wrong_revisions(line: Expectation) -> RevisionError | None:
    from xfdfuzz.revisions import RevisionError, names, selects

    try:
        selects(line.revisions, names()[0])
    except RevisionError as error:
        return error
    return None


def _check_expectations(program: Program, file: str) -> None:
    """An `expect:` line that names no invariant would always fail, and so would one of two that contradict."""
    from xfdfuzz.engines.judge.verdict import contradiction
    from xfdfuzz.invariants.vocabulary import INVARIANTS

    for expectation in program.expect:
        columns = (f"{file}:{expectation.line}:{column}" for column in expectation.columns[1:])
        for name, column in zip(expectation.invariants, columns, strict=True):
            if name not in INVARIANTS:
                raise BadInput(f"{column}: unknown invariant {name}: see xfdfuzz list invariants")
    found = contradiction(program)
    if found:
        raise BadInput(f"{file}:{found[0].line}:{found[0].columns[0]}: {found[1]}")


def _check_patches(program: Program, file: str) -> None:
    """The patches in the header exist, and none is both applied and reverted."""
    from xfdfuzz.revisions import RevisionError, find

    applied: set[str] = set()
    named = [*((name, True) for name in program.apply), *((name, False) for name in program.revert)]
    for (name, apply), (line, column) in zip(named, program.patch_places, strict=True):
        try:
            commit = find(name).commit
        except RevisionError as error:
            raise BadInput(f"{file}:{line}:{column}: {error}") from None
        if apply:
            applied.add(commit)
        elif commit in applied:
            raise BadInput(f"{file}:{line}:{column}: {name} is applied and reverted")
