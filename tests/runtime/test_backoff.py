"""A step that waits for its next attempt holds nothing: no place, no thread, no memory, not the end
of its engine.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from perdure import Engine, Limits, Retry, StepFailed, current_step, receive, step, workflow
from perdure.runtime.backoff import Backoff
from perdure.runtime.info import RunInfo
from perdure.runtime.plans import PendingAttempt
from tests.runtime.support import awaited, kinds, outside, reached, until

SLOW = Retry(attempts=5, delay=3_600, max_delay=3_600, jitter=False)
SOON = Retry(attempts=3, delay=0.05, jitter=False)

tried: list[int] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    tried.clear()


@step(retry=SLOW)
async def down() -> None:
    raise ConnectionError("503")


@step(retry=SLOW)
def down_in_a_thread() -> None:
    raise ConnectionError("503")


@step(retry=SLOW, transactional=True)
def down_in_a_transaction(db: object) -> None:
    raise ConnectionError("503")


@step
def quick() -> int:
    return 1


@workflow
async def waits(which: int) -> None:
    await (down, down_in_a_thread, down_in_a_transaction)[which]()


@workflow
async def other() -> int:
    return await quick()


@step(retry=SOON, on_crash="ask")
async def third_time() -> list[int]:
    tried.append(current_step().attempt)
    if len(tried) < 3:
        raise ConnectionError(f"try {len(tried)}")
    return tried


@workflow
async def comes_back() -> list[int]:
    return await third_time()


async def backing_off(engine: Engine, run_id: str) -> RunInfo:
    """The run, once it waits for an attempt and its file says so."""
    run = await engine.get(run_id)
    await reached(run, "waiting")
    return await run.info()


@awaited
@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_run_in_back_off_is_waiting_and_says_for_which_attempt(db: str, which: int) -> None:
    async with Engine(db, workflows=[waits]) as engine:
        await engine.start(waits(which), id="w")
        info = await backing_off(engine, "w")
        (item,) = info.waiting_for
        due = datetime.fromtimestamp(item["again_ms"] / 1000, UTC)
        assert (item["attempt"], item["attempts"], item["seq"]) == (2, 5, 2)
        assert info.due_at == due
        assert timedelta(minutes=59) < due - datetime.now(UTC) <= timedelta(hours=1)
        assert (
            info.reason == f"attempt 2 of 5 of step {item['step']} at {due:%Y-%m-%d %H:%M:%S} UTC"
        )
        assert (await engine.progress("w")).waiting_for == [item]


@awaited
async def test_it_keeps_no_place_at_the_gates(db: str) -> None:
    async with Engine(
        db, workflows=[waits, other], limits=Limits(threads_max=1, steps_max=1)
    ) as engine:
        for which in (0, 1, 2, 0, 1, 2):
            await engine.start(waits(which), id=f"w-{which}-{len(await engine.runs())}")
        for row in await engine.runs(workflow="waits"):
            await backing_off(engine, row.id)
        assert await engine.run(other()) == 1


@awaited
async def test_more_runs_than_may_be_loaded_wait_for_their_attempts(db: str) -> None:
    async with Engine(
        db, workflows=[waits, other], limits=Limits(runs_loaded_max=4, runs_parked_max=2)
    ) as engine:
        for number in range(12):
            await engine.start(waits(0), id=f"w-{number}")
        for number in range(12):
            await backing_off(engine, f"w-{number}")
        assert await engine.run(other()) == 1


@awaited
async def test_an_engine_closes_at_once_and_the_next_one_keeps_to_the_date(db: str) -> None:
    async with Engine(db, workflows=[waits], close_grace=3_600) as engine:
        await engine.start(waits(0), id="w")
        first = await backing_off(engine, "w")
    async with Engine(db, workflows=[waits], close_grace=3_600) as engine:
        again = await backing_off(engine, "w")
        assert [event.attempt for event in await engine.history("w") if event.error] == [1]
    assert (again.due_at, again.waiting_for) == (first.due_at, first.waiting_for)


@awaited
async def test_attempts_and_failures_are_counted_over_engines_and_evictions(db: str) -> None:
    async with Engine(db, workflows=[comes_back], limits=Limits(runs_parked_max=0)) as engine:
        run = await engine.start(comes_back(), id="c")
        assert await run.result() == [1, 2, 3]
        notes = [event for event in await run.history() if event.error]
        kinds_of_it = kinds(await run.history())
    assert [(note.attempt, note.error and note.error["message"]) for note in notes] == [
        (1, "try 1"),
        (2, "try 2"),
    ]
    assert kinds_of_it[-2:] == ["completed", "finish"]


@awaited
async def test_a_failed_attempt_says_when_it_began_and_how_long_it_took(db: str) -> None:
    @step(retry=Retry(attempts=2, delay=0))
    async def slow(path: str) -> None:
        await asyncio.sleep(0.02)
        raise ConnectionError("503")

    @workflow
    async def main(path: str) -> str:
        try:
            await slow(path)
        except StepFailed as error:
            return str(error)
        return ""

    before = datetime.now(UTC)
    async with Engine(db, workflows=[main]) as engine:
        run = await engine.start(main("x"), id="m")
        assert "after 2 attempts" in await run.result()
        (note,) = [event for event in await run.history() if event.kind == "attempt"]
    assert note.took_ms is not None and note.took_ms >= 15
    assert note.began_at is not None
    assert (
        before - timedelta(milliseconds=2) <= note.began_at <= note.at - timedelta(milliseconds=15)
    )
    (row,) = outside(db, "SELECT data, took_ms FROM perdure_events WHERE kind = 'attempt'")
    assert json.loads(row["data"])["began_ms"] + row["took_ms"] <= round(note.at.timestamp() * 1000)


@awaited
async def test_cancel_ends_a_back_off_at_once(db: str) -> None:
    async with Engine(db, workflows=[waits]) as engine:
        for which in (0, 2):
            run = await engine.start(waits(which), id=f"w-{which}")
            await backing_off(engine, run.id)
            await run.cancel()
            await reached(run, "cancelled")


@awaited
async def test_pause_and_resume_keep_the_attempt_and_its_date(db: str) -> None:
    async with Engine(db, workflows=[waits]) as engine:
        run = await engine.start(waits(0), id="w")
        first = await backing_off(engine, "w")
        await engine.pause("w")
        await until(lambda: not engine._scheduler.memory.active)
        assert await run.status() == "paused"
        await engine.resume("w")
        assert (await backing_off(engine, "w")).waiting_for == first.waiting_for


@awaited
async def test_one_step_in_back_off_does_not_hold_up_the_others_nor_messages(db: str) -> None:
    @workflow
    async def both() -> int:
        task = asyncio.create_task(down())
        found = await receive("go", int) + await quick()
        task.cancel()
        return found

    async with Engine(db, workflows=[both]) as engine:
        run = await engine.start(both(), id="b")
        info = await backing_off(engine, "b")
        assert [max(item) for item in info.waiting_for] == ["step", "type"]
        await run.send(4, channel="go")
        assert await run.result() == 5


@awaited
async def test_attempts_without_a_pause_each_write_their_failure_before_the_next(
    db: str,
) -> None:
    noted: list[int] = []

    @step(retry=Retry(attempts=4, delay=0))
    def look() -> int:
        noted.append(len(outside(db, "SELECT 1 FROM perdure_events WHERE kind = 'attempt'")))
        if len(noted) < 4:
            raise ConnectionError("no")
        return len(noted)

    @workflow
    async def main() -> int:
        return await look()

    async with Engine(db, workflows=[main]) as engine:
        run = await engine.start(main(), id="m")
        assert await run.result() == 4
        assert "waiting" not in {event.name for event in await run.history()}
    assert noted == [0, 1, 2, 3]


@awaited
async def test_notes_count_for_the_length_of_a_history(db: str) -> None:
    @step(retry=Retry(attempts=10**6, delay=0))
    async def poll() -> int:
        if len(tried) < 30:
            tried.append(current_step().attempt)
            raise ConnectionError("not ready")
        return current_step().attempt

    @workflow
    async def main() -> int:
        return await poll()

    async with Engine(db, workflows=[main], limits=Limits(history_rows_max=20)) as engine:
        run = await engine.start(main(), id="m")
        await reached(run, "blocked")
        info = await run.info()
        assert info.history_rows <= 22
        assert "history_rows_max" in (info.reason or "")
    async with Engine(db, workflows=[main], limits=Limits(history_rows_max=100)) as engine:
        await engine.retry("m")
        assert await (await engine.get("m")).result() == 31
    assert tried == list(range(1, 31))


def test_what_was_dropped_or_put_off_anew_is_not_due() -> None:
    from perdure.core.events import Command

    backoff = Backoff()
    for seq, again_ms in ((1, 50), (2, 10), (3, 30)):
        backoff.add(PendingAttempt(Command(seq, "step", name="s"), 2, 1, again_ms))
    backoff.take(2)
    backoff.add(PendingAttempt(backoff.steps[1].command, 3, 2, 60))
    assert backoff.due_ms() == 30
    assert [step.command.seq for step in backoff.take_due(59)] == [3]
    assert backoff.due_ms() == 60
    assert [step.attempt for step in backoff.take_due(60)] == [3]
    assert backoff.due_ms() is None
