"""Whether the tree may be published: `python -m ci.unreported`, before a distribution is built.

The table of open findings in SECURITY.md says what the kernel's maintainers have been told.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
HEADER = "| | finding | programs in `corpus/open` | confirmed by runs on real kernels | reported |"
#: What the README says at its top while there is something that they do not have, and what a build of it ends with.
LINE = "This tree holds findings that the kernel's maintainers do not have yet, and has to stay private (SECURITY.md)."


class OpenFinding(NamedTuple):
    """A row: its number, patterns of its files in corpus/open, and the day of the report, None if there is none."""

    number: int
    programs: tuple[str, ...]
    reported: datetime.date | None


def open_findings(security: str) -> list[OpenFinding]:
    """The rows of the table in the text of SECURITY.md; raises ValueError for one that is no such table."""
    _, found, rest = security.partition(f"\n{HEADER}\n")
    if not found:
        raise ValueError(f"SECURITY.md: expected a table with the header {HEADER}")
    return [_row(line) for line in rest.split("\n\n")[0].splitlines()[1:]]


def _row(line: str) -> OpenFinding:
    try:
        number, _, programs, _, reported = (cell.strip() for cell in line.strip("|").split("|"))
        day = None if reported == "no" else datetime.date.fromisoformat(reported)
        return OpenFinding(int(number), tuple(name.strip("`") for name in programs.split()), day)
    except ValueError:
        raise ValueError(
            f"SECURITY.md: expected five cells, the last `no` or a day such as 2026-01-31: {line}"
        ) from None


def objection(root: Path) -> str:
    """Why the tree may not be published, or that its README does not say so; empty if it may."""
    findings = open_findings((root / "SECURITY.md").read_text(encoding="utf-8"))
    kept = [str(finding.number) for finding in findings if finding.reported is None]
    said = LINE in (root / "README.md").read_text(encoding="utf-8").splitlines()[:5]
    if kept:
        missing = "" if said else "\nREADME.md: expected this line at its top."
        return f"{LINE}\nNot reported: {', '.join(kept)}.{missing}"
    return (
        "README.md: every finding is reported, so take out the line that the tree has to stay private." if said else ""
    )


def main() -> int:
    """0 if it may be published, 1 and why if not."""
    try:
        reason = objection(ROOT)
    except ValueError as error:
        reason = str(error)
    if reason:
        print(reason, file=sys.stderr)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
