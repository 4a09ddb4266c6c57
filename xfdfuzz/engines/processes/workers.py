"""Work spread over processes, through the interface of concurrent.futures.Executor only.

So it runs in this process, in a pool of this machine's, or in whatever else offers an Executor.  A composed kernel
class does not pickle, hence revisions travel as their addresses, programs as text and invariants as files.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from xfdfuzz.invariants.loading import load, loaded_files
from xfdfuzz.invariants.vocabulary import InvariantError
from xfdfuzz.revisions import loaded_series

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def workers(count: int, *, here_if_one: bool = False) -> Iterator[Executor]:
    """``count`` processes, all gone when the block ends; when it ends with an exception, in the middle of their work.

    With ``here_if_one`` a single worker is the calling thread, so that nothing has to be started for a little work.
    """
    if count == 1 and here_if_one:
        yield _Here()
        return
    others = multiprocessing.active_children()
    pool = _Pool(count, multiprocessing.get_context("spawn"), initializer=_live_as_long_as_the_parent)
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        with _interrupts_held_back():
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            # the pool's thread is waited for too: Python's own end wakes it up while it may be closing that very pipe
            pool.shutdown(cancel_futures=True)
        raise


class _Here(Executor):
    """Work is done by whoever asks for it: ``submit()`` at once, ``map()`` when its results are taken one by one."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        return map(fn, *iterables)


class _Pool(ProcessPoolExecutor):
    """Its processes are started by ``submit()``, and inherit that SIGINT is held back until they ignore it."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with _interrupts_held_back():
            return super().submit(fn, *args, **kwargs)

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Cancel nothing when the caller is interrupted: in Python 3.11 the thread of a pool whose processes are
        terminated fails on work that is cancelled already, and says so on standard error."""
        futures = deque(self.submit(fn, *arguments) for arguments in zip(*iterables, strict=False))
        return (futures.popleft().result() for _ in range(len(futures)))


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C comes when the block has ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _live_as_long_as_the_parent() -> None:
    """Leave Ctrl-C to the parent, and do not go on when it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


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
    except (Exception, SystemExit) as error:
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
