"""What every test is given back as it was, and the command line to run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from xfdfuzz import cli
from xfdfuzz.invariants import core, sometimes
from xfdfuzz.revisions import outside


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """Commands that tests start can be interrupted, even if the tests run in the background, where a shell has Ctrl-C
    ignored by all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """Forget the invariants, the goals and the series that a test loads from files of its own."""
    core.load()
    registries: tuple[dict[Any, Any], ...] = (
        *(core.INVARIANTS, core._FILES, sometimes.GOALS),
        *(outside.OUTSIDE, outside._FILES),
    )
    before = [(registry, dict(registry)) for registry in registries]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A command line: its exit code, standard output and standard error."""

    def call(*argv: str) -> tuple[int, str, str]:
        code = cli.main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
