"""Clocks that jump: timers follow the date, leases follow no clock, and time within a run never
goes back.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import Engine, Limits, receive, step, workflow
from perdure.process.clock import SystemClock
from perdure.store.sqlite.connection import open_reader
from tests.runtime.support import awaited, reached, until

DAY_MS = 86_400_000
LEASE_S = 1.0


class Adjustable(SystemClock):
    """The machine's clock, off by so many milliseconds."""

    off_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.off_ms


def engine_on(db: str, clock: SystemClock, *workflows: object) -> Engine:
    engine = Engine(db, workflows=workflows, lease_ttl=LEASE_S)  # type: ignore[arg-type]
    engine._clock = clock
    return engine


@step
async def noop(n: int) -> int:
    return n


@workflow
async def days(count: int) -> int:
    await asyncio.sleep(count * DAY_MS / 1000)
    return await noop(count)


@workflow
async def waits() -> int:
    return await receive("numbers", int)


@awaited
async def test_a_jump_forwards_makes_due_what_is_due_by_the_new_date(
    db: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Adjustable()
    async with engine_on(db, clock, days) as engine:
        run = await engine.start(days(3), id="d")
        await reached(run, "waiting")
        clock.off_ms = 4 * DAY_MS
        with caplog.at_level(logging.WARNING):
            assert await run.result(60) == 3
    assert any("the clock jumped by +345600" in record.message for record in caplog.records)


@awaited
async def test_after_a_jump_backwards_a_timer_waits_and_time_in_the_run_never_goes_back(
    db: str,
) -> None:
    clock = Adjustable()
    async with engine_on(db, clock, days) as engine:
        before = await engine.start(days(1), id="before")
        await reached(before, "waiting")
        clock.off_ms = -2 * DAY_MS
        after = await engine.start(days(1), id="after")
        await reached(after, "waiting")
        clock.off_ms = -DAY_MS // 2
        assert await after.result(60) == 1
        assert await before.status() == "waiting"
        clock.off_ms = DAY_MS + 1000
        assert await before.result(60) == 1
        for name in ("before", "after"):
            times = [event.at for event in await engine.history(name)]
            assert times == sorted(times)


@awaited
async def test_no_clock_makes_a_living_worker_dead(db: str) -> None:
    """Leases were compared with the wall clock: after a jump each engine buried the other, which
    counted as crashes.
    """
    clock = Adjustable()
    async with (
        engine_on(db, SystemClock(), days) as one,
        engine_on(db, clock, days) as other,
    ):
        await one.start(days(100), id="a")  # a worker without a run renews no lease
        await other.start(days(100), id="b")
        reader = open_reader(db)

        def workers() -> list[Any]:
            return reader.execute(
                "SELECT worker, beats FROM worker WHERE ended_ms IS NULL ORDER BY 1"
            ).fetchall()

        for jump_ms in (10 * DAY_MS, -10 * DAY_MS):
            clock.off_ms = jump_ms
            begun = dict(workers())
            assert len(begun) == 2
            await until(
                lambda then=begun: all(  # type: ignore[misc]
                    beats >= then.get(worker, 0) + 12 for worker, beats in workers()
                )
            )
            assert [worker for worker, _ in workers()] == sorted(begun)
        reader.close()


@awaited
async def test_what_was_due_at_once_by_a_clock_that_ran_ahead_does_not_wait_for_that_date(
    db: str,
) -> None:
    """A run that was started, one that got a message and one whose worker died, all while the date
    was days ahead.
    """
    ahead = Adjustable()
    ahead.off_ms = 3 * DAY_MS
    client = Engine(db, execute=False)
    client._clock = ahead
    async with client:
        await client.start(days(1), id="later", at=datetime.now(UTC) + timedelta(days=5))
        async with engine_on(db, ahead, waits):
            await reached(await client.start(waits(), id="told"), "waiting")
        await client.send("told", 7, channel="numbers")
        await client.start(waits(), id="started")
        async with engine_on(db, SystemClock(), days, waits) as engine:
            assert await (await engine.get("told")).result() == 7
            started = await engine.get("started")
            await reached(started, "waiting")
            await started.send(8, channel="numbers")
            assert await started.result() == 8
            assert await (await engine.get("later")).status() == "pending"


@awaited
async def test_a_clock_that_is_set_back_while_runs_stand_in_line(db: str) -> None:
    clock = Adjustable()
    clock.off_ms = 3 * DAY_MS
    engine = engine_on(db, clock, waits)
    engine.limits = Limits(runs_loaded_max=1)
    async with engine:
        first, second = [await engine.start(waits(), id=name) for name in ("first", "second")]
        await reached(first, "waiting")
        clock.off_ms = 0
        for run in (first, second):
            await run.send(1, channel="numbers")
            assert await run.result() == 1
