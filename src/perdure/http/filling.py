"""Filled forms: what a browser has sent of one, as fields or as JSON, and what is to be done next.

Rules: switching between fields and JSON keeps what was typed; what is drawn again for a button of
the form is not complained about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.api.secret import MASK, Secret
from perdure.codec.schema_check import faults, resolved
from perdure.http import forms
from perdure.http.forms import Field, Reading

DO, JSON, AS = "do", "json", "as"


class Filled(msgspec.Struct):
    """A form to be drawn. With `as_json` the value is one text, `json_text`; `again` says that a
    button of the form asked for it to be drawn again, and nothing else.
    """

    field: Field
    value: Any
    errors: list[str]
    fits: bool
    as_json: bool = False
    json_text: str = ""
    again: bool = False


def unfilled(schema: dict[str, Any], value: Any = forms.ABSENT, *, label: str = "") -> Filled:
    """A form that nobody has filled in, with a value or the defaults of the schema."""
    found = forms.first(schema, value, label=label)
    return _drawn(found, again=True)


def filled(
    schema: dict[str, Any], sent: Mapping[str, str], *, label: str = "", masks: bool = False
) -> Filled:
    """What was sent of a form. With `masks` hidden secrets are taken: see `forms.read`."""
    button = sent.get(DO, "")
    if sent.get(AS) == JSON:
        return _from_json(schema, sent.get(JSON, ""), button, label, masks=masks)
    texts = {name: text for name, text in sent.items() if name[:1] == "v"}
    if not button:
        return _drawn(forms.read(schema, texts, label=label, masks=masks))
    found = forms.read(schema, forms.press(texts, button), label=label)
    for one in forms.all_fields(found.field):
        one.error = ""
    drawn = _drawn(msgspec.structs.replace(found, errors=[]), again=True)
    if button == JSON:
        drawn.as_json, drawn.json_text = True, pretty(found.value)
    return drawn


def pretty(value: Any) -> str:
    """A value as JSON on several lines."""
    return msgspec.json.format(msgspec.json.encode(value)).decode()


def with_secrets(schema: dict[str, Any], value: Any, *, masks: bool = False) -> Any:
    """A value whose secrets are `Secret`s, by its schema: so they are hidden where it is stored,
    also where the code that knows their type is elsewhere. With `masks` a hidden one is one, too.
    """
    return _hidden(schema, value, schema.get("$defs", {}), masks=masks)


def _hidden(schema: Any, value: Any, defs: dict[str, Any], *, masks: bool) -> Any:
    own = resolved(schema, defs)
    for one in own.get("anyOf") or own.get("oneOf") or ():
        if not faults({**resolved(one, defs), "$defs": defs}, value):
            return _hidden(one, value, defs, masks=masks)
    match value:
        case str() if own.get("writeOnly") and (masks or value != MASK):
            return Secret(value)
        case dict():
            known, others = own.get("properties", {}), own.get("additionalProperties", {})
            return {
                key: _hidden(known.get(key, others), one, defs, masks=masks)
                for key, one in value.items()
            }
        case list():
            first, rest = own.get("prefixItems", []), own.get("items", {})
            each = [*first, *[rest] * (len(value) - len(first))]
            pairs = zip(each, value, strict=False)
            return [_hidden(inner, one, defs, masks=masks) for inner, one in pairs]
        case _:
            return value


def _from_json(
    schema: dict[str, Any], text: str, button: str, label: str, *, masks: bool
) -> Filled:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        drawn = _drawn(forms.first(schema, label=label), again=bool(button))
        drawn.as_json, drawn.json_text, drawn.fits = True, text, False
        drawn.errors = [f'This is not JSON: {error}. A text needs its quotes: "so".']
        return drawn
    if button:
        return _drawn(forms.first(schema, value, label=label), again=True)
    wrong = [str(one) for one in faults(schema, value)]
    wrong += [forms.MASKED] if forms.masked(value) and not masks else []
    drawn = _drawn(forms.first(schema, value, label=label))
    drawn.value, drawn.errors, drawn.fits = value, wrong, not wrong
    drawn.as_json, drawn.json_text = True, text
    return drawn


def _drawn(reading: Reading, *, again: bool = False) -> Filled:
    return Filled(reading.field, reading.value, reading.errors, reading.fits, again=again)
