"""Definitions of queues as the store has them, and back.

Rules: a declaration in code changes what is stored where it differs from the one before, so that
what was set since stays; limits that contradict each other are refused in the transaction that
would bring them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.api.queues import QUEUE_FIELDS, Queue, Rate
from perdure.runtime.info import QueueInfo, moment
from perdure.store.rows import QueueRow
from perdure.store.writes import QueueLimits, SetQueue


def declaration(queue: Queue, at_ms: int) -> SetQueue:
    """The write for a queue that code declares."""
    given = {field: getattr(queue, field) for field in QUEUE_FIELDS}
    flat = _flat(given)
    return SetQueue(queue.name, flat, at_ms, msgspec.json.encode(flat).decode())


def change(name: str, given: Mapping[str, Any], at_ms: int) -> SetQueue:
    """The write for limits that are set by name."""

    def check(limits: QueueLimits) -> None:
        Queue(name, **_fields(limits))  # raises what contradicts

    return SetQueue(name, _flat(given), at_ms, check=check)


def info_of(row: QueueRow) -> QueueInfo:
    """A queue as callers see it."""
    fields = _fields(row.limits)
    return QueueInfo(
        row.name,
        **fields,
        held_until=moment(row.held_ms),
        waiting=row.waiting,
        running=row.running,
        next_at=moment(row.next_ms),
    )


def _flat(given: Mapping[str, Any]) -> dict[str, Any]:
    """Limits by name as `QueueLimits` has them: a rate is three numbers there."""
    flat: dict[str, Any] = {}
    for field, value in given.items():
        if field in ("rate", "key_rate"):
            numbers = (None,) * 3 if value is None else (value.limit, value.per_ms, value.burst)
            flat |= zip(
                (f"{field}_limit", f"{field}_per_ms", f"{field}_burst"), numbers, strict=True
            )
        else:
            flat[field] = value
    return flat


def _fields(limits: QueueLimits) -> dict[str, Any]:
    """Stored limits as `Queue` has them."""
    return {
        "concurrency": limits.concurrency,
        "per_worker": limits.per_worker,
        "rate": _rate(limits.rate_limit, limits.rate_per_ms, limits.rate_burst),
        "key_concurrency": limits.key_concurrency,
        "key_rate": _rate(limits.key_rate_limit, limits.key_rate_per_ms, limits.key_rate_burst),
        "waiting_max": limits.waiting_max,
        "paused": limits.paused,
    }


def _rate(limit: int | None, per_ms: int | None, burst: int | None) -> Rate | None:
    if limit is None or per_ms is None:
        return None
    return Rate(limit, per_ms // 1000 if per_ms % 1000 == 0 else per_ms / 1000, burst)
