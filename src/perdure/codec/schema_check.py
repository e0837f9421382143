"""Checks of JSON values against the schemas of `schemas`: each fault with its place, for a form.

Rules: what a keyword does not say is allowed; the run that receives a value checks it again by the
type itself, so this one may be generous and must not be wrong; the work for one value is bounded.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from itertools import islice
from typing import Any

import msgspec

FAULTS_MAX = 100
DEPTH_MAX = 64

Path = tuple[str | int, ...]
_FORMATS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "date": ("a date, such as 2026-11-30", date.fromisoformat),
    "date-time": ("a date and a time, such as 2026-11-30T14:00:00+01:00", datetime.fromisoformat),
    "time": ("a time, such as 14:00", time.fromisoformat),
    "uuid": ("a UUID", uuid.UUID),
}


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) != float("inf")


_NAMES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "null": ("nothing (null)", lambda value: value is None),
    "boolean": ("true or false", lambda value: isinstance(value, bool)),
    "integer": ("a whole number", lambda value: _is_number(value) and value == int(value)),
    "number": ("a number", _is_number),
    "string": ("a text", lambda value: isinstance(value, str)),
    "array": ("a list", lambda value: isinstance(value, list)),
    "object": ("an object", lambda value: isinstance(value, dict)),
}


class Fault(msgspec.Struct, frozen=True):
    """What is wrong at one place of a value; `path` leads there, by names and by numbers."""

    path: Path
    text: str

    def __str__(self) -> str:
        place = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in self.path)
        return f"{place.removeprefix('.')}: {self.text}" if place else self.text


def faults(schema: dict[str, Any], value: Any) -> list[Fault]:
    """What is wrong with a value, up to 100 faults; none where it fits."""
    defs = schema.get("$defs", {})
    return list(islice(_faults(schema, value, (), defs), FAULTS_MAX))


def resolved(schema: Any, defs: dict[str, Any]) -> dict[str, Any]:
    """A schema with its reference followed; its own title and default come first."""
    for _ in range(DEPTH_MAX):
        if not isinstance(schema, dict) or "$ref" not in schema:
            break
        own = {key: one for key, one in schema.items() if key != "$ref"}
        schema = {**defs.get(str(schema["$ref"]).rpartition("/")[2], {}), **own}
    return schema if isinstance(schema, dict) else {}


def _faults(schema: Any, value: Any, path: Path, defs: dict[str, Any]) -> Iterator[Fault]:
    if schema is False or len(path) > DEPTH_MAX:
        yield Fault(path, "is not expected here" if schema is False else "is nested too deeply")
        return
    schema = resolved(schema, defs)
    if variants := schema.get("anyOf") or schema.get("oneOf"):
        yield from _of_variants(variants, value, path, defs)
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        yield Fault(path, f"is one of {_listed(schema['enum'])}")
    elif "const" in schema and not _same(value, schema["const"]):
        yield Fault(path, f"is {_shown(schema['const'])}")
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds or []
    if kinds and not any(_NAMES[one][1](value) for one in kinds if one in _NAMES):
        yield Fault(path, " or ".join(_NAMES[one][0] for one in kinds if one in _NAMES))
        return
    match value:
        case str():
            yield from (Fault(path, text) for text in _of_text(schema, value))
        case dict():
            yield from _of_object(schema, value, path, defs)
        case list():
            yield from _of_list(schema, value, path, defs)
        case int() | float() if not isinstance(value, bool):
            yield from (Fault(path, text) for text in _of_number(schema, value))


def _of_variants(
    variants: list[Any], value: Any, path: Path, defs: dict[str, Any]
) -> Iterator[Fault]:
    """The faults of the variant that is nearest: the one whose fault is deepest."""
    found = [list(islice(_faults(one, value, path, defs), FAULTS_MAX)) for one in variants]
    if all(found):
        yield from max(found, key=lambda ones: max(len(one.path) for one in ones))


def _of_text(schema: dict[str, Any], value: str) -> Iterator[str]:
    if len(value) < (least := schema.get("minLength", 0)):
        yield f"has at least {least} characters"
    if len(value) > (most := schema.get("maxLength", len(value))):
        yield f"has at most {most} characters"
    pattern = schema.get("pattern")
    if pattern is not None and len(value) <= 10_000 and not _matches(pattern, value):
        yield f"has the form {pattern}"
    name, read = _FORMATS.get(schema.get("format", ""), ("", None))
    if read is not None:
        try:
            read(value)
        except ValueError:
            yield f"is {name}"


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:  # of another dialect
        return True


def _of_number(schema: dict[str, Any], value: float) -> Iterator[str]:
    if "minimum" in schema and value < schema["minimum"]:
        yield f"is at least {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"is at most {schema['maximum']}"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        yield f"is more than {schema['exclusiveMinimum']}"
    if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
        yield f"is less than {schema['exclusiveMaximum']}"


def _of_object(
    schema: dict[str, Any], value: dict[str, Any], path: Path, defs: dict[str, Any]
) -> Iterator[Fault]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield Fault((*path, name), "is missing")
    others = schema.get("additionalProperties", True)
    for name, one in value.items():
        inner = known.get(name, others)
        if inner is not True:
            yield from _faults(inner, one, (*path, name), defs)


def _of_list(
    schema: dict[str, Any], value: list[Any], path: Path, defs: dict[str, Any]
) -> Iterator[Fault]:
    if len(value) < (least := schema.get("minItems", 0)):
        yield Fault(path, f"has at least {least} items")
    if len(value) > (most := schema.get("maxItems", len(value))):
        yield Fault(path, f"has at most {most} items")
    first = schema.get("prefixItems", [])
    rest = schema.get("items", True)
    for index, one in enumerate(value):
        inner = first[index] if index < len(first) else rest
        if inner is not True:
            yield from _faults(inner, one, (*path, index), defs)


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 is not true."""
    return bool(one == other) and isinstance(one, bool) is isinstance(other, bool)


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:80]


def _listed(values: list[Any]) -> str:
    more = f", … ({len(values)} in all)" if len(values) > 12 else ""
    return ", ".join(map(_shown, values[:12])) + more
