"""What programs read: one JSON object a line.  The keys are documented in ``docs/cli.md``; they are only ever added."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TextIO

from xfdfuzz.engines.judge.finding import Finding
from xfdfuzz.engines.judge.verdict import Verdict
from xfdfuzz.engines.search.report import Report
from xfdfuzz.report import findings


def write(value: dict[str, Any], stream: TextIO) -> None:
    """One object, one line; flushed, so that whoever reads a pipe has it now."""
    print(json.dumps(value), file=stream, flush=True)


def campaign(report: Report[Finding]) -> dict[str, Any]:
    """What a fuzz run on one revision did."""
    return {
        "revision": report.label,
        **search(report),
        "engines": {name: effort._asdict() for name, effort in report.stats.engines.items()},
        "findings": [finding(found) for found in report.found],
    }


def search(report: Report[Any]) -> dict[str, Any]:
    """What a search did, whatever it looked for."""
    stats = report.stats
    return {
        "seed": report.plan.seed,
        "examples": stats.examples,
        "steps": stats.steps,
        "seconds": round(stats.seconds, 3),
        "interrupted": report.interrupted,
        "doubts": list(report.doubts),
        "coverage": {op: dict(results) for op, results in stats.coverage.items()},
    }


def finding(found: Finding) -> dict[str, Any]:
    """One finding; ``steps`` is how many ops its program has, ``file`` null if it could not be saved."""
    return {
        "invariant": found.violation.invariant,
        "severity": found.violation.severity,
        "bucket": found.violation.bucket,
        "steps": len(found.program.ops),
        "engine": found.engine,
        "program": findings.text(found),
        "file": None if found.file is None else str(found.file),
    }


def replay(file: str, verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """What one program did on each revision."""
    return {"file": file, "verdicts": {verdict.revision.label: _verdict(verdict) for verdict in verdicts}}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {"violations": list(verdict.broken), "results": list(verdict.results), "expected": verdict.ok}
