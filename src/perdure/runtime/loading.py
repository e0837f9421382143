"""Loading of runs: reads what a claimed run needs as one value, then lets it go on in memory.

Rules: of the runs that may have killed the process one is tried at a time; a run for which there is
no room goes back into the store; a store that can't be read is no error of the run.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from functools import partial
from typing import Protocol

from perdure.core import lifecycle
from perdure.core.limits import Limits
from perdure.errors import StoreError
from perdure.process.clock import SystemClock
from perdure.process.slices import Slices
from perdure.runtime.claiming import Claims
from perdure.runtime.observer import Notifier, ObservedRun
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.run import ActiveRun
from perdure.runtime.runs_in_memory import Loading, RunsInMemory
from perdure.runtime.writer import Writer
from perdure.store.base import Store
from perdure.store.rows import LoadedRun, RunRow
from perdure.store.writes import Suspend, Turn

log = logging.getLogger("perdure")

SUSPECT_WAIT_MS = 500
LOAD_AGAIN_S = 1.0


class LoadHost(Protocol):
    """What a loader needs of its scheduler."""

    store: Store
    reads: ReadExecutor
    writer: Writer
    clock: SystemClock
    limits: Limits
    claims: Claims
    memory: RunsInMemory
    observer: Notifier | None

    @property
    def owner(self) -> int: ...

    @property
    def ending(self) -> bool: ...

    def new_active(self, row: RunRow) -> ActiveRun: ...

    def look_at(self, run: int) -> None: ...

    def pause_or_resume(self, run: int) -> None: ...


class Loader:
    """Loads the runs of one scheduler."""

    def __init__(self, host: LoadHost) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._slices = Slices(self._loop)

    @property
    def busy(self) -> bool:
        """Whether runs wait to be loaded."""
        return self._slices.busy

    def load_soon(self, run: int) -> None:
        """Load a run that is ours in a callback of its own."""
        self._slices.add(self.load, run)

    def load(self, run: int) -> None:
        """Load a run that is ours, unless it is in memory already."""
        host, memory = self._host, self._host.memory
        if host.ending or run in memory.active or run in memory.loading:
            return  # also while its last turn is being written: the store does not know of that yet
        if memory.room() <= 0:
            self._put_off(run, 0)
            return
        memory.loading[run] = loading = Loading()
        host.reads.then(
            partial(self._loaded, run, loading),
            host.store.load, run, host.owner, host.limits.history_rows_max,
        )  # fmt: skip

    def _loaded(self, run: int, loading: Loading, loaded: LoadedRun | None) -> None:
        host = self._host
        if host.memory.loading.get(run) is not loading:
            return  # the lease was lost meanwhile
        del host.memory.loading[run]
        if loaded is None or host.ending:
            return
        if loading.controlled and loaded.row.status != lifecycle.PAUSED:
            self.load(run)  # it was read before it was paused, perhaps: nothing more may begin
            return
        if loaded.row.crashes >= host.limits.crashes_max - 1 and self._another_suspect():
            self._put_off(run, SUSPECT_WAIT_MS)
            return
        self._begin(loaded)
        if loading.controlled:
            host.pause_or_resume(run)  # it may have been resumed since
        if loading.news:
            host.look_at(run)

    def _another_suspect(self) -> bool:
        """Whether a run that may kill the process is being tried."""
        last = self._host.limits.crashes_max - 1
        return any(
            active.crashes >= last and active.status == lifecycle.RUNNING and not active.gone
            for active in self._host.memory.active.values()
        )

    def _put_off(self, run: int, wait_ms: int) -> None:
        """Give a run back to the store, which has it claimed again later."""
        host, now_ms = self._host, self._host.clock.now_ms()
        suspend = Suspend(lifecycle.PENDING, due_ms=now_ms + wait_ms, release=True)
        turn = Turn(run, host.owner, [], now_ms, suspend=suspend)
        host.writer.put(turn, lambda _: host.claims.wake(), keep=True)

    def _begin(self, loaded: LoadedRun) -> None:
        host, run, row = self._host, loaded.row.run, loaded.row
        host.memory.active[run] = active = host.new_active(row)
        if host.observer is not None:
            host.observer.run_loaded(_observed(row))
            host.observer.run_started(row.id, row.workflow, bool(row.history_rows))
        try:
            if row.history_rows > host.limits.history_rows_max:
                active.attempts.take_places(loaded.places)  # to be given back
                active.block_by_length(row.history_rows)
            else:
                active.load(loaded)
        except StoreError as error:  # of a payload that is read on use
            log.warning("can't read the store, trying again: %s", error)
            active.drop()
            del host.memory.active[run]
            if host.store.damaged is None:
                self._loop.call_later(LOAD_AGAIN_S, self.load, run, context=Context())
        except Exception as error:
            active.block_by(error)


def _observed(row: RunRow) -> ObservedRun:
    started_ms = row.created_ms if row.started_ms is None else row.started_ms
    return ObservedRun(
        row.id, row.workflow, bool(row.history_rows), row.created_ms, started_ms, row.parent_id,
        row.parent_seq, row.forked_from, row.scheduled_ms, row.queue,
    )  # fmt: skip
