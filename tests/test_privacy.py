"""What may be a vulnerability of the newest kernel is not shown to everybody (SECURITY.md)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xfdfuzz import cli

OPEN = Path(__file__).parent.parent / "corpus" / "open" / "set-xsave-then-set-msrs-xfd.xfd"
#: A kernel without one cure: what its absence breaks is severe, and found at once.
FUZZ = ("fuzz", "--revision", "v7.3-cured", "--revert", "open-1-clear-unloaded", "--seed", "1", "--engine", "scout")
SECRET = "exc_device_not_available"


def ran(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = cli.main(argv)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("how", [("--private",), ("--output", "gitlab=gitlab.json")], ids=" ".join)
def test_a_search_counts_what_it_does_not_show(how: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    reports = ("--output", "junit=junit.xml", "--output", "sarif=one.sarif")
    code, said = ran(capsys, *FUZZ, "--examples", "150", *how, *reports)
    assert code == 1
    private = [*Path("findings/private").glob("*.xfd")]
    assert private
    assert f"{len(private)} finding" in said
    assert "SECURITY.md" in said
    assert SECRET not in said
    # who gets the file of a report is asked for with --private alone; code scanning has readers of its own
    assert (SECRET in Path("junit.xml").read_text()) == (how != ("--private",))
    assert SECRET in Path("one.sarif").read_text()
    assert not [file for file in Path("findings").glob("*.xfd") if "panic" in file.read_text()]


def test_what_is_published_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ran(capsys, *FUZZ, "--examples", "150", "--publish", "--output", "gitlab=gitlab.json")
    assert code == 1
    assert "host-xrstor-never-faults" in said
    assert "host-xrstor-never-faults" in Path("gitlab.json").read_text()
    assert not Path("findings/private").exists()


@pytest.mark.parametrize("style", ["rich", "json"])
def test_a_replay_counts_what_it_does_not_show(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    program = OPEN.read_text()
    Path("one.xfd").write_text("".join(line for line in program.splitlines(True) if not line.startswith("# expect")))
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
