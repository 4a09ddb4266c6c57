"""What `--database` names, opened."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from xfdfuzz.cli.exits import BadInput
from xfdfuzz.cli.output import is_public

if TYPE_CHECKING:
    from hypothesis.database import ExampleDatabase

    from xfdfuzz.engines.search.database import Database

#: Days that Redis keeps what nobody asks for; a nightly job may rest for a holiday.
_DAYS = 60
#: Seconds that a server may take for an answer.
_PATIENCE = 2.0
#: The artifact of a repository's workflows: a directory that was a database.
_ARTIFACT = "xfdfuzz-database"


def open_databases(args: argparse.Namespace) -> list[Database]:
    """Each once; raises BadInput for a directory that nothing can be saved to, and where a package is missing.

    Where the public reads what is printed, it is not to find in a database what is not printed.
    Servers are asked when they are needed, not now.
    """
    from xfdfuzz.engines.search.database import Database
    from xfdfuzz.report.privacy import for_everybody

    rule = {"takes": for_everybody} if is_public(args) else {}
    return [Database(place, _opened(place), **rule) for place in dict.fromkeys(args.database)]


def saved_programs(directory: Path) -> Database:
    """The programs that stand in a directory, as a database that keeps nothing."""
    from xfdfuzz.engines.search.database import Database, ProgramFiles

    return Database(str(directory), ProgramFiles(directory))


def _opened(place: str) -> ExampleDatabase:
    url = urlsplit(place)
    if url.scheme == "redis":
        return _redis(place)
    if url.scheme == "github":
        return _github(url.netloc, url.path.strip("/"))
    return _directory(Path(place))


def _directory(path: Path) -> ExampleDatabase:
    from hypothesis.database import DirectoryBasedExampleDatabase

    from xfdfuzz.report.files import check_directory

    try:
        check_directory(path)
    except OSError as error:
        raise BadInput(f"cannot save to {path}: {error.strerror}") from None
    return DirectoryBasedExampleDatabase(path)


def _redis(place: str) -> ExampleDatabase:
    from datetime import timedelta

    try:
        from hypothesis.extra.redis import RedisExampleDatabase
        from redis import Redis
    except ImportError:
        raise BadInput(f"{place}: redis-py is not here: pip install 'xfdfuzz[redis]'") from None
    server = Redis.from_url(
        place, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE, retry=None, retry_on_error=[]
    )
    return RedisExampleDatabase(server, expire_after=timedelta(days=_DAYS), key_prefix=b"")


def _github(owner: str, repository: str) -> ExampleDatabase:
    """The latest artifact of that repository, read only; it is fetched once a day, with GITHUB_TOKEN."""
    from hypothesis.database import GitHubArtifactDatabase, ReadOnlyDatabase

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xfdfuzz" / owner / repository
    return ReadOnlyDatabase(GitHubArtifactDatabase(owner, repository, artifact_name=_ARTIFACT, path=cache))
