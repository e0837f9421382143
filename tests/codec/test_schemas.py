"""Schemas of types and signatures, held against values by jsonschema."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from typing import Any, Literal

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pydantic
import pytest

from perdure import workflow
from perdure.codec.schemas import AWAITED_BYTES_MAX, awaited_schema, parameters_schema, schema_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Order:
    item: str
    count: int = 1
    due: dt.datetime | None = None
    at: list[dt.time] = dataclasses.field(default_factory=list)
    inner: Order | None = None


class Note(pydantic.BaseModel):
    text: str = pydantic.Field(max_length=3)


@pytest.mark.parametrize(
    ("type_", "fits", "does_not"),
    [
        (bool, True, "true"),
        (Literal["a", "b"], "a", "c"),
        (Colour, "red", "green"),
        (list[int], [1], ["1"]),
        (dict[str, int], {"a": 1}, {"a": "1"}),
        (int | None, None, "1"),
        (tuple[int, str], [1, "a"], [1]),
        (Order, {"item": "tea", "inner": {"item": "milk"}}, {"count": 1}),
        (Note, {"text": "abc"}, {"text": "abcd"}),
    ],
)
def test_a_schema_says_what_fits(type_: Any, fits: Any, does_not: Any) -> None:
    schema = schema_of(type_)
    assert schema is not None
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(fits, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(does_not, schema)


def test_times_say_so_wherever_they_are() -> None:
    properties = (schema_of(Order) or {})["$defs"]["Order"]["properties"]
    assert properties["due"]["anyOf"][0]["format"] == "date-time"
    assert properties["at"]["items"]["format"] == "time"


def test_a_wait_records_a_schema_only_where_the_name_of_the_type_is_not_enough() -> None:
    large = Literal[tuple(str(n) * 10 for n in range(AWAITED_BYTES_MAX // 10))]  # type: ignore[valid-type]
    assert [awaited_schema(one) for one in (bool, int, str, Any, object(), large)] == [None] * 6
    assert msgspec.json.decode(awaited_schema(Literal["a", "b"]) or b"") == {"enum": ["a", "b"]}


def test_the_arguments_of_a_workflow_are_an_object_with_defaults() -> None:
    @workflow
    async def ship(order: Order, *notes: Note, fast: bool = False, **more: int) -> None: ...

    schema = parameters_schema(ship)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"order": {"item": "tea"}, "notes": [{"text": "now"}]}, schema)
    for wrong in ({}, {"order": {"item": 1}}, {"order": {"item": "tea"}, "colour": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    assert (schema["required"], schema["properties"]["fast"]["default"]) == (["order"], False)


@dataclasses.dataclass
class Painted:
    colour: Colour
    tone: list[Literal["softer", "as it is"] | None]
    size: Literal["small", "big", 1] = "small"


def test_choices_are_in_the_order_of_the_code() -> None:
    schema = schema_of(Painted | None) or {}
    properties = schema["$defs"]["Painted"]["properties"]
    assert schema["$defs"]["Colour"]["enum"] == ["red", "blue"]
    assert properties["size"]["enum"] == ["small", "big", 1]
    tones = properties["tone"]["items"]
    assert [one for one in (tones.get("enum") or tones["anyOf"][0]["enum"]) if one] == [
        "softer", "as it is",
    ]  # fmt: skip
