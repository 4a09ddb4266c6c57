"""The ops' templates, compiled: to print an op, and to recognise a line.

Printing fills a format string that is made once per op.  Reading walks a tree in which all templates that begin alike
share a branch, so that where a line leaves the tree, the branches there are just what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from typing import Any, NamedTuple, get_type_hints

from xfdfuzz.program.codecs import NUMBERED, Codec, codec_of
from xfdfuzz.program.fields import SwReserved
from xfdfuzz.program.ops import OPS, Op
from xfdfuzz.program.ops.ptrace import PtraceSetXstate
from xfdfuzz.program.ops.signals import SigframeSwReserved
from xfdfuzz.program.syntax import Argument, Line, Names, Option, Unreadable, Word, any_of, did_you_mean

_FIELD = re.compile(r"(, | )?\{(\w+)\}")
_FIELD_NAME = re.compile(r"\{(\w+)\}")
_PIECE = re.compile(r"[()]|[^\s(),]+")
_NUMBERED_FIELD = re.compile(r"([a-z]+)\{(\w+)\}")
#: Literals of the tree that are no words, and what messages call them.
_PUNCTUATION = {"(": "'('", ")": "')'", "": "the end of the line"}


def format_op(op: Op) -> str:
    """The op's line in a program, without a result."""
    template = _templates()[type(op)]
    return template.form % tuple([write(getattr(op, name)) for name, write in template.writers])


def synopsis(cls: type[Op]) -> str:
    """The line of an op for people: fields as ``<field>``, what can be left out in brackets."""
    return _templates()[cls].synopsis


def recognise(line: Line) -> Op:
    """The op that a line stands for; raises :class:`Unreadable` where the line ceases to fit any op."""
    node = _tree()
    values: list[Any] = []
    for item in line.items:
        node = _step(node, item, values)
    assert node.op is not None  # only the empty word at the end of a line leads to a leaf
    return node.op(**dict(zip(node.fields, values, strict=True)), **node.given)


# -- compiling ---------------------------------------------------------------------------------------------------------


class _Slot(NamedTuple):
    """One place of a template: a literal word, a numbered word such as ``t{task}``, or an argument for a codec."""

    literal: str = ""
    prefix: str = ""
    codec: Codec[Any] | None = None
    field: str = ""


class _Template(NamedTuple):
    """An op's template as ``%`` form with what writes each of its fields, for people, and as slots of the tree."""

    form: str
    writers: list[tuple[str, Callable[[Any], str]]]
    synopsis: str
    slots: list[_Slot]


@cache
def _templates() -> dict[type[Op], _Template]:
    return {cls: _compile(cls) for cls in OPS.values()}


def _compile(cls: type[Op]) -> _Template:
    codecs = _codecs(cls)
    writers: list[tuple[str, Callable[[Any], str]]] = []

    def place(match: re.Match[str]) -> str:
        before, name = match.groups(default="")
        codec = codecs.get(name)
        if codec is not None and codec.optional:
            writers.append((name, _with(before, codec)))
            return "%s"
        writers.append((name, str if codec is None else codec.write))
        return f"{before}%s"

    def show(match: re.Match[str]) -> str:
        before, name = match.groups(default="")
        optional = codecs[name].optional if name in codecs else ""
        return f"[{before}{optional}]" if optional else f"{before}<{name}>"

    form = _FIELD.sub(place, cls.template)
    return _Template(form, writers, _FIELD.sub(show, cls.template), _slots(cls.template, codecs))


def _codecs(cls: type[Op]) -> dict[str, Codec[Any]]:
    """The codec of every field except those that only number an actor or an object (``t{task}``)."""
    hints = get_type_hints(cls, include_extras=True)
    markers = {
        name: getattr(hints[name], "__metadata__", (hints[name],))[0] for name in _FIELD_NAME.findall(cls.template)
    }
    return {name: codec_of(marker) for name, marker in markers.items() if marker != "nr"}


