"""The rules of a lease, without a clock or a bucket: its row, and how long it is held.

Rules: time is an argument, in milliseconds of one machine's own clock.
"""

from __future__ import annotations

from typing import Any

import msgspec

MARGIN_MS_MIN = 200


class LeaseRow(msgspec.Struct, frozen=True):
    """The object.

    `base` is the epoch that a restore begins from; `rows` and `txid` are what it has at least;
    `begun_ms` is when each epoch that is still there became the base; `notes` is the holder's
    status, human-readable. `ended` is what the last holder, if it ended in order, has left for the
    next one on its disk. With `deleted` the row was put where the object was missing: `holder` is
    no engine then, and the last holder may not know yet.
    """

    epoch: int = 0
    holder: str | None = None
    host: str = ""
    pid: int = 0
    born: str = ""
    ttl_ms: int = 0
    beats: int = 0
    base: int | None = None
    rows: int = 0
    txid: int = 0
    store_id: str | None = None
    begun_ms: dict[int, int] = {}
    notes: dict[str, Any] = {}
    deleted: bool = False
    ended: str | None = None
    format: int = 1

    @property
    def who(self) -> str:
        """The holder's process, human-readable."""
        if self.deleted:
            return "an engine that is unknown, because the lease object was deleted"
        return f"pid {self.pid} on {self.host.partition('/')[0] or 'an unknown machine'}"


class Patience:
    """How long the lease that we see may still be held, by our own clock."""

    def __init__(self) -> None:
        self._seen: tuple[str | None, int] | None = None
        self._since_ms = 0

    def left_ms(self, row: LeaseRow, now_ms: int) -> int:
        """What is left to wait; 0: it may be taken. `now_ms` is when this row had arrived."""
        if row.holder is None:
            return 0
        if (row.holder, row.beats) != self._seen:
            self._seen, self._since_ms = (row.holder, row.beats), now_ms
        return max(0, self._since_ms + row.ttl_ms - now_ms)


class Hold:
    """How long a lease that we have written is surely ours, by our own clock."""

    def __init__(self, ttl_ms: int) -> None:
        self._ttl_ms = ttl_ms
        self._until_ms = 0
        self.lost = self.released = False

    def renewed(self, sent_ms: int) -> None:
        """A renewal that was sent then has succeeded."""
        margin_ms = max(self._ttl_ms // 5, MARGIN_MS_MIN)
        self._until_ms = max(self._until_ms, sent_ms + self._ttl_ms - margin_ms)

    def left_ms(self, now_ms: int) -> int:
        return 0 if self.lost or self.released else max(0, self._until_ms - now_ms)
