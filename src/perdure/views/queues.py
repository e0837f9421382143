"""Queues as text: limits, states, keys.

Rules: one line each; no colours; the time is given; a time of another day has its date.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from perdure.api.queues import Rate
from perdure.runtime.info import QueueInfo
from perdure.runtime.standing import QueueKey
from perdure.views import format
from perdure.views.standing import next_text

_PERIODS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))


def limits(queue: QueueInfo) -> list[str]:
    """The limits of a queue, each as a text; empty where it has none."""
    found = [
        _count(queue.concurrency, "at once"),
        _count(queue.per_worker, "per worker"),
        _rate(queue.rate, ""),
        _count(queue.key_concurrency, "at once per key"),
        _rate(queue.key_rate, " per key"),
        _count(queue.waiting_max, "waiting at most"),
    ]
    return [text for text in found if text]


def _count(limit: int | None, what: str) -> str:
    return "" if limit is None else f"{limit:,} {what}"


def _rate(rate: Rate | None, whose: str) -> str:
    return "" if rate is None else rate_text(rate) + whose


def rate_text(rate: Rate) -> str:
    """A rate as a text.

    >>> rate_text(Rate(100, 60)), rate_text(Rate(5, 1.5, burst=20))
    ('100 per 1 min', '5 per 1500 ms (burst 20)')
    """
    burst = "" if rate.burst in (None, rate.limit) else f" (burst {rate.burst:,})"
    return f"{rate.limit:,} per {_period(rate.per)}{burst}"


def _period(per: float | timedelta) -> str:
    ms = round((per.total_seconds() if isinstance(per, timedelta) else per) * 1_000)
    for unit, size in _PERIODS:
        if ms % size == 0:
            return f"{ms // size:,} {unit}"
    return f"{ms} ms"


def state(queue: QueueInfo, now: datetime) -> str:
    """What a queue does now: paused, held back, when it admits the next one; empty where it is
    idle.
    """
    if queue.paused:
        return "paused"
    if queue.held_until is not None and queue.held_until > now:
        return f"held back until {format.clock_near(queue.held_until, now)}"
    if not queue.waiting:
        return ""
    if queue.next_at is None:
        return "next when one ends"
    return next_text(queue.next_at, now)


def key_state(key: QueueKey, queue: QueueInfo, now: datetime) -> str:
    """What keeps the places of a key back; empty where nothing of its own does."""
    if not key.waiting:
        return ""
    if queue.key_concurrency is not None and key.running >= queue.key_concurrency:
        return f"at its limit of {queue.key_concurrency:,}"
    if key.next_at is not None and key.next_at > now:
        return next_text(key.next_at, now)
    return ""
