"""What the commands' parsers share: the parser itself, option groups and argument types."""

from __future__ import annotations

import argparse
import random
import re
import sys
import textwrap
from collections.abc import Callable
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from xfdfuzz.cli.examples import EXAMPLES
from xfdfuzz.cli.exits import BAD_INPUT, of_command
from xfdfuzz.engines import ENGINES

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from xfdfuzz.engines.search.plan import Plan

#: So much of a help text fits beside an option.
_LINE = 54
#: The group of the options that many commands have.
COMMON = "more options"
#: Seconds that a user's function may take.
STEP_TIMEOUT = 30.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
_SERVER = r"(?:[\w.-]+|\[[\da-fA-F:.]+\]):\d{1,5}"
_DATABASE = re.compile(rf"redis://{_SERVER}(?:/\d+)?|github://[\w.-]+/[\w.-]+")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}

#: What a command adds its parser to.
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """Tells a usage error in one line, and help that cannot be printed is an error: argparse keeps quiet about it."""

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Print it; raises OSError."""
        (file or sys.stdout).write(self.format_help())

    def format_help(self, whole: bool = False) -> str:
        """What fits a screen; if it is the ``whole``, also the options that many commands have."""
        formatter = self._get_formatter()
        arguments = [action for action in self._actions if not action.option_strings]
        usage = f"{self.prog} [OPTION]..." if self.usage is None else self.usage
        formatter.add_usage(f"{usage} {' '.join(map(_placeholder, arguments))}".rstrip(), [], [])
        formatter.add_text(self.description)
        for group in self._action_groups:
            if group.title == COMMON and not whole:
                names = [action.option_strings[-1] for action in group._group_actions]
                command = self.prog.rpartition(" ")[2]
                text = f"also: {', '.join(names)} (see xfdfuzz help {command})"
                formatter.add_text(textwrap.fill(text, 78, break_on_hyphens=False))
                continue
            formatter.start_section(group.title)
            formatter.add_text(group.description)
            formatter.add_arguments(group._group_actions if whole else map(_shortened, group._group_actions))
            formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def error(self, message: str) -> NoReturn:
        """Print it and exit."""
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _placeholder(action: argparse.Action) -> str:
    """An argument as a usage line has it."""
    name = str(action.metavar or action.dest.upper())
    name = f"[{name}]" if action.nargs in ("?", "*") else name
    return f"{name}..." if action.nargs in ("+", "*", argparse.PARSER) else name


def _shortened(action: argparse.Action) -> argparse.Action:
    """The same with as much of its help as fits a line: what it does, and what is so without it."""
    if action.help is None or len(action.help) <= _LINE:
        return action
    short = copy(action)
    default = re.search(r" \(default: [^()]*\)$", action.help)
    short.help = re.split(r"[;:] | \(default: ", action.help)[0] + (default[0] if default else "")
    return short


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Options and what they do beside each other."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)


class Version(argparse.Action):
    """Looks the version up when it is asked for: that takes longer than parsing."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print it and exit."""
        from importlib import metadata

        try:
            version = metadata.version("xfdfuzz")
        except metadata.PackageNotFoundError:
            version = "unknown"  # run from a checkout
        print(f"xfdfuzz {version}")
        parser.exit()


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    formats: tuple[str, ...] = ("rich", "json"),
) -> argparse.ArgumentParser:
    """A command's parser with the options of every command; ``run`` gives the exit code."""
    command = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(f"{summary[0].upper()}{summary[1:]}.", 78),
        epilog="\n".join(("examples:", *(f"  {line}" for line in EXAMPLES[name]), of_command(name))),
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    command.set_defaults(command=run)
    common = common_options(command)
    common.add_argument("--invariants", action="append", type=Path, default=[], metavar="FILE", help="more invariants")
    common.add_argument(
        "--step-timeout",
        type=seconds,
        default=STEP_TIMEOUT,
        metavar="SECONDS",
        help="how long an invariant of yours, or a series, may take for one step (default: 30)",
    )
    common.add_argument("--format", choices=formats, default=formats[0], help="for people, or JSON lines")
    return command


