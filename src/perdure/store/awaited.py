"""Waits of runs for an answer, and whether one still lasts.

Rules: a wait is known by its run, its channel and the row behind which it began, which is the same
on every replay; a message that was not received yet answers one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from perdure.errors import NotAwaited
from perdure.store.transaction import Transaction

_decode = msgspec.json.Decoder(list[dict[str, Any]]).decode


def items_of(waiting: str | bytes | None) -> list[dict[str, Any]]:
    """What a run waits for, as its row says it."""
    return _decode(waiting) if waiting else []


def waits_at(waiting: str | bytes | None, channel: str, wait: int) -> int:
    """How many receivers of a run, whose row says what it waits for, wait there for a message."""
    items = items_of(waiting)
    return sum((one.get("message"), one.get("seq")) == (channel, wait) for one in items)


def not_awaited(
    db: Transaction, run: int, run_id: str, channel: str, wait: int
) -> NotAwaited | None:
    """Why a message is no answer to a wait; None where the run waits for it still."""
    ((status, waiting),) = db.rows("awaited_by", (run,))
    receivers = waits_at(waiting, channel, wait)
    ((unread,),) = db.rows("unread_on", (run, channel))
    if receivers > unread:
        return None
    sender, at_ms = db.row("answered_by", (run, channel, wait)) or (None, None)
    at = None if at_ms is None else moment(at_ms)
    return NotAwaited(run_id, channel, status, sender, at)


def moment(ms: int) -> datetime:
    """Milliseconds UTC as an aware datetime."""
    return datetime.fromtimestamp(ms / 1000, UTC)
