"""Queues and schedules as resources."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from perdure.api.definitions import workflow as as_workflow
from perdure.api.queues import Rate
from perdure.api.schedules import Schedule, ScheduleInfo
from perdure.http.api.control import Body, StartedRun, check_known
from perdure.http.api.operation import Call, Nothing, Operation, Seconds, UpTo1000
from perdure.reader.values import QueuePage
from perdure.runtime.info import QueueInfo, RunSummary
from perdure.views.shapes import Removed, Tick


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many at most."""

    limit: UpTo1000 = 50


class NamesBehind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names behind the name `after`."""

    after: str = ""
    limit: UpTo1000 = 200


class Count(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many ticks."""

    count: UpTo1000 = 10


class RateLimit(Body, frozen=True, kw_only=True):
    """So many in so many seconds, and how many at once after a rest."""

    limit: int
    per: float
    burst: int | None = None


class QueueLimits(Body, frozen=True, kw_only=True):
    """Limits of a queue: null removes one, what is left out stays. See `Queue`."""

    concurrency: int | UnsetType | None = UNSET
    per_worker: int | UnsetType | None = UNSET
    rate: RateLimit | UnsetType | None = UNSET
    key_concurrency: int | UnsetType | None = UNSET
    key_rate: RateLimit | UnsetType | None = UNSET
    waiting_max: int | UnsetType | None = UNSET
    paused: bool | UnsetType = UNSET


class SetSchedule(Body, frozen=True, kw_only=True):
    """A schedule: see `Schedule`. `when` is a cron line, a word such as `@daily`, or `@every 15m`;
    times are seconds.
    """

    when: str
    workflow: str
    args: dict[str, Any] = msgspec.field(default_factory=dict)
    tz: str = "UTC"
    overlap: Literal["skip", "wait", "cancel", "allow"] = "skip"
    catch_up: Seconds = 3_600.0
    catch_up_max: int = 1
    jitter: Seconds = 0.0
    queue: str | None = None
    paused: bool = False
    unknown: bool = False


class Backfill(Body, frozen=True, kw_only=True):
    """From when (aware) until when ticks are started; with `dry_run` they are only named."""

    start: datetime
    end: datetime
    dry_run: bool = False


class Backfilled(msgspec.Struct, frozen=True):
    """The ids of the runs of a backfill."""

    dry_run: bool
    runs: list[str]


# --- queues ---------------------------------------------------------------------------------------


async def list_queues(call: Call[Nothing, None]) -> list[QueueInfo]:
    """List queues by name: limits, how many wait and are under way, when the next is admitted."""
    return await call.reader.queues()


async def get_queue(call: Call[Limit, None]) -> QueuePage:
    """Get a queue with its keys and its places."""
    return await call.reader.queue(call.part("name"), call.query.limit)


async def set_queue(call: Call[Nothing, QueueLimits]) -> QueueInfo:
    """Make a queue, or change the limits that are given; null removes one."""
    given: dict[str, Any] = {
        name: _limit(value)
        for name, value in msgspec.structs.asdict(call.body).items()
        if value is not UNSET
    }
    return await call.engine.queue(call.part("name"), **given)


def _limit(value: Any) -> Any:
    if isinstance(value, RateLimit):
        return Rate(value.limit, value.per, burst=value.burst)
    return value


# --- schedules ------------------------------------------------------------------------------------


async def list_schedules(call: Call[NamesBehind, None]) -> list[ScheduleInfo]:
    """List schedules by name, with their next ticks and their counts."""
    return await call.reader.schedules(call.query.after, call.query.limit)


async def get_schedule(call: Call[Nothing, None]) -> ScheduleInfo:
    """Get a schedule."""
    return await call.reader.schedule(call.part("name"))


async def set_schedule(call: Call[Nothing, SetSchedule]) -> ScheduleInfo:
    """Set a schedule, or change the one of this name. A worker that knows the workflow executes
    its runs.
    """
    asked = call.body
    if not asked.unknown:
        await check_known(call, asked.workflow, asked.args)
    stand_in = as_workflow(name=asked.workflow)(_stands_for)
    wanted = Schedule(
        call.part("name"), asked.when, stand_in(), tz=asked.tz, overlap=asked.overlap,
        catch_up=asked.catch_up, catch_up_max=asked.catch_up_max,
        jitter=asked.jitter, queue=asked.queue, paused=asked.paused,
    )  # fmt: skip
    handle = await call.engine._schedule_by_name(wanted, asked.workflow, asked.args)
    return await handle.info()


