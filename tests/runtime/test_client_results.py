"""A client gets the class that the workflow says, as the engine does, however it has come to the
run; ids are checked where given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from perdure import BadName, Engine, SyncEngine, continue_as, receive, send, start, step, workflow
from tests.runtime.support import awaited, reached


@dataclass
class Invoice:
    total: int


@step
async def price(n: int) -> int:
    return n


@workflow
async def bill(n: int) -> Invoice:
    return Invoice(await price(n))


@workflow
async def asks(n: int) -> Invoice:
    return await bill(n) if await receive("go", bool) else Invoice(0)


@workflow
async def later(n: int) -> Invoice:
    return Invoice(n)


@workflow
async def goes_on(n: int) -> None:
    continue_as(later(n))


@awaited
async def test_every_way_to_a_result_gives_the_class(db: str) -> None:
    async with (
        Engine(db, workflows=[bill, asks, goes_on, later]) as engine,
        Engine(db, execute=False) as client,
    ):
        assert await client.run(bill(1), id="a") == Invoice(1)
        assert await (await client.get("a")).result() == Invoice(1)
        assert await (await client.fork("a", at=2, new_id="b")).result() == Invoice(1)
        run = await client.start(asks(2), id="c")
        await run.send(True, channel="go")
        assert await run.result() == Invoice(2)
        assert await (await engine.get("c")).result() == Invoice(2)


@awaited
async def test_a_run_that_goes_on_as_another_workflow_gives_the_class_of_that(db: str) -> None:
    """The client knew the workflow that it had started, and not the one that this goes on as."""
    async with Engine(db, workflows=[goes_on, later]), Engine(db, execute=False) as client:
        found: Any = await client.run(goes_on(3))
        assert found == Invoice(3)


def test_without_an_event_loop(db: str) -> None:
    with SyncEngine(db, workflows=[bill]), SyncEngine(db, execute=False) as client:
        assert client.run(bill(1), id="a") == Invoice(1)
        assert client.start(bill(1), id="a").result() == Invoice(1)
        assert client.get("a").result() == Invoice(1)
        assert client.fork("a", at=2).result() == Invoice(1)


@awaited
async def test_after_a_retry(db: str) -> None:
    fails = True

    @workflow
    async def sometimes(n: int) -> Invoice:
        if fails:
            raise ValueError
        return Invoice(n)

    async with Engine(db, workflows=[sometimes]), Engine(db, execute=False) as client:
        run = await client.start(sometimes(4), id="r")
        await reached(run, "failed")
        fails = False
        await client.retry("r")
        assert await run.result() == Invoice(4)


@pytest.mark.parametrize("wrong", [5, 0, "", b"x", "a~1", "x" * 300, True])
@awaited
async def test_a_wrong_id_is_named_at_its_line(db: str, wrong: Any) -> None:
    """`start(call, id=0)` and `id=""` were taken for no id."""

    @workflow
    async def gives() -> list[str]:
        told = []
        for give in (lambda: start(bill(1), id=wrong), lambda: bill.options(id=wrong)):
            try:
                give()
            except BadName as error:
                told.append(str(error))
        if not isinstance(wrong, str):
            try:
                send(wrong, 1, channel="c")
            except BadName as error:
                told.append(str(error))
        return told

    async with Engine(db, workflows=[gives, bill]) as engine:
        told = await engine.run(gives())
        assert len(told) == 2 + (not isinstance(wrong, str))
        assert all("This can't be a run id" in one for one in told)
    with pytest.raises(BadName):
        bill.options(id=wrong)
