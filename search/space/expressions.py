"""Arithmetic over a network's tree: `stages[i].width // 16`, or `stages[i].width <= stages[i+1].width`.

The syntax is Python's, of which only numbers, paths, arithmetic, comparisons, `and`, `or`, `not`, `a if b else c`,
`min`, `max`, `abs` and `round` are there. `i` stands for a stage; an expression with `i` is meant for every stage where
its paths exist.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from archspec.tree import Node

Value: TypeAlias = Any  # a scalar of the tree, or a node on the way to one
INDEX = "i"
FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "abs": abs, "round": round}
ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class Absent(Exception):
    """A path that the tree does not have, such as the stage behind the last."""


class NoValue(Exception):
    """An expression that has no value here: a division by zero, a word in a sum."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression. Equal texts are equal."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Expression:
        """Raises ValueError that names the rule."""
        if len(text) > 1_000:
            raise ValueError("is longer than 1,000 characters")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ValueError(f"{text!r} is no expression, such as stages[i].width // 16") from None
        for node in ast.walk(tree):
            _admit(node)
        return cls(text.strip())

    @property
    def indexed(self) -> bool:
        """Whether it speaks of every stage, by `i`."""
        return any(isinstance(node, ast.Name) and node.id == INDEX for node in ast.walk(_parsed(self.text)))

    def value(self, root: Node, index: int | None = None) -> Any:
        """Its value in a tree; `index` is what `i` stands for. Raises Absent, NoValue."""
        found = _Evaluator(root, index).visit(_parsed(self.text))
        if isinstance(found, Node):
            raise NoValue(f"{self.text} is {found.describe()}")
        return found


_trees: dict[str, ast.expr] = {}


def _parsed(text: str) -> ast.expr:
    if text not in _trees:
        _trees[text] = ast.parse(text, mode="eval").body
    return _trees[text]


def _admit(node: ast.AST) -> None:
    allowed = (
        *(ast.Constant, ast.Name, ast.Load, ast.Attribute, ast.Subscript, ast.Call, ast.IfExp),
        *(ast.BinOp, ast.UnaryOp, ast.USub, ast.Not, ast.BoolOp, ast.And, ast.Or, ast.Compare),
        *ARITHMETIC,
        *COMPARISONS,
    )
    if not isinstance(node, allowed):
        raise ValueError(f"{type(node).__name__} is no part of an expression; there are + - * / // %, comparisons, min")
    if isinstance(node, ast.Constant) and not isinstance(node.value, int | float | str):
        raise ValueError(f"{node.value!r} is no number")
    if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS):
        raise ValueError(f"{ast.unparse(node.func)!r} is no function; there are: {', '.join(FUNCTIONS)}")
    if isinstance(node, ast.Call) and (node.keywords or not node.args):
        raise ValueError(f"{ast.unparse(node)!r} takes values alone")


class _Evaluator(ast.NodeVisitor):
    """Walks an admitted expression."""

    def __init__(self, root: Node, index: int | None) -> None:
        self.root, self.index = root, index

    def visit_Constant(self, node: ast.Constant) -> Value:
        return node.value

    def visit_Name(self, node: ast.Name) -> Value:
        if node.id == INDEX and self.index is not None:
            return self.index
        return _entry(self.root, node.id, node)

    def visit_Attribute(self, node: ast.Attribute) -> Value:
        return _entry(self.visit(node.value), node.attr, node)

    def visit_Subscript(self, node: ast.Subscript) -> Value:
        found, key = self.visit(node.value), self.visit(node.slice)
        if isinstance(key, str):
            return _entry(found, key, node)
        items = found.items if isinstance(found, Node) else None
        if items is None or not isinstance(key, int) or not -len(items) <= key < len(items):
            raise Absent(ast.unparse(node))
        if key < 0 and not isinstance(node.slice, ast.UnaryOp):  # stages[i-1] of the first is no stage, not the last
            raise Absent(ast.unparse(node))
        return _scalar(items[key])

    def visit_BinOp(self, node: ast.BinOp) -> Value:
        left, right = self.number(node.left), self.number(node.right)
        try:
            return ARITHMETIC[type(node.op)](left, right)
        except ArithmeticError as error:
            raise NoValue(f"{ast.unparse(node)}: {error}") from None

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Value:
        return not self.visit(node.operand) if isinstance(node.op, ast.Not) else -self.number(node.operand)

    def visit_BoolOp(self, node: ast.BoolOp) -> Value:
        values = (self.visit(value) for value in node.values)
        return all(values) if isinstance(node.op, ast.And) else any(values)

    def visit_Compare(self, node: ast.Compare) -> Value:
        sides = [self.visit(side) for side in (node.left, *node.comparators)]
        try:
            return all(
                COMPARISONS[type(op)](left, right)
                for op, left, right in zip(node.ops, sides[:-1], sides[1:], strict=True)
            )
        except TypeError:
            raise NoValue(f"{ast.unparse(node)} compares what has no order") from None

    def visit_IfExp(self, node: ast.IfExp) -> Value:
        return self.visit(node.body if self.visit(node.test) else node.orelse)

    def visit_Call(self, node: ast.Call) -> Value:
        values = [self.number(argument) for argument in node.args]
        try:
            return FUNCTIONS[ast.unparse(node.func)](*values)
        except (TypeError, ValueError) as error:
            raise NoValue(f"{ast.unparse(node)}: {error}") from None

    def number(self, node: ast.expr) -> Any:
        value = self.visit(node)
        if not isinstance(value, int | float):
            raise NoValue(f"{ast.unparse(node)} is no number")
        return value


def _entry(found: Value, key: str, node: ast.expr) -> Value:
    """The entry of a mapping; a short form, `mixer: attention`, has its type."""
    if isinstance(found, str) and key == "type":
        return found
    entries = found.mapping if isinstance(found, Node) else None
    if entries is None or key not in entries:
        raise Absent(ast.unparse(node))
    return _scalar(entries[key])


def _scalar(node: Node) -> Value:
    return node if node.mapping is not None or node.items is not None else node.value
