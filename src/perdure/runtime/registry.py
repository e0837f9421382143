"""Registry of workflows: those that a process knows, by name, with those that their code mentions.

Rules: a name stands for one piece of code, because a history knows its workflow by name only; two
functions are the same code if their instructions, globals, defaults and closed-over values are
equal; a workflow that can't be added leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

from perdure.api.definitions import Definition, Workflow
from perdure.errors import DefinitionError

_VALUES = (str, bytes, int, float, bool, type(None))


def add_workflow(known: dict[str, Workflow[..., Any]], definition: Any) -> tuple[str, ...]:
    """Register a workflow and those that its code names, so that children can be executed after a
    restart.

    Returns the names that were not known before. Raises `DefinitionError` where a name stands for
    other code already, and registers nothing then.
    """
    existing = known.get(definition.name) if isinstance(definition, Workflow) else None
    if existing is not None and existing.fn is definition.fn:
        return ()
    found: dict[str, Workflow[..., Any]] = {}
    _collect(known, found, definition)
    known.update(found)
    return tuple(found)


def know_workflow(known: dict[str, Workflow[..., Any]], definition: Workflow[..., Any]) -> None:
    """Add a workflow, and those that it may continue as, for a process that only reads results.

    A name that is known keeps its workflow.
    """
    if definition.name not in known:
        known[definition.name] = definition
        for mentioned in _mentioned(definition.fn):
            know_workflow(known, mentioned)


def _collect(
    known: Mapping[str, Workflow[..., Any]], found: dict[str, Workflow[..., Any]], definition: Any
) -> None:
    if not isinstance(definition, Workflow):
        raise DefinitionError(
            f"Engine(workflows=[...]) takes functions decorated with @workflow, not {definition!r}."
        )
    existing = known.get(definition.name) or found.get(definition.name)
    if existing is None:
        found[definition.name] = definition
        for mentioned in _mentioned(definition.fn):
            _collect(known, found, mentioned)
    elif not _same(existing.fn, definition.fn, set()):
        raise DefinitionError(_clash(existing, definition))


def _clash(existing: Workflow[..., Any], definition: Workflow[..., Any]) -> str:
    places = [f"{one.__module__}.{one.__qualname__}" for one in (existing, definition)]
    twice = f"{places[0]} was defined twice, with other code or other values around it"
    what = twice if places[0] == places[1] else f"{places[0]} and {places[1]}"
    return (
        f"Two workflows are called {definition.name!r}: {what}. A history knows its workflow by "
        f"name only: give one of them a name=, "
        "or define it once and pass what differs as arguments."
    )


# --- equality of functions ---------------------------------------------------------------


def _same(one: Any, other: Any, seen: set[tuple[int, int]]) -> bool:
    """Whether two functions, or values that functions hold, are the same."""
    if one is other or (id(one), id(other)) in seen:
        return True
    if type(one) is not type(other):
        return False
    seen.add((id(one), id(other)))
    match one:
        case FunctionType():
            return _same_function(one, other, seen)
        case Definition():
            return (one.name, one.call_options) == (other.name, other.call_options) and _same(
                one.fn, other.fn, seen
            )
        case tuple():
            return len(one) == len(other) and all(
                _same(a, b, seen) for a, b in zip(one, other, strict=True)
            )
        case dict():
            return one.keys() == other.keys() and all(
                _same(one[key], other[key], seen) for key in one
            )
        case _:
            return isinstance(one, _VALUES) and bool(one == other)


def _same_function(one: FunctionType, other: FunctionType, seen: set[tuple[int, int]]) -> bool:
    if one.__code__ != other.__code__ or one.__globals__ is not other.__globals__:
        return False
    held = [(fn.__defaults__, fn.__kwdefaults__, tuple(_contents(fn))) for fn in (one, other)]
    return _same(held[0], held[1], seen)


def _contents(fn: Any) -> Iterator[Any]:
    """What a function has closed over."""
    for cell in fn.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            yield None  # the enclosing function has not assigned it yet


# --- what a function mentions ---------------------------------------------------------------------


def _mentioned(fn: Any) -> list[Workflow[..., Any]]:
    """Workflows that a function's code refers to: in its globals, around it, or in modules and
    classes that it names.

    A decorator's wrapper refers to what the function inside it refers to.
    """
    names: set[str] = set()
    found: list[Any] = []
    inner = fn
    while inner is not None:
        if (code := getattr(inner, "__code__", None)) is not None:
            names |= _names(code)
            found += [inner.__globals__.get(name) for name in sorted(names)]
            found += _contents(inner)
        inner = getattr(inner, "__wrapped__", None)
    seen: list[Any] = []
    for item in found:  # which grows
        if isinstance(item, ModuleType | type) and not any(item is one for one in seen):
            seen.append(item)
            found += [
                vars(space)[name]
                for space in getattr(item, "__mro__", (item,))
                for name in sorted(names & vars(space).keys())
            ]
    items = [item.__func__ if isinstance(item, staticmethod) else item for item in found]
    return [item for item in items if isinstance(item, Workflow)]


def _names(code: CodeType) -> set[str]:
    inner = (_names(const) for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*inner)
