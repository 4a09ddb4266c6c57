"""Functions that are watched while they run: how often each is called, and which of its statements are executed.

Nothing is looked at from outside, which would slow down every call of the model.  A watched function gets other code
for as long as it is watched: it counts its calls, and marks the statements that have not been executed yet.  The marks
that were made are taken out of it now and then, so that soon the count alone is left of them.
"""

from __future__ import annotations
import __future__ as future

import ast
import copy
import linecache
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import CodeType, FunctionType, TracebackType
from typing import NamedTuple, TypeVar

#: Stands for the marks in what is compiled.
_MARKS = "xfdfuzz: the marks of this function"
#: After so many examples it is looked for the first time what has been executed, then after twice as many.
_FIRST = 16

_Function = ast.FunctionDef
#: What has statements of its own, and where others have theirs.
_OWN = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SUITES = ("body", "handlers", "orelse", "finalbody", "cases")

T = TypeVar("T", bound=ast.AST)


class Place(NamedTuple):
    """A line of a file."""

    file: str
    line: int


class Statement(NamedTuple):
    """Where a statement begins, and its text, of a compound one without what it contains."""

    place: Place
    text: str


def place_of(function: FunctionType) -> Place:
    """Where its definition begins."""
    return Place(function.__code__.co_filename, function.__code__.co_firstlineno)


def statements(function: FunctionType) -> list[Statement]:
    """All of a function, in their order, but for docstrings; none if its source cannot be read."""
    node = _node(function.__code__)
    if node is None:
        return []
    file = function.__code__.co_filename
    return [Statement(Place(file, one.lineno), _text(one)) for one in _statements(node.body)]


class _Marks(list[int]):
    """How often the function was called, then a mark for each statement."""

    # what holds it is code, which is hashed
    __hash__ = object.__hash__  # type: ignore[assignment]


@dataclass
class _Watch:
    """One function that is watched."""

    function: FunctionType
    before: CodeType
    node: _Function
    marks: _Marks
    unmarked: int

    def renew(self) -> None:
        """Take out the marks that have been made."""
        left = self.marks[1:].count(0)
        if left < self.unmarked:
            self.unmarked = left
            self.function.__code__ = _compiled(self.before, self.node, self.marks)


