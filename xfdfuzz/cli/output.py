"""`--output FORMAT=FILE`: the reports for other programs that a command writes beside its text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from xfdfuzz.cli.arguments import common_options
from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, SKIPPED, BadInput, complain

if TYPE_CHECKING:
    from xfdfuzz.engines.stream.events import Event, Listener
    from xfdfuzz.report.formats.base import Format
    from xfdfuzz.revisions import Revision

#: What the programs that cannot be judged stand under, and mails.
REFUSED, MAIL = "bad input", "mail"


def add_output(command: argparse.ArgumentParser) -> None:
    """The options of a command that reports."""
    common = common_options(command)
    common.add_argument(
        "--output",
        action="append",
        type=_output,
        default=[],
        metavar="FORMAT=FILE",
        help="also write a report: junit, ktap, sarif, github, gitlab, jsonl, b4; FILE - is stdout; repeatable",
    )
    audience = common.add_mutually_exclusive_group()
    audience.add_argument(
        "--private",
        action="store_true",
        help="count what may be a vulnerability of the newest kernel, and show it in sarif only; so it is with github "
        "and gitlab",
    )
    audience.add_argument("--publish", action="store_true", help="show it all the same")


def _output(text: str) -> tuple[str, Path | None]:
    """A format and its file, None for standard output."""
    from xfdfuzz.report.formats import FORMATS

    name, sign, file = text.partition("=")
    if name not in FORMATS:
        raise argparse.ArgumentTypeError(f"unknown format {name!r}: expected one of {', '.join(FORMATS)}")
    if not sign or not file:
        raise argparse.ArgumentTypeError(f"expected {name}=FILE, or {name}=- for standard output, got {text!r}")
    # what is renamed into the place of a link would leave the file that it leads to as it was
    return name, None if file == "-" else Path(file).resolve()


def outputs(args: argparse.Namespace) -> list[Format]:
    """The reports that were asked for, each in its file already; raises BadInput for one that cannot be written."""
    places: list[Path | None] = [path for _, path in args.output]
    places += [None for name, path in args.output if name == "github" and path]  # its annotations
    for place in places:
        if places.count(place) > 1:
            raise BadInput(f"--output: {place or 'standard output'} is to hold two reports")
    return [_opened(name, path) for name, path in args.output]


def _opened(name: str, path: Path | None) -> Format:
    from xfdfuzz.report.formats import open_format

    if path and path.exists() and not path.is_file():
        kind = "a directory" if path.is_dir() else "not a file"
        raise BadInput(f"cannot write {path}: it is {kind}; expected {name}=FILE, or {name}=- for standard output")
    try:
        return open_format(name, path)
    except OSError as error:
        raise BadInput(f"cannot write {path or error.filename}: {error.strerror}") from None


def text_stream(args: argparse.Namespace) -> TextIO:
    """Where the text for people goes: to standard error if a report has standard output for itself."""
    # GitHub looks for its commands among all that is printed
    return sys.stderr if any(path is None and name != "github" for name, path in args.output) else sys.stdout


def is_public(args: argparse.Namespace) -> bool:
    """Whether those read what is printed from whom a vulnerability is kept: a job's log has the readers of its
    annotations."""
    from xfdfuzz.report.formats import FORMATS
    from xfdfuzz.report.formats.base import Audience

    if args.private or args.publish:
        return bool(args.private)
    return any(FORMATS[name].audience is Audience.PUBLIC for name, _ in args.output)


def listeners(
    args: argparse.Namespace, reports: Sequence[Format], *printing: Listener, place: str = ""
) -> list[Listener]:
    """What prints and the reports, each told no more than is for its readers; ``place`` is where the rest is saved."""
    from xfdfuzz.report.formats.base import Audience
    from xfdfuzz.report.privacy import Discreet

    def told(listener: Listener, audience: Audience) -> Listener:
        trusted = audience is Audience.TRUSTED or (audience is Audience.ASKED and not args.private)
        return listener if trusted or not is_public(args) else Discreet(listener, place)

    # reports first: what was said to somebody stands in every one
    heard = [*((report.take, report.audience) for report in reports), *((one, Audience.PUBLIC) for one in printing)]
    return [told(listener, audience) for listener, audience in heard]


@contextmanager
def closed_on_error(reports: Sequence[Format]) -> Iterator[None]:
    """What is printed at the end is printed, too, where an error ends the command: all that the reports were told."""
    try:
        yield
    except BaseException:
        close(reports)
        raise


def close(reports: Sequence[Format]) -> int:
    """Close them; the exit code says whether all that they were told is written."""
    code = CLEAN
    for report in reports:
        report.close()
        if report.failure:
            code = complain(f"cannot write {report.path}: {report.failure.strerror}", NOT_JUDGED)
    return code


def skip(args: argparse.Namespace, name: str, reason: str) -> int:
    """Say in every report that there was nothing to judge; the exit code."""
    from xfdfuzz.engines.stream.events import Began, Ended, ProgramJudged

    reports = outputs(args) if "output" in args else []  # not every command reports
    for event in (Began(MAIL, (), {}), ProgramJudged(MAIL, name, None, reason), Ended(MAIL, None, interrupted=False)):
        for report in reports:
            report.take(event)
    return max(complain(reason, SKIPPED), close(reports))


class Judgements:
    """Verdicts on programs as a stream of events: those on one revision are one search.

    Use it as a context manager; ``code`` is the exit code of the reports when it is left.  What is left by an exception
    has not ended.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._reports = outputs(args)
        self._listeners = listeners(args, self._reports)
        self._labels: dict[str, None] = {}
        self.code = CLEAN

    def __enter__(self) -> Judgements:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from xfdfuzz.engines.processes.interrupt import PatientInterrupt
        from xfdfuzz.engines.stream.events import Ended

        with PatientInterrupt(everywhere=True):
            for label in self._labels if kind is None else ():
                self._tell_all(Ended(label, None, interrupted=False))
            self.code = close(self._reports)

    def tell(self, revision: Revision, event: Event) -> None:
        """A verdict on that revision, or what it showed that was known."""
        self._tell(event, revision.label, revision)

    def refuse(self, file: str, reason: str) -> None:
        """A file that is no program, or cannot run on the revision asked for."""
        from xfdfuzz.engines.stream.events import ProgramJudged

        self._tell(ProgramJudged(REFUSED, file, False, reason), REFUSED)

    def _tell(self, event: Event, label: str, *revisions: Revision) -> None:
        """Tell all reports before Ctrl-C ends anything."""
        from xfdfuzz.engines.processes.interrupt import PatientInterrupt
        from xfdfuzz.engines.stream.events import Began

        with PatientInterrupt(everywhere=True) as ctrl_c:
            if label not in self._labels:
                self._labels[label] = None
                self._tell_all(Began(label, revisions, {}))
            self._tell_all(event)
        ctrl_c.check()

    def _tell_all(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)
