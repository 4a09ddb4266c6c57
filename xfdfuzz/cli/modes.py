"""`fuzz --mode`: what a job is about.  A change, all there is, or tidying up what was found."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from xfdfuzz.cli.databases import open_databases, saved_programs
from xfdfuzz.cli.exits import BadInput
from xfdfuzz.cli.saving import saved_in

if TYPE_CHECKING:
    from xfdfuzz.engines.judge.finding import Finding
    from xfdfuzz.engines.search.database import Database
    from xfdfuzz.engines.search.report import Report
    from xfdfuzz.revisions import Revision

#: A search of one revision, to be given a plan and what else there is.
Search = Callable[..., "Report[Finding]"]


def add_mode(command: argparse.ArgumentParser) -> None:
    """The option that says what the job is about."""
    command.add_argument(
        "--mode",
        choices=("search", "change", "batch", "vmm", "prune"),
        default="search",
        help="what the job is about; change: only what the kernel below a series, or a label, does not break in the "
        "same program is new; "
        "batch: begin with what was saved before; vmm: what VMMs do wrong counts, too; "
        "prune: no search, but fewer and plainer programs of what was saved "
        "(default: search)",
    )


def searches(mode: str, revisions: Sequence[Revision]) -> list[tuple[Revision, Search]]:
    """What makes the search of each; raises BadInput where a change has nothing that it changes."""
    if mode != "change":
        from xfdfuzz.engines.search.violations import fuzz

        return [(revision, partial(fuzz, revision, vmms=mode == "vmm")) for revision in revisions]
    from xfdfuzz.engines.search.change import fuzz_change
    from xfdfuzz.revisions import RevisionError, base_of

    try:
        return [(revision, partial(fuzz_change, revision, base_of(revision))) for revision in revisions]
    except RevisionError as error:
        raise BadInput(f"--mode change: {error}") from None


def beginnings(args: argparse.Namespace) -> list[Database]:
    """What a search begins with."""
    saved = [saved_programs(place) for place in saved_in(args.save)] if args.mode == "batch" else []
    return [*saved, *open_databases(args)]


def mode_words(args: argparse.Namespace) -> list[str]:
    """The option as words of a command line, none if it need not be said."""
    return ["--mode", args.mode] if args.mode != "search" else []
