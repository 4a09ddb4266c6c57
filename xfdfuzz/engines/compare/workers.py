"""Work spread over processes, through the interface of concurrent.futures.Executor only.

So it runs in this process, in a pool of this machine's, or in whatever else offers an Executor.  A composed kernel
class does not pickle, hence revisions travel as their addresses, programs as text and invariants as files.
"""

from __future__ import annotations

import functools
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from xfdfuzz.invariants.core import load, loaded_files


@contextmanager
def workers(count: int) -> Iterator[Executor]:
    """``count`` processes; one works in this process, where nothing has to be started for it."""
    if count == 1:
        with ThreadPoolExecutor(1) as thread:
            yield thread
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=_leave_interrupts_to_the_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def invariant_files() -> tuple[str, ...]:
    """The users' invariants that this process has loaded, for another one to load."""
    return tuple(map(str, loaded_files()))


@functools.cache
def load_invariants(files: tuple[str, ...]) -> None:
    """Load the project's invariants and the given files, unless they are here already."""
    here = set(loaded_files())
    load(file for file in map(Path, files) if file not in here)
