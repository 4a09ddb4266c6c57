"""A search that ended early, as a file: a zip archive of one JSON text and what is too large for it, as plain bytes.

Nothing in it is executed when it is read.
"""

from __future__ import annotations

import json
import zipfile
from array import array
from collections import Counter
from dataclasses import astuple
from pathlib import Path
from typing import IO, Any

from xfdfuzz.engines.explore.expand import Question, expander
from xfdfuzz.engines.explore.liveness import Edge, Edges, Pending
from xfdfuzz.engines.explore.search import Breach, Queued, Search
from xfdfuzz.engines.explore.store import Pieces, Store
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.program.text import format_op

#: What the format is called, and its version.
_FORMAT = "xfdfuzz frontier 5"
#: The plain members of a search that are kept as they are.
_COUNTS = ("depth", "transitions", "seconds", "stopped")


class FrontierError(Exception):
    """A file that a search cannot be continued from; as text it is what is wrong with it."""


def write(search: Search, stream: IO[bytes]) -> None:
    """Write everything that the search knows."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("search.json", json.dumps(_about(search)))
        for name, data in _members(search).items():
            archive.writestr(name, data)


def read(file: Path, session: str) -> Search:
    """A search to continue under another session; raises OSError and FrontierError."""
    try:
        with zipfile.ZipFile(file) as archive:
            about = json.loads(archive.read("search.json"))
            members = {name: archive.read(name) for name in archive.namelist()}
            return _search(about, members, session)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise FrontierError(f"not a frontier, or a broken one: {error}") from None


def _about(search: Search) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "question": search.question._asdict(),
        "ops": [format_op(op) for op in search.expander.scope.ops],
        "counts": {name: getattr(search, name) for name in _COUNTS},
        "level": len(search.level),
        "coverage": [[op, ret, count] for (op, ret), count in search.coverage.items()],
        "goals": [[count, *names] for names, count in search.goals.items()],
        "breaches": [[b.state, b.op, *_fields(b.violation)] for b in search.breaches.values()],
        "pending": [*search.pending],
        "edges": [[edge.source, edge.op, edge.target, *edge.pending] for edge in search.edges],
        "arcs": search.arcs,
    }


def _fields(violation: Violation) -> list[Any]:
    return list(astuple(violation))


def _members(search: Search) -> dict[str, bytes]:
    queued = [*search.level, *search.following]
    return {
        **search.store.to_bytes(),
        "numbers": array("q", [one.number for one in queued]).tobytes(),
        "packed": b"".join(one.packed for one in queued),
    }


def _search(about: dict[str, Any], members: dict[str, bytes], session: str) -> Search:
    if about["format"] != _FORMAT:
        raise ValueError(f"expected {_FORMAT!r}, got {about['format']!r}")
    fields = about["question"]
    question = Question(**fields | {"invariants": tuple(fields["invariants"]), "session": session})
    own = expander(question)
    if about["ops"] != [format_op(op) for op in own.scope.ops]:
        raise FrontierError(f"the scope {question.scope} has changed since it was written")
    queued = _queued(members, len(own.first))
    level = about["level"]
    search = Search(own, Store.from_bytes(members), queued[:level], queued[level:])
    for name in _COUNTS:
        setattr(search, name, about["counts"][name])
    search.coverage = Counter({(op, ret): count for op, ret, count in about["coverage"]})
    search.goals = Counter({tuple(names): count for count, *names in about["goals"]})
    for state, op, *violation in about["breaches"]:
        breach = Breach(state, op, Violation(*violation))
        search.breaches[breach.violation.kind] = breach
    search.pending = Pending(map(tuple, about["pending"]))
    if len(search.pending) != len(search.store):
        raise ValueError("what is pending is not told of each of its states")
    search.edges = Edges(Edge(source, op, target, tuple(names)) for source, op, target, *names in about["edges"])
    search.arcs = [(source, op, ret, target) for source, op, ret, target in about["arcs"]]
    return search


def _queued(members: dict[str, bytes], size: int) -> list[Queued]:
    numbers = array("q", members["numbers"])
    packed = members["packed"]
    if len(numbers) * size != len(packed):
        raise ValueError("its states have another size than this scope's")
    states = [packed[at : at + size] for at in range(0, len(packed), size)]
    pieces = Pieces()
    return [Queued(number, pieces.of(state)) for number, state in zip(numbers, states, strict=True)]
