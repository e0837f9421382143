"""Reads of a store for pages and tools: connections and threads of their own, beside any engine.

Rules: nothing here writes, takes a lease or runs on the event loop; the writer of the store is
never waited for and never held up; a store is read as it is, also without the application's code.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import apsw

from perdure.errors import EngineClosed
from perdure.process.clock import SystemClock
from perdure.reader.cost import kept
from perdure.reader.page_queries import PageQueries
from perdure.reader.values import (
    Activity,
    Answered,
    Bounded,
    Declared,
    InboxItem,
    InboxPage,
    LinkView,
    LogLine,
    Pulse,
    QueuePage,
    RunPage,
    RunQuery,
    StreamEntry,
    StreamInfo,
    SystemFacts,
    Table,
    WorkerInfo,
)
from perdure.runtime.info import HistoryEvent, OpenRequest, QueueInfo, RunInfo, RunSummary
from perdure.runtime.standing import ExposedValue, Standing
from perdure.store.sqlite import connection
from perdure.store.sqlite.reader import Reader
from perdure.views.compare import Comparison
from perdure.views.moment import Moment
from perdure.views.tree import Family
from perdure.views.waterfall import Bars, Waterfall

if TYPE_CHECKING:
    from perdure.api.schedules import ScheduleInfo, TickTime

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 2
BARS_MAX = 100_000
"""Rows of one waterfall."""
CACHE_SIZE = -8_000
"""KiB of each connection, which SQLite takes as needed: searches read rows all over the file."""


class StoreReader:
    """Reads of one store. `connect` opens a connection, once for each thread; `now_ms` gives the
    time in milliseconds UTC. With `store`, a store in memory, it is read where it is open.

    Raises `StoreNotFound`, `StoreCorrupt` or `StoreTooNew` at the first read, and `EngineClosed`
    behind its end. What takes the id of a run raises `RunNotFound`.
    """

    def __init__(
        self,
        path: str,
        connect: Callable[[], apsw.Connection] | None = None,
        *,
        now_ms: Callable[[], int] | None = None,
        store: Reader | None = None,
    ) -> None:
        self.path, self._store = path, store
        self._now_ms = now_ms or SystemClock().now_ms
        self.from_elsewhere = connect is not None
        self._connect = connect or partial(connection.open_reader, path)
        self._threads = ThreadPoolExecutor(THREADS, "perdure-pages")
        # What may take seconds holds up nothing else. A pool begins its threads with its first job.
        self._slow = ThreadPoolExecutor(1, "perdure-slow-reads")
        self._mine = threading.local()
        self._lock, self._closed = threading.Lock(), False
        self._opened: list[apsw.Connection] = []
        self._versions = threading.Lock()
        self._version_of: Reader | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.close)

    @property
    def closed(self) -> bool:
        """Whether it gives nothing any more."""
        return self._closed

    @property
    def watched(self) -> tuple[str, ...]:
        """Files that are written to by a commit; empty where `version` has to be asked for."""
        if self._store is not None or self.from_elsewhere:
            return ()
        return tuple(name for name in (self.path, f"{self.path}-wal") if os.path.exists(name))

    def close(self) -> None:
        """Close the connections, after the reads that are under way."""
        self._closed = True
        self._threads.shutdown(wait=True)
        self._slow.shutdown(wait=True)
        for db in self._opened:
            db.close()

    async def read(
        self, read: Callable[Concatenate[PageQueries, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The result of one of the reads of `PageQueries`, from a thread."""
        return await self._in(self._threads, partial(self._read, read, args, kwargs))

    async def _in(self, threads: ThreadPoolExecutor, read: Callable[[], T]) -> T:
        if self._closed:
            raise EngineClosed
        if self._store is not None:
            return read()
        if (cost := kept.get()) is not None:
            read = partial(cost.of_read, read)
        try:
            waits = asyncio.get_running_loop().run_in_executor(threads, read)
        except RuntimeError:  # closed by another thread at this moment
            raise EngineClosed from None
        return await waits

    def _read(self, read: Callable[..., T], args: Any, kwargs: Any) -> T:
        queries = getattr(self._mine, "queries", None)
        if queries is None:
            store = self._store or self._open()
            queries = self._mine.queries = PageQueries(store, self._now_ms)
        return read(queries, *args, **kwargs)

    def _open(self) -> Reader:
        db = self._connect()
        db.pragma("cache_size", CACHE_SIZE)
        with self._lock:
            self._opened.append(db)
        return Reader(db, self.path)

    # --- many runs --------------------------------------------------------------------------------

    async def runs(self, asked: RunQuery) -> RunPage:
        """Runs, the newest first, without their payloads. Costs the page, whatever the store has.

        Raises `DefinitionError` for what no run can have, and for an `after` that is no cursor.
        """
        return await self.read(PageQueries.page, asked)

    async def infos(self, ids: Sequence[str]) -> list[RunInfo]:
        """Runs with their payloads, in this order; those that are there no more are left out."""
        return await self.read(PageQueries.infos, ids)

    async def cursor(self, after: str) -> str:
        """The `after` of a query for going on behind a run; what is a cursor already stays so."""
        return await self.read(PageQueries.cursor, after)

    async def counts(self, asked: RunQuery | None = None) -> dict[str, Bounded]:
        """How many runs match a query, by status, for all statuses and `retrying`, which are among
        those that wait. The query's own `status`, `after` and `limit` do not count.
        """
        return await self.read(PageQueries.counts_of, asked or RunQuery())

    async def workflows(self) -> list[str]:
        """Names of the workflows that the store has runs of, sorted, up to 1,000."""
        return await self.read(PageQueries.workflows)

    async def inbox(self, after: str | None = None, limit: int = 50) -> InboxPage:
        """Everything that waits for a person: messages and requests that code waits for, and
        outcomes that are unknown.
        """
        return await self.read(PageQueries.inbox, after, limit)

    async def inbox_of(self, id: str) -> list[InboxItem]:
        """What one run waits for a person to do."""
        return await self.read(PageQueries.inbox_of, id)

    async def declared(self) -> dict[str, Declared]:
        """Workflows that processes with their code have declared, by name, up to 1,000."""
        return await self.read(PageQueries.declared)

    async def answered(self, limit: int = 20) -> list[Answered]:
        """Messages and decisions whose sender gave a name, the newest first."""
        return await self.read(PageQueries.answered, limit)

    async def link(self, token: str) -> LinkView:
        """What a link to answer opens. Raises `LinkUnknown`."""
        return await self.read(PageQueries.link, token)

    async def inbox_count(self) -> Bounded:
        """How many runs wait for a person."""
        return await self.read(PageQueries.inbox_count)

    async def activity(self, buckets: int = 60, bucket_ms: int = 60_000) -> Activity:
        """Runs that were started and that ended, by time, up to now."""
        return await self.read(PageQueries.activity, buckets, bucket_ms)

    # --- one run ----------------------------------------------------------------------------------

    async def find(self, prefix: str) -> str:
        """The full id that `prefix` is or begins. Raises `RunNotFound`, with candidates if there
        are several; `StoreCorrupt` where the file is damaged, which may hide the run.
        """
        # Pages of a replica are verified as they are read, and reading all of them is dear.
        find = PageQueries.find if self.from_elsewhere else PageQueries.find_surely
        return await self.read(find, prefix)

    async def run(self, id: str) -> RunInfo:
        """A run with its payloads."""
        return await self.read(PageQueries.info, id)

    async def summary(self, id: str) -> RunSummary:
        """A run without its payloads."""
        return await self.read(PageQueries.summary, id)

    async def history(
        self, id: str, after: int = 0, limit: int | None = None
    ) -> list[HistoryEvent]:
        """Up to `limit` rows behind row `after`, with their payloads."""
        return await self.read(PageQueries.history, id, after, limit)

    async def outline(
        self, id: str, after: int = 0, limit: int | None = None
    ) -> list[HistoryEvent]:
        """The same rows without arguments, results and data; the `error` of an attempt that failed
        is empty.
        """
        return await self.read(PageQueries.outline, id, after, limit)

    async def entry(self, id: str, seq: int) -> list[HistoryEvent]:
        """Row `seq` of a run, and the rows that answer it; an empty list where there is none."""
        return await self.read(PageQueries.entry, id, seq)

    async def bars(self, id: str, after: int = 0, limit: int = BARS_MAX) -> Bars:
        """Up to `limit` rows of a run behind row `after`, as a waterfall draws them."""
        return await self.read(PageQueries.bars, id, after, limit)

    async def waterfall(self, id: str, after: int = 0, limit: int = BARS_MAX) -> Waterfall:
        """The bars of a run, or of its rows behind `after`."""
        return await self.read(PageQueries.waterfall, id, after, limit)

    async def idempotency_key(self, id: str, seq: int) -> str | None:
        """The key that the attempts of the step in row `seq` have; None where another
        run did it, and where finding it would take too long.
        """
        return await self.read(PageQueries.idempotency_key, id, seq)

    async def why(self, id: str) -> str | None:
        """Why a run does not go on right now, in a sentence; None where it has ended, and where it
        is at work.
        """
        return await self.read(PageQueries.why, id)

    async def whys(self, ids: Sequence[str]) -> dict[str, str]:
        """The same for the runs of a page, up to 200; those with nothing to say are left out, and
        those that are there no more.
        """
        return await self.read(PageQueries.whys, ids)

    async def family(self, id: str, limit: int = 200) -> Family:
        """Parents, children, forks and generations of a run as a tree."""
        return await self.read(PageQueries.relatives, id, limit)

    async def at(self, id: str, seq: int) -> Moment:
        """What the workflow knew behind row `seq`. Raises `DefinitionError` where there is no such
        row.
        """
        return await self.read(PageQueries.at, id, seq)

    async def compare(self, a: str, b: str, limit: int = 200) -> Comparison:
        """Two runs side by side, from their first difference on."""
        return await self.read(PageQueries.compare, a, b, limit)

    async def streams(self, id: str) -> list[StreamInfo]:
        """The streams of a run, by name, up to 200."""
        return await self.read(PageQueries.streams, id)

    async def stream(
        self, id: str, name: str, after: int = 0, limit: int = 1_000
    ) -> list[StreamEntry]:
        """Items of a stream behind the position `after`, in order."""
        return await self.read(PageQueries.stream, id, name, after, limit)

    async def stream_on(self, id: str, name: str, after: int = 0) -> tuple[list[StreamEntry], bool]:
        """Items of a stream behind a position, through all runs that went on under the id; and
        whether nothing comes any more. Raises `BadPosition`.
        """
        return await self.read(PageQueries.stream_on, id, name, after)

    async def logs(
        self,
        id: str,
        after: int = 0,
        limit: int = 1_000,
        *,
        seq: int | None = None,
        attempt: int | None = None,
        newest: bool = False,
    ) -> list[LogLine]:
        """Lines that steps of a run have logged behind the position `after`, in order; those of the
        step in row `seq`, and of one attempt, where that is given. `newest`: the last ones instead
        of the first.
        """
        return await self.read(PageQueries.logs, id, after, limit, seq, attempt, newest)

    async def last_log_line(self, id: str) -> int:
        """The position of the newest line that steps of a run have logged, or 0."""
        return await self.read(PageQueries.last_log_line, id)

    async def exposed(self, id: str) -> list[ExposedValue]:
        """The exposed values of a run, those set last at the end."""
        return await self.read(PageQueries.exposed, id)

    async def requests(self, id: str) -> list[OpenRequest]:
        """The requests to a run that have no reply, the oldest first, up to 1,000."""
        return await self.read(PageQueries.requests, id)

    async def standings(self, ids: Sequence[str]) -> dict[str, list[Standing]]:
        """Where runs and their steps stand in queues, by id."""
        return await self.read(PageQueries.standings, ids)

    # --- queues, schedules, workers ---------------------------------------------------------------

    async def queues(self) -> list[QueueInfo]:
        """All queues, by name."""
        return await self.read(PageQueries.queues)

    async def queue(self, name: str, limit: int = 50) -> QueuePage:
        """A queue with up to `limit` of its keys, and of its places. Raises `QueueNotFound`."""
        return await self.read(PageQueries.queue, name, limit)

    async def schedules(self, after: str = "", limit: int = 200) -> list[ScheduleInfo]:
        """Schedules by name, those behind the name `after`."""
        return await self.read(PageQueries.schedules, after, limit)

    async def schedule(self, name: str) -> ScheduleInfo:
        """A schedule. Raises `ScheduleNotFound`."""
        return await self.read(PageQueries.schedule, name)

    async def ticks(self, name: str, count: int = 10) -> list[TickTime]:
        """The next ticks of a schedule, each with what the clock does there. Raises
        `ScheduleNotFound`, and `BadSchedule` where this machine does not know its zone.
        """
        return await self.read(PageQueries.ticks, name, count)

    async def schedule_runs(self, name: str, limit: int = 20) -> list[RunSummary]:
        """The last runs of a schedule's ticks, the newest tick first."""
        return await self.read(PageQueries.schedule_runs, name, limit)

    async def workers(self) -> list[WorkerInfo]:
        """Workers that have not ended."""
        return await self.read(PageQueries.workers)

    async def pulse(self) -> Pulse:
        """What changes with the time alone. Costs little, so that it can be read all the time."""
        return await self.read(PageQueries.pulse)

    # --- the store --------------------------------------------------------------------------------

    async def system(self) -> SystemFacts:
        """The store at this moment. Costs the same for every size of store."""
        return await self.read(PageQueries.system, self.path)

    async def doctor(self) -> dict[str, Any]:
        """What `perdure doctor` shows. Checks the whole file, which takes as long as that is."""
        read = partial(self._read, PageQueries.doctor, (self.path,), {})
        return await self._in(self._slow, read)

    async def sql(self, text: str, limit: int = 1_000) -> Table:
        """Up to `limit` rows of a query that only reads, within two seconds.

        Raises `DefinitionError` with what SQLite says, for what writes, and for what takes longer.
        """
        return await self._in(self._slow, partial(self._read, PageQueries.sql, (text, limit), {}))

    async def version(self) -> int:
        """A number that changes when something was committed; without a read of any table."""
        return await self.read(self._version)

    def _version(self, queries: PageQueries) -> int:
        """By one connection for all threads: what it says means nothing beside another one's."""
        with self._versions:
            if self._version_of is None:
                self._version_of = self._store or self._open()
            return self._version_of.version()
