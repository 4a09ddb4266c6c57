"""What b4 shows beside a series under review: the answer of its `review-series-check-cmd`."""

from __future__ import annotations

import json
from collections import Counter

from xfdfuzz.report.formats.base import Document
from xfdfuzz.report.formats.ledger import EXPIRED, FAILED, GONE, KNOWN, SKIPPED, Case, Suite


class B4(Document):
    """One object: ``fail`` for anything new, ``warn`` for what is not sure.  Its reader is the reviewer alone."""

    def text(self) -> str:
        """The object."""
        cases = list(self.ledger.cases())
        states = {case.state for _, case in cases}
        bad = any(case.bad for _, case in cases) or not cases
        answer = {
            "tool": "xfdfuzz",
            "status": "fail" if states & {FAILED, EXPIRED} else "warn" if bad else "pass",
            "summary": "; ".join(map(_summary, self.ledger.suites)) or "nothing has begun yet",
            "url": next(filter(None, map(_url, self.ledger.suites)), ""),
            "details": "\n\n".join(_detail(suite, case) for suite, case in cases if case.bad),
        }
        return json.dumps(answer) + "\n"


def _summary(suite: Suite) -> str:
    """How many of which severity are new on a revision; what it says itself where there was nothing to judge."""
    new = Counter(case.severity or "failed" for case in suite.cases if case.state == FAILED)
    counts = [f"{count} {severity}" for severity, count in new.items()]
    states = Counter(case.state for case in suite.cases)
    before = [f"{states[state]} {state}" for state in (KNOWN, GONE, EXPIRED) if states[state]]
    parts = [f"new: {', '.join(counts)}" if counts else "nothing new", *before]
    ending = suite.cases[-1]
    if ending.bad:
        parts.append(ending.message)
    skipped = [case.message for case in suite.cases if case.state == SKIPPED]
    if len(skipped) == len(suite.cases) - 1 and skipped:
        parts = skipped
    return f"{suite.label}: {', '.join(parts)}"


def _url(suite: Suite) -> str:
    """The mail that a revision is modelled after."""
    sources = [revision.source for revision in suite.revisions if "@" in revision.source]
    return f"https://lore.kernel.org/r/{sources[0]}/" if sources else ""


def _detail(suite: Suite, case: Case) -> str:
    head = f"{suite.label}: {case.name}{f' ({case.severity})' if case.severity else ''}: {case.message}"
    return f"{head}\n{case.text}".rstrip()
