"""The effort in lines: what of each tool's text the scope needs."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

from bench.peers import explorer, spin

_ROOT = Path(__file__).parents[2]


def promela() -> tuple[int, int]:
    """Lines of the model with code, and how many of them print steps for the comparison."""
    text = re.sub(r"/\*.*?\*/", "", spin.MODEL.read_text(), flags=re.DOTALL)
    tracing = sum(len(_coded(part)) for part in re.findall(r"#ifdef TRACE\n.*?#endif\n", text, flags=re.DOTALL))
    return len(_coded(text)), tracing


def _coded(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def python(revision: str) -> Counter[str]:
    """Lines with code of all functions that exploring the scope calls, by room; of revisions by file."""
    codes: set[CodeType] = set()

    def note(frame: FrameType, event: str, arg: object) -> None:
        codes.add(frame.f_code)

    sys.setprofile(note)
    try:
        explorer.run(revision)
    finally:
        sys.setprofile(None)
    lines = {(code.co_filename, line) for code in codes for _, _, line in code.co_lines() if line}
    return Counter(room for file, _ in lines if (room := _room(Path(file))))


def _room(file: Path) -> str:
    """kernel, invariants ...; nothing for what is not xfdfuzz's."""
    if not file.is_relative_to(_ROOT):
        return ""
    first, *rest = file.relative_to(_ROOT).parts
    if first != "xfdfuzz":
        return "" if first == "bench" else first
    return "/".join(rest[:2]) if rest[0] == "revisions" else rest[0].removesuffix(".py")
