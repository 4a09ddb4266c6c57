"""Exit codes, and the one line that says what was wrong."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from contextlib import suppress

CLEAN, VIOLATION, BAD_INPUT, NOT_JUDGED, SKIPPED = range(5)

#: What each code says, whatever the command.
MEANINGS: Mapping[int, str] = {
    CLEAN: "clean, or done",
    VIOLATION: "something is wrong with what was looked at",
    BAD_INPUT: "usage or bad input: an unknown revision, commit, scope, invariant or profile, a broken or "
    "contradictory program, an unreadable file or directory, a directory that cannot be saved to, a file that "
    "cannot be written, a file that new or field would overwrite, a relation that is no promise, a name that explain "
    "or field does not know, a missing extra, a broken file or package of invariants or of a series, a broken "
    "recording or frontier",
    NOT_JUDGED: "could not judge: interrupted (with findings, too), workers that do nothing but die, a cluster that "
    "cannot be used, nothing executed or compared, the output could not be written, internal error",
    SKIPPED: "skipped: the mail on standard input (--revision -) belongs to no series that is modelled, user space "
    "does not control what happens in a program (export), or there is no host that programs can be run on (live)",
}
_FOUND = "a violation that is not known, or a known one that has expired"
_UNSAVED = "a finding that could not be saved or that a fresh process does not confirm"
#: What it says of one command.
OF_COMMANDS: Mapping[str, Mapping[int, str]] = {
    "review": {
        CLEAN: "the series breaks nothing that its base does not break, and no WARN in what it changes can fire",
        VIOLATION: "a finding that the base does not have, or a WARN that fires in what the series changes",
        NOT_JUDGED: _UNSAVED,
    },
    "fuzz": {CLEAN: "nothing is broken that is not known", VIOLATION: _FOUND, NOT_JUDGED: _UNSAVED},
    "explore": {
        CLEAN: "nothing can be broken in what was covered",
        VIOLATION: _FOUND,
        NOT_JUDGED: "out of time or memory; a finding that could not be saved",
    },
    "replay": {
        CLEAN: "every expectation holds or, without one, there is no violation",
        VIOLATION: "an expectation that fails, or a violation without one",
    },
    "report": {
        CLEAN: "written",
        VIOLATION: "no mail: it may be a vulnerability of a current kernel",
        NOT_JUDGED: "nothing is executed; nothing is broken (mail)",
    },
    "export": {CLEAN: "written"},
    "matrix": {CLEAN: "every expectation holds", VIOLATION: "an expectation that fails"},
    "bisect": {CLEAN: "found and verified", NOT_JUDGED: "a change that is not found, or cannot be verified"},
    "diff": {CLEAN: "no difference", VIOLATION: "a difference", NOT_JUDGED: _UNSAVED},
    "conform": {
        CLEAN: "nothing different, no violation that is not known",
        VIOLATION: "a difference that is not explained, or a violation that is not known",
    },
    "live": {
        CLEAN: "host and model agree in all that was compared",
        VIOLATION: "they differ",
        NOT_JUDGED: "a program that is refused; a difference not saved, or not seen again",
    },
    "corpus": {
        CLEAN: "added, all checks hold",
        VIOLATION: "a program that is refused, fails a check, or could be pruned in a dry run",
    },
    "baseline": {
        CLEAN: "done; check: all entries show",
        VIOLATION: "check: an entry that does not show, or has expired",
    },
    "field": {CLEAN: "told, whatever it is", NOT_JUDGED: "out of time or memory"},
    "warnings": {CLEAN: "told, whatever it is", NOT_JUDGED: "out of time or memory"},
    "vmm": {CLEAN: "told, whatever it is"},
    "list": {CLEAN: "printed"},
    "explain": {CLEAN: "printed"},
    "new": {CLEAN: "written"},
    "doctor": {CLEAN: "nothing is missing that is needed", NOT_JUDGED: "a package that is missing"},
    "completion": {CLEAN: "printed"},
    "help": {CLEAN: "printed"},
}
#: What holds of all of them.
HIGHEST = "the highest one wins when there are several"


def table() -> str:
    """All of it."""
    parts = ["exit codes:", *_rows(MEANINGS), HIGHEST]
    for command, own in OF_COMMANDS.items():
        parts += ["", f"xfdfuzz {command}:", *_rows(own)]
    return "\n".join([*parts, ""])


def of_command(command: str) -> str:
    """Those of one, in a few lines."""
    rows = _rows(OF_COMMANDS[command])
    return "\n".join(["exit codes:", *rows, "  more: xfdfuzz help exit-codes"])


def _rows(meanings: Mapping[int, str]) -> list[str]:
    return [
        textwrap.fill(text, 78, initial_indent=f"  {code}  ", subsequent_indent="     ", break_on_hyphens=False)
        for code, text in meanings.items()
    ]


class BadInput(Exception):
    """What the user gave cannot be used; as text it is one line that says why."""


class NotModelled(Exception):
    """A mail belongs to no series that is modelled; ``mail`` is its Message-Id."""

    def __init__(self, mail: str) -> None:
        super().__init__(f"no revision models the series of the mail {mail}")
        self.mail = mail


def complain(message: str, code: int) -> int:
    """Print the line; returns ``code``."""
    with suppress(OSError):
        print(f"xfdfuzz: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return code


def reason(error: OSError) -> str:
    """What went wrong, and with which file."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
