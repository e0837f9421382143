"""Verbs of an engine about schedules.

Rules: a verb returns after its commit, and when that is as durable as the engine promises; what is
computed from a row is written only where the row is still the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from perdure.api.definitions import Call
from perdure.core import names, numbers
from perdure.errors import BadSchedule, PerdureError, ScheduleNotFound
from perdure.runtime.engine_parts import EngineParts
from perdure.runtime.run_handle import Run
from perdure.runtime.schedule_handle import ScheduleHandle
from perdure.store.schedule_writes import (
    ControlSchedule,
    RemoveSchedule,
    ScheduleDefinition,
    ScheduleRow,
    SetSchedule,
    StartTicks,
    TickRun,
)

if TYPE_CHECKING:
    from perdure.api.schedules import Every, Overlap, Schedule, ScheduleInfo, TickTime

PAGE_ROWS = 1_000
SCHEDULES_MAX = 100_000
BACKFILL_AT_ONCE = 100
TRIES_MAX = 100


_DEFAULTS = {
    "tz": "UTC", "overlap": "skip", "catch_up": timedelta(hours=1), "catch_up_max": 1, "jitter": 0,
    "queue": None, "paused": False,
}  # fmt: skip


class ScheduleVerbs(EngineParts):
    """See the module's text."""

    async def schedule(
        self,
        name: str | Schedule,
        when: str | Every | None = None,
        call: Call[Any] | None = None,
        *,
        tz: str = "UTC",
        overlap: Overlap = "skip",
        catch_up: timedelta | float = timedelta(hours=1),
        catch_up_max: int = 1,
        jitter: timedelta | float = 0,
        queue: str | None = None,
        paused: bool = False,
    ) -> ScheduleHandle:
        """Set a schedule, and return when that is on disk. Takes what `Schedule` does, or one.

        It stays in the store until it is removed, whatever code is there; an engine that executes
        runs starts its ticks. One with this name is changed: other times count from now on, and it
        stays paused where it is. The same again changes nothing. Raises `BadSchedule`,
        `NotSerializable`, and `QueueNotFound` or `WeightOverBurst` for a queue that would take no
        run of it.

        >>> import asyncio
        >>> from perdure import Engine, workflow
        >>> @workflow
        ... async def report(day: str) -> None: ...
        >>> async def main():
        ...     async with Engine(":memory:") as engine:
        ...         await engine.schedule("nightly", "0 3 * * *", report("today"), tz="Asia/Tokyo")
        ...         return [one.when for one in await engine.schedules()]
        >>> asyncio.run(main())
        ['0 3 * * *']
        """
        from perdure.api.schedules import Schedule
        from perdure.runtime.schedules import definition_of

        more = {
            "tz": tz, "overlap": overlap, "catch_up": catch_up, "catch_up_max": catch_up_max,
            "jitter": jitter, "queue": queue, "paused": paused,
        }  # fmt: skip
        if not isinstance(name, Schedule):
            name = Schedule(name, when, call, **more)  # type: ignore[arg-type]
        elif when is not None or call is not None or more != _DEFAULTS:
            raise BadSchedule(
                "name", "a Schedule has its options itself. Give either a Schedule and nothing "
                "else, or a name, when and call with options.", name.name,
            )  # fmt: skip
        self._know(name.call)
        definition = definition_of(name, self.limits, self._clock.now_ms())
        return await self._set_schedule(definition)

    async def schedules(self) -> list[ScheduleInfo]:
        """All schedules of the store by name, up to 100,000, with their next ticks and counts."""
        found: list[ScheduleRow] = []
        while len(found) < SCHEDULES_MAX:
            after = found[-1].name if found else ""
            page = await self._read(self._store.schedule_rows, after, PAGE_ROWS)
            found += page
            if len(page) < PAGE_ROWS:
                break
        from perdure.runtime.schedule_info import info_of

        return [info_of(row) for row in found]

    async def get_schedule(self, name: str) -> ScheduleHandle:
        """The schedule with this name. Raises `ScheduleNotFound`."""
        names.checked("schedule", name)
        await self._read(self._store.schedule_row, name)
        return ScheduleHandle(self, name)

    # --- what a handle calls ----------------------------------------------------------------------

    async def _set_schedule(self, definition: ScheduleDefinition) -> ScheduleHandle:
        await self._write_schedule(SetSchedule(definition, self._clock.now_ms()))
        return ScheduleHandle(self, definition.name)

    async def _schedule_by_name(
        self, schedule: Schedule, workflow: str, args: dict[str, Any]
    ) -> ScheduleHandle:
        """Set a schedule of a workflow whose code is not here; `schedule` has any call."""
        from perdure.runtime.schedules import definition_of

        definition = definition_of(schedule, self.limits, self._clock.now_ms())
        definition.workflow = workflow
        definition.args = self._codec.encode(args, "the arguments")
        return await self._set_schedule(definition)

    async def _schedule_info(self, name: str) -> ScheduleInfo:
        from perdure.runtime.schedule_info import info_of

        return info_of(await self._read(self._store.schedule_row, name))

    async def _control_schedule(self, name: str, verb: str) -> bool:
        from perdure.api.ticks import first_after, ticks_of

        for _ in range(TRIES_MAX):  # a tick may come in between
            row, now_ms = await self._read(self._store.schedule_row, name), self._clock.now_ms()
            if row.paused == (verb == "pause"):
                return False
            next_ms = first_after(ticks_of(row.expression, row.tz), now_ms)
            control = ControlSchedule(name, verb, row.version, next_ms, now_ms)
            if await self._write_schedule(control):
                return True
        return False

    async def _trigger(self, name: str) -> Run[Any]:
        from perdure.runtime.ticks import tick_run

        row, now_ms = await self._read(self._store.schedule_row, name), self._clock.now_ms()
        for ms in range(now_ms, now_ms + TRIES_MAX):  # another one of this millisecond
            tick = tick_run(name, ms, row.tz, "-trigger")
            (started,) = await self._write_schedule(StartTicks(name, [tick], now_ms, True))
            if isinstance(started, PerdureError):
                raise started
            if started.created:
                break
        return Run(self, tick.id, started.run)  # type: ignore[arg-type]

    async def _backfill(self, name: str, start: Any, end: Any) -> list[Run[Any]]:
        from perdure.runtime.ticks import tick_run

        row = await self._read(self._store.schedule_row, name)
        ticks = _backfilled(row, start, end, self._clock.now_ms())
        runs: list[Run[Any]] = []
        for at in range(0, len(ticks), BACKFILL_AT_ONCE):
            some = [tick_run(name, ms, row.tz) for ms in ticks[at : at + BACKFILL_AT_ONCE]]
            runs += await self._start_ticks(name, some)
        return runs

    async def _backfill_ids(self, name: str, start: Any, end: Any) -> list[str]:
        from perdure.runtime.ticks import tick_run

        row = await self._read(self._store.schedule_row, name)
        ticks = _backfilled(row, start, end, self._clock.now_ms())
        return [tick_run(name, ms, row.tz).id for ms in ticks]

    async def _start_ticks(self, name: str, ticks: Sequence[TickRun]) -> list[Run[Any]]:
        now_ms = self._clock.now_ms()
        results = await self._write_schedule(StartTicks(name, list(ticks), now_ms))
        for result in results:
            if isinstance(result, PerdureError):
                raise result
        return [Run(self, one.id, one.run) for one in results]  # type: ignore[arg-type]

    async def _next(self, name: str, count: int) -> list[TickTime]:
        from perdure.runtime.schedule_info import next_ticks

        row = await self._read(self._store.schedule_row, name)
        return next_ticks(row, self._clock.now_ms(), count)

    async def _remove_schedule(self, name: str) -> None:
        await self._write_schedule(RemoveSchedule(name))

    async def _write_schedule(self, write: Any) -> Any:
        """Write, wake what looks for ticks and runs, and wait until it may be reported."""
        parts = self._parts()

        def then(_: Any) -> None:
            if parts.schedules is not None:
                parts.schedules.wake()
            parts.scheduler.claims.wake()

        try:
            result = await parts.scheduler.writer.ask(write, then)
        except ScheduleNotFound as error:
            await self._read(self._store.schedule_row, error.name)  # raises it with names
            raise
        await parts.control.store_confirmed()
        return result

    def _know(self, call: Call[Any]) -> None:
        """Execute runs of this workflow here, if runs are executed here."""
        from perdure.runtime.registry import know_workflow

        scheduler, definition = self._scheduler, call.definition
        if scheduler.execute:
            scheduler.register(definition)  # type: ignore[arg-type]
        else:
            know_workflow(scheduler.workflows, definition)  # type: ignore[arg-type]


