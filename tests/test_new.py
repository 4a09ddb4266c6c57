"""`xfdfuzz new`: skeletons that work at once, and files that are never overwritten."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parent.parent


def passed(*paths: str) -> str:
    """The last line of pytest on these files, as their author would run it."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()[-1]


def test_skeletons_pass_their_tests_at_once(run: Run) -> None:
    """Series on the oldest and the newest base, on a posted one, on a patched one and on another series."""
    for name, base in (("on-old", "v5.16"), ("on-posting", "amx-v1"), ("on-label", "v6.12+b45f72177594")):
        assert run("new", "revision", name, "--from", base)[0] == 0
    assert run("new", "revision", "on-newest")[0] == 0
    assert run("new", "revision", "on-series", "--from", "on_newest.py", "--directory", "code", "--tests", "t")[0] == 0
    assert run("new", "invariant", "my-promise", "--directory", "code", "--tests", "t")[0] == 0
    assert passed(".").startswith("12 passed")


def test_a_new_series_is_a_revision_like_any_other(run: Run) -> None:
    code, out, err = run("new", "revision", "my-series", "--from", "v6.12")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "wrote my_series.py and test_my_series.py",
        "now: python -m pytest test_my_series.py",
        "     xfdfuzz review my_series.py",
        "     xfdfuzz diff v6.12 my_series.py",
        "     xfdfuzz fuzz --revision my_series.py",
    ]
    assert run("diff", "v6.12", "my_series.py", "--examples", "3")[0] == 0
    rows = run("list", "patches", "--revision", "my_series.py", "--format", "json")[1].splitlines()
    assert json.loads(rows[-1])["commit"] == "my-series-1"


def test_a_new_invariant_is_checked(run: Run) -> None:
    code, out, _ = run("new", "invariant", "my-promise", "--format", "json")
    assert (code, json.loads(out)) == (0, {"file": "my_promise.py", "test": "test_my_promise.py"})
    rows = run("list", "invariants", "--invariants", "my_promise.py", "--format", "json")[1].splitlines()
    assert json.loads(rows[-1])["doc"].startswith("XCR0 always has the bit of the x87 state.")


@pytest.mark.parametrize("there", ["my_series.py", "test_my_series.py"])
def test_nothing_is_overwritten_and_nothing_written_beside_it(run: Run, there: str) -> None:
    Path(there).write_text("mine")
    assert run("new", "revision", "my-series") == (2, "", f"xfdfuzz: {there}: exists already\n")
    assert [path.name for path in Path().iterdir()] == [there]
    assert Path(there).read_text() == "mine"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["revision"], "NAME"),
        (["series", "x"], "series"),
        (["revision", "My Series"], "My Series: expected lower-case words joined by -"),
        (["revision", "../x"], "../x: expected lower-case words joined by -"),
        (["revision", "v7-3-"], "expected lower-case words"),
        (["invariant", "class"], "class: expected lower-case words"),
        (["revision", "amx-v1"], "revision amx-v1 exists already"),
        (["revision", "x", "--from", "v9"], "unknown revision v9"),
        (["invariant", "no-warning"], "invariant no-warning exists already"),
        (["invariant", "x", "--from", "v7.3"], "--from is for a revision"),
        (["revision", "x", "--directory", "file/below"], "Not a directory"),
    ],
)
def test_bad_input(run: Run, argv: list[str], message: str) -> None:
    Path("file").write_text("")
    code, out, err = run("new", *argv)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_series_in_contributing_cures_what_it_says(run: Run) -> None:
    (text,) = re.findall(r"```python\n(from .*?Series\(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert run("new", "revision", "clear-xstate-bv", "--from", "v7.3")[0] == 0
    Path("clear_xstate_bv.py").write_text(text)
    program = str(ROOT / "corpus" / "open" / "set-xsave-then-set-msrs-xfd.xfd")
    code, out, _ = run("bisect", program, "--from", "v7.3", "--to", "clear_xstate_bv.py")
    assert code == 0
    assert "clear-xstate-bv-1 cures host-xrstor-never-faults" in out
    assert passed("test_clear_xstate_bv.py").startswith("2 passed")
