"""Work spread over processes, through the interface of concurrent.futures.Executor only.

So it runs in this process, in a pool of this machine's, or in whatever else offers an Executor.  A composed kernel
class does not pickle, hence revisions travel as their addresses, programs as text and invariants as files.
"""

from __future__ import annotations

import functools
import multiprocessing
import signal
import traceback
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from xfdfuzz.invariants.core import InvariantError, load, loaded_files
from xfdfuzz.revisions import loaded_series


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


def place_in_users_files(error: BaseException) -> str:
    """``file:line`` of the user's own invariants or series that the error came up in, or nothing."""
    files = {*loaded_files(), *loaded_series()}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() in files]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


@contextmanager
def users_errors_named() -> Iterator[None]:
    """Turn an error in a user's own file into one line with its place: a traceback does not come out of a worker."""
    try:
        yield
    except Exception as error:
        place = place_in_users_files(error)
        if place and not isinstance(error, InvariantError):
            raise InvariantError(f"{place}: {type(error).__name__}: {error}") from None
        raise


def invariant_files() -> tuple[str, ...]:
    """The users' invariants that this process has loaded, for another one to load."""
    return tuple(map(str, loaded_files()))


@functools.cache
def load_invariants(files: tuple[str, ...]) -> None:
    """Load the project's invariants and the given files, unless they are here already."""
    here = set(loaded_files())
    load(file for file in map(Path, files) if file not in here)