def common_options(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The group of those that are told in a line: many commands have them, or few people want them."""
    there = next((group for group in command._action_groups if group.title == COMMON), None)
    return there or command.add_argument_group(COMMON)


def add_revisions(command: argparse.ArgumentParser, default: str) -> None:
    """The options that choose the kernels under test; ``default`` says what is taken without them."""
    command.add_argument(
        "--revision",
        action="append",
        default=[],
        metavar="R",
        help="the kernel under test: a name, a label such as v6.12+b45f72177594, a file *.py, or - for that of the "
        f"mail on standard input; repeatable ({default})",
    )
    command.add_argument("--apply", action="append", default=[], metavar="C", help="add the patch with commit C")
    command.add_argument("--revert", action="append", default=[], metavar="C", help="leave the patch with commit C out")


def add_search(command: argparse.ArgumentParser, save: str) -> None:
    """The options of a search: its seed, its end, how long its examples get, what searches, where its results go."""
    command.add_argument(
        "--seed",
        type=seed,
        default=random.SystemRandom().randrange(1 << 32),
        metavar="N",
        help="repeat the run with this seed; date: a new one each day, in UTC (default: random)",
    )
    limit = command.add_mutually_exclusive_group()
    limit.add_argument(
        "--time", type=seconds, default=60.0, metavar="SECONDS", help="how long in all; 90, 10m, 2h (default: 60)"
    )
    limit.add_argument("--examples", type=positive, metavar="N", help="stop after N examples instead")
    more = common_options(command)
    more.add_argument("--steps", type=positive, default=50, metavar="N", help="longest example (default: 50 steps)")
    more.add_argument(
        "--engine",
        choices=ENGINES,
        default="both",
        help="what searches: Hypothesis, the scout, which is faster, or both in turns (default: both)",
    )
    who = more.add_mutually_exclusive_group()
    who.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="processes (default: 1); only one can be repeated"
    )
    who.add_argument(
        "--executor", type=cluster, metavar="dask://HOST:PORT", help="let the workers of that Dask cluster search"
    )
    more.add_argument(
        "--database",
        action="append",
        type=database,
        default=[],
        metavar="DIR|redis://HOST:PORT[/DB]|github://OWNER/REPO",
        help="keep programs there that reach something new, and begin with those of earlier runs; repeatable",
    )
    command.add_argument(
        "--save", type=directory, default=Path(save), metavar="DIR", help=f"where results go (default: {save})"
    )


def add_detail(command: argparse.ArgumentParser, quiet: str, verbose: str) -> None:
    """The options that say how much is told: what is left without the one, and what comes with the other."""
    how_much = command.add_mutually_exclusive_group()
    how_much.add_argument("-q", "--quiet", action="store_true", help=quiet)
    how_much.add_argument("-v", "--verbose", action="store_true", help=verbose)


def add_profile(command: argparse.ArgumentParser) -> None:
    """The options of a command that may take others from a profile."""
    command.add_argument(
        "--profile", metavar="NAME", help="take options from this profile (see xfdfuzz list profiles); those here win"
    )


def add_also(command: argparse.ArgumentParser) -> None:
    """The option that adds to the kernels under test, those of a profile included."""
    command.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="R",
        help="a kernel beside those of --revision, or of the profile; repeatable",
    )


def add_known(command: argparse.ArgumentParser) -> None:
    """The option that names what is no news."""
    command.add_argument(
        "--baseline",
        "--known",
        dest="known",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="FILE|DIR",
        help="what is known: a TOML file, or programs, whose violations are; only others are news; repeatable",
    )


def plan(args: argparse.Namespace) -> Plan:
    """What the options of one search ask for."""
    from xfdfuzz.engines.search.plan import Plan

    return Plan(
        seed=args.seed,
        engine=args.engine,
        steps=args.steps,
        seconds=None if args.examples else args.time,
        examples=args.examples,
        workers=args.workers,
        executor=args.executor,
        step_timeout=args.step_timeout,
    )


def search_options(args: argparse.Namespace) -> list[str]:
    """The options of a search, and the users' invariants, as words of a command line that repeats it."""
    limit = ["--examples", str(args.examples)] if args.examples else ["--time", f"{args.time:g}"]
    files = [word for file in args.invariants for word in ("--invariants", str(file))]
    patience = ["--step-timeout", f"{args.step_timeout:g}"] if args.step_timeout != STEP_TIMEOUT else []
    workers = ["--workers", str(args.workers)] if args.workers > 1 else []
    who = ["--executor", args.executor] if args.executor else workers
    how = [*patience, "--engine", args.engine, *who]
    kept = [word for place in args.database for word in ("--database", place)]
    where = [*kept, "--save", str(args.save), *files]
    return ["--seed", str(args.seed), *limit, "--steps", str(args.steps), *how, *where]


def natural(text: str, lowest: int = 0) -> int:
    """A number from 0 on, or from ``lowest`` on."""
    if not re.fullmatch(r"[0-9]+", text):
        raise argparse.ArgumentTypeError(f"expected a number from {lowest} on, got {text!r}")
    if len(text) > 18:
        raise argparse.ArgumentTypeError(f"expected a number of 18 digits at most, got {len(text)}")
    if int(text) < lowest:
        raise argparse.ArgumentTypeError(f"expected a number from {lowest} on, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A number from 1 on."""
    return natural(text, 1)


def _now() -> datetime:
    return datetime.now(UTC)


def seed(text: str, clock: Callable[[], datetime] = _now) -> int:
    """A number, or ``date``: that of the day by ``clock``, such as 20261129."""
    return int(f"{clock():%Y%m%d}") if text == "date" else natural(text)


def directory(text: str) -> Path:
    """The name of a directory, which need not exist."""
    if not text:  # a script's unset variable, which Path() would take for the current directory
        raise argparse.ArgumentTypeError("expected the name of a directory")
    return Path(text)


def database(text: str) -> str:
    """Where programs are kept: a directory, redis://HOST:PORT[/DB] or github://OWNER/REPO."""
    if "://" not in text:
        directory(text)
    elif not _DATABASE.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"expected a directory, redis://HOST:PORT[/DB] or github://OWNER/REPO, got {text!r}"
        )
    return text


def cluster(text: str) -> str:
    """A cluster's scheduler: dask://HOST:PORT."""
    if not re.fullmatch(rf"dask://{_SERVER}", text):
        raise argparse.ArgumentTypeError(f"expected dask://HOST:PORT, got {text!r}")
    return text


def seconds(text: str) -> float:
    """A duration: 90, 30s, 10m, 2h."""
    match = _DURATION.fullmatch(text)
    duration = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < duration < 1e9:
        raise argparse.ArgumentTypeError(f"expected a duration such as 90, 10m or 2h, got {text!r}")
    return duration
