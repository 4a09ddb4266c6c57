"""A finding is accepted only after a fresh process, which has nothing but its text, saw the same bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import xfdfuzz.invariants as package
from xfdfuzz.engines.replay import judge
from xfdfuzz.invariants.core import INVARIANTS, load
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import Revision, resolve


def buckets_elsewhere(texts: Sequence[str], revision: Revision) -> list[list[str]]:
    """What each program breaks on the revision, as a new interpreter sees it.

    Raises RuntimeError when that interpreter fails.
    """
    request = {
        "revision": revision.name,
        "apply": list(revision.applied),
        "revert": list(revision.reverted),
        "invariants": _files_of_the_user(),
        "programs": list(texts),
    }
    command = [sys.executable, "-m", "xfdfuzz.engines.confirm"]
    # the same modules, also where xfdfuzz is run from a checkout without being installed
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        command, input=json.dumps(request), capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"the confirming process failed: {done.stderr.strip().splitlines()[-1:]}")
    answer: list[list[str]] = json.loads(done.stdout)
    return answer


def _files_of_the_user() -> list[str]:
    """The files that `--invariants` named."""
    own = {str(Path(folder).resolve()) for folder in package.__path__}
    files = {Path(i.predicate.__code__.co_filename).resolve() for i in INVARIANTS.values()}
    return sorted(str(file) for file in files if str(file.parent) not in own)


def main() -> None:
    """Answer one request on standard input."""
    request = json.load(sys.stdin)
    load(Path(file) for file in request["invariants"])
    revision = resolve(request["revision"], request["apply"], request["revert"])
    answer = [judge(parse(text), revision, expectations=False).buckets for text in request["programs"]]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
