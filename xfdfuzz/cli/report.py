"""`xfdfuzz report`: programs as pages that people read in a browser."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command, add_revisions
from xfdfuzz.cli.exits import BAD_INPUT, CLEAN, NOT_JUDGED, VIOLATION, BadInput, complain, reason
from xfdfuzz.cli.inputs import find_programs, load_invariants, read_program, resolve_names, revision_names
from xfdfuzz.cli.saving import check_output

if TYPE_CHECKING:
    from xfdfuzz.report.page.index import Entry
    from xfdfuzz.report.page.runs import Finding

_INDEX = "index.html"


def add(commands: Commands) -> None:
    """Add the command."""
    summary = "write programs as pages that show their runs, step by step, or as a mail"
    command = add_command(commands, "report", _report, summary, formats=("rich", "mail", "json"))
    command.add_argument("paths", nargs="+", type=Path, metavar="FILE|DIR", help="a program, or every *.xfd below DIR")
    command.add_argument(
        "-o",
        "--out",
        type=_out,
        metavar="OUT",
        help="the page, *.html; for several programs, or without that ending, a directory: a page each, and index.html",
    )
    add_revisions(command, "default: all")
    command.add_argument(
        "--i-have-reported-it",
        action="store_true",
        help="write the mail also about what may be a vulnerability of the newest kernel (SECURITY.md)",
    )


def _out(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a page or of a directory")
    return Path(text)


def _report(args: argparse.Namespace) -> int:
    from xfdfuzz.report import files
    from xfdfuzz.revisions import names

    args.revision = revision_names(args.revision) or names()
    resolve_names(args.revision, args.apply, args.revert)
    load_invariants(args.invariants)
    programs = find_programs(args.paths)
    if not programs:
        return complain(f"no *.xfd file below {', '.join(map(str, args.paths))}", NOT_JUDGED)
    if args.format == "mail":
        return _mail(args, programs)
    if args.out is None:
        raise BadInput("expected -o OUT, or --format mail (see xfdfuzz report --help)")
    single = args.out.suffix == ".html" and not args.out.is_dir()
    if single and (len(programs) > 1 or any(path.is_dir() for path in args.paths)):
        raise BadInput(f"{args.out}: expected a directory for the pages of {len(programs)} programs")
    directory = args.out.parent if single else args.out
    try:
        files.check_directory(directory)
        if single:
            files.check_file(args.out)
    except OSError as error:
        raise BadInput(f"cannot write {reason(error)}") from None
    pages = [args.out.name] if single else _names(programs)
    return _write(args, programs, pages, directory, with_index=not single)


def _mail(args: argparse.Namespace, programs: Sequence[Path]) -> int:
    """Write the mail about the one program; the exit code."""
    from xfdfuzz.report import mail
    from xfdfuzz.report.files import save_bytes
    from xfdfuzz.report.page.runs import run_on
    from xfdfuzz.revisions import names

    if len(programs) > 1:
        raise BadInput(f"expected one program for a mail, got {len(programs)}")
    found = _finding(args, programs[0])
    if found is None or found.main is None:
        return complain(f"{programs[0]}: nothing is broken, so there is no mail", NOT_JUDGED)
    if found.private and not args.i_have_reported_it:
        return complain(mail.REMINDER, VIOLATION)
    others = [*run_on(found.program, names(), args.apply, args.revert)]
    if args.out is not None:
        check_output(args.out)
    text = mail.text(found, [run for run in others if run.label != found.chosen.label])
    if args.out is None:
        print(text, end="")
    else:
        save_bytes(args.out.name, lambda stream: stream.write(text.encode()), args.out.parent)
    return CLEAN


def _write(
    args: argparse.Namespace, programs: Sequence[Path], pages: Sequence[str], directory: Path, with_index: bool
) -> int:
    from xfdfuzz.report.page import html, index

    code, entries = CLEAN, []
    for file, name in zip(programs, pages, strict=True):
        try:
            found = _finding(args, file)
        except BadInput as error:
            code = max(code, complain(str(error), BAD_INPUT))
            continue
        if found is None:
            code = max(code, complain(f"{file}: nothing was executed", NOT_JUDGED))
            continue
        _save(directory, name, html.page(found))
        entries.append(index.entry(found, name))
        _tell(args, entries[-1], directory / name)
    if with_index and entries:
        many = len(args.paths) > 3  # a shell's pattern
        title = f"{len(programs)} programs" if many else ", ".join(map(str, args.paths))
        _save(directory, _INDEX, index.index(entries, title))
        _tell(args, None, directory / _INDEX)
    return code


def _finding(args: argparse.Namespace, file: Path) -> Finding | None:
    """What the page of a program shows; None where no op can happen on any of the revisions."""
    from xfdfuzz.report.page.runs import finding, run_on

    program = read_program(file)
    runs = [*run_on(program, args.revision, args.apply, args.revert)]
    if not any(run.verdict.happened for run in runs):
        return None
    given = (("--invariants", args.invariants), ("--apply", args.apply), ("--revert", args.revert))
    options = [word for option, values in given for value in values for word in (option, str(value))]
    return finding(file, program, runs, options)


def _names(programs: Sequence[Path]) -> list[str]:
    """A name for each page: the program's, with the directory's in front where there are two of that name."""
    found: dict[str, None] = {_INDEX: None}
    for file in programs:
        found[next(name for name in _candidates(file) if name not in found)] = None
    return [*found][1:]


def _candidates(file: Path) -> Iterator[str]:
    parts = [part for part in file.with_suffix("").parts if part not in ("/", ".", "..")]
    yield from (f"{'-'.join(parts[-count:])}.html" for count in range(1, len(parts) + 1))
    number = 2
    while True:
        yield f"{parts[-1]}-{number}.html"
        number += 1


def _save(directory: Path, name: str, page: str) -> None:
    from xfdfuzz.report.files import save_bytes

    save_bytes(name, lambda stream: stream.write(page.encode()), directory)


def _tell(args: argparse.Namespace, entry: Entry | None, page: Path) -> None:
    from xfdfuzz.report.console import write

    if args.format == "rich":
        print(f"wrote {page}", flush=True)
        return
    main = entry and entry.main
    write(
        {
            "page": str(page),
            "file": entry and entry.file,
            "bucket": main and main.bucket,
            "severity": main and main.severity,
            "private": entry and entry.private,
        },
        sys.stdout,
    )
