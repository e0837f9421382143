"""Places in line as text: where a run or a step stands in a queue, and what keeps it there.

Rules: one line each; no colours; the time is given; a time of another day has its date.
"""

from __future__ import annotations

from datetime import datetime

from perdure.runtime.standing import POSITION_MAX, Standing
from perdure.views import format


def standing(place: Standing, now: datetime) -> str:
    """Where a run or a step stands in a queue, and what it waits for there."""
    at = f"behind {POSITION_MAX:,} others"
    if place.position is not None:
        at = format.ordinal(place.position)
    why = _why(place, now)
    return f"{at} in queue {place.queue}{f'; {why}' if why else ''}"


def _why(place: Standing, now: datetime) -> str:
    at = "" if place.next_at is None else next_text(place.next_at, now)
    match place.why:
        case "paused":
            return "the queue is paused"
        case "held" if place.next_at is not None:
            return f"held back until {format.clock_near(place.next_at, now)} by RetryAfter"
        case "key_limit":
            return f"key {place.key} is at its limit of {place.limit:,}"
        case "key_rate":
            return f"key {place.key} has used up its rate{f', {at}' if at else ''}"
        case "concurrency":
            return _taken(place.limit)
        case "per_worker":
            return f"its worker is at its limit of {place.limit:,}"
        case "no_worker":
            return "no worker is running"
        case _:
            return at


def _taken(limit: int | None) -> str:
    return "all places are taken" if limit in (1, None) else f"all {limit:,} places are taken"


def next_text(at: datetime, now: datetime) -> str:
    """When the next place is admitted."""
    return "next now" if at <= now else f"next at {format.clock_near(at, now)}"
