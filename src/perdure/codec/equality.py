"""Equality of recorded arguments: whether two texts are the same call, as the values that code
gets.

Rules: defaults are filled in, so the form of arguments does not count, and neither does a new
field with a default; an argument that neither call passed is equal, whatever its default was and
is; `1` and `1.0` are equal, `True` and `1` are not.
"""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Iterator
from typing import Any

import msgspec

from perdure.api.definitions import Definition
from perdure.codec import marks
from perdure.codec.records import fields_of
from perdure.codec.signature import signature_of
from perdure.codec.types import slot_of
from perdure.errors import NotSerializable

_EMPTY: dict[Any, Any] = {inspect.Parameter.VAR_POSITIONAL: (), inspect.Parameter.VAR_KEYWORD: {}}


def same_arguments(definition: Definition[..., Any], one: bytes, other: bytes) -> bool:
    """Whether two recorded arguments, JSON by parameter name, are equal; not if one of them no
    longer fits the signature.
    """
    signature = signature_of(definition)
    try:
        passed = marks.given(one) | marks.given(other)
        first, second = (signature.decode_args(marks.only(raw, passed)) for raw in (one, other))
        return _equal(dict(_values(definition, *first)), dict(_values(definition, *second)))
    except (NotSerializable, msgspec.MsgspecError):
        return False


def same_values(type_: Any, one: bytes, other: bytes) -> bool:
    """Whether two recorded values of a type are equal; not if one of them no longer fits it."""
    slot = slot_of(type_)
    try:
        return _equal(slot.decode(one), slot.decode(other))
    except Exception:
        return False


def _values(
    definition: Definition[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    given = definition.signature.bind_partial(*args, **kwargs).arguments
    for name, parameter in definition.signature.parameters.items():
        yield name, given.get(name, _EMPTY.get(parameter.kind, parameter.default))


def _equal(one: Any, other: Any) -> bool:
    """Equality of JSON values in Python: types count, kinds of numbers and key order do not."""
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
        return {(type(item) is bool, item) for item in one} == {
            (type(item) is bool, item) for item in other
        }
    if isinstance(one, dt.datetime) and one.tzinfo is not None and other.tzinfo is not None:
        return bool(
            one.astimezone(dt.UTC) == other.astimezone(dt.UTC)
        )  # `==` is False for two zones where clocks go back
    if names := fields_of(cls):
        extra = _equal(getattr(one, "model_extra", None), getattr(other, "model_extra", None))
        return extra and all(
            _equal(getattr(one, name, None), getattr(other, name, None)) for name in names
        )
    by_identity: Any = cls.__eq__
    return bool(one == other) or (
        by_identity is object.__eq__ and slot_of(cls).encode(one) == slot_of(cls).encode(other)
    )
