"""`xfdfuzz corpus`: keep programs together, each once and saying what it does."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command, directory, positive
from xfdfuzz.cli.exits import BAD_INPUT, CLEAN, NOT_JUDGED, VIOLATION, BadInput, complain
from xfdfuzz.cli.inputs import find_programs, load_invariants, read_program, resolve_names, revision_names

if TYPE_CHECKING:
    from xfdfuzz.engines.compare.collection import Kept
    from xfdfuzz.program.program import Program
    from xfdfuzz.report.collection import Outcome
    from xfdfuzz.revisions import Revision

#: A program with its file.
Named = tuple[str, "Program"]


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "corpus", _corpus, "keep programs: add findings, check, prune and count them")
    command.add_argument("action", choices=tuple(_ACTIONS), help="add to, check, prune, or count")
    command.add_argument("paths", nargs="+", type=Path, metavar="FILE|DIR", help="a program, or every *.xfd below DIR")
    command.add_argument("--to", type=directory, metavar="DIR", help="add: where to (default: corpus)")
    command.add_argument("--dry-run", action="store_true", help="add, prune: only say what would be written")
    command.add_argument(
        "--revision", action="append", default=[], metavar="R", help="add, prune: look at this one; repeatable (all)"
    )
    command.add_argument("--workers", type=positive, metavar="N", help="processes (default: one for each CPU)")


def _corpus(args: argparse.Namespace) -> int:
    if args.to and args.action != "add":
        raise BadInput(f"--to is for add, not for {args.action}")
    # a series from outside has to be known before a program names it
    resolve_names(revision_names(args.revision), [], [])
    load_invariants(args.invariants)
    files = find_programs(args.paths)
    if not files:
        return complain(f"no *.xfd file below {', '.join(map(str, args.paths))}", NOT_JUDGED)
    return _ACTIONS[args.action](args, files)


def _revisions(args: argparse.Namespace) -> list[Revision]:
    from xfdfuzz.revisions import names

    return resolve_names(revision_names(args.revision) or names(), [], [])


def _collected(args: argparse.Namespace, programs: Sequence[Named], revisions: Sequence[Revision]) -> list[Kept]:
    """What each of the programs breaks on the revisions."""
    from xfdfuzz.engines.compare.collection import collected
    from xfdfuzz.engines.processes.workers import workers

    if not programs or not revisions:
        return []
    count = min(args.workers or os.cpu_count() or 1, len(programs))
    with workers(count, here_if_one=True, step_timeout=args.step_timeout) as executor:
        return [*collected(programs, revisions, executor)]


def _read(files: Sequence[Path]) -> list[Named]:
    return [(str(file), read_program(file)) for file in files]


def _tell(args: argparse.Namespace, outcome: Outcome) -> None:
    from xfdfuzz.report import collection
    from xfdfuzz.report.console import console, write

    if args.format == "json":
        write(collection.as_object(outcome), sys.stdout)
    else:
        collection.terminal(console(sys.stdout), outcome)


# -- add ---------------------------------------------------------------------------------------------------------------


def _add(args: argparse.Namespace, files: Sequence[Path]) -> int:
    to = args.to or Path("corpus")
    revisions = _revisions(args)
    new = _collected(args, _read(files), revisions)
    hit = {name for kept in new for name, _ in kept.broken}
    there = _read(find_programs([to])) if to.is_dir() else []
    kept = _collected(args, there, [revision for revision in revisions if revision.name in hit])
    code = CLEAN
    for candidate in new:
        outcome, program = _added(candidate, kept, revisions, to)
        if outcome.saved is None:
            code = VIOLATION
        else:
            kept.append(replace(candidate, file=outcome.saved, program=program))
            if not args.dry_run:
                _save(program, Path(outcome.saved))
        _tell(args, outcome)
    return code


def _added(new: Kept, kept: Sequence[Kept], revisions: Sequence[Revision], to: Path) -> tuple[Outcome, Program]:
    """What becomes of a program, and with which lines."""
    from xfdfuzz.engines.compare.collection import failures, slug, spoken
    from xfdfuzz.report.collection import Outcome

    program = spoken(new.program, revisions)
    refusals = [*_refusals(new, kept)] or failures(program)
    if refusals:
        return Outcome(new.file, "refused", tuple(refusals)), program
    taken = {Path(one.file) for one in kept}
    name, number = slug(program.title), 1
    while (path := to / f"{name}{f'-{number}' if number > 1 else ''}.xfd") in taken or path.exists():
        number += 1
    return Outcome(new.file, "added", saved=str(path)), program


def _refusals(new: Kept, kept: Sequence[Kept]) -> Iterator[str]:
    """Why it would tell nothing new."""
    from xfdfuzz.engines.compare.collection import same_program, shown_by, slug

    twin, files = same_program(new.program, kept), shown_by(new.broken, kept)
    if twin:
        yield f"{twin} is the same program"
    elif not new.broken:
        yield "it breaks nothing"
    elif files:
        yield f"{_these(files)} all that it breaks"
    if not slug(new.program.title):
        yield "it has no title that could be its name: '# title: ...'"


def _these(files: Sequence[str]) -> str:
    return f"{', '.join(files)} {'shows' if len(files) == 1 else 'show'}"


def _save(program: Program, path: Path) -> None:
    from xfdfuzz.program.text import format_program
    from xfdfuzz.report.files import check_directory, save_bytes

    try:
        check_directory(path.parent)
        save_bytes(path.name, lambda stream: stream.write(format_program(program).encode()), path.parent)
    except OSError as error:
        raise BadInput(f"cannot save to {path.parent}: {error.strerror}") from None


# -- check -------------------------------------------------------------------------------------------------------------


def _check(args: argparse.Namespace, files: Sequence[Path]) -> int:
    from xfdfuzz.engines.compare.collection import bare
    from xfdfuzz.report.collection import Outcome

    first: dict[Program, Path] = {}
    code = CLEAN
    for file in files:
        try:
            program = read_program(file)
            twin = first.setdefault(bare(program), file)
            problems = [*_problems(file, program), *([f"the same program as {twin}"] if twin != file else [])]
        except BadInput as error:
            problems, code = [str(error).removeprefix(f"{file}:").strip()], BAD_INPUT
        if problems:
            code = max(code, VIOLATION)
        _tell(args, Outcome(str(file), "FAIL" if problems else "ok", tuple(problems)))
    return code


def _problems(file: Path, program: Program) -> Iterator[str]:
    from xfdfuzz.engines.compare.collection import failures, is_slug

    if not is_slug(file.stem):
        yield "its name: expected lower-case letters, digits and -"
    if not program.title:
        yield "expected a line '# title: ...'"
    if not program.expect:
        yield "expected a line '# expect: REVISION violates INVARIANT', or clean"
    yield from _not_canonical(file, program)
    yield from failures(program)


def _not_canonical(file: Path, program: Program) -> Iterator[str]:
    """The first line that would be written in another way."""
    from xfdfuzz.extensions import read_file
    from xfdfuzz.program.text import format_program

    found, wanted = (text.splitlines(keepends=True) for text in (read_file(file).decode(), format_program(program)))
    for number in range(max(len(found), len(wanted))):
        is_there, should_be = ("".join(text[number : number + 1]) for text in (found, wanted))
        if is_there != should_be:
            what = repr(should_be.rstrip("\n")) if should_be else "nothing more"
            yield f"line {number + 1} is not as it is written: expected {what}"
            return


# -- prune -------------------------------------------------------------------------------------------------------------


def _prune(args: argparse.Namespace, files: Sequence[Path]) -> int:
    from xfdfuzz.engines.compare.collection import superfluous
    from xfdfuzz.report.collection import Outcome

    collection = _collected(args, _read(files), _revisions(args))
    dropped = [*superfluous(collection)]
    for kept, others in dropped:
        _tell(args, Outcome(kept.file, "dropped", (f"{_these(others)} all that it breaks",)))
        if not args.dry_run:
            Path(kept.file).unlink()
    gone = {kept.file for kept, _ in dropped}
    shorter = [_shortened(args, kept) for kept in collection if kept.file not in gone]
    return VIOLATION if args.dry_run and (dropped or any(shorter)) else CLEAN


def _shortened(args: argparse.Namespace, kept: Kept) -> bool:
    """Whether a plainer program does as well, which takes its place."""
    from xfdfuzz.engines.compare.collection import is_told, plainest
    from xfdfuzz.report.collection import Outcome

    if is_told(kept.program) or not kept.broken:
        return False
    program = plainest(kept)
    if program == kept.program:
        return False
    counts = f"{len(kept.program.ops)} ops, now {len(program.ops)}"
    _tell(args, Outcome(kept.file, "shortened", (counts,), saved=kept.file))
    if not args.dry_run:
        _save(program, Path(kept.file))
    return True


# -- stats -------------------------------------------------------------------------------------------------------------


def _stats(args: argparse.Namespace, files: Sequence[Path]) -> int:
    from xfdfuzz.report import collection
    from xfdfuzz.report.console import console, write

    found = collection.stats(program for _, program in _read(files))
    if args.format == "json":
        write(collection.stats_as_object(found), sys.stdout)
    else:
        collection.stats_terminal(console(sys.stdout), found)
    return CLEAN


_ACTIONS: dict[str, Callable[[argparse.Namespace, Sequence[Path]], int]] = {
    "add": _add,
    "check": _check,
    "prune": _prune,
    "stats": _stats,
}
