"""Of a C file in parts, those that a text needs.

A part begins with a line ``//@ NAMES``, and has the names of its functions, variables and macros besides.  It is needed
when one of them stands in what is needed already, or always where that line says so.  Compilers warn of functions that
nobody calls, and so would a reader.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

_MARK = "//@"
_DEFINED = re.compile(r"^static [^;={(]*?\b(\w+)(?:\(|\[|;| =| \{)|^#define (\w+)", re.M)
_WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Part:
    """Some lines of C; needed where one of ``names`` stands."""

    names: frozenset[str]
    text: str


#: An innermost one: what it holds begins no other.
_IF = re.compile(
    r"/\*@ if (\w+) \*/\n(HELD)(?:/\*@ else \*/\n(HELD))?/\*@ end \*/\n".replace("HELD", r"(?:(?!/\*@ if ).)*?"), re.S
)


def chosen(text: str, features: Collection[str]) -> str:
    """``text`` with what stands between ``/*@ if FEATURE */`` and ``/*@ end */`` for these features alone."""
    count = 1
    while count:
        text, count = _IF.subn(lambda found: found[2] if found[1] in features else found[3] or "", text)
    return text


def parts_of(text: str) -> list[Part]:
    """The parts of a file, in order."""
    found = []
    for chunk in text.split(_MARK)[1:]:
        names, _, body = chunk.partition("\n")
        defined = {name for pair in _DEFINED.findall(body) for name in pair if name}
        found.append(Part(frozenset({*names.split(), *defined} - {"__attribute__", "struct", "union"}), body))
    return found


def needed(parts: Iterable[Part], text: str) -> str:
    """The parts that ``text`` needs, and those that these need, in their order."""
    parts = [*parts]
    words = {"always", *_WORD.findall(_code(text))}
    taken: set[int] = set()
    while True:
        more = {nr for nr, part in enumerate(parts) if nr not in taken and part.names & words}
        if not more:
            return _joined(parts[nr].text for nr in sorted(taken))
        taken |= more
        words.update(word for nr in more for word in _WORD.findall(_code(parts[nr].text)))


def _joined(texts: Iterable[str]) -> str:
    """One behind the other, with a blank line before and behind those of several lines."""
    found = ""
    for text in texts:
        gap = "\n" if found and ("\n" in text.strip("\n") or found.endswith("}\n")) else ""
        found += gap + text.strip("\n") + "\n"
    return found


def _code(text: str) -> str:
    """Without comments and texts, which speak of much that they do not use."""
    return re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\])*"', " ", text, flags=re.S)
