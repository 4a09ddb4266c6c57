"""`xfdfuzz explain`: what a name means."""

from __future__ import annotations

import argparse
import re
import sys

from xfdfuzz.cli.arguments import Commands, add_command
from xfdfuzz.cli.exits import CLEAN, BadInput
from xfdfuzz.cli.inputs import CORPUS, find_programs, load_invariants

#: A commit of git's that no word is: it has a digit.
_COMMIT = re.compile(r"(?=.*[0-9])[0-9a-f]{6,40}")


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(
        commands, "explain", _explain, "say what an invariant, op, patch, revision or other name means"
    )
    command.add_argument(
        "subject", metavar="NAME", help="an invariant or bucket, a goal, op, scope, patch, revision, or label of one"
    )


def _explain(args: argparse.Namespace) -> int:
    from xfdfuzz.revisions import load_entries

    load_entries()
    load_invariants(args.invariants)
    return tell(args, args.subject)


def tell(args: argparse.Namespace, subject: str, kind: str = "") -> int:
    """Print what a name means, or what it means as a name of that kind; raises BadInput for an unknown one."""
    from xfdfuzz.report import explanation
    from xfdfuzz.report.console import console, write
    from xfdfuzz.revisions import RevisionError, find

    try:
        found = [one for one in explanation.explain(subject, _programs) if kind in ("", one.kind)]
        if not found and _COMMIT.fullmatch(subject):
            find(subject)  # says what there is to know of a commit that is no patch here
    except RevisionError as error:
        raise BadInput(str(error)) from None
    if not found:
        near = explanation.near(subject)
        meant = f"did you mean {' or '.join(near)}?" if near else "see xfdfuzz list"
        raise BadInput(f"unknown {kind or 'name'} {subject}: {meant}")
    if args.format == "rich":
        explanation.terminal(console(sys.stdout), found)
        return CLEAN
    for one in found:
        write(explanation.as_object(one), sys.stdout)
    return CLEAN


def _programs(invariant: str) -> list[str]:
    """The programs of the corpus that are expected to break it."""
    said = re.compile(rf"^# expect: .* violates .*(?<!\S){re.escape(invariant)}(?!\S)", re.MULTILINE)
    return [
        f"corpus/{file.relative_to(CORPUS)}"
        for file in find_programs([CORPUS])
        if said.search(file.read_text(encoding="utf-8"))
    ]
