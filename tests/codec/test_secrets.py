"""Where secrets are in JSON text: marked ones, and values of members that are hidden by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.api.secret import MARK, MASK
from perdure.codec import secrets
from perdure.codec.secrets import masked, places_of_masks, redaction, spans

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text().map(lambda text: MARK + text),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text('ab,:{"\\', max_size=5) | st.just("token"), inner, max_size=4)
    ),
    max_leaves=20,
)
HIDES = redaction(["token"]).hides


def hidden(value: Any, *, names: bool) -> Any:
    """The value as people read it."""
    if isinstance(value, str):
        return MASK if value.startswith(MARK) else value
    if isinstance(value, list):
        return [hidden(one, names=names) for one in value]
    if isinstance(value, dict):
        return {
            name: MASK if names and name == "token" else hidden(one, names=names)
            for name, one in value.items()
        }
    return value


@settings(max_examples=60, deadline=None)
@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_what_is_hidden_is_what_was_marked_or_named(
    value: Any, indent: int | None, names: bool
) -> None:
    raw = json.dumps(value, ensure_ascii=False, indent=indent).encode()
    shown = json.loads(masked(raw, HIDES if names else None))
    assert shown == hidden(json.loads(raw), names=names)


def test_text_without_secrets_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_STRING", None)
    assert spans(b'{"a":1}') == []


def test_text_within_a_string_is_no_member() -> None:
    raw = json.dumps({"text": '{"token":"x"}', "a,": ":", "token": {"a": ["}", 1]}}).encode()
    assert json.loads(masked(raw, HIDES)) == {"text": '{"token":"x"}', "a,": ":", "token": MASK}


@pytest.mark.parametrize("names", [["token"], ["t*n"], ["t?ken"], ["TOKEN"], ["tök*", "token"]])
@pytest.mark.parametrize(
    "text", ['{"token":1}', '{"a":1, "Token" : 1}', '{"a\\"token":[{"token":1}]}']
)
def test_a_search_finds_what_may_be_hidden(names: list[str], text: str) -> None:
    hides = redaction(names).hides
    assert MASK in masked(text.encode(), hides).decode()
    assert masked(b'{"tokens":"token:"}', hides) == b'{"tokens":"token:"}'


@pytest.mark.parametrize("text", ['"•••"', '"\\u2022\\u2022\\u2022"'])
def test_masks_are_found_as_others_write_them(text: str) -> None:
    raw = f'{{"a":{text},"b":"••••"}}'.encode()
    assert [raw[a:b].decode() for a, b in places_of_masks(raw)] == [text]
