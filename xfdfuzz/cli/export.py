"""`xfdfuzz export`: a program as a reproducer in C."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command
from xfdfuzz.cli.exits import CLEAN, SKIPPED, complain
from xfdfuzz.cli.inputs import STDIN, load_invariants, read_program, resolve_revisions
from xfdfuzz.cli.saving import check_output

if TYPE_CHECKING:
    from xfdfuzz.report.export.subject import Subject


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands, "export", _export, "write a program as a C file that reproduces it on a real machine"
    )
    command.add_argument("file", type=Path, metavar="FILE", help="a program, or - for one on standard input")
    command.add_argument(
        "-o", "--out", type=Path, metavar="OUT", help="the C file, - for standard output (default: FILE's name with .c)"
    )
    command.add_argument(
        "--kselftest", action="store_true", help="for tools/testing/selftests of a kernel's tree, with its helpers"
    )
    command.add_argument(
        "--revision",
        metavar="R",
        help="whose results stand in it (default: the newest mainline kernel that FILE breaks, else the newest)",
    )


def _export(args: argparse.Namespace) -> int:
    from xfdfuzz.engines.judge.verdict import revisions_for
    from xfdfuzz.native.control import unfit
    from xfdfuzz.report.export.subject import subject_of
    from xfdfuzz.report.export.writer import source

    load_invariants(args.invariants)
    named = [] if args.revision is None else resolve_revisions([args.revision], [], [])
    program = read_program(args.file)
    why = unfit(program)
    if why:
        return complain(f"{args.file}: user space does not control it: {why}", SKIPPED)
    revision = next(iter(revisions_for(program, [named[0].label])), None) if named else None
    subject = subject_of(program, revision)
    text = source(subject, str(args.file), args.kselftest)
    if args.out == STDIN:
        sys.stdout.write(text)
        return CLEAN
    out = args.out or Path(f"{_plain(args.file)}.c")
    _save(out, text)
    _tell(args, out, subject)
    return CLEAN


def _plain(file: Path) -> str:
    """The name of a C file, from that of a program."""
    return re.sub(r"[^\w-]+", "-", "repro" if file == STDIN else file.stem).strip("-") or "repro"


def _save(out: Path, text: str) -> None:
    from xfdfuzz.report.files import save_bytes

    check_output(out)
    save_bytes(out.name, lambda stream: stream.write(text.encode()), out.parent)


def _tell(args: argparse.Namespace, out: Path, subject: Subject) -> None:
    from xfdfuzz.report.console import write

    revision, good = subject.revision.label, subject.good.label if subject.good else None
    if args.format == "json":
        row = {"file": str(args.file), "out": str(out), "revision": revision, "good": good}
        write(row | {"dangers": [*subject.dangers], "private": subject.private}, sys.stdout)
        return
    print(f"wrote {out}: results of {revision}" + (f", held against {good}" if good else ""))
    if subject.private:
        print("private: it may be a vulnerability of a current kernel (SECURITY.md)")
    for danger in subject.dangers:
        print(f"careful: {danger}")
    if not args.kselftest:
        binary = shlex.quote(str(Path("./" if out.parent == Path() else "") / out.with_suffix("")))
        binary = binary if "/" in binary else f"./{binary}"
        print(f"now: gcc -O2 -Wall -o {binary} {shlex.quote(str(out))} && {binary}")
