"""Guarantee 2: a run is blocked when its process died three times over it and the run got on in
none of these lives.

A death is played: the engine loses its store in the middle of a step, and its worker is reported
dead, as the next process would.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure import Engine, Limits, Retry, RunBlocked, StepFailed, receive, step, workflow
from perdure.errors import StoreUnavailable
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import Claim, EndWorker, JoinWorker
from tests.runtime.support import awaited, outside

HANGS: asyncio.Event  # set when a life has come to where it dies
deadly = False  # whether the step hangs until the process dies


async def hang() -> None:
    HANGS.set()
    if deadly:
        await asyncio.Event().wait()


@step
async def kills() -> str:
    await hang()
    return "survived"


@step(retry=Retry(attempts=100, delay=0))
async def fails_once_a_life() -> str:
    global failed
    if not failed and deadly:
        failed = True
        raise ValueError("not yet")
    await hang()
    return "survived"


@step(retry=Retry(attempts=1))
async def fails() -> None:
    raise ValueError("never")


@step(on_crash="fail", retry=Retry(attempts=1))
async def gives_up_with_its_process() -> str:
    await hang()
    return "survived"


failed = False


@workflow
async def attempts_end() -> str:
    return await fails_once_a_life()


@workflow
async def steps_fail() -> str:
    while True:
        with contextlib.suppress(StepFailed):
            return await gives_up_with_its_process()
        with contextlib.suppress(StepFailed):
            await fails()


@workflow
async def timers_fire() -> str:
    """In each life a timer fires before the step hangs that the process dies in."""
    while True:
        await asyncio.sleep(0.001)
        with contextlib.suppress(StepFailed):
            return await gives_up_with_its_process()


@workflow
async def stands_still() -> str:
    return await kills()


@workflow
async def gets_messages() -> str:
    told = asyncio.create_task(collect())
    result = await kills()
    told.cancel()
    return result


async def collect() -> None:
    while True:
        await receive("news")


@workflow
async def dies_again_and_again() -> str:
    while True:
        with contextlib.suppress(StepFailed):
            return await gives_up_with_its_process()


ALL: list[Any] = [
    attempts_end,
    steps_fail,
    timers_fire,
    stands_still,
    gets_messages,
    dies_again_and_again,
]


async def lives(
    db: str,
    call: Callable[[], Any],
    number: int,
    before: Callable[[Engine], Awaitable[Any]] | None = None,
) -> list[int]:
    """How many deaths count against the run after each of so many lives."""
    global HANGS, deadly, failed
    counts = []
    for _ in range(number):
        HANGS, deadly, failed = asyncio.Event(), True, False
        async with Engine(
            db, workflows=ALL, close_grace=0, limits=Limits(crashes_max=1_000)
        ) as engine:
            await engine.start(call(), id="r")
            if before is not None:
                await before(engine)
            await HANGS.wait()
            await engine._scheduler.writer.drain()
            worker = engine._scheduler.owner
            engine._scheduler.give_up(StoreUnavailable(db, "the process dies"))
        store = SqliteStore(db, limits=Limits())
        store.write([EndWorker(worker, 1, True, crashes_max=1_000)], True)
        store.close()
        counts += [row["crashes"] for row in outside(db, "SELECT crashes FROM run WHERE id = 'r'")]
    deadly = False
    return counts


@pytest.mark.parametrize(
    "call", [attempts_end, steps_fail, timers_fire], ids=lambda call: call.name
)
@awaited
async def test_every_outcome_of_an_attempt_and_every_timer_starts_the_count_anew(
    db: str, call: Any
) -> None:
    assert await lives(db, call, 4) == [1, 1, 1, 1]
    async with Engine(db, workflows=ALL) as engine:
        assert await (await engine.get("r")).result() == "survived"


@pytest.mark.parametrize("call", [stands_still, dies_again_and_again], ids=lambda call: call.name)
@awaited
async def test_a_death_is_nothing_that_the_run_has_done(db: str, call: Any) -> None:
    """Nor is the failure that it means to a step with on_crash="fail"."""
    assert await lives(db, call, 3) == [1, 2, 3]
    async with Engine(db, workflows=ALL) as engine:
        assert await (await engine.get("r")).result() == "survived"


@awaited
async def test_messages_come_from_outside_and_are_no_progress(db: str) -> None:
    async def send(engine: Engine) -> None:
        await engine.send("r", 1, channel="news")

    assert await lives(db, gets_messages, 3, send) == [1, 2, 3]


@awaited
async def test_a_blocked_run_says_which_command_lets_it_go_on(db: str) -> None:
    await lives(db, stands_still, 2)
    store = SqliteStore(db, limits=Limits())
    store.write([JoinWorker("third", "here", 1, "", 0, 10_000)], True)
    worker = store._db.execute("SELECT max(worker) FROM worker").get
    store.write([Claim(worker, ("stands_still",), 1, 2**60), EndWorker(worker, 1, True)], True)
    store.close()
    async with Engine(db, workflows=ALL) as engine:
        run = await engine.get("r")
        with pytest.raises(
            RunBlocked,
            match=(
                f"the process died 3 times.*recorded nothing in between.*perdure retry r "
                f"--store {db}$"
            ),
        ):
            await run.result()
        assert [(one.id, one.by) for one in await engine.blocked("r")] == [("r", "crash_loop")]
        await engine.retry("r")
        assert await run.result() == "survived"