async def remove_schedule(call: Call[Nothing, None]) -> Removed:
    """Remove a schedule. Its runs stay; code that declares it brings it back."""
    await (await call.engine.get_schedule(call.part("name"))).remove()
    return Removed(call.part("name"))


async def pause_schedule(call: Call[Nothing, Nothing]) -> ScheduleInfo:
    """Let a schedule start nothing more until it is resumed."""
    handle = await call.engine.get_schedule(call.part("name"))
    await handle.pause()
    return await handle.info()


async def resume_schedule(call: Call[Nothing, Nothing]) -> ScheduleInfo:
    """Let a paused schedule go on with its next tick."""
    handle = await call.engine.get_schedule(call.part("name"))
    await handle.resume()
    return await handle.info()


async def trigger_schedule(call: Call[Nothing, Nothing]) -> StartedRun:
    """Start a run of a schedule now."""
    handle = await call.engine.get_schedule(call.part("name"))
    info, run = await handle.info(), await handle.trigger()
    return StartedRun(run.id, info.workflow)


async def backfill_schedule(call: Call[Nothing, Backfill]) -> Backfilled:
    """Start the ticks of a time that is over; ticks that have run are the same runs."""
    asked, name = call.body, call.part("name")
    handle = await call.engine.get_schedule(name)
    if asked.dry_run:
        return Backfilled(True, await handle.backfill_ids(asked.start, asked.end))
    runs = await handle.backfill(asked.start, asked.end)
    return Backfilled(False, [run.id for run in runs])


async def list_ticks(call: Call[Count, None]) -> list[Tick]:
    """List the next ticks of a schedule, and where the clock is changed."""
    ticks = await call.reader.ticks(call.part("name"), call.query.count)
    return [Tick(datetime.fromisoformat(tick.isoformat()), tick.clock) for tick in ticks]


async def list_schedule_runs(call: Call[Limit, None]) -> list[RunSummary]:
    """List the last runs of a schedule, the newest tick first."""
    return await call.reader.schedule_runs(call.part("name"), call.query.limit)


async def _stands_for() -> None: ...


def _queue(method: str, path: str, handler: Any, answer: Any, **more: Any) -> Operation:
    return Operation(method, path, handler, answer, group="Queues", **more)


def _schedule(method: str, path: str, handler: Any, answer: Any, **more: Any) -> Operation:
    errors = (404,) if method == "GET" else (403, 404)
    return Operation(method, path, handler, answer, group="Schedules", errors=errors, **more)


NAME = "/schedules/{name:name}"
OPERATIONS = [
    _queue("GET", "/queues", list_queues, list[QueueInfo]),
    _queue("GET", "/queues/{name:name}", get_queue, QueuePage, query=Limit, errors=(404,)),
    _queue("PUT", "/queues/{name:name}", set_queue, QueueInfo, body=QueueLimits, errors=(403, 409)),
    _schedule("GET", "/schedules", list_schedules, list[ScheduleInfo], query=NamesBehind),
    _schedule("GET", NAME, get_schedule, ScheduleInfo),
    _schedule("PUT", NAME, set_schedule, ScheduleInfo, body=SetSchedule),
    _schedule("DELETE", NAME, remove_schedule, Removed),
    _schedule("POST", f"{NAME}/pause", pause_schedule, ScheduleInfo, body=Nothing),
    _schedule("POST", f"{NAME}/resume", resume_schedule, ScheduleInfo, body=Nothing),
    _schedule("POST", f"{NAME}/trigger", trigger_schedule, StartedRun, body=Nothing, status=201),
    _schedule("POST", f"{NAME}/backfill", backfill_schedule, Backfilled, body=Backfill),
    _schedule("GET", f"{NAME}/ticks", list_ticks, list[Tick], query=Count),
    _schedule("GET", f"{NAME}/runs", list_schedule_runs, list[RunSummary], query=Limit),
]
