"""A collection of programs: what became of each file, and how many there are of what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from xfdfuzz.invariants.vocabulary import INVARIANTS, SEVERITIES
from xfdfuzz.program.program import Program
from xfdfuzz.report.console import line, table
from xfdfuzz.revisions import names, selects

#: What can become of a file, and its style; the first ones are what is asked for.
STYLES = {
    "ok": "green",
    "added": "green",
    "shortened": "yellow",
    "dropped": "yellow",
    "refused": "bold red",
    "FAIL": "bold red",
}


@dataclass(frozen=True)
class Outcome:
    """What became of one file: a word, sentences that say why, and the file that there is now."""

    file: str
    word: str
    reasons: tuple[str, ...] = ()
    saved: str | None = None


def terminal(out: Console, outcome: Outcome) -> None:
    """One line, and one for each further reason."""
    head, where = (f"{outcome.word:9}", STYLES[outcome.word]), f"  {outcome.file}"
    saved = f" -> {outcome.saved}" if outcome.saved else ""
    for reason in outcome.reasons or ("",):
        line(out, head, f"{where}{saved}{': ' if reason else ''}{reason}")


def as_object(outcome: Outcome) -> dict[str, Any]:
    """The same as an object."""
    return {
        "file": outcome.file,
        "outcome": outcome.word.lower(),
        "reasons": list(outcome.reasons),
        "saved": outcome.saved,
    }


@dataclass
class Stats:
    """How many programs say what: by invariant and worst severity that they break, and by revision."""

    programs: int = 0
    invariants: Counter[str] = field(default_factory=Counter)
    severities: Counter[str] = field(default_factory=Counter)
    violate: Counter[str] = field(default_factory=Counter)
    clean: Counter[str] = field(default_factory=Counter)


def stats(programs: Iterable[Program]) -> Stats:
    """By what the `expect:` lines say; nothing is executed."""
    found = Stats()
    for program in programs:
        found.programs += 1
        broken = {name for e in program.expect for name in e.invariants}
        found.invariants.update(broken)
        worst = min((INVARIANTS[name].severity for name in broken), key=SEVERITIES.index, default="none")
        found.severities[worst] += 1
        for kind, counter in (("violates", found.violate), ("clean", found.clean)):
            said = {e.revisions for e in program.expect if e.kind == kind}
            counter.update(name for name in names() if any(selects(spec, name) for spec in said))
    return found


def _rows(found: Stats) -> Mapping[str, Sequence[tuple[str, ...]]]:
    """Each table's rows, in the order of what there is, so that a change shows as that."""
    return {
        "revision": [(name, str(found.violate[name]), str(found.clean[name])) for name in names()],
        "severity": [(name, str(found.severities[name])) for name in (*SEVERITIES, "none") if found.severities[name]],
        "invariant": [(name, str(found.invariants[name])) for name in sorted(found.invariants)],
    }


def stats_terminal(out: Console, found: Stats) -> None:
    """Three tables."""
    line(out, f"{found.programs} programs")
    for name, rows in _rows(found).items():
        line(out)
        table(out, (name, "violate", "clean") if name == "revision" else (name, "programs"), rows)


def stats_as_object(found: Stats) -> dict[str, Any]:
    """The same as an object."""
    return {
        "programs": found.programs,
        "revisions": {name: {"violate": found.violate[name], "clean": found.clean[name]} for name in names()},
        "severities": dict(found.severities),
        "invariants": dict(sorted(found.invariants.items())),
    }
