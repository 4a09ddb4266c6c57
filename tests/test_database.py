"""What is found outlives a search: the next one begins with it, and no database's end is the end of a search."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis.database import DirectoryBasedExampleDatabase, ExampleDatabase, InMemoryExampleDatabase

from xfdfuzz.cli import build_parser
from xfdfuzz.cli.databases import open_databases
from xfdfuzz.engines.judge.lockstep import Pair
from xfdfuzz.engines.search.database import Database, Kept
from xfdfuzz.engines.search.differences import diff
from xfdfuzz.engines.search.plan import Plan
from xfdfuzz.engines.search.reached import First, Reached
from xfdfuzz.engines.search.violations import fuzz
from xfdfuzz.engines.stream.events import DatabaseLost, Event, Found, Progressed, Replayed
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.revisions import resolve

Run = Callable[..., tuple[int, str, str]]
KEY = b"xfdfuzz/1/v5.17"
#: Breaks permission-only-grows on v5.17.
TEXT = "# xfdfuzz program 1\nmachine cpus=1\n\nt0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)\n"


def opened(place: str) -> list[Database]:
    return open_databases(build_parser().parse_args(["fuzz", "--database", place]))


def programs(database: ExampleDatabase, key: bytes = KEY) -> list[str]:
    return sorted(value.decode() for value in database.fetch(key))


class Heard(list[Event]):
    """A listener that keeps what it hears."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self if isinstance(event, kind)]


class Filled(NamedTuple):
    """A database after a search, and what that found and reached."""

    database: InMemoryExampleDatabase
    found: set[str]
    reached: set[tuple[str, str]]


def pairs(coverage: Mapping[str, Mapping[str, int]]) -> set[tuple[str, str]]:
    return {(op, result) for op, results in coverage.items() for result in results}


@pytest.fixture(scope="module")
def filled() -> Filled:
    database = InMemoryExampleDatabase()
    report = fuzz("v5.17", Plan(1, "scout", examples=40), databases=[Database("memory", database)])
    return Filled(database, {one.bucket for one in report.found}, pairs(report.stats.coverage))


def test_the_next_search_begins_with_what_was_found_and_reached(filled: Filled) -> None:
    kept, heard = len(programs(filled.database)), Heard()
    plan = Plan(2, "scout", examples=kept)
    report = fuzz("v5.17", plan, tell=heard, databases=[Database("memory", filled.database)])
    assert heard.of(Replayed) == [Replayed("v5.17", kept, 0)]
    assert filled.found
    assert filled.found <= {one.bucket for one in report.found}
    assert {one.engine for one in report.found} == {"database"}
    assert filled.reached <= pairs(report.stats.coverage)


def test_programs_are_texts_without_what_one_run_knew(filled: Filled) -> None:
    for text in programs(filled.database):
        program = parse(text)
        assert format_program(Program(program.machine, program.ops)) == text


def test_a_clean_search_keeps_what_reached_something_and_no_more() -> None:
    database = InMemoryExampleDatabase()
    plan = Plan(1, "scout", examples=30)
    first = fuzz("v7.3-cured", plan, databases=[Database("memory", database)])
    kept = programs(database, b"xfdfuzz/1/v7.3-cured")
    assert not first.found
    assert 0 < len(kept) < 30
    again = fuzz("v7.3-cured", Plan(2, "scout", examples=len(kept)), databases=[Database("memory", database)])
    assert pairs(first.stats.coverage) <= pairs(again.stats.coverage)
    assert programs(database, b"xfdfuzz/1/v7.3-cured") == kept


def test_a_program_is_kept_for_what_it_reached_first() -> None:
    def program(*ops: str) -> Program:
        return parse("\n".join(["# xfdfuzz program 1", "machine cpus=1", *ops, ""]))

    short, long, other = program("t0 fork"), program("t0 fork", "t0 exit"), program("t0 exit")
    reached = Reached({"before"})
    reached.add(First(frozenset({"a"}), short))
    reached.add(First(frozenset({"b"}), long))  # goes on from there: the two are one
    reached.add(First(frozenset({"c"}), other))
    reached.add(First(frozenset({"a", "before"}), program()))
    assert reached.take() == [First(frozenset("ab"), long), First(frozenset("c"), other)]
    assert reached.take() == []
    assert reached.all == {"before", *"abc"}