def _with(before: str, codec: Codec[Any]) -> Callable[[Any], str]:
    """What writes an argument that may be left out, with the comma or space before it."""

    def write(value: Any) -> str:
        text = codec.write(value)
        return f"{before}{text}" if text else ""

    return write


def _slots(template: str, codecs: dict[str, Codec[Any]]) -> list[_Slot]:
    slots: list[_Slot] = []
    for piece in _PIECE.findall(template):
        if numbered := _NUMBERED_FIELD.fullmatch(piece):
            slots.append(_Slot(prefix=numbered[1], field=numbered[2]))
        elif plain := _FIELD.fullmatch(piece):
            slots.append(_Slot(codec=codecs[plain[2]], field=plain[2]))
        else:
            slots.append(_Slot(literal=piece))
    return [*slots, _Slot()]


# -- reading -----------------------------------------------------------------------------------------------------------


@dataclass
class _Node:
    """Where all templates stand that begin alike; ``ops`` are those below, ``op`` the one that ends here."""

    actor: str = ""
    literals: dict[str, _Node] = field(default_factory=dict)
    old: dict[str, _Node] = field(default_factory=dict)
    numbered: dict[str, _Node] = field(default_factory=dict)
    argument: tuple[Codec[Any], _Node] | None = None
    options: dict[str, tuple[Codec[Any], _Node]] = field(default_factory=dict)
    ops: list[type[Op]] = field(default_factory=list)
    op: type[Op] | None = None
    fields: tuple[str, ...] = ()
    given: dict[str, Any] = field(default_factory=dict)


@cache
def _tree() -> _Node:
    root = _Node()
    for cls, template in _templates().items():
        _insert(root, cls, template.slots, ())
        actor = template.slots[0]
        _follow(root, actor).actor = actor.prefix or actor.literal
    for cls, line in _ALSO.items():
        _insert(root, cls, _slots(line, _codecs(cls)), ())
    for (verb, word), (cls, given) in _OF_BEFORE.items():
        _say_too(root, cls, verb, word, given)
    return root


#: Another line for an op, which is read and not written.
_ALSO: dict[type[Op], str] = {
    PtraceSetXstate: "t{task} ptrace(PTRACE_SETREGSET, t{tracee}, NT_X86_XSTATE, {image}, {iov_len})"
}


#: Lines that programs of before have, and nobody writes any more: verb and argument, the op and what they stand for.
_OF_BEFORE: dict[tuple[str, str], tuple[type[Op], dict[str, Any]]] = {
    ("sigframe", "fx_only"): (SigframeSwReserved, {"sw": SwReserved(magic1=0)}),
}


def _say_too(root: _Node, cls: type[Op], verb: str, word: str, given: dict[str, Any]) -> None:
    """Read ``verb(word)`` of the actor of an op, too; no message offers it."""
    actor, *_ = _templates()[cls].slots
    behind = _follow(root, actor).literals[verb].literals["("]
    behind.old[word] = node = _Node()
    for literal in (")", ""):
        node.literals[literal] = node = _Node()
    node.op, node.fields, node.given = cls, (actor.field,), given


def _insert(node: _Node, cls: type[Op], slots: list[_Slot], names: tuple[str, ...]) -> None:
    """Add a template, or what is left of it, below ``node``: with and without optional arguments, in any order."""
    if cls not in node.ops:
        node.ops.append(cls)
    if not slots:
        if node.op is not None:
            raise TypeError(f"{cls.__name__} and {node.op.__name__} share the line {synopsis(cls)}")
        node.op, node.fields = cls, names
        return
    optional = [*takewhile(lambda slot: slot.codec is not None and slot.codec.optional, slots)]
    for nr, slot in enumerate(optional):
        _insert(_follow(node, slot), cls, slots[:nr] + slots[nr + 1 :], (*names, slot.field))
    slot, *rest = slots[len(optional) :]
    _insert(_follow(node, slot), cls, rest, (*names, slot.field) if slot.field else names)


