"""Marks in JSON text: read where they were written, meaningless where somebody else has put a space."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import codec_marks
from perdure.codec_marks import Member


@given(st.dictionaries(st.text(), st.tuples(st.recursive(st.none() | st.integers() | st.text(), st.lists), st.booleans())))
def test_members_come_back_with_their_marks(content: dict[str, tuple[Any, bool]]) -> None:
    parts = [Member(name, msgspec.json.encode(value), given) for name, (value, given) in content.items()]
    raw = codec_marks.joined(parts)
    assert codec_marks.members(raw) == parts
    assert json.loads(raw) == {name: value for name, (value, _) in content.items()}
    assert codec_marks.given(raw) == {one.name for one in parts if one.given}


@pytest.mark.parametrize(
    "raw", [b'{"a": 1, "b": 2}', b'{\n "a":1,\n "b":2\n}', b'{ "a" : 1, "b":2 }', b' {"a":1, "b":2}', b'{"\\u0061":1, "b":2}']
)
def test_spaces_of_others_mean_nothing(raw: bytes) -> None:
    assert codec_marks.given(raw) == {"a", "b"}


def test_what_is_no_object_is_refused() -> None:
    for raw in (b"[1]", b"1", b"{"):
        with pytest.raises(msgspec.DecodeError):
            codec_marks.members(raw)
