"""The text form of programs, one op a line, as strace would write it: ``docs/program-format.md``.

This module knows the file: header, ``machine`` line, results.  What one op looks like is in :mod:`.templates`, its
arguments in :mod:`.codecs`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

from xfdfuzz.arch import xfeatures as xf
from xfdfuzz.arch.processor import NOT_AMD
from xfdfuzz.kernel.machine import MAX_CPUS, Machine
from xfdfuzz.program.codecs import XFEATURES
from xfdfuzz.program.ops import Op
from xfdfuzz.program.program import Expectation, Program
from xfdfuzz.program.syntax import Names, Unreadable, Word, any_of, did_you_mean, read_line, words
from xfdfuzz.program.templates import format_op, recognise, synopsis

__all__ = ["CONTROL", "ProgramError", "format_op", "format_program", "parse", "parse_op", "synopsis"]

#: The first line of every program.
VERSION_LINE = "# xfdfuzz program 1"

#: What would break a line in two for some readers, or make a terminal do something; tabs are white space.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_HEADER = re.compile(r"#\s*(title|expect|apply|revert):")
_NAME = r"\w(?:[\w+~^@/-]|\.(?=\w))*"
_REVISIONS = re.compile(rf"\*|{_NAME}(?:\.\.(?:{_NAME})?)?|\.\.{_NAME}")
_INVARIANT = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_KINDS = ("clean", "violates", "result")
_SWITCHES = {f.name.replace("_", "-"): f.name for f in fields(Machine) if f.name not in ("cpus", "in_use")}
_IN_USE = "in-use="
#: Switches of before, and what they said of ``in-use``.
_IN_USE_BEFORE = {"mpx-in-use": xf.MASK_MPX, "pkru-in-use": xf.MASK_PKRU}
#: A value, or a content, that stands without its brackets behind what was returned, and would never match.
_BARE = re.compile(r"(\S+) (0x[0-9a-fA-F]+|\d+|init|zero|reserved|[a-z]+[0-9.]*:\d+|\w+(?:\|\w+)+)")


class ProgramError(Exception):
    """A program that cannot be read.  As text it is one line, ``file:line:column: what was expected``.

    ``line`` and ``column`` count from 1, and a tab is one column; ``message`` is the part after them.
    """

    def __init__(self, file: str, line: int, column: int, message: str) -> None:
        super().__init__(file, line, column, message)
        self.file = file
        self.line = line
        self.column = column
        self.message = message

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


def parse(text: str, file: str = "<string>") -> Program:
    """Read a program.  ``file`` is its name in messages; raises :class:`ProgramError`."""
    reader = _Reader()
    number = 0
    try:
        for number, line in _lines(text.rstrip(" \t\r\n")):
            _refuse_control(line)
            reader.read(number, line.rstrip())
        return reader.program(number + 1)
    except _Misplaced as error:
        raise ProgramError(file, error.line, error.column, f"expected {error.expected}") from None
    except Unreadable as error:
        raise ProgramError(file, number, error.column, f"expected {error.expected}") from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines with their numbers; one that ends in a backslash goes on in the next, without its indent."""
    begun, first = "", 0
    for number, row in enumerate(text.split("\n"), 1):
        line = row.rstrip("\r")
        if begun:
            line = f"{begun.rstrip()} {line.lstrip()}"
        begun, first = ("", first or number)
        if line.endswith("\\"):
            begun = line[:-1]
            continue
        yield first, line
        first = 0
    if first:
        yield first, begun


def _refuse_control(line: str) -> None:
    found = CONTROL.search(line)
    if found:
        raise Unreadable(found.start() + 1, f"text, not the control character U+{ord(found[0]):04X}")


def parse_op(text: str) -> Op:
    """Read one op, without a result; raises :class:`ProgramError` with ``<string>`` as the file."""
    try:
        line = read_line(text)
        op = recognise(line)
        if line.result is not None:
            raise Unreadable(line.result.column, "no result")
    except Unreadable as error:
        raise ProgramError("<string>", 1, error.column, f"expected {error.expected}") from None
    return op


