"""Reads of queues: their limits, who waits in them, and what a claim could admit.

Rules: every read is a fixed number of queries; counts stop at a bound; a file of an earlier schema
has no queues.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.errors import QueueNotFound
from perdure.store.lines import of_worker, of_workflow
from perdure.store.rows import PlaceRow, QueueKeyRow, QueueRow, StandingRow
from perdure.store.writes import Family, QueueLimits

QUEUE_COUNT_MAX = 100_001
"""Counts of places stop here."""


class QueueReads:
    """The reads of `base.Store` about queues, over `_all`, which a database implements."""

    @abstractmethod
    def _all(self, query: str, *bindings: Any) -> list[Any]:
        """The rows of a named query."""

    @property
    def _has_queues(self) -> bool:
        """Whether the schema has them."""
        return True

    def next_admission_ms(
        self, workflows: tuple[str, ...], families: Sequence[Family] | None, worker: int | None
    ) -> int | None:
        """When a claim of this worker may admit something, of these families only, if given."""
        takers = [] if families is not None else [of_workflow(name) for name in workflows]
        takers += [] if worker is None else [of_worker(worker)]
        rows = self._all("next_admissions", _json(takers))
        if families and rows:
            names = _json([of_workflow(name) for name in workflows])
            for family in families:
                rows += self._all("family_admissions", family.root, family.run, names)
        return min(
            (
                max(next_ms, ready_ms)
                for queue, name, next_ms, per_worker, ready_ms in rows
                if ready_ms is not None
                and (per_worker is None or not self._worker_full(per_worker, worker, queue, name))
            ),
            default=None,
        )

    def _worker_full(self, limit: int, worker: int | None, queue: int, name: str) -> bool:
        """Whether a worker has as much of a queue as it may."""
        if worker is None:
            return False
        runs, steps = (
            self._all("count_runs_of", worker, name),
            self._all("count_steps_of", worker, queue),
        )
        return bool(runs[0][0] + steps[0][0] >= limit)

    def queue_rows(self) -> list[QueueRow]:
        """See `base.Store`, also for what follows."""
        found = self._all("queue_rows", QUEUE_COUNT_MAX) if self._has_queues else []
        return [_queue_row(row) for row in found]

    def queue_row(self, name: str) -> QueueRow:
        return next(row for row in self.queue_rows() if row.name == self._queue(name)[1])

    def _queue(self, name: str) -> tuple[int, str]:
        """Key and name of a queue. Raises `QueueNotFound`."""
        names = self._all("queue_names") if self._has_queues else []
        for queue, one in names:
            if one == name:
                return queue, one
        raise QueueNotFound(name, tuple(one for _, one in names))

    def queue_keys(self, name: str, limit: int) -> list[QueueKeyRow]:
        queue, _ = self._queue(name)
        found = self._all("queue_keys", queue, limit, QUEUE_COUNT_MAX)
        return [QueueKeyRow(key or None, *more) for key, *more in found]

    def places(self, name: str, limit: int, admitted: bool) -> list[PlaceRow]:
        queue, _ = self._queue(name)
        query = "admitted_places" if admitted else "waiting_places"
        return [PlaceRow(*row) for row in self._all(query, queue, limit)]

    def place_of(self, run: int) -> list[StandingRow]:
        return []

    def admitted(self, worker: int) -> list[tuple[int, int, int]]:
        return self._all("admitted_steps", worker)


def _queue_row(row: Sequence[Any]) -> QueueRow:
    name, *limits, paused, declared, held_ms, next_ms, waiting, running = row
    allows = QueueLimits(*limits)
    allows.paused = bool(paused)
    return QueueRow(name, allows, declared, held_ms, next_ms, waiting, running)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