def _follow(node: _Node, slot: _Slot) -> _Node:
    """The node behind a slot, made if need be."""
    if slot.prefix:
        return node.numbered.setdefault(slot.prefix, _Node())
    if slot.codec is None:
        return node.literals.setdefault(slot.literal, _Node())
    if slot.codec.options:
        behind = next((there for codec, there in node.options.values() if codec is slot.codec), _Node())
        node.options.update(dict.fromkeys(slot.codec.options, (slot.codec, behind)))
        return behind
    if node.argument is None:
        node.argument = (slot.codec, _Node())
    if node.argument[0] is not slot.codec:
        raise TypeError(f"{node.argument[0].expected} and {slot.codec.expected} cannot stand at the same place")
    return node.argument[1]


def _step(node: _Node, item: Word | Argument, values: list[Any]) -> _Node:
    """Go from ``node`` along one item of a line; what it stands for is appended to ``values``."""
    text = _single_word(item)
    if text is not None and (known := node.literals.get(text) or node.old.get(text)):
        return known
    prefix = (text or "").rstrip("0123456789")
    if prefix in node.numbered:
        values.append(_number_of(item, prefix))
        return node.numbered[prefix]
    option = node.options.get(item.name.text) if isinstance(item, Option) else None
    if isinstance(item, Option) and not node.options:
        # it may belong to another form of the call, or behind an argument that lacks
        raise Unreadable(item.column, any_of([synopsis(op) for op in node.ops]))
    argument = option or node.argument
    if argument is not None and (argument[0].word or not isinstance(item, Word)):
        codec, behind = argument
        values.append(_read(codec, node, Names((item,)) if isinstance(item, Word) else item))
        return behind
    if node.options and not isinstance(item, Word):
        raise Unreadable(item.column, any_of([*dict.fromkeys(codec.expected for codec, _ in node.options.values())]))
    raise Unreadable(item.column, _expected(node, text or ""))


def _single_word(item: Word | Argument) -> str | None:
    if isinstance(item, Word):
        return item.text
    return item.words[0].text if isinstance(item, Names) and len(item.words) == 1 else None


def _number_of(item: Word | Argument, prefix: str) -> int:
    word = _single_word(item)
    for nr in range(NUMBERED[prefix]):
        if word == f"{prefix}{nr}":
            return nr
    raise Unreadable(item.column, _range(prefix))


def _range(prefix: str) -> str:
    return f"{prefix}0 to {prefix}{NUMBERED[prefix] - 1}"


def _read(codec: Codec[Any], node: _Node, item: Argument) -> Any:
    try:
        return codec.read(item)
    except Unreadable as error:
        if error.expected != codec.expected:
            raise
        words = [literal for literal in node.literals if literal not in _PUNCTUATION]
        raise Unreadable(error.column, any_of([*words, codec.expected])) from None


def _expected(node: _Node, text: str) -> str:
    """What could have come here instead of ``text``."""
    if node.actor:
        verbs = sorted(node.literals)
        listed = ", ".join(_verb(verb, behind) for verb, behind in sorted(node.literals.items()))
        many = len(verbs) > _FEW
        hint = _elsewhere(text) or did_you_mean(text, verbs, 3)
        return f"an op of {node.actor}{hint}: {'see xfdfuzz list ops' if many else listed}"
    if len(node.ops) == 1:
        return synopsis(node.ops[0])
    literals = [_PUNCTUATION.get(literal, literal) for literal in sorted(node.literals)]
    return any_of(literals + sorted(map(_range, node.numbered))) + did_you_mean(text, node.literals)


def _elsewhere(verb: str) -> str:
    """`` (X is one of v)`` for a verb that other actors have, or nothing."""
    root = _tree()
    actors = [node.actor for node in (*root.numbered.values(), *root.literals.values()) if verb in node.literals]
    return f" ({verb} is one of {any_of(sorted(actors))})" if actors else ""


#: So many verbs of an actor can be read through in a message.
_FEW = 11


def _verb(verb: str, behind: _Node) -> str:
    """``ioctl(...)``, or the rest of the lines that begin with the verb."""
    if "(" in behind.literals:
        return f"{verb}(...)"
    return ", ".join(synopsis(op).partition(" ")[2] for op in behind.ops)
