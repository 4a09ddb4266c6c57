"""`xfdfuzz live`: run programs on this machine's kernel and on the model at once."""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from xfdfuzz.cli.arguments import (
    Commands,
    add_command,
    add_detail,
    common_options,
    directory,
    positive,
    seconds,
    seed,
)
from xfdfuzz.cli.exits import CLEAN, NOT_JUDGED, SKIPPED, VIOLATION, BadInput, complain
from xfdfuzz.cli.inputs import find_programs, load_invariants, read_program, resolve_revisions
from xfdfuzz.cli.saving import Saver

if TYPE_CHECKING:
    from typing import Any

    from xfdfuzz.engines.judge.lockstep import Difference
    from xfdfuzz.engines.live.facts import Facts
    from xfdfuzz.engines.live.fuzz import LiveCampaign
    from xfdfuzz.engines.live.session import Outcome, Session
    from xfdfuzz.engines.search.hunt import Shrunk
    from xfdfuzz.engines.stream.events import Progressed
    from xfdfuzz.program.program import Program


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "live", _live, "run programs on the kernel of this machine beside the model")
    command.add_argument("paths", nargs="*", type=Path, metavar="FILE|DIR", help="a program, or every *.xfd in DIR")
    command.add_argument("--device", default="/dev/kvm", metavar="FILE", help="KVM's device (default: /dev/kvm)")
    command.add_argument("--revision", metavar="R", help="hold the host against this (default: the nearest)")
    command.add_argument("--record", type=directory, metavar="DIR", help="write what the host did, for xfdfuzz conform")
    command.add_argument(
        "--i-own-this-machine",
        action="store_true",
        help="run what may panic or corrupt the host, too; the model says what that is",
    )
    command.add_argument("--fuzz", action="store_true", help="search for differences, instead of running programs")
    limit = command.add_mutually_exclusive_group()
    limit.add_argument(
        "--time", type=seconds, default=60.0, metavar="SECONDS", help="how long in all; 90, 10m, 2h (default: 60)"
    )
    limit.add_argument("--examples", type=positive, metavar="N", help="stop after N examples instead")
    more = common_options(command)
    more.add_argument(
        "--seed",
        type=seed,
        default=random.SystemRandom().randrange(1 << 32),
        metavar="N",
        help="draw the same programs again; date: others each day, in UTC (default: random)",
    )
    more.add_argument(
        "--save", type=directory, default=Path("live"), metavar="DIR", help="where differences go (default: live)"
    )
    more.add_argument("--steps", type=positive, default=60, metavar="N", help="longest example (default: 60 steps)")
    add_detail(command, "nothing but differences and the sum", "each op with what it came to")


def _live(args: argparse.Namespace) -> int:
    from xfdfuzz.engines.live.facts import NoHost, look

    if bool(args.paths) == args.fuzz:
        raise BadInput("live: expected programs, or --fuzz")
    if args.fuzz and args.record:
        raise BadInput("--record is for programs, not for --fuzz")
    load_invariants(args.invariants)
    programs = [(file, read_program(file)) for file in find_programs(args.paths)]
    if args.paths and not programs:
        return complain(f"no *.xfd file below {', '.join(map(str, args.paths))}", NOT_JUDGED)
    try:
        facts = look(args.device)
        session = _session(args, facts)
    except NoHost as error:
        return complain(f"no host to run on: {error}", SKIPPED)
    _tell_host(args, session)
    return _fuzz(args, session) if args.fuzz else _run(args, session, programs)


def _session(args: argparse.Namespace, facts: Facts) -> Session:
    from xfdfuzz.engines.live.facts import NoHost
    from xfdfuzz.engines.live.session import Session
    from xfdfuzz.revisions.releases import release_of
    from xfdfuzz.revisions.table import model_of

    known = release_of(facts.release)
    name = args.revision or (model_of(known) if known else None)
    if name is None:
        raise NoHost(f"Linux {facts.release} is older than anything modelled")
    (revision,) = resolve_revisions([name], [], [])
    return Session.on(args.device, revision, facts, reckless=args.i_own_this_machine)


def _tell_host(args: argparse.Namespace, session: Session) -> None:
    from xfdfuzz.report import live
    from xfdfuzz.report.console import console

    if args.format == "rich" and not args.quiet:
        live.host(console(sys.stdout), session)