def format_program(program: Program, results: Sequence[str] | None = None) -> str:
    """The program's text, which :func:`parse` reads back as an equal program.

    ``results``, one per op, are printed instead of the expected ones, if given.  Raises ValueError where the text would
    be read as something else: a title with control characters, a comment that begins with ``expect:``.
    """
    shown = program.results if results is None else results
    notes = list(program.notes)
    body: list[str] = []
    for before, (op, result) in enumerate(zip(program.ops, shown, strict=True)):
        while notes and notes[0][0] <= before:
            body.append(_format_comment(notes.pop(0)[1]))
        body.append(format_op(op) if result is None else f"{format_op(op)} = {_format_result(result)}")
    body += [_format_comment(text) for _, text in notes]
    machine = " ".join(("machine", *program.machine.words()))
    return "\n".join([*_format_header(program), machine, *([""] if body else []), *body, ""])


# -- writing -----------------------------------------------------------------------------------------------------------


def _format_header(program: Program) -> Iterator[str]:
    yield VERSION_LINE
    if program.title:
        yield f"# title: {_one_line(program.title, strip=True)}"
    for expectation in program.expect:
        yield f"# expect: {_one_line(str(expectation), strip=True)}"
    for header, patches in (("apply", program.apply), ("revert", program.revert)):
        yield from (f"# {header}: {_format_patch(patch)}" for patch in patches)
    for comment in program.comments:
        yield _format_comment(comment)


def _format_patch(patch: str) -> str:
    if patch.split() != [patch]:
        raise ValueError(f"not the name of a patch: {patch!r}")
    return _one_line(patch)


def _format_comment(text: str) -> str:
    line = f"# {_one_line(text)}".rstrip()
    if _HEADER.match(line):
        raise ValueError(f"a comment that reads as a header line: {text!r}")
    return line


def _format_result(result: str) -> str:
    if not result or " ".join(result.split()) != result or CONTROL.search(result):
        raise ValueError(f"not a result: {result!r}")
    return result


def _one_line(text: str, strip: bool = False) -> str:
    if CONTROL.search(text) or text.rstrip("\\").rstrip() != text or (strip and text.lstrip() != text):
        raise ValueError(f"control characters or what ends in white space, or \\, cannot be written: {text!r}")
    return text


# -- reading -----------------------------------------------------------------------------------------------------------


class _Misplaced(Unreadable):
    """Something unreadable that shows only after its line."""

    def __init__(self, line: int, column: int, expected: str) -> None:
        super().__init__(column, expected)
        self.line = line


