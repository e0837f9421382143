"""Streams of runs that go on under one id: readers that come back or come late, and what a retry or
a fork makes of the items.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import (
    BadPosition,
    DefinitionError,
    Engine,
    Run,
    RunFailed,
    continue_as,
    emit,
    receive,
    step,
    workflow,
)
from tests.runtime.support import awaited, reached

healthy = True


@step
def speak(n: int) -> None:
    emit("words", f"step {n}")


@workflow
async def talks(generation: int, last: int) -> str:
    await receive("go", bool)
    emit("words", f"run {generation}")
    emit("asides", generation)
    await speak(generation)
    if generation < last:
        continue_as(talks(generation + 1, last))
    return "done"


@step(retry=None)
def fails_while_ill() -> None:
    if not healthy:
        emit("words", "ill")
        raise ValueError("ill")


@workflow
async def is_mended(then_on: bool) -> None:
    if not then_on:
        await receive("go", bool)
    emit("words", "before")
    await speak(1)
    try:
        await fails_while_ill()
    finally:
        emit("words", "after")
    if then_on:
        continue_as(is_mended(False))


ALL: list[Any] = [talks, is_mended]


async def read(run: Run[Any], after: int = 0, name: str = "words") -> list[tuple[int, Any]]:
    return [one async for one in run.stream_with_positions(name, after=after)]


def items(found: list[tuple[int, Any]]) -> list[Any]:
    return [item for _, item in found]


async def has_talked(engine: Engine, last: int) -> Run[Any]:
    """A run of some generations that has come to its end."""
    run = await engine.start(talks(1, last), id="t")
    for _ in range(last):
        await run.send(True, channel="go")
    await run.result()
    return run


@awaited
async def test_a_reader_gets_what_it_has_not_seen_from_every_position_also_in_another_process(
    db: str,
) -> None:
    async with Engine(db, workflows=ALL) as engine, Engine(db, execute=False) as client:
        run = await has_talked(engine, 4)
        whole = await read(run)
        assert items(whole) == [f"{what} {n}" for n in range(1, 5) for what in ("run", "step")]
        theirs = await client.get("t")
        for number, (position, _) in enumerate(whole, 1):
            assert await read(run, position) == await read(theirs, position) == whole[number:]
        assert [item async for item in theirs.stream("asides")] == [1, 2, 3, 4]


@awaited
async def test_a_reader_that_left_in_the_first_generation_comes_back_in_a_later_one(
    db: str,
) -> None:
    async with Engine(db, workflows=ALL) as engine, Engine(db, execute=False) as client:
        run = await engine.start(talks(1, 3), id="t")
        await run.send(True, channel="go")
        reader = run.stream_with_positions("words")
        position, first = await anext(reader)
        await reader.aclose()  # type: ignore[attr-defined]
        await run.send(True, channel="go")
        await reached(run, "waiting")
        live = asyncio.ensure_future(read(await client.get("t"), position))
        await run.send(True, channel="go")
        await run.result()
        assert (first, items(await live)) == (
            "run 1",
            ["step 1", "run 2", "step 2", "run 3", "step 3"],
        )


@awaited
async def test_an_earlier_generation_has_its_own_items(db: str) -> None:
    async with Engine(db, workflows=ALL) as engine:
        run = await has_talked(engine, 3)
        first, second = await read(await engine.get("t~1")), await read(await engine.get("t~2"))
        assert (items(first), items(second)) == (["run 1", "step 1"], ["run 2", "step 2"])
        assert await read(await engine.get("t~2"), first[-1][0]) == second
        assert [*first, *second] == (await read(run))[:4]


@pytest.mark.parametrize("then_on", [False, True], ids=["ends", "goes on"])
@awaited
async def test_a_retry_keeps_items_with_their_positions_and_a_reader_sees_none_twice(
    db: str, then_on: bool
) -> None:
    global healthy
    healthy = False
    async with Engine(db, workflows=ALL) as engine:
        run = await engine.start(is_mended(then_on), id="m")
        await run.send(True, channel="go")
        with pytest.raises(RunFailed):
            await run.result()
        seen = await read(run)
        assert items(seen) == ["before", "step 1", "ill", "after"]
        healthy = True
        await engine.retry("m")
        await run.result()
        again = ["before", "step 1", "after"] if then_on else []
        whole = await read(run)
        assert items(whole) == [
            "before",
            "step 1",
            "ill",
            "after",
            *again,
        ]  # the row of the step that failed is kept
        assert whole[:3] == seen[:3]
        assert items(await read(run, seen[-1][0])) == ["after", *again]
        assert await read(run, seen[1][0]) == whole[2:]
        assert seen[-1] in await read(await engine.get("m~1"))


@awaited
async def test_a_successor_that_is_retried_is_read_behind_what_went_before_it(db: str) -> None:
    global healthy
    healthy = True
    async with Engine(db, workflows=ALL) as engine:
        run = await engine.start(is_mended(True), id="m")
        live = asyncio.ensure_future(read(run))
        await reached(run, "waiting")
        healthy = False
        await run.send(True, channel="go")
        with pytest.raises(RunFailed):
            await run.result()
        seen = await live
        healthy = True
        await engine.retry("m")
        await run.result()
        whole = ["before", "step 1", "after"]
        assert items(await read(run)) == [*whole, "before", "step 1", "ill", "after"]
        assert (items(seen), items(await read(run, seen[-1][0]))) == (
            [*whole, "before", "step 1", "ill", "after"],
            ["after"],
        )


@awaited
async def test_a_fork_has_the_items_of_the_rows_that_it_keeps_at_positions_of_its_own(
    db: str,
) -> None:
    async with Engine(db, workflows=ALL) as engine:
        run = await has_talked(engine, 1)
        step_row = next(event.seq for event in await run.history() if event.kind == "step")
        fork = await engine.fork("t", step_row, new_id="f")
        await fork.result()
        theirs, ours = await read(run), await read(fork)
        assert items(ours) == ["run 1", "step 1", "step 1"][: len(ours)]
        assert not {position for position, _ in ours} & {position for position, _ in theirs}
        with pytest.raises(BadPosition, match="it is one of stream 'words' of run 't'"):
            await read(fork, theirs[0][0])


@awaited
async def test_a_position_that_is_none_of_the_stream_is_refused(db: str) -> None:
    async with Engine(db, workflows=ALL) as engine:
        run = await has_talked(engine, 1)
        ((aside, _),) = await read(run, name="asides")
        with pytest.raises(
            BadPosition,
            match=r"'words' of run 't' can't be read on.*of stream 'asides'.*or 0 for all",
        ):
            await read(run, aside)
        for position in (1_000, 2**53):
            with pytest.raises(BadPosition, match="no item has it"):
                await read(run, position)
        with pytest.raises(DefinitionError, match="after"):
            await read(run, -1)
