"""What stands still in a store, with the reason and what helps."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from perdure import (
    Engine,
    Queue,
    RequestTimeout,
    Schedule,
    receive,
    step,
    workflow,
)
from perdure.runtime import stuck
from perdure.store.writes import HoldQueue
from tests.runtime.support import awaited, reached

MINUTE_MS = 60_000


@workflow
async def patient(name: str) -> str:
    return await receive("answer", str)


@workflow
async def parent() -> str:
    return await patient.options(queue="q")("child")


def opened(db: str) -> Engine:
    """An engine with a queue for one."""
    return Engine(db, workflows=[patient, parent], queues=[Queue("q", concurrency=1)])


def queue_reason(engine: Engine, later_ms: int = 0) -> str:
    (found,) = stuck.queues(engine._store, engine._clock.now_ms() + later_ms)
    assert found["name"] == "q"
    return str(found["reason"])


# --- queues ---------------------------------------------------------------------------------------


@awaited
async def test_a_queue_without_anything_in_it_stands_for_nothing(db: str) -> None:
    async with opened(db) as engine:
        await engine.queue("q", paused=True)
        assert stuck.queues(engine._store, engine._clock.now_ms()) == []


@awaited
async def test_a_paused_queue_names_the_command(db: str) -> None:
    async with opened(db) as engine:
        await engine.queue("q", paused=True)
        await engine.start(patient("a"), id="a", queue="q")
        assert queue_reason(engine) == "1 wait: it is paused: perdure queue resume q"


@awaited
async def test_a_queue_that_is_held_back_says_until_when(db: str) -> None:
    async with opened(db) as engine:
        now_ms = engine._clock.now_ms()
        await engine._scheduler.writer.ask(HoldQueue("q", now_ms + MINUTE_MS, now_ms))
        await engine.start(patient("a"), id="a", queue="q")
        assert "1 wait: RetryAfter holds it back until " in queue_reason(engine)


@awaited
async def test_a_run_that_waits_for_one_of_its_own_queue(db: str) -> None:
    async with opened(db) as engine:
        await engine.start(parent(), id="p", queue="q")
        await reached(await engine.get("p"), "waiting")
        reason = queue_reason(engine)
        assert "p waits for child patient. Runs that wait for others of their own queue" in reason


@awaited
async def test_a_place_whose_run_goes_on_at_a_time_is_no_alarm(db: str) -> None:
    @workflow
    async def sleeps() -> None:
        await asyncio.sleep(600)

    async with Engine(db, workflows=[sleeps], queues=[Queue("q", concurrency=1)]) as engine:
        for run_id in ("one", "two"):
            await engine.start(sleeps(), id=run_id, queue="q")
        await reached(await engine.get("one"), "waiting")
        assert stuck.queues(engine._store, engine._clock.now_ms()) == []


@awaited
async def test_a_place_whose_run_waits_for_a_busy_queue_is_no_alarm_but_for_a_paused_one(
    db: str,
) -> None:
    gate = asyncio.Event()

    @step(queue="r")
    async def works() -> None:
        await gate.wait()

    @workflow
    async def calls() -> None:
        await works()

    queues = [Queue("q", concurrency=1), Queue("r", concurrency=1)]
    async with Engine(db, workflows=[calls], queues=queues) as engine:
        await engine.start(calls(), id="outside")
        runs = [await engine.start(calls(), id=one, queue="q") for one in ("one", "two")]
        await reached(runs[0], "waiting")
        assert stuck.queues(engine._store, engine._clock.now_ms()) == []
        await engine.queue("r", paused=True)
        found = stuck.queues(engine._store, engine._clock.now_ms())
        assert [row["name"] for row in found] == ["q", "r"]
        await engine.queue("r", paused=False)
        gate.set()
        for run in runs:
            await run.result()


@awaited
async def test_a_queue_whose_next_place_no_worker_takes(db: str) -> None:
    async with Engine(db, execute=False) as client:
        await client.queue("q", concurrency=1)
        await client.start(patient("a"), id="a", queue="q")
        now_ms = client._clock.now_ms()
        assert stuck.queues(client._store, now_ms) == [], "it may be taken any moment"
        reason = queue_reason(client, 2 * stuck.LATE_MS)
        assert reason.endswith("is there one that runs, and knows workflow patient?")


# --- schedules ------------------------------------------------------------------------------------


async def reasons(engine: Engine, later_ms: int = 0) -> dict[str, str]:
    found = stuck.schedules(engine._store, engine._clock.now_ms() + later_ms)
    return {one["name"]: one["reason"] for one in found}


@awaited
async def test_schedules_that_start_nothing(db: str) -> None:
    ours = [Schedule("ours", "@daily", patient("x"))]
    async with Engine(db, workflows=[patient], schedules=ours):
        pass
    async with Engine(db, workflows=[patient]) as engine:
        paused = await engine.schedule("paused", "@daily", patient("x"), paused=True)
        await engine.schedule("well", "@daily", patient("x"))
        found = await reasons(engine)
        assert found["paused"] == "it is paused: perdure schedule resume paused"
        assert found["ours"].startswith("no worker that runs declares it")
        assert set(found) == {"paused", "ours"}
        await paused.remove()
        assert set(await reasons(engine)) == {"ours"}


@awaited
async def test_a_tick_that_no_worker_starts(db: str) -> None:
    ours = [Schedule("ours", "@daily", patient("x"))]
    async with Engine(db, workflows=[patient], schedules=ours):
        pass
    async with Engine(db, execute=False) as client:
        await client.schedule("theirs", "@daily", patient("x"))
        assert await reasons(client) == {}, "a worker may be started in time"
        late = await reasons(client, 25 * 60 * MINUTE_MS)
        assert set(late) == {"ours", "theirs"}
        assert all(reason.endswith("no worker starts it") for reason in late.values())


@awaited
async def test_many_schedules_are_looked_through_page_by_page(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stuck, "PAGE", 2)
    async with Engine(db, execute=False) as client:
        for number in range(5):
            await client.schedule(f"s{number}", "@daily", patient("x"), paused=number == 4)
        assert set(await reasons(client)) == {"s4"}


# --- requests -------------------------------------------------------------------------------------


@awaited
async def test_a_request_without_a_reply_says_what_the_run_does(db: str) -> None:
    async with opened(db) as engine:
        await engine.start(patient("a"), id="a")
        await reached(await engine.get("a"), "waiting")
        with pytest.raises(RequestTimeout):
            await engine.ask("a", 1, channel="q", key="k", timeout=timedelta(milliseconds=1))
        now_ms = engine._clock.now_ms()
        assert stuck.requests(engine._store, now_ms) == [], "it has just been asked"
        (found,) = stuck.requests(engine._store, now_ms + 2 * stuck.ANSWER_MS)
        assert (found["id"], found["channel"], found["key"]) == ("a", "q", "k")
        assert found["reason"].endswith("The run is waiting: a message on 'answer'")
