"""SPIN: make a verifier of the Promela model, run it, read what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.graph import SITES

MODEL = Path(__file__).parent / "amx_v1.pml"
TOOLS = ("spin", "gcc")
#: What tells amx-review-a's model from amx-v1's.
DEFINES: dict[str, tuple[str, ...]] = {"amx-v1": (), "amx-review-a": ("-DREVIEW_A",)}
#: A verifier's hash table has 2 to that power slots.
_HASH = 16


def missing() -> str:
    """Which of the tools is not here, if any."""
    return next((tool for tool in TOOLS if not shutil.which(tool)), "")


@dataclass(frozen=True)
class Run:
    """What a command printed, and the CPU seconds that it took."""

    output: str
    seconds: float

    def number(self, pattern: str) -> int:
        """The number before or after a text of pan's report."""
        match = re.search(pattern, self.output)
        if not match:
            raise SystemExit(f"bench.peers: pan did not say {pattern!r}:\n{self.output}")
        return int(match[1])

    @property
    def states(self) -> int:
        """How many states it met."""
        return self.number(r"(\d+) states, stored")

    @property
    def transitions(self) -> int:
        """How many transitions it made: pan counts the first state as one."""
        return self.number(r"(\d+) transitions \(= ") - 1

    @property
    def megabytes(self) -> float:
        """What it used by its own account."""
        match = re.search(r"([\d.]+)\s+total actual memory usage", self.output)
        return float(match[1]) if match else 0.0

    @property
    def errors(self) -> int:
        """How many it found."""
        return self.number(r"errors: (\d+)")


def timed(command: Sequence[str | Path], cwd: Path) -> Run:
    """Run a command that ought to succeed."""
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"bench.peers: {command[0]} failed:\n{output}")
    return Run(output, usage.ru_utime + usage.ru_stime)


@dataclass(frozen=True)
class Verifier:
    """A compiled pan in a directory of its own, and what made it."""

    directory: Path
    defines: tuple[str, ...]

    def run(self, *arguments: str, slots: int = _HASH) -> Run:
        """Verify, with a hash table of 2 to the power ``slots``."""
        return timed([self.directory / "pan", f"-w{slots}", *arguments], self.directory)

    def trail(self) -> list[int]:
        """The ops, by number, of the error that was found last; the model is compiled with -DTRACE."""
        output = timed(["spin", *self.defines, "-t", MODEL.name], self.directory).output
        return [int(line.split()[1]) for line in output.splitlines() if re.fullmatch(r"\s*op \d+", line)]


def verifier(directory: Path, name: str, defines: Sequence[str], flags: Sequence[str]) -> Verifier:
    """Make a verifier from the model under ``defines``."""
    place = directory / name
    place.mkdir()
    shutil.copy(MODEL, place)
    timed(["spin", *defines, "-a", MODEL.name], place)
    timed(["gcc", "-O2", *flags, "-o", "pan", "pan.c"], place)
    return Verifier(place, tuple(defines))


def at_site(directory: Path, revision: str, function: str, *defines: str) -> Verifier:
    """One that looks breadth-first for a WARN or a fault in a function."""
    every = [*DEFINES[revision], f"-DSITE={SITES[function]}", *defines]
    return verifier(directory, f"{revision}-{function}{''.join(defines)}", every, ["-DSAFETY", "-DBFS"])
