"""The conformance set: every property has programs or a reason, and the page that lists them is true."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from xfdfuzz.engines.judge.verdict import revisions_for
from xfdfuzz.program.text import parse

ROOT = Path(__file__).parent.parent
FILES = sorted(file.name for file in (ROOT / "corpus" / "conformance").glob("*.xfd"))
PAGE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")

PROPERTIES = range(1, 80)


def rows(section: str) -> dict[int, list[str]]:
    """The tables of a part of the page: number -> the cells behind it."""
    lines = [line for line in section.splitlines() if re.match(r"\| \d+ \|", line)]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = {int(first): rest for first, *rest in cells}
    assert len(found) == len(cells), "a number has two rows"
    return found


WITH, WITHOUT = (rows(part) for part in PAGE.split("## Without a program"))


def test_every_property_has_programs_or_a_reason() -> None:
    assert sorted([*WITH, *WITHOUT]) == list(PROPERTIES)
    assert all(reason for _, reason in WITHOUT.values())


@pytest.mark.parametrize("number", sorted(WITH))
def test_the_page_names_the_programs_of_a_property(number: int) -> None:
    patterns = [f"{pattern}.xfd" for pattern in re.findall(r"`([^`]*)`", WITH[number][1])]
    named = {name for name in FILES if any(fnmatch(name, pattern) for pattern in patterns)}
    assert named == {name for name in FILES if name.startswith(f"{number:02}-")}
    assert named


@pytest.mark.parametrize("name", FILES)
def test_a_program_is_filed_under_a_property_that_has_programs(name: str) -> None:
    assert int(name[:2]) in WITH


@pytest.mark.parametrize("name", FILES)
def test_a_program_speaks_of_the_newest_kernel_and_of_every_op(name: str) -> None:
    """What does not hold on v7.3 is said, not left out, and every op has a result to be held against."""
    program = parse((ROOT / "corpus" / "conformance" / name).read_text(encoding="utf-8"), name)
    assert "v7.3" in {revision.name for revision in revisions_for(program)}
    assert [str(op) for op, result in zip(program.ops, program.results, strict=True) if result is None] == []
