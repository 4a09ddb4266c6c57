"""What may be a vulnerability of the newest kernel is not shown to everybody (SECURITY.md)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from xfdfuzz import cli
from xfdfuzz.engines.judge.verdict import judge

OPEN = Path(__file__).parent.parent / "corpus" / "open" / "set-xsave-then-set-msrs-xfd.xfd"
#: A kernel without one cure: what its absence breaks is severe, and the search begins with a program that shows it.
FUZZ = ("fuzz", "--revision", "v7.3-cured", "--revert", "open-1-clear-unloaded", "--seed", "1", "--engine", "scout")
BEGIN = "begin.xfd"
SEARCH = (*FUZZ, "--mode", "batch", "--examples", "60")
SECRET = "exc_device_not_available"


def ran(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = cli.main(argv)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("findings").mkdir()
    Path("findings", BEGIN).write_text(bare(OPEN))


def bare(file: Path) -> str:
    """A program that says nothing of what it does."""
    return "".join(line for line in file.read_text().splitlines(True) if not re.match("# (expect|title)", line))


@pytest.mark.parametrize("how", [("--private",), ("--output", "gitlab=gitlab.json")], ids=" ".join)
def test_a_search_counts_what_it_does_not_show(how: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    reports = ("--output", "junit=junit.xml", "--output", "sarif=one.sarif")
    code, said = ran(capsys, *SEARCH, *how, *reports)
    assert code == 1
    private = [*Path("findings/private").glob("*.xfd")]
    assert private
    assert f"{len(private)} finding" in said
    assert "SECURITY.md" in said
    assert SECRET not in said
    # who gets the file of a report is asked for with --private alone; code scanning has readers of its own
    assert (SECRET in Path("junit.xml").read_text()) == (how != ("--private",))
    assert SECRET in Path("one.sarif").read_text()
    assert not [file for file in Path("findings").glob("*.xfd") if file.name != BEGIN and "panic" in file.read_text()]


def test_what_is_published_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ran(capsys, *SEARCH, "--publish", "--output", "gitlab=gitlab.json")
    assert code == 1
    assert "host-xrstor-never-faults" in said
    assert "host-xrstor-never-faults" in Path("gitlab.json").read_text()
    assert not Path("findings/private").exists()


@pytest.mark.parametrize("style", ["rich", "json"])
def test_a_replay_counts_what_it_does_not_show(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("one.xfd").write_text(bare(OPEN))
    argv = ("replay", "one.xfd", "--revision", "v7.3", "--revision", "v5.17", "--format", style)
    code, said = ran(capsys, *argv)
    assert (code, "host-xrstor-never-faults" in said) == (1, True)
    code, said = ran(capsys, *argv, "--private")
    assert code == 1
    assert "host-xrstor-never-faults" not in said.split("v5.17")[0]
    assert "1 finding is not shown here" in said


def test_an_exploration_counts_what_it_does_not_show(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("explore", "--revision", "v7.3-cured", "--revert", "open-1-clear-unloaded", "--private", "--depth", "9")
    code, said = ran(capsys, *argv, "--format", "json")
    assert code == 1
    result = next(line for line in said.splitlines() if line.startswith("{"))
    assert json.loads(result)["withheld"] > 0
    assert SECRET not in said


def test_it_is_one_or_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ran(capsys, *FUZZ, "--private", "--publish")
    assert code == 2
    assert "not allowed with" in said


def severe_in_database(revision: str = "v7.3-cured-open-1-clear-unloaded") -> tuple[int, int]:
    """How many programs the database has, and how many of them break something severe."""
    kept = [path.read_text() for path in Path("kept").rglob("*") if path.is_file()]
    programs = [text for text in kept if text.startswith("# xfdfuzz program")]
    broken = [judge(text, revision, expectations=False).violations for text in programs]
    return len(programs), sum(any(one.severity in ("panic", "corruption", "leak") for one in found) for found in broken)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_database_has_nothing_that_is_not_shown(workers: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever can read the cache of a public job would find it there: findings, and what reached something as well."""
    code, _ = ran(capsys, *SEARCH, "--private", "--database", "kept", "--workers", workers)
    count, severe = severe_in_database()
    assert (code, severe) == (1, 0)
    assert count > 10


def test_pruning_removes_from_a_database_what_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """As where it was filled before anybody thought of it."""
    ran(capsys, *SEARCH, "--publish", "--database", "kept")
    count, severe = severe_in_database()
    assert severe > 0
    prune = (*FUZZ, "--mode", "prune", "--database", "kept", "--save", "elsewhere")
    ran(capsys, *prune)
    assert severe_in_database()[1] > 0
    ran(capsys, *prune, "--private")
    left, severe = severe_in_database()
    assert (left > 0, severe) == (True, 0)
    assert left < count
