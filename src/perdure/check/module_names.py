"""The names of a module: what they stand for, and which functions are workflows and steps.

Rules: a name counts only where an import of the same file says what it is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


_OURS = frozenset({"workflow", "step"})


_FOLLOWED = frozenset(
    {
        "contextlib.contextmanager",
        "contextlib.asynccontextmanager",
        "functools.cache",
        "functools.lru_cache",
    }
)


class ModuleNames:
    """The names of one module, and the kinds of its functions."""

    def __init__(self, tree: ast.Module, lines: frozenset[int]) -> None:
        self.tree = tree
        self.imports = imports_of(_outside_functions(tree))
        self.assigned = {name for node in tree.body for name in bound(node)}
        self.functions = {node.name: node for node in tree.body if isinstance(node, FUNCTIONS)}
        for node in tree.body:  # `durable = workflow(timeout=60)`
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if kind := self._made_by(
                    value
                ):
                    self.imports[name] = f"perdure.{kind}"
        self.kinds = dict(self._kinds(lines))
        self.calls = set(self._calls(tree.body))

    def _kinds(self, lines: frozenset[int]) -> Iterator[tuple[int, str]]:
        """Functions that are workflows, steps or not ours, by the id of their node."""
        for node in ast.walk(self.tree):
            if isinstance(node, FUNCTIONS):
                kinds = [self._made_by(one) or self.name_of(one) for one in node.decorator_list]
                begins = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                if "workflow" in kinds or begins in lines:
                    yield id(node), "workflow"
                elif not _FOLLOWED.issuperset(kinds):
                    yield id(node), "step" if "step" in kinds else "other"
            elif isinstance(node, ast.Call) and (kind := self._made_by(node.func)):
                for argument in node.args:  # `think = step(think_hard)`
                    if isinstance(argument, ast.Name) and argument.id in self.functions:
                        yield id(self.functions[argument.id]), kind

    def _calls(self, body: Iterable[ast.stmt], around: str = "") -> Iterator[str]:
        """Names of steps and workflows, also `Jobs.nightly` in a class."""
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from self._calls(node.body, f"{around}{node.name}.")
            elif isinstance(node, FUNCTIONS) and self.kinds.get(id(node)) in ("step", "workflow"):
                yield around + node.name

    def _made_by(self, node: ast.expr) -> str | None:
        """`workflow` or `step`, where a decorator or what it is called with is one of ours."""
        while isinstance(node, ast.Call) and not node.args:
            node = node.func
        name = self.name_of(node) or ""
        last = name.rpartition(".")[2]
        return last if name.startswith("perdure.") and last in _OURS else None

    def name_of(
        self, node: ast.expr, local: dict[str, str] | None = None, hidden: Iterable[str] = ()
    ) -> str | None:
        """The full name of what an expression refers to: `dt.now` after `from datetime import
        datetime as dt`.
        """
        match node:
            case ast.Attribute(value=value, attr=attr):
                base = self.name_of(value, local, hidden)
                return base and f"{base}.{attr}"
            case ast.Name(id=name):
                if local and name in local:
                    return local[name]
                if name in hidden:
                    return None
                if name in self.imports:
                    return self.imports[name]
                return None if name in self.assigned else f"builtins.{name}"
            case _:
                return None


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Lambda)):
            yield node
            yield from _outside_functions(node)


def imports_of(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """Names that imports bind, with their full names."""
    found: dict[str, str] = {}
    for node in nodes:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    found[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
            case ast.ImportFrom(module=str(source), names=names, level=0):
                for alias in names:
                    if alias.name == "*" and source == "perdure":
                        found |= {name: f"perdure.{name}" for name in _OURS}
                    found[alias.asname or alias.name] = f"{source}.{alias.name}"
            case ast.ImportFrom(names=names):
                found |= {alias.asname or alias.name: f".{alias.name}" for alias in names}
    return found


def bound(node: ast.AST) -> Iterator[str]:
    """Names that a statement of a module binds, but for imports."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        yield node.name
        return
    for one in ast.walk(node):
        if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
            yield one.id
