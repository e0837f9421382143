"""Small pictures as SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from perdure.http.pictures import bars


def test_a_bar_has_its_parts_on_top_of_each_other() -> None:
    drawn = ET.fromstring(bars([[0, 0], [3, 1], [0, 8]], ["ended", "failed"], '<"&', 34))
    assert drawn.get("aria-label") == '<"&'
    parts = [(one.get("class"), one.get("x"), one.get("y"), one.get("height")) for one in drawn[1:]]
    assert parts == [
        ("ended", "4", "22.0", "12.0"),
        ("failed", "4", "18.0", "4.0"),
        ("failed", "8", "2.0", "32.0"),
    ]


def test_nothing_is_a_line() -> None:
    assert len(ET.fromstring(bars([], [], "nothing"))) == 1
