"""The workers of a Dask cluster as members of a crew.

Each member has one worker's process for itself, because what searches goes on there where it was.  A worker that is
gone is not waited for: its member gets another one, if there is any that no member has, such as the one that the dead
one's nanny starts.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, InvalidStateError
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from xfdfuzz.engines.processes.interrupt import ask_for_report
from xfdfuzz.engines.processes.pool import Member

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that a scheduler may take for an answer, and a cluster without workers for the first one.
_PATIENCE = 8.0
#: Seconds between two looks at which workers there are.
_LOOK = 0.5
#: Seconds that a cluster may be without any worker.
_ALONE = 30.0


class NoClusterError(Exception):
    """There is no cluster to work with; as text it is one line that says why."""


@contextmanager
def cluster(address: str) -> Iterator[list[Member]]:
    """A member for each worker of the cluster whose scheduler is at ``address``, ``dask://HOST:PORT``.

    Raises NoClusterError, within seconds, where nobody answers, where there are no workers, where one has no xfdfuzz or
    another one than this, where Dask is not installed, and at the end where no worker is left.
    """
    client = _client(address)
    workers = _Workers(client, address)
    try:
        workers.wait_for_first()
        yield [_Member(workers) for _ in workers.alive]
        if not workers.alive:
            raise NoClusterError(f"{address}: no worker is left")
    finally:
        workers.end()
        client.close(timeout=_PATIENCE)


def _client(address: str) -> Any:
    """Connected; in a thread, as connecting to what accepts and is silent has no end in spite of its timeout."""
    try:
        from distributed import Client
    except ImportError:
        raise NoClusterError(f"{address}: Dask is not here: pip install 'xfdfuzz[dask]'") from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what is to be told, is told in a line
    made: Future[Any] = Future()

    def connect() -> None:
        try:
            where = address.replace("dask://", "tcp://", 1)
            made.set_result(Client(where, timeout=_PATIENCE, set_as_default=False))  # type: ignore[no-untyped-call]
        except Exception as error:
            made.set_exception(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        return made.result(_PATIENCE + 1)
    except (OSError, TimeoutError):
        raise NoClusterError(f"{address}: no Dask scheduler answers within {_PATIENCE:g} s") from None


@cache
def fingerprint() -> str:
    """What tells this xfdfuzz from one that may judge otherwise: a digest of all its modules."""
    root = Path(__file__).parents[2]
    folders = (root, root / "strategies", root / "invariants")  # the latter may be links, which rglob() leaves out
    files = {file.relative_to(root): file for folder in folders for file in folder.rglob("*.py")}
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(files[name].read_bytes())
    return digest.hexdigest()[:12]


class _Workers:
    """Those of a cluster, looked at twice a second; ``alive`` are the addresses of such as can be used."""

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address = client, address
        self._lock = threading.Lock()
        self._members: list[_Member] = []
        self._judged: dict[str, str] = {}
        self._recalled = False
        self._ended = threading.Event()
        self._last_seen = time.monotonic()
        self.alive: set[str] = set()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def wait_for_first(self) -> None:
        """Until there is a worker; raises NoClusterError."""
        end = time.monotonic() + _PATIENCE
        while not self.alive:
            self._look()
            for worker, fault in self._judged.items():
                if fault:
                    raise NoClusterError(f"{self._address}: worker {worker} {fault}")
            if time.monotonic() > end:
                raise NoClusterError(f"{self._address}: the cluster has no workers")
            time.sleep(0 if self.alive else _LOOK)
        self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)

    def join(self, member: _Member) -> None:
        """Tell a member of its worker's end from now on."""
        self._members.append(member)

    def seat(self, member: _Member) -> bool:
        """Whether the member has a worker, or could be given one just now; raises NoClusterError where there has been
        none for long."""
        with self._lock:
            if member.address is None:
                free = self.alive - {other.address for other in self._members if other.address}
                member.address = min(free, default=None)
            if not self.alive and time.monotonic() - self._last_seen > _ALONE:
                raise NoClusterError(f"{self._address}: there has been no worker for {_ALONE:g} s")
            return member.address is not None

    def submit(self, address: str, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """A call in that worker's process."""
        executor = self._client.get_executor(pure=False, workers=[address], allow_other_workers=False, retries=0)
        future: Future[T] = executor.submit(fn, *args, **kwargs)
        return future

    def recall(self) -> None:
        """Ask all workers at once for a report of what is under way, for good; nobody waits for that to arrive."""
        if not self._recalled:
            self._recalled = True
            ask = partial(self._client.run, ask_for_report, workers=sorted(self.alive), on_error="ignore")
            threading.Thread(target=_in_vain_at_worst, args=(ask,), daemon=True).start()

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK):
            self._look()

    def _look(self) -> None:
        try:
            # to a scheduler that is gone a call would wait for as long as that may take to come back
            addresses = set(self._client.nthreads()) if self._client.status == "running" else set()
            self._judge(addresses - self._judged.keys())
        except Exception:  # the scheduler is gone, in whichever of many ways
            addresses = set()
        with self._lock:
            self.alive = {address for address in addresses if self._judged.get(address) == ""}
            lost = [member for member in self._members if member.address and member.address not in self.alive]
            if self.alive:
                self._last_seen = time.monotonic()
        for member in lost:
            member.lose()

    def _judge(self, new: set[str]) -> None:
        """Look what xfdfuzz each new worker has."""
        if not new:
            return
        answers = self._client.run(fingerprint, workers=sorted(new), on_error="return")
        for address, answer in answers.items():
            if answer == fingerprint():
                self._judged[address] = ""
            elif isinstance(answer, str):
                self._judged[address] = f"has another xfdfuzz, {answer}, than this one, {fingerprint()}"
            else:
                self._judged[address] = f"cannot be used: {type(answer).__name__}: {answer}"


class _Member(Member):
    """Whoever works at ``address``, None: nobody at present."""

    def __init__(self, workers: _Workers) -> None:
        self._workers = workers
        self._under_way: tuple[Future[Any], Future[Any]] | None = None
        self.address: str | None = None
        workers.join(self)

    @property
    def ready(self) -> bool:
        """Whether somebody is there."""
        return self._workers.seat(self)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As Executor has it; one call at a time."""
        future: Future[T] = Future()
        if not self.ready or self.address is None:
            future.set_exception(BrokenExecutor("its cluster has no worker for it"))
            return future
        theirs = self._workers.submit(self.address, fn, *args, **kwargs)
        self._under_way = future, theirs
        theirs.add_done_callback(partial(_hand_over, future))
        return future

    def recall(self) -> None:
        """Ask the worker, as all others."""
        self._workers.recall()

    def lose(self) -> None:
        """The worker is gone."""
        address, self.address = self.address, None
        if self._under_way is not None:
            future, theirs = self._under_way
            with suppress(InvalidStateError):
                future.set_exception(BrokenExecutor(f"the cluster's worker {address} is gone"))
            theirs.cancel()


def _in_vain_at_worst(ask: Callable[[], Any]) -> None:
    with suppress(Exception):
        ask()


def _hand_over(future: Future[T], theirs: Future[T]) -> None:
    """Give on what came of a call, unless nobody waits for it any more."""
    from distributed import KilledWorker

    with suppress(InvalidStateError):
        try:
            future.set_result(theirs.result())
        except (KilledWorker, CancelledError) as error:
            future.set_exception(BrokenExecutor(f"the cluster lost it: {type(error).__name__}"))
        except BaseException as error:
            future.set_exception(error)
