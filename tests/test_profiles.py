"""Profiles, and what is divided: the time of a command among its revisions, a job among machines."""

from __future__ import annotations

import itertools
import json
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from xfdfuzz.cli import build_parser
from xfdfuzz.cli.arguments import seed
from xfdfuzz.cli.profiles import rows, with_profile
from xfdfuzz.cli.shares import Shard, TimeShares, shard

Run = Callable[..., tuple[int, str, str]]
MINE = """\
[profile.mine]
revision = ["v5.18", "v6.6"]
time = "30s"
workers = 2
publish = true
output = ["junit=fuzz.xml"]

[profile.mine.explore]
revision = "v6.6"
depth = 2
"""


def options(*words: str) -> dict[str, object]:
    """What a command gets of a command line."""
    parser = build_parser()
    return vars(parser.parse_args(with_profile(parser, list(words))))


def refused(run: Run, text: str, *argv: str) -> str:
    """The one line that a command gives for that file."""
    Path("xfdfuzz.toml").write_text(text)
    code, out, err = run(*(argv or ("fuzz", "--profile", "mine")))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    return err.removeprefix("xfdfuzz: ").rstrip()


# -- profiles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [["--profile", "mine"], ["--profile=mine"], ["--profile", "ci", "--profile", "mine"]])
def test_a_profile_is_options(named: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("xfdfuzz.toml").write_text(MINE)
    got = options("fuzz", *named)
    assert (got["revision"], got["time"], got["workers"], got["publish"]) == (["v5.18", "v6.6"], 30.0, 2, True)
    assert got["output"] == [("junit", Path("fuzz.xml").resolve())]
    assert capsys.readouterr().err == "profile mine: xfdfuzz.toml\n"


def test_another_command_has_a_table_of_its_own() -> None:
    Path("xfdfuzz.toml").write_text(MINE)
    got = options("explore", "--profile", "mine")
    assert (got["revision"], got["depth"], got["workers"]) == (["v6.6"], 2, 1)


def test_the_command_line_wins() -> None:
    Path("xfdfuzz.toml").write_text(MINE)
    got = options("fuzz", "--revision", "v7.3", "--profile", "mine", "--workers=1", "--time", "60")
    assert (got["revision"], got["workers"], got["time"]) == (["v7.3"], 1, 60.0)
    assert (got["publish"], len(got["output"])) == (True, 1)  # type: ignore[arg-type]


def test_an_option_takes_the_place_of_what_it_excludes() -> None:
    Path("xfdfuzz.toml").write_text(MINE)
    got = options("fuzz", "--profile", "mine", "--examples", "9")
    assert (got["examples"], got["revision"]) == (9, ["v5.18", "v6.6"])


def test_also_adds_to_the_revisions_of_a_profile() -> None:
    got = options("fuzz", "--profile", "ci", "--also", "v6.6")
    assert (got["revision"], got["also"]) == (["v7.3-cured"], ["v6.6"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[profile.mine]\ntim = 3\n", "xfdfuzz.toml:2: unrecognized arguments: --tim (see xfdfuzz fuzz --help)"),
        ("[profile.mine]\nhelp = true\n", "xfdfuzz.toml:2: unrecognized arguments: --help"),
        ("[profile.mine]\nprofile = 'ci'\n", "xfdfuzz.toml:2: unrecognized arguments: --profile"),
        ("[profile.mine]\nscope = 'tiny'\n", "xfdfuzz.toml:2: unrecognized arguments: --scope"),
        (
            "[profile.mine]\nseed = 1\n\n# how long\ntime = '3x'\n",
            "xfdfuzz.toml:5: argument --time: expected a duration such as 90, 10m or 2h, got '3x'",
        ),
        ("[profile.mine]\nworkers = 0\n", "xfdfuzz.toml:2: argument --workers: expected a number from 1 on, got '0'"),
        ("[profile.mine]\nsteps = 2.5\n", "xfdfuzz.toml:2: argument --steps: expected a number from 1 on, got '2.5'"),
        ("[profile.mine]\nengine = 'both '\n", "xfdfuzz.toml:2: argument --engine: invalid choice: 'both ' (choose"),
        ("[profile.mine]\nengine = ['both']\n", "xfdfuzz.toml:2: argument --engine: expected one value, got a list"),
        ("[profile.mine]\nseed = true\n", "xfdfuzz.toml:2: argument --seed: expected a text or a number, got true"),
        ("[profile.mine]\nsave = 2026-01-01\n", "argument --save: expected a text or a number, got '2026-01-01'"),
        ("[profile.mine]\nsave = ''\n", "xfdfuzz.toml:2: argument --save: expected the name of a directory"),
        ("[profile.mine]\npublish = 1\n", "xfdfuzz.toml:2: argument --publish: expected true or false, got 1"),
        (
            "[profile.mine]\noutput = [\n  'junit=a.xml',\n  'junit',\n]\n",
            "xfdfuzz.toml:2: argument --output: expected junit=FILE, or junit=- for standard output, got 'junit'",
        ),
        (
            "[profile.mine]\ntime = 3\nexamples = 3\n",
            "xfdfuzz.toml:3: argument --examples: not allowed with argument --time",
        ),
        ("a = 1\n[profile]\nmine.time = '3x'\n", "xfdfuzz.toml:3: argument --time"),
        ("profile.mine = {seed = 1, time = '3x'}\n", "xfdfuzz.toml:1: argument --time"),
        ("text = '''\n[profile.mine]\ntime = 3\n'''\n[profile.mine]\ntime = 0\n", "xfdfuzz.toml:6: argument --time"),
        ("[profile]\nmine = 3\n", "xfdfuzz.toml:2: expected a table [profile.mine]"),
        ("\nprofile = 3\n", "xfdfuzz.toml:2: expected tables [profile.NAME]"),
        ("[profile.mine]\n", "xfdfuzz.toml:1: profile mine has no options for fuzz: expected some in [profile.mine]"),
        ("[profile.mine]\nseed =\n", "xfdfuzz.toml:2:7: Invalid value"),
        ("[profile.mine]\nseed = 1\nsteps = [", "xfdfuzz.toml:3: "),
        ("[profile.other]\nseed = 1\n", "unknown profile mine: expected one of ci, dev, nightly, other"),
        ("[profile.mime]\nseed = 1\n", "unknown profile mine: did you mean mime?"),
    ],
)
def test_a_profile_that_cannot_be_used_is_one_line(run: Run, text: str, message: str) -> None:
    assert message in refused(run, text)


@pytest.mark.parametrize(("option", "value"), [("time", "3x"), ("workers", "0"), ("engine", "x"), ("output", "junit")])
def test_what_is_refused_is_told_as_for_an_option(run: Run, option: str, value: str) -> None:
    told = re.search(r"argument.*(?= \(see)", run("fuzz", f"--{option}", value)[2])
    assert told is not None
    assert refused(run, f"[profile.mine]\n{option} = '{value}'\n") == f"xfdfuzz.toml:2: {told[0]}"


def test_a_profile_without_options_for_a_command(run: Run) -> None:
    text = "[profile.mine]\nseed = 1\n"
    told = "profile mine has no options for explore: expected some in [profile.mine.explore]"
    assert refused(run, text, "explore", "--profile", "mine") == f"xfdfuzz.toml:1: {told}"


def test_a_file_that_is_no_text(run: Run) -> None:
    Path("pyproject.toml").write_bytes(b"# \xff")
    assert run("fuzz", "--profile", "dev")[::2] == (2, "xfdfuzz: pyproject.toml: not a UTF-8 text (byte 2)\n")


def test_without_a_profile_no_file_is_read(run: Run) -> None:
    Path("xfdfuzz.toml").write_text("[")
    assert run("list", "scopes")[0] == 0
    assert run("fuzz", "--revision", "--profile")[0] == 2


# -- files -------------------------------------------------------------------------------------------------------------


def test_the_nearest_file_with_profiles_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a/b").mkdir(parents=True)
    Path("pyproject.toml").write_text("[tool.xfdfuzz.profile.mine]\nseed = 1\n")
    Path("a/pyproject.toml").write_text("[project]\nname = 'other'\n")
    monkeypatch.chdir("a/b")
    assert options("fuzz", "--profile", "mine")["seed"] == 1
    Path("../pyproject.toml").write_text("[tool.xfdfuzz.profile.mine]\nseed = 2\n")
    assert options("fuzz", "--profile", "mine")["seed"] == 2
    Path("../xfdfuzz.toml").write_text("[profile.mine]\nseed = 3\n")
    assert options("fuzz", "--profile", "mine")["seed"] == 3


def test_a_profile_of_ones_own_replaces_one_that_comes_with_xfdfuzz() -> None:
    assert options("fuzz", "--profile", "ci")["workers"] == 2
    Path("xfdfuzz.toml").write_text("[profile.ci]\nseed = 1\n")
    got = options("fuzz", "--profile", "ci")
    assert (got["workers"], got["seed"], got["revision"]) == (1, 1, [])


def test_paths_are_seen_from_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("below").mkdir()
    Path("xfdfuzz.toml").write_text(
        "[profile.mine]\nrevision = ['my.py+b45f72177594', 'v6.6']\nknown = ['open', '/abs']\nsave = 'found'\n"
        "output = ['junit=fuzz.xml', 'ktap=-']\n"
    )
    here = Path.cwd()
    monkeypatch.chdir("below")
    got = options("fuzz", "--profile", "mine")
    assert got["revision"] == ["../my.py+b45f72177594", "v6.6"]
    assert [path.resolve() for path in got["known"]] == [here / "open", Path("/abs")]  # type: ignore[attr-defined]
    assert got["save"] == Path("../found")
    assert got["output"] == [("junit", here / "fuzz.xml"), ("ktap", None)]
    # the command line's are seen from where it is given
    assert options("fuzz", "--profile", "mine", "--save", "found")["save"] == Path("found")


def test_the_profiles_are_listed(run: Run) -> None:
    Path("xfdfuzz.toml").write_text(MINE)
    listed = [json.loads(line) for line in run("list", "profiles", "--format", "json")[1].splitlines()]
    assert {(row["name"], row["command"]) for row in listed} == {
        ("ci", "fuzz"),
        ("ci", "explore"),
        ("dev", "fuzz"),
        ("mine", "fuzz"),
        ("mine", "explore"),
        ("nightly", "fuzz"),
        ("nightly", "explore"),
    }
    mine = next(row for row in listed if (row["name"], row["command"]) == ("mine", "explore"))
    assert mine == {
        "name": "mine",
        "command": "explore",
        "file": "xfdfuzz.toml",
        "options": ["--revision=v6.6", "--depth=2"],
    }
    assert "mine" in run("list", "profiles")[1]


def test_every_shipped_profile_names_what_exists() -> None:
    """Revisions, scopes and directories."""
    from xfdfuzz.revisions import resolve
    from xfdfuzz.strategies.scopes import SCOPES

    for row in rows(build_parser()):
        got = options(str(row["command"]), "--profile", str(row["name"]))
        for name in got["revision"]:  # type: ignore[attr-defined]
            resolve(name)
        assert all(path.is_dir() for path in got["known"])  # type: ignore[attr-defined]
        assert row["command"] != "explore" or got["scope"] in SCOPES


def test_what_a_run_says_of_its_profile_and_how_it_is_repeated_without(run: Run) -> None:
    Path("xfdfuzz.toml").write_text("[profile.mine]\nrevision = 'v7.3-cured'\nexamples = 2\nengine = 'scout'\n")
    code, out, err = run("fuzz", "--profile", "mine", "--seed", "date", "--format", "json")
    assert code == 0
    assert err.startswith("profile mine: xfdfuzz.toml\n")
    number = json.loads(out)["seed"]
    repeat = f"repeat: xfdfuzz fuzz --revision v7.3-cured --seed {number} --examples 2 --steps 50 --engine scout"
    assert repeat in err
    day = datetime.strptime(str(number), "%Y%m%d").replace(tzinfo=UTC)
    assert timedelta(0) <= datetime.now(UTC) - day < timedelta(days=2)


# -- time --------------------------------------------------------------------------------------------------------------


def test_what_a_search_leaves_over_is_for_those_that_follow() -> None:
    now = 100.0
    shares = TimeShares(60.0, 3, clock=lambda: now)
    assert shares.next() == 20.0
    now += 10
    assert shares.next() == 25.0
    now += 40
    assert shares.next() == 10.0


def test_a_search_that_takes_too_much_leaves_less_but_nothing_negative() -> None:
    now = 0.0
    shares = TimeShares(10.0, 2, clock=lambda: now)
    assert shares.next() == 5.0
    now = 11.0
    assert shares.next() == 0.0


def test_no_limit_is_no_limit_for_each() -> None:
    shares = TimeShares(None, 2)
    assert (shares.next(), shares.next()) == (None, None)


def test_a_revision_without_time_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimeShares, "next", lambda self: 0.0)
    code, out, err = run("fuzz", "--revision", "v7.3-cured", "--time", "9")
    assert (code, out, err) == (3, "", "xfdfuzz: v7.3-cured: no time was left for it\n")


