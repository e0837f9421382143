"""Values, times and errors as text."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from perdure.runtime.info import ErrorHead
from perdure.views import format


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (12, "12 ms"),
        (1_240, "1.2 s"),
        (185_000, "3 min 5 s"),
        (7_380_000, "2 h 3 min"),
        (187_200_000, "2 d 4 h"),
        (86_400_000, "1 d"),
    ],
)
def test_durations_have_two_units_at_most(ms: int, text: str) -> None:
    assert format.duration(ms) == text


def test_between_two_moments() -> None:
    assert (
        format.between(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 1, 30, tzinfo=UTC))
        == "1 min 30 s"
    )


def test_a_long_value_is_cut_and_says_how_long_it_is() -> None:
    text = format.value({"text": "x" * 500}, 60)
    assert len(text) == 60
    assert text.endswith("… (511 characters)")


def test_without_a_limit_nothing_is_cut() -> None:
    assert format.value("x" * 500, None) == '"' + "x" * 500 + '"'


def test_arguments_share_the_room() -> None:
    text = format.arguments({"one": "x" * 200, "two": "y" * 200}, 100)
    assert text.startswith('one="xxx')
    assert 'two="yyy' in text
    assert len(text) <= 101


def test_arguments_that_are_short_stay_whole() -> None:
    assert format.arguments({"number": "A-17", "amount": 120.0}) == 'number="A-17", amount=120.0'
    assert format.arguments({}) == format.arguments(None) == ""


def test_an_error_is_its_type_and_first_line() -> None:
    assert (
        format.error_line({"type": "ValueError", "module": "builtins", "message": "no\nand more"})
        == "ValueError: no"
    )
    assert format.error_line({"type": "ValueError", "message": ""}) == "ValueError"
    assert format.error_line({}) == "Error"


def test_our_own_errors_are_sentences_already() -> None:
    assert (
        format.error_line(
            {"type": "StepFailed", "module": "perdure.errors", "message": "Step x failed"}
        )
        == "Step x failed"
    )


def test_counts() -> None:
    assert format.count(1, "row") == "1 row"
    assert format.count(1_234, "row") == "1,234 rows"
    assert format.bounded(100_000, 100_000) == "100,000"
    assert format.bounded(100_001, 100_000) == "100,000+"


def test_the_head_of_an_error_is_worded_as_the_error() -> None:
    assert (
        format.error_line(ErrorHead("ValueError", "no\nand more", "builtins")) == "ValueError: no"
    )
