"""One workflow function, read from top to bottom for what a replay can't repeat.

Rules: the functions of the module that it uses are read, too; steps are not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from perdure.check import rules as r
from perdure.check.awaits import forgotten
from perdure.check.module_names import FUNCTIONS, Function, ModuleNames, bound, imports_of

Suspect = tuple[ast.expr | ast.stmt, str, str, str]
"""The code, the rule, a text of what was found, and a text of where it is."""


class _Visitor(ast.NodeVisitor):
    """A visitor of one function that tracks the local names of sets, paths and tasks."""

    def __init__(self, module: ModuleNames, function: Function, where: str) -> None:
        self.module, self.where = module, where
        self.found: list[Suspect] = []
        self.used: list[str] = []
        inside = list(ast.walk(function))
        self.local = imports_of(inside)
        parameters = {one.arg for one in inside if isinstance(one, ast.arg)}
        self.hidden = parameters | {name for one in function.body for name in bound(one)}
        self.is_a: dict[str, str] = {}
        for one in inside:
            if (
                isinstance(one, ast.arg)
                and one.annotation is not None
                and (kind := self._kind_of_type(one.annotation))
            ):
                self.is_a[one.arg] = kind
        for default in [
            *function.args.defaults,
            *(one for one in function.args.kw_defaults if one),
        ]:
            self.visit(default)
        for statement in function.body:
            self.visit(statement)
        for call in forgotten(function, self._is_coroutine, module.kinds):
            self.report(
                call,
                "forgotten-await",
                f"`{ast.unparse(call.func) if isinstance(call, ast.Call) else ''}(...)`",
            )

    def report(self, node: ast.expr | ast.stmt, rule: str, what: str) -> None:
        self.found.append((node, rule, what, self.where))

    def name_of(self, node: ast.expr) -> str | None:
        return self.module.name_of(node, self.local, self.hidden)

    # --- what a value is --------------------------------------------------------------------------

    def kind(self, node: ast.expr | None) -> str | None:
        """`set`, `path`, `task` or `tasks` (a list of them), where that is sure."""
        match node:
            case ast.Name(id=name):
                return self.is_a.get(name)
            case ast.Set(elts=items):
                quiet = all(
                    isinstance(one, ast.Constant) and isinstance(one.value, int) for one in items
                )
                return None if quiet or any(self.kind(one) == "task" for one in items) else "set"
            case ast.SetComp(elt=item):
                return None if self.kind(item) == "task" else "set"
            case ast.ListComp(elt=item) | ast.GeneratorExp(elt=item) | ast.List(elts=[item, *_]):
                return "tasks" if self.kind(item) == "task" else None
            case ast.BinOp(
                left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right
            ):
                return (
                    "set"
                    if "set" in (self.kind(left), self.kind(right))
                    or (_is_keys(left) and _is_keys(right))
                    else None
                )
            case ast.BinOp(left=left, op=ast.Div()):
                return "path" if self.kind(left) == "path" else None
            case ast.Attribute(value=value, attr="parent"):
                return self.kind(value)
            case ast.IfExp(body=one, orelse=other):
                return self.kind(one) or self.kind(other)
            case ast.NamedExpr(value=value):
                return self.kind(value)
            case ast.Call():
                return self._kind_of_call(node)
            case _:
                return None

    def _kind_of_call(self, node: ast.Call) -> str | None:
        match self.name_of(node.func), node.func:
            case "builtins.set" | "builtins.frozenset", _:
                return None if node.args and self.kind(node.args[0]) == "tasks" else "set"
            case "pathlib.Path" | "pathlib.PosixPath" | "pathlib.Path.cwd" | "pathlib.Path.home", _:
                return "path"
            case "asyncio.create_task" | "asyncio.ensure_future", _:
                return "task"
            case _, ast.Attribute(attr="create_task"):
                return "task"
            case _, made if self._is_ours(made):
                return "task"  # calls have a number of their own in a workflow
            case _, ast.Attribute(value=value, attr=attr):
                kind = self.kind(value)
                return kind if kind == "path" or (kind == "set" and attr in r.SET_METHODS) else None
            case _:
                return None

    def _is_coroutine(self, node: ast.expr) -> bool:
        """Whether it is the call of a step, a workflow or an async function, where that is sure."""
        match node:
            case ast.Call(func=ast.Call(func=ast.Attribute(value=made, attr="options"))):
                return self._is_ours(made)
            case ast.Call(func=made) if self._is_ours(made):
                return True
            case ast.Call(func=ast.Name(id=name)) if (
                name in self.module.functions and name not in self.hidden
            ):
                function = self.module.functions[name]
                return isinstance(function, ast.AsyncFunctionDef) and not function.decorator_list
            case ast.Call(func=function):
                return self.name_of(function) in r.COROUTINES
            case _:
                return False

    def _is_ours(self, node: ast.expr) -> bool:
        """Whether it names a step or a workflow of this module."""
        name = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
        return name in self.module.calls and name.partition(".")[0] not in self.hidden

    def _kind_of_type(self, node: ast.expr) -> str | None:
        """Of an annotation. The order of a set of numbers or of a workflow's tasks is the same
        everywhere.
        """
        name = self.name_of(node.value if isinstance(node, ast.Subscript) else node)
        if name == "pathlib.Path":
            return "path"
        inside = ast.unparse(node.slice) if isinstance(node, ast.Subscript) else ""
        orderly = inside in ("int", "bool") or any(word in inside for word in ("Task", "Future"))
        return "set" if name in r.SET_TYPES and not orderly else None

    # --- names get values -------------------------------------------------------------------------

    def _assign(self, target: ast.expr, kind: str | None) -> None:
        match target:
            case ast.Name(id=name):
                self.is_a.pop(name, None)
                if kind:
                    self.is_a[name] = kind
            case ast.Tuple(elts=items) | ast.List(elts=items):
                for one in items:
                    self._assign(one, None)
            case (
                ast.Subscript(value=ast.Name(id=name)) | ast.Attribute(value=ast.Name(id=name))
            ) if self._is_shared(name):
                self.report(target, "shared-state", f"`{name}` of the module")

    def _is_shared(self, name: str) -> bool:
        return name in self.module.assigned and name not in self.hidden and name not in self.local

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self._assign(target, self.kind(node.value))
            self.visit(target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
            kind = self.kind(node.value)
            self._assign(
                node.target, self._kind_of_type(node.annotation) if kind == "set" else kind
            )

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if not isinstance(node.target, ast.Name):
            self._assign(node.target, None)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self._assign(node.target, self.kind(node.value))

    def visit_Global(self, node: ast.Global) -> None:
        self.report(node, "global", f"`global {', '.join(node.names)}`")

    # --- walks ------------------------------------------------------------------------------------

    def _walked(self, node: ast.expr, what: str) -> None:
        if self.kind(node) == "set":
            self.report(node, "set-order", what)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self._walked(node.iter, "this loop")
        self.visit(node.iter)
        self._assign(node.target, None)
        for statement in [*node.body, *node.orelse]:
            self.visit(statement)

    visit_AsyncFor = visit_For  # noqa: N815

    def visit_Starred(self, node: ast.Starred) -> None:
        self._walked(node.value, "unpacking this")
        self.generic_visit(node)

    def visit_YieldFrom(self, node: ast.YieldFrom) -> None:
        self._walked(node.value, "`yield from`")
        self.generic_visit(node)

    def _comprehension(
        self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.SetComp
    ) -> None:
        awaits = any(isinstance(one, ast.Await) for one in ast.walk(node))
        if awaits or not (isinstance(node, ast.SetComp) or id(node) in self._unordered):
            for generator in node.generators:
                self._walked(generator.iter, "this comprehension")
        self.generic_visit(node)

    visit_ListComp = visit_GeneratorExp = visit_DictComp = visit_SetComp = _comprehension  # noqa: N815

    _unordered: frozenset[int] = frozenset()

    # --- calls ------------------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        name = self.name_of(node.func)
        if rule := _rule_of(name, node):
            self.report(node, rule, f"{_short(name)}()")
        if isinstance(node.func, ast.Attribute) and not self._is_ours(node.func):
            self._method(node, node.func)
        for argument in [*node.args, *(one.value for one in node.keywords)]:
            passed = (
                self.name_of(argument) if isinstance(argument, ast.Name | ast.Attribute) else None
            )
            if passed and passed.rpartition(".")[2].islower() and (rule := _rule_of(passed, None)):
                self.report(argument, rule, _short(passed))
        if name in r.UNORDERED or (name in r.WALKERS and id(node) in self._unordered):
            self._unordered |= {id(argument) for argument in node.args}
        elif name in r.WALKERS:
            for argument in node.args:
                self._walked(argument, f"{_short(name)}()")
        self.generic_visit(node)

    def _method(self, node: ast.Call, method: ast.Attribute) -> None:
        kind, attr = self.kind(method.value), method.attr
        if rule := next((rule for rule, names in r.METHODS.items() if attr in names), None):
            self.report(node, rule, f".{attr}()")
        elif kind == "path" and attr in r.PATH_METHODS:
            self.report(node, "io", f".{attr}() of a path")
        elif kind == "set" and attr == "pop":
            self.report(node, "set-order", ".pop() of a set")
        elif attr == "join" and node.args and isinstance(method.value, ast.Constant):
            self._walked(node.args[0], ".join()")
        elif (
            kind == "set"
            and attr == "add"
            and node.args
            and self.kind(node.args[0]) == "task"
            and isinstance(method.value, ast.Name)
        ):
            del self.is_a[method.value.id]  # tasks of a workflow are walked in a stable order
        elif (
            attr == "append"
            and node.args
            and self.kind(node.args[0]) == "task"
            and isinstance(method.value, ast.Name)
        ):
            self.is_a[method.value.id] = "tasks"
        elif (
            attr in r.MUTATORS
            and isinstance(method.value, ast.Name)
            and self._is_shared(method.value.id)
        ):
            self.report(node, "shared-state", f"`{method.value.id}` of the module")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if self.name_of(node) == "os.environ":
            self.report(node, "environment", "os.environ")
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if (
            isinstance(node.ctx, ast.Load)
            and node.id in self.module.functions
            and node.id not in self.hidden
        ):
            self.used.append(node.id)
        elif isinstance(node.ctx, ast.Load) and self.name_of(node) == "os.environ":
            self.report(node, "environment", "os.environ")

    # --- functions inside -------------------------------------------------------------------------

    def _nested(self, node: Function) -> None:
        if id(node) not in self.module.kinds:  # else a step, a workflow, or unknown
            self.generic_visit(node)

    visit_FunctionDef = visit_AsyncFunctionDef = _nested  # noqa: N815

    def visit_arg(self, node: ast.arg) -> None:
        """Annotations do nothing."""


def _rule_of(name: str | None, call: ast.Call | None) -> str | None:
    """The rule that a call of this name breaks."""
    if name is None:
        return None
    if name in r.HARMLESS:
        return (
            "random"
            if name == "random.Random" and call is not None and not (call.args or call.keywords)
            else None
        )
    module, _, last = name.rpartition(".")
    if last.endswith(("Error", "Exception", "Warning", "Expired")) or (
        last == "Timeout" and module
    ):
        return None
    return r.CALLS.get(name) or r.CALLS.get(f"{module}.*")


def _short(name: str | None) -> str:
    return (name or "").removeprefix("builtins.")


def _is_keys(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "keys"
    )


def visit(module: ModuleNames) -> Iterator[Suspect]:
    """What is suspect in the workflows of a module, and in what they use of it."""
    seen: set[int] = set()
    for node in ast.walk(module.tree):
        if not isinstance(node, FUNCTIONS) or module.kinds.get(id(node)) != "workflow":
            continue
        here, todo = f"workflow {node.name}", [node]
        while todo:
            function = todo.pop()
            if id(function) in seen:
                continue
            seen.add(id(function))
            where = here if function is node else f"{function.name}(), which {here} uses,"
            visitor = _Visitor(module, function, where)
            yield from visitor.found
            used = (module.functions[name] for name in visitor.used)
            todo += [one for one in used if id(one) not in module.kinds]
