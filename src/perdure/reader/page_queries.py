"""What can be asked about one store for pages and tools: values of the runtime and the views.

Rules: each read has a bound, in rows or in time, and says when it stopped there; the time is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from perdure.reader.values import (
    Activity,
    Bounded,
    InboxPage,
    QueuePage,
    RunPage,
    RunQuery,
    StreamEntry,
    StreamInfo,
    SystemFacts,
    Table,
    WorkerInfo,
)
from perdure.runtime import facts, queue_limits, standing
from perdure.runtime.info import OpenRequest, QueueInfo, RunSummary, moment
from perdure.runtime.queries import Filter, Queries
from perdure.runtime.standing import ExposedValue, Standing
from perdure.store.sqlite.reader import Reader
from perdure.views.compare import Comparison
from perdure.views.moment import Moment
from perdure.views.tree import Family
from perdure.views.waterfall import Waterfall
from perdure.views.waterfall import waterfall as waterfall_of

if TYPE_CHECKING:
    from perdure.api.schedules import ScheduleInfo, TickTime

REQUESTS_MAX = 1_000


class PageQueries(Queries):
    """The reads of `StoreReader`, in its threads; see there."""

    def __init__(self, store: Reader, now_ms: Callable[[], int]) -> None:
        super().__init__(store)  # type: ignore[arg-type]
        self._reads, self._now_ms = store, now_ms

    def page(self, asked: RunQuery) -> RunPage:
        """See `StoreReader`, also for what follows."""
        status = asked.status[0] if len(asked.status) == 1 else None
        found = self.summaries(Filter(status, asked.workflow, asked.tags or None, asked.limit))
        return RunPage(found, None)

    def counts_of(self, asked: RunQuery) -> dict[str, Bounded]:
        raise NotImplementedError

    def workflows(self) -> list[str]:
        raise NotImplementedError

    def inbox(self, after: str | None, limit: int) -> InboxPage:
        raise NotImplementedError

    def inbox_count(self) -> Bounded:
        raise NotImplementedError

    def activity(self, buckets: int, bucket_ms: int) -> Activity:
        raise NotImplementedError

    def waterfall(self, run_id: str, after: int, limit: int) -> Waterfall:
        return waterfall_of(self.bars(run_id, after, limit))

    def why(self, run_id: str) -> str | None:
        raise NotImplementedError

    def whys(self, ids: Sequence[str]) -> dict[str, str]:
        raise NotImplementedError

    def relatives(self, run_id: str, limit: int) -> Family:
        raise NotImplementedError

    def at(self, run_id: str, seq: int) -> Moment:
        raise NotImplementedError

    def compare(self, a: str, b: str, limit: int) -> Comparison:
        raise NotImplementedError

    def streams(self, run_id: str) -> list[StreamInfo]:
        raise NotImplementedError

    def stream(self, run_id: str, name: str, after: int, limit: int) -> list[StreamEntry]:
        raise NotImplementedError

    def exposed(self, run_id: str) -> list[ExposedValue]:
        return [standing.exposed_value(row) for row in self._reads.exposed(self.key(run_id))]

    def requests(self, run_id: str) -> list[OpenRequest]:
        rows = self._reads.open_requests(self.key(run_id), REQUESTS_MAX)
        return [OpenRequest(row.channel, row.key, row.sender, moment(row.at_ms)) for row in rows]

    def standings(self, ids: Sequence[str]) -> dict[str, list[Standing]]:
        runs = {id: self.key(id) for id in ids}
        found = self._reads.places_of(list(runs.values()))
        return {id: [standing.standing(row) for row in found[run]] for id, run in runs.items()}

    def queues(self) -> list[QueueInfo]:
        return [queue_limits.info_of(row) for row in self._reads.queue_rows()]

    def queue(self, name: str, limit: int) -> QueuePage:
        raise NotImplementedError

    def schedules(self, after: str, limit: int) -> list[ScheduleInfo]:
        from perdure.runtime import schedule_info  # slow to import

        return [schedule_info.info_of(row) for row in self._reads.schedule_rows(after, limit)]

    def schedule(self, name: str) -> ScheduleInfo:
        from perdure.runtime import schedule_info

        return schedule_info.info_of(self._reads.schedule_row(name))

    def ticks(self, name: str, count: int) -> list[TickTime]:
        from perdure.runtime import schedule_info

        return schedule_info.next_ticks(self._reads.schedule_row(name), self._now_ms(), count)

    def schedule_runs(self, name: str, limit: int) -> list[RunSummary]:
        raise NotImplementedError

    def workers(self) -> list[WorkerInfo]:
        raise NotImplementedError

    def system(self, path: str) -> SystemFacts:
        raise NotImplementedError

    def doctor(self, path: str) -> dict[str, Any]:
        return facts.of_store(self._reads, path, self._now_ms())  # type: ignore[arg-type]

    def sql(self, text: str, limit: int) -> Table:
        raise NotImplementedError
