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
  1  a violation that --known does not know (fuzz); an expectation that fails,
     or a violation without one (replay)
  2  usage or bad input: an unknown revision, commit or invariant, a broken or
     contradictory program, an unreadable file or directory, a directory that
     cannot be saved to, a broken --invariants file or package of invariants
  3  could not judge: interrupted, nothing executed, a finding that a fresh
     process does not confirm, the output could not be written, internal error
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
        from xfdfuzz.invariants.core import InvariantError

        if isinstance(error, InvariantError):
            return _complain(str(error), BAD_INPUT)
        place = _place_in(args.invariants, error)
        if place:
            return _complain(f"{place}: {type(error).__name__}: {error}", BAD_INPUT)
        traceback.print_exc()
        return _complain(f"internal error: {type(error).__name__}", NOT_JUDGED)
    return code


def _place_in(files: Sequence[Path], error: Exception) -> str:
    """Where in the user's own invariants the error came up, or nothing."""
    names = {file.resolve() for file in files}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() in names]
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


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that takes longer than parsing."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib import metadata

        try:
            version = metadata.version("xfdfuzz")
        except metadata.PackageNotFoundError:
            version = "unknown"  # run from a checkout
        print(f"xfdfuzz {version}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="xfdfuzz",
        description="Fuzz and check an executable model of Linux' KVM and FPU code under XFD and AMX.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
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
        "--known",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="FILE|DIR",
        help="what these programs violate is known: only other violations count; repeatable",
    )
    command.add_argument(
        "--save", type=_directory, default=Path("findings"), metavar="DIR", help="where findings go (default: findings)"
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


def _directory(text: str) -> Path:
    if not text:  # a script's unset variable, which Path() would take for the current directory
        raise argparse.ArgumentTypeError("expected the name of a directory")
    return Path(text)


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
            _check_text(file)
            load_file(file)
            for name in INVARIANTS.keys() - known:
                INVARIANTS[name].applies_to(names()[0])  # that its revisions exist
        except OSError as error:
            raise BadInput(f"{file}: {error.strerror}") from None
        except SyntaxError as error:
            # a file that this one imports may be the broken one
            where = error.filename if error.filename not in (None, str(file.resolve())) else file
            raise BadInput(f"{where}:{error.lineno or 1}:{error.offset or 1}: {error.msg}") from None
        except BadInput:
            raise
        except RevisionError as error:
            raise BadInput(f"{file}: {error}") from None
        except (Exception, SystemExit) as error:
            raise BadInput(f"{file}: {type(error).__name__}: {error}") from None


def _check_text(file: Path) -> None:
    """Refuse a binary file with the place of the first bad byte: Python's own error has none."""
    data = file.read_bytes()
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
    known = [_read_program(file) for file in _programs(args.known)]
    if args.known and not known:
        raise BadInput(f"no *.xfd file below {', '.join(map(str, args.known))}")
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(1 << 32)
    out, err = terminal.console(sys.stdout), terminal.console(sys.stderr)
    code = CLEAN
    saver = _Saver(args.save)
    for revision in revisions:
        report = _campaign(args, revision, known, saver, err)
        if args.format == "json":
            machine.write(machine.campaign(report), sys.stdout)
        else:
            terminal.campaign(out, report, _repeat_command(args, revision), args.invariants)
        for doubt in report.doubts:
            _complain(doubt, NOT_JUDGED)
        code = max(code, _judgement(report))
        if report.interrupted:
            break
    return code


def _known_buckets(programs: Sequence[Program], revision: Revision, err: Console) -> set[str]:
    """What the known programs violate on the revision under test, just as it is."""
    from xfdfuzz.engines.replay import judge
    from xfdfuzz.report import terminal

    buckets = {bucket for p in programs for bucket in judge(p, revision, expectations=False).buckets}
    if programs:
        counts = f"{len(buckets)} known bucket{'' if len(buckets) == 1 else 's'} of {len(programs)} programs"
        terminal.line(err, f"{revision.label}: {counts}")
    return buckets


def _campaign(
    args: argparse.Namespace, revision: Revision, known: Sequence[Program], saver: _Saver, err: Console
) -> Report:
    """Fuzz one revision; every finding is saved before anything is said about it."""
    from xfdfuzz.engines.fuzz import fuzz
    from xfdfuzz.report import terminal
    from xfdfuzz.report.progress import Progress

    saved: dict[str, Finding] = {}
    terminal.line(err, f"{revision.label}: seed {args.seed}; repeat: {_repeat_command(args, revision)}")
    buckets = _known_buckets(known, revision, err)
    with Progress(err, revision.label) as progress:

        def on_finding(finding: Finding) -> None:
            saved[finding.violation.bucket] = saver.save(finding)
            progress.found(saved[finding.violation.bucket])

        report = fuzz(
            revision,
            seed=args.seed,
            seconds=None if args.examples else args.time,
            examples=args.examples,
            steps=args.steps,
            known=buckets,
            on_progress=progress.update,
            on_finding=on_finding,
        )
    # Ctrl-C may have come between the finding and its file
    findings = [saved.get(f.violation.bucket) or saver.save(f) for f in report.findings]
    return replace(report, findings=tuple(findings))


class _Saver:
    """Saves findings in a directory.  What cannot be saved, and why, is told once: a full disk stays full."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._told = False

    def save(self, finding: Finding) -> Finding:
        """The finding with its file.  If the disk is full by now it is printed all the same; the exit code tells."""
        from xfdfuzz.report.findings import save

        try:
            return replace(finding, file=save(finding, self._directory))
        except OSError as error:
            if not self._told:
                _complain(f"cannot save to {self._directory}: {error.strerror}", BAD_INPUT)
            self._told = True
            return finding


def _judgement(report: Report) -> int:
    """The exit code of a campaign."""
    if report.interrupted or report.doubts or not report.stats.steps:
        return NOT_JUDGED
    if any(finding.file is None for finding in report.findings):
        return BAD_INPUT
    return VIOLATION if report.findings else CLEAN


def _repeat_command(args: argparse.Namespace, revision: Revision) -> str:
    from xfdfuzz.report.findings import revision_options

    limit = ["--examples", str(args.examples)] if args.examples else ["--time", f"{args.time:g}"]
    options = [*limit, "--steps", str(args.steps), "--save", str(args.save)]
    files = [word for file in args.invariants for word in ("--invariants", str(file))]
    # the option once for each: a file name can then not be taken for the end of the list
    known = [word for path in args.known for word in ("--known", str(path))]
    return shlex.join(
        ["xfdfuzz", "fuzz", *revision_options(revision), "--seed", str(args.seed), *options, *known, *files]
    )


# -- replay ------------------------------------------------------------------------------------------------------------


def _replay(args: argparse.Namespace) -> int:
    _load_invariants(args.invariants)
    _revisions(args.revision, args.apply, args.revert)  # tells about an unknown one once, not once a file
    files = _programs(args.paths)
    if not files:
        return _complain(f"no *.xfd file below {', '.join(map(str, args.paths))}", NOT_JUDGED)
    code = CLEAN
    for file in files:
        try:
            code = max(code, _replay_file(args, file, few=len(files) <= FEW))
        except BadInput as error:
            code = max(code, _complain(str(error), BAD_INPUT))
    return code


def _programs(paths: Sequence[Path]) -> list[Path]:
    """The files that the command line names, each once."""
    return list(dict.fromkeys(file for path in paths for file in _programs_below(path)))


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
    from xfdfuzz.report import machine

    program = _read_program(file)
    patched = bool(args.apply or args.revert)
    verdicts = [judge(program, r, expectations=not patched) for r in _revisions_for(program, file, args)]
    if args.format == "json":
        machine.write(machine.replay(str(file), verdicts), sys.stdout)
    else:
        _print_verdicts(file, program, verdicts, few, every=bool(args.revision))
    idle = [verdict.revision.label for verdict in verdicts if not verdict.happened]
    if idle:
        return _complain(f"{file}: nothing was executed on {', '.join(idle)}", NOT_JUDGED)
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
        # not read_text(), which would take a lone carriage return for the end of a line
        program = parse(file.read_bytes().decode(), str(file))
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not a UTF-8 text (byte {error.start})") from None
    except ProgramError as error:
        raise BadInput(str(error)) from None
    _check_expectations(program, file)
    _check_patches(program, file)
    return program


def _check_expectations(program: Program, file: Path) -> None:
    """An `expect:` line that names what does not exist would never fail, or always; so would contradicting ones."""
    from xfdfuzz.engines.replay import contradiction
    from xfdfuzz.invariants.core import INVARIANTS
    from xfdfuzz.revisions import RevisionError, names, selects

    for expectation in program.expect:
        place, *columns = (f"{file}:{expectation.line}:{column}" for column in expectation.columns)
        try:
            selects(expectation.revisions, names()[0])
        except RevisionError as error:
            raise BadInput(f"{place}: {error}") from None
        for name, column in zip(expectation.invariants, columns, strict=True):
            if name not in INVARIANTS:
                raise BadInput(f"{column}: unknown invariant {name}: see xfdfuzz list invariants")
    found = contradiction(program)
    if found:
        raise BadInput(f"{file}:{found[0].line}:{found[0].columns[0]}: {found[1]}")


def _check_patches(program: Program, file: Path) -> None:
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
