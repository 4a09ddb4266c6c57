"""A pool of processes each of which may die at any moment and takes nothing along but what it was doing.

``ProcessPoolExecutor`` has queues and locks that its processes share: one that is killed while it writes a result stops
the others and whoever waits for them, and one that dies otherwise ends all of them.  Here each process is at the other
end of a pipe of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar

from xfdfuzz.engines.processes.answering import answers_within
from xfdfuzz.engines.processes.interrupt import INTERRUPTS

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")

#: So many processes in a row may die at the same work.
_DEATHS = 3
#: What a process has of work: one piece that it does, and one that it finds when that is done.
_AHEAD = 2


class Member(Executor):
    """One who works; where a process dies at it, the future raises BrokenExecutor and another process is there for the
    next piece."""

    @property
    def ready(self) -> bool:
        """Whether there is somebody to be given work."""
        return True

    def recall(self) -> None:
        """Ask for a report of what is under way, where there is somebody to be asked."""


class Here(Member):
    """Work is done by whoever asks for it: ``submit()`` at once, ``map()`` when its results are taken one by one."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As Executor has it."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """As Executor has it."""
        return map(fn, *iterables)


class _Piece(NamedTuple):
    """A piece of work: a call, pickled, and who waits for what comes of it."""

    future: Future[Any]
    call: bytes


class Pool(Member):
    """``count`` processes, started for the first work; all are gone when the block ends, in the middle of their work if
    there is any left.

    A user's function may take ``step_timeout`` seconds there.
    """

    def __init__(self, count: int, step_timeout: float) -> None:
        self._work: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._ended = False
        self._keepers = [_Keeper(self._work, lambda: self._ended, step_timeout) for _ in range(count)]

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As Executor has it."""
        future: Future[T] = Future()
        self._work.put(_Piece(future, pickle.dumps((fn, args, kwargs))))
        for keeper in self._keepers:
            keeper.begin()
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """As Executor has it, but that it goes on behind a piece that was lost."""
        return map(Future.result, [self.submit(fn, *arguments) for arguments in zip(*iterables, strict=False)])

    def recall(self) -> None:
        """Ask all processes."""
        for keeper in self._keepers:
            keeper.signal(signal.SIGTERM)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        for _ in self._keepers:
            self._work.put(None)
        for keeper in self._keepers:
            keeper.signal(signal.SIGKILL)
        for keeper in self._keepers:
            keeper.end()


def in_spite_of_deaths(
    pool: Executor,
    do: Callable[[A], T],
    again: Callable[[A], T],
    pieces: Sequence[A],
    on_lost: Callable[[str], None],
) -> Iterator[T]:
    """What ``do`` gives for each piece of work, in their order.

    Where a process died at one, ``on_lost`` is told why and ``again`` does it; at the third death in a row that raises
    BrokenExecutor.
    """
    results = pool.map(do, pieces)
    for piece in pieces:
        try:
            result = next(results)
        except BrokenExecutor as error:
            result = _again(pool, again, piece, error, on_lost)
        yield result


def _again(
    pool: Executor, again: Callable[[A], T], piece: A, error: BrokenExecutor, on_lost: Callable[[str], None]
) -> T:
    for _ in range(_DEATHS - 1):
        on_lost(str(error))
        try:
            return pool.submit(again, piece).result()
        except BrokenExecutor as another:
            error = another
    raise error


class _Keeper:
    """Has one process, and a thread that hands work to it and waits for what comes of it."""

    #: Python does not say that processes may be started by two threads at once.
    _start = threading.Lock()

    def __init__(self, work: queue.SimpleQueue[_Piece | None], ended: Callable[[], bool], step_timeout: float) -> None:
        self._work, self._ended, self._step_timeout = work, ended, step_timeout
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._process: BaseProcess | None = None
        self._given: deque[Future[Any]] = deque()

    def begin(self) -> None:
        """Start the thread, unless it is there."""
        if self._thread.ident is None:
            self._thread.start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        with self._start:
            if self._process is not None and self._process.is_alive() and self._process.pid:
                os.kill(self._process.pid, number)

    def end(self) -> None:
        """Wait for the thread, and let nobody wait for anything else."""
        if self._thread.ident is not None:
            self._thread.join()

    def _keep(self) -> None:
        # multiprocessing lets signals through again when it has started this helper, so that comes first
        resource_tracker.ensure_running()
        # what is started from here on inherits that signals are held back, until it has said what they do
        signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
        while (piece := self._work.get()) is not None:
            try:
                pipe = self._begin_process()
            except OSError as error:
                piece.future.set_exception(error)
                continue
            with pipe, suppress(EOFError, OSError):
                self._feed(pipe, piece)
            self._bury()

    def _begin_process(self) -> Connection:
        """A process and this end of its pipe; none where all is over."""
        ours, theirs = multiprocessing.Pipe()
        with self._start, theirs:
            if not self._ended():
                context = multiprocessing.get_context("spawn")
                self._process = context.Process(target=_work, args=(theirs, self._step_timeout), daemon=True)
                self._process.start()
        return ours

    def _feed(self, pipe: Connection, piece: _Piece | None) -> None:
        """Give work and take results until there is no more; raises EOFError or OSError when the process is dead."""
        while True:
            while piece is not None:
                self._given.append(piece.future)
                pipe.send_bytes(piece.call)
                piece = self._next(wait=False) if len(self._given) < _AHEAD else None
            good, value = pipe.recv()
            future = self._given.popleft()
            if good:
                future.set_result(value)
            else:
                future.set_exception(value)
            if not self._given:
                piece = self._next(wait=True)
                if piece is None:
                    return
            else:
                piece = self._next(wait=False)

    def _next(self, *, wait: bool) -> _Piece | None:
        """The next piece; None if there is none now, or with ``wait`` none ever."""
        try:
            piece = self._work.get(block=wait)
        except queue.Empty:
            return None
        if piece is None:
            self._work.put(None)  # for whoever waits
        return piece

    def _bury(self) -> None:
        """The process is dead, or is to be."""
        with self._start:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.join()
        while self._given:
            self._given.popleft().set_exception(BrokenExecutor("its process died"))


def _work(pipe: Connection, step_timeout: float) -> None:
    """What a process of a pool does: Ctrl-C and SIGTERM are for the parent, with whom it ends."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(pipe, calls), daemon=True).start()
    with answers_within(step_timeout):
        while True:
            pipe.send_bytes(_answer(calls.get()))


def _read(pipe: Connection, calls: queue.SimpleQueue[bytes]) -> None:
    """Take calls from the pipe at once, so that a parent that sends and a process that answers never wait for each
    other; without a parent there is nothing to go on for."""
    with suppress(EOFError, OSError):
        while True:
            calls.put(pipe.recv_bytes())
    os._exit(1)


def _answer(call: bytes) -> bytes:
    good, value = _called(call)
    try:
        return pickle.dumps((good, value))
    except Exception as error:
        return pickle.dumps((False, RuntimeError(f"a result cannot travel: {error}")))


def _called(call: bytes) -> tuple[bool, Any]:
    """Whether a call returned, and what; or what it raised, with its traceback as a note."""
    try:
        fn, args, kwargs = pickle.loads(call)
        return True, fn(*args, **kwargs)
    except BaseException as error:
        error.add_note("".join(traceback.format_exception(error)))
        return False, error