def _backfilled(row: ScheduleRow, start: Any, end: Any, now_ms: int) -> list[int]:
    """The ticks of a backfill. Raises `BadSchedule`."""
    from perdure.api.schedules import TICKS_AT_ONCE_MAX
    from perdure.api.ticks import ticks_of

    start_ms, end_ms = _aware_ms("start", start, row.name), _aware_ms("end", end, row.name)
    if end_ms <= start_ms:
        raise BadSchedule("end", "it has to be after the start of the backfill.", row.name)
    if end_ms > now_ms:
        now = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="seconds")
        raise BadSchedule(
            "end", f"it is in the future, and it is {now} now: ticks that come are started then.",
            row.name,
        )  # fmt: skip
    found: list[int] = []
    for ms in ticks_of(row.expression, row.tz).after(start_ms - 1):
        if ms >= end_ms:
            break
        found.append(ms)
        if len(found) > TICKS_AT_ONCE_MAX:
            raise BadSchedule(
                "end", f"there are more than {TICKS_AT_ONCE_MAX:,} ticks before it, and one "
                "backfill starts no more. Do it in parts.", row.name,
            )  # fmt: skip
    return found


def _aware_ms(field: str, at: Any, name: str) -> int:
    if at is None:
        raise BadSchedule(field, "a backfill needs a start and an end.", name)
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise BadSchedule(
            field, "it is an aware datetime, such as datetime(2026, 11, 1, tzinfo=timezone.utc), "
            f"not {numbers.shown(at)}.", name,
        )  # fmt: skip
    return int(at.timestamp() * 1000)  # down: a datetime.now() is never in the future