class _Reader:
    """Takes a program's lines, one after another."""

    def __init__(self) -> None:
        self.machine: Machine | None = None
        self.title: str | None = None
        self.expect: list[Expectation] = []
        self.op_numbers: list[tuple[int, Word]] = []
        self.patches: dict[str, list[tuple[str, tuple[int, int]]]] = {"apply": [], "revert": []}
        self.comments: list[str] = []
        self.notes: list[tuple[int, str]] = []
        self.ops: list[Op] = []
        self.results: list[str | None] = []
        self.lines: list[int] = []

    def read(self, number: int, line: str) -> None:
        """Take line ``number``; raises :class:`Unreadable`."""
        text = line.lstrip()
        if number == 1:
            if words(line) != words(VERSION_LINE):
                raise Unreadable(1, f"{VERSION_LINE!r}, the first line of every program")
        elif text.startswith("#"):
            self._comment(number, line)
        elif text.split(maxsplit=1)[:1] == ["machine"]:
            self._machine(line)
        elif text:
            self._op(number, line)

    def program(self, end: int) -> Program:
        """What was read; ``end`` is the line after the last one.  Raises :class:`Unreadable`."""
        if self.machine is None:
            raise _Misplaced(end, 1, "a machine line, such as 'machine cpus=1'")
        for line, word in self.op_numbers:
            if int(word.text) > len(self.ops):
                raise _Misplaced(line, word.column, f"the number of an op, which are {len(self.ops)}")
        return Program(
            machine=self.machine,
            ops=tuple(self.ops),
            results=tuple(self.results),
            title=self.title or "",
            expect=tuple(self.expect),
            apply=tuple(name for name, _ in self.patches["apply"]),
            revert=tuple(name for name, _ in self.patches["revert"]),
            comments=tuple(self.comments),
            notes=tuple(self.notes),
            lines=tuple(self.lines),
            patch_places=tuple(place for named in self.patches.values() for _, place in named),
        )

    def _comment(self, number: int, line: str) -> None:
        start = line.index("#")
        header = _HEADER.match(line, start)
        if header is None:
            text = line[start + 1 :].removeprefix(" ")
            if self.machine is None:
                self.comments.append(text)
            else:
                self.notes.append((len(self.ops), text))
            return
        if self.machine is not None:
            # as a mere comment it would never be judged
            raise Unreadable(start + 1, f"the {header[1]} line above the machine line")
        if header[1] == "title":
            self._title(line, header)
        elif header[1] in self.patches:
            self._patches(header[1], number, line, header.end())
        else:
            self._expect(number, line, header.end())

    def _title(self, line: str, header: re.Match[str]) -> None:
        if self.title is not None:
            raise Unreadable(header.start() + 1, "one title line only")
        self.title = line[header.end() :].strip()

    def _patches(self, header: str, number: int, line: str, start: int) -> None:
        names = words(line, start)
        if not names:
            raise Unreadable(len(line) + 1, "the commit or the name of a patch")
        self.patches[header] += [(word.text, (number, word.column)) for word in names]

    def _expect(self, number: int, line: str, start: int) -> None:
        end = Word("", len(line) + 1)
        remaining = iter(words(line, start))
        revisions, kind = next(remaining, end), next(remaining, end)
        rest = [*remaining, end]
        if not _REVISIONS.fullmatch(revisions.text):
            raise Unreadable(revisions.column, "a revision, or a range: A..B, A.., ..B or *")
        if kind.text not in _KINDS:
            raise Unreadable(kind.column, any_of(list(_KINDS)) + did_you_mean(kind.text, _KINDS))
        if kind.text == "result":
            op, result = _op_result(rest)
            self.op_numbers.append((number, op))
            self.expect.append(
                Expectation(revisions.text, "result", (), int(op.text), result, number, (revisions.column,))
            )
            return
        invariants = _invariants(rest) if kind.text == "violates" else ()
        if kind.text == "clean" and rest[0] is not end:
            raise Unreadable(rest[0].column, "nothing after clean")
        columns = (revisions.column, *(word.column for word in rest[: len(invariants)]))
        self.expect.append(Expectation(revisions.text, kind.text, invariants, line=number, columns=columns))

    def _machine(self, line: str) -> None:
        first, *rest = words(line)
        if self.machine is not None:
            raise Unreadable(first.column, "one machine line only")
        self.machine = _read_machine(rest)

    def _op(self, number: int, line: str) -> None:
        if self.machine is None:
            raise Unreadable(words(line)[0].column, "a machine line above the first op")
        op, result = _read_op(line)
        self.ops.append(op)
        self.results.append(result)
        self.lines.append(number)


@lru_cache(maxsize=4096)
def _read_op(line: str) -> tuple[Op, str | None]:
    """The op of a line and its result; programs have most lines in common."""
    parts = read_line(line)
    return recognise(parts), _result(parts.result.text, parts.result.column) if parts.result else None


def _result(text: str, column: int) -> str:
    """What is expected behind ``=``, as written."""
    if bare := _BARE.fullmatch(text):
        raise Unreadable(column, f"{bare[1]} [{bare[2]}], with the value in brackets")
    return text


