"""A finding is accepted only after a fresh process, which has nothing but its text, saw the same bucket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import IO

from xfdfuzz.engines.judge.lockstep import Pair, differences
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.invariants.loading import load, loaded_files
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.revisions import Revision, resolve

#: Seconds that the last answers may take, and when somebody waits for the end; seconds between two looks at that.
_PATIENCE, _HURRY, _LOOK = 60.0, 1.5, 0.1


class ConfirmError(Exception):
    """The fresh process could not judge; one line says why."""


class Confirmer:
    """A fresh process that judges programs while the search goes on, so that its end waits for the last one only.

    It is started by the first program.  The interpreter gets this one's import path and not the current directory (-P),
    where anything may lie, and a session of its own, so that a Ctrl-C at the terminal leaves it to finish.  It does not
    outlive the block.
    """

    def __init__(self, *revisions: Revision) -> None:
        self._about = {
            "revisions": [revision.address for revision in revisions],
            "invariants": [str(file) for file in loaded_files()],
        }
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[bytes] | None = None
        # its one thread waits for the answers: this one must not
        self._waiter = ThreadPoolExecutor(1)
        self._asked: dict[Future[list[str]], str] = {}

    def __enter__(self) -> Confirmer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiter.shutdown(wait=False, cancel_futures=True)
        if self._process is not None:
            self._process.kill()
            self._waiter.shutdown()
            self._process.communicate()
        if self._errors is not None:
            self._errors.close()

    def ask(self, bucket: str, program: Program) -> None:
        """Let the process look whether the program shows the bucket."""
        process = self._started()
        self._asked[self._waiter.submit(self._answer, process, format_program(program))] = bucket

    def answers(self, patience: float = 0.0) -> Iterator[tuple[str, str]]:
        """For each program that was judged since: its bucket, and why it is doubted; empty: it is not.

        Waits ``patience`` seconds for those that are not judged yet.
        """
        end = time.monotonic() + patience
        while self._asked:
            done, _ = wait(self._asked, timeout=max(0.0, end - time.monotonic()), return_when=FIRST_COMPLETED)
            if not done:
                return
            for future in [future for future in self._asked if future in done]:
                bucket = self._asked.pop(future)
                yield bucket, _doubt(bucket, future)

    def last_answers(self, hurried: Callable[[], bool]) -> Iterator[tuple[str, str]]:
        """As :meth:`answers`, until all are there.  ``hurried`` says whether somebody waits for the end: then what is
        not judged soon is doubted, as is what is not judged at all."""
        began = time.monotonic()
        hurry: float | None = None
        while self._asked:
            yield from self.answers(_LOOK)
            if hurry is None and hurried():
                hurry = time.monotonic()
            if time.monotonic() - began > _PATIENCE or (hurry is not None and time.monotonic() - hurry > _HURRY):
                break
        for bucket in self._asked.values():
            yield bucket, f"{bucket}: the end came before a fresh process had confirmed it"

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed with the block)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "xfdfuzz.engines.judge.confirm"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
            self._waiter.submit(self._send, self._process, self._about)
        return self._process

    def _send(self, process: subprocess.Popen[str], value: object) -> None:
        assert process.stdin is not None
        try:
            print(json.dumps(value), file=process.stdin, flush=True)
        except OSError:
            raise ConfirmError(self._last_words(process)) from None

    def _answer(self, process: subprocess.Popen[str], text: str) -> list[str]:
        assert process.stdout is not None
        self._send(process, text)
        line = process.stdout.readline()
        if not line:
            raise ConfirmError(self._last_words(process))
        answer: list[str] = json.loads(line)
        return answer

    def _last_words(self, process: subprocess.Popen[str]) -> str:
        assert self._errors is not None
        process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the confirming process failed: {(said or ['no reason'])[-1]}"


def _doubt(bucket: str, judged: Future[list[str]]) -> str:
    try:
        return "" if bucket in judged.result() else f"{bucket} does not show in a fresh process"
    except ConfirmError as error:
        return str(error)


def main() -> None:
    """Answer what comes on standard input, a line each.  What users' invariants print goes to standard error.

    Signals are for who asks: without that one there is no more to read, and it ends.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    answer_to, sys.stdout = sys.stdout, sys.stderr
    about = json.loads(sys.stdin.readline())
    load(Path(file) for file in about["invariants"])
    revisions = [resolve(address) for address in about["revisions"]]
    for line in sys.stdin:
        print(json.dumps(buckets(parse(json.loads(line)), *revisions)), file=answer_to, flush=True)


def buckets(program: Program, *revisions: Revision) -> list[str]:
    """What the program breaks on the revision; of two revisions, what differs between them."""
    if len(revisions) == 1:
        return list(judge(program, revisions[0], expectations=False).buckets)
    return [difference.bucket for difference in differences(program, Pair(*revisions))]


if __name__ == "__main__":
    main()


def without_names(doubts: Iterable[str], buckets: Collection[str]) -> tuple[str, ...]:
    """The doubts, of which none names one of the buckets."""
    hidden = "a fresh process does not confirm what is not shown"
    return tuple(dict.fromkeys(hidden if any(b in doubt for b in buckets) else doubt for doubt in doubts))
