"""Starts that are put off: the last arguments within the pause win, and the run begins once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import DefinitionError, Engine, RunExists, SyncEngine, workflow
from tests.runtime.support import awaited, executed_again, outside, until

LONG = 600.0


@workflow
async def index(text: str) -> str:
    return text


@workflow
async def other(text: str) -> str:
    return text


def due_in_ms(db: str) -> int:
    """For how much longer than its start the only run was put off."""
    (row,) = outside(db, "SELECT due_ms - created_ms AS ms FROM run")
    return int(row["ms"])


@awaited
async def test_the_last_arguments_within_the_pause_win(db: str) -> None:
    async with Engine(db, workflows=[index]) as engine:
        for text in ("one", "two", "three"):
            run = await engine.start(index(text), id="i", debounce=0.3)
        assert await run.result() == "three"
        assert len(await engine.runs()) == 1


@awaited
async def test_each_start_puts_it_off_up_to_the_bound(db: str) -> None:
    async with Engine(db, execute=False) as client:
        await client.start(index("a"), id="i", debounce=LONG, debounce_max=2 * LONG)
        assert due_in_ms(db) == 600_000
        await client.start(index("b"), id="i", debounce=900.0)
        assert due_in_ms(db) >= 900_000
        await client.start(index("c"), id="i", debounce=timedelta(hours=9))
        assert due_in_ms(db) == 1_200_000
        info = await client.info("i")
        assert (info.status, info.args) == ("pending", {"text": "c"})


@awaited
async def test_large_arguments_leave_nothing_of_those_before(db: str) -> None:
    async with Engine(db, execute=False) as client:
        for letter in "abc":
            await client.start(index(letter * 50_000), id="i", debounce=LONG)
        (stored,) = outside(db, "SELECT sum(length(body)) AS n FROM chunk")
        assert stored["n"] < 100_000
        await client.start(index("short"), id="i", debounce=0.001)
    assert outside(db, "SELECT 1 FROM chunk") == []
    assert await executed_again(db, [index], "i") == "short"


@awaited
async def test_after_it_began_it_is_a_start_as_any(db: str) -> None:
    async with Engine(db, workflows=[index, other]) as engine:
        run = await engine.start(index("one"), id="i", debounce=0.01)
        assert await run.result() == "one"
        same = await engine.start(index("one"), id="i", debounce=LONG)
        assert await same.result() == "one"
        with pytest.raises(RunExists, match=r"has begun .* Start the next burst under another id"):
            await engine.start(index("two"), id="i", debounce=LONG)
        with pytest.raises(RunExists, match="it has other arguments"):
            await engine.start(index("two"), id="i")


@awaited
async def test_only_what_was_put_off_is_put_off_again(db: str) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    async with Engine(db, workflows=[index, other]) as engine:
        await engine.start(index("one"), id="at", at=later)
        with pytest.raises(RunExists, match="it has other arguments"):
            await engine.start(index("two"), id="at", debounce=1)
        await engine.start(index("one"), id="i", debounce=LONG)
        with pytest.raises(RunExists, match="workflow"):
            await engine.start(other("two"), id="i", debounce=LONG)
        with pytest.raises(RunExists):
            await engine.start(index("two"), id="i")  # a start without a pause
        assert (await engine.info("i")).args == {"text": "one"}


@awaited
async def test_it_can_be_cancelled_and_paused_before_it_begins(db: str) -> None:
    async with Engine(db, workflows=[index]) as engine:
        run = await engine.start(index("one"), id="i", debounce=LONG)
        await engine.pause("i")
        await engine.start(index("two"), id="i", debounce=0.001)
        await engine.resume("i")
        assert await run.result() == "two"
        gone = await engine.start(index("one"), id="j", debounce=LONG)
        await gone.cancel()
        assert await gone.status() == "cancelled"


@awaited
async def test_many_processes_start_and_one_run_begins(db: str) -> None:
    """Two engines execute, and both start while the pause is coming to its end."""
    began: list[str] = []

    @workflow(name="once")
    async def once(text: str) -> str:
        began.append(text)
        return text

    async def starts(engine: Engine, name: str) -> list[str]:
        given = []
        for i in range(20):
            try:
                await engine.start(once(f"{name}{i}"), id="i", debounce=0.02, debounce_max=0.1)
            except RunExists:
                break
            given.append(f"{name}{i}")
            await asyncio.sleep(0)
        return given

    async with Engine(db, workflows=[once]) as one, Engine(db, workflows=[once]) as two:
        given = await asyncio.gather(starts(one, "a"), starts(two, "b"))
        result = await (await one.get("i")).result()
        assert result in (given[0][-1], given[1][-1])
        await until(lambda: began)
        assert set(began) == {result}
    assert len(outside(db, "SELECT 1 FROM run")) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"debounce": 1}, "needs an id"),
        ({"debounce": 0, "id": "i"}, "debounce must be a positive"),
        ({"debounce": "1", "id": "i"}, "debounce must be a positive"),
        ({"debounce_max": 1, "id": "i"}, "bounds debounce"),
        ({"debounce": 2, "debounce_max": 1, "id": "i"}, "is less than debounce"),
        ({"debounce": 2, "id": "i", "at": datetime(2030, 1, 1, tzinfo=UTC)}, "either at"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_can_not_be_is_refused(db: str, options: dict[str, Any], message: str) -> None:
    with SyncEngine(db, workflows=[index]) as engine:
        with pytest.raises(DefinitionError, match=message):
            engine.start(index("x"), **options)
        assert engine.counts() == {}
