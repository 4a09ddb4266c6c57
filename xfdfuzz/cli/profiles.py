"""Profiles: the options of a command under a name, in a TOML file of the project's own or in the one of the package.

A profile is turned into words that stand before those of the command line, so its keys are the command's options, with
their types and messages.  Which options there are, and which exclude each other, argparse tells in private attributes
only; nothing else here looks at them.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from xfdfuzz.cli.arguments import Parser
from xfdfuzz.cli.exits import BadInput, reason
from xfdfuzz.extensions import read_file

#: The files of a project, the first one that has profiles, and where their tables stand in them.
FILES = {"xfdfuzz.toml": ("profile",), "pyproject.toml": ("tool", "xfdfuzz", "profile")}
#: The command whose options stand in a profile itself; those of others have a table of their own there.
MAIN = "fuzz"
_SHIPPED = Path(__file__).with_name("profiles.toml")
#: ``R`` is a revision: a file of a series, or a name.
_SERIES = re.compile(r"(.+?\.py)((?:[+-].*)?)")


@dataclass(frozen=True)
class Source:
    """A TOML file with profiles; ``root`` is the table that holds them."""

    file: Path
    root: tuple[str, ...]
    text: str

    @property
    def profiles(self) -> dict[str, Any]:
        """Name -> table; raises BadInput where they are something else."""
        found = _at(tomllib.loads(self.text), self.root)
        if not isinstance(found, dict):
            raise self.error((), f"expected tables [{'.'.join((*self.root, 'NAME'))}]")
        return found

    def error(self, path: Sequence[str], message: str) -> BadInput:
        """Something is wrong with what stands at that path, below ``root``."""
        return BadInput(f"{_shown(self.file)}:{_line(self.text, (*self.root, *path))}: {message}")


class Given(NamedTuple):
    """A key of a profile as words of a command line."""

    action: argparse.Action
    words: list[str]


def with_profile(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    """The command line with the options of the profile that it names; those that it has itself win.

    Which profile it is goes to standard error.  Raises BadInput.
    """
    if not any(word.partition("=")[0] == "--profile" for word in words):
        return words
    verb, takers = words[0], _takers(parser)
    if verb not in takers:
        return words
    wanted = Parser(prog=takers[verb].prog, add_help=False, allow_abbrev=False)
    wanted.add_argument("--profile")
    profile = wanted.parse_known_args(words[1:])[0].profile
    if profile is None:  # the word stands behind --
        return words
    source = _source_of(profile)
    own = _options_in(takers[verb], words[1:])
    options = _options(source, profile, verb, takers)
    with suppress(OSError):
        print(f"profile {profile}: {_shown(source.file)}", file=sys.stderr, flush=True)
    return [verb, *(word for given in options if given.action not in own for word in given.words), *words[1:]]


def rows(parser: argparse.ArgumentParser) -> list[dict[str, str | list[str]]]:
    """A row for each profile and each command that it has options for."""
    takers = _takers(parser)
    return [
        {
            "name": name,
            "command": verb,
            "file": _shown(source.file),
            "options": [word for given in _options(source, name, verb, takers) for word in given.words],
        }
        for name, source in sorted(_all().items())
        for verb in takers
        if _table(source, name, verb, takers)
    ]


# -- files -------------------------------------------------------------------------------------------------------------


def _all() -> dict[str, Source]:
    """The profiles that can be named, each with the file that it stands in."""
    sources = [_read(_SHIPPED, ("profile",)), _nearest()]
    return {name: source for source in sources if source for name in source.profiles}


def _source_of(profile: str) -> Source:
    known = _all()
    if profile not in known:
        near = difflib.get_close_matches(profile, known, 1)
        expected = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(known))}"
        raise BadInput(f"unknown profile {profile}: {expected}")
    return known[profile]


def _nearest() -> Source | None:
    """The file with profiles in the current directory, or in the nearest one above it."""
    here = Path.cwd()
    for directory in (here, *here.parents):
        for name, root in FILES.items():
            if (directory / name).is_file():
                source = _read(directory / name, root)
                if source is not None:
                    return source
    return None


def _read(file: Path, root: tuple[str, ...]) -> Source | None:
    """The file, None if it has no profiles."""
    try:
        text = read_file(file).decode()
        return None if _at(tomllib.loads(text), root) is None else Source(file, root, text)
    except OSError as error:
        raise BadInput(reason(error)) from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{_shown(file)}: not a UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        place = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
        message, line, column = place.groups() if place else (str(error), None, None)
        where = f"{line}:{column}" if line else str(text.count("\n") + 1)
        raise BadInput(f"{_shown(file)}:{where}: {message}") from None


def _at(table: Any, path: Sequence[str]) -> Any:
    """What stands there, None for nothing."""
    for key in path:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _line(text: str, path: Sequence[str]) -> int:
    """The line where that key begins: the first one without which the file does not have it.

    tomllib tells places of syntax errors only, so it is asked what the file has up to each line.
    """
    lines = text.splitlines(keepends=True)
    without = 0
    for number in range(len(lines) + 1):
        with suppress(tomllib.TOMLDecodeError):  # a value goes on in the next line
            if _at(tomllib.loads("".join(lines[:number])), path) is not None:
                break
            without = number
    return without + 1


def _shown(file: Path) -> str:
    """As short as it can be said from here."""
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


# -- options -----------------------------------------------------------------------------------------------------------


def _takers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands that take profiles."""
    (found,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {verb: command for verb, command in found.choices.items() if "--profile" in command._option_string_actions}


def _table(source: Source, profile: str, verb: str, takers: Collection[str]) -> dict[str, Any]:
    """The options of a command in a profile; raises BadInput where they are something else."""
    path = _path(profile, verb)
    found = _at(source.profiles, path)
    if not isinstance(found, dict | None):
        raise source.error(path, f"expected a table [{'.'.join((*source.root, *path))}]")
    others = takers if verb == MAIN else ()
    return {key: value for key, value in (found or {}).items() if key == MAIN or key not in others}


def _path(profile: str, verb: str) -> tuple[str, ...]:
    return (profile,) if verb == MAIN else (profile, verb)


def _options(source: Source, profile: str, verb: str, takers: Mapping[str, argparse.ArgumentParser]) -> list[Given]:
    """The options of a command in a profile, checked as those of a command line are."""
    command, path = takers[verb], _path(profile, verb)
    found: list[Given] = []
    for key, value in _table(source, profile, verb, takers).items():
        action = command._option_string_actions.get(f"--{key}")
        if action is None or key in ("help", "profile"):
            raise source.error((*path, key), f"unrecognized arguments: --{key} (see {command.prog} --help)")
        try:
            words = list(_words(action, f"--{key}", value, source.file.parent))
            _check(command, action, words, found)
        except argparse.ArgumentError as error:
            raise source.error((*path, key), str(error)) from None
        found.append(Given(action, words))
    if not found:
        table = ".".join((*source.root, *path))
        raise source.error((profile,), f"profile {profile} has no options for {verb}: expected some in [{table}]")
    return found


def _check(
    command: argparse.ArgumentParser, action: argparse.Action, words: Sequence[str], before: Sequence[Given]
) -> None:
    """Raise ArgumentError as parsing would."""
    for word in words:
        _, sign, value = word.partition("=")
        if sign:
            command._get_values(action, [value])
    for given in before:
        if given.action in _excluded(command, action):
            raise argparse.ArgumentError(action, f"not allowed with argument {given.action.option_strings[0]}")


def _words(action: argparse.Action, option: str, value: Any, base: Path) -> Iterator[str]:
    """A value as words; paths in it are relative to ``base``.  Raises ArgumentError for a value of another type."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise argparse.ArgumentError(action, f"expected true or false, got {_toml(value)}")
        yield from [option] if value else []
        return
    several = isinstance(action, argparse._AppendAction)
    if isinstance(value, list) and not several:
        raise argparse.ArgumentError(action, "expected one value, got a list")
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise argparse.ArgumentError(action, f"expected a text or a number, got {_toml(one)}")
        yield f"{option}={_placed(str(action.metavar), str(one), base)}"


def _toml(value: Any) -> str:
    """What stands there, as TOML writes or names it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    return repr(value if isinstance(value, str | int | float) else str(value))


def _placed(kind: str, text: str, base: Path) -> str:
    """What names a file, as its option's metavar tells, seen from the current directory."""
    if base == Path.cwd() or not text:
        return text
    if "=" in kind:
        name, _, file = text.partition("=")
        return text if file in ("", "-") else f"{name}={os.path.relpath(base / file)}"
    if kind == "R":
        series = _SERIES.fullmatch(text)
        return os.path.relpath(base / series[1]) + series[2] if series else text
    is_path = ("FILE" in kind or "DIR" in kind) and "://" not in text
    return os.path.relpath(base / text) if is_path else text


def _options_in(command: argparse.ArgumentParser, words: Sequence[str]) -> set[argparse.Action]:
    """The options that a command line has, and those that it excludes."""
    before = words[: words.index("--")] if "--" in words else words
    known = command._option_string_actions
    own = {known[option] for option in (word.partition("=")[0] for word in before) if option in known}
    return own | {other for action in own for other in _excluded(command, action)}


def _excluded(command: argparse.ArgumentParser, action: argparse.Action) -> set[argparse.Action]:
    """The options that must not be given together with one."""
    groups = (group._group_actions for group in command._mutually_exclusive_groups)
    return {other for group in groups if action in group for other in group} - {action}
