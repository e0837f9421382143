"""Text that people type: tags, durations and times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from perdure.views import times, typed

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def test_tags_are_json_or_text() -> None:
    assert typed.tags(["team=red", "n=7", "formula=a=b", "empty="]) == {
        "team": "red", "n": 7, "formula": "a=b", "empty": "",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["acme", "=acme", ""])
def test_what_is_no_tag_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="NAME=VALUE"):
        typed.tags(["a=1", text])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25), ("90s", 90), ("0s", 0), ("15m", 900), ("15min", 900), ("1.5h", 5_400),
        ("2d", 172_800), ("1w", 604_800), ("3 days", 259_200), ("1 minute", 60),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert times.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "s", "soon", "-1d", "1y", "1h30m", "٣s", "1e3s"])
def test_what_is_no_duration(text: str) -> None:
    assert times.duration(text, "s") is None


def test_a_number_alone_needs_a_unit_from_elsewhere() -> None:
    assert times.duration("90") is None
    assert times.duration("90", "s") == timedelta(seconds=90)


@pytest.mark.parametrize("text", ["2h", "2h ago", "2 hours ago", "2026-11-29T10:00:00Z"])
def test_a_time_is_a_date_or_counted_back(text: str) -> None:
    assert times.since(text, NOW) == datetime(2026, 11, 29, 10, tzinfo=UTC)


@pytest.mark.parametrize("text", ["soon", "ago", "90", "999999999w"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        times.since(text, NOW)
