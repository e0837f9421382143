"""Types that only pydantic can check or write, and their adapter.

Rules: pydantic is imported where a type needs it, so that what works does not depend on what else
the program has imported; where it is not installed, such a type is refused; constraints that one
library reads and the other one does not are refused, never ignored.
"""

from __future__ import annotations

import functools
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec

from perdure.api.secret import Secret
from perdure.codec.records import is_model


class Unsupported(TypeError):
    """A type that has no JSON form."""


_LIBRARIES = {"pydantic", "pydantic_core", "pydantic_extra_types", "annotated_types"}
_NO_TYPES = (str, types.FunctionType, types.BuiltinFunctionType)
_NO_VALUES = {"callable", "call", "is-subclass", "is-instance", "custom-error"}


class Adapter(msgspec.Struct, frozen=True):
    """Pydantic's encoder and decoder of a type; `sets` and `times`: whether it may hold some."""

    dump: Callable[..., bytes]
    load: Callable[[bytes], Any]
    sets: bool
    times: bool


def asked_for(type_: Any) -> str | None:
    """The part of a type that needs pydantic: a constraint, a validator, a serializer, a class
    of its own; models apart.
    """
    for part in _parts(type_):
        cls = part if isinstance(part, type) else type(part)
        if is_model(cls) or cls is Secret:
            continue
        if cls.__name__ == "FieldInfo" and not (part.metadata or part.discriminator or part.alias):
            continue  # a description
        if cls.__module__.partition(".")[0] in _LIBRARIES or any(
            hasattr(part, name) for name in _HOOKS
        ):
            return (
                cls.__qualname__
                if part is cls
                else re.sub(r" at 0x[0-9a-f]+", "", repr(part))[:100]
            )
    return None


_HOOKS = ("__get_pydantic_core_schema__", "__pydantic_validator__", "__pydantic_config__")


def check_unions(type_: Any) -> None:
    """Raise `Unsupported` for a union of a collection and a type with constraints: msgspec 0.22
    ends the process over it.
    """
    for part in _parts(type_):
        if typing.get_origin(part) in _UNIONS:
            members = [
                (one.__origin__, one.__metadata__) if hasattr(one, "__metadata__") else (one, ())
                for one in typing.get_args(part)
            ]
            constrained = any(
                isinstance(meta, msgspec.Meta) and _constrains(meta)
                for _, metadata in members
                for meta in metadata
            )
            if constrained and any(
                (typing.get_origin(one) or one) in _COLLECTIONS for one, _ in members
            ):
                raise Unsupported(
                    "msgspec can't read a union of a collection and a type with "
                    "constraints; put one into a dataclass"
                )


_UNIONS = (typing.Union, types.UnionType)
_COLLECTIONS = (
    list,
    dict,
    tuple,
    set,
    frozenset,
    *map(typing.get_origin, (typing.Sequence, typing.Mapping, typing.Iterable)),
)


def _parts(type_: Any) -> Iterator[Any]:
    """The unions and the classes in a type, also in the fields of its records, and the metadata of
    their annotations.
    """
    seen: dict[int, Any] = {}
    ahead: list[Any] = [type_]
    while ahead:
        one = ahead.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        origin = typing.get_origin(one)
        if origin is Annotated:
            yield from one.__metadata__
            ahead.append(one.__origin__)
        elif origin is not Literal:
            ahead += [origin, *typing.get_args(one)] if origin is not None else _behind(one)
            if isinstance(one, type) or origin in _UNIONS:
                yield one


def _behind(one: Any) -> list[Any]:
    """The type behind an alias, and the annotations of a record's fields."""
    for name in ("__value__", "__supertype__", "__bound__"):
        if not isinstance(one, type) and getattr(one, name, None) is not None:
            return [getattr(one, name)]
    if not isinstance(one, type) or is_model(one):
        return []
    try:
        return list(typing.get_type_hints(one, include_extras=True).values())
    except Exception:  # a class inside a function may name what is found nowhere else
        return [
            hint
            for hint in vars(one).get("__annotations__", {}).values()
            if not isinstance(hint, str)
        ]


def adapter_of(type_: Any, reason: str, *, base64: bool = False) -> Adapter:
    """The adapter of a type. Raises `Unsupported`, with the reason why pydantic is asked, where it
    can't do it either.

    With `base64` bytes are written as all other types have them.
    """
    if isinstance(type_, _NO_TYPES):
        raise Unsupported(_first_line(reason))
    try:
        import pydantic
    except ImportError:
        raise Unsupported(
            f"{_first_line(reason)} (pydantic could do it, and is not installed)"
        ) from None
    if any(isinstance(part, msgspec.Meta) and _constrains(part) for part in _parts(type_)):
        raise Unsupported(
            f"msgspec.Meta does not work beside what only pydantic does "
            f"({_first_line(reason)}): use pydantic's constraints"
        )
    try:
        adapter: Any = (
            pydantic.TypeAdapter(list[type_], config=_BASE64)
            if base64
            else pydantic.TypeAdapter(type_)
        )
        adapter.rebuild(raise_errors=True)
    except Exception as error:
        why = _first_line(str(error))
        raise Unsupported(
            f"{_first_line(reason)}, and pydantic: {why}" if reason else why
        ) from None
    if adapter.core_schema.get("type") in _NO_VALUES:
        raise Unsupported(_first_line(reason))
    dump = functools.partial(adapter.dump_json, by_alias=True, round_trip=True, warnings=False)
    schema = _schema_text(adapter)
    found = Adapter(
        dump,
        adapter.validate_json,
        '"uniqueItems"' in schema,
        '-time"' in schema or '"time"' in schema,
    )
    if base64:
        found = msgspec.structs.replace(
            found,
            dump=lambda value, **how: dump([value], **how)[1:-1],
            load=lambda raw: adapter.validate_json(b"[%s]" % raw)[0],
        )
    return found


_BASE64: Any = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}


def _constrains(meta: msgspec.Meta) -> bool:
    """Whether metadata constrains values; it may be a description only."""
    about = ("title", "description", "examples", "extra_json_schema", "extra")
    return any(
        getattr(meta, name, None) is not None
        for name in dir(meta)
        if not name.startswith("_") and name not in about
    )


def _schema_text(adapter: Any) -> str:
    try:
        return msgspec.json.encode(adapter.json_schema(mode="serialization")).decode()
    except Exception:
        return '"uniqueItems" "date-time"'  # there is no schema for it, so better look


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
