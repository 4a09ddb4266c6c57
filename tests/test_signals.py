"""Commands whose workers do not report when they are to end, or die; test_moments.py ends commands at any moment."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xfdfuzz.program.text import parse

#: It would go on for minutes.
FUZZ = ("fuzz", "--revision", "v5.17", "--time", "10m", "--workers", "2")
WAITING = "waiting for the workers, at most 5 s; Ctrl-C again ends at once\n"


def family(leader: int) -> list[int]:
    """The living processes of a session, and the leader's other children (/proc/PID/stat)."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, _, session = file.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if leader in (int(session), int(parent)) and state != "Z":
            found.append(int(file.parent.name))
    return found


def workers_of(leader: int) -> list[int]:
    """Those that search."""
    return [pid for pid in family(leader) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def until(condition: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(condition())


@contextmanager
def searching(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a session of its own, at the moment of its first finding; it writes to the files out and err."""
    command = [sys.executable, "-m", "xfdfuzz", *argv]
    with (
        Path("out").open("wb") as out,
        Path("err").open("wb") as err,
        subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True) as child,
    ):
        try:
            assert until(lambda: printed() or child.poll() is not None, 60)
            assert child.poll() is None, Path("err").read_text()
            yield child
        finally:
            for pid in family(child.pid):
                os.kill(pid, signal.SIGKILL)


def printed() -> list[Path]:
    """The files that were said to be saved; a line that is being written does not count."""
    whole = Path("err").read_text().rpartition("\n")[0]
    return [Path(line.rpartition("saved ")[2]) for line in whole.splitlines() if ", saved " in line]


def check_files() -> None:
    saved = {file for file in Path().glob("*/*") if file.suffix == ".xfd"}
    assert {*printed()} <= saved
    for file in saved:
        assert parse(file.read_text(), str(file)).ops


def test_a_second_signal_ends_a_search_at_once() -> None:
    with searching(*FUZZ) as child:
        for pid in workers_of(child.pid):
            os.kill(pid, signal.SIGSTOP)  # it will not report
        child.send_signal(signal.SIGTERM)
        assert until(lambda: WAITING in Path("err").read_text(), 5)
        child.send_signal(signal.SIGTERM)
        child.wait(timeout=15)
        assert child.returncode == 3
        assert until(lambda: not family(child.pid), 5)
    check_files()
    assert Path("err").read_text().endswith("xfdfuzz: interrupted\n")
    assert Path("out").read_text() == ""


def test_workers_that_do_not_report_are_given_up() -> None:
    with searching(*FUZZ) as child:
        for pid in workers_of(child.pid):
            os.kill(pid, signal.SIGSTOP)
        child.send_signal(signal.SIGTERM)
        child.wait(timeout=15)
        assert child.returncode == 3
        assert until(lambda: not family(child.pid), 5)
    check_files()
    assert "(interrupted)" in Path("out").read_text()
    assert WAITING in Path("err").read_text()


def test_a_worker_that_dies_costs_what_it_had_not_reported() -> None:
    with searching("fuzz", "--revision", "v5.17", "--seed", "3", "--time", "7", "--workers", "2") as child:
        os.kill(workers_of(child.pid)[0], signal.SIGKILL)
        assert until(lambda: b"lost a worker" in Path("err").read_bytes(), 5)
        assert until(lambda: len(workers_of(child.pid)) == 2, 5)
        child.wait(timeout=60)
        assert child.returncode == 1, Path("err").read_text()
    check_files()
    err = Path("err").read_text()
    # the first two seeds of the campaign
    assert re.search(rf"^lost a worker \(its process died\): seed ({3 << 8}|{(3 << 8) + 1}),", err, re.MULTILINE)
    assert err.count("lost a worker") == 1


def test_an_exploration_that_loses_workers_comes_to_the_same() -> None:
    command = ("explore", "--scope", "small", "--depth", "12", "--workers", "2", "--format", "json")

    def result() -> dict[str, object]:
        report: dict[str, object] = json.loads(Path("out").read_text())
        del report["seconds"]
        return report

    with searching(*command) as child:
        os.kill(workers_of(child.pid)[0], signal.SIGKILL)
        time.sleep(0.4)
        # none, where the machine was quick; a third one may be the third at the same work, where it is slow
        for worker in workers_of(child.pid)[:1]:
            os.kill(worker, signal.SIGKILL)
        child.wait(timeout=120)
    assert "lost a worker (its process died): its work is done again" in Path("err").read_text()
    disturbed = result()
    with searching(*command) as child:
        child.wait(timeout=120)
    assert disturbed == result()


_IN_AN_EXEC = """
import sys, xfdfuzz.__main__, xfdfuzz.cli

def interrupted():
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        return 3

xfdfuzz.cli.main = interrupted
sys.exit(xfdfuzz.__main__.main())
"""


def test_ctrl_c_in_the_exec_of_a_text_does_not_change_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(_IN_AN_EXEC)
    assert subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, timeout=60).returncode == 3
