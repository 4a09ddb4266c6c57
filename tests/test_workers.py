"""Processes at work for a command: Ctrl-C ends them all at once, and so does the end of the command itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest

from xfdfuzz.engines.processes.workers import workers

ROOT = Path(__file__).parent.parent
#: Far more work than a test waits for.
MATRIX = ("matrix", "--corpus")

COMMANDS = pytest.mark.parametrize("argv", [(*MATRIX, "--workers", "2"), (*MATRIX, "--workers", "3")], ids=" ".join)


def session(leader: int) -> list[int]:
    """The living processes of a session (/proc/PID/stat: the state, then parent, group and session)."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = file.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(sid) == leader and state != "Z":
            found.append(int(file.parent.name))
    return found


def until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@contextmanager
def at_work(*argv: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a session of its own, with its workers started; nothing of it is left afterwards."""
    command = [sys.executable, "-m", "xfdfuzz", *argv]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as child:
        try:
            # beside it and its workers there is one process that keeps their semaphores
            until(lambda: len(session(child.pid)) >= 2 + int(argv[-1]) or child.poll() is not None, 60)
            assert child.poll() is None, child.communicate()
            yield child
        finally:
            for pid in session(child.pid):
                os.kill(pid, signal.SIGKILL)


@COMMANDS
@pytest.mark.parametrize("moment", [0.0, 3.0], ids=["while they start", "while they work"])
def test_ctrl_c_ends_a_command_and_its_workers(argv: tuple[str, ...], moment: float) -> None:
    with at_work(*argv) as child:
        time.sleep(moment)
        os.killpg(child.pid, signal.SIGINT)  # what a terminal does
        out, err = child.communicate(timeout=10)
        assert (child.returncode, out, err) == (3, "", "xfdfuzz: interrupted\n")
        assert until(lambda: not session(child.pid), 5)


@COMMANDS
def test_workers_do_not_outlive_a_command_that_is_killed(argv: tuple[str, ...]) -> None:
    with at_work(*argv) as child:
        child.kill()
        assert until(lambda: not session(child.pid), 10)


@pytest.mark.parametrize("count", [1, 2])
def test_an_exception_of_the_caller_does_not_wait_for_the_work(count: int) -> None:
    waiting: list[Future[None]] = []

    def fail() -> None:
        with workers(count) as executor:
            waiting.extend(executor.submit(time.sleep, 60) for _ in range(10))
            raise LookupError

    before = set(threading.enumerate()), set(multiprocessing.active_children())
    began = time.monotonic()
    with pytest.raises(LookupError):
        fail()
    assert time.monotonic() - began < 10
    assert all(future.done() for future in waiting)
    assert (set(threading.enumerate()), set(multiprocessing.active_children())) == before


def test_work_that_fails_ends_the_rest_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    with pytest.raises(ValueError, match="non-negative"), workers(2) as executor:
        list(executor.map(time.sleep, [-1, *[60] * 20]))
    assert said == []


@pytest.mark.parametrize("here_if_one", [False, True])
def test_one_worker_is_a_process_unless_the_caller_will_do(here_if_one: bool) -> None:
    with workers(1, here_if_one=here_if_one) as executor:
        assert (executor.submit(os.getpid).result() == os.getpid()) == here_if_one
        assert list(executor.map(int, ["1", "2"])) == [1, 2]
        assert isinstance(executor.submit(int, "one").exception(), ValueError)


_MASKS = """
import signal, threading
from pathlib import Path
from xfdfuzz.engines.processes.pool import Pool

with Pool(2, 30) as pool:
    list(pool.map(abs, [1, 2, 3]))
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            held = next(line for line in Path(f"/proc/self/task/{thread.native_id}/status").open() if "SigBlk" in line)
            print(bool(int(held.split()[1], 16) >> (signal.SIGINT - 1) & 1))
"""


def test_a_process_is_started_with_ctrl_c_held_back() -> None:
    """One that gets it while Python starts there prints a traceback.  It inherits what its thread holds back."""
    said = subprocess.run([sys.executable, "-c", _MASKS], capture_output=True, text=True, check=True, timeout=60)
    assert set(said.stdout.split()) == {"True"}
