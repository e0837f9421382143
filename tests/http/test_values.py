"""JSON values as HTML."""

from __future__ import annotations

import html
import re
from typing import Any

import msgspec
import pytest

from perdure.http import values


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -2.5e10, None, True], "b": {}},
        12345678901234567890123456789,
        '"quoted" \\ <script>alert(1)</script> & : true 7',
        {'a": 1': "\n\u2028é"},
        [],
    ],
)
def test_a_value_is_shown_as_it_is(value: Any) -> None:
    shown = [re.sub("</?span[^>]*>", "", line) for line in values.lines(value)]
    assert html.unescape("\n".join(shown)) == values.text(value)
    assert all("<" not in line for line in shown)
    assert msgspec.json.decode(values.text(value)) == value


def test_parts_have_their_colour() -> None:
    (_, line, *_rest) = values.lines({"n": 7, "t": "x: 1"})
    assert line == '  <span class="j-key">&#34;n&#34;</span>: <span class="j-num">7</span>,'
    assert values.lines({"n": "t: 1"})[1].endswith('<span class="j-str">&#34;t: 1&#34;</span>')


def test_a_large_value_has_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "COLOURED_MAX", 10)
    assert values.lines(["<b>", "a long text"])[1] == "  &#34;&lt;b&gt;&#34;,"
