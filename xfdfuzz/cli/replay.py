"""`xfdfuzz replay`: run programs and hold them against what they expect."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command, add_detail, add_revisions
from xfdfuzz.cli.exits import BAD_INPUT, CLEAN, NOT_JUDGED, VIOLATION, BadInput, complain
from xfdfuzz.cli.inputs import STDIN, find_programs, load_invariants, read_program, resolve_names, revision_names
from xfdfuzz.cli.output import Judgements, add_output, is_public, text_stream
from xfdfuzz.cli.stepping import step

if TYPE_CHECKING:
    from xfdfuzz.engines.judge.verdict import Verdict
    from xfdfuzz.program.program import Program
    from xfdfuzz.report.trace import Notes
    from xfdfuzz.revisions import Revision

#: How many files are few enough to print their traces.
FEW = 3


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "replay", _replay, "run programs and hold them against what they expect")
    command.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="FILE|DIR",
        help="a program, every *.xfd below DIR, or - for standard input",
    )
    add_revisions(command, "default: those that the program's expect: lines name, else the newest mainline")
    command.add_argument(
        "--sources", action="store_true", help="say where the kernel functions of call traces stand: file and commit"
    )
    command.add_argument("--step", action="store_true", help="walk through one program in the terminal (extra tui)")
    length = command.add_mutually_exclusive_group()
    length.add_argument("--full", action="store_true", help="unfold traces: every step with all that it changed")
    length.add_argument("--results", action="store_true", help="no states: a line for each op, with its result")
    add_detail(
        command, "no traces, and of several programs what fails only", "all traces: of several programs, of what fails"
    )
    add_output(command)


def _replay(args: argparse.Namespace) -> int:
    if STDIN in args.paths and "-" in args.revision:
        raise BadInput("standard input cannot be both the program and the mail that names a revision")
    args.revision = revision_names(args.revision)
    resolve_names(args.revision, args.apply, args.revert)  # tells about an unknown one once, not once a file
    load_invariants(args.invariants)
    if args.step:
        return step(args)
    files = find_programs(args.paths)
    if not files:
        return complain(f"no *.xfd file below {', '.join(map(str, args.paths))}", NOT_JUDGED)
    code = CLEAN
    told = _Told(args, len(files))
    with Judgements(args) as reports:
        for file in files:
            try:
                code = max(code, _replay_file(args, file, told, reports))
            except BadInput as error:
                reports.refuse(str(file), str(error))
                code = max(code, complain(str(error), BAD_INPUT))
        told.close()
    return max(code, reports.code)


class _Told:
    """What is printed for people: of few programs their traces, of many a line each, and the sum of several last."""

    def __init__(self, args: argparse.Namespace, files: int) -> None:
        self._args = args
        self._files = files
        self._programs = self._verdicts = 0
        self._failed: list[tuple[str, Verdict]] = []
        self._any_trace = False

    def program(self, file: str, program: Program, verdicts: Sequence[Verdict]) -> None:
        """What it came to on each revision."""
        from xfdfuzz.engines.judge.verdict import named_by
        from xfdfuzz.report import verdict
        from xfdfuzz.report.console import console

        self._programs += 1
        self._verdicts += len(verdicts)
        out = console(text_stream(self._args))
        many = self._files > FEW
        good = all(one.ok for one in verdicts)
        if good and many and len(verdicts) > 1 and not (self._args.quiet or self._args.verbose or self._args.results):
            verdict.in_a_line(out, file, verdicts)
            return
        for nr, one in enumerate(verdicts):
            if not one.ok:
                self._failed.append((file, one))
            if not (one.ok and self._args.quiet and self._files > 1):
                traced = self._traced(one, nr)
                self._any_trace |= traced and not self._args.results
                verdict.terminal(out, file, program, one, self._notes(one) if traced else None)
                if one.violations and not (one.ok or many or self._args.quiet):
                    verdict.known(out, program, one)
        if not many and not self._args.quiet:
            verdict.where(out, program, verdicts)
            if not (self._args.revision or named_by(program)):
                verdict.unnamed(out, file, verdicts)

    def _notes(self, one: Verdict) -> Notes:
        from xfdfuzz.report.sources import UNASKED
        from xfdfuzz.report.trace import Notes
        from xfdfuzz.revisions.sources import Sources

        return Notes(
            sources=Sources(one.revision) if self._args.sources else UNASKED,
            full=self._args.full,
            results=self._args.results,
        )

    def _traced(self, one: Verdict, nr: int) -> bool:
        if self._args.results:
            return True
        if self._args.quiet or self._files > FEW:
            return bool(self._args.verbose and not one.ok)
        return bool(not one.ok or self._args.verbose or self._args.revision or nr == 0)

    def close(self) -> None:
        """The sum, where there is anything to sum up, and where it is said what a trace's signs mean."""
        from xfdfuzz.report import notation, verdict
        from xfdfuzz.report.console import console

        if self._any_trace:
            notation.pointer(console(text_stream(self._args)))
        if self._files > 1 and self._args.format == "rich":
            # what can be seen without scrolling is not told twice
            again = self._failed if self._files > FEW and not self._args.quiet else ()
            verdict.total(console(text_stream(self._args)), self._programs, self._verdicts, len(self._failed), again)


def _replay_file(args: argparse.Namespace, file: Path, told: _Told, reports: Judgements) -> int:
    from xfdfuzz.engines.judge.verdict import judge
    from xfdfuzz.report import verdict
    from xfdfuzz.report.console import write
    from xfdfuzz.report.privacy import fails_in_private, not_shown, on_current

    program = read_program(file, args.revision)
    patched = bool(args.apply or args.revert)
    verdicts = [judge(program, r, expectations=not patched) for r in _revisions_for(program, file, args)]
    shown = []
    for one in verdicts:
        event = verdict.as_event(str(file), program, one)
        reports.tell(one.revision, event)
        if not (is_public(args) and fails_in_private(event, on_current([one.revision]))):
            shown.append(one)
    if args.format == "json":
        write(verdict.as_object(str(file), program, shown, args.sources), text_stream(args))
    else:
        told.program(str(file), program, shown)
    if len(shown) < len(verdicts):
        complain(not_shown(len(verdicts) - len(shown)), VIOLATION)
    idle = [one.revision.label for one in verdicts if not one.happened]
    if idle:
        return complain(f"{file}: nothing was executed on {', '.join(idle)}", NOT_JUDGED)
    return CLEAN if all(one.ok for one in verdicts) else VIOLATION


def _revisions_for(program: Program, file: Path, args: argparse.Namespace) -> list[Revision]:
    from xfdfuzz.engines.judge.verdict import revisions_for
    from xfdfuzz.revisions import RevisionError

    try:
        found = revisions_for(program, args.revision, args.apply, args.revert)
    except RevisionError as error:
        raise BadInput(f"{file}: {error}") from None
    return list({revision.label: revision for revision in found}.values())
