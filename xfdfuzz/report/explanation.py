"""What a name means: an invariant or its bucket, a goal, an op, a scope, a patch, a revision or a label of one."""

from __future__ import annotations

import difflib
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from xfdfuzz.invariants.sometimes import GOALS
from xfdfuzz.invariants.vocabulary import INVARIANTS
from xfdfuzz.program.ops import OPS
from xfdfuzz.report import listing
from xfdfuzz.report.console import line, prose
from xfdfuzz.report.listing import Row
from xfdfuzz.revisions import ALIASES, PATCHES, names, resolve
from xfdfuzz.revisions.commits import is_meant
from xfdfuzz.revisions.left_out import left_out
from xfdfuzz.revisions.releases import release_of
from xfdfuzz.revisions.table import is_known, named

#: How many of several things are shown, so that all of it fits a screen.
_MOST = 6
#: How long they may be to stand in one line.
_SHORT = 66


@dataclass(frozen=True)
class Explanation:
    """One meaning: of which kind, a line that says what it is, why or how in sentences, and facts by their names."""

    kind: str
    name: str
    summary: str
    doc: str
    facts: Mapping[str, str | list[str]]


def explain(name: str, programs: Callable[[str], list[str]]) -> list[Explanation]:
    """All meanings of a name; none if it has none.  ``programs`` gives files that break an invariant.

    Raises RevisionError for a label whose patches do not fit.
    """
    found = [_FROM_ROW[kind](row) for kind in _FROM_ROW for row in listing.KINDS[kind](None) if _is(row, name)]
    invariant = next((e for e in found if e.kind == "invariant"), None)
    if invariant:
        found[found.index(invariant)] = _with(invariant, "broken by", programs(invariant.name))
    return [*found, *_left_out(name), *_revision(name)]


def _is(row: Row, name: str) -> bool:
    """Whether it has that name, as it is, as that of a bucket's invariant, or as a commit of six digits or more."""
    if "commit" in row:
        commit = str(row["commit"])
        return commit == name or (re.fullmatch(r"[0-9a-f]{6,40}", name) is not None and is_meant(commit, name))
    if "line" in row and name in _words(row):
        return True
    return row["name"] == name or (row["name"] == name.partition("@")[0] and "severity" in row)


def _words(row: Row) -> set[str]:
    """By what an op is called in a program: the words of its line that not many others have."""
    common = Counter(word for other in listing.ops(None) for word in _of_line(other))
    return {word for word in _of_line(row) if common[word] <= _MOST}


def _of_line(row: Row) -> set[str]:
    return set(re.findall(r"\w+", re.sub(r"<\w+>", "", str(row["line"]))))


def known_names() -> list[str]:
    """Everything that can be explained, but for labels and buckets."""
    rows = (row for kind in _FROM_ROW for row in listing.KINDS[kind](None))
    words = (word for row in listing.ops(None) for word in sorted(_words(row)))
    return [*(str(row.get("commit") or row["name"]) for row in rows), *words, *names(), *ALIASES]


def near(name: str) -> list[str]:
    """Names that may have been meant."""
    lower = {known.lower(): known for known in known_names()}
    return [lower[one] for one in difflib.get_close_matches(name.lower(), lower, 3, 0.6)]


# -- by kind -----------------------------------------------------------------------------------------------------------


def _invariant(row: Row) -> Explanation:
    excluded = [f"not {name}" for name in row["excluded"]]
    facts: dict[str, str | list[str]] = {
        "applies to": [*(row["revisions"] or ["all revisions"]), *excluded],
        "source": row["references"],
    }
    return Explanation("invariant", str(row["name"]), f"severity {row['severity']}", str(row["doc"]), facts)


def _goal(row: Row) -> Explanation:
    facts = {"after": row["ops"], "needs": row["needs"]}
    return Explanation("goal", str(row["name"]), f"about {row['area']}", str(row["doc"]), facts)


def _op(row: Row) -> Explanation:
    cls = OPS[str(row["name"])]
    facts: dict[str, str | list[str]] = {
        "results": row["results"],
        "judged by": [inv.name for inv in INVARIANTS.values() if cls in inv.ops],
        "goals": [goal.name for goal in GOALS.values() if cls in goal.ops],
    }
    return Explanation("op", str(row["name"]), str(row["line"]), str(row["doc"]).replace("``", ""), facts)


