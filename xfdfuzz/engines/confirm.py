"""A finding is accepted only after a fresh process, which has nothing but its text, saw the same bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from xfdfuzz.engines.replay import judge
from xfdfuzz.invariants.core import load, loaded_files
from xfdfuzz.program.text import parse
from xfdfuzz.revisions import Revision, resolve


class ConfirmError(Exception):
    """The fresh process could not judge; one line says why."""


def buckets_elsewhere(texts: Sequence[str], revision: Revision) -> list[list[str]]:
    """What each program breaks on the revision, as a new interpreter sees it; raises ConfirmError.

    The interpreter gets this one's import path and not the current directory (-P), where anything may lie, and a
    session of its own, so that a Ctrl-C at the terminal leaves it to finish.
    """
    request = {
        "revision": revision.address,
        "invariants": [str(file) for file in loaded_files()],
        "programs": list(texts),
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "xfdfuzz.engines.confirm"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    if done.returncode:
        raise ConfirmError(f"the confirming process failed: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
    answer: list[list[str]] = json.loads(done.stdout)
    return answer


def main() -> None:
    """Answer one request on standard input.  What users' invariants print goes to standard error."""
    answer_to, sys.stdout = sys.stdout, sys.stderr
    request = json.load(sys.stdin)
    load(Path(file) for file in request["invariants"])
    revision = resolve(request["revision"])
    answer = [judge(parse(text), revision, expectations=False).buckets for text in request["programs"]]
    json.dump(answer, answer_to)


if __name__ == "__main__":
    main()
