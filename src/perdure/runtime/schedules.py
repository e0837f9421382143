"""Schedules of an engine: declares those of its code, and starts the runs of ticks that are due.

Rules: every engine that executes runs does this for all schedules of the store, whatever code it
has, and a tick is started by one of them, because its transaction checks what the plan was made
from; a look costs two reads of an index, however many schedules there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any

from perdure.core.limits import Limits
from perdure.errors import BadSchedule
from perdure.process.periodic import Loop
from perdure.runtime.claiming import FULL_S, IDLE_S_WHEN_LOST
from perdure.runtime.outbox import start_in_queue
from perdure.runtime.scheduler import Scheduler
from perdure.store.schedule_writes import (
    DeclareSchedules,
    DueSchedule,
    Fired,
    FireSchedule,
    ScheduleDefinition,
)

if TYPE_CHECKING:
    from perdure.api.schedules import Schedule

log = logging.getLogger("perdure")

DUE_AT_ONCE = 200
IDLE_S = 3_600.0
"""Where there is no schedule, commits of others wake the loop."""
LATER_S = 1.0
"""How soon to look again where nothing of what is due can be computed on this machine."""
LOOK_S = 1.0
"""How soon a commit of another process is looked at, where there was no schedule before."""


class Schedules:
    """The schedules of one open engine. `declared` are those of its code."""

    def __init__(self, host: Scheduler, declared: Sequence[Schedule], limits: Limits) -> None:
        self._host, self._declared, self._limits = host, declared, limits
        self._loop = Loop("schedules", self._look)
        self.wake = self._loop.wake
        self._declared_as = 0
        self._awake_ms = self._seen_ms = host.clock.now_ms()
        self._any, self._looked = False, False
        self._unknown: set[str] = set()
        self._soon: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Declare what the code has, and look for ticks from here on."""
        for schedule in self._declared:
            self._host.register(schedule.call.definition)  # type: ignore[arg-type]
        await self._declare()
        self._host.when_stale, self._host.when_changed = self.wake, self._changed
        self._loop.start()

    async def stop(self) -> None:
        """Look no more."""
        self._host.when_stale = self._host.when_changed = self._host.when_ended = None
        if self._soon is not None:
            self._soon.cancel()
        await self._loop.stop()

    # --- declarations -----------------------------------------------------------------------------

    async def _declare(self) -> None:
        """Say which schedules the code of this worker has."""
        host, again, worker = self._host, self._declared_as != 0, self._host.owner
        if self._declared:
            now_ms = host.clock.now_ms()
            given = [definition_of(one, self._limits, now_ms) for one in self._declared]
            changed = await host.writer.ask(DeclareSchedules(worker, given, now_ms, again))
            if changed:
                log.info("schedules set by code: %s", ", ".join(changed))
        self._declared_as = worker

    # --- ticks ------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Another process has committed: a schedule may be new, or what a tick waited for ended."""
        if self._any:
            self.wake()
        elif self._soon is None:
            later = asyncio.get_running_loop().call_later
            self._soon = later(LOOK_S, self._look_soon, context=Context())

    def _look_soon(self) -> None:
        self._soon = None
        self.wake()

    async def _look(self) -> float:
        host = self._host
        if host.lost.done():
            return IDLE_S_WHEN_LOST
        if host.gate is not None and host.gate.full:
            return FULL_S
        if self._declared_as != host.owner:
            await self._declare()
        now_ms = host.clock.now_ms()
        if now_ms < self._seen_ms or not self._looked:
            ahead = host.store.schedules_ahead
            while await self._fire_all(await host.reads.get(ahead, now_ms, DUE_AT_ONCE), now_ms):
                pass
            self._awake_ms = min(self._awake_ms, now_ms)
        self._seen_ms, self._looked = now_ms, True
        fire_ms = await host.reads.get(host.store.next_fire_ms)
        self._any = fire_ms is not None
        if fire_ms is None:
            self._awake_ms, host.when_ended = now_ms, None
            return max(IDLE_S, host.clock.idle_s_max)
        if fire_ms > now_ms:
            self._awake_ms = now_ms
            held = await host.reads.get(host.store.any_held)
            host.when_ended = self.wake if held else None
            return min((fire_ms - now_ms) / 1000, host.clock.idle_s_max)
        due = await host.reads.get(host.store.due_schedules, now_ms, DUE_AT_ONCE)
        return 0.0 if await self._fire_all(due, now_ms) else LATER_S

    async def _fire_all(self, due: list[DueSchedule], now_ms: int) -> bool:
        """Deal with schedules at `now_ms`, in as few transactions as there can be. Returns False
        where all of them are left as they are: none can be computed here, or started now.
        """
        ask, todo = self._host.writer.ask, []
        for one in due:
            if (write := self._write(one, now_ms)) is not None:
                todo.append((one, write))
            await asyncio.sleep(0)  # a plan of many missed ticks takes some milliseconds
        results: list[Any] = await asyncio.gather(
            *(ask(write) for _, write in todo), return_exceptions=True
        )
        for (one, _), result in zip(todo, results, strict=True):
            self._fired(one, result)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return any(result is None or result.refused is None for result in results)

    def _write(self, due: DueSchedule, now_ms: int) -> FireSchedule | None:
        """The write that deals with a schedule; None where its zone is not known here."""
        from perdure.runtime import ticks

        try:
            return ticks.fire(due, now_ms, self._awake_ms)
        except BadSchedule as error:  # a machine with other zones may know this one
            if due.name not in self._unknown:
                self._unknown.add(due.name)
                log.error("schedule %s can't be computed on this machine: %s", due.name, error)
            return None

    def _fired(self, due: DueSchedule, result: Any) -> None:
        if not isinstance(result, Fired):
            return  # another engine was first, or the store has failed
        if result.refused is not None:
            log.warning("schedule %s: no run was started: %s", due.name, result.refused)
        if result.woken:
            self._host.woken(result.woken)
        if result.started:
            log.debug("schedule %s started %s", due.name, ", ".join(result.started))
            self._host.claims.wake()


def definition_of(schedule: Schedule, limits: Limits, now_ms: int) -> ScheduleDefinition:
    """A schedule as it is stored. Raises what its arguments can't be stored for."""
    from perdure.api.ticks import first_after, ticks_of
    from perdure.codec.signature import signature_of

    call, when, tz = schedule.call, str(schedule.when).strip(), str(schedule.tz)
    most = limits.payload_bytes_max
    args = signature_of(call.definition).encode_args(call.args, call.kwargs, limit_bytes=most)
    options, (key, weight) = call.options, start_in_queue(call)
    return ScheduleDefinition(
        schedule.name,
        when,
        tz,
        call.definition.name,
        args,
        schedule.overlap,
        round(_seconds(schedule.catch_up) * 1000),
        schedule.catch_up_max,
        round(_seconds(schedule.jitter) * 1000),
        options.queue if schedule.queue is None else schedule.queue,
        key,
        weight,
        options.timeout_ms,
        options.durability,
        schedule.paused,
        first_after(ticks_of(when, tz), now_ms),
    )


def _seconds(value: Any) -> float:
    return float(value.total_seconds())
