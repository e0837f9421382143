"""Places in line as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure.runtime.standing import POSITION_MAX, Standing
from perdure.views.standing import next_text, standing

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC).astimezone()
SOON = NOW + timedelta(seconds=10)
CLOCK = f"{SOON:%H:%M:%S}"


def test_a_time_of_another_day_has_its_date() -> None:
    later = NOW + timedelta(days=3)
    assert next_text(later, NOW) == f"next at {later:%Y-%m-%d %H:%M:%S}"


def place(why: str, position: int | None = 4, **fields: Any) -> Standing:
    return Standing("openai", None, None, "acme", position, 9, why, **fields)


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (place("line"), "4th in queue openai"),
        (place("line", 1), "1st in queue openai"),
        (place("line", None), f"behind {POSITION_MAX:,} others in queue openai"),
        (place("line", next_at=SOON), f"4th in queue openai; next at {CLOCK}"),
        (place("rate", next_at=SOON), f"4th in queue openai; next at {CLOCK}"),
        (place("paused"), "4th in queue openai; the queue is paused"),
        (
            place("held", next_at=SOON),
            f"4th in queue openai; held back until {CLOCK} by RetryAfter",
        ),
        (place("key_limit", limit=2), "4th in queue openai; key acme is at its limit of 2"),
        (
            place("key_rate", next_at=SOON),
            f"4th in queue openai; key acme has used up its rate, next at {CLOCK}",
        ),
        (place("concurrency", limit=10), "4th in queue openai; all 10 places are taken"),
        (place("concurrency", limit=1), "4th in queue openai; all places are taken"),
        (place("per_worker", limit=2), "4th in queue openai; its worker is at its limit of 2"),
        (place("no_worker"), "4th in queue openai; no worker is running"),
    ],
)
def test_a_place_says_where_it_is_and_why(one: Standing, text: str) -> None:
    assert standing(one, NOW) == text