# -- programs ----------------------------------------------------------------------------------------------------------


def _run(args: argparse.Namespace, session: Session, programs: list[tuple[Path, Program]]) -> int:
    """Each program, with processes of its own."""
    from xfdfuzz.report import live
    from xfdfuzz.report.console import console, write

    outcomes = []
    for file, program in programs:
        outcomes.append(session.judge(program, str(file)))
        if args.format == "rich":
            live.outcome(console(sys.stdout), outcomes[-1], args.quiet, args.verbose)
    if args.record:
        _record(args.record, session, outcomes)
    if args.format == "json":
        write(live.as_object(session, outcomes), sys.stdout)
    else:
        live.terminal(console(sys.stdout), outcomes)
    return _code(outcomes)


def _code(outcomes: list[Outcome]) -> int:
    from xfdfuzz.engines.live.lockstep import Verdict

    code = VIOLATION if any(one.different for one in outcomes) else CLEAN
    if any(one.refused for one in outcomes):
        text = "refused what may panic or corrupt the host; --i-own-this-machine runs it"
        return complain(text, NOT_JUDGED)
    if not any(one.count(verdict) for one in outcomes for verdict in (Verdict.EQUAL, Verdict.DIFFERENT)):
        return complain("nothing was compared", NOT_JUDGED)
    return code


def _record(folder: Path, session: Session, outcomes: list[Outcome]) -> None:
    """A line for each program, in a file that is named after the kernel."""
    import json

    from xfdfuzz.engines.live.record import recorded
    from xfdfuzz.report.files import check_directory, save_bytes

    lines = [json.dumps(recorded(session, one)) for one in outcomes if one.compared]
    try:
        check_directory(folder)
        name = f"linux-{session.facts.release}.jsonl"
        save_bytes(name, lambda stream: stream.write("".join(f"{line}\n" for line in lines).encode()), folder)
    except OSError as error:
        raise BadInput(f"cannot save to {folder}: {error.strerror}") from None


# -- a search ----------------------------------------------------------------------------------------------------------


def _fuzz(args: argparse.Namespace, session: Session) -> int:
    """Search; every difference is saved before anything is said about it."""
    from xfdfuzz.engines.live.fuzz import fuzz
    from xfdfuzz.engines.search.plan import Plan
    from xfdfuzz.program.text import format_program
    from xfdfuzz.report import live
    from xfdfuzz.report.console import console, write
    from xfdfuzz.report.files import command
    from xfdfuzz.report.progress import Progress, of_search

    out, err = console(sys.stdout), console(sys.stderr, quiet=args.quiet)
    saver: Saver[Any] = Saver(args.save)
    differences: list[tuple[Difference, str]] = []

    def found(shrunk: Shrunk[Difference]) -> None:
        program = replace(shrunk.program, title=f"{shrunk.discovery.bucket}: {shrunk.discovery.message}")
        file = str(saver.save_program(program, f"live-{shrunk.discovery.op}") or "nowhere")
        differences.append((shrunk.discovery, file))
        if args.format == "rich":
            live.found(out, shrunk.discovery, format_program(program), file)

    limit = ["--examples", str(args.examples)] if args.examples else ["--time", f"{args.time:g}"]
    plan = Plan(args.seed, "hypothesis", args.steps, None if args.examples else args.time, args.examples)
    with Progress(err, partial(of_search, noun="difference")) as progress:
        campaign, interrupted = fuzz(session, plan, lambda campaign: progress.take(_progress(campaign)), found)
    if args.format == "json":
        write(live.searched_object(session, campaign, differences), sys.stdout)
    else:
        repeat = command("live", "--fuzz", *limit, "--seed", str(args.seed), "--steps", str(args.steps))
        live.searched(out, session, campaign, len(differences), repeat)
    code = VIOLATION if differences else CLEAN
    doubtful = interrupted or campaign.tally.flaky or any(file == "nowhere" for _, file in differences)
    return NOT_JUDGED if doubtful else code


def _progress(campaign: LiveCampaign) -> Progressed:
    from xfdfuzz.engines.stream.events import Progressed

    stats = campaign.stats
    counts = {"examples": stats.examples, "steps": stats.steps, "pairs": stats.pairs}
    return Progressed("live", stats.seconds, counts, len(campaign.known))
