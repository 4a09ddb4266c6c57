"""Work spread over processes, through the interface of concurrent.futures.Executor only.

So it runs in this process, in a pool of this machine's, or in whatever else offers an Executor.  A composed kernel
class does not pickle, hence revisions travel as their addresses, programs as text and invariants as files.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from xfdfuzz.engines.processes.answering import STEP_TIMEOUT
from xfdfuzz.engines.processes.pool import Here, Member, Pool
from xfdfuzz.invariants.loading import load, loaded_files, users_files
from xfdfuzz.invariants.vocabulary import InvariantError
from xfdfuzz.revisions import series_files


@contextmanager
def workers(count: int, *, here_if_one: bool = False, step_timeout: float = STEP_TIMEOUT) -> Iterator[Member]:
    """``count`` processes, all gone when the block ends, in the middle of their work if there is any left.

    With ``here_if_one`` a single worker is the calling thread, so that nothing has to be started for a little work.
    A user's function may take ``step_timeout`` seconds in another process.
    """
    if count == 1 and here_if_one:
        yield Here()
        return
    with Pool(count, step_timeout) as pool:
        yield pool


@contextmanager
def crew(count: int, step_timeout: float, executor: str | None = None) -> Iterator[list[Member]]:
    """``count`` members, one process each, which all end with the block; ``step_timeout`` as :func:`workers` has it.

    With ``executor``, the address of a cluster, all of its workers instead.
    """
    if executor is not None:
        from xfdfuzz.engines.processes.cluster import cluster

        with cluster(executor) as members:
            yield members
        return
    with ExitStack() as stack:
        yield [stack.enter_context(Pool(1, step_timeout)) for _ in range(count)]


def place_in_users_files(error: BaseException) -> str:
    """``file:line`` of the user's own invariants or series that the error came up in, or nothing."""
    files = users_files() | series_files()
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
