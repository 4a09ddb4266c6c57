"""GitHub Actions: annotations, which are commands on standard output, and a job summary in Markdown."""

from __future__ import annotations

import os
import re
from pathlib import Path

from xfdfuzz.report.console import markdown_table
from xfdfuzz.report.formats.base import Audience, Document
from xfdfuzz.report.formats.ledger import ENDED, EXPIRED, FAILED, GONE, KNOWN, PASSED, SKIPPED, UNSURE, Case, Suite

#: How many errors of a step, and how many warnings, GitHub shows.
ANNOTATIONS = 10
#: A summary of more than 1 MiB is not shown at all.
SUMMARY = 900_000
#: What the message of a command cannot hold but escaped, and what a property cannot; ``%`` comes first.
_MESSAGE = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_MESSAGE, ":": "%3A", ",": "%2C"}
#: The columns of the summary.
_STATES = (FAILED, EXPIRED, UNSURE, KNOWN, GONE, SKIPPED, PASSED)


class GitHub(Document):
    """The summary goes to the file, annotations to standard output when the run ends.

    Without a file, the summary goes where GITHUB_STEP_SUMMARY says, if it is set.  Everybody can read both.
    """

    audience = Audience.PUBLIC

    def __init__(self, path: Path | None) -> None:
        step = os.environ.get("GITHUB_STEP_SUMMARY")
        super().__init__(path or (Path(step) if step else None))

    def close(self) -> None:
        """Print the annotations."""
        if self._stale:
            self._update()
        print(self.annotations(), end="", flush=True)

    def annotations(self) -> str:
        """A command a line: an error for what failed, worst first, and a warning for each worker that was lost."""
        errors = [_error(suite, case) for suite, case in self.ledger.cases() if case.bad]
        warnings = [
            _command("warning", note, title=suite.label) for suite in self.ledger.suites for note in suite.notes
        ]
        return "".join(f"{line}\n" for line in [*_limited("error", errors), *_limited("warning", warnings)])

    def text(self) -> str:
        """The summary, cut to what GitHub takes; its last line says how much was left out."""
        shown = [pair for pair in self.ledger.cases() if pair[1].bad or pair[1].state in (KNOWN, GONE)]
        return _fitting(f"{_overview(self.ledger.suites)}\n", [_section(suite, case) for suite, case in shown])


def _limited(level: str, commands: list[str]) -> list[str]:
    """As many as are shown; the last of them says how many more there would be."""
    if len(commands) <= ANNOTATIONS:
        return commands
    more = len(commands) - (ANNOTATIONS - 1)
    return [
        *commands[: ANNOTATIONS - 1],
        _command(level, f"{more} more are in the summary and in the log", title="xfdfuzz"),
    ]


def _error(suite: Suite, case: Case) -> str:
    message = f"{case.message}\n{case.text}".rstrip()
    place = {"file": case.file, "line": "1"} if case.file else {}
    return _command("error", message, **place, title=f"{case.name} on {suite.label}")


def _command(level: str, message: str, **properties: str) -> str:
    """A workflow command: ``::error file=a.xfd,title=...::message``."""
    written = ",".join(f"{name}={_escaped(value, _PROPERTY)}" for name, value in properties.items())
    return f"::{level} {written}::{_escaped(message, _MESSAGE)}"


def _escaped(text: str, characters: dict[str, str]) -> str:
    for character, written in characters.items():
        text = text.replace(character, written)
    return text


def _overview(suites: list[Suite]) -> str:
    """How many cases there are of each state, a line a suite."""
    counted = [(suite, [case.state for case in suite.cases if case.name != ENDED]) for suite in suites]
    rows = [
        [_code(suite.label), *(str(states.count(state)) for state in _STATES), suite.cases[-1].message or "yes"]
        for suite, states in counted
    ]
    return f"## xfdfuzz\n\n{markdown_table(['revision', *_STATES, ENDED], rows)}\n"


def _section(suite: Suite, case: Case) -> str:
    """A line of what is known; all that is said of the others, folded."""
    title = f"{case.state}: {_code(case.name)} on {_code(suite.label)}"
    if case.state in (KNOWN, GONE):
        return f"\n{title}: {_line(case.message)}\n"
    severity = f" ({case.severity})" if case.severity else ""
    file = f"\n\n{_code(case.file)}" if case.file else ""
    body = f"\n\n{_block(case.text)}" if case.text else ""
    return f"\n### {title}{severity}\n\n{_line(case.message)}{file}{body}\n"


def _fitting(head: str, sections: list[str]) -> str:
    """As many sections as there is room for, and how many there was none for."""
    text, size = [head], len(head.encode(errors="replace"))
    for nr, section in enumerate(sections):
        size += len(section.encode(errors="replace"))
        if size > SUMMARY - 1000:
            return "".join([*text, f"\n{len(sections) - nr} more do not fit in here.\n"])
        text.append(section)
    return "".join(text)


def _code(text: str) -> str:
    """On one line, in more backticks than there are in a row inside."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if "`" in text else ""
    return f"{fence}{padding}{' '.join(text.split())}{padding}{fence}"


def _block(text: str) -> str:
    fence = "`" * (3 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def _line(text: str) -> str:
    """A message on one line, none of it taken for Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(text.split()))
