"""The event stream itself: an object a line, written as the events come, which can be read back (docs/formats.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from xfdfuzz.engines.explore.exploration import Exploration
from xfdfuzz.engines.judge.finding import Discrepancy, Finding
from xfdfuzz.engines.judge.lockstep import Difference, Pair
from xfdfuzz.engines.search.report import Report
from xfdfuzz.engines.stream import events
from xfdfuzz.engines.stream.events import Began, Ended, Event, Found, Outcome, Progressed, Stuck
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.report import campaign, differences, exploration
from xfdfuzz.report.formats.base import Format
from xfdfuzz.revisions import Revision, resolve

#: What the first line says.  A change that a reader has to know of is another version; new keys and events are none.
VERSION = 1
#: Progress is written this often, in seconds of the search.
PAUSE = 1.0

#: A JSON object.
Object = dict[str, Any]


class JsonLines(Format):
    """Appends a line for each event; a line that does not fit on the disk leaves no half of itself behind."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(path)
        self._file: int | None = None
        self._waiting = b""
        self._size = 0
        self._progress: dict[str, float] = {}

    def begin(self) -> None:
        """Write the first line."""
        if self.path:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._put({"format": "xfdfuzz events", "version": VERSION})
        if self.failure:
            raise self.failure

    def take(self, event: Event) -> None:
        """Append its line, but for progress that comes too soon after the last."""
        if isinstance(event, Progressed):
            if event.seconds < self._progress.get(event.label, -PAUSE) + PAUSE:
                return
            self._progress[event.label] = event.seconds
        self._put(as_object(event))

    def close(self) -> None:
        """Try once more what could not be written."""
        if self._file is not None:
            self._flush(self._file)
            os.close(self._file)

    def _put(self, value: Object) -> None:
        if self._file is None:
            print(json.dumps(value), flush=True)
            return
        self._waiting += json.dumps(value).encode() + b"\n"
        self._flush(self._file)

    def _flush(self, file: int) -> None:
        """Write what waits; after a failure the file ends with the last whole line."""
        try:
            written = 0
            while written < len(self._waiting):
                written += os.write(file, self._waiting[written:])
        except OSError as error:
            self.failure = error
            os.ftruncate(file, self._size)
            os.lseek(file, self._size, os.SEEK_SET)
            return
        self.failure = None
        self._size += len(self._waiting)
        self._waiting = b""


def as_object(event: Event) -> Object:
    """What stands in the line of an event: its name, and its fields."""
    fields: Object = {name: getattr(event, name) for name in event.__dataclass_fields__}
    if isinstance(event, Began):
        fields |= {"revisions": [one.address for one in event.revisions], "options": _plain(event.options)}
    elif isinstance(event, Found):
        fields["outcome"] = _outcome(event.outcome)
    elif isinstance(event, Ended):
        fields["result"] = _result(event.result)
    elif isinstance(event, Progressed):
        fields["counts"] = dict(event.counts)
    elif isinstance(event, Stuck):
        fields |= {"program": event.program and format_program(event.program), "file": event.file and str(event.file)}
    return {"event": type(event).__name__, **fields}


def _plain(options: Mapping[str, Any]) -> Object:
    """Options as JSON has them; what it has not, such as a path, as text."""
    return {name: json.loads(json.dumps(value, default=str)) for name, value in options.items()}


def _outcome(outcome: Outcome) -> Object:
    common = {"program": format_program(outcome.program), "file": outcome.file and str(outcome.file)}
    if isinstance(outcome, Finding):
        rest = {"revision": outcome.revision.address, "engine": outcome.engine, "shown": outcome.shown}
        return {"violation": asdict(outcome.violation), **rest, **common}
    assert isinstance(outcome, Discrepancy)
    also = [asdict(other) for other in outcome.also]
    pair = [revision.address for revision in outcome.pair]
    return {"difference": asdict(outcome.difference), "also": also, "pair": pair, **common}


def _result(result: Any) -> Any:
    """What `--format json` says of it."""
    if isinstance(result, Exploration):
        return exploration.as_object(result)
    if isinstance(result, Report):
        return (campaign if len(result.revisions) == 1 else differences).as_object(result)
    return result


def read(text: str) -> Iterator[Event]:
    """The events of a report.  The result of a search comes back as the object that `--format json` has.

    A last line that has no end is left out.  Raises ValueError, with the number of the line, for what is no report of
    this version, and RevisionError for a revision that is not here.
    """
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            return
        try:
            value = json.loads(line)
            if number == 1:
                _check_version(value)
            else:
                yield _event(value)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number}: {error}") from None


def _check_version(value: Object) -> None:
    if value != {"format": "xfdfuzz events", "version": VERSION}:
        raise ValueError(f"expected a report of version {VERSION}")


def _event(value: Object) -> Event:
    fields = dict(value)
    name = fields.pop("event")
    cls = {kind.__name__: kind for kind in events.Event.__args__}[name]
    if cls is Began:
        fields["revisions"] = tuple(map(_revision, fields["revisions"]))
    elif cls is Found:
        fields["outcome"] = _read_outcome(fields["outcome"])
    elif cls is Stuck:
        program, file = fields["program"], fields["file"]
        fields |= {"program": parse(program) if program else None, "file": Path(file) if file else None}
    event: Event = cls(**fields)
    return event


def _read_outcome(value: Object) -> Outcome:
    program, file = parse(value["program"]), Path(value["file"]) if value["file"] else None
    if "violation" in value:
        violation, revision = Violation(**value["violation"]), _revision(value["revision"])
        return Finding(violation, program, revision, file, value["engine"], value["shown"])
    pair = Pair(*map(_revision, value["pair"]))
    also = tuple(Difference(**other) for other in value["also"])
    return Discrepancy(Difference(**value["difference"]), program, pair, also, file)


@cache
def _revision(address: str) -> Revision:
    return resolve(address)
