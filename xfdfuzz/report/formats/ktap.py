"""KTAP, the kernel's own test protocol (Documentation/dev-tools/ktap.rst): a search is a test, a bucket a subtest."""

from __future__ import annotations

from collections.abc import Iterator

from xfdfuzz.report.formats.base import Document
from xfdfuzz.report.formats.ledger import GONE, KNOWN, SKIPPED, Case, Suite

#: Behind the result of what did not simply pass or fail.
_DIRECTIVES = {KNOWN: " # XFAIL", SKIPPED: " # SKIP"}


class Ktap(Document):
    """Version 1.  What was known before is an expected failure, ``ok ... # XFAIL``."""

    def text(self) -> str:
        """The log; every diagnostic stands before the result that it belongs to."""
        suites = self.ledger.suites
        plan = f"1..{len(suites)}" if suites else "1..0 # SKIP nothing has begun yet"
        lines = ["KTAP version 1", plan]
        for number, suite in enumerate(suites, 1):
            lines += _suite(number, suite)
        return "".join(f"{line}\n" for line in lines)


def _suite(number: int, suite: Suite) -> Iterator[str]:
    name, cases = _name(suite.label), suite.cases
    yield "  KTAP version 1"
    yield f"  # Subtest: {name}"
    yield f"  1..{len(cases)}"
    for note in suite.notes:
        yield from _diagnostic(note)
    for nr, case in enumerate(cases, 1):
        if case.bad or case.state == GONE:
            yield from _diagnostic(case.message)
            yield from _diagnostic(case.text)
        yield f"  {_result(nr, case.name, case.bad)}{_directive(case)}"
    yield _result(number, name, any(case.bad for case in cases))


def _result(number: int, name: str, bad: bool) -> str:
    return f"{'not ok' if bad else 'ok'} {number} {_name(name)}"


def _directive(case: Case) -> str:
    return f"{_DIRECTIVES[case.state]} {_line(case.message)}" if case.state in _DIRECTIVES else ""


def _diagnostic(text: str) -> Iterator[str]:
    """Two blanks behind the ``#``, so that none is taken for a ``# Subtest:``."""
    for line in text.splitlines():
        yield f"  #  {_line(line)}".rstrip()


def _name(text: str) -> str:
    """A ``#`` begins a directive, so no name can have one."""
    return " ".join(_line(text).replace("#", "_").split())


def _line(text: str) -> str:
    """What a reader of lines takes for one: it may hold control characters, and others that end lines."""
    return "".join(char if char.isprintable() else " " for char in text)
