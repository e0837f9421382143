"""Forms from JSON Schema: fields with what was typed, the value that they make, and what is wrong.

Rules: a form is read from the texts of its fields by one function, also where it is shown for the
first time, so that what was typed is never lost; a part of a schema that has no field of its own is
written as JSON; fields that are added or taken away need no script, the server draws them.

Names of fields: `v` is the value, `v/name` a property, `v/2` an item. `v#` is how many items there
are, `v?` whether an optional part is there, `v|` which variant of a union was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from perdure.api.secret import MASK
from perdure.codec.schema_check import Path, faults, resolved

ITEMS_MAX = 200
DEPTH_MAX = 12
LONG_FROM = 200
"""A text that may be longer gets several lines."""

MASKED = f"A secret is hidden here ({MASK}): write it out."
ABSENT: Any = msgspec.UNSET
Texts = Mapping[str, str]
_FORMATS = {"date": "date", "time": "time", "date-time": "datetime", "password": "password"}
_json = msgspec.json.Decoder().decode


class Field(msgspec.Struct):
    """A field as it is shown. `kind` is text, long, number, choice, date, time, datetime, password,
    json, list, object or union; `text` is what was typed, `inner` are the fields in it, `options`
    pairs of a text and its label.
    """

    name: str
    label: str
    kind: str
    path: Path
    needed: bool
    hint: str = ""
    text: str = ""
    error: str = ""
    options: list[tuple[str, str]] = []
    inner: list[Field] = []
    can_hide: bool = False
    """Whether it may be left out as a whole."""
    shown: bool = True

    @property
    def id(self) -> str:
        return "f-" + self.name.replace("/", "-")


class Reading(msgspec.Struct):
    """What a form says: its first field, the value that it makes, and what no field shows."""

    field: Field
    value: Any
    errors: list[str]
    fits: bool


def read(
    schema: dict[str, Any], texts: Texts, *, label: str = "", name: str = "v", masks: bool = False
) -> Reading:
    """A form by its schema and the texts of its fields, with what is wrong beside each. With
    `masks` hidden secrets are taken, because the receiver of the value knows them.
    """
    reader = _Reader(schema.get("$defs", {}), texts, masks=masks)
    field, value = reader.read(schema, name, label, (), needed=True)
    by_path = {one.path: one for one in all_fields(field)}
    errors = []
    wrong = faults(schema, None if value is ABSENT else value)
    for fault in wrong:
        shown = by_path.get(fault.path)
        if shown is None:
            errors.append(str(fault))
        elif not shown.error:
            shown.error = "This is needed." if fault.text == "is missing" else _sentence(fault.text)
    broken = any(one.error for one in by_path.values())
    return Reading(field, None if value is ABSENT else value, errors, not (wrong or broken))


def first(schema: dict[str, Any], value: Any = ABSENT, *, label: str = "") -> Reading:
    """A form that nobody has filled in yet, with a value, or with the defaults of the schema."""
    found = read(schema, texts_of(schema, value), label=label)
    for one in all_fields(found.field):
        one.error = ""
    return Reading(found.field, found.value, [], found.fits)


def texts_of(schema: dict[str, Any], value: Any, name: str = "v") -> dict[str, str]:
    """The texts of the fields that make a value."""
    texts: dict[str, str] = {}
    if value is not ABSENT:
        _fill(schema, value, name, texts, schema.get("$defs", {}))
    return texts


def press(texts: Texts, button: str) -> dict[str, str]:
    """The texts after a button of a form: `add:v/tags`, `remove:v/tags/1`, `show:v/more`,
    `hide:v/more`.
    """
    verb, _, name = button.partition(":")
    changed = dict(texts)
    match verb:
        case "add":
            changed[f"{name}#"] = str(_count(texts, name) + 1)
            changed[f"{name}?"] = "1"
        case "show":
            changed[f"{name}?"] = "1"
        case "hide":
            changed[f"{name}?"] = ""
        case "remove":
            above, _, index = name.rpartition("/")
            if index.isdecimal():
                _take_out(changed, above, int(index))
    return changed


# --- reading --------------------------------------------------------------------------------------


class _Reader:
    """Fields and values from texts, along a schema."""

    def __init__(self, defs: dict[str, Any], texts: Texts, *, masks: bool) -> None:
        self._defs, self._texts, self._masks = defs, texts, masks

    def read(
        self, schema: Any, name: str, label: str, path: Path, *, needed: bool
    ) -> tuple[Field, Any]:
        """The field at a path, and its value; `ABSENT` where it is left out."""
        own = resolved(schema, self._defs)
        shape, nullable = _without_null(own, self._defs)
        kind = _kind(shape) if len(path) < DEPTH_MAX else "json"
        hint = str(own.get("description") or shape.get("description") or "")
        title = str(own.get("title") or "") if kind not in ("object", "union") else ""
        shown = label or title or str(shape.get("title") or "")
        field = Field(name, shown, kind, path, needed and not nullable, hint)
        default = own.get("default", None if nullable and needed else ABSENT)
        match kind:
            case "object" | "list" | "union":
                return field, self._group(field, shape, default, needed and not nullable)
            case _:
                return field, self._single(field, shape, default, nullable)

    def _single(self, field: Field, shape: dict[str, Any], default: Any, nullable: bool) -> Any:
        """The value of one field that is no group."""
        texts, name = self._texts, field.name
        if field.kind == "choice":
            field.options = _options(shape, field.needed or default not in (None, ABSENT))
        if name in texts:
            field.text = texts[name]
        elif default is not ABSENT and default is not None:
            field.text = _text(field.kind, default)
        text = field.text.replace("\r\n", "\n") if field.kind == "long" else field.text.strip()
        if text == MASK and not self._masks:
            field.error = MASKED
        if text == "":
            left_out = None if nullable and default is None else default
            empty = None if nullable else ABSENT
            return empty if name in texts or left_out is ABSENT else left_out
        try:
            return _value(field.kind, text, shape)
        except ValueError as error:
            field.error = str(error)
            return text

    def _group(self, field: Field, shape: dict[str, Any], default: Any, needed: bool) -> Any:
        """The value of a list, an object or a union."""
        name, texts = field.name, self._texts
        touched = any(key.startswith((f"{name}/", f"{name}#", f"{name}?")) for key in texts)
        if not touched and default is not ABSENT and default is not None:
            texts = self._texts = {**texts, **_texts_in(shape, default, name, self._defs)}
        field.can_hide = not needed and field.kind != "list"
        if field.can_hide:
            field.shown = bool(texts.get(f"{name}?"))
            if not field.shown:
                return default if default is None or touched is False else ABSENT
        if field.kind == "list":
            return self._list(field, shape, default, needed)
        return self._object(field, shape) if field.kind == "object" else self._union(field, shape)

    def _list(self, field: Field, shape: dict[str, Any], default: Any, needed: bool) -> Any:
        count = _count(self._texts, field.name)
        first_time = f"{field.name}#" not in self._texts
        if first_time:
            count = max(count, int(shape.get("minItems", 0)))
        prefix = shape.get("prefixItems", [])
        items = shape.get("items", {})
        values = []
        for index in range(count):
            inner = prefix[index] if index < len(prefix) else items
            below, path = f"{field.name}/{index}", (*field.path, index)
            one, value = self.read(inner, below, "", path, needed=True)
            field.inner.append(one)
            values.append(None if value is ABSENT else value)
        if not values and first_time and not needed:
            return default
        return values

    def _object(self, field: Field, shape: dict[str, Any]) -> Any:
        required = shape.get("required", ())
        value = {}
        for key, inner in shape.get("properties", {}).items():
            below, path = f"{field.name}/{key.replace('/', '~1')}", (*field.path, key)
            one, part = self.read(inner, below, key, path, needed=key in required)
            field.inner.append(one)
            if part is not ABSENT:
                value[key] = part
        return value

    def _union(self, field: Field, shape: dict[str, Any]) -> Any:
        variants = _variants(shape)
        chosen = self._texts.get(f"{field.name}|", "0")
        index = int(chosen) if chosen.isdecimal() and int(chosen) < len(variants) else 0
        labels = [_name_of(one, self._defs, n) for n, one in enumerate(variants)]
        field.options = [(str(n), one) for n, one in enumerate(labels)]
        field.text = str(index)
        one, value = self.read(
            variants[index], f"{field.name}/{index}", labels[index], field.path, needed=True
        )
        field.inner.append(one)
        return value


def _without_null(schema: dict[str, Any], defs: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A schema without the variant null, and whether it had one."""
    variants = _variants(schema)
    if variants:
        others = [one for one in variants if one.get("type") != "null"]
        nullable = len(others) < len(variants)
        if len(others) == 1:
            return resolved(others[0], defs), nullable
        return {**schema, "anyOf": others}, nullable
    kinds = schema.get("type")
    if isinstance(kinds, list) and "null" in kinds:
        others = [one for one in kinds if one != "null"]
        return {**schema, "type": others[0] if len(others) == 1 else others}, True
    if None in schema.get("enum", ()):
        return {**schema, "enum": [one for one in schema["enum"] if one is not None]}, True
    return schema, False


