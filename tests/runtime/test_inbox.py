"""What waits in an inbox: its limit, what always gets through it, and keys over many generations of
a run.
"""

from __future__ import annotations

import asyncio
from typing import Any

import apsw
import pytest

from perdure import Engine, InboxFull, Limits, continue_as, receive, send, step, workflow
from tests.runtime.support import awaited, reached, until


@workflow
async def answer() -> int:
    return await receive("answer", int)


@workflow
async def parent() -> int:
    return await answer.options(id="kid")()


@workflow
async def counts(left: int) -> int:
    total = 0
    for _ in range(left):
        total += await receive("n", int)
    return total


async def fill(engine: Engine, run_id: str, value: Any, channel: str) -> int:
    """Send until the inbox is full; how many were taken."""
    for n in range(100):
        try:
            await engine.send(run_id, value, channel=channel)
        except InboxFull:
            return n
    raise AssertionError("it is never full")


@pytest.mark.parametrize(
    ("value", "channel"),
    [(1, "other"), ("no number", "answer")],
    ids=["nobody receives", "does not fit"],
)
@awaited
async def test_messages_that_are_not_received_are_refused_to_the_sender_and_block_no_run(
    db: str, value: Any, channel: str
) -> None:
    """They counted only until they were in the history, which then grew up to its own limit, and
    the run was blocked.
    """
    limits = Limits(inbox_rows_max=5, history_rows_max=30)
    async with Engine(db, workflows=[answer], limits=limits) as engine:
        run = await engine.start(answer(), id="a")
        await reached(run, "waiting")
        assert await fill(engine, "a", value, channel) == 5
        await asyncio.sleep(0)
    async with Engine(
        db, workflows=[answer], limits=limits
    ) as engine:  # another one counts the same
        assert await fill(engine, "a", value, channel) == 0
        await reached(
            await engine.get("a"), "waiting"
        )  # it was looked at again: other code might have received them
        await engine.cancel("a")
        await reached(await engine.get("a"), "cancelled")


@awaited
async def test_what_is_received_makes_room(db: str) -> None:
    go = asyncio.Event()

    @step
    async def held() -> None:
        await go.wait()

    @workflow
    async def late(total: int) -> int:
        await held()
        return sum([await receive("n", int) for _ in range(total)])

    async with Engine(db, workflows=[late, counts], limits=Limits(inbox_rows_max=3)) as engine:
        at_once = await engine.start(counts(20), id="c")
        for _ in range(20):
            await at_once.send(1, channel="n")
        assert await at_once.result() == 20
        run = await engine.start(late(6), id="l")
        assert await fill(engine, "l", 1, "n") == 3
        go.set()
        await reached(run, "waiting")
        for _ in range(3):
            await run.send(2, channel="n")
        assert await run.result() == 9


@awaited
async def test_a_full_inbox_refuses_no_cancel(db: str) -> None:
    """The children of a cancelled parent stayed alive when their inbox was full."""
    async with Engine(db, workflows=[parent, answer], limits=Limits(inbox_rows_max=2)) as engine:
        run = await engine.start(parent(), id="p")
        await until(lambda: engine._store.has_run("kid"))
        await engine.pause("kid")
        await fill(engine, "kid", 1, "progress")
        await fill(engine, "p", 1, "progress")
        for _ in range(3):
            await run.cancel()
        assert await reached(await engine.get("kid"), "cancelled")
        await reached(run, "cancelled")
        await engine.cancel("kid")  # it is what was asked for already


@awaited
async def test_the_outcome_of_a_child_gets_through_a_full_inbox(db: str) -> None:
    async with Engine(db, workflows=[parent, answer], limits=Limits(inbox_rows_max=2)) as engine:
        run = await engine.start(parent(), id="p")
        await until(lambda: engine._store.has_run("kid"))
        assert await fill(engine, "p", 1, "progress") == 2
        await engine.send("kid", 7, channel="answer")
        assert await run.result() == 7


@awaited
async def test_a_sender_in_a_workflow_gets_inbox_full(db: str) -> None:
    @workflow
    async def floods() -> int:
        for n in range(10):
            try:
                await send("a", n, channel="other")
            except InboxFull:
                return n
        return -1

    async with Engine(db, workflows=[floods, answer], limits=Limits(inbox_rows_max=4)) as engine:
        await reached(await engine.start(answer(), id="a"), "waiting")
        assert await engine.run(floods()) == 4


@awaited
async def test_repeated_cancels_of_a_run_that_can_not_take_them_are_one(db: str) -> None:
    async with Engine(db, workflows=[answer]) as engine:
        await reached(await engine.start(answer(), id="a"), "waiting")
    async with Engine(db) as client:  # nobody here knows the workflow
        for _ in range(5):
            await client.cancel("a")
    assert apsw.Connection(db).execute(
        "SELECT count(*) FROM inbox WHERE kind = 'cancel'"
    ).fetchall() == [(1,)]
    async with Engine(db, workflows=[answer]) as engine:
        await reached(await engine.get("a"), "cancelled")


@workflow
async def generations(total: int, left: int) -> int:
    total += await receive("n", int)
    return total if left == 1 else continue_as(generations(total, left - 1))


@awaited
async def test_a_key_arrives_once_in_all_generations_and_none_is_moved(db: str) -> None:
    """Each generation moved the keys of all before it to itself, so that a long life got slower and
    slower.
    """
    count = 30
    async with Engine(db, workflows=[generations], limits=Limits(inbox_rows_max=count)) as engine:
        run = await engine.start(generations(0, count), id="g")
        for n in range(count):
            for again in range(n, -1, -9):
                await engine.send(
                    "g", n, channel="n", key=f"key-{again}" if again != n else f"key-{n}"
                )
        assert await run.result() == sum(range(count))
        await engine.send("g", 1, channel="n", key="key-0")  # known, also after the end
    assert apsw.Connection(db).execute(
        "SELECT count(*) FROM inbox WHERE key IS NOT NULL"
    ).fetchall() == [(count,)]
    ids = [run_id for (run_id,) in apsw.Connection(db).execute("SELECT id FROM run ORDER BY run")]
    assert ids == [f"g~{n}" for n in range(1, count)] + ["g"]


@awaited
async def test_messages_that_wait_for_the_next_generation_keep_their_order_and_their_keys(
    db: str,
) -> None:
    async with Engine(db, workflows=[generations]) as engine:
        run = await engine.start(generations(0, 3), id="g")
        await engine.pause("g")
        for n in (1, 10, 100):
            await engine.send("g", n, channel="n", key=f"k{n}")
            await engine.send("g", 5000, channel="n", key=f"k{n}")
        await engine.resume("g")
        assert await run.result() == 111
