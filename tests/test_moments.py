"""Commands that are ended at any moment: what was printed is on disk and in every report, and nothing else is left.

``--moments N`` tries N moments of each command and signal, spread over its life; they are the same ones each time.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import junitparser
import pytest
from readers import b4_answer, check, gitlab, junit, ktap, sarif

from xfdfuzz.engines.stream.events import Began, Ended, Event, Found, ProgramJudged
from xfdfuzz.program.program import Expectation
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.report.formats import FORMATS
from xfdfuzz.report.formats.jsonl import read

Run = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Command:
    """Its words, and about how many lines its event stream has; ``many``: every other time it gets two workers."""

    argv: tuple[str, ...]
    lines: int
    many: bool = True


COMMANDS = {
    "fuzz": Command(("fuzz", "--revision", "v5.17", "--examples", "25"), 35, many=False),
    "fuzz 2": Command(("fuzz", "--revision", "v5.17", "--time", "2", "--workers", "2"), 12, many=False),
    "diff": Command(("diff", "v5.17", "v5.18", "--examples", "25"), 20),
    "explore": Command(("explore", "--depth", "7"), 25),
    "matrix": Command(("matrix", "programs", "--revision", "amx-v1"), 14),
}
#: What answers a question: its answer to the key of JSON that has the states which were met.
ASKING = {
    "field": ("field", "v.guest_fpu.realloc_request", "--time", "60"),
    "warnings": ("warnings", "amx-v1", "--time", "60"),
    "review": ("review", "amx-v1", "--time", "60", "--seed", "1", "--save", "saved"),
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
#: How the last event begins.
ENDED = b'{"event": "Ended"'
#: What searches call what they find, in their JSON.
RESULTS = ("findings", "differences", "lassos")
SEVERITY = r"(?:(?<!\|) (?:panic|corruption|leak|warn|abi))?"
#: What the programs of `matrix` break on amx-v1, but are said not to.
BREAKS = parse("# xfdfuzz program 1\nmachine cpus=1\n\nt0 arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, XTILEDATA)\n")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each moment, or for some."""
    if "some" in metafunc.fixturenames:
        metafunc.parametrize("some", range(-(-metafunc.config.getoption("moments") // 3)))
    if "nr" in metafunc.fixturenames:
        moments: int = metafunc.config.getoption("moments")
        metafunc.parametrize("nr", range(moments))


@dataclass
class Life:
    """A command in a session of its own; it writes to the files out and err, and its reports to NAME.out."""

    argv: list[str]
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        with Path("out").open("wb") as out, Path("err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "xfdfuzz", *self.argv],
                stdout=out,
                stderr=err,
                start_new_session=True,
                env=os.environ | {"XFDFUZZ_TEST": self.mark},
            )

    def family(self) -> list[int]:
        """Its living processes, whoever is their parent by now."""
        return [int(file.parent.name) for file in Path("/proc").glob("[0-9]*/environ") if self._living(file)]

    def _living(self, environ: Path) -> bool:
        with suppress(OSError):
            mine = self.mark.encode() in environ.read_bytes()
            return mine and environ.with_name("stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

    def handles_signals(self) -> bool:
        """Whether Python has come as far as our own first lines."""
        with suppress(OSError):
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            caught = int(re.findall(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)[0], 16)
            return bool(caught >> (signal.SIGTERM - 1) & 1)
        return False

    def until(self, condition: Callable[[], object], seconds: float = 60) -> bool:
        """Wait for it, at most until the command ends."""
        end = time.monotonic() + seconds
        while not condition() and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.004)
        return bool(condition())

    def live_until(self, position: float, lines: int, chance: random.Random) -> None:
        """Wait until it is that far, from 0 to 1: it starts, has told so many events, comes to its end."""
        assert self.until(self.handles_signals)
        if position < 0.15:
            time.sleep(position / 0.15 * 0.8)
        elif position < 0.9:
            told = round((position - 0.15) / 0.75 * lines)
            self.until(lambda: stream().count(b"\n") > told or ENDED in stream())
            time.sleep(chance.uniform(0, 0.05))
        else:
            self.until(lambda: ENDED in stream())
            time.sleep((position - 0.9) / 0.1 * 0.15)

    def end(self, number: signal.Signals) -> int:
        """Send a signal as a terminal does, to all, or to the command alone; its exit code."""
        with suppress(ProcessLookupError):
            (os.killpg if number is signal.SIGINT else os.kill)(self.process.pid, number)
        return self.process.wait(timeout=20)


def stream() -> bytes:
    """The events so far."""
    return Path("jsonl.out").read_bytes() if Path("jsonl.out").exists() else b""


@pytest.fixture
def live() -> Iterator[Callable[[list[str]], Life]]:
    """Starts a command, of which nothing is left afterwards."""
    lives: list[Life] = []

    def start(argv: list[str]) -> Life:
        lives.append(Life(argv))
        return lives[-1]

    yield start
    for life in lives:
        for pid in life.family():
            os.kill(pid, signal.SIGKILL)
        life.process.wait()


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_lost(
    live: Callable[[list[str]], Life],
    run: Run,
    pytestconfig: pytest.Config,
    name: str,
    number: signal.Signals,
    nr: int,
) -> None:
    chance = random.Random(f"{name} {number.name} {nr}")
    position = (nr + chance.random()) / pytestconfig.getoption("moments")
    command = COMMANDS[name]
    life = live([*command.argv, *options(name, nr, chance)])
    life.live_until(position, command.lines, chance)
    code = life.end(number)
    for _ in range(100):
        if not life.family():
            break
        time.sleep(0.05)
    assert not life.family()

    told = what_is_told(killed=code < 0)
    ends_as_documented(name, number, code, told)
    files = [*Path().glob("saved/*.xfd")]
    for file in files:
        assert parse(file.read_text(), str(file)).ops
    # a report may have what nobody was told of yet, but nothing that is not on disk
    assert {found.outcome.file for found in told if isinstance(found, Found)} <= {*files}
    if code < 0:
        assert run("fuzz", "--revision", "v7.3-cured", "--examples", "1", "--save", "saved", *reports())[0] == 0
    assert not [*Path().glob("**/.*")]


@pytest.mark.parametrize("number", SIGNALS[:2], ids=lambda number: number.name)
@pytest.mark.parametrize("name", ASKING)
def test_an_answer_is_given_with_what_is_known(
    live: Callable[[list[str]], Life], name: str, number: signal.Signals, some: int
) -> None:
    """While the first scope is explored, and later."""
    chance = random.Random(f"{name} {number.name} {some}")
    life = live([*ASKING[name], "--format", "json"])
    assert life.until(lambda: b"exploring tiny" in Path("err").read_bytes())
    time.sleep(chance.uniform(0.1, 0.6) * (1 + some))
    assert life.end(number) == 3
    out, err = Path("out").read_text(), Path("err").read_text()
    assert not life.family()
    assert "Traceback" not in out + err
    told = json.loads(out)
    assert told["interrupted"]
    looked = told if name == "field" else told["warnings"] if name == "review" else told
    assert looked["states"] if name == "field" else looked["checked"][0]["count"]


def options(name: str, nr: int, chance: random.Random) -> list[str]:
    """All reports, where findings go, and as many workers as it is this one's turn for."""
    more = ["--format", "json", *reports()]
    if COMMANDS[name].many:
        more += ["--workers", str(1 + (nr + chance.randrange(2)) % 2)]
    if name == "matrix":
        Path("programs").mkdir()
        for program in range(12):
            clean = replace(BREAKS, expect=(Expectation("amx-v1", "clean"),))
            Path(f"programs/{program}.xfd").write_text(format_program(clean))
        return more
    seed = [] if name == "explore" else ["--seed", str(chance.randrange(1000))]
    return [*more, *seed, "--save", "saved"]


def reports() -> list[str]:
    return ["--publish", *(word for name in FORMATS for word in ("--output", f"{name}={name}.out"))]


def what_is_told(killed: bool) -> list[Event]:
    """The events, once it is clear that every report is whole and has all that was printed, and no two differ.

    Reports are written one after another, so of a command that was killed some may lack the last finding.
    """
    texts = {name: Path(f"{name}.out").read_text() for name in FORMATS if Path(f"{name}.out").exists()}
    if killed and "jsonl" in texts:
        texts["jsonl"] = texts["jsonl"][: texts["jsonl"].rfind("\n") + 1]
    for name, text in texts.items():
        if text or name != "jsonl":
            check(name, text)
    told = [*read(texts.get("jsonl", ""))]
    named = {name: names(name, texts[name]) if name in texts else "" for name in FORMATS}
    every = {case for cases in junit(texts["junit"]).values() for case in bad(cases)} if "junit" in texts else set()
    every |= {*named["jsonl"].splitlines()}
    shown = printed()
    assert shown <= every
    for name in FORMATS:
        missing = {one for one in every if one not in named[name] and one.replace("#", "_") not in named[name]}
        assert len(missing) <= killed, name
        assert not shown & missing, name
    if told and not isinstance(told[-1], Ended) and not (killed and says_ended(texts)):
        not_green(texts)
    return told


def names(name: str, text: str) -> str:
    """The part of a report in which all that it tells of is named."""
    parts: Callable[[], list[str]] = {
        "junit": lambda: [case for cases in junit(text).values() for case in bad(cases)],
        "ktap": lambda: [case for cases in ktap(text).values() for case, state in cases.items() if state == "not ok"],
        "sarif": lambda: [
            one["partialFingerprints"]["xfdfuzzBucket/v1"] for run in sarif(text).values() for one in run["results"]
        ],
        "gitlab": lambda: [issue["description"] for issue in gitlab(text)],
        "b4": lambda: [b4_answer(text)["details"]],
        "github": lambda: [text],
        "jsonl": lambda: [*filter(None, map(subject, read(text)))],
    }[name]
    return "\n".join(parts())


def bad(cases: dict[str, Any]) -> list[str]:
    broken = (junitparser.Failure, junitparser.Error)
    return [name for name, result in cases.items() if isinstance(result, broken) and name != "ended"]


def subject(event: Event) -> str:
    """What an event says is new or wrong; nothing if it does not say so."""
    if isinstance(event, Found):
        return event.outcome.bucket
    return event.file if isinstance(event, ProgramJudged) and event.ok is False else ""


def printed() -> set[str]:
    """What the command has said on both streams, of which half a line says nothing."""
    err, out = (Path(name).read_text().rpartition("\n")[0] for name in ("err", "out"))
    found = {*re.findall(rf"^found (.+?){SEVERITY}, saved ", err, re.MULTILINE)}
    for line in out.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            found |= {one["bucket"] for key in RESULTS for one in row.get(key, ())}
            found |= {row["file"] for cell in row.get("verdicts", {}).values() if cell["expected"] is False}
    return found


def files_in(report: dict[str, Any]) -> set[str]:
    """What a search says of where its results are."""
    return {one["file"] for key in RESULTS for one in report.get(key, ())}


def says_ended(texts: dict[str, str]) -> bool:
    """Whether the first report has heard of the end already."""
    return all(cases["ended"] is None for cases in junit(texts["junit"]).values())


def not_green(texts: dict[str, str]) -> None:
    """That nobody takes the reports for those of a run that came to its end."""
    assert b4_answer(texts["b4"])["status"] != "pass"
    for ended in (cases["ended"] for cases in junit(texts["junit"]).values()):
        assert isinstance(ended, junitparser.Error)
    for ended in (cases["ended"] for cases in ktap(texts["ktap"]).values()):
        assert ended == "not ok"


def ends_as_documented(name: str, number: signal.Signals, code: int, told: list[Event]) -> None:
    """Exit code, one line that says it or a summary that does, and no traceback."""
    out, err = Path("out").read_text(), Path("err").read_text()
    # a worker that is just being started complains when its parent is killed
    assert code < 0 or "Traceback" not in out + err
    over = bool(told) and isinstance(told[-1], Ended)
    if code < 0:
        assert -code == number == signal.SIGKILL
    elif code == 1:  # it was over
        assert over
    else:
        assert code == 3, err
        assert "interrupted\n" in err or (over and told[-1].interrupted)  # type: ignore[union-attr]
    if code >= 0 and any(isinstance(event, Began) for event in told) and name != "matrix":
        assert over
        # annotations stand below the object
        assert files_in(json.loads(out.splitlines()[0])) == {str(file) for file in Path().glob("saved/*.xfd")}
