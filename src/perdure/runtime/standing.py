"""What a run shows and waits for as decoded values: places in queues, exposed values.

Rules: nothing here reads a store; every list that is made of these has a limit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from perdure.runtime.info import instant, moment
from perdure.store.rows import ExposedRow, PlaceRow, QueueKeyRow, StandingRow

POSITION_MAX = 1_000
"""Places that are counted to say which one is a run's; behind that it is only said that it is."""


class QueueKey(msgspec.Struct, frozen=True):
    """A key of a queue with places: how many run and wait, and when its rate lets the next one
    begin; None where it lets it begin now. `key` is None for the places without a key.
    """

    key: str | None
    running: int
    waiting: int
    next_at: datetime | None = None


class QueuePlace(msgspec.Struct, frozen=True):
    """A place in a queue: a run, or with `seq` and `step` a step of it, that waits there, or that
    was admitted. `status` is the run's.
    """

    run: str
    status: str
    seq: int | None
    step: str | None
    key: str | None
    priority: int
    weight: int
    asked_at: datetime
    admitted_at: datetime | None
    worker: int | None


class Standing(msgspec.Struct, frozen=True):
    """Where a run, or with `seq` and `step` one of its steps, stands in a queue.

    `position` is 1 for the next one to be admitted, and None behind `POSITION_MAX`. `why` says what
    keeps it there: paused, held, key_limit, key_rate, concurrency, rate, per_worker, no_worker or
    line; `limit` is the limit that is reached, `next_at` when the next admission is
    due, where that is a matter of time.
    """

    queue: str
    seq: int | None
    step: str | None
    key: str | None
    position: int | None
    waiting: int
    why: str
    limit: int | None = None
    next_at: datetime | None = None


class ExposedValue(msgspec.Struct, frozen=True):
    """A value that a run has set with `expose`: when, and in which row of its history."""

    name: str
    value: Any
    at: datetime
    seq: int


def exposed_value(row: ExposedRow) -> ExposedValue:
    """An exposed value's row with its value decoded."""
    return ExposedValue(row.name, msgspec.json.decode(row.data), instant(row.at_ms), row.seq)


def queue_key(row: QueueKeyRow) -> QueueKey:
    """A key's row with times."""
    return QueueKey(row.key, row.running, row.waiting, moment(row.next_ms))


def queue_place(row: PlaceRow) -> QueuePlace:
    """A place's row with times."""
    return QueuePlace(
        row.run_id, row.status, row.seq, row.step, row.key, row.priority, row.weight,
        instant(row.asked_ms), moment(row.admitted_ms), row.worker,
    )  # fmt: skip


def standing(row: StandingRow) -> Standing:
    """Where a run stands, with times."""
    return Standing(
        row.queue, row.seq, row.step, row.key, row.position, row.waiting, row.why, row.limit,
        moment(row.next_ms),
    )  # fmt: skip
