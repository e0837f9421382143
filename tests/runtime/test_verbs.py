"""The table of verbs and statuses: what each verb does to a run in each status, from a client and
from its own engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import (
    DefinitionError,
    Engine,
    Nondeterminism,
    RunBlocked,
    RunFinished,
    receive,
    step,
    workflow,
)
from tests.runtime.support import awaited, reached


@step
async def begin() -> None:
    """So that a history has a row that other code does not ask for."""


@workflow(name="flow")
async def flow(how: str) -> str:
    await begin()
    if how == "fails":
        raise ValueError("no")
    return await receive("go", str) if how == "waits" else how


@step
async def other() -> None:
    """Asked for by code that fits no history of `flow`."""


@workflow(name="flow")
async def changed(how: str) -> str:
    await other()
    return how


async def make(db: str, status: str) -> None:
    """Run `r` in a status; no engine has it in memory."""
    how = {"failed": "fails", "completed": "returns"}.get(status, "waits")
    async with Engine(db, workflows=[flow]) as engine:
        at = (
            datetime.now(UTC) + timedelta(hours=1)
            if status in ("pending", "paused, not begun")
            else None
        )
        run = await engine.start(flow(how), id="r", at=at)
        await reached(
            run, "pending" if at else status if status in ("failed", "completed") else "waiting"
        )
        if status.startswith("paused"):
            await engine.pause("r")
        if status == "cancelled":
            await engine.cancel("r")
            await reached(run, "cancelled")
    if status == "blocked" or status == "paused, blocked":
        async with Engine(db, workflows=[changed]) as engine:
            await engine.resume("r") if status == "paused, blocked" else await engine.send(
                "r", "x", channel="other"
            )
            with pytest.raises(Nondeterminism):
                await (await engine.get("r")).result()
            if status == "paused, blocked":
                await engine.pause("r")


STATUSES = (
    "pending",
    "paused, not begun",
    "waiting",
    "paused",
    "paused, blocked",
    "blocked",
    "completed",
    "failed",
    "cancelled",
)
VERBS: dict[str, Callable[[Engine], Awaitable[Any]]] = {
    "send": lambda engine: engine.send("r", "sent", channel="go"),
    "cancel": lambda engine: engine.cancel("r"),
    "pause": lambda engine: engine.pause("r"),
    "resume": lambda engine: engine.resume("r"),
    "retry": lambda engine: engine.retry("r"),
    "resolve": lambda engine: engine.resolve("r", result=1),
}

# What the verb gives (an error, or the status in which an engine with the right code then leaves
# the run).
ENDED = RunFinished
TABLE: dict[str, tuple[Any, ...]] = {
    # pending    paused, not begun  waiting      paused       paused, blocked  blocked
    # completed  failed     cancelled
    "send": (
        "pending",
        "paused",
        "completed",
        "paused",
        "paused",
        "completed",
        ENDED,
        ENDED,
        ENDED,
    ),
    "cancel": (
        "cancelled",
        "cancelled",
        "cancelled",
        "cancelled",
        "cancelled",
        "cancelled",
        ENDED,
        ENDED,
        "cancelled",
    ),
    "pause": ("paused", "paused", "paused", "paused", "paused", "paused", ENDED, ENDED, ENDED),
    "resume": (
        "pending",
        "pending",
        "waiting",
        "waiting",
        "waiting",
        RunBlocked,
        ENDED,
        ENDED,
        ENDED,
    ),
    "retry": (
        "pending",
        "pending",
        "waiting",
        "waiting",
        "waiting",
        "waiting",
        ENDED,
        "failed",
        "waiting",
    ),
    "resolve": (DefinitionError,) * 9,
}
CELLS = [(verb, status, row[i]) for verb, row in TABLE.items() for i, status in enumerate(STATUSES)]


@pytest.mark.parametrize(
    ("verb", "status", "expected"),
    CELLS,
    ids=[f"{verb} a run that is {status}" for verb, status, _ in CELLS],
)
@pytest.mark.parametrize("executes", [False, True], ids=["client", "engine"])
@awaited
async def test_a_verb_in_a_status(
    db: str, verb: str, status: str, expected: Any, executes: bool
) -> None:
    await make(db, status)
    if executes and status == "blocked":
        return  # an engine with the right code takes it up at once
    async with Engine(db, workflows=[flow] if executes else [], execute=executes) as engine:
        if not isinstance(expected, str):
            with pytest.raises(expected):
                await VERBS[verb](engine)
            assert await (await engine.get("r")).status() == status.partition(",")[0]
            return
        await VERBS[verb](engine)
    async with Engine(db, workflows=[flow]) as engine:
        run = await engine.get("r")
        await reached(run, expected)
        await engine.start(flow("returns"), id="last")
        assert (
            await (await engine.get("last")).result() == "returns"
        )  # whatever was due before this has been looked at
        assert await run.status() == expected


@pytest.mark.parametrize("status", ["paused", "paused, blocked"])
@awaited
async def test_what_arrived_while_a_run_was_paused_is_there_when_it_goes_on(
    db: str, status: str
) -> None:
    await make(db, status)
    async with Engine(db, workflows=[flow]) as engine:
        run = await engine.get("r")
        await run.send("sent", channel="go")
        assert await run.status() == "paused"
        await engine.resume("r")
        assert await run.result() == "sent"


@awaited
async def test_a_pause_of_a_blocked_run_holds_over_a_deploy_of_the_right_code(db: str) -> None:
    """It was acknowledged and forgotten: the right code let the run go on."""
    await make(db, "paused, blocked")
    async with Engine(db, workflows=[flow]) as engine:
        await engine.run(flow("returns"))
        info = await engine.info("r")
        assert (info.status, "does not fit the history" in (info.reason or "")) == ("paused", True)


@awaited
async def test_a_cancel_that_arrives_while_a_run_is_being_blocked_ends_it(db: str) -> None:
    """It lay in the inbox of the blocked run until a person let that go on."""
    began, go = asyncio.Event(), asyncio.Event()

    @step
    async def held() -> str:
        began.set()
        await go.wait()
        return "held"

    @workflow
    async def spins() -> None:
        async def spin() -> None:
            await receive("spin", bool)
            while True:  # noqa: ASYNC110
                await asyncio.sleep(0)

        await asyncio.gather(held(), spin())

    async with Engine(db, workflows=[spins]) as engine:
        run = await engine.start(spins(), id="s")
        await began.wait()
        await run.send(True, channel="spin")
        while len(await run.history()) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await run.cancel()
        assert await run.status() == "running"  # blocked already, but the step is under way
        go.set()
        await reached(run, "cancelled")
