"""SARIF 2.1.0, which code-scanning services read: a run for each search, a result for each bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from xfdfuzz.engines.judge.finding import Discrepancy, Finding
from xfdfuzz.engines.judge.verdict import Judged
from xfdfuzz.engines.stream.events import Outcome
from xfdfuzz.invariants.vocabulary import INVARIANTS, invariant_of
from xfdfuzz.program.text import format_op, parse
from xfdfuzz.report import files, trace
from xfdfuzz.report.formats.base import Audience, Document
from xfdfuzz.report.formats.ledger import ENDED, EXPIRED, KNOWN, Case, Suite
from xfdfuzz.report.privacy import SEVERE
from xfdfuzz.revisions.sources import Sources

#: A JSON object.
Object = dict[str, Any]

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
#: The name under which a bucket is compared with those of other runs; it changes when buckets mean something else.
_FINGERPRINT = "xfdfuzzBucket/v1"
#: What is no invariant, but can be broken: the rule of a program's verdict, and that of each difference.
_EXPECTATION, _DIFFERENCE = "expectation", "difference"
#: What was known before; all else is new.  What is gone is no result: code scanning would show one that is ``absent``.
_BASELINE = {KNOWN: "unchanged", EXPIRED: "unchanged"}


class Sarif(Document):
    """The log.  What passed is not in it; what was known before is suppressed.

    Code scanning shows it to those who may write to the project.
    """

    audience = Audience.TRUSTED

    def __init__(self, path: Path | None) -> None:
        super().__init__(path)
        self._version = metadata.version("xfdfuzz")

    def text(self) -> str:
        """The document."""
        runs = [self._run(suite) for suite in self.ledger.suites]
        return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": runs}, indent=1) + "\n"

    def _run(self, suite: Suite) -> Object:
        shown = [case for case in suite.cases if case.name != ENDED and (case.bad or case.state in _BASELINE)]
        rules = list(dict.fromkeys(_rule_of(case) for case in shown))
        driver = {"name": "xfdfuzz", "version": self._version, "rules": [_rule(name) for name in rules]}
        return {
            "tool": {"driver": driver},
            "automationDetails": {"id": f"xfdfuzz/{suite.label}/"},
            "invocations": [_invocation(suite)],
            "results": [_result(suite, case) for case in shown],
            "properties": {"options": {name: str(value) for name, value in suite.options.items()}},
        }


def _invocation(suite: Suite) -> Object:
    ending = suite.cases[-1]
    notes = [{"level": "warning", "message": {"text": note}} for note in suite.notes]
    if ending.bad:
        notes.append({"level": "error", "message": {"text": "\n".join([ending.message, *suite.doubts])}})
    return {"executionSuccessful": not ending.bad, "toolExecutionNotifications": notes}


def _rule_of(case: Case) -> str:
    if isinstance(case.outcome, Finding):
        return case.outcome.violation.invariant
    if isinstance(case.outcome, Discrepancy):
        return _DIFFERENCE
    # a known bucket is only its name
    return invariant_of(case.name) if case.state in _BASELINE else _EXPECTATION


def _rule(name: str) -> Object:
    invariant = INVARIANTS.get(name)
    if invariant is None:
        return {"id": name}
    text = " ".join(invariant.doc.split())
    return {
        "id": name,
        "shortDescription": {"text": name.replace("-", " ")},
        "fullDescription": {"text": text},
        "defaultConfiguration": {"level": _level(invariant.severity)},
        "properties": {"tags": [invariant.severity]},
    }


def _level(severity: str) -> str:
    return "error" if severity in SEVERE else "warning"


def _result(suite: Suite, case: Case) -> Object:
    result: Object = {
        "ruleId": _rule_of(case),
        "level": _level(case.severity),
        "message": {"text": f"{suite.label}: {case.message}"},
        "partialFingerprints": {_FINGERPRINT: case.name},
        "baselineState": _BASELINE.get(case.state, "new"),
        # code scanning refuses a log with a result that has no place; what is known has no file of this run
        "locations": [{"physicalLocation": _place(case.file or suite.label)} | _functions(case)],
        "properties": {"state": case.state, "text": case.text},
    }
    if case.state == KNOWN:
        result["suppressions"] = [{"kind": "external", "justification": case.message}]
    if isinstance(case.outcome, Finding):
        result["codeFlows"] = [_flow(case, case.outcome)]
    return result


def _place(file: str, line: int = 1) -> Object:
    """A line of a file, whose name is relative to where the command runs unless it is absolute."""
    uri = Path(file).as_uri() if Path(file).is_absolute() else quote(Path(file).as_posix())
    return {"artifactLocation": {"uri": uri}, "region": {"startLine": line}}


def _functions(case: Case) -> Object:
    """The kernel functions that the trace names, with their files where the model says one."""
    if not isinstance(case.outcome, Finding):
        return {}
    sources = Sources(case.outcome.revision)
    found = []
    for name in trace.functions(case.trace):
        file = sources[name].file if name in sources else None
        found.append({"name": name, "kind": "function", "fullyQualifiedName": f"{file}:{name}" if file else name})
    return {"logicalLocations": found} if found else {}


def _flow(case: Case, outcome: Finding) -> Object:
    """The program as a thread flow for each actor; the order of execution goes across them."""
    lines = parse(files.text(outcome)).lines
    flows: dict[str, list[Object]] = {}
    for item in case.trace:
        if item.step is None:
            continue
        op, number = format_op(item.step.op), item.step.number
        place = {"physicalLocation": _place(case.file, lines[number - 1])} if case.file else {}
        flows.setdefault(op.split()[0], []).append(
            {
                "location": {**place, "message": {"text": "\n".join(_told(op, item))}},
                "executionOrder": number,
                "importance": "essential" if _shows(item, outcome) else "important",
            }
        )
    return {"threadFlows": [{"id": actor, "locations": steps} for actor, steps in flows.items()]}


def _told(op: str, item: Judged) -> Iterator[str]:
    """The op with its result, and what it broke."""
    if item.step is not None:
        yield f"{op} = {item.step.result}"
    for violation in item.violations:
        yield f"{violation.invariant} ({violation.severity}): {violation.message}"


def _shows(item: Judged, outcome: Outcome) -> bool:
    return any(violation.bucket == outcome.bucket for violation in item.violations)