class Watched:
    """Watches functions inside the block.  Those that are watched already are left to who does."""

    def __init__(self, functions: Iterable[FunctionType]) -> None:
        self._functions = list(functions)
        self._watches: list[_Watch] = []
        self._examples, self._next = 0, _FIRST

    def __enter__(self) -> Watched:
        for function in self._functions:
            before = function.__code__
            if any(isinstance(one, _Marks) for one in before.co_consts):
                continue
            node = _node(before)
            if node is None:
                continue
            marks = _Marks([0] * (1 + len(list(_statements(node.body)))))
            function.__code__ = _compiled(before, node, marks)
            self._watches.append(_Watch(function, before, node, marks, len(marks) - 1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for watch in self._watches:
            watch.function.__code__ = watch.before

    def example_done(self) -> None:
        """Take out marks, after ever more examples."""
        self._examples += 1
        if self._examples >= self._next:
            self._next *= 2
            for watch in self._watches:
                watch.renew()

    @property
    def calls(self) -> dict[Place, int]:
        """How often each was called."""
        return {place_of(watch.function): watch.marks[0] for watch in self._watches}

    @property
    def lines(self) -> set[Place]:
        """Where the statements begin that were executed."""
        return {
            Place(watch.before.co_filename, one.lineno)
            for watch in self._watches
            for one, mark in zip(_statements(watch.node.body), watch.marks[1:], strict=True)
            if mark
        }


# -- what is compiled ----------------------------------------------------------------------------------------------


class _Source(NamedTuple):
    """A function as it stands in its class and its file; ``imports``, which have a say in what it is compiled to."""

    function: _Function
    cls: str
    imports: list[ast.stmt]


@cache
def _functions_of(file: str) -> dict[tuple[str, int], _Source]:
    """The functions in the classes of a file, by name and line."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return {}
    imports: list[ast.stmt] = [one for one in tree.body if isinstance(one, ast.Import | ast.ImportFrom)]
    return {
        (node.name, min([node.lineno, *(one.lineno for one in node.decorator_list)])): _Source(node, cls.name, imports)
        for cls in ast.walk(tree)
        if isinstance(cls, ast.ClassDef)
        for node in cls.body
        if isinstance(node, _Function)
    }


def _node(code: CodeType) -> _Function | None:
    """The source of a function; None where it cannot be read, or is another one by now."""
    return _node_in(code.co_filename, code)


@cache  # by the file too: the code of two files can be equal
def _node_in(file: str, code: CodeType) -> _Function | None:
    source = _functions_of(file).get((code.co_name, code.co_firstlineno))
    if source is None or _essence(_with_body(code, source.function.body)) != _essence(code):
        return None
    return source.function


def _essence(code: CodeType) -> tuple[object, ...]:
    consts = [one for one in code.co_consts if not isinstance(one, CodeType)]
    return code.co_code, consts, code.co_names, code.co_varnames, code.co_freevars


def _compiled(before: CodeType, node: _Function, marks: _Marks) -> CodeType:
    """The function with a count of its calls, and marks on those statements that have none."""
    unmarked = {id(one): number for number, one in enumerate(_statements(node.body), 1) if not marks[number]}
    count = ast.copy_location(ast.AugAssign(_place(0), ast.Add(), ast.Constant(1)), node)
    code = _with_body(before, [count, *_marked(node.body, unmarked)])
    consts = tuple(marks if one == _MARKS else one for one in code.co_consts)
    return code.replace(co_consts=consts, co_firstlineno=before.co_firstlineno, co_qualname=before.co_qualname)


def _with_body(before: CodeType, body: list[ast.stmt]) -> CodeType:
    """The code of the function with another body."""
    node, cls, imports = _functions_of(before.co_filename)[before.co_name, before.co_firstlineno]
    function = _Function(node.name, node.args, body, [])
    # in a class, for the sake of super() and private names
    around = ast.ClassDef(cls, [], [], [ast.copy_location(function, node)], [])
    tree = ast.Module([*imports, ast.copy_location(around, node)], [])
    flags = before.co_flags & future.annotations.compiler_flag
    module = compile(ast.fix_missing_locations(tree), before.co_filename, "exec", flags, dont_inherit=True)
    return _inside(_inside(module, cls), node.name)


def _inside(code: CodeType, name: str) -> CodeType:
    return next(one for one in code.co_consts if isinstance(one, CodeType) and one.co_name == name)


def _place(number: int) -> ast.Subscript:
    return ast.Subscript(ast.Constant(_MARKS), ast.Constant(number), ast.Store())


def _marked(body: Sequence[ast.stmt], unmarked: Mapping[int, int]) -> list[ast.stmt]:
    """A suite with a mark before each statement that has none, by their numbers."""
    found: list[ast.stmt] = []
    for one in body:
        if id(one) in unmarked:
            found.append(ast.copy_location(ast.Assign([_place(unmarked[id(one)])], ast.Constant(1)), one))
        found.append(_marked_inside(one, unmarked))
    return found


def _marked_inside(one: T, unmarked: Mapping[int, int]) -> T:
    """A copy with marks in all of its suites."""
    if isinstance(one, _OWN):
        return one
    other = copy.copy(one)
    for field in _SUITES:
        inner = getattr(one, field, [])
        if inner:
            deeper = isinstance(inner[0], ast.ExceptHandler | ast.match_case)
            marked = [_marked_inside(part, unmarked) for part in inner] if deeper else _marked(inner, unmarked)
            setattr(other, field, marked)
    return other


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """In the order of their lines; what stands in a function inside is that one's."""
    for one in body:
        if not _is_text(one):
            yield one
        yield from _statements_inside(one)


def _statements_inside(one: ast.AST) -> Iterator[ast.stmt]:
    if isinstance(one, _OWN):
        return
    for field in _SUITES:
        inner = getattr(one, field, [])
        if inner and isinstance(inner[0], ast.stmt):
            yield from _statements(inner)
        else:
            for part in inner:
                yield from _statements_inside(part)


def _is_text(one: ast.stmt) -> bool:
    return isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)


def _text(one: ast.stmt) -> str:
    return ast.unparse(one).splitlines()[0]