def _variants(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return list(schema.get("anyOf") or schema.get("oneOf") or [])


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema or schema.get("type") == "boolean":
        return "choice"
    if _variants(schema):
        return "union"
    match schema.get("type"):
        case "integer" | "number":
            return "number"
        case "string":
            most = schema.get("maxLength", LONG_FROM)
            short = "pattern" in schema or "format" in schema or most < LONG_FROM
            return _FORMATS.get(schema.get("format", ""), "text" if short else "long")
        case "array" if schema.get("items", True) is not True or "prefixItems" in schema:
            return "list"
        case "object" if schema.get("properties"):
            return "object"
        case _:
            return "json"


def _options(schema: dict[str, Any], needed: bool) -> list[tuple[str, str]]:
    if schema.get("type") == "boolean":
        found = [("true", "Yes"), ("false", "No")]
    else:
        given = schema["enum"] if "enum" in schema else [schema["const"]]
        found = [(_dump(one), one if isinstance(one, str) else _dump(one)) for one in given]
    return found if needed else [("", "–"), *found]


def _value(kind: str, text: str, schema: dict[str, Any]) -> Any:
    """The value of a text. Raises `ValueError` with what is wrong."""
    match kind:
        case "choice" | "json":
            try:
                return _json(text)
            except msgspec.DecodeError as error:
                if kind == "choice":
                    raise ValueError("Choose one of these.") from error
                raise ValueError(
                    f'This is not JSON: {error}. A text needs its quotes: "so".'
                ) from error
        case "number":
            return _number(text, whole=schema.get("type") == "integer")
        case "datetime":
            return _time(text)
        case _:
            return text


def _number(text: str, *, whole: bool) -> int | float:
    plain = text.replace("_", "").replace("\u2009", "")
    try:
        return int(plain)
    except ValueError:
        pass
    try:
        number = float(plain)
    except ValueError:
        number = float("nan")
    if number - number != 0 or (whole and number != int(number)):
        raise ValueError("This is a whole number." if whole else "This is a number.")
    return int(number) if whole else number


def _time(text: str) -> str:
    """A time as ISO 8601 with its offset; that of a picker is UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("This is a date and a time, such as 2026-11-30T14:00.") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()


# --- from values to texts -------------------------------------------------------------------------


def _texts_in(schema: Any, value: Any, name: str, defs: dict[str, Any]) -> dict[str, str]:
    texts: dict[str, str] = {}
    _fill(schema, value, name, texts, defs)
    return texts


def _fill(schema: Any, value: Any, name: str, texts: dict[str, str], defs: dict[str, Any]) -> None:
    shape, _ = _without_null(resolved(schema, defs), defs)
    kind = _kind(shape)
    if value is None:
        texts[f"{name}?"] = ""
        if kind not in ("list", "object", "union"):
            texts[name] = ""
        return
    if kind == "list" and isinstance(value, list):
        texts[f"{name}#"] = str(len(value))
        prefix, items = shape.get("prefixItems", []), shape.get("items", {})
        for index, one in enumerate(value[:ITEMS_MAX]):
            inner = prefix[index] if index < len(prefix) else items
            _fill(inner, one, f"{name}/{index}", texts, defs)
    elif kind == "object" and isinstance(value, dict):
        texts[f"{name}?"] = "1"
        for key, inner in shape["properties"].items():
            if key in value:
                _fill(inner, value[key], f"{name}/{key.replace('/', '~1')}", texts, defs)
    elif kind == "union":
        variants = _variants(shape)
        fitting = (n for n, one in enumerate(variants) if not faults({**one, "$defs": defs}, value))
        index = next(fitting, 0)
        texts |= {f"{name}?": "1", f"{name}|": str(index)}
        _fill(variants[index], value, f"{name}/{index}", texts, defs)
    else:
        texts[name] = _text(kind, value)


def _text(kind: str, value: Any) -> str:
    """A value as its field shows it."""
    if kind == "datetime" and isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            return value
        return (at.astimezone(UTC) if at.tzinfo else at).strftime("%Y-%m-%dT%H:%M:%S")
    if kind == "json":
        return msgspec.json.format(msgspec.json.encode(value)).decode()
    return value if isinstance(value, str) and kind != "choice" else _dump(value)


# --- parts ----------------------------------------------------------------------------------------


def masked(value: Any) -> bool:
    """Whether a secret is hidden somewhere in a value, which would then be lost."""
    match value:
        case dict():
            return any(masked(one) for one in value.values())
        case list():
            return any(masked(one) for one in value)
        case _:
            return bool(value == MASK)


def _take_out(texts: dict[str, str], name: str, index: int) -> None:
    """Take an item out of a list: those behind it move up."""
    count = _count(texts, name)
    if index >= count:
        return
    moved: dict[str, str] = {}
    for key in [key for key in texts if key.startswith(f"{name}/")]:
        number, mark, rest = _parts(key.removeprefix(f"{name}/"))
        if number is None or number < index:
            continue
        text = texts.pop(key)
        if number > index:
            moved[f"{name}/{number - 1}{mark}{rest}"] = text
    texts |= moved
    texts[f"{name}#"] = str(count - 1)


def _parts(below: str) -> tuple[int | None, str, str]:
    """The number at the beginning of a name below a list, what follows it, and the rest."""
    digits = len(below) - len(below.lstrip("0123456789"))
    number = int(below[:digits]) if digits else None
    return number, below[digits : digits + 1], below[digits + 1 :]


def _count(texts: Texts, name: str) -> int:
    text = texts.get(f"{name}#", "0")
    return min(int(text), ITEMS_MAX) if text.isdecimal() else 0


def all_fields(field: Field) -> list[Field]:
    """A field and those in it; the inner one of a union has its path, and counts."""
    return [field, *(found for one in field.inner for found in all_fields(one))]


def _name_of(schema: dict[str, Any], defs: dict[str, Any], index: int) -> str:
    shape = resolved(schema, defs)
    name = shape.get("title") or shape.get("format") or shape.get("type")
    return str(name) if isinstance(name, str) else f"variant {index + 1}"


def _sentence(text: str) -> str:
    begins = text if text.split(" ", maxsplit=1)[0] in ("is", "has") else f"is {text}"
    return f"This {begins}."


def _dump(value: Any) -> str:
    return msgspec.json.encode(value).decode()
