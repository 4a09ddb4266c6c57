"""How many findings a run came to, from its events (docs/formats.md), as the lines that GITHUB_OUTPUT takes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def events(text: str) -> Iterator[dict[str, Any]]:
    """The events of a report; what a killed run left of a last line is none."""
    lines = text.splitlines(keepends=True)
    for line in lines[1:]:
        if line.endswith("\n"):
            yield json.loads(line)


def counts(text: str) -> dict[str, int]:
    """``findings``: what shows, known or not; ``new``: what nobody knew; ``gone``: known and does not show any more."""
    told = [*events(text)]

    def buckets(*kinds: str) -> int:
        return len({(event["label"], event["bucket"]) for event in told if event["event"] in kinds})

    new = sum(event["event"] in ("Found", "Withheld") for event in told)
    return {"findings": new + buckets("KnownMet", "Expired"), "new": new, "gone": buckets("Gone")}


def main(path: Path) -> None:
    """Print them; nothing where a run did not come to search."""
    for name, count in counts(path.read_text()).items() if path.exists() else ():
        print(f"{name}={count}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
