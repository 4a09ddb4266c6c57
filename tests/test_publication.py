"""What may be published: SECURITY.md's table of open findings against corpus/open, the README and `make dist`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from ci.unreported import LINE, ROOT, objection, open_findings

OPEN = ROOT / "corpus" / "open"
SECURITY = (ROOT / "SECURITY.md").read_text()
FINDINGS = open_findings(SECURITY)
UNREPORTED = any(finding.reported is None for finding in FINDINGS)


def rows(page: str, header: str) -> list[tuple[str, str]]:
    """The first two cells of each row of a table."""
    body = (ROOT / page).read_text().partition(f"\n| {header}")[2].split("\n\n")[0]
    return [(cells[1].strip(), cells[2].strip()) for line in body.splitlines()[2:] if (cells := line.split("|"))]


def test_every_open_finding_has_its_row() -> None:
    explained = rows("docs/fidelity.md", "| finding | severity |")
    assert rows("SECURITY.md", "| finding | programs") == explained
    assert [str(finding.number) for finding in FINDINGS] == [number for number, _ in explained]
    assert [number for number, _ in rows("docs/fidelity.md", "| seen | not seen |")] == [n for n, _ in explained]


def test_every_program_of_corpus_open_is_of_one_finding() -> None:
    named = [file.name for finding in FINDINGS for pattern in finding.programs for file in OPEN.glob(pattern)]
    assert sorted(named) == sorted(file.name for file in OPEN.glob("*.xfd"))
    assert all(list(OPEN.glob(pattern)) for finding in FINDINGS for pattern in finding.programs)


def test_the_readme_says_at_its_top_whether_the_tree_is_private() -> None:
    said = objection(ROOT)
    assert said.startswith(LINE) == UNREPORTED
    assert "README.md" not in said


def test_a_table_that_cannot_be_read_is_told() -> None:
    with pytest.raises(ValueError, match="expected a table"):
        open_findings("# Security\n")
    with pytest.raises(ValueError, match=r"`no` or a day such as 2026-01-31: \| 1 "):
        open_findings(re.sub(r"\| (no|[\d-]+) \|$", "| soon |", SECURITY, flags=re.MULTILINE))


# -- make dist ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The tree, with a finding that is not reported, and the line."""
    left_out = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", "traces", "bench", "dist", "findings")
    shutil.copytree(ROOT, tmp_path / "tree", symlinks=True, ignore=left_out)
    if not UNREPORTED:
        edit(tmp_path / "tree" / "SECURITY.md", r"\| [\d-]+ \|$", "| no |")
        edit(tmp_path / "tree" / "README.md", r"\A(.*\n)", rf"\1\n{LINE}\n")
    return tmp_path / "tree"


def edit(file: Path, pattern: str, replacement: str) -> None:
    file.write_text(re.sub(pattern, replacement, file.read_text(), flags=re.MULTILINE))


def make_dist(tree: Path) -> subprocess.CompletedProcess[str]:
    """With what is installed here."""
    installed = Path(sys.prefix)
    command = ["make", "-o", str(installed / ".installed"), f"VENV={installed}", "dist"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


def test_make_dist_refuses_what_is_private_and_builds_what_is_not(copy: Path) -> None:
    refused = make_dist(copy)
    assert refused.returncode
    assert refused.stderr.splitlines()[0] == LINE
    edit(copy / "SECURITY.md", r"\| no \|$", "| 2026-12-24 |")
    line_left = make_dist(copy)
    assert line_left.returncode
    assert line_left.stderr.startswith("README.md: every finding is reported")
    assert not (copy / "dist").exists()
    edit(copy / "README.md", rf"^{re.escape(LINE)}\n\n", "")
    built = make_dist(copy)
    assert built.returncode == 0, built.stderr
    (wheel,), (source,) = ((copy / "dist").glob(pattern) for pattern in ("*.whl", "*.tar.gz"))
    assert "xfdfuzz/corpus/open/exec-leaks-fpstate.xfd" in zipfile.ZipFile(wheel).namelist()
    with tarfile.open(source) as archive:
        assert any(name.endswith("/SECURITY.md") for name in archive.getnames())


def test_the_line_may_not_be_missing(copy: Path) -> None:
    edit(copy / "README.md", rf"^{re.escape(LINE)}\n\n", "")
    assert objection(copy).endswith("README.md: expected this line at its top.")
