"""Room for runs in memory: its bound holds whatever comes at once, and with the smallest bounds
everything still completes.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import Engine, Limits, Retry, continue_as, receive, send, start, step, workflow
from tests.runtime.support import awaited

tries: dict[str, int] = {}


@step
async def add(a: int, b: int) -> int:
    return a + b


@step
def add_in_a_thread(a: int, b: int) -> int:
    return a + b


@step(transactional=True)
def add_in_a_transaction(db: object, a: int, b: int) -> int:
    return a + b


@step(retry=Retry(attempts=3, delay=0.01))
async def second_time(key: str) -> int:
    tries[key] = tries.get(key, 0) + 1
    if tries[key] < 2:
        raise ConnectionError("once")
    return 1


@workflow
async def leaf(n: int) -> int:
    await asyncio.sleep(0.005)
    return await add(n, 1)


@workflow
async def branch(n: int) -> int:
    found = await asyncio.gather(leaf(n), leaf(n + 1))
    return sum(found)


@workflow
async def tree() -> int:
    return sum(await asyncio.gather(branch(0), branch(10), add_in_a_thread(1, 2)))


@workflow
async def three_deep() -> int:
    return await branch(1) + await add_in_a_transaction(1, 1)


@workflow
async def timers() -> int:
    for _ in range(3):
        await asyncio.sleep(0.005)
        await add(1, 1)
    return 3


@workflow
async def again(key: str) -> int:
    return await second_time(key) + sum(
        await asyncio.gather(second_time(key + "a"), second_time(key + "b"))
    )


@workflow
async def rounds(n: int) -> int:
    await add(n, 1)
    return n if n >= 3 else continue_as(rounds(n + 1))


@workflow
async def listens() -> int:
    return sum([await receive("n", int) for _ in range(3)])


@workflow
async def talks() -> int:
    await start(listens(), id="listener")
    for n in range(3):
        await send("listener", n, channel="n")
        await asyncio.sleep(0.002)
    return 3


WORKFLOWS: list[Any] = [leaf, branch, tree, three_deep, timers, again, rounds, listens, talks]


@awaited
@pytest.mark.parametrize("loaded", [1, 2, 3])
@pytest.mark.parametrize("parked", [0, 1, 2])
async def test_everything_completes_within_the_smallest_bounds(
    db: str, loaded: int, parked: int
) -> None:
    tries.clear()
    limits = Limits(runs_loaded_max=loaded, runs_parked_max=parked, steps_max=1, threads_max=1)
    calls = [
        (tree(), 29),
        (three_deep(), 7),
        (timers(), 3),
        (again("x"), 3),
        (again("y"), 3),
        (rounds(0), 3),
        (talks(), 3),
    ]
    async with Engine(db, workflows=WORKFLOWS, limits=limits) as engine:
        found = await asyncio.gather(*(engine.run(call) for call, _ in calls))
        assert found == [expected for _, expected in calls]
        assert await (await engine.get("listener")).result() == 3


@workflow
async def waits(n: int) -> int:
    return await receive("go", int)


@workflow
async def family(n: int) -> int:
    return len(await asyncio.gather(*(waits(i) for i in range(n))))


@awaited
async def test_no_more_runs_are_loaded_than_may_be(db: str) -> None:
    most = 0

    async with Engine(
        db, workflows=[waits, family], limits=Limits(runs_loaded_max=20, runs_parked_max=10)
    ) as engine:
        scheduler = engine._scheduler
        loop = asyncio.get_running_loop()

        def look() -> None:
            nonlocal most
            most = max(most, len(scheduler.memory.active) + len(scheduler.memory.unwritten))
            if not ended.done():
                loop.call_soon(look)

        ended: asyncio.Future[None] = loop.create_future()
        look()
        runs = await asyncio.gather(*(engine.start(waits(n), id=f"w-{n}") for n in range(200)))
        parent = await engine.start(family(200), id="f")
        while (  # noqa: ASYNC110
            len(
                children := [
                    row
                    for row in await engine.runs(limit=1000)
                    if row.parent and row.status == "waiting"
                ]
            )
            < 200
        ):
            await asyncio.sleep(0.01)
        for row in children:
            await engine.send(row.id, 1, channel="go")
        assert await parent.result() == 200
        for run in runs:
            await run.send(1, channel="go")
        assert [await run.result() for run in runs] == [1] * 200
        ended.set_result(None)
    assert most <= 20
