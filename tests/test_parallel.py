"""Several processes search as one: what each finds counts once, what they execute adds up, Ctrl-C loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from xfdfuzz import cli
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.processes.workers import workers
from xfdfuzz.engines.search import parallel
from xfdfuzz.engines.search.hunt import Shrunk
from xfdfuzz.engines.search.parallel import Recipe, Share, hunt_together
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.violations import campaign_on, fuzz
from xfdfuzz.engines.stream.events import Event, Progressed
from xfdfuzz.invariants.vocabulary import Violation
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import resolve

V517 = partial(campaign_on, "v5.17", ())


def share(search: str, *known: str, recipe: Recipe = V517, examples: int = 200) -> Share:
    """Work for this process."""
    return Share(search, recipe, Plan(7, "scout", seconds=60.0, examples=examples), frozenset(known))


def test_a_share_ends_with_something_found_and_the_next_one_goes_on() -> None:
    first = parallel.take(share("one"))
    bucket, text, engine = next((found.bucket, text, engine) for found, text, engine in first.found)
    assert engine == "scout"
    assert bucket in judge(parse(text), resolve("v5.17"), expectations=False).buckets
    second = parallel.take(share("one"))
    assert second.found
    assert not {found.bucket for found, *_ in first.found} & {found.bucket for found, *_ in second.found}
    # a search of its own begins anew
    assert [(n.bucket, text) for n, text, _ in parallel.take(share("two")).found] == [
        (n.bucket, text) for n, text, _ in first.found
    ]


def test_what_others_have_found_is_not_new() -> None:
    bucket = next(found.bucket for found, *_ in parallel.take(share("three")).found)
    known = parallel.take(share("four", bucket))
    assert bucket not in {found.bucket for found, *_ in known.found}


def test_a_share_without_a_discovery_is_used_up() -> None:
    gain = parallel.take(share("five", recipe=partial(campaign_on, "v7.3-cured", ()), examples=25))
    assert (gain.found, gain.stats.examples) == ((), 25)
    assert gain.stats.engines["scout"].steps == gain.stats.steps > 25


@pytest.mark.parametrize("size", [1, 2])
def test_examples_and_findings_of_all_add_up(size: int) -> None:
    found: list[Shrunk[Violation]] = []
    campaign = V517()
    campaign.learn(["permission-only-grows@guest"])
    plan = Plan(3, "scout", examples=60, workers=size)
    with workers(1, here_if_one=True) as pool:
        interrupted = hunt_together(campaign, plan, lambda: None, found.append, recipe=V517, members=[pool] * size)
    assert not interrupted
    assert campaign.stats.examples == 60
    assert campaign.stats.engines["scout"].steps == campaign.stats.steps == sum(campaign.stats.seen.values())
    buckets = [one.discovery.bucket for one in found]
    assert len(buckets) == len(set(buckets)) > 1
    assert "permission-only-grows@guest" not in buckets
    for one in found:
        assert one.discovery.bucket in judge(one.program, resolve("v5.17"), expectations=False).buckets


def test_two_processes_report_as_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ["fuzz", "--revision", "v5.17", "--workers", "2", "--seed", "1", "--time", "4", "--save", str(tmp_path)]
    assert cli.main([*argv, "--format", "json"]) == 1
    captured = capsys.readouterr()
    assert "--workers 2" in captured.err
    report = json.loads(captured.out)
    assert report["doubts"] == []
    assert sum(effort["steps"] for effort in report["engines"].values()) == report["steps"]
    buckets = [finding["bucket"] for finding in report["findings"]]
    assert len(buckets) == len(set(buckets)) > 0
    assert {Path(finding["file"]) for finding in report["findings"]} == {*tmp_path.glob("*.xfd")}


def test_progress_says_how_long_it_takes_although_the_examples_are_elsewhere() -> None:
    heard: list[Event] = []
    fuzz("v7.3-cured", Plan(seed=1, workers=2, examples=300), tell=heard.append)
    seconds = [event.seconds for event in heard if isinstance(event, Progressed)]
    assert len(seconds) > 2
    assert seconds == sorted(set(seconds))


def test_a_users_broken_invariant_is_one_line_with_its_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "broken.py"
    file.write_text(
        "from xfdfuzz.invariants.vocabulary import View, invariant\n\n\n"
        '@invariant("breaks-down", "abi", state=True)\n'
        "def breaks_down(view: View) -> list[object]:\n"
        '    """Nobody can rely on it."""\n'
        "    raise LookupError('no')\n"
    )
    command = [sys.executable, "-m", "xfdfuzz", "fuzz", "--invariants", str(file), "--workers", "2", "--time", "20"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"xfdfuzz: {file}:7: LookupError: no"


def test_fuzz_with_one_worker_needs_no_process() -> None:
    report = fuzz(resolve("v5.17"), Plan(seed=1, engine="scout", examples=5, workers=1))
    again = fuzz(resolve("v5.17"), Plan(seed=1, engine="scout", examples=5))
    assert [f.violation for f in report.found] == [f.violation for f in again.found]
