"""`xfdfuzz baseline`: keep the file that says what is known to be broken."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command
from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, VIOLATION, BadInput, complain
from xfdfuzz.cli.inputs import find_programs, load_invariants, read_baseline, read_program, resolve_revisions, today

if TYPE_CHECKING:
    from xfdfuzz.baseline.editing import Document
    from xfdfuzz.baseline.entries import Baseline, Entry, Looked
    from xfdfuzz.revisions import Revision


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "baseline", _baseline, "keep the file that says what is known to be broken")
    command.add_argument("action", choices=("update", "prune", "check"), help="what is done with it")
    command.add_argument("file", type=Path, metavar="FILE", help="the baseline, a TOML file; check takes a DIR, too")
    command.add_argument(
        "paths", nargs="*", type=Path, metavar="FINDING|DIR", help="update: what was found (default: findings)"
    )
    command.add_argument(
        "--revision",
        action="append",
        default=[],
        metavar="R",
        help="where it was found (update), or is to show (check); name here a series' file that entries are about",
    )


def _baseline(args: argparse.Namespace) -> int:
    from xfdfuzz.baseline.entries import BaselineError
    from xfdfuzz.report.console import console
    from xfdfuzz.revisions import RevisionError

    revisions = resolve_revisions(args.revision, [], [])
    load_invariants(args.invariants)
    if args.paths and args.action != "update":
        raise BadInput(f"baseline {args.action} takes no findings: {args.paths[0]}")
    baseline = read_baseline([args.file], console(sys.stderr))
    try:
        return _ACTIONS[args.action](args, baseline, revisions)
    except (BaselineError, RevisionError) as error:
        raise BadInput(f"{error}") from None


def check(args: argparse.Namespace, baseline: Baseline, revisions: Sequence[Revision]) -> int:
    """That every entry still shows wherever it is said to, and none has expired."""
    from xfdfuzz.baseline.entries import look

    code = CLEAN
    for entry in baseline.entries:
        looked = look(entry, revisions)
        faults = [f"does not show on {', '.join(looked.gone)}"] if looked.gone else []
        faults += ["is about no revision"] if entry.bucket and not entry.named else []
        faults += [f"expired since {entry.expires}"] if entry.expired(today()) else []
        for fault in faults:
            code = complain(f"{entry.place}: {entry.bucket or 'program'}: {fault}", VIOLATION)
        _tell(args, looked, "; ".join(faults) or "shows")
    return code


def _prune(args: argparse.Namespace, baseline: Baseline, revisions: Sequence[Revision]) -> int:
    """Take out what is gone everywhere, and what another entry says."""
    from xfdfuzz.baseline.entries import look, superfluous

    document = _document(args.file)
    looked = [look(entry) for entry in baseline.entries]
    for number, reason in superfluous(looked):
        document.remove(number)
        _tell(args, looked[number], f"removed: {reason}")
    return _save(args.file, document)


def _update(args: argparse.Namespace, baseline: Baseline, revisions: Sequence[Revision]) -> int:
    """Note what still shows, and what was found besides."""
    from xfdfuzz.baseline.entries import look

    document = _document(args.file)
    looked = [look(entry) for entry in baseline.entries]
    for number, one in enumerate(looked):
        if one.shows:
            document.seen(number, today())
        _tell(args, one, "still shows" if one.shows else "gone: prune removes it")
    for entry in _found(args.paths, revisions):
        new = look(entry)
        if new.shows and not any(one.covers(new) for one in looked):
            looked.append(new)
            document.add(replace(entry, first_seen=today(), last_seen=today()))
            _tell(args, new, "added")
    return _save(args.file, document)


_ACTIONS = {"update": _update, "prune": _prune, "check": check}


def _found(paths: Sequence[Path], revisions: Sequence[Revision]) -> Iterator[Entry]:
    """What the findings violate, the shortest program of each first."""
    from xfdfuzz.baseline.entries import Entry, kinds_of
    from xfdfuzz.engines.judge.verdict import revisions_for

    default = [path for path in [Path("findings")] if path.exists()]
    programs = [(str(file), read_program(file)) for file in find_programs(paths or default)]
    for place, program in sorted(programs, key=lambda pair: len(pair[1].ops)):
        for revision in revisions or revisions_for(program):
            for bucket in dict.fromkeys(kinds_of(program, revision).values()):
                yield Entry(place, program, bucket, revision.name)


def _document(file: Path) -> Document:
    """What is changed; raises BadInput where it could not be written."""
    from xfdfuzz.baseline.editing import Document
    from xfdfuzz.cli.saving import check_output

    if file.suffix != ".toml":
        raise BadInput(f"{file}: expected the name of a TOML file, *.toml")
    check_output(file)
    return Document(file)


def _save(file: Path, document: Document) -> int:
    from xfdfuzz.report.files import save_bytes

    text = document.changed()
    if text is None:
        return CLEAN
    try:
        save_bytes(file.name, lambda stream: stream.write(text.encode()), file.parent)
    except OSError as error:
        return complain(f"cannot write {file}: {error.strerror}", NOT_JUDGED)
    return CLEAN


def _tell(args: argparse.Namespace, looked: Looked, what: str) -> None:
    """A line for each entry, or an object."""
    from xfdfuzz.report import baseline
    from xfdfuzz.report.console import console, write

    if args.format == "json":
        write(baseline.as_object(looked, what), sys.stdout)
    else:
        baseline.terminal(console(sys.stdout), looked, what)
