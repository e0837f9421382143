"""What is called from the event loop takes some milliseconds at a time, however much there is of
it.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from pathlib import Path
from typing import Any

import pytest

from perdure import Engine, receive, step, workflow
from perdure.process.slices import SLICE_S, Slices
from tests.runtime.support import awaited, until

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="nobody")


@pytest.fixture
def db(tmp_path: Path) -> str:
    return str(tmp_path / "perdure.db")


@awaited
async def test_calls_come_in_their_order_and_the_loop_gets_its_turn_between_them() -> None:
    loop = asyncio.get_running_loop()
    slices, seen = Slices(loop), list[Any]()
    NAME.set("somebody")

    def call(number: int) -> None:
        seen.append(number)
        assert NAME.get() == "nobody"
        if number == 0:
            slices.add(call, 4)
            loop.call_soon(seen.append, "the loop")
            time.sleep(2 * SLICE_S)

    for number in range(4):
        slices.add(call, number)
    assert (seen, slices.busy) == ([], True)
    await until(lambda: not slices.busy)
    assert seen == [0, "the loop", 1, 2, 3, 4]


@awaited
async def test_an_error_of_one_call_leaves_the_others_their_turn() -> None:
    loop, errors, seen = asyncio.get_running_loop(), list[Any](), list[int]()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    slices = Slices(loop)
    for number in range(3):
        slices.add(lambda number: seen.append(1 // number), number)
    await until(lambda: not slices.busy)
    assert seen == [1, 0]
    assert [type(error) for error in errors] == [ZeroDivisionError]


@step
async def nothing() -> int:
    return 1


@workflow
async def slow_to_begin() -> int:
    sum(range(500_000))  # some ten milliseconds of the workflow's own work
    return await nothing()


@workflow
async def hears(n: int) -> int:
    for _ in range(n):
        await receive("x", int)
        sum(range(500_000))
    return n


async def count_turns(work: Any) -> int:
    """How often the event loop got its turn while something was done."""
    turns, task = 0, asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(0.001)
        turns += 1
    await task
    return turns


@awaited
async def test_a_burst_of_starts_does_not_hold_up_the_loop(db: str) -> None:
    async with Engine(db, workflows=[slow_to_begin]) as engine:
        runs = asyncio.gather(*(engine.run(slow_to_begin(), id=f"r{n}") for n in range(60)))
        assert await count_turns(runs) > 3  # in one callback it would be one


@awaited
async def test_a_full_inbox_does_not_hold_up_the_loop(db: str) -> None:
    async with Engine(db, execute=False) as engine:
        await engine.start(hears(60), id="h")
        for n in range(60):
            await engine.send("h", n, channel="x")
    async with Engine(db, workflows=[hears]) as engine:
        run = await engine.get("h")
        assert await count_turns(run.result()) > 5
