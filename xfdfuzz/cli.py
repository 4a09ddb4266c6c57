"""The command line.  It reads arguments and wires; what happens is in the engines, what is printed in the reports.

Imports are made where they are needed: `--help` does not load the model, and `replay` does not load Hypothesis.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

    from xfdfuzz.engines.fuzz import Finding, Report
    from xfdfuzz.engines.replay import Verdict
    from xfdfuzz.program.program import Program
    from xfdfuzz.revisions import Revision

CLEAN, VIOLATION, BAD_INPUT, NOT_JUDGED = range(4)

EXIT_CODES = """\
exit codes:
  0  clean; replay: every expectation holds or, without one, there is no violation
  1  a violation (fuzz); an expectation that fails, or a violation without one (replay)
  2  usage or bad input: an unknown revision or commit, a broken program, an
     unreadable file or directory, a directory that cannot be saved to
  3  could not judge: interrupted, nothing executed, internal error
  4  skipped: what it needs is not here (reserved)
the highest one wins when there are several
"""

#: How many files are few enough to print their traces.
FEW = 3
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


class BadInput(Exception):
    """What the user gave cannot be used; as text it is one line that says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:  # --help, --version, or a usage error that was printed
        return int(stop.code or 0)
    try:
        code: int = args.command(args)
        sys.stdout.flush()
    except BadInput as error:
        return _complain(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        return _complain("interrupted", NOT_JUDGED)
    except OSError as error:
        _drop_stdout()
        # a reader that went away, such as head, has what it wanted
        return NOT_JUDGED if isinstance(error, BrokenPipeError) else _complain(_reason(error), NOT_JUDGED)
    except Exception as error:
        place = _place_in(args.invariants, error)
        if place:
            return _complain(f"{place}: {type(error).__name__}: {error}", BAD_INPUT)
        traceback.print_exc()
        return _complain(f"internal error: {type(error).__name__}", NOT_JUDGED)
    return code


def _place_in(files: Sequence[Path], error: Exception) -> str:
    """Where in the user's own invariants the error came up, or nothing."""
    names = {str(file.absolute()) for file in files}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if str(Path(f.filename).absolute()) in names]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _complain(message: str, code: int) -> int:
    with suppress(OSError):
        print(f"xfdfuzz: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return code


def _drop_stdout() -> None:
    """Whatever is still buffered goes nowhere, or Python would complain about it at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reason(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


# -- arguments ---------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="xfdfuzz",
        description="Fuzz and check an executable model of Linux' KVM and FPU code under XFD and AMX.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_fuzz(_add_command(commands, "fuzz", _fuzz, "search revisions for violations, shrink and save what is found"))
    _add_replay(_add_command(commands, "replay", _replay, "run programs and hold them against what they expect"))
    _add_list(_add_command(commands, "list", _list, "list revisions, patches, ops or invariants"))
    return parser


def _add_command(
    commands: argparse._SubParsersAction[_Parser], name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(command=run)
    command.add_argument("--invariants", action="append", type=Path, default=[], metavar="FILE", help="more invariants")
    command.add_argument("--format", choices=("rich", "json"), default="rich", help="text for people, or JSON lines")
    return command


def _add_revisions(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "--revision", action="append", default=[], metavar="R", help=f"the kernel under test; repeatable ({default})"
    )
    command.add_argument("--apply", action="append", default=[], metavar="C", help="add the patch with commit C")
    command.add_argument("--revert", action="append", default=[], metavar="C", help="leave the patch with commit C out")


def _add_fuzz(command: argparse.ArgumentParser) -> None:
    _add_revisions(command, "default: amx-v1")
    command.add_argument("--seed", type=_natural, metavar="N", help="repeat the run with this seed (default: random)")
    limit = command.add_mutually_exclusive_group()
    limit.add_argument(
        "--time", type=_seconds, default=60.0, metavar="SECONDS", help="for each revision; 90, 10m, 2h (default: 60)"
    )
    limit.add_argument("--examples", type=_positive, metavar="N", help="stop after N examples instead")
    command.add_argument("--steps", type=_positive, default=50, metavar="N", help="longest example (default: 50 steps)")
    command.add_argument(
        "--save", type=Path, default=Path("findings"), metavar="DIR", help="where findings go (default: findings)"
    )


def _add_replay(command: argparse.ArgumentParser) -> None:
    command.add_argument("paths", nargs="+", type=Path, metavar="FILE|DIR", help="a program, or every *.xfd below DIR")
    _add_revisions(command, "default: those that the program's expect: lines name, else amx-v1")


def _add_list(command: argparse.ArgumentParser) -> None:
    command.add_argument("kind", choices=("revisions", "patches", "ops", "invariants"))
    command.add_argument("--revision", metavar="R", help="only what this revision has; ops are the same on all")


def _natural(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {text!r}")
    return int(text)


def _positive(text: str) -> int:
    number = _natural(text)
    if not number:
        raise argparse.ArgumentTypeError("expected a number from 1 on, got 0")
    return number


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"expected a duration such as 90, 10m or 2h, got {text!r}")
    return seconds


# -- what the commands share -------------------------------------------------------------------------------------------


def _load_invariants(files: Sequence[Path]) -> None:
    """Load the built-in invariants and the given files; raises BadInput for a file that cannot be used."""
    from xfdfuzz.invariants.core import INVARIANTS, load, load_file
    from xfdfuzz.revisions import RevisionError, names

    load()
    for file in files:
        if file.suffix != ".py":
            raise BadInput(f"{file}: expected a Python file, *.py")
        known = set(INVARIANTS)
        try:
            load_file(file)
            for name in INVARIANTS.keys() - known:
                INVARIANTS[name].applies_to(names()[0])  # that its revisions exist
        except OSError as error:
            raise BadInput(f"{file}: {error.strerror}") from None
        except SyntaxError as error:
            raise BadInput(f"{file}:{error.lineno}: {error.msg}") from None
        except RevisionError as error:
            raise BadInput(f"{file}: {error}") from None
        except (Exception, SystemExit) as error:
            raise BadInput(f"{file}: {type(error).__name__}: {error}") from None


def _revisions(wanted: Sequence[str], apply: Sequence[str], revert: Sequence[str]) -> list[Revision]:
    """The revisions asked for, each once."""
    from xfdfuzz.revisions import RevisionError, resolve

    try:
        found = [resolve(name, apply, revert) for name in wanted]
    except RevisionError as error:
        raise BadInput(str(error)) from None
    return list({revision.label: revision for revision in found}.values())


# -- fuzz --------------------------------------------------------------------------------------------------------------


def _fuzz(args: argparse.Namespace) -> int:
    from xfdfuzz.report import machine, terminal
    from xfdfuzz.report.findings import check_directory

    _load_invariants(args.invariants)
    revisions = _revisions(args.revision or ["amx-v1"], args.apply, args.revert)
    try:
        check_directory(args.save)
    except OSError as error:
        raise BadInput(f"cannot save to {args.save}: {error.strerror}") from None
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(1 << 32)
    out, err = terminal.console(sys.stdout), terminal.console(sys.stderr)
    code = CLEAN
    for revision in revisions:
        report = _campaign(args, revision, err)
        if args.format == "json":
            machine.write(machine.campaign(report), sys.stdout)
        else:
            terminal.campaign(out, report, _repeat_command(args, revision), args.invariants)
        code = max(code, _judgement(report))
        if report.interrupted:
            break
    return code


def _campaign(args: argparse.Namespace, revision: Revision, err: Console) -> Report:
    """Fuzz one revision; every finding is saved before anything is said about it."""
    from xfdfuzz.engines.fuzz import fuzz
    from xfdfuzz.report import terminal
    from xfdfuzz.report.progress import Progress

    saved: dict[str, Finding] = {}
    terminal.line(err, f"{revision.label}: seed {args.seed}; repeat: {_repeat_command(args, revision)}")
    with Progress(err, revision.label) as progress:

        def on_finding(finding: Finding) -> None:
            saved[finding.violation.bucket] = _save(finding, args.save)
            progress.found(saved[finding.violation.bucket])

        report = fuzz(
            revision,
            seed=args.seed,
            seconds=None if args.examples else args.time,
            examples=args.examples,
            steps=args.steps,
            on_progress=progress.update,
            on_finding=on_finding,
        )
    # Ctrl-C may have come between the finding and its file
    findings = [saved.get(f.violation.bucket) or _save(f, args.save) for f in report.findings]
    return replace(report, findings=tuple(findings))


def _save(finding: Finding, directory: Path) -> Finding:
    """The finding with its file.  If the disk is full by now it is printed all the same, and the exit code tells."""
    from xfdfuzz.report.findings import save

    try:
        return replace(finding, file=save(finding, directory))
    except OSError as error:
        _complain(f"cannot save to {directory}: {error.strerror}", BAD_INPUT)
        return finding


def _judgement(report: Report) -> int:
    """The exit code of a campaign."""
    if report.interrupted or not report.stats.steps:
        return NOT_JUDGED
    if any(finding.file is None for finding in report.findings):
        return BAD_INPUT
    return VIOLATION if report.findings else CLEAN


def _repeat_command(args: argparse.Namespace, revision: Revision) -> str:
    from xfdfuzz.report.findings import revision_options

    limit = ["--examples", str(args.examples)] if args.examples else ["--time", f"{args.time:g}"]
    options = [*limit, "--steps", str(args.steps), "--save", str(args.save)]
    files = [word for file in args.invariants for word in ("--invariants", str(file))]
    return shlex.join(["xfdfuzz", "fuzz", *revision_options(revision), "--seed", str(args.seed), *options, *files])


# -- replay ------------------------------------------------------------------------------------------------------------


def _replay(args: argparse.Namespace) -> int:
    _load_invariants(args.invariants)
    _revisions(args.revision, args.apply, args.revert)  # tells about an unknown one once, not once a file
    files = list(dict.fromkeys(file for path in args.paths for file in _programs_below(path)))
    if not files:
        return _complain(f"no *.xfd file below {', '.join(map(str, args.paths))}", NOT_JUDGED)
    code = CLEAN
    for file in files:
        try:
            code = max(code, _replay_file(args, file, few=len(files) <= FEW))
        except BadInput as error:
            code = max(code, _complain(str(error), BAD_INPUT))
    return code


def _programs_below(path: Path) -> Iterator[Path]:
    """``path`` itself if it is a file, else every program below it, in a stable order."""
    if not path.is_dir():
        yield path
        return

    def fail(error: OSError) -> None:
        raise BadInput(_reason(error))

    for folder, inner, names in os.walk(path, onerror=fail):
        inner.sort()
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(".xfd"))


def _replay_file(args: argparse.Namespace, file: Path, few: bool) -> int:
    from xfdfuzz.engines.replay import judge
    from xfdfuzz.program.step import NOT_ENABLED
    from xfdfuzz.report import machine

    program = _read_program(file)
    patched = bool(args.apply or args.revert)
    verdicts = [judge(program, r, expectations=not patched) for r in _revisions_for(program, file, args)]
    if args.format == "json":
        machine.write(machine.replay(str(file), verdicts), sys.stdout)
    else:
        _print_verdicts(file, program, verdicts, few, every=bool(args.revision))
    if all(result == NOT_ENABLED for verdict in verdicts for result in verdict.results):
        return _complain(f"{file}: nothing was executed", NOT_JUDGED)
    return CLEAN if all(verdict.ok for verdict in verdicts) else VIOLATION


def _print_verdicts(file: Path, program: Program, verdicts: list[Verdict], few: bool, every: bool) -> None:
    """Full traces of failures and, of few files, of the first revision or of ``every`` one that was asked for."""
    from xfdfuzz.report import terminal

    out = terminal.console(sys.stdout)
    for nr, verdict in enumerate(verdicts):
        traced = not verdict.ok or (few and (every or nr == 0))
        terminal.verdict(out, str(file), program, verdict, traced)


def _read_program(file: Path) -> Program:
    """Read and check a program; raises BadInput with the place of what is wrong."""
    from xfdfuzz.program.text import ProgramError, parse

    try:
        program = parse(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not a UTF-8 text (byte {error.start})") from None
    except ProgramError as error:
        raise BadInput(str(error)) from None
    _check_expectations(program, file)
    return program


def _check_expectations(program: Program, file: Path) -> None:
    """An `expect:` line that names what does not exist would never fail, or always."""
    from xfdfuzz.invariants.core import INVARIANTS
    from xfdfuzz.revisions import RevisionError, names, selects

    for expectation in program.expect:
        try:
            selects(expectation.revisions, names()[0])
        except RevisionError as error:
            raise BadInput(f"{file}:{expectation.line}: {error}") from None
        for name in expectation.invariants:
            if name not in INVARIANTS:
                raise BadInput(f"{file}:{expectation.line}: unknown invariant {name}: see xfdfuzz list invariants")


def _revisions_for(program: Program, file: Path, args: argparse.Namespace) -> list[Revision]:
    from xfdfuzz.engines.replay import revisions_for
    from xfdfuzz.revisions import RevisionError

    try:
        found = revisions_for(program, args.revision, args.apply, args.revert)
    except RevisionError as error:
        raise BadInput(f"{file}: {error}") from None
    return list({revision.label: revision for revision in found}.values())


# -- list --------------------------------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    from xfdfuzz.report import listing, machine, terminal

    _load_invariants(args.invariants)
    only = _revisions([args.revision], [], [])[0] if args.revision else None
    rows = listing.KINDS[args.kind](only)
    if args.format == "rich":
        terminal.listing(terminal.console(sys.stdout), args.kind, rows)
        return CLEAN
    for row in rows:
        machine.write(row, sys.stdout)
    return CLEAN


if __name__ == "__main__":
    sys.exit(main())
