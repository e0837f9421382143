"""Record classes (dataclasses, attrs, Structs, pydantic's models): their fields, the names of these
in JSON, and the values inside values.

Rules: no library is imported for this: without it, the application has no class of it either.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from perdure.api.secret import MARK, MASK

_MARK = repr(MARK)[1:-1]


def is_model(cls: Any) -> bool:
    """Whether this is a class of pydantic's models."""
    return isinstance(cls, type) and hasattr(cls, "__pydantic_root_model__")


def _json_names(cls: Any) -> dict[str, str]:
    if issubclass(cls, msgspec.Struct):
        return dict(zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True))
    if is_model(cls):
        return {
            name: field.serialization_alias or field.alias or name
            for name, field in cls.model_fields.items()
        }
    if dataclasses.is_dataclass(cls):
        return {field.name: field.name for field in dataclasses.fields(cls)}
    return {field.name: field.name for field in getattr(cls, "__attrs_attrs__", ())}


json_names: Callable[[type], dict[str, str]] = functools.lru_cache(maxsize=4096)(_json_names)
"""The fields of a record class with their names in JSON; nothing for all other classes."""

fields_of: Callable[[type], tuple[str, ...]] = functools.lru_cache(maxsize=4096)(
    lambda cls: tuple(json_names(cls))
)
"""The names of the fields of a record class."""


def children(value: Any) -> Iterator[tuple[str, Any]]:
    """The values inside a value, each with its step of a path."""
    if isinstance(value, dict):
        yield from ((f"[{short(key)}]", inner) for key, inner in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"[{index}]", inner) for index, inner in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield from (("{…}", inner) for inner in value)
    else:
        yield from (
            (f".{name}", getattr(value, name))
            for name in fields_of(type(value))
            if hasattr(value, name)
        )


def short(value: Any) -> str:
    """A value's repr in at most 60 characters."""
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__qualname__}>"
    text = MASK if _MARK in text else text
    return text if len(text) <= 60 else text[:57] + "..."


def force(target: Any, name: str, value: Any) -> None:
    """Set a field, also of a frozen record, without its checks."""
    if isinstance(target, msgspec.Struct):
        msgspec.structs.force_setattr(target, name, value)
    elif name in getattr(target, "__dict__", ()):
        target.__dict__[name] = value
    else:
        object.__setattr__(target, name, value)
