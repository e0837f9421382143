"""Reads of a store for pages and tools: connections and threads of their own, beside any engine.

Rules: nothing here writes, takes a lease or runs on the event loop; the writer of the store is
never waited for and never held up; a store is read as it is, also without the application's code.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import apsw

from perdure.errors import EngineClosed
from perdure.runtime.info import HistoryEvent, RunInfo, RunSummary
from perdure.runtime.queries import BARS_MAX, Bars, Filter, Queries
from perdure.store.sqlite import connection
from perdure.store.sqlite.reader import Reader

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 2


class StoreReader:
    """Reads of one store. `connect` opens a connection, once for each thread.

    Raises `StoreNotFound`, `StoreCorrupt` or `StoreTooNew` at the first read.
    """

    def __init__(self, path: str, connect: Callable[[], apsw.Connection] | None = None) -> None:
        self.path = path
        self._connect = connect or partial(connection.open_reader, path)
        self._threads = ThreadPoolExecutor(THREADS, "perdure-pages")
        self._mine = threading.local()
        self._lock, self._opened, self._closed = threading.Lock(), [], False  # type: ignore[var-annotated]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Close the connections, after the reads that are under way."""
        self._closed = True
        self._threads.shutdown(wait=True)
        for db in self._opened:
            db.close()

    async def read(
        self, read: Callable[Concatenate[Queries, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The result of one of the reads of `Queries`, from a thread."""
        if self._closed:
            raise EngineClosed
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(self._read, read, args, kwargs))

    def _read(self, read: Callable[..., T], args: Any, kwargs: Any) -> T:
        queries = getattr(self._mine, "queries", None)
        if queries is None:
            db = self._connect()
            with self._lock:
                self._opened.append(db)
            queries = self._mine.queries = Queries(Reader(db, self.path))  # type: ignore[arg-type]
        return read(queries, *args, **kwargs)

    # --- runs -------------------------------------------------------------------------------------

    async def summaries(self, asked: Filter) -> list[RunSummary]:
        """Runs without their payloads, newest first."""
        return await self.read(Queries.summaries, asked)

    async def info(self, id: str) -> RunInfo:
        """A run with its payloads. Raises `RunNotFound`."""
        return await self.read(Queries.info, id)

    async def history(self, id: str, after: int, limit: int | None) -> list[HistoryEvent]:
        """Up to `limit` rows of a run behind row `after`. Raises `RunNotFound`."""
        return await self.read(Queries.history, id, after, limit)

    async def bars(self, id: str, after: int = 0, limit: int = BARS_MAX) -> Bars:
        """Up to `limit` rows of a run behind row `after`, as a waterfall draws them. Raises
        `RunNotFound`.
        """
        return await self.read(Queries.bars, id, after, limit)

    async def counts(self) -> dict[str, int]:
        """How many runs have each status."""
        return await self.read(Queries.counts)