def _read_machine(rest: list[Word]) -> Machine:
    """The set-up that the words after ``machine`` describe."""
    cpus = [f"cpus={n}" for n in range(1, MAX_CPUS + 1)]
    found: dict[str, Any] = {}
    in_use: list[Word] = []
    before = 0
    for word in rest:
        switch = word.text.removeprefix("no-")
        if switch in _IN_USE_BEFORE:
            before |= _IN_USE_BEFORE[switch] if switch == word.text else 0
            continue
        if word.text in cpus:
            name, value = "cpus", cpus.index(word.text) + 1
        elif switch in _SWITCHES:
            name, value = _SWITCHES[switch], switch == word.text
        elif word.text.startswith(_IN_USE):
            in_use = _names_behind(word, len(_IN_USE))
            name, value = "in_use", XFEATURES.read(Names(tuple(in_use)))
        elif word.text.startswith("cpus="):
            raise Unreadable(word.column, f"{cpus[0]} to {cpus[-1]}")
        else:
            known = ["cpus=N", "in-use=<mask>", *_SWITCHES, *(f"no-{name}" for name in _SWITCHES)]
            choice = ", ".join(known[: len(_SWITCHES) + 2])
            raise Unreadable(word.column, f"{choice}, or a switch with no-{did_you_mean(word.text, known)}")
        if name in found:
            raise Unreadable(word.column, f"{name.replace('_', '-')} only once")
        found[name] = value
        if found.get("amd") and (wrong := next((one for one in NOT_AMD if found.get(one)), None)):
            raise Unreadable(word.column, f"no-{wrong.replace('_', '-')} beside amd: no processor of AMD's has it")
    machine = Machine(**found)
    if found.get("amx") and not machine.amx:
        why = "Linux does not boot there, as TILECFG alone in XCR0 is #GP"
        column = next(word.column for word in rest if word.text == "amx")
        raise Unreadable(column, f"no-amx where there is no XFD: {why}")
    _check_in_use(machine, in_use, bool(found.get("exact_sse")))
    return replace(machine, in_use=found.get("in_use", 0) | before)


def _names_behind(word: Word, length: int) -> list[Word]:
    """The words that ``|`` joins behind the first characters of a word."""
    found, column = [], word.column + length
    for text in word.text[length:].split("|"):
        found.append(Word(text, column))
        column += len(text) + 1
    return found


def _check_in_use(machine: Machine, components: list[Word], exact_sse: bool) -> None:
    """Refuse what cannot be in use, and what says the contrary of ``exact-sse``."""
    has = machine.user_xfeatures | machine.supervisor_xfeatures
    for word in components:
        mask = XFEATURES.read(Names((word,)))
        if mask & ~has:
            raise Unreadable(word.column, f"a component that the machine has: {xf.format_mask(has)}")
        if mask & xf.MASK_SSE and exact_sse:
            raise Unreadable(word.column, "no sse beside exact-sse, which says that SSE can be initial")


def _invariants(rest: list[Word]) -> tuple[str, ...]:
    """The names after ``violates``, of which there is at least one; ``rest`` ends with the end of the line."""
    *names, end = rest
    for word in names or [end]:
        if not _INVARIANT.fullmatch(word.text):
            raise Unreadable(word.column, "the name of an invariant, such as no-realloc-on-enter")
    return tuple(word.text for word in names)


def _op_result(rest: list[Word]) -> tuple[Word, str]:
    """The op's number and the text in ``4 = -ENXIO``; ``rest`` ends with the end of the line."""
    op = rest[0]
    if not re.fullmatch(r"[1-9][0-9]{0,8}", op.text):
        raise Unreadable(op.column, "the number of an op, counted from 1")
    if rest[1].text != "=":
        raise Unreadable(rest[1].column, "'=' and a result")
    if not rest[2].text:
        raise Unreadable(rest[2].column, "a result")
    return op, _result(" ".join(word.text for word in rest[2:-1]), rest[2].column)
