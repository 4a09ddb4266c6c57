"""Standard output and standard error as a shell may leave them: closed, full, or in an encoding that lacks a letter."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TextIO


class _BestEffort(io.TextIOWrapper):
    """Standard error: where it cannot be written to, what it is told is lost, and nothing else."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            drop(self)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            drop(self)


def prepare() -> None:
    """Make both fit for any text; raises OSError if there is no standard output."""
    err = sys.stderr
    if err is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as long as the process
    elif err is sys.__stderr__ and isinstance(err, io.TextIOWrapper):
        sys.stderr = _BestEffort(err.buffer, err.encoding, "backslashreplace", line_buffering=True)
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def drop(stream: TextIO | None) -> None:
    """What is still buffered, and what comes, goes nowhere, or Python would complain about it at exit."""
    if stream is None:
        return
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
