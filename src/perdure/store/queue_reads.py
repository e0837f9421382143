"""Reads of queues: their limits, who waits in them, and what a claim could admit.

Rules: every read is a fixed number of queries; counts stop at a bound; a file of an earlier schema
has no queues.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Any

from perdure.core.lifecycle import PAUSED
from perdure.errors import QueueNotFound
from perdure.store.admission import (
    CONCURRENCY,
    HELD,
    KEY_LIMIT,
    KEY_RATE,
    LINE,
    NO_WORKER,
    PER_WORKER,
    RATE,
)
from perdure.store.lines import READY, UNTIL_RELEASE, in_order, of_worker, of_workflow, worker_of
from perdure.store.queue_state import QueueState
from perdure.store.rows import PlaceRow, QueueKeyRow, QueueRow, StandingRow
from perdure.store.sql import json_text
from perdure.store.writes import Family, QueueLimits

STANDINGS_MAX = 8
"""Places of one run that are looked up."""
POSITION_MAX = 1_000
"""Places that are counted to say which one it is."""
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
        soonest: int | None = None
        for queue, next_ms, ready_ms, limited in self._all("next_admissions", json_text(takers)):
            if soonest is not None and next_ms >= soonest:
                break  # none that follows is earlier
            if ready_ms is not None and not self._full_for(queue, worker):
                tokens_ms = self._tokens_ms(queue, takers) if limited else 0
                due_ms = max(next_ms, ready_ms, tokens_ms)
                soonest = due_ms if soonest is None else min(soonest, due_ms)
        return self._soonest_asked(soonest, workflows, families, worker)

    def _soonest_asked(
        self, soonest: int | None, workflows: tuple[str, ...], families: Sequence[Family] | None,
        worker: int | None,
    ) -> int | None:  # fmt: skip
        """The same of places of these families, or `soonest` where that is earlier."""
        found = []
        names = json_text([of_workflow(name) for name in workflows])
        for family in families or ():
            rows = self._all("family_admissions", family.root, family.run, names)
            for queue, next_ms, ready_ms, tokens in rows:
                state = self._state_of(queue)
                rate_ms = 0 if state.rate is None else state.bucket.ready_ms(state.rate, tokens)
                found.append((queue, max(next_ms, ready_ms, rate_ms)))
        times = [ms for queue, ms in found if not self._full_for(queue, worker)]
        return min(times if soonest is None else [soonest, *times], default=None)

    def _tokens_ms(self, queue: int, takers: Sequence[str]) -> int:
        """When the place that a claim for these takers looks at first has its tokens; 0 where there
        is none. A claim looks at steps of all workers that may have more, too.
        """
        state = self._state_of(queue)
        rows: list[Any] = []
        for taker in self._ready_takers(queue):
            worker = worker_of(taker)
            per_worker = state.limits.per_worker
            if taker in takers or (
                worker is not None and not self._worker_full(per_worker, worker, queue, state.name)
            ):
                rows += self._all("first_in_line", queue, taker)
        if not rows or state.rate is None:
            return 0
        first = min(rows, key=in_order)
        return state.bucket.ready_ms(state.rate, first[7] - first[8])

    def _ready_takers(self, queue: int) -> list[str]:
        """Takers of lines that are ready."""
        takers, last = [], ""
        while (taker := self._all("next_taker", queue, last)[0][0]) is not None:
            takers.append(last := taker)
        return takers

    def _state_of(self, queue: int) -> QueueState:
        ((*row,),) = self._all("queue_by_key", queue)
        return QueueState(row)

    def _full_for(self, queue: int, worker: int | None) -> bool:
        """Whether a worker has as much of a queue as it may. Most queues set no limit for that."""
        if worker is None or not self._all("limit_of_workers", queue):
            return False
        state = self._state_of(queue)
        return self._worker_full(state.limits.per_worker, worker, queue, state.name)

    def _worker_full(self, limit: int | None, worker: int | None, queue: int, name: str) -> bool:
        """Whether a worker has as much of a queue as it may."""
        if worker is None or limit is None:
            return False
        runs, steps = (
            self._all("count_runs_of", worker, name),
            self._all("count_steps_of", worker, queue),
        )
        return bool(runs[0][0] + steps[0][0] >= limit)

    def queue_rows(self) -> list[QueueRow]:
        """See `base.Store`, also for what follows."""
        found = self._all("queue_rows", QUEUE_COUNT_MAX, None) if self._has_queues else []
        return [_queue_row(row) for row in found]

    def queue_row(self, name: str) -> QueueRow:
        queue, _ = self._queue(name)
        return _queue_row(self._all("queue_rows", QUEUE_COUNT_MAX, queue)[0])

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
        if admitted:
            return [PlaceRow(*row) for row in self._all("admitted_places", queue, limit)]
        places = self._in_order(queue, limit)
        found = [self._all("waiting_place", place) for place in places]
        return [PlaceRow(*row) for rows in found for row in rows]

    def _in_order(self, queue: int, limit: int) -> list[int]:
        """Places that wait, as they would be admitted if the next one always had room; what is
        closed by its key comes last.
        """
        takers = self._ready_takers(queue)
        ready = [row for one in takers for row in self._all("first_lines", queue, one, limit)]
        places = self._merged(ready, limit)
        if len(places) < limit:
            left = limit - len(places)
            places += self._merged(self._all("shut_lines", queue, left), left)
        return places

    def _merged(self, lines: list[tuple[int, int, int, int]], limit: int) -> list[int]:
        """The first places of lines (priority, turns, head, line)."""
        heads = [(-priority, served, head, line) for priority, served, head, line in lines]
        heapify(heads)
        left: dict[int, list[int]] = {}
        places: list[int] = []
        while heads and len(places) < limit:
            priority, served, head, line = heappop(heads)
            places.append(head)
            if line not in left:
                found = self._all("places_in_line", line, limit)
                left[line] = [place for (place,) in reversed(found)]
            left[line].pop()
            if left[line]:
                heappush(heads, (priority, served + 1, left[line][-1], line))
        return places

    def place_of(self, run: int) -> list[StandingRow]:
        return self.places_of([run])[run]

    def line_of(self, run: int, seq: int) -> str | None:
        rows = self._all("line_of", run, seq) if self._has_queues else []
        return next((queue for (queue,) in rows), None)

    def places_of(self, runs: Sequence[int]) -> dict[int, list[StandingRow]]:
        orders: dict[int, list[int]] = {}
        found: dict[int, list[StandingRow]] = {}
        for run in runs:
            rows = self._all("waits_of", run, STANDINGS_MAX) if self._has_queues else []
            for queue in {row[0] for row in rows} - orders.keys():
                orders[queue] = self._in_order(queue, POSITION_MAX)
            found[run] = [self._standing(row, orders[row[0]]) for row in rows]
        return found

    def _standing(self, row: Sequence[Any], order: list[int]) -> StandingRow:
        queue, place, seq, step, key, ready_ms, taker = row
        position = order.index(place) + 1 if place in order else None
        state = self._state_of(queue)
        why, limit, next_ms = self._why(state, key, ready_ms, taker)
        return StandingRow(
            state.name, seq or None, step, key or None, position, state.waiting, why, limit, next_ms
        )

    def _why(
        self, queue: QueueState, key: str, ready_ms: int, taker: str
    ) -> tuple[str, int | None, int | None]:
        """Why a place waits, the limit that it is for, and when it may be admitted."""
        limits, next_ms = queue.limits, queue.next_ms
        if limits.paused:
            return PAUSED, None, None
        if queue.held_ms is not None and queue.held_ms == next_ms:
            return HELD, None, queue.held_ms
        if ready_ms == UNTIL_RELEASE:
            return KEY_LIMIT, limits.key_concurrency, None
        if ready_ms != READY:
            return KEY_RATE, limits.key_rate_limit, ready_ms
        if self._reached("count_admitted", limits.concurrency, queue.queue):
            return CONCURRENCY, limits.concurrency, None
        if self._reached("count_key", limits.key_concurrency if key else None, queue.queue, key):
            return KEY_LIMIT, limits.key_concurrency, None
        if queue.rate is not None and next_ms is not None and next_ms > queue.bucket.level_ms:
            return RATE, limits.rate_limit, next_ms
        worker = worker_of(taker)
        if self._worker_full(limits.per_worker, worker, queue.queue, queue.name):
            return PER_WORKER, limits.per_worker, None
        if worker is None and not self._all("any_worker"):
            return NO_WORKER, None, None
        return LINE, None, next_ms

    def _reached(self, query: str, limit: int | None, *bindings: Any) -> bool:
        return limit is not None and self._all(query, *bindings)[0][0] >= limit

    def admitted(self, worker: int) -> list[tuple[int, int, int]]:
        return self._all("admitted_steps", worker)


def _queue_row(row: Sequence[Any]) -> QueueRow:
    name, *limits, paused, declared, held_ms, next_ms, waiting, running = row
    allows = QueueLimits(*limits)
    allows.paused = bool(paused)
    return QueueRow(name, allows, declared, held_ms, next_ms, waiting, running)
