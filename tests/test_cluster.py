"""A Dask cluster searches: a worker of it that dies costs its share, a cluster that is not there one line."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.engines.processes import cluster
from xfdfuzz.engines.processes.cluster import NoClusterError
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.violations import fuzz
from xfdfuzz.engines.stream.events import Event, Found, Progressed, WorkerLost
from xfdfuzz.revisions import resolve

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="Dask is not here: pip install 'xfdfuzz[dask]'"
)


class Process:
    """A part of Dask, whose log is a file."""

    def __init__(self, log: Path, *words: str) -> None:
        self._log = log
        command = [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]]
        with log.open("w") as file:
            self._process = subprocess.Popen(
                command, cwd=log.parent, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait_for(self, pattern: str, times: int = 1) -> str:
        """The first of so many places in the log."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            found = re.findall(pattern, self._log.read_text())
            if len(found) >= times:
                return str(found[0])
            time.sleep(0.05)
        raise AssertionError(self._log.read_text())

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A scheduler's process."""
    log = tmp_path_factory.mktemp("scheduler") / "log"
    process = Process(log, "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show")
    yield process
    process.kill()


@pytest.fixture(scope="module")
def scheduler(head: Process) -> str:
    """Where it is, ``dask://HOST:PORT``; it has no workers yet."""
    return "dask" + head.wait_for(r"Scheduler at:\s+tcp(://127\.0\.0\.1:\d+)")


@pytest.fixture(scope="module")
def address(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler with two workers."""
    log = tmp_path_factory.mktemp("workers") / "log"
    where = scheduler.replace("dask", "tcp")
    process = Process(log, "dask_worker", where, "--nworkers", "2", "--nthreads", "1", "--no-dashboard")
    process.wait_for("Starting established connection", 2)
    yield scheduler
    process.kill()


# before any test whose scheduler has workers
def test_a_cluster_without_workers_is_one_line(run: Run, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 1.0)
    code, _, err = run("fuzz", "--executor", scheduler, "--time", "2")
    assert (code, err.splitlines()[1:]) == (3, [f"xfdfuzz: {scheduler}: the cluster has no workers"])


def test_a_worker_that_is_killed_costs_its_share(address: str) -> None:
    heard: list[Event] = []
    with cluster.cluster(address) as members:
        pids = [member.submit(os.getpid).result() for member in members]
    assert len({*pids, os.getpid()}) == 3

    def tell(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Found) and len(pids) == 2:
            os.kill(pids.pop(0), signal.SIGKILL)  # who has the first share, and gets the next

    report = fuzz("v5.17", Plan(1, "scout", examples=150, executor=address), tell=tell)
    lost = [event for event in heard if isinstance(event, WorkerLost)]
    assert len(lost) == 1
    assert "is gone" in lost[0].reason
    assert not report.interrupted
    assert report.doubts == ()
    for one in report.found:
        assert one.bucket in judge(one.program, resolve("v5.17"), expectations=False).buckets
    after = [event for event in heard[heard.index(lost[0]) :] if isinstance(event, Progressed)]
    assert after[-1].counts["examples"] > after[0].counts["examples"]


def test_another_xfdfuzz_is_told(address: str) -> None:
    skip = shutil.ignore_patterns("__pycache__", "strategies", "invariants", "corpus")
    shutil.copytree(ROOT / "xfdfuzz", "other/xfdfuzz", ignore=skip)
    for name in ("strategies", "invariants"):
        shutil.copytree(ROOT / name, Path("other/xfdfuzz", name))
    with Path("other/xfdfuzz/invariants/__init__.py").open("a") as file:
        file.write("# judges otherwise, for all that anybody knows\n")
    command = [sys.executable, "-m", "xfdfuzz", "fuzz", "--executor", address, "--time", "2"]
    done = subprocess.run(command, cwd="other", capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert re.search(r"worker tcp://\S+ has another xfdfuzz, \w{12}, than this one, \w{12}$", done.stderr.strip())


def test_ctrl_c_lets_the_cluster_report(address: str) -> None:
    command = [sys.executable, "-m", "xfdfuzz", "fuzz", "--revision", "v5.17", "--time", "10m", "--executor", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            end = time.monotonic() + 60
            while not [*Path("findings").glob("*.xfd")] and time.monotonic() < end:
                time.sleep(0.1)
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == 3, err
    assert "(interrupted)" in out, err
    assert all(f"findings/{file.name}" in out for file in Path("findings").glob("*.xfd"))


# the last one for whom there is a cluster
def test_a_scheduler_that_is_killed_is_told(address: str, head: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_ALONE", 1.0)
    heard: list[Event] = []

    def tell(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Found):
            head.kill()

    with pytest.raises(NoClusterError, match=f"{address}: there has been no worker for 1 s"):
        fuzz("v5.17", Plan(1, "scout", examples=2_000, executor=address), tell=tell)
    assert any(isinstance(event, WorkerLost) for event in heard)


# -- none --------------------------------------------------------------------------------------------------------------


def test_a_scheduler_that_is_not_there_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 1.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"dask://127.0.0.1:{free.getsockname()[1]}"
        code, _, err = run("fuzz", "--executor", address)
    assert (code, err.splitlines()[1:]) == (3, [f"xfdfuzz: {address}: no Dask scheduler answers within 1 s"])


def test_what_accepts_and_is_silent_is_no_scheduler() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"dask://127.0.0.1:{silent.getsockname()[1]}"
        code = (
            "import sys; from xfdfuzz.engines.processes import cluster; cluster._PATIENCE = 1.0; "
            "from xfdfuzz import cli; sys.exit(cli.main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", code, "fuzz", "--executor", address]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert done.stderr.splitlines()[1:] == [f"xfdfuzz: {address}: no Dask scheduler answers within 1 s"]


def test_what_dask_needs_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, err = run("fuzz", "--executor", "dask://localhost:8786")
    assert (code, err.splitlines()[1:]) == (
        3,
        ["xfdfuzz: dask://localhost:8786: Dask is not here: pip install 'xfdfuzz[dask]'"],
    )


@pytest.mark.parametrize("address", ["dask://host", "localhost:8786", "tcp://host:1"])
def test_an_address_that_is_none_is_refused(run: Run, address: str) -> None:
    assert run("fuzz", "--executor", address)[0] == 2


def test_workers_of_this_machine_or_of_a_cluster(run: Run) -> None:
    code, _, err = run("fuzz", "--executor", "dask://localhost:8786", "--workers", "2")
    assert code == 2
    assert "not allowed with" in err