def test_workers_begin_with_it_and_what_they_reach_is_kept(filled: Filled) -> None:
    database = InMemoryExampleDatabase()
    for text in programs(filled.database):
        database.save(KEY, text.encode())
    kept = len(programs(database))
    report = fuzz("v5.17", Plan(3, "scout", examples=kept + 20, workers=2), databases=[Database("memory", database)])
    assert 0 < report.stats.engines["database"].examples <= kept
    assert any(one.engine == "database" for one in report.found)
    assert {format_program(Program(one.program.machine, one.program.ops)) for one in report.found} <= {
        *programs(database)
    }


def test_what_is_no_program_is_skipped_and_counted() -> None:
    database = InMemoryExampleDatabase()
    bad = [b"", b"\xff\xfe", b"hello", TEXT.replace("arch_prctl", "nosuch").encode(), TEXT.encode() + b"t0 " * 100_000]
    for value in [*bad, TEXT.encode(), TEXT.replace("\n\n", "\n").encode()]:
        database.save(KEY, value)
    kept = Kept([Database("memory", database)], [resolve("v5.17")], pytest.fail)
    assert [format_program(program) for program in kept.programs()] == [TEXT]
    assert kept.skipped == len(bad)


def test_differences_are_kept_as_well() -> None:
    database, pair = InMemoryExampleDatabase(), Pair(resolve("v5.17"), resolve("v5.18"))
    first = diff(pair, Plan(1, "scout", examples=8), databases=[Database("memory", database)])
    kept = programs(database, b"xfdfuzz/1/v5.17 | v5.18")
    again = diff(pair, Plan(2, "scout", examples=len(kept)), databases=[Database("memory", database)])
    assert first.found
    told = {difference.bucket for one in again.found for difference in (one.difference, *one.also)}
    assert {one.bucket for one in first.found} <= told


# -- databases that fail -----------------------------------------------------------------------------------------------


class Broken(InMemoryExampleDatabase):
    """Takes one value."""

    asked = 0

    def save(self, key: bytes, value: bytes) -> None:
        self.asked += 1
        if self.asked > 1:
            raise ConnectionError("gone\nfor good")
        super().save(key, value)


def test_a_database_that_fails_is_told_once_and_done_without() -> None:
    broken, good, heard = Broken(), InMemoryExampleDatabase(), Heard()
    databases = [Database("broken", broken), Database("good", good)]
    for _ in range(2):
        report = fuzz("v5.17", Plan(1, "scout", examples=20), tell=heard, databases=databases)
        assert report.stats.examples == 20
    lost = DatabaseLost("v5.17", "broken: ConnectionError: gone for good; going on without it")
    assert heard.of(DatabaseLost) == [lost]
    assert broken.asked == 2
    assert len(programs(good)) > 2


# -- the command line --------------------------------------------------------------------------------------------------


def test_directories_are_shared(run: Run, tmp_path: Path) -> None:
    command = ("fuzz", "--revision", "v5.17", "--engine", "scout", "--examples")
    DirectoryBasedExampleDatabase("one").save(KEY, TEXT.encode())
    code, out, err = run(*command, "1", "--database", "one", "--database", "two")
    assert code == 1
    assert "v5.17: begins with 1 program of before" in err
    assert "--database one --database two" in out.splitlines()[-1]
    one, two = ({*programs(DirectoryBasedExampleDatabase(name))} for name in ("one", "two"))
    assert two
    assert one == two | {TEXT}


@pytest.mark.parametrize("place", ["redis://host", "redis://user@host:1", "github://owner", "ftp://host/file", ""])
def test_a_place_that_is_none_is_refused(run: Run, place: str) -> None:
    code, _, err = run("fuzz", "--database", place)
    assert code == 2
    assert "expected" in err.splitlines()[-1]


