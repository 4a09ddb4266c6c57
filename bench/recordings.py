"""Which patches of mainline the recorded results tell: `python -m bench.recordings [COMMIT...]`, some minutes.

Each patch of the queue is left out of every recorded kernel that has it, and added to every other one; told is a patch
with which `xfdfuzz conform` finds a difference.  docs/fidelity.md lists the others, which nothing recorded confirms.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from xfdfuzz.engines.conform.recording import Explanation, Recording, explanations, read
from xfdfuzz.engines.conform.score import judge, model_of
from xfdfuzz.revisions import RevisionError, resolve
from xfdfuzz.revisions.queue import PATCHES
from xfdfuzz.revisions.table import named

TRACES = Path(__file__).parent.parent / "tests" / "traces"


def main() -> None:
    """Print a line for each patch: where it is told, or that it is not, or cannot be tried."""
    parser = argparse.ArgumentParser(prog="python -m bench.recordings", description=__doc__)
    parser.add_argument("commits", nargs="*", default=list(PATCHES), metavar="COMMIT")
    for commit in parser.parse_args().commits:
        tried = list(_tried(commit))
        told = next((file for file, different in tried if different), None)
        print(f"{commit:16} {told or ('not told' if tried else 'not alone')}", flush=True)


def _tried(commit: str) -> Iterator[tuple[str, bool]]:
    """Each file of recordings with the patch changed, and whether that is told, up to the first one that tells it."""
    for file in sorted(TRACES.glob("linux-*/*.jsonl")):
        found = tells(commit, file)
        if found is not None:
            yield f"{file.parent.name}/{file.name}", found
        if found:
            return


def tells(commit: str, file: Path) -> bool | None:
    """Whether the recordings of a file tell the patch; None if it cannot be added to, or left out of, their kernel."""
    recordings, explained = _recordings(file)
    name = model_of(recordings[0])
    has = commit in {patch.commit for patch in named(name).stack}
    try:
        revision = resolve(name, revert=[commit]) if has else resolve(name, apply=[commit])
    except RevisionError:
        return None
    return any(judge(recording, revision, explained).different for recording in recordings)


@cache
def _recordings(file: Path) -> tuple[list[Recording], list[Explanation]]:
    return list(read(file)), explanations(file.parent)


if __name__ == "__main__":
    main()
