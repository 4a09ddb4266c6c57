"""One mistake in one line of a function: the mutants of a module's source, and functions that execute one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

#: Operators, and those that are easily written in their place.
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True)
class Mutant:
    """A function with one mistake: where it stands, what was there and what is.

    ``lines`` are those of the statement, or of its head if it has a body; ``code`` is what the function executes.
    """

    module: str
    file: Path
    function: str
    lines: range
    was: str
    becomes: str
    code: CodeType

    @property
    def text(self) -> str:
        """All of it in a line."""
        return f"{self.module}:{self.lines.start} {self.function}: {self.was} -> {self.becomes}"


class Source:
    """The source of a module: ``places`` has the name of the function for each place where a mutant can be made."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module.__name__.removeprefix("xfdfuzz.")
        self.file = Path(str(module.__file__))
        self.text = self.file.read_text(encoding="utf-8")
        self.functions = dict(_functions(module))
        looking = _Changing()
        looking.visit(ast.parse(self.text))
        self.places = looking.places

    def mutant(self, place: int) -> Mutant | None:
        """The one at that place; None where no such function is found, or it could not be called in the same way."""
        change = _Changing(place)
        tree = ast.parse(self.text)
        change.visit(tree)
        ast.fix_missing_locations(tree)
        function = self.functions.get(change.function)
        compiled = compile(tree, str(self.file), "exec", dont_inherit=True)
        code = next((code for code in _codes(compiled) if code.co_qualname == change.function), None)
        if code is None or function is None or code.co_freevars != function.__code__.co_freevars:
            return None
        return Mutant(self.module, self.file, change.function, change.lines, change.was, change.becomes, code)

    @contextmanager
    def executing(self, mutant: Mutant) -> Iterator[None]:
        """Let the function execute the mutant's code meanwhile."""
        function = self.functions[mutant.function]
        own = function.__code__
        function.__code__ = mutant.code
        try:
            yield
        finally:
            function.__code__ = own


def _functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """The functions that a module defines, methods and properties among them, by their qualified names."""
    scopes = [vars(module), *(vars(value) for value in vars(module).values() if isinstance(value, type))]
    for value in (value for scope in scopes for value in scope.values()):
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if isinstance(function, FunctionType) and function.__module__ == module.__name__:
            yield function.__qualname__, function


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


class _Changing(ast.NodeTransformer):
    """Makes the change at that place, and says where and which; with -1 it makes none and notes all places."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted = wanted
        self.places: list[str] = []
        self.scope: list[str] = []
        self.inside = False
        self.statement: ast.stmt = ast.Pass()
        self.function = self.was = self.becomes = ""
        self.lines = range(0)

    def visit(self, node: ast.AST) -> ast.AST:
        """The node, or what stands in its place."""
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not self.inside:
            return self._definition(node)
        if isinstance(node, ast.stmt):
            self.statement = node
        if self.inside:
            for other in _others(node):
                self.places.append(".".join(self.scope))
                if len(self.places) == self.wanted + 1:
                    return self._change(node, other)
        if isinstance(node, ast.AnnAssign):  # not its annotation
            node.value = self.visit(node.value) if node.value else None  # type: ignore[assignment]
            return node
        return self.generic_visit(node)

    def _definition(self, node: ast.ClassDef | ast.FunctionDef) -> ast.AST:
        """Its body alone: no decorators, defaults and annotations."""
        self.scope.append(node.name)
        self.inside = isinstance(node, ast.FunctionDef)
        node.body = [self.visit(statement) for statement in node.body]  # type: ignore[misc]
        self.inside = False
        self.scope.pop()
        return node

    def _change(self, node: ast.AST, other: ast.AST) -> ast.AST:
        self.function = self.places[-1]
        self.lines = _head(self.statement)
        self.was = _shown(node)
        self.becomes = _shown(other)
        return other


def _head(statement: ast.stmt) -> range:
    body = getattr(statement, "body", None)
    last = body[0].lineno - 1 if body else statement.end_lineno or 0
    return range(statement.lineno, max(last, statement.lineno) + 1)


def _shown(node: ast.AST) -> str:
    """A line of it."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Constant):
        return "nothing"
    return ast.unparse(node).splitlines()[0]


def _others(node: ast.AST) -> Iterator[ast.AST]:
    """What one might have written by mistake."""
    match node:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield _left_out(node)
        case ast.If():
            yield ast.If(_not(node.test), node.body, node.orelse)
        case ast.IfExp():
            yield ast.IfExp(_not(node.test), node.body, node.orelse)
        case ast.BoolOp():
            for place in range(len(node.values)):
                left = [*node.values[:place], *node.values[place + 1 :]]
                yield left[0] if len(left) == 1 else ast.BoolOp(node.op, left)
        case ast.Compare(ops=[comparison]) if type(comparison) in _COMPARISONS:
            yield ast.Compare(node.left, [_COMPARISONS[type(comparison)]()], node.comparators)
        case ast.BinOp(op=operator) if type(operator) in _OPERATORS:
            yield ast.BinOp(node.left, _OPERATORS[type(operator)](), node.right)
        case ast.UnaryOp():
            yield node.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int(number)):
            yield ast.Constant(number + 1)
    if isinstance(node, ast.AugAssign) and type(node.op) in _OPERATORS:
        yield ast.AugAssign(node.target, _OPERATORS[type(node.op)](), node.value)


def _not(test: ast.expr) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    return ast.UnaryOp(ast.Not(), test)


def _left_out(node: ast.stmt) -> ast.If:
    """Never executed; the function has the same names as before."""
    return ast.If(ast.Constant(False), [node], [])
