"""Checks of values by their schema: verdicts as jsonschema has them, and the places of faults."""

from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.codec.schema_check import FAULTS_MAX, faults

ORDER = {
    "$ref": "#/$defs/Order",
    "$defs": {
        "Order": {
            "type": "object",
            "properties": {
                "item": {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[a-z]*$"},
                "count": {"type": "integer", "minimum": 1, "exclusiveMaximum": 10},
                "more": {"anyOf": [{"$ref": "#/$defs/Order"}, {"type": "null"}]},
                "tags": {"type": "array", "items": {"enum": ["a", 1]}, "maxItems": 2},
                "pair": {"type": "array", "prefixItems": [{"const": 1}], "items": False},
            },
            "required": ["item"],
            "additionalProperties": {"type": ["boolean", "number"]},
        }
    },
}
values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 12) | st.sampled_from(["", "a", "tea", "TEA", 1.5]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["item", "count", "more", "tags", "pair", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(values)
def test_verdicts_are_those_of_jsonschema(value: Any) -> None:
    fits = jsonschema.Draft202012Validator(ORDER).is_valid(value)
    assert (faults(ORDER, value) == []) == fits


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "item: is missing"),
        ({"item": "tea", "more": {"item": "TEA"}}, "more.item: has the form ^[a-z]*$"),
        ({"item": "tea", "tags": ["a", True]}, 'tags[1]: is one of "a", 1'),
        ({"item": "tea", "pair": [1, 2]}, "pair[1]: is not expected here"),
        ([], "an object"),
    ],
)
def test_a_fault_says_where_it_is(value: Any, said: str) -> None:
    assert [str(one) for one in faults(ORDER, value)] == [said]


@pytest.mark.parametrize(
    ("format", "good", "bad"),
    [
        ("date", "2026-11-30", "30.11.2026"),
        ("date-time", "2026-11-30T14:00:00+01:00", "soon"),
        ("time", "14:00", "14 o'clock"),
        ("uuid", "12345678-1234-5678-1234-567812345678", "12"),
    ],
)
def test_formats_of_texts(format: str, good: str, bad: str) -> None:
    schema = {"type": "string", "format": format}
    assert faults(schema, good) == []
    assert len(faults(schema, bad)) == 1


def test_the_work_is_bounded() -> None:
    assert len(faults({"type": "array", "items": {"type": "null"}}, [1] * 1_000)) == FAULTS_MAX
    loop = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}
    assert faults(loop, 1) == []
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    tree = {"$ref": "#/$defs/T", "$defs": {"T": {"type": "array", "items": {"$ref": "#/$defs/T"}}}}
    assert "too deeply" in str(faults(tree, deep)[0])
