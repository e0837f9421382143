"""What wakes a run: new code, a worker that leaves, verbs; and that all of it enters the run from
plain callbacks.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import apsw
import pytest

from perdure import Engine, Limits, Nondeterminism, receive, step, workflow
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import EndWorker, JoinWorker
from tests.runtime.support import awaited, reached, until

TENANT: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="none")


@step
async def charge() -> str:
    return "charged"


@step
async def refund() -> str:
    return "refunded"


@workflow
async def order() -> str:
    done = await charge()
    return done if await receive("go", bool) else "nothing"


@workflow(name="order")
async def wrong() -> str:
    await refund()
    return "refunded" if await receive("go", bool) else "nothing"


async def blocked_with_a_message(db: str) -> None:
    """Run `o` waits, is blocked by wrong code, and gets its message then."""
    async with Engine(db, workflows=[order]) as engine:
        await reached(await engine.start(order(), id="o"), "waiting")
    async with Engine(db, workflows=[wrong]) as engine:
        run = await engine.get("o")
        await run.send(1, channel="other")
        with pytest.raises(Nondeterminism):
            await run.result()
        await run.send(True, channel="go")


@awaited
async def test_code_that_an_engine_learns_later_wakes_the_runs_that_other_code_has_blocked(
    db: str,
) -> None:
    """They were given another try when an engine opened only, and by the workflows that it was
    given then.
    """
    await blocked_with_a_message(db)
    async with Engine(db) as engine:
        await engine.start(order(), id="another")
        assert await (await engine.get("o")).result() == "charged"


@awaited
async def test_a_worker_that_leaves_wakes_the_runs_that_its_code_has_blocked(db: str) -> None:
    """In a rolling deploy the old worker could take a run after the new one had opened, and nothing
    woke it again.
    """
    async with Engine(db, workflows=[order]) as engine:
        await reached(await engine.start(order(), id="o"), "waiting")
    async with Engine(db, workflows=[order], lease_ttl=1) as engine:
        other = SqliteStore(db, limits=Limits())
        (worker,) = other.write([JoinWorker("old", "elsewhere", 1, "", 0, 60_000)], True)
        assert isinstance(worker, int)
        await until(lambda: worker in engine._scheduler._membership._silent)
        apsw.Connection(db).execute(
            "UPDATE run SET status = 'blocked', blocked_by = 'nondeterminism', reason = 'by "
            "the old worker'"
        )
        await engine.send("o", True, channel="go")
        assert await (await engine.get("o")).status() == "blocked"
        other.write([EndWorker(worker, 0, False)], True)
        while await (await engine.get("o")).status() == "blocked":  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert await (await engine.get("o")).result() == "charged"
        other.close()


@pytest.mark.parametrize("verb", ["resume", "cancel", "retry"])
@awaited
async def test_verbs_enter_a_run_from_plain_callbacks_without_the_callers_context(
    db: str, verb: str
) -> None:
    """`resume` fed the inbox within the caller's task: a readonly step that began there raised at
    the caller and never ran.
    """
    began, go, seen = asyncio.Event(), asyncio.Event(), list[Any]()

    @step
    async def held() -> str:
        began.set()
        await go.wait()
        return "held"

    @step(readonly=True)
    async def look(text: str) -> str:
        seen.append((text, TENANT.get()))
        return text

    @workflow
    async def reads() -> list[str]:
        async def reader() -> str:
            try:
                return await look(await receive("in", str))
            except asyncio.CancelledError:
                return await look("cancelled")

        return list(await asyncio.gather(asyncio.shield(asyncio.create_task(held())), reader()))

    async with Engine(db, workflows=[reads]) as engine:
        run = await engine.start(reads(), id="r")
        await began.wait()
        await engine.pause("r")
        TENANT.set("of the caller")
        if verb != "cancel":
            await run.send("hello", channel="in")
        await getattr(engine, verb)("r")
        await until(lambda: seen)
        assert seen == [("cancelled" if verb == "cancel" else "hello", "none")]
        go.set()
        if verb != "cancel":
            assert await run.result() == ["held", "hello"]


@awaited
async def test_callers_that_give_up_waiting_are_forgotten(db: str) -> None:
    """Each wait with a timeout left an entry behind until the run ended."""
    async with Engine(db, workflows=[order]) as engine:
        run = await engine.start(order(), id="o")
        await reached(run, "waiting")
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await run.result(timeout=0.001)
        assert not engine._scheduler.waiters.waited()
        await run.send(True, channel="go")
        assert await run.result() == "charged"


@workflow
async def hears() -> str:
    return await receive("c", str)


@workflow(name="hears")
async def deaf() -> str:
    return await receive("d", str)


@awaited
@pytest.mark.parametrize("sent_before", [True, False])
async def test_a_message_that_code_did_not_receive_is_received_after_the_rollback(
    db: str, sent_before: bool
) -> None:
    """That code waits for something else, so it is not blocked, and nothing else comes."""
    async with Engine(db, execute=False) as client:
        async with Engine(db, workflows=[hears]) as engine:
            await reached(await engine.start(hears(), id="r"), "waiting")
        if sent_before:
            await client.send("r", "hello", channel="c")
        async with Engine(db, workflows=[deaf]) as engine:
            run = await engine.get("r")
            if not sent_before:
                await run.send("hello", channel="c")
            while len(await run.history()) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.003)
        async with Engine(db, workflows=[hears]) as engine:
            assert await (await engine.get("r")).result() == "hello"
