"""Reads of a store as a whole for pages: queues, schedules, workers, facts, users' SQL.

Rules: costs the same for every size of store, but for `doctor`, which checks the whole file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import apsw

from perdure.core import names, numbers
from perdure.process.interpreter import PYTHON
from perdure.reader.lists import COUNT_MAX, ListQueries, bounded
from perdure.reader.values import (
    Pulse,
    QueuePage,
    ReplicaFacts,
    SystemFacts,
    Table,
    WorkerInfo,
)
from perdure.runtime import facts, queue_limits, standing, stuck, workers
from perdure.runtime.info import QueueInfo, RunSummary, instant, moment
from perdure.store.sqlite import connection, files, own_query

if TYPE_CHECKING:
    from perdure.api.schedules import ScheduleInfo, TickTime
    from perdure.store.base import Store
    from perdure.store.sqlite.driver import SqliteStore

QUEUE_MAX = 10_000
PULSE_DUE_MAX = 1_000
SCHEDULES_MAX = 1_000
SQL_ROWS_MAX = 10_000


class StoreQueries(ListQueries):
    """See the module's text, and `StoreReader` for each."""

    # --- queues and schedules ---------------------------------------------------------------------

    def queues(self) -> list[QueueInfo]:
        return [queue_limits.info_of(row) for row in self._store.queue_rows()]

    def queue(self, name: str, limit: int) -> QueuePage:
        numbers.count(limit, "limit", low=1, high=QUEUE_MAX)
        row = self._store.queue_row(names.checked("queue", name))
        reason = (
            stuck.queue(cast("Store", self._store), row, self._now_ms()) if row.waiting else None
        )
        keys = self._store.queue_keys(name, limit)
        admitted, waiting = (
            [standing.queue_place(place) for place in self._store.places(name, limit, which)]
            for which in (True, False)
        )
        return QueuePage(
            queue_limits.info_of(row), [standing.queue_key(key) for key in keys], admitted, waiting,
            reason,
        )  # fmt: skip

    def schedules(self, after: str, limit: int) -> list[ScheduleInfo]:
        from perdure.runtime import schedule_info  # slow to import

        numbers.count(limit, "limit", low=1, high=SCHEDULES_MAX)
        return [schedule_info.info_of(row) for row in self._store.schedule_rows(after, limit)]

    def schedule(self, name: str) -> ScheduleInfo:
        from perdure.runtime import schedule_info

        return schedule_info.info_of(self._store.schedule_row(name))

    def ticks(self, name: str, count: int) -> list[TickTime]:
        from perdure.runtime import schedule_info

        return schedule_info.next_ticks(self._store.schedule_row(name), self._now_ms(), count)

    def schedule_runs(self, name: str, limit: int) -> list[RunSummary]:
        numbers.count(limit, "limit", low=1, high=SCHEDULES_MAX)
        row = self._store.schedule_row(name)
        return self.summaries_of(self._pages.ticks_of(row.name, limit))

    # --- the store --------------------------------------------------------------------------------

    def workers(self) -> list[WorkerInfo]:
        there = self._store.workers()
        alive = workers.alive(there, self._now_ms())
        return [
            WorkerInfo(
                row.worker, row.name, row.pid, row.host, instant(row.lease_ms),
                row in alive,
                bounded(self._pages.count_owned(row.worker, COUNT_MAX + 1)), bool(row.asked),
            )
            for row in there
        ]  # fmt: skip

    def pulse(self) -> Pulse:
        now_ms, names = self._now_ms(), tuple(self._pages.workflows_with_due())
        alive = [row.worker for row in workers.alive(self._store.workers(), now_ms)]
        return Pulse(alive, self._store.due_count(names, now_ms, PULSE_DUE_MAX))

    def system(self, path: str) -> SystemFacts:
        store, now_ms = self._store, self._now_ms()
        there = store.workers()
        due = [store.next_due_ms((name,)) for name in self._pages.workflows_with_due()]
        workflows = tuple(self._pages.workflows_with_due())
        checksum = store.checksum()
        pages, page_bytes = store.pragma("page_count"), store.pragma("page_size")
        return SystemFacts(
            path=path,
            file_bytes=files.size(path) or pages * page_bytes,
            wal_bytes=files.size(path + "-wal"),
            page_bytes=page_bytes,
            pages=pages,
            free_pages=store.pragma("freelist_count"),
            schema_version=store.schema_version,
            schema_current=connection.SCHEMA_VERSION,
            versions=_versions(),
            commits=None if checksum is None else checksum.commits,
            oldest_due_at=moment(min((ms for ms in due if ms is not None), default=None)),
            due_now=bounded(store.due_count(workflows, now_ms, COUNT_MAX + 1)),
            workers=len(workers.alive(there, now_ms)),
            no_worker=None if workers.take_what_is_due(there, now_ms) else workers.NO_WORKER,
            runs=self._all_counts(),
            replica=None
            if checksum is None
            else ReplicaFacts(checksum.address, checksum.epoch, checksum.rows, checksum.commits),
            retention=facts.retention(cast("Store", store)),
        )

    def doctor(self, path: str) -> dict[str, Any]:
        return facts.of_store(cast("SqliteStore", self._store), path, self._now_ms())

    def sql(self, text: str, limit: int) -> Table:
        numbers.count(limit, "limit", low=1, high=SQL_ROWS_MAX)
        with self._store.for_queries() as db:
            found = own_query.ask(db, text, limit)
        return Table(found.columns, found.rows, found.truncated, round(found.took_ms, 2))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "perdure": version("perdure"),
        "python": PYTHON,
        "sqlite": apsw.sqlite_lib_version(),
        "apsw": apsw.apsw_version(),
    }
