"""The handle of a schedule: what `Engine.schedule` returns.

Rules: it holds a name and no state of the schedule; every verb is the engine's.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from perdure.runtime.run_handle import Run

if TYPE_CHECKING:
    from perdure.api.schedules import ScheduleInfo, TickTime


class ScheduleHost(Protocol):
    """The verbs of an engine that the handle of a schedule calls."""

    async def _schedule_info(self, name: str) -> ScheduleInfo: ...

    async def _control_schedule(self, name: str, verb: str) -> bool: ...

    async def _trigger(self, name: str) -> Run[Any]: ...

    async def _backfill(self, name: str, start: Any, end: Any) -> list[Run[Any]]: ...

    async def _backfill_ids(self, name: str, start: Any, end: Any) -> list[str]: ...

    async def _next(self, name: str, count: int) -> list[TickTime]: ...

    async def _remove_schedule(self, name: str) -> None: ...


class ScheduleHandle:
    """A schedule of a store, by its name. All its verbs raise `ScheduleNotFound` where it is gone.

    >>> import asyncio
    >>> from perdure import Engine, workflow
    >>> @workflow
    ... async def report(day: str) -> str:
    ...     return f"report of {day}"
    >>> async def main():
    ...     async with Engine(":memory:", workflows=[report]) as engine:
    ...         nightly = await engine.schedule("nightly", "0 3 * * *", report("today"))
    ...         run = await nightly.trigger()
    ...         return await run.result()
    >>> asyncio.run(main())
    'report of today'
    """

    def __init__(self, engine: ScheduleHost, name: str) -> None:
        self._engine, self.name = engine, name

    def __repr__(self) -> str:
        return f"<schedule {self.name}>"

    async def info(self) -> ScheduleInfo:
        """The schedule as it is stored, with its next tick and its counts."""
        return await self._engine._schedule_info(self.name)

    async def pause(self) -> bool:
        """Start nothing more until it is resumed. Runs that it has started go on. Returns False
        where it is paused already.
        """
        return await self._engine._control_schedule(self.name, "pause")

    async def resume(self) -> bool:
        """Go on with the next tick from now; those of the pause are left out and not counted.
        Returns False where it is not paused.
        """
        return await self._engine._control_schedule(self.name, "resume")

    async def trigger(self) -> Run[Any]:
        """Start a run now, whatever the schedule's times, pause and overlap are.

        Its id has the time of the call and ends in `-trigger`, so that no tick is taken for it.
        """
        return await self._engine._trigger(self.name)

    async def backfill(self, start: datetime, end: datetime | None = None) -> list[Run[Any]]:
        """Start the ticks from `start` until `end`, which is not part of it, and return their runs.

        Both are aware and not in the future. Ticks that have run, or that an earlier backfill has
        started, are the same runs, so that it can be repeated. All start at once, whatever
        `overlap` is; a queue limits them. Raises `BadSchedule` without an end, and for more than
        1,000 ticks.
        """
        return await self._engine._backfill(self.name, start, end)

    async def backfill_ids(self, start: datetime, end: datetime) -> list[str]:
        """The ids of the runs that `backfill` would start or find, in order; nothing is started.
        Raises what it does.
        """
        return await self._engine._backfill_ids(self.name, start, end)

    async def next(self, count: int = 1) -> list[TickTime]:
        """The next ticks from now on, up to 1,000, as aware datetimes in the schedule's zone; their
        `clock` says where the clock is changed. Jitter is not part of them.
        """
        return await self._engine._next(self.name, count)

    async def remove(self) -> None:
        """Remove the schedule. Its runs stay. Where code declares it, it comes back with the next
        start of that code.
        """
        await self._engine._remove_schedule(self.name)
