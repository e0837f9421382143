"""Starts of runs: written with their first turn where this engine executes them at once.

Rules: a run that is not ours by the commit of its start leaves memory without a trace; a caller is
answered after the commit, never before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from perdure.api.definitions import Workflow
from perdure.errors import PerdureError, RunExists
from perdure.process.interpreter import PYTHON
from perdure.runtime import commits
from perdure.runtime.claiming import Claims
from perdure.runtime.existing_run import found_again, true_arguments
from perdure.runtime.first_turn import FirstTurn, Rows
from perdure.runtime.naming import new_seed
from perdure.runtime.observer import Notifier, ObservedRun
from perdure.runtime.queues import Asked
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.run import ActiveRun
from perdure.runtime.runs_in_memory import RunsInMemory
from perdure.runtime.writer import Writer
from perdure.store.base import Store
from perdure.store.rows import RunRow, Started, new_run_row
from perdure.store.writes import StartRun

FULL_S = 0.05
"""For how long a queue that let a run wait is taken to be full, so that a crowd of starts is only
written; those that find it free wait for the next claim.
"""


class StartHost(Protocol):
    """What starts need of their scheduler."""

    store: Store
    reads: ReadExecutor
    writer: Writer
    workflows: dict[str, Workflow[..., Any]]
    claims: Claims
    memory: RunsInMemory
    observer: Notifier | None
    execute: bool
    closing: bool

    @property
    def owner(self) -> int: ...

    def new_active(self, row: RunRow) -> ActiveRun: ...

    def use_lease(self) -> None: ...

    def new_run(self, start: StartRun, at_ms: int) -> StartRun: ...


class Starts:
    """Starts the runs of one scheduler."""

    def __init__(self, host: StartHost) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._full: dict[str, float] = {}
        """Queues that have just let a run wait, each with the time until when that is believed."""

    async def start(self, start: StartRun, definition: Workflow[..., Any], now_ms: int) -> Started:
        """Write a new run. If it is ours to execute, its first turn is written with it, and its
        steps begin after that commit.
        """
        host, reads, store = self._host, self._host.reads, self._host.store
        exists = host.execute and await reads.get(store.has_run, start.id)
        start = host.new_run(start, now_ms)
        tried = start.queue is not None and start.owner is not None
        future: asyncio.Future[Any] = self._loop.create_future()

        def written(result: Any) -> None:
            if not future.done():  # else the caller has given up waiting
                future.set_result(result)
            if isinstance(result, Started) and result.created and not result.owned:
                host.claims.wake()
                if tried and start.queue is not None:
                    self._full[start.queue] = self._loop.time() + FULL_S

        if start.owner is None or exists:
            host.writer.put(start, written, keep=False)
        else:
            self._begin_unwritten(start, written)
        result: Started | PerdureError = await future
        if isinstance(result, RunExists):
            args = await reads.get(true_arguments, store, result.compare)
            result = found_again(definition, start.args, args, result)
        if isinstance(result, PerdureError):
            raise result
        return result

    def _begin_unwritten(self, start: StartRun, written: Callable[[Any], None]) -> None:
        """Execute the first turn of a run before the run is in the store."""
        host = self._host
        active = host.new_active(new_run_row(start, 0))
        host.memory.keep_promise()
        host.memory.unwritten.add(active)

        def done(active: ActiveRun, first: Rows | None, result: Any, places: list[Asked]) -> None:
            self._begun(active, start, first, result, places)
            written(result)

        host.writer.touch(FirstTurn(active, start, host.writer, done))

    def _begun(
        self,
        active: ActiveRun,
        start: StartRun,
        first: Rows | None,
        result: Any,
        places: list[Asked],
    ) -> None:
        host, memory = self._host, self._host.memory
        memory.unwritten.discard(active)
        if isinstance(result, Started) and result.owned:
            memory.active[result.run] = active
            if host.observer is not None:
                host.observer.run_loaded(
                    ObservedRun(
                        start.id, start.workflow, False, start.at_ms, start.at_ms,
                        scheduled_ms=start.scheduled_ms, queue=start.queue,
                    )
                )  # fmt: skip
                host.observer.run_started(active.run_id, active.workflow, resumed=False)
            if host.closing:
                active.begin_no_more()
            active.written(result.run, first)
            if places or result.queue_due:
                commits.placed(active, places, result)
            if host.closing:
                active.release()
        else:
            active.drop()
            memory.room_again()

    def new_run(self, start: StartRun, at_ms: int) -> StartRun:
        """Complete a start: a seed, and ourselves as the owner where we can execute it at once."""
        host = self._host
        here = host.execute and not host.closing and start.workflow in host.workflows
        now = here and (start.due_ms or 0) <= at_ms and host.memory.room() > 0
        if now and start.queue in self._full:  # its first turn would be made for nothing
            now = self._loop.time() > self._full[start.queue]
        start.seed = new_seed()
        if now:
            host.use_lease()
            start.owner, start.due_ms, start.python = host.owner, None, PYTHON
            host.memory.promise()
        return start
