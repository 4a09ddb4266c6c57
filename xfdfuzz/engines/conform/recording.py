"""Reading recordings: JSON lines, a program each.  The format is described in docs/conform.md."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.extensions import read_file, read_lines
from xfdfuzz.kernel.machine import Machine
from xfdfuzz.program.text import ProgramError, parse

#: What a file with explanations is called; it lies beside the recordings or one folder above.
EXPLANATIONS = "explained.toml"
_VERSION = re.compile(r"v?\d+(\.\d+)+([-+~][\w.+~-]+)?")
_SITE = re.compile(r"; at (\w+);")


class BadRecording(Exception):
    """A file that cannot be used; as text it is ``file:line: what was expected``."""


class Malformed(Exception):
    """Something in an operation that its kind does not have; the text says what was expected."""


class Fields(dict[str, Any]):
    """What an operation resulted in; raises :class:`Malformed` for a field that its kind must have."""

    def __missing__(self, key: str) -> Any:
        raise Malformed(f"result with {key}")


class NoFields(Fields):
    """What stands for the result of the operation in which the host died: nothing was seen, every field is 0."""

    def __missing__(self, key: str) -> Any:
        return 0


@dataclass(frozen=True, slots=True)
class Operation:
    """What the harness was told to do, and what came of it.

    ``result`` is None where it produced none.  ``context`` names the process or thread: a path of ``child``,
    ``thread``, ``clonevm``, ``exec``; ``main`` for the main process.  ``index`` is its place in the recording.
    """

    index: int
    op: str
    args: tuple[str, ...]
    result: Fields | None
    context: str = "main"

    @property
    def text(self) -> str:
        """The operation as the harness was given it."""
        return " ".join((self.op, *self.args))

    @property
    def settings(self) -> dict[str, int]:
        """The ``k=v`` arguments; raises :class:`Malformed`."""
        pairs = (word.split("=", 1) for word in self.args if "=" in word)
        return {key: number(value) for key, value in pairs}

    def number(self, place: int) -> int:
        """The argument at ``place``, a number; raises :class:`Malformed`."""
        if place >= len(self.args):
            raise Malformed(f"{place + 1} arguments")
        return number(self.args[place])


@dataclass(frozen=True, slots=True)
class Recording:
    """One program and its results on one kernel.

    ``panic`` is the index of the operation in which the host died, with ``panic_site``, the function; None if it lived.
    ``by_output``: operations are listed as their results appeared, not in source order.  ``timing_dependent``: results
    depend on when a signal or a thread's turn came.  ``machine`` is what it ran on, None for that of the harness.
    """

    file: str
    line: int
    program: str
    kernel: str
    operations: tuple[Operation, ...]
    panic: int | None = None
    panic_site: str = ""
    by_output: bool = False
    timing_dependent: bool = False
    machine: Machine | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a difference cannot matter: which one, and the reason."""

    kernel: str
    program: str
    op: int
    field: str
    reason: str


def number(text: object) -> int:
    """A number of 64 bits in C syntax, or one that JSON has as such; raises :class:`Malformed`."""
    if isinstance(text, int | str):
        try:
            value = int(str(text), 0)
        except ValueError:
            value = xf.U64_MAX + 1
        if -(1 << 63) <= value <= xf.U64_MAX:
            return value
    shown = repr(text)[:40] if isinstance(text, int | str) else type(text).__name__
    raise Malformed(f"a number of 64 bits instead of {shown}")


def read(file: Path, refuse: Callable[[BadRecording], object] | None = None) -> Iterator[Recording]:
    """The recordings of a file; raises OSError if it cannot be read.

    ``refuse`` gets each line that is none, and reading goes on; without it, the first one is raised.
    """
    for line, text in enumerate(read_lines(file), 1):
        if not text.strip():
            continue
        try:
            recording = _recording(_Place(str(file), line), text)
        except BadRecording as error:
            if refuse is None:
                raise
            refuse(error)
        else:
            yield recording


def explanations(folder: Path) -> list[Explanation]:
    """What is explained for the recordings in ``folder``; raises :class:`BadRecording`."""
    found = []
    for file in (folder.parent / EXPLANATIONS, folder / EXPLANATIONS):
        if not file.is_file():
            continue
        try:
            table = tomllib.loads(read_file(file).decode())
            found += [Explanation(**entry) for entry in table.get("explained", [])]
        except (ValueError, TypeError, AttributeError, RecursionError):
            known = ", ".join(Explanation.__slots__)
            raise BadRecording(f"{file}: expected TOML with [[explained]] tables of {known}") from None
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    file: str
    line: int

    def expected(self, what: str) -> BadRecording:
        return BadRecording(f"{self.file}:{self.line}: expected {what}")


def _recording(place: _Place, text: bytes) -> Recording:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise place.expected("a JSON object") from None
    if not isinstance(value, dict):
        raise place.expected("a JSON object")
    program, kernel, ops, panic = (value.get(key) for key in ("program", "kernel", "ops", "panic"))
    if not isinstance(program, str) or not program:
        raise place.expected("program, a name")
    if not isinstance(kernel, str) or not _VERSION.fullmatch(kernel):
        raise place.expected("kernel, a version such as 6.12.117")
    if not isinstance(ops, list):
        raise place.expected("ops, a list of operations")
    if value.get("order") not in (None, "output"):
        raise place.expected('order, which can only be "output"')
    operations = tuple(_operation(place, index, op) for index, op in enumerate(ops))
    at, site = _panic(place, panic, len(operations))
    by_output = value.get("order") == "output"
    timed = bool(value.get("timing_dependent"))
    machine = _machine(place, value.get("machine"))
    return Recording(place.file, place.line, program, kernel, operations, at, site, by_output, timed, machine)


def _machine(place: _Place, value: object) -> Machine | None:
    """What a program's machine line says behind its first word."""
    if value is None:
        return None
    try:
        return parse(f"# xfdfuzz program 1\nmachine {value}\n").machine
    except ProgramError:
        raise place.expected("machine, the words of a program's machine line") from None


def _operation(place: _Place, index: int, value: object) -> Operation:
    where = f"ops[{index}]"
    if not isinstance(value, dict) or not isinstance(value.get("op"), str):
        raise place.expected(f"{where}, an object with op, args and result")
    args = value.get("args", [])
    if not isinstance(args, list) or not all(isinstance(word, str) for word in args):
        raise place.expected(f"{where}.args, a list of strings")
    result = value.get("result")
    if result is not None and not isinstance(result, dict):
        raise place.expected(f"{where}.result, an object or null")
    context = value.get("context") or "main"
    if not isinstance(context, str):
        raise place.expected(f"{where}.context, a path of child, thread, clonevm and exec")
    fields = None if result is None else Fields(result)
    return Operation(index, value["op"], tuple(args), fields, context)


def _panic(place: _Place, value: object, count: int) -> tuple[int | None, str]:
    if value is None:
        return None, ""
    at = value.get("at") if isinstance(value, dict) else None
    if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < count:
        raise place.expected(f"panic, null or an object with at, from 0 to {count - 1}")
    assert isinstance(value, dict)
    site = _SITE.search(str(value.get("signature", "")))
    return at, site[1] if site else ""
