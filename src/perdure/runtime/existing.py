"""Whether a run that exists is the one that a start asks for: the same workflow with equal arguments.

Rules: the store compares what is written; where that differs, arguments are compared as the values that code gets, with
defaults filled in, so how they were written down does not count; `1` and `1.0` are equal, `True` and `1` are not.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from perdure.api import Definition
from perdure.codec import signature_of
from perdure.codec_types import fields_of, slot_of
from perdure.errors import NotSerializable, RunExists
from perdure.store import base as b

_EMPTY: dict[Any, Any] = {inspect.Parameter.VAR_POSITIONAL: (), inspect.Parameter.VAR_KEYWORD: {}}


def found_again(store: b.Store, definition: Definition[..., Any], args: bytes, refused: RunExists) -> b.Started | RunExists:
    """The run whose id was taken, if its arguments, or those that it began with, are equal to these; else the refusal.

    Raises what the store can't be read for.
    """
    try:
        wanted = dict(_values(definition, args))
        for run in refused.compare:
            if _equal(dict(_values(definition, store.run_row(run).args)), wanted):
                return b.Started(refused.run, refused.run_id, False)
    except NotSerializable:
        pass  # recorded for other parameters
    return refused


def _values(definition: Definition[..., Any], raw: bytes) -> Iterator[tuple[str, Any]]:
    args, kwargs = signature_of(definition).decode_args(raw)
    given = definition.signature.bind_partial(*args, **kwargs).arguments
    for name, parameter in definition.signature.parameters.items():
        yield name, given.get(name, _EMPTY.get(parameter.kind, parameter.default))


def _equal(one: Any, other: Any) -> bool:
    """Equality as JSON and Python have it together: kinds of numbers and the order of keys do not count, all other types do."""
    if one is other:
        return True
    if type(one) in (int, float) and type(other) in (int, float):
        return bool(one == other)
    cls: Any = type(one)
    if cls is not type(other):
        return False
    if issubclass(cls, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if issubclass(cls, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if issubclass(cls, set | frozenset):
        return {(type(item) is bool, item) for item in one} == {(type(item) is bool, item) for item in other}
    if names := fields_of(cls):
        extra = _equal(getattr(one, "model_extra", None), getattr(other, "model_extra", None))
        return extra and all(_equal(getattr(one, name, None), getattr(other, name, None)) for name in names)
    by_identity: Any = cls.__eq__
    return bool(one == other) or (by_identity is object.__eq__ and slot_of(cls).encode(one) == slot_of(cls).encode(other))
