"""Verbs of an engine that read: runs, histories, progress, facts about the store.

Rules: reads give the last commit and never wait for a writer; a list has a limit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Unpack

from perdure.core import names, numbers
from perdure.runtime import facts
from perdure.runtime.engine_parts import EngineParts
from perdure.runtime.info import Blocked, HistoryEvent, Progress, RunInfo, RunSummary
from perdure.runtime.queries import Filter, RunFilters


class ReadVerbs(EngineParts):
    """See the module's text."""

    async def _status(self, id: str) -> str:
        return await self._read(self._queries.status, id)

    async def info(self, id: str) -> RunInfo:
        """Everything about a run but its history. Raises `RunNotFound`, as all verbs do that take
        an id.
        """
        return await self._read(self._queries.info, id)

    async def summary(self, id: str) -> RunSummary:
        """A run without its arguments and its result, which are not read."""
        return await self._read(self._queries.summary, id)

    async def history(
        self,
        id: str,
        *,
        after: int | None = None,
        limit: int | None = None,
        payloads: bool = True,
    ) -> list[HistoryEvent]:
        """The rows of a run in order, with times and decoded arguments and results.

        `after` is the row to read on from, `limit` how many rows to read; the default is all of
        them. A page costs what it returns, however long the history is. With `payloads=False`
        arguments, results, errors and data are not read: for times and names. They are None then,
        but for the `error` of an attempt that failed, which is empty.

        >>> import asyncio
        >>> from perdure import Engine, step, workflow
        >>> @step
        ... async def double(n: int) -> int:
        ...     return n * 2
        >>> @workflow
        ... async def doubles(times: int) -> None:
        ...     for n in range(times):
        ...         await double(n)
        >>> async def main():
        ...     async with Engine(":memory:", workflows=[doubles]) as engine:
        ...         await engine.run(doubles(100), id="d")
        ...         page = await engine.history("d", after=100, limit=2)
        ...         return [(row.seq, row.kind, row.args, row.result) for row in page]
        >>> asyncio.run(main())
        [(101, 'completed', None, 98), (102, 'step', {'n': 50}, None)]
        """
        begin = 0 if after is None else numbers.count(after, "after", low=0)
        most = None if limit is None else numbers.count(limit, "limit", low=1)
        whole = numbers.flag(payloads, "payloads")
        read = self._queries.history if whole else self._queries.outline
        return await self._read(read, id, begin, most)

    async def entry(self, id: str, seq: int) -> list[HistoryEvent]:
        """Row `seq` of a run, and the rows that answer it: a step with its attempts and its result,
        for instance. An empty list where the run has no such row.
        """
        return await self._read(self._queries.entry, id, numbers.count(seq, "seq", low=1))

    async def progress(self, id: str) -> Progress:
        """How far a run is; cheap enough to ask many times a second, whatever its payloads are."""
        return await self._read(self._queries.progress, id)

    async def runs(
        self,
        *,
        status: str | None = None,
        workflow: str | None = None,
        tags: dict[str, Any] | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[RunInfo]:
        """Runs, newest first, at most `limit`; `after` is the id of the last one of the page
        before.

        `tags` are those that a run has at least. Raises `DefinitionError` for a status that there
        is not. `summaries` returns the same without arguments and results.
        """
        asked = self._filter(status=status, workflow=workflow, tags=tags, limit=limit, after=after)
        return await self._read(self._queries.runs, asked)

    async def summaries(self, **filters: Unpack[RunFilters]) -> list[RunSummary]:
        """Runs without their arguments and results, which are not read: takes what `runs` does."""
        return await self._read(self._queries.summaries, self._filter(**filters))

    async def counts(self) -> dict[str, int]:
        """How many runs have each status, for those that any has. Only indexes are read."""
        return await self._read(self._queries.counts)

    def _filter(self, **filters: Unpack[RunFilters]) -> Filter:
        asked = Filter(**filters)
        if asked.tags:
            self._codec.encode(asked.tags, "the tags")
        return asked

    async def doctor(self) -> dict[str, Any]:
        """Facts about the store and its workers, as `perdure doctor` prints them."""
        now_ms = self._clock.now_ms()
        found = await self._read(facts.of_store, self._store, self.path, now_ms)
        return {**found, "hung_threads": self._scheduler.steps.threads.hung}

    async def blocked(self, id: str) -> list[Blocked]:
        """The runs that can't go on by themselves, of `id` and all that it has started: with what
        blocks them and why.
        """
        return await self._read(self._queries.blocked, id)

    async def left_to_workers(self) -> int:
        """How many runs of its workflows are due that neither this engine executes, with
        execute="asked", nor another one, up to 1,001.
        """
        scheduler, now_ms = self._scheduler, self._clock.now_ms()
        worker, at_work, names = scheduler.owner, scheduler.memory.at_work(), scheduler.names
        left = facts.left_to_workers
        return await self._read(left, self._store, worker, at_work, names, now_ms)

    # --- waiting ----------------------------------------------------------------------------------

    async def _result(self, run_id: str, key: int | None, asked: str | None = None) -> Any:
        return await self._results.result(run_id, key, asked)

    def _stream(
        self, run_id: str, name: str, after: int, *, positions: bool = False
    ) -> AsyncIterator[Any]:
        return self._results.stream(
            run_id,
            names.checked("stream", name),
            numbers.count(after, "after", low=0),
            positions=positions,
        )
