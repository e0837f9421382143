"""Settings of queues: limits that code declares or a person sets, holds, and what was spent.

Rules: a declaration in code changes a queue where it is another one than the last, so that what a
person has set since stays; limits are changed in the transaction that they hold from on.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.errors import PerdureError, QueueNotFound, TooManyQueues
from perdure.store.admission import Admission
from perdure.store.buckets import STEP_MS, Bucket
from perdure.store.lines import Lines
from perdure.store.queue_state import OpenQueue, QueueStates
from perdure.store.rows import QueueRow
from perdure.store.transaction import Transaction
from perdure.store.writes import HoldQueue, QueueLimits, SetQueue, Spend

_decode = msgspec.json.decode

QUEUES_MAX = 10_000
"""Queues of one store: a key in place of a queue for each tenant needs no limit."""


class QueueSettings:
    """What writes about queues themselves do in the transaction `db`."""

    def __init__(
        self, db: Transaction, states: QueueStates, lines: Lines, admission: Admission
    ) -> None:
        self._db, self._states, self._lines, self._admission = db, states, lines, admission

    def set(self, change: SetQueue) -> QueueRow | PerdureError:
        """See `SetQueue`."""
        queue = self._states.named(change.name)
        old = QueueLimits() if queue is None else queue.limits
        given = _given(change, None if queue is None else queue.declared)
        if queue is None or given:
            new = msgspec.structs.replace(old, **given)
            try:
                if change.check is not None:
                    change.check(new)
                if queue is None and len(self._states.names()) >= QUEUES_MAX:
                    return TooManyQueues(change.name, QUEUES_MAX)
            except PerdureError as error:
                return error
            queue = queue or self._new(change.name)
            self._use(queue, new, change)
        elif change.declared is not None and change.declared != queue.declared:
            self._use(queue, old, change)
        return QueueRow(
            queue.name, queue.limits, queue.declared, queue.held(change.at_ms), queue.next_ms,
            queue.waiting, queue.admitted,
        )  # fmt: skip

    def _new(self, name: str) -> OpenQueue:
        self._db.do("insert_queue", (name,))
        ((*row,),) = self._db.rows("queue_by_name", (name,))
        return self._states.put(tuple(row))

    def _use(self, queue: OpenQueue, new: QueueLimits, change: SetQueue) -> None:
        """Give a queue these limits. What waits is looked at again."""
        rate, key_rate = queue.rate, queue.key_rate
        queue.use(new)
        queue.declared = change.declared or queue.declared
        fields = (*msgspec.structs.astuple(new)[:-1], int(new.paused), queue.declared)
        self._db.do("set_queue", (*fields, queue.queue))
        if queue.rate != rate:
            queue.bucket = queue.bucket.at(change.at_ms).rescaled(rate, queue.rate)
            queue.touch()
        if queue.key_rate != key_rate:
            for key, *state in self._db.rows("key_buckets", (queue.queue,)):
                bucket = Bucket(*state).at(change.at_ms).rescaled(key_rate, queue.key_rate)
                self._db.do("set_key_bucket", (queue.queue, key, *bucket, bucket.full_ms))
        self._lines.open_all(queue)
        queue.look_next(change.at_ms if queue.waiting and not new.paused else None)

    def hold(self, hold: HoldQueue) -> QueueNotFound | None:
        """See `HoldQueue`."""
        queue = self._states.named(hold.queue)
        if queue is None:
            return QueueNotFound(hold.queue, self._states.names())
        if (queue.held(hold.at_ms) or hold.at_ms) < hold.until_ms:
            queue.held_ms, queue.held_at_ms = hold.until_ms, hold.at_ms
            queue.touch()
            if queue.next_ms is not None and queue.next_ms < hold.until_ms:
                queue.look_next(hold.until_ms)
        return None

    def spend(self, spend: Spend) -> QueueNotFound | bool:
        """See `Spend`."""
        queue = self._states.named(spend.queue)
        if queue is None:
            return QueueNotFound(spend.queue, self._states.names())
        tokens, key = spend.amount, spend.key or ""
        if spend.place is not None:
            for (prepaid,) in self._db.rows("prepaid", (spend.place, queue.queue)):
                tokens -= prepaid
                self._db.do("use_prepaid", (spend.place,))
        self._admission.draw(queue, key, tokens, spend.at_ms)
        if tokens >= 0 or not queue.waiting:
            return False
        self._lines.open(queue, key, spend.at_ms, timed=True)
        if queue.next_ms is not None:
            queue.look_at(spend.at_ms)
        return queue.next_ms is not None

    def clock_moved_back(self, now_ms: int) -> None:
        """Times that the clock will not reach for long are looked at again, and buckets fill from
        here on.
        """
        if not self._states.any:
            return
        self._states.flush()
        self._db.do("key_buckets_from", (now_ms, now_ms + STEP_MS))
        for (name,) in self._db.rows("queues_later_than", (now_ms,)):
            queue = self._states.named(name)
            if queue is not None:
                queue.from_here(now_ms)
                queue.held(now_ms)
                self._lines.open_timed(queue, now_ms)
                if queue.next_ms is not None:
                    queue.look_at(now_ms)


def _given(change: SetQueue, declared: str | None) -> dict[str, Any]:
    """The limits to set: of a declaration those that differ from the last one."""
    if change.declared is None or declared is None:
        return change.given
    last = _decode(declared)
    return {
        name: value
        for name, value in change.given.items()
        if name not in last or last[name] != value
    }
