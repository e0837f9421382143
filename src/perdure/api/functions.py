"""Functions as decorators see them: what may be decorated, signatures, scopes of annotations.

Rules: an annotation is not evaluated here, because it may name a class that is defined later.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, cast

from perdure.core.numbers import shown
from perdure.errors import DefinitionError

_Kind = inspect.Parameter
POSITIONAL = (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD)
BY_NAME = (_Kind.POSITIONAL_OR_KEYWORD, _Kind.KEYWORD_ONLY)


def function_of(given: Any, kind: str) -> Callable[..., Any]:
    """The decorated function, out of its `@staticmethod`. Raises `DefinitionError` for
    what can't be a step or a workflow.
    """
    fn = given.__func__ if isinstance(given, staticmethod) else given
    if hasattr(fn, "call_options"):
        raise DefinitionError(f"{fn!r} is decorated already; one decorator is enough.")
    if isinstance(fn, classmethod):
        raise DefinitionError(_of_a_class(f"{kind} {fn.__qualname__}", "class", kind, fn.__name__))
    if not inspect.isroutine(fn) or not hasattr(fn, "__qualname__"):
        raise DefinitionError(
            f"@{kind} decorates functions, not {shown(fn)}. Write a function that calls it, and "
            f"decorate that: its name is what the "
            "history records."
        )
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError(
            f"{kind} {fn.__name__} is a generator; return a list, or emit() items to a stream."
        )
    if inspect.iscoroutinefunction(inspect.unwrap(fn)) and not inspect.iscoroutinefunction(fn):
        raise DefinitionError(
            f"{kind} {fn.__name__} is an `async def` inside a decorator whose wrapper is a "
            f"plain function, so nothing would await it. "
            f"Make that wrapper an `async def` that awaits the function, or put that decorator "
            f"above @{kind}."
        )
    try:
        signature_of(fn)
    except ValueError as error:
        raise DefinitionError(
            f"{kind} {fn.__name__}: {error}. Write a function that calls it, and decorate that."
        ) from None
    _check_receiver(fn, kind)
    return cast("Callable[..., Any]", fn)


def _check_receiver(fn: Any, kind: str) -> None:
    """Raise `DefinitionError` for a method: its first argument would have to be recorded."""
    if inspect.ismethod(fn) or "." not in qualified(fn):
        return  # bound already, or not defined in a class
    first = next(iter(signature_of(fn).parameters), None)
    if first in ("self", "cls"):
        raise DefinitionError(
            _of_a_class(
                f"{kind} {fn.__qualname__}",
                "instance" if first == "self" else "class",
                kind,
                fn.__name__,
            )
        )


def _of_a_class(what: str, receiver: str, kind: str, name: str) -> str:
    bound = f"{name} = {kind}(the_{receiver}.{name})"
    return (
        f"{what} takes its {receiver} as an argument, and arguments are recorded, which this "
        f"one can't be. Make it a @staticmethod or a "
        f"function that takes what it needs as arguments; or leave it a plain method and "
        f"decorate it bound, `{bound}`, where each "
        f"process makes the {receiver}."
    )


def qualified(fn: Any) -> str:
    """The name of a function with the classes around it, and without the functions around it:
    `total`, `Invoice.total`.
    """
    return cast("str", fn.__qualname__.rpartition("<locals>.")[2])


def name_of(fn: Any, kind: str) -> str:
    """The recorded name of a function without a `name=`. Raises `DefinitionError` for a lambda."""
    name = qualified(fn)
    if name.endswith("<lambda>"):
        raise DefinitionError(
            f"A lambda has no name that the history could record: give it one, "
            f'{kind}(name="...")(lambda ...).'
        )
    return name


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """The signature; its annotations may name classes that are defined later, so they are not
    evaluated yet.
    """
    if sys.version_info >= (3, 14):
        import annotationlib

        return inspect.signature(fn, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(fn)


def without_first(signature: inspect.Signature, name: str) -> inspect.Signature:
    """A transactional step's, without the parameter for the connection. Raises `DefinitionError`
    where there is none.
    """
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise DefinitionError(
            f"Transactional step {name} needs a first parameter for the store's connection."
        )
    return signature.replace(parameters=parameters[1:])


def fixed_arity(signature: inspect.Signature) -> tuple[int, int]:
    """The numbers of positional arguments that fit; (1, 0) means: always ask `bind`."""
    low = high = 0
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            return (1, 0)
        high += 1
        low += parameter.default is parameter.empty
    return (low, high)


def scope_of(fn: Callable[..., Any]) -> dict[str, Any] | None:
    """The locals around a nested function, where its annotations are texts that may name them."""
    if "<locals>" not in fn.__qualname__ or not _has_text_annotations(fn):
        return None
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") in (
        "perdure.api.definitions",
        __name__,
    ):
        frame = frame.f_back
    return None if frame is None else dict(frame.f_locals)


def _has_text_annotations(fn: Callable[..., Any]) -> bool:
    try:
        return any(isinstance(annotation, str) for annotation in fn.__annotations__.values())
    except NameError:
        return False  # Python 3.14: not evaluated yet, and it will find its own scope
