"""Programs in mails: written so that they survive there, and found again in what people make of them.

A program stands between scissors, in lines of 72 columns of which one that ends in a backslash goes on in the next.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from email import message_from_string, policy
from email.message import EmailMessage

from xfdfuzz.program.text import VERSION_LINE

#: Columns of a mail that can be quoted a few times.
WIDTH = 72
#: What stands above a program, in front of its name, and below it.
ABOVE, BELOW = "-- >8 --", "-- 8< --"
_SCISSORS = re.compile(r"-{2,} *(?:>8|8<) *-{2,}.*")
_QUOTES = re.compile(r"(?:> ?)*")
#: How a line of a program begins; any other one was a line's end that a mailer has broken off.
_BEGINS = re.compile(r"#|machine\b|(?:t|v|cpu)\d+ |host |$")


def cut(mail: str) -> str | None:
    """The first program in a mail, or in a mailbox, also if it is quoted; None if there is none."""
    for text in _bodies(mail):
        lines = text.splitlines()
        for nr, line in enumerate(lines):
            quotes, rest = _unquoted(line)
            if rest.rstrip() == VERSION_LINE:
                return "\n".join([*_mended(_inside(lines[nr:], quotes.count(">"))), ""])
    return None


def _bodies(mail: str) -> Iterator[str]:
    """The texts of the mails of a mailbox, decoded; then all of it as it is."""
    for one in re.split(r"^From .*\n", mail, flags=re.MULTILINE):
        message = message_from_string(one, policy=policy.default)
        if isinstance(message, EmailMessage) and message.keys():
            body = message.get_body(("plain",))
            if body is not None:
                yield str(body.get_content())
    yield mail


def _unquoted(line: str) -> tuple[str, str]:
    quotes = _QUOTES.match(line)
    assert quotes is not None
    return quotes[0], line[quotes.end() :]


def _inside(lines: Sequence[str], depth: int) -> Iterator[str]:
    """The lines of the program, without their quotes and without what somebody said between them."""
    for line in lines:
        quotes, rest = _unquoted(line)
        if _SCISSORS.fullmatch(rest.strip()) or (rest in ("-- ", "--") and not depth):
            return
        if quotes.count(">") >= depth:
            yield rest.rstrip()


def _mended(lines: Iterator[str]) -> list[str]:
    """Lines that a mailer has broken are whole again."""
    found: list[str] = []
    for line in lines:
        if found and not found[-1].endswith("\\") and not _BEGINS.match(line):
            found[-1] += f" {line.strip()}"
        else:
            found.append(line)
    while found and not found[-1]:
        found.pop()
    return found


def folded(program: str) -> str:
    """The text of a program in lines that are short enough for a mail."""
    return "\n".join(row for line in program.rstrip("\n").split("\n") for row in _fold(line)) + "\n"


def _fold(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    *rows, last = textwrap.wrap(
        line, WIDTH - 2, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return [*(f"{row} \\" for row in rows), last]
