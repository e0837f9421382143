"""Workers of a store: which of them are alive, and what is said where none is.

Rules: a worker is alive while its lease has not run out, which the time alone decides: nothing is
written at that moment.
"""

from __future__ import annotations

from collections.abc import Iterable

from perdure.store.rows import WorkerRow

NO_WORKER = "No worker is running: start one, as with perdure worker FILE."


def alive(workers: Iterable[WorkerRow], now_ms: int) -> list[WorkerRow]:
    """Those whose lease has not run out."""
    return [row for row in workers if row.lease_ms > now_ms]


def take_what_is_due(workers: Iterable[WorkerRow], now_ms: int) -> bool:
    """Whether one of them is alive that executes more than what it was asked for."""
    return any(not row.asked for row in alive(workers, now_ms))
