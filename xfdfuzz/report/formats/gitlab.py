"""GitLab's code quality report: an array of issues, which a merge request shows."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Mapping
from typing import Any

from xfdfuzz.report.formats.base import Audience, Document
from xfdfuzz.report.formats.ledger import ENDED, KNOWN, Case, Suite

#: Severities there; what has none here, a difference or an expectation, is ``minor``.
_SEVERITIES: Mapping[str, str] = {
    "panic": "blocker",
    "corruption": "critical",
    "leak": "critical",
    "warn": "major",
    "abi": "minor",
    "vmm": "minor",
}


class GitLab(Document):
    """What is known is ``info``.  The readers of a project are those of its merge requests."""

    audience = Audience.PUBLIC

    def text(self) -> str:
        """The array."""
        shown = [pair for pair in self.ledger.cases() if pair[1].bad or pair[1].state == KNOWN]
        return json.dumps([_issue(suite, case) for suite, case in shown], indent=1) + "\n"


def _issue(suite: Suite, case: Case) -> dict[str, Any]:
    severity = "info" if case.state == KNOWN else _SEVERITIES.get(case.severity, "minor")
    check = "run" if case.name == ENDED else case.name.split("@")[0]
    # an absolute path is nowhere in the repository, and what has no file is nowhere at all
    path = case.file if case.file and not case.file.startswith("/") else f"xfdfuzz/{suite.label}"
    identity = f"{suite.label}\0{case.name}"
    return {
        "description": f"{suite.label}: {case.state}: {case.name}: {case.message}",
        "check_name": check,
        "fingerprint": hashlib.sha256(identity.encode(errors="replace")).hexdigest(),
        "severity": severity,
        "location": {"path": posixpath.normpath(path), "lines": {"begin": 1}},
    }
