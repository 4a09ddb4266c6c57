"""Detection: what is measured is a violation that the kernel without the bug does not show."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.detection.__main__ import main
from bench.detection.search import YARDSTICKS, detect, remaining
from bench.detection.subjects import Subject, fixes, known_bugs, open_findings, series
from xfdfuzz.engines import ENGINES
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import PATCHES, PROPOSED, lines, resolve

ROOT = Path(__file__).parent.parent
OVERWRITE = """# xfdfuzz program 1
# expect: v5.17 violates permission-only-grows
# expect: v5.18.. clean
machine cpus=1

t0 arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) = 0
"""


def test_every_fix_of_the_queue_is_a_subject_and_reverts_itself() -> None:
    found = {subject.name: subject for subject in fixes()}
    assert set(found) == {p.commit for p in PATCHES.values() if not p.neutral}
    for commit, subject in found.items():
        having = [p.commit for p in resolve(subject.sound).patches]
        assert [p.commit for p in resolve(subject.broken).patches] == [c for c in having if c != commit]


def test_every_posted_series_is_a_subject() -> None:
    found = {subject.name: subject for subject in series()}
    assert set(lines()[0]) | {"amx-px25"} == set(found)
    for subject in found.values():
        assert "063452fd94d1" in {p.commit for p in resolve(subject.broken).patches}


def test_a_program_is_looked_for_on_the_newest_revision_that_it_breaks() -> None:
    (subject,) = known_bugs([("overwrite", parse(OVERWRITE))])
    assert (subject.broken, subject.sound) == ("v5.17", "v7.3")
    assert {bucket.partition("@")[0] for bucket in subject.buckets} == {"permission-only-grows"}


@pytest.mark.parametrize("engine", [*ENGINES, *YARDSTICKS])
def test_a_reverted_fix_is_detected_and_an_applied_one_is_not(engine: str) -> None:
    broken, sound = "v5.16", "v5.16+063452fd94d1"
    found = detect(Subject("fix", "overwrite", "", broken, sound), engine, 1, 60)
    assert found.bucket.partition("@")[0] in ("permission-only-grows", "host-features-permitted")
    assert found.examples > 0
    assert not detect(Subject("fix", "nothing", "", sound, sound), engine, 1, 0.5).bucket
    # a kernel without the fix is no control: all that it shows, both show
    assert not detect(Subject("fix", "same", "", broken, broken), engine, 1, 0.5).bucket


def test_the_control_campaign_tells_what_is_still_found() -> None:
    bucket = "permission-only-grows@guest"
    unfixed = Subject("fix", "overwrite", "", "v5.17", "v5.17")
    assert remaining(unfixed, "hypothesis", [bucket, "no-warning@nowhere"], 3) == (bucket,)


def test_a_commit_names_mainline_as_of_that_patch() -> None:
    revision = resolve("781c64bfcb73")
    queue = list(PATCHES)
    assert [p.commit for p in revision.patches] == queue[: queue.index("781c64bfcb73") + 1]
    assert revision.label == "781c64bfcb73"


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["--seeds", "1", "--control", "0", "--workers", "1", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def corpus(tmp_path: Path) -> Sequence[str]:
    (tmp_path / "overwrite.xfd").write_text(OVERWRITE)
    return "--corpus", str(tmp_path)


def test_an_open_finding_is_there_without_its_cure() -> None:
    found = {subject.name: subject for subject in open_findings()}
    assert set(found) == set(PROPOSED)
    subject = found["open-4-exec-frees-fpstate"]
    assert (subject.broken, subject.sound) == ("v7.3-cured-open-4-exec-frees-fpstate", "v7.3-cured")
    assert detect(subject, "scout", 0, 20.0).bucket == "fpstate-reachable@Execve"


def test_the_command_prints_json_rows(capsys: pytest.CaptureFixture[str], corpus: Sequence[str]) -> None:
    code, out, _ = bench(capsys, *corpus, "--only", "overwrite", "--format", "json")
    (row,) = map(json.loads, out.splitlines())
    assert code == 0
    assert (row["name"], row["broken"], row["sound"]) == ("overwrite", "v5.17", "v7.3")
    assert row["searches"][0]["bucket"].startswith("permission-only-grows@")


def test_the_command_prints_markdown(capsys: pytest.CaptureFixture[str], corpus: Sequence[str]) -> None:
    code, out, _ = bench(capsys, *corpus, "--only", "overwrite", "--format", "markdown")
    assert code == 0
    assert "**1 of 1 found" in out
    assert "| overwrite | v5.17 | 1 of 1 |" in out


def test_a_bug_that_is_not_found_is_exit_code_1(capsys: pytest.CaptureFixture[str], corpus: Sequence[str]) -> None:
    # the slowest one to find takes thousands of examples; the search ends with its first
    code, out, _ = bench(capsys, *corpus, "--only", "44eeff9bc467", "--time", "0.001")
    assert code == 1
    assert "0 of 1 found" in out


def test_it_runs_as_a_program_of_its_own(corpus: Sequence[str]) -> None:
    command = [sys.executable, "-m", "bench.detection", "--only", "063452fd94d1", "--seeds", "1", "--control", "0"]
    done = subprocess.run([*command, *corpus, "--workers", "1"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "1 of 1 found" in done.stdout) == (0, True), done.stderr


def test_an_unknown_bug_is_a_usage_error(capsys: pytest.CaptureFixture[str], corpus: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        bench(capsys, *corpus, "--only", "heartbleed")
    assert stop.value.code == 2
    assert "unknown bug heartbleed: expected" in capsys.readouterr().err
