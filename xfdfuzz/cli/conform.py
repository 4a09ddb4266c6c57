"""`xfdfuzz conform`: hold recorded results of real kernels against the model."""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import Commands, add_command, add_known, add_revisions
from xfdfuzz.cli.exits import BAD_INPUT, CLEAN, NOT_JUDGED, VIOLATION, complain
from xfdfuzz.cli.inputs import (
    CORPUS,
    find_files,
    find_programs,
    known_on,
    load_invariants,
    read_baseline,
    read_program,
    resolve_names,
    resolve_revisions,
    revision_names,
)
from xfdfuzz.cli.output import Judgements, add_output, text_stream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from xfdfuzz.engines.conform.recording import BadRecording
    from xfdfuzz.engines.conform.score import Score
    from xfdfuzz.revisions import Revision


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "conform", _conform, "hold recorded results of real kernels against the model")
    command.add_argument("paths", nargs="+", type=Path, metavar="FILE|DIR", help="a recording, or every *.jsonl in DIR")
    add_revisions(command, "default: that of the recorded kernel")
    add_known(command)
    add_output(command)


def _conform(args: argparse.Namespace) -> int:
    from xfdfuzz.engines.conform.score import Score
    from xfdfuzz.report import conformance
    from xfdfuzz.report.console import console, write

    load_invariants(args.invariants)
    args.revision = revision_names(args.revision)
    resolve_names(args.revision, args.apply, args.revert)  # tells about an unknown one once, not once a file
    files = find_files(args.paths, ".jsonl")
    if not files:
        return complain(f"no *.jsonl file below {', '.join(map(str, args.paths))}", NOT_JUDGED)
    score, known, code = Score(), _known(args), CLEAN
    with Judgements(args) as reports:
        for file in files:
            for reason in _judge_file(args, file, score, known, reports):
                score.not_judged.append(reason)
                reports.refuse(str(file), reason)
                code = complain(reason, BAD_INPUT)
    counts = score.counts()
    if counts["compared"]:
        if args.format == "json":
            write(conformance.as_object(score), text_stream(args))
        else:
            conformance.terminal(console(text_stream(args)), score)
    elif code == CLEAN:
        code = complain("nothing was compared", NOT_JUDGED)
    return max(code, reports.code, VIOLATION if counts["different"] or score.violations else CLEAN)


def _known(args: argparse.Namespace) -> Callable[[Revision], Collection[str]]:
    """What a revision is known to break: by the corpus, which is read when it is asked for, and by --known."""
    from xfdfuzz.engines.conform.known import known_violations
    from xfdfuzz.report.console import console

    err = console(sys.stderr)
    given = read_baseline(args.known, err)
    corpus = cache(lambda: [read_program(file) for file in find_programs([CORPUS])])
    return cache(lambda revision: known_violations(corpus(), revision) | {*known_on(given, revision, err).reasons})


def _judge_file(
    args: argparse.Namespace,
    file: Path,
    score: Score,
    known: Callable[[Revision], Collection[str]],
    reports: Judgements,
) -> Iterator[str]:
    """Judge its recordings; gives a line for each one that cannot be, or for the file."""
    from xfdfuzz.engines.conform.recording import BadRecording, explanations, read
    from xfdfuzz.engines.conform.score import judge, model_of
    from xfdfuzz.report import conformance

    resolve = cache(lambda name: resolve_revisions([name], args.apply, args.revert)[0])
    refused: list[BadRecording] = []
    try:
        explained = explanations(file.parent)
        for recording in read(file, refused.append):
            yield from _told(refused)
            try:
                revisions = [resolve(name) for name in args.revision or [model_of(recording)]]
                judgements = [(revision, judge(recording, revision, explained, known)) for revision in revisions]
            except BadRecording as error:
                yield str(error)
                continue
            for revision, judgement in judgements:
                score.add(judgement)
                for event in conformance.as_events(judgement):
                    reports.tell(revision, event)
        yield from _told(refused)
    except BadRecording as error:
        yield str(error)
    except OSError as error:
        yield f"{file}: {error.strerror}"


def _told(refused: list[BadRecording]) -> Iterator[str]:
    """What has been refused since the last time."""
    yield from map(str, refused)
    refused.clear()
