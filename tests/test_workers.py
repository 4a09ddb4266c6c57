"""Work that is spread over processes: its end, and its errors, are those of the caller."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future

import pytest

from xfdfuzz.engines.processes.interrupt import PatientInterrupt
from xfdfuzz.engines.processes.workers import workers


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


def test_ctrl_c_that_waits_in_a_block_has_come_in_those_around_it() -> None:
    with PatientInterrupt(everywhere=True) as outer:
        with PatientInterrupt(everywhere=True) as inner:
            signal.raise_signal(signal.SIGINT)
        assert inner.pressed
        assert outer.pressed
        with PatientInterrupt(everywhere=True) as later:
            assert later.pressed
            with pytest.raises(KeyboardInterrupt):  # a second one does not wait
                signal.raise_signal(signal.SIGINT)


def test_ctrl_c_that_did_not_wait_in_a_block_has_come_in_those_around_it() -> None:
    with PatientInterrupt(everywhere=True) as outer:
        with pytest.raises(KeyboardInterrupt), PatientInterrupt():
            signal.raise_signal(signal.SIGINT)
        assert outer.pressed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
