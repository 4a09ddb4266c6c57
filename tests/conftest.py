"""What every test is given back as it was, and the command line to run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from xfdfuzz import cli
from xfdfuzz.invariants import loading, sometimes, vocabulary
from xfdfuzz.revisions.table import NAMED

ROOT = Path(__file__).parent.parent
# Trio, which Selenium brings along, is a plugin of Hypothesis and brings pytest along: a third of the start of each of
# the hundreds of processes that the tests start
os.environ["HYPOTHESIS_NO_PLUGINS"] = "1"
_SAME = """\
from xfdfuzz import Series
from xfdfuzz.kernel.fpu.xstate import Xstate

series = Series("{name}", base="v7.3", title="same")


@series.patch("{name}-1", "x86/fpu: the same")
class Same(Xstate):
    def write_state_perm(self, *arguments):
        super().write_state_perm(*arguments)
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """What test_moments.py takes."""
    parser.addoption(
        "--moments", type=int, default=1, metavar="N", help="moments at which each signal ends each command (1)"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests were skipped, and what would bring them: a reason ends in what installs what is missing."""
    reasons = [report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", ())]
    if not reasons:
        return
    verb = "test was" if len(reasons) == 1 else "tests were"
    terminalreporter.write_line(f"{len(reasons)} {verb} skipped. What would bring them:")
    for remedy, count in Counter(reason.rpartition(": ")[2] for reason in reasons).most_common():
        terminalreporter.write_line(f"{count:4}  {remedy}")


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """Commands that tests start can be interrupted, even if the tests run in the background, where a shell has Ctrl-C
    ignored by all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """Forget the invariants, the goals and the series that a test loads from files of its own."""
    loading.load_once()
    registries: tuple[dict[Any, Any], ...] = (vocabulary.INVARIANTS, loading._FILES, sometimes.GOALS, NAMED)
    before = [(registry, dict(registry)) for registry in registries]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)


@pytest.fixture(autouse=True, scope="module")
def _series() -> Iterator[None]:
    """Forget the series that fixtures load which the tests of a module share."""
    before = dict(NAMED)
    yield
    NAMED.clear()
    NAMED.update(before)


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What users install."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A command line: its exit code, standard output and standard error."""

    def call(*argv: str) -> tuple[int, str, str]:
        code = cli.main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def same() -> Callable[[str, str], Path]:
    """Writes a file with a series that changes nothing of v7.3, but replaces something, as a series has to."""

    def call(file: str, name: str) -> Path:
        Path(file).write_text(_SAME.format(name=name))
        return Path(file)

    return call
