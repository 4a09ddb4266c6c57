"""A finding is accepted only after a fresh process, which has nothing but its text, saw the same bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from xfdfuzz.engines.judge.lockstep import Pair, differences
from xfdfuzz.engines.judge.verdict import judge
from xfdfuzz.invariants.loading import load, loaded_files
from xfdfuzz.program.program import Program
from xfdfuzz.program.text import format_program, parse
from xfdfuzz.revisions import Revision, resolve


class ConfirmError(Exception):
    """The fresh process could not judge; one line says why."""


def doubts(found: Sequence[tuple[str, Program]], *revisions: Revision) -> list[str]:
    """Why not to rely on what was found: a line for each (bucket, program) that a fresh process does not confirm."""
    if not found:
        return []
    try:
        seen = buckets_elsewhere([format_program(program) for _, program in found], *revisions)
    except ConfirmError as error:
        return [str(error)]
    return [
        f"{bucket} does not show in a fresh process"
        for (bucket, _), buckets in zip(found, seen, strict=True)
        if bucket not in buckets
    ]


def buckets_elsewhere(texts: Sequence[str], *revisions: Revision) -> list[list[str]]:
    """What each program breaks on the revision, as a new interpreter sees it; raises ConfirmError.

    Of two revisions, what differs between them.

    The interpreter gets this one's import path and not the current directory (-P), where anything may lie, and a
    session of its own, so that a Ctrl-C at the terminal leaves it to finish.
    """
    request = {
        "revisions": [revision.address for revision in revisions],
        "invariants": [str(file) for file in loaded_files()],
        "programs": list(texts),
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "xfdfuzz.engines.judge.confirm"],
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
    revisions = [resolve(address) for address in request["revisions"]]
    json.dump([_buckets(parse(text), revisions) for text in request["programs"]], answer_to)


def _buckets(program: Program, revisions: Sequence[Revision]) -> list[str]:
    if len(revisions) == 1:
        return list(judge(program, revisions[0], expectations=False).buckets)
    return [difference.bucket for difference in differences(program, Pair(*revisions))]


if __name__ == "__main__":
    main()
