"""What a decorator looks at in a function: whether it may be decorated, its signature, and the scope of its annotations.

Rules: an annotation is not evaluated here, because it may name a class that is defined later.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from perdure.errors import DefinitionError


def check_function(fn: Any, kind: str) -> None:
    """Raise `DefinitionError` for what can't be a step or a workflow."""
    if hasattr(fn, "call_options"):
        raise DefinitionError(f"{fn!r} is decorated already; one decorator is enough.")
    if not inspect.isroutine(fn):
        raise DefinitionError(f"@{kind} decorates functions, not {fn!r}.")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError(f"{kind} {fn.__name__} is a generator; return a list, or emit() items to a stream.")


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """The signature; its annotations may name classes that are defined later, so they are not evaluated yet."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return inspect.signature(fn, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(fn)


def without_first(signature: inspect.Signature, name: str) -> inspect.Signature:
    """A transactional step's, without the parameter for the connection. Raises `DefinitionError` where there is none."""
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind not in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
        raise DefinitionError(f"Transactional step {name} needs a first parameter for the store's connection.")
    return signature.replace(parameters=parameters[1:])


def fixed_arity(signature: inspect.Signature) -> tuple[int, int]:
    """How many positional arguments are surely right; (1, 0) means: always ask `bind`."""
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
    while frame is not None and frame.f_globals.get("__name__") in ("perdure.api", __name__):
        frame = frame.f_back
    return None if frame is None else dict(frame.f_locals)


def _has_text_annotations(fn: Callable[..., Any]) -> bool:
    try:
        return any(isinstance(annotation, str) for annotation in fn.__annotations__.values())
    except NameError:
        return False  # Python 3.14: not evaluated yet, and it will find its own scope
