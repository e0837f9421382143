"""Forms from schemas: values become fields and come back, what was typed is kept, buttons work."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Any, Literal

import pytest

from perdure.api.secret import MASK
from perdure.codec.schemas import schema_of
from perdure.http import forms
from perdure.http.filling import filled, unfilled


@dataclasses.dataclass
class Line:
    item: str
    count: int = 1


@dataclasses.dataclass
class Tree:
    name: str
    inner: Tree | None = None


@dataclasses.dataclass
class Order:
    """What to ship."""

    to: str
    lines: list[Line]
    speed: Literal["fast", "slow"] = "slow"
    due: dt.datetime | None = None
    day: dt.date | None = None
    gift: Line | None = None
    ok: bool = False
    price: int | str = 5
    tags: dict[str, int] = dataclasses.field(default_factory=dict)
    tree: Tree | None = None


ORDER = schema_of(Order) or {}
WHOLE: dict[str, Any] = {
    "to": "Ada\nin the corner",
    "lines": [{"item": "tea", "count": 2**80}, {"item": "milk", "count": 1}],
    "speed": "fast",
    "due": "2026-11-30T13:00:00+00:00",
    "day": "2026-11-30",
    "gift": {"item": "card", "count": 1},
    "ok": True,
    "price": "much",
    "tags": {"a": 1},
    "tree": {"name": "root", "inner": {"name": "leaf", "inner": None}},
}


def errors_of(form: forms.Reading) -> dict[str, str]:
    return {one.name: one.error for one in forms.all_fields(form.field) if one.error}


def test_a_value_comes_back_from_its_fields() -> None:
    read = forms.read(ORDER, forms.texts_of(ORDER, WHOLE))
    assert (read.value, read.fits, read.errors) == (WHOLE, True, [])


def test_defaults_are_filled_in_and_nothing_is_complained_about_at_first() -> None:
    form = unfilled(ORDER)
    assert form.value["speed"] == "slow"
    assert (form.value["price"], form.value["gift"], form.value["lines"]) == (5, None, [])
    assert [one.error for one in forms.all_fields(form.field) if one.error] == []
    assert not form.fits  # whom to ship to is not said yet


def test_what_is_wrong_is_said_beside_its_field_and_kept() -> None:
    texts = forms.texts_of(ORDER, WHOLE)
    texts |= {"v/lines/0/count": "many", "v/to": "", "v/speed": "", "v/due": "soon", "v/tags": "{"}
    read = forms.read(ORDER, texts)
    assert not read.fits
    assert set(errors_of(read)) == {"v/lines/0/count", "v/to", "v/due", "v/tags"}
    by_name = {one.name: one for one in forms.all_fields(read.field)}
    assert (by_name["v/lines/0/count"].text, by_name["v/due"].text) == ("many", "soon")
    assert "speed" not in read.value  # its default holds


def test_items_are_added_and_taken_out_where_they_are() -> None:
    texts = forms.press(forms.texts_of(ORDER, WHOLE), "remove:v/lines/0")
    assert forms.read(ORDER, texts).value["lines"] == [{"item": "milk", "count": 1}]
    added = forms.read(ORDER, forms.press(texts, "add:v/lines"))
    assert errors_of(added) == {"v/lines/1/item": "This is needed."}
    without = forms.read(ORDER, forms.press(texts, "hide:v/gift"))
    assert without.value["gift"] is None
    again = forms.read(ORDER, forms.press(forms.press(texts, "hide:v/gift"), "show:v/gift"))
    assert again.value["gift"]["item"] == "card"  # it was only left out


@pytest.mark.parametrize(
    ("button", "sent"),
    [
        ("remove:v/lines/99", {}), ("remove:v", {}), ("add:", {}), ("nonsense", {}), (":", {}),
        ("add:v/lines", {"v/lines#": "9" * 50}), ("", {"v/lines#": "-1"}), ("", {"v/price|": "7"}),
        ("", {"v/lines#": "x", "v/lines/0/item": "lost"}), ("remove:v/lines/x", {}),
    ],
)  # fmt: skip
def test_what_no_browser_sends_does_no_harm(button: str, sent: dict[str, str]) -> None:
    form = filled(ORDER, {**forms.texts_of(ORDER, WHOLE), **sent, "do": button})
    assert isinstance(form.value, dict)
    assert len(form.value.get("lines", [])) <= forms.ITEMS_MAX


def test_fields_become_json_and_come_back() -> None:
    as_json = filled(ORDER, {**forms.texts_of(ORDER, WHOLE), "do": "json"})
    assert as_json.as_json
    sent = {"as": "json", "json": as_json.json_text}
    assert filled(ORDER, sent).value == WHOLE
    back = filled(ORDER, {**sent, "do": "fields"})
    assert (back.as_json, back.value) == (False, WHOLE)
    broken = filled(ORDER, {"as": "json", "json": "{"})
    assert (broken.fits, broken.json_text) == (False, "{")
    assert "not JSON" in broken.errors[0]
    wrong = filled(ORDER, {"as": "json", "json": '{"to": 1}'})
    assert "to: a text" in wrong.errors


@pytest.mark.parametrize(
    ("type_", "kind", "text", "value"),
    [
        (bool, "choice", "true", True),
        (int, "number", " 12 ", 12),
        (float, "number", "1.5", 1.5),
        (str, "long", "a\r\nb", "a\nb"),
        (str | None, "long", "", None),
        (int | None, "number", "", None),
        (dt.datetime, "datetime", "2026-11-30T14:00", "2026-11-30T14:00:00+00:00"),
        (dt.time, "time", "14:00", "14:00"),
        (Any, "json", "[1]", [1]),
    ],
)
def test_single_fields(type_: Any, kind: str, text: str, value: Any) -> None:
    read = forms.read(schema_of(type_) or {}, {"v": text})
    assert (read.field.kind, read.value, read.fits) == (kind, value, True)


def test_a_secret_that_is_hidden_is_not_taken_for_a_value() -> None:
    order = WHOLE | {"to": MASK}
    assert errors_of(forms.read(ORDER, forms.texts_of(ORDER, order))) == {"v/to": forms.MASKED}
    as_json = filled(ORDER, {"as": "json", "json": json.dumps(order)})
    assert (as_json.fits, as_json.errors) == (False, [forms.MASKED])
