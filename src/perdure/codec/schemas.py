"""JSON Schema of annotations and signatures: what forms, documents and other languages read.

Rules: draft 2020-12, with `$defs` at the top; a type that has no schema gives none, never an error;
times say their format, also where msgspec leaves it out because it allows them without a zone.
"""

from __future__ import annotations

import itertools
import typing
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import inspect as shapes

from perdure.api.definitions import Definition
from perdure.api.secret import SCHEMA as SECRET
from perdure.api.secret import Secret
from perdure.codec.secrets import Hides, masked
from perdure.codec.signature import Signature, signature_of

AWAITED_BYTES_MAX = 4096
"""A larger schema is not recorded with what a run waits for: each wait writes it anew."""

_NAMED: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
}
_BY_NAME: dict[str, dict[str, Any]] = {"Any": {}} | {
    cls.__name__: schema for cls, schema in _NAMED.items()
}
_REF = "#/$defs/"


def schema_of(type_: Any) -> dict[str, Any] | None:
    """The schema of a type; None where it has none."""
    try:
        found = msgspec.json.schema(type_, schema_hook=_own)
    except (TypeError, NameError, RecursionError):
        return _by_pydantic(type_)
    _put_in_order(found, type_)
    _add_formats(shapes.type_info(type_), found, found.get("$defs", {}), set())
    return found


def _own(type_: Any) -> dict[str, Any]:
    if type_ is Secret:
        return dict(SECRET)
    raise NotImplementedError


def schema_named(name: str) -> dict[str, Any] | None:
    """The schema of a type whose name is enough, so that it is not recorded with a wait."""
    return _BY_NAME.get(name)


def awaited_schema(type_: Any) -> bytes | None:
    """The schema to record with a wait for a value of a type: None for one whose name is enough,
    and for one that has none or a large one.
    """
    if type_ is Any:
        return None
    try:
        return _awaited(type_)
    except TypeError:  # an annotation that can't be hashed
        return _awaited.__wrapped__(type_)


@lru_cache(maxsize=256)
def _awaited(type_: Any) -> bytes | None:
    if type_ in _NAMED or (schema := schema_of(type_)) is None:
        return None
    raw = msgspec.json.encode(schema)
    return raw if len(raw) <= AWAITED_BYTES_MAX else None


# --- signatures -----------------------------------------------------------------------------------


def parameters_schema(
    definition: Definition[..., Any], hides: Hides | None = None
) -> dict[str, Any]:
    """The schema of the arguments of a workflow or a step, as an object by parameter name.

    Defaults stand with their parameters, but for secrets and what a redaction hides. Raises
    `DefinitionError` for annotations that can't be resolved.
    """
    signature = signature_of(definition)
    found: dict[str, Any] = {"type": "object", "title": definition.name, "properties": {}}
    defs: dict[str, Any] = {}
    for name, type_, required in signature.parameters():
        schema = dict(schema_of(type_) or {})
        own = schema.pop("$defs", {})
        clashes = {key for key, body in own.items() if defs.get(key, body) != body}
        names = {key: f"{name}.{key}" if key in clashes else key for key in own}
        defs |= {names[key]: _renamed(body, names) for key, body in own.items()}
        found["properties"][name] = _renamed(schema, names)
        if required:
            found.setdefault("required", []).append(name)
    _add_defaults(signature, found["properties"], hides)
    found["additionalProperties"] = False
    return found | ({"$defs": defs} if defs else {})


def _add_defaults(signature: Signature, properties: dict[str, Any], hides: Hides | None) -> None:
    raw = signature.defaults()
    shown = msgspec.json.decode(masked(raw, hides))
    for name, default in msgspec.json.decode(raw).items():
        if default == shown[name]:
            properties[name] = {**properties[name], "default": default}


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    """A schema whose references go by other names."""
    if isinstance(schema, list):
        return [_renamed(one, names) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _renamed(one, names) for key, one in schema.items()}
    target = found.get("$ref")
    if isinstance(target, str) and target.startswith(_REF):
        found["$ref"] = _REF + names.get(target.removeprefix(_REF), target.removeprefix(_REF))
    return found


# --- what msgspec does not say --------------------------------------------------------------------


def _by_pydantic(type_: Any) -> dict[str, Any] | None:
    try:
        import pydantic

        return pydantic.TypeAdapter(type_).json_schema(mode="validation")
    except Exception:  # whatever a type of the application raises: it has no schema
        return None


def _add_formats(node: Any, schema: Any, defs: dict[str, Any], seen: set[str]) -> None:
    """Say which strings are times, and put choices into the order of the code."""
    if not isinstance(schema, dict):
        return
    if (name := str(schema.get("$ref", "")).removeprefix(_REF)) in defs and name not in seen:
        seen.add(name)
        _add_formats(node, defs[name], defs, seen)
    elif isinstance(node, shapes.DateTimeType | shapes.TimeType):
        if schema.get("type") == "string":
            is_time = isinstance(node, shapes.TimeType)
            schema.setdefault("format", "time" if is_time else "date-time")
    elif isinstance(node, shapes.EnumType):
        _reorder(schema, [one.value for one in node.cls])
    else:
        if hasattr(node, "fields"):
            _put_fields_in_order(node.cls, schema.get("properties", {}))
        for inner, one in _inner(node, schema):
            _add_formats(inner, one, defs, seen)


def _inner(node: Any, schema: dict[str, Any]) -> Iterable[tuple[Any, Any]]:
    """The parts of a type, each with its schema."""
    match node:
        case shapes.Metadata():
            return [(node.type, schema)]
        case shapes.UnionType():
            return itertools.product(node.types, schema.get("anyOf", ()))
        case shapes.TupleType():
            return zip(node.item_types, schema.get("prefixItems", ()), strict=False)
        case shapes.DictType():
            return [(node.value_type, schema.get("additionalProperties"))]
        case _ if hasattr(node, "item_type"):
            return [(node.item_type, schema.get("items"))]
        case _:
            properties = schema.get("properties", {})
            fields = getattr(node, "fields", ())
            return [(one.type, properties.get(one.encode_name)) for one in fields]


def _put_fields_in_order(cls: Any, properties: dict[str, Any]) -> None:
    try:
        hints = typing.get_type_hints(cls)
    except Exception:  # msgspec has read them, by names that are not to be found from here
        return
    for name, type_ in hints.items():
        if name in properties:
            _put_in_order(properties[name], type_)


def _put_in_order(schema: Any, type_: Any) -> None:
    """Put the choices of a `Literal` into the order of the code; msgspec sorts them."""
    parts = typing.get_args(type_)
    if typing.get_origin(type_) is typing.Literal:
        for one in _enums(schema):
            _reorder(one, parts)
        return
    for part in parts:
        _put_in_order(schema, part)


def _enums(schema: Any) -> Iterable[dict[str, Any]]:
    """The parts of a schema that have choices."""
    if isinstance(schema, dict):
        if "enum" in schema:
            yield schema
        schema = [one for key, one in schema.items() if key != "$defs"]
    if isinstance(schema, list):
        for one in schema:
            yield from _enums(one)


def _reorder(schema: dict[str, Any], choices: Iterable[Any]) -> None:
    """Replace choices by the same ones in another order."""
    ordered, known = list(choices), schema.get("enum", [])
    if sorted(map(repr, ordered)) == sorted(map(repr, known)):
        schema["enum"] = ordered