def _scope(row: Row) -> Explanation:
    doc = f"It leaves out: {row['leaves out']}." if row["leaves out"] else ""
    return Explanation("scope", str(row["name"]), str(row["summary"]), doc, {"ops": row["ops"]})


def _patch(row: Row) -> Explanation:
    commit = str(row["commit"])
    having = [name for name in names() if any(p.commit == commit for p in named(name).stack)]
    facts = {
        "since": row["version"] or "nowhere: proposed by this project",
        "fixes": row["fixes"],
        "stable": row["stable"],
        "in": having,
    }
    return Explanation("patch", commit, str(row["title"]), str(row["doc"]), facts)


def _left_out(name: str) -> Iterator[Explanation]:
    """A commit of mainline that is not in the queue on purpose."""
    if one := left_out(name):
        yield Explanation("patch", one.commit, one.title, f"Not in the queue: {one.reason}.", {"since": one.version})


#: By the kind of a list, what a row of it says.
_FROM_ROW: Mapping[str, Callable[[Row], Explanation]] = {
    "invariants": _invariant,
    "goals": _goal,
    "ops": _op,
    "scopes": _scope,
    "patches": _patch,
}
#: The kinds of `xfdfuzz list` whose names have a meaning here.
EXPLAINED = ("revisions", *_FROM_ROW)


def _revision(name: str) -> Iterator[Explanation]:
    """A revision, an alias or a label; a commit alone is a patch's name."""
    labelled = [f"{known}{sign}" for known in (*names(), *ALIASES, *PATCHES) for sign in "+-"]
    release = release_of(name)
    known = name in (*names(), *ALIASES) or (release is not None and is_known(release.name))
    if not (known or name.startswith(tuple(labelled)) or re.search(r"\.py\b", name)):
        return
    revision = resolve(name)
    about = named(revision.name)
    facts: dict[str, str | list[str]] = {
        "source": revision.source,
        "stands on": about.on,
        "file": str(revision.file or ""),
        "added": list(revision.applied),
        "left out": list(revision.reverted),
        "patches": [f"{p.commit} {p.title}" for p in reversed(revision.patches)],
        "invariants": f"{len(listing.invariants(revision))} apply: xfdfuzz list invariants --revision {name}",
    }
    module = inspect.getmodule(about.base)
    # what a kernel is that patches make of it, they say
    doc = inspect.cleandoc(module.__doc__ or "") if module and not revision.patches else ""
    yield Explanation("revision", revision.label, revision.title, doc, facts)


def _with(explanation: Explanation, name: str, values: list[str]) -> Explanation:
    facts = {**explanation.facts, name: values}
    return Explanation(explanation.kind, explanation.name, explanation.summary, explanation.doc, facts)


# -- shown -------------------------------------------------------------------------------------------------------------


def terminal(out: Console, explanations: Sequence[Explanation]) -> None:
    """A screen of text for each."""
    for nr, one in enumerate(explanations):
        if nr:
            line(out)
        line(out, (one.name, "bold"), f"  {one.kind}: {one.summary}")
        prose(out, " ".join(one.doc.split()))
        for name, value in one.facts.items():
            for head, text in zip((f"{name:11}", *[" " * 11] * _MOST), _few(value), strict=False):
                line(out, f"  {head} {text}")


def _few(value: str | list[str]) -> list[str]:
    """Some of them, and how many more there are; a name alone has no line."""
    if isinstance(value, str):
        return [value] if value else []
    words = ", ".join(value)
    if len(words) <= _SHORT:
        return [words] if words else []
    return value if len(value) <= _MOST else [*value[: _MOST - 1], f"and {len(value) - _MOST + 1} more"]


def as_object(explanation: Explanation) -> dict[str, Any]:
    """One meaning as an object, with all there is."""
    return {
        "kind": explanation.kind,
        "name": explanation.name,
        "summary": explanation.summary,
        "doc": explanation.doc,
        "facts": dict(explanation.facts),
    }