def test_examples_are_no_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long those of the first revision take, the second one has as many."""
    now = itertools.count(0, 1_000)
    monkeypatch.setattr("xfdfuzz.cli.fuzz.TimeShares", partial(TimeShares, clock=lambda: float(next(now))))
    job = ["fuzz", "--revision", "v7.3-cured", "--revision", "v5.16-cured", "--examples", "3", "--format", "json"]
    code, out, _ = run(*job)
    assert code == 0
    assert [json.loads(line)["examples"] for line in out.splitlines()] == [3, 3]


# -- machines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machines", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_machines_do_all_and_nothing_twice(count: int, machines: int) -> None:
    things = list(range(count))
    parts = [Shard(number, machines) for number in range(1, machines + 1)]
    done = [(thing, part.seed(5)) for part in parts for thing in part.of(things)]
    assert {thing for thing, _ in done} == set(things)
    assert len(set(done)) == len(done) == max(count, machines)
    sizes = [len(part.of(things)) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_no_two_machines_have_one_seed_on_any_of_two_days() -> None:
    seeds = [Shard(number, 50).seed(day) for day in (20261129, 20261130) for number in range(1, 51)]
    assert len(set(seeds)) == len(seeds)
    assert seeds[:50] == [Shard(number, 50).seed(20261129) for number in range(1, 51)]


@pytest.mark.parametrize("text", ["0/5", "6/5", "2", "2/", "/5", "2/5/6", "-1/5", "1/0", "a/b", "1 /5"])
def test_a_part_that_is_none(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="expected a part such as 2/5"):
        shard(text)


def test_the_parts_of_a_job(run: Run) -> None:
    """As the command line gives them, with what repeats each."""
    job = ["fuzz", "--revision", "v7.3-cured", "--also", "v5.16-cured", "--seed", "5", "--examples", "1"]
    done = []
    for part in ("1/3", "2/3", "3/3"):
        code, out, err = run(*job, "--shard", part, "--format", "json")
        assert code == 0
        told = json.loads(out)
        done.append((told["revision"], told["seed"]))
        assert f"repeat: xfdfuzz fuzz --revision {told['revision']} --seed {told['seed']} --examples 1" in err
        assert "--shard" not in err
    assert [name for name, _ in done] == ["v7.3-cured", "v5.16-cured", "v7.3-cured"]
    assert len(set(done)) == 3


# -- days --------------------------------------------------------------------------------------------------------------


def test_the_seed_of_a_day() -> None:
    def at(*when: int) -> int:
        return seed("date", lambda: datetime(*when, tzinfo=UTC))  # type: ignore[misc,arg-type]

    assert at(2026, 11, 29) == at(2026, 11, 29, 23, 59, 59) == 20261129
    assert at(2026, 11, 30) == 20261130
    assert seed("7", datetime.now) == 7
