"""Users' invariants that raise, leave or never return are told with their place, in every process; none is green."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import junitparser
import pytest
from readers import junit

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.program.text import parse

COMMANDS = {
    "fuzz 1": ("fuzz", "--time", "60"),
    "fuzz 2": ("fuzz", "--time", "60", "--workers", "2"),
    "explore 1": ("explore",),
    "explore 2": ("explore", "--workers", "2"),
    "matrix 2": ("matrix", "a.xfd", "b.xfd", "--workers", "2"),
    "replay": ("replay", "a.xfd"),
}
PROGRAM = "# xfdfuzz program 1\nmachine cpus=1\n\n"
OP = "t0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)\n"


def invariant(*body: str) -> Path:
    """A file with an invariant whose body begins in line 10."""
    head = (
        "import sys\n\nfrom xfdfuzz.invariants.vocabulary import Broken, View, invariant\n\n\n"
        '@invariant("of-mine", "abi", state=True)\n'
        "def of_mine(view: View) -> list[Broken]:\n"
        '    """Nobody can rely on it."""\n'
        "    # its body\n"
    )
    file = Path("mine.py").resolve()
    file.write_text(head + "".join(f"    {line}\n" for line in body))
    return file


def run(name: str, file: Path, *options: str, ops: int = 1) -> tuple[int, str, str]:
    for program in ("a.xfd", "b.xfd"):
        Path(program).write_text(PROGRAM + OP * ops)
    command = [sys.executable, "-m", "xfdfuzz", *COMMANDS[name], "--invariants", str(file), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("body", "said"), [("raise LookupError('no')", "LookupError: no"), ("sys.exit(0)", "SystemExit: 0")]
)
def test_what_raises_or_leaves_is_told_with_its_place(name: str, body: str, said: str) -> None:
    file = invariant(body)
    code, _, err = run(name, file)
    assert (code, err.splitlines()[-1]) == (2, f"xfdfuzz: {file}:10: {said}")
    assert "Traceback" not in err


@pytest.mark.parametrize("name", COMMANDS)
def test_what_never_returns_is_told_by_name(name: str) -> None:
    file = invariant("while view.step.number > 0 and len(view.k.system.ghost.vcpus):", "    pass", "return []")
    began = time.monotonic()
    code, _, err = run(name, file, "--step-timeout", "1")
    assert time.monotonic() - began < 40
    assert code == 2
    last = err.splitlines()[-1]
    assert re.fullmatch(rf"xfdfuzz: {re.escape(str(file))}:1[01]: invariant of-mine does not return within 1 s", last)
    if name.startswith(("fuzz", "explore")):
        (saved,) = Path("findings").glob("stuck-*.xfd")
        assert f"saved {saved}" in err
        assert parse(saved.read_text()).ops


@pytest.mark.parametrize("name", ["explore 1", "explore 2"])
def test_the_program_that_explore_saves_leads_there(name: str) -> None:
    file = invariant("while any(vcpu.exists for vcpu in view.k.vcpus):", "    pass", "return []")
    code, _, err = run(name, file, "--step-timeout", "1")
    (saved,) = Path("findings").glob("stuck-*.xfd")
    assert (code, f"saved {saved}" in err) == (2, True)
    file.unlink()
    assert judge(saved.read_text(), "amx-v1").results == ("vm0", "v0")


@pytest.mark.parametrize("name", ["fuzz 2", "explore 2", "matrix 2"])
def test_work_that_is_the_death_of_every_process_ends_the_command(name: str) -> None:
    kill = "    os.kill(os.getpid(), signal.SIGKILL)"
    file = invariant("import multiprocessing, os, signal", "if multiprocessing.parent_process():", kill, "return []")
    code, out, err = run(name, file, "--output", "junit=junit.xml")
    assert (code, out) == (3, "")
    *lost, last = [line for line in err.splitlines() if "a worker" in line or line.startswith("xfdfuzz: ")]
    assert last == "xfdfuzz: its process died, and so did all that took its place"
    assert len(lost) >= 2
    for cases in junit(Path("junit.xml").read_text()).values():
        assert isinstance(cases["ended"], junitparser.Error)


def test_what_takes_its_time_again_and_again_is_left_alone() -> None:
    # each sleep is longer than the time between two looks, all together are longer than the limit
    file = invariant("import time", "time.sleep(0.3)", "return []")
    began = time.monotonic()
    code, out, err = run("replay", file, "--step-timeout", "1", "--revision", "v7.3", ops=6)
    assert time.monotonic() - began > 1.8
    assert code == 0, out + err


def test_a_report_on_standard_output_is_printed_where_an_error_ends_the_search() -> None:
    file = invariant("raise LookupError('no')")
    code, out, _ = run("fuzz 1", file, "--output", "junit=-")
    assert code == 2
    cases = junit(out)["amx-v1"]
    assert isinstance(cases["ended"], junitparser.Error)
