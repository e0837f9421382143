"""Queues as text: limits, states, keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure.api.queues import Rate
from perdure.runtime.info import QueueInfo
from perdure.runtime.standing import QueueKey
from perdure.views import queues

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC).astimezone()
SOON = NOW + timedelta(seconds=10)
CLOCK = f"{SOON:%H:%M:%S}"


def queue(**fields: Any) -> QueueInfo:
    empty: dict[str, Any] = dict.fromkeys(QueueInfo.__struct_fields__)
    return QueueInfo(**empty | {"name": "q", "paused": False, "waiting": 0, "running": 0} | fields)


def test_limits_are_said_with_what_they_count() -> None:
    every = queue(
        concurrency=1_000,
        per_worker=2,
        rate=Rate(500, 60, burst=20),
        key_concurrency=1,
        key_rate=Rate(5, timedelta(hours=1)),
        waiting_max=9,
    )
    assert queues.limits(every) == [
        "1,000 at once",
        "2 per worker",
        "500 per 1 min (burst 20)",
        "1 at once per key",
        "5 per 1 h per key",
        "9 waiting at most",
    ]
    assert queues.limits(queue()) == []


@pytest.mark.parametrize(
    ("per", "text"),
    [(1, "1 s"), (90, "90 s"), (3_600, "1 h"), (86_400, "1 d"), (0.25, "250 ms"), (120, "2 min")],
)
def test_a_period_has_the_largest_unit_that_fits(per: float, text: str) -> None:
    assert queues.rate_text(Rate(3, per)) == f"3 per {text}"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, ""),
        ({"paused": True, "held_until": SOON, "waiting": 3}, "paused"),
        ({"held_until": SOON}, f"held back until {CLOCK}"),
        ({"held_until": NOW - timedelta(seconds=1)}, ""),
        ({"waiting": 3}, "next when one ends"),
        ({"waiting": 3, "next_at": SOON}, f"next at {CLOCK}"),
        ({"waiting": 3, "next_at": NOW}, "next now"),
    ],
)
def test_the_state_is_what_holds_it_back(fields: dict[str, Any], text: str) -> None:
    assert queues.state(queue(**fields), NOW) == text


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (QueueKey("acme", 2, 5), "at its limit of 2"),
        (QueueKey("acme", 1, 5), ""),
        (QueueKey("acme", 2, 0), ""),
        (QueueKey("acme", 1, 5, SOON), f"next at {CLOCK}"),
    ],
)
def test_a_key_says_what_holds_it_back(key: QueueKey, text: str) -> None:
    assert queues.key_state(key, queue(key_concurrency=2), NOW) == text
