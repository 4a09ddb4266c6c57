"""JUnit XML, which nearly every CI system reads: a suite for each revision, a case for each bucket."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from xfdfuzz.report.formats.base import Document
from xfdfuzz.report.formats.ledger import EXPIRED, FAILED, GONE, KNOWN, SKIPPED, UNSURE, Case, Suite

#: What XML 1.0 has no way to hold, not even escaped.
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: The element below a case; one that passed has none.  A known one does not fail the job.
_ELEMENTS = {FAILED: "failure", EXPIRED: "failure", UNSURE: "error", KNOWN: "skipped", SKIPPED: "skipped"}


class JUnit(Document):
    """``<testsuites>``; what was known before, or had nothing to judge, is skipped, what is not sure is an error."""

    def text(self) -> str:
        """The document."""
        root = ElementTree.Element("testsuites", {"name": "xfdfuzz"})
        root.extend(_suite(suite) for suite in self.ledger.suites)
        ElementTree.indent(root)
        return f"<?xml version='1.0' encoding='utf-8'?>\n{ElementTree.tostring(root, encoding='unicode')}\n"


def _suite(suite: Suite) -> ElementTree.Element:
    cases = [_case(suite, case) for case in suite.cases]
    counts = {tag: sum(case.find(tag) is not None for case in cases) for tag in ("failure", "error", "skipped")}
    element = _element(
        "testsuite",
        name=suite.label,
        tests=str(len(cases)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
        time=f"{suite.seconds:.3f}",
    )
    if suite.options:
        properties = ElementTree.SubElement(element, "properties")
        properties.extend(_element("property", name=name, value=str(suite.options[name])) for name in suite.options)
    element.extend(cases)
    if suite.notes:
        element.append(_element("system-err", "\n".join(suite.notes)))
    return element


def _case(suite: Suite, case: Case) -> ElementTree.Element:
    element = _element("testcase", classname=suite.label, name=case.name)
    if case.file:
        element.set("file", _held(case.file))
    if case.state in _ELEMENTS:
        kind = {"type": case.severity or case.state} if case.bad else {}
        element.append(_element(_ELEMENTS[case.state], case.text, message=case.message, **kind))
    if case.state == GONE:
        element.append(_element("system-out", f"{case.message}\n{case.text}"))
    return element


def _element(tag: str, text: str = "", **attributes: str) -> ElementTree.Element:
    element = ElementTree.Element(tag, {name: _held(value) for name, value in attributes.items()})
    element.text = _held(text) or None
    return element


def _held(text: str) -> str:
    """The text with a replacement character for each that XML cannot hold."""
    return _NO_XML.sub("\ufffd", text)
