"""A run's end is the last row of its history, and what comes too late goes to nobody or to the
successor.
"""

from __future__ import annotations

from typing import Any

import pytest

from perdure import Engine, continue_as, receive, workflow
from tests.runtime.support import awaited, kinds


@workflow
async def takes_one() -> int:
    return await receive("numbers", int)


@workflow
async def takes_one_each(total: int = 0, rounds: int = 2) -> int:
    total += await receive("numbers", int)
    if rounds:
        continue_as(takes_one_each(total, rounds - 1))
    return total


@pytest.mark.parametrize(
    ("call", "expected"), [(takes_one(), 1), (takes_one_each(), 6)], ids=["ends", "goes on"]
)
@awaited
async def test_messages_that_wait_behind_the_last_one_are_not_rows_behind_the_end(
    db: str, call: Any, expected: int
) -> None:
    async with Engine(db, execute=False) as client:
        await client.start(call, id="one")
        for number in (1, 2, 3):
            await client.send("one", number, channel="numbers")
    async with Engine(db, workflows=[takes_one, takes_one_each]) as engine:
        assert await (await engine.get("one")).result() == expected
        for run in await engine.runs():
            assert kinds(await engine.history(run.id))[-1] == "finish", run.id
            assert kinds(await engine.history(run.id)).count("message") == 1, run.id
