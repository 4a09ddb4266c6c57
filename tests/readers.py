"""Reports read back, each by the program that it is for, or by its schema; for the tests that make some."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import junitparser

from xfdfuzz.engines.stream.events import Event
from xfdfuzz.report.formats.jsonl import read


def junit(text: str) -> dict[str, dict[str, Any]]:
    """Suite -> case -> what stands in it, as junitparser reads it; None for a case that passed."""
    suites: dict[str, dict[str, Any]] = {}
    for suite in junitparser.JUnitXml.fromstring(text.encode()):
        cases = {case.name: next(iter(case.result), None) for case in suite}
        kinds = [type(result) for result in cases.values()]
        counts = [kinds.count(kind) for kind in (junitparser.Failure, junitparser.Error, junitparser.Skipped)]
        assert [suite.tests, suite.failures, suite.errors, suite.skipped] == [len(cases), *counts]
        suites[suite.name] = cases
    return suites


_RESULT = re.compile(r"(?P<not>not )?ok (?P<nr>\d+) (?P<name>[^#]+?)(?: # (?P<directive>XFAIL|SKIP) .+)?")


def ktap(text: str) -> dict[str, dict[str, str]]:
    """Suite -> case -> ``ok``, ``not ok`` or the directive, by the grammar of Documentation/dev-tools/ktap.rst."""
    version, plan, *lines = text.splitlines()
    assert version == "KTAP version 1"
    suites: dict[str, dict[str, str]] = {}
    cases: list[str] = []
    for line in lines:
        if not line.startswith("  "):
            result = parsed(line)
            (header,) = re.findall(
                r"^  KTAP version 1\n  # Subtest: (.*)\n  1\.\.(\d+)$", "\n".join(cases[:3]), re.MULTILINE
            )
            assert header == (result["name"], str(sum(not case.startswith("  #") for case in cases[3:])))
            inner = [parsed(case[2:]) for case in cases[3:] if not case.startswith("  #")]
            assert [one["nr"] for one in inner] == [str(nr) for nr in range(1, len(inner) + 1)]
            assert bool(result["not"]) == any(one["not"] for one in inner)
            suites[result["name"]] = {one["name"]: one["directive"] or f"{one['not'] or ''}ok" for one in inner}
            cases = []
        else:
            cases.append(line)
    assert not cases
    assert plan == (f"1..{len(suites)}" if suites else "1..0 # SKIP nothing has begun yet")
    return suites


def parsed(line: str) -> dict[str, str]:
    result = _RESULT.fullmatch(line)
    assert result, line
    return result.groupdict()


SCHEMA = json.loads((Path(__file__).parent / "data" / "sarif-2.1.0.schema.json").read_text())


def sarif(text: str) -> dict[str, Any]:
    """Label -> run, of a log that OASIS' schema accepts."""
    log = json.loads(text)
    jsonschema.Draft4Validator(SCHEMA).validate(log)
    return {run["automationDetails"]["id"]: run for run in log["runs"]}


def github(text: str) -> None:
    """A summary that is shown, whose blocks of code are closed."""
    assert text.startswith("## xfdfuzz\n")
    assert len(text.encode()) < 900_000
    fences = re.findall(r"^(```+)$", text, re.MULTILINE)
    assert fences[::2] == fences[1::2]


#: What https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format says.
CODE_QUALITY = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["description", "check_name", "fingerprint", "location", "severity"],
        "properties": {
            "description": {"type": "string"},
            "check_name": {"type": "string"},
            "fingerprint": {"type": "string"},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "pattern": "^(?!\\./|/)"},
                    "lines": {
                        "type": "object",
                        "required": ["begin"],
                        "properties": {"begin": {"type": "integer"}},
                    },
                },
            },
        },
    },
}


def gitlab(text: str) -> list[dict[str, Any]]:
    """The issues, of an array that is as documented and has no fingerprint twice."""
    issues: list[dict[str, Any]] = json.loads(text)
    jsonschema.Draft4Validator(CODE_QUALITY).validate(issues)
    assert len({issue["fingerprint"] for issue in issues}) == len(issues)
    return issues


def jsonl(text: str) -> list[Event]:
    """The events of a report whose last line has an end."""
    assert text.endswith("\n")
    return list(read(text))


def b4_answer(text: str) -> dict[str, str]:
    answer: dict[str, str] = json.loads(text)
    assert answer.keys() == {"tool", "status", "summary", "url", "details"}
    assert answer["status"] in ("pass", "warn", "fail")
    return answer


def check(name: str, text: str) -> None:
    """That the text is a whole report in that format; the tests of each say what is in it."""
    {
        "junit": junit,
        "ktap": ktap,
        "sarif": sarif,
        "github": github,
        "gitlab": gitlab,
        "jsonl": jsonl,
        "b4": b4_answer,
    }[name](text)
