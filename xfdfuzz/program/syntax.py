"""An op line as words and arguments, before anyone knows what they mean.  The grammar is ``grammar.lark``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lark import Lark, Token, Tree
    from lark.exceptions import UnexpectedToken

    _Tree = Tree[Token]


class Unreadable(Exception):
    """Text that does not fit: where (1-based column) and what was expected there."""

    def __init__(self, column: int, expected: str) -> None:
        super().__init__(column, expected)
        self.column = column
        self.expected = expected


class Word(NamedTuple):
    """A word, a parenthesis, or the empty word that stands for the end of the line; ``column`` counts from 1."""

    text: str
    column: int


class Names(NamedTuple):
    """``x87|sse``; a single word or number is one of these too."""

    words: tuple[Word, ...]

    @property
    def column(self) -> int:
        """Where it starts."""
        return self.words[0].column


class Option(NamedTuple):
    """``undefined=7``."""

    name: Word
    value: Word

    @property
    def column(self) -> int:
        """Where it starts."""
        return self.name.column


class Entry(NamedTuple):
    """``xcr0: x87|sse``, or a flag such as ``xfd``, which has no value."""

    key: Word
    value: Names | None


class Dict(NamedTuple):
    """``{xcr0: x87|sse, xfd}``: its entries as written, repeated keys included."""

    column: int
    entries: tuple[Entry, ...]


Argument = Names | Option | Dict


class Line(NamedTuple):
    """An op line: its words, parentheses and arguments in order, the empty word at the end; and the result, if any."""

    items: tuple[Word | Argument, ...]
    result: Word | None


def words(text: str, start: int = 0) -> list[Word]:
    """The words of ``text`` from offset ``start`` on, separated by white space."""
    return [Word(m.group(), m.start() + 1) for m in re.compile(r"\S+").finditer(text, start)]


def read_line(text: str) -> Line:
    """Take an op line apart; raises :class:`Unreadable`."""
    from lark.exceptions import UnexpectedToken  # here and in _lark(): importing lark takes 55 ms

    try:
        tree = _lark().parse(text)
    except UnexpectedToken as error:
        raise _unreadable(text, error) from None
    items: list[Word | Argument] = []
    result: Word | None = None
    for child in tree.children:
        if not isinstance(child, str):
            items += [_argument(child)] if child.data == "dict" else [_argument(part) for part in child.children]
        elif child.type == "RESULT":
            result = Word(" ".join(child[1:].split()), _column(child))
        else:
            items.append(_word(child))
    end = len(text.rstrip()) + 1 if result is None else result.column
    return Line((*items, Word("", end)), result)


@cache
def _lark() -> Lark:
    from lark import Lark

    grammar = resources.files("xfdfuzz.program").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, start="op", parser="lalr")


def _column(token: Token) -> int:
    return (token.start_pos or 0) + 1


def _word(token: Token | _Tree) -> Word:
    assert isinstance(token, str)
    return Word(str(token), _column(token))


def _argument(part: Token | _Tree) -> Word | Argument:
    if isinstance(part, str):
        return _word(part)
    if part.data == "option":
        name, value = part.children
        return Option(_word(name), _word(value))
    if part.data == "dict":
        brace, *entries = part.children
        return Dict(_word(brace).column, tuple(_entry(entry) for entry in entries))
    return _names(part)


def _names(tree: Token | _Tree) -> Names:
    assert not isinstance(tree, str)
    return Names(tuple(_word(word) for word in tree.children))


def _entry(tree: Token | _Tree) -> Entry:
    assert not isinstance(tree, str)
    key, *value = tree.children
    return Entry(_word(key), _names(value[0]) if value else None)


#: What a person calls the grammar's terminals.
_TERMINALS = {
    "WORD": "a word",
    "LPAR": "'('",
    "RPAR": "')'",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "COMMA": "','",
    "COLON": "':'",
    "EQUAL": "'='",
    "VBAR": "'|'",
    "RESULT": "'=' and a result",
    "$END": "the end of the line",
}


def _unreadable(text: str, error: UnexpectedToken) -> Unreadable:
    """Any character begins some terminal, so it is always a whole one, or the end, that came too early."""
    column = len(text.rstrip()) + 1 if error.token.type == "$END" else _column(error.token)
    return Unreadable(column, any_of(sorted(_TERMINALS[name] for name in error.accepts)))


def any_of(alternatives: list[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *first, last = alternatives
    return f"{', '.join(first)} or {last}" if first else last


def did_you_mean(text: str, known: Iterable[str], most: int = 1) -> str:
    """`` (did you mean X?)`` for the known words that are closest to a mistyped one, or nothing."""
    close = [one for one in difflib.get_close_matches(text, list(known), most) if _differs_little(text, one)]
    return f" (did you mean {any_of(close)}?)" if close else ""


def _differs_little(text: str, known: str) -> bool:
    """Whether one is not finished, or they are alike without the parts that many words begin with: KVM_SET_."""
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, known, strict=False)))
    shared = max(text.rfind(mark, 0, alike) for mark in "_-(") + 1
    near = difflib.SequenceMatcher(None, text[shared:], known[shared:]).ratio() >= _NEAR
    return near or known.startswith(text)


#: How near a word has to be (difflib's own default).
_NEAR = 0.6
