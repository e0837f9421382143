"""Code that no longer fits the histories of its runs is deployed to a real engine, and put right
again.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import (
    Engine,
    Nondeterminism,
    RunBlocked,
    Workflow,
    continue_as,
    receive,
    step,
    workflow,
)
from tests.runtime.support import awaited, executed_again, kinds, reached


@step
async def charge() -> str:
    return "charged"


@workflow
async def order() -> str:
    done = await charge()
    return done if await receive("go", bool) else "nothing"


@workflow(name="order")
async def returns() -> str:
    return "nothing to do"


@workflow(name="order")
async def raises() -> str:
    raise KeyError("a bug of the new version")


@workflow(name="order")
async def goes_on() -> str:
    continue_as(goes_on())


@workflow(name="order")
async def returns_after_the_charge() -> str:
    return await charge()


EARLIER: list[Workflow[[], str]] = [returns, raises, goes_on, returns_after_the_charge]


@pytest.mark.parametrize("changed", EARLIER, ids=lambda one: one.fn.__name__)
@awaited
async def test_code_that_ends_earlier_than_its_history_blocks_and_the_old_code_goes_on(
    db: str, changed: Workflow[[], str]
) -> None:
    """The run was ended for good, as the new code said, although its history had more in it."""
    async with Engine(db, workflows=[order]) as engine:
        run = await engine.start(order(), id="o")
        await reached(run, "waiting")
        await run.send(False, channel="other")  # so that there is a row which no code ever asks for
        while kinds(await run.history()) != ["start", "step", "completed", "message"]:  # noqa: ASYNC110
            await asyncio.sleep(0.003)
    async with Engine(db, workflows=[changed]) as engine:
        await engine.send("o", True, channel="go")
        with pytest.raises(Nondeterminism, match="does not fit the history"):
            await (await engine.get("o")).result()
        assert kinds(await engine.history("o")) == ["start", "step", "completed", "message"]
    assert await executed_again(db, [order], "o") == "charged"


@workflow(name="order")
async def reads_a_file() -> str:
    done = await charge()
    try:
        return Path(__file__).read_text()
    except Exception:
        return done if await receive("go", bool) else "nothing"


@awaited
async def test_a_refusal_that_code_swallows_blocks_the_run_until_the_code_is_right(db: str) -> None:
    async with Engine(db, workflows=[reads_a_file]) as engine:
        run = await engine.start(reads_a_file(), id="o")
        with pytest.raises(
            RunBlocked,
            match=r"(?s)Opening a file\n.*test_new_code\.py:\d+ in reads_a_file\n.*@step",
        ):
            await run.result()
        assert kinds(await run.history()) == ["start", "step", "completed"]
    async with Engine(db, workflows=[reads_a_file]) as engine:
        assert await reached(await engine.get("o"), "blocked")
    async with Engine(db, workflows=[order]) as engine:
        await engine.send("o", True, channel="go")
        assert await (await engine.get("o")).result() == "charged"
        assert kinds(await engine.history("o")) == [
            "start",
            "step",
            "completed",
            "message",
            "finish",
        ]
