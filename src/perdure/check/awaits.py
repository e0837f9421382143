"""Forgotten awaits: coroutines and calls of steps that are dropped, unread, or used as their
result.

Rules: only code that can't be right is reported; a call that is passed on, returned or stored
may be awaited elsewhere.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Container, Iterator


def forgotten(
    function: ast.AST, is_coroutine: Callable[[ast.expr], bool], apart: Container[int]
) -> Iterator[ast.expr]:
    """The calls without an await, but for functions inside whose ids are in `apart`."""
    nodes = list(_inside(function, apart))
    read = {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    read |= {
        name for node in nodes if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names
    }
    for node in nodes:
        yield from filter(is_coroutine, _without_await(node, read))


def _inside(node: ast.AST, apart: Container[int]) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if id(child) not in apart:
            yield child
            yield from _inside(child, apart)


def _without_await(node: ast.AST, read: Container[str]) -> Iterator[ast.expr]:
    """Expressions whose value is dropped, or which an operator would use as a result."""
    match node:
        case ast.Expr(value=value):
            yield from _dropped(value)
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
        ):
            if name not in read:
                yield from _dropped(value)
        case (
            ast.If(test=value)
            | ast.While(test=value)
            | ast.IfExp(test=value)
            | ast.Assert(test=value)
            | ast.For(iter=value)
        ):
            yield value
        case (
            ast.UnaryOp(operand=value)
            | ast.Subscript(value=value)
            | ast.FormattedValue(value=value)
        ):
            yield value
        case ast.BinOp(left=left, right=right):
            yield from (left, right)
        case ast.Compare(left=left, comparators=others):
            yield from (left, *others)


def _dropped(value: ast.expr) -> Iterator[ast.expr]:
    match value:
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.BoolOp(values=items):
            for item in items:
                yield from _dropped(item)
        case ast.IfExp(body=one, orelse=other):
            yield from _dropped(one)
            yield from _dropped(other)
        case ast.ListComp(elt=item):
            yield from _dropped(item)
        case _:
            yield value
