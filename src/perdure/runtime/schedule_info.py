"""Schedules and their next ticks as callers see them.

Rules: nothing here reads a store; the time is given.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import islice

import msgspec

from perdure.api.schedules import TICKS_AT_ONCE_MAX, ScheduleInfo, TickTime
from perdure.api.ticks import clock_text, ticks_of, zone_of
from perdure.core import numbers
from perdure.errors import BadSchedule
from perdure.store.schedule_writes import ScheduleRow


def next_ticks(row: ScheduleRow, now_ms: int, count: int) -> list[TickTime]:
    """The next ticks behind `now_ms`, with what the clock does there. Raises `DefinitionError` for
    a count that is too high, `BadSchedule` where this machine does not know the zone.
    """
    numbers.count(count, "count", high=TICKS_AT_ONCE_MAX)
    ticks, zone = ticks_of(row.expression, row.tz), zone_of(row.tz)
    found, before_ms = [], now_ms
    for ms in islice(ticks.after(now_ms), count):
        found.append(TickTime.of(zone.at(ms), clock_text(ticks, zone, before_ms, ms)))
        before_ms = ms
    return found


def info_of(row: ScheduleRow) -> ScheduleInfo:
    """A schedule's row with times in its zone."""
    try:
        zone = zone_of(row.tz)
    except BadSchedule:  # of a machine with other zones
        zone = zone_of("UTC")
    next_ms = row.next_ms if row.status in ("active", "no worker") else None
    return ScheduleInfo(
        name=row.name,
        when=row.expression,
        tz=row.tz,
        workflow=row.workflow,
        args=msgspec.json.decode(row.args),
        overlap=row.overlap,  # type: ignore[arg-type]
        catch_up=timedelta(milliseconds=row.catch_up_ms),
        catch_up_max=row.catch_up_max,
        jitter=timedelta(milliseconds=row.jitter_ms),
        queue=row.queue,
        status=row.status,
        next_at=None if next_ms is None else zone.at(next_ms),
        last_at=None if row.last_ms is None else zone.at(row.last_ms),
        last_run=row.last_run,
        missed=row.missed,
        skipped=row.skipped,
        waiting=len(row.held),
        error=row.error,
    )