def test_a_directory_that_cannot_be_saved_to_is_told_before_the_search(run: Run) -> None:
    Path("file").write_text("")
    assert run("fuzz", "--database", "file")[::2] == (2, "xfdfuzz: cannot save to file: File exists\n")


def test_what_redis_needs_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "hypothesis.extra.redis", raising=False)
    code, _, err = run("fuzz", "--database", "redis://localhost:6379")
    assert (code, err) == (
        2,
        "xfdfuzz: redis://localhost:6379: redis-py is not here: pip install 'xfdfuzz[redis]'\n",
    )


# -- an artifact of GitHub's -------------------------------------------------------------------------------------------


def hashed(value: bytes) -> str:
    return hashlib.sha384(value).hexdigest()[:16]


def test_an_artifact_is_read_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    artifact = Path("cache/xfdfuzz/owner/repo") / f"{datetime.now(UTC).isoformat().replace(':', '_')}.zip"
    artifact.parent.mkdir(parents=True)
    # what a job uploads that had --database DIR
    DirectoryBasedExampleDatabase("uploaded").save(KEY, TEXT.encode())
    with zipfile.ZipFile(artifact, "w") as file:
        for path in Path("uploaded").rglob("*"):
            file.write(path, path.relative_to("uploaded"))
    heard = Heard()
    fuzz("v5.17", Plan(1, "scout", examples=5), tell=heard, databases=opened("github://owner/repo"))
    assert heard.of(Replayed) == [Replayed("v5.17", 1, 0)]
    assert heard.of(DatabaseLost) == []


def test_github_that_does_not_answer_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    code, _, err = run("fuzz", "--revision", "v7.3-cured", "--examples", "2", "--database", "github://owner/repo")
    assert code == 0
    told = [line for line in err.splitlines() if "github://" in line and "repeat" not in line]
    assert len(told) == 1
    assert "Could not connect to GitHub" in told[0]


# -- Redis -------------------------------------------------------------------------------------------------------------


class Redis:
    """A server of our own."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.place = f"redis://127.0.0.1:{self.port}/1"
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        self.process = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        self.kill()
        raise AssertionError("redis-server does not answer")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    pytest.importorskip("redis", reason="redis-py is not here: pip install 'xfdfuzz[redis]'")
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here: apt-get install redis-server")
    server = Redis(tmp_path)
    yield server
    server.kill()


def test_machines_share_a_redis_server(server: Redis) -> None:
    from redis import Redis as Client

    first = fuzz("v5.17", Plan(1, "scout", examples=20), databases=opened(server.place))
    heard = Heard()
    with Client(port=server.port, db=1) as client:
        kept = client.scard(KEY)
        assert client.ttl(KEY) > 30 * 24 * 3600
    plan = Plan(2, "scout", examples=int(str(kept)))
    second = fuzz("v5.17", plan, tell=heard, databases=opened(server.place))
    assert heard.of(Replayed) == [Replayed("v5.17", plan.examples or 0, 0)]
    assert first.found
    assert {one.bucket for one in first.found} <= {one.bucket for one in second.found}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_dies_in_the_middle_ends_no_search(server: Redis, workers: int) -> None:
    heard = Heard()

    def tell(event: Event) -> None:
        heard(event)
        if isinstance(event, Found):
            server.kill()

    plan = Plan(1, "scout", workers=workers, examples=20)
    report = fuzz("v5.17", plan, tell=tell, databases=opened(server.place))
    assert len(heard.of(DatabaseLost)) == 1
    assert report.found
    assert report.doubts == ()
    assert report.stats.examples >= 20
    assert heard.index(heard.of(DatabaseLost)[0]) < heard.index(heard.of(Progressed)[-1])


def test_a_server_that_is_not_there_is_one_line(run: Run, server: Redis) -> None:
    server.kill()
    code, _, err = run("fuzz", "--revision", "v7.3-cured", "--examples", "2", "--database", server.place)
    assert code == 0
    told = [line for line in err.splitlines() if server.place in line and "repeat" not in line]
    assert len(told) == 1
    assert told[0].startswith("lost a database: ")
