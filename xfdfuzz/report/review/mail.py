"""The review of a series as a mail: ASCII in 72 columns, each finding with a program that replays."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.review.review import Review
from xfdfuzz.invariants.vocabulary import INVARIANTS, SEVERITIES
from xfdfuzz.kernel.event import Event
from xfdfuzz.program import mail
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_op
from xfdfuzz.report import files
from xfdfuzz.report.console import counted
from xfdfuzz.report.finding import Group, groups
from xfdfuzz.report.mail import headers, version, wrapped
from xfdfuzz.report.privacy import CURRENT, for_everybody, may_be_vulnerable
from xfdfuzz.report.review import parts
from xfdfuzz.report.review.parts import Part

#: So many root findings are told whole, the worst ones; the others are a line each.
WHOLE = 10
#: What stands in place of a line whose program a mail keeps to itself.
_KEPT = "(not told here: SECURITY.md)"


def text(review: Review, repeat: str, *, reported: bool = False) -> str:
    """The mail; ``repeat`` is the command that does the review again.

    What may be a vulnerability of the newest kernel is left out, and said to be, unless it was ``reported``.
    """
    shows = _Shows(review, reported)
    sections = (
        ("1. What it changes", _section(parts.changes(review), shows)),
        ("2. What is broken", "\n\n".join(_broken(review, shows))),
        ("3. Can this WARN fire?", _section(parts.sites(review), shows)),
        ("4. The fields that it writes", _section(parts.lives(review), shows)),
        ("5. What was never reached", _section(parts.unreached(review), shows)),
        ("6. What this says nothing about", _section(parts.silent(review), shows)),
    )
    name = review.revision.label
    whole = "\n\n".join(
        [
            headers(review.revision, f"review of {name}"),
            wrapped(f"{parts.verdict(review)}."),
            wrapped("All of it was seen on a model of the code; nothing ran on hardware. A model can be wrong."),
            *(f"{title}\n{'=' * len(title)}\n\n{told or '  nothing was looked at'}" for title, told in sections),
            f"To do all of this again:\n\n{_command(repeat)}",
            f"Reported-by: xfdfuzz {version()}, seed {review.plan.seed}",
        ]
    )
    return f"{whole}\n".encode("ascii", "backslashreplace").decode()


class _Shows:
    """What may be shown where everybody reads."""

    def __init__(self, review: Review, reported: bool) -> None:
        self._kernels, self._reported = [review.revision, review.base], reported

    def program(self, program: Program) -> bool:
        """Whether nobody learns from it how to break the newest kernel."""
        return self._reported or for_everybody(program, self._kernels)

    def finding(self, found: Finding) -> bool:
        """The same of a finding."""
        return self._reported or not may_be_vulnerable(found)


def _section(said: Iterable[Part], shows: _Shows) -> str:
    return "\n".join(row for one in said for row in _part(one, shows.program))


def _part(one: Part, shown: Callable[[Program], bool]) -> Iterator[str]:
    if one.program is not None and not shown(one.program):
        yield f"{' ' * one.indent}{_KEPT}"
        return
    yield wrapped(one.text, " " * one.indent, " " * (one.indent + 2))
    if one.program is None or not one.whole:
        return
    yield wrapped(" ".join(("machine", *one.program.machine.words())), " " * (one.indent + 7))
    for number, op in enumerate(one.program.ops, 1):
        yield wrapped(f"{number:{one.indent + 4}}  {format_op(op)}", "", " " * (one.indent + 10))


# -- findings ----------------------------------------------------------------------------------------------------------


def _broken(review: Review, shows: _Shows) -> Iterator[str]:
    found = [one for one in review.new if shows.finding(one)]
    told = groups(found, {one: root for one, root in review.roots.items() if one in found and root in found})
    for number, group in enumerate(told[:WHOLE], 1):
        yield from _group(number, group)
    if told[WHOLE:]:
        rows = [_title(number, one) for number, one in enumerate(told[WHOLE:], WHOLE + 1)]
        yield "\n".join(["In short, what is less bad or takes more ops:", "", *rows])
    if review.findings and not review.new:
        yield "  Nothing that the base does not break."
    if review.old:
        yield wrapped(f"{counted(len(review.old), 'finding')} more: {review.base.label} breaks the same.", "  ")
    if len(found) < len(review.new):
        yield wrapped(withheld(len(review.new) - len(found)), "  ")


def withheld(count: int) -> str:
    """What is said instead of so many findings."""
    return (
        f"{counted(count, 'finding')} not told here: {CURRENT} may have the same. SECURITY.md says whom to write to "
        "first; --i-have-reported-it tells all."
    )


def _title(number: int, group: Group) -> str:
    """The worst of what follows is said where it is worse than what it follows from."""
    here, worst = group.root.violation.severity, SEVERITIES[group.rank[0]]
    then = f", then {worst}" if worst != here else ""
    return wrapped(f"{number}. {group.root.bucket} ({here}{then})", "", "   ")


def _group(number: int, group: Group) -> Iterator[str]:
    found = group.root
    name = files.file_name(found)
    yield _title(number, group)
    reports = _reports(found)
    said = found.violation.message
    for event in reports:  # which stand below
        said = said.replace(" <- ".join(event.trace), event.trace[0])
    yield wrapped(f"{said}.", "   ")
    yield wrapped(INVARIANTS[found.violation.invariant].doc, "   ")
    if reports:
        yield "\n".join(["   Call trace:", *_traces(reports)])
    yield f"{mail.ABOVE} {name}\n{mail.folded(files.text(found))}{mail.BELOW}"
    yield f"   To see it again:\n\n{_command(_replay(found, name))}"
    if group.consequences:
        rows = [wrapped(one.bucket, "     ") for one in group.consequences]
        yield "\n".join(["   What follows from it:", *rows])


def _replay(found: Finding, name: str) -> str:
    """The command for whoever has the program in a file of that name."""
    series = ["--revision", found.revision.file.name] if found.revision.file else []
    return shlex.join(["xfdfuzz", "replay", name, *series])


def _reports(found: Finding) -> list[Event]:
    """What the kernel reported at the op that shows it."""
    for item in judge(found.program, found.revision, expectations=False).trace:
        if any(one.bucket == found.bucket for one in item.violations):
            return item.step.defects if item.step else []
    return []


def _traces(reports: Sequence[Event]) -> Iterator[str]:
    for event in reports:
        yield f"     {event.kind} in {event.trace[0]}"
        yield from (f"       {function}" for function in event.trace[1:])


def _command(command: str) -> str:
    """In lines that a shell reads as one."""
    rows = textwrap.wrap(command, mail.WIDTH - 9, break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(f"     {'  ' if nr else ''}{row}" for nr, row in enumerate(rows))
