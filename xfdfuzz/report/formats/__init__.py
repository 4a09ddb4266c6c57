"""Reports for other programs: each format is a listener of the event stream (docs/formats.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xfdfuzz.report.formats.b4 import B4
from xfdfuzz.report.formats.base import Format
from xfdfuzz.report.formats.github import GitHub
from xfdfuzz.report.formats.gitlab import GitLab
from xfdfuzz.report.formats.jsonl import JsonLines
from xfdfuzz.report.formats.junit import JUnit
from xfdfuzz.report.formats.ktap import Ktap
from xfdfuzz.report.formats.sarif import Sarif

#: Every format by its name.
FORMATS: Mapping[str, type[Format]] = {
    "junit": JUnit,
    "ktap": Ktap,
    "sarif": Sarif,
    "github": GitHub,
    "gitlab": GitLab,
    "jsonl": JsonLines,
    "b4": B4,
}


def open_format(name: str, path: Path | None) -> Format:
    """A new report in the file, or on standard output without one; raises OSError where it cannot be written."""
    report = FORMATS[name](path)
    report.begin()
    return report
