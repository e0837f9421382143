"""Closing an engine: what has to be finished is, and a cancellation on the way is passed on."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from typing import Any

import pytest

from perdure import Engine, EngineClosed, HistoryTooLong, Limits, receive, step, workflow
from perdure.runtime.membership import Membership
from tests.runtime.remote_store import RemoteEngine
from tests.runtime.support import awaited, environment, outside

begun: asyncio.Event


@step
async def hangs() -> int:
    begun.set()
    await asyncio.sleep(3600)
    return 1


@step
async def one(n: int) -> int:
    return n


@workflow
async def waits() -> int:
    return await hangs()


@workflow
async def adds(n: int) -> int:
    return sum([await one(1) for _ in range(n)])


async def closed(db: str, engine: Engine) -> None:
    """Everything was let go of: the next engine goes on at once, and no task of the last one is
    left.
    """
    assert engine._open is None
    left = [
        task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("perdure")
    ]
    assert left == []
    async with Engine(db, workflows=[waits], close_grace=0) as again:
        assert [row.worker for row in again._store.workers()] == [again._scheduler.owner]


@awaited
async def test_a_cancellation_while_it_closes_is_passed_on_when_it_is_closed(db: str) -> None:
    global begun
    begun = asyncio.Event()
    inside = asyncio.Event()
    engine = Engine(db, workflows=[waits], close_grace=3600)

    async def user() -> None:
        async with engine:
            await engine.start(waits())
            await begun.wait()
            inside.set()
        raise AssertionError("it was cancelled while it closed")

    task = asyncio.create_task(user())
    await inside.wait()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await closed(db, engine)


@awaited
async def test_a_timeout_around_it_is_a_timeout(db: str) -> None:
    global begun
    begun = asyncio.Event()
    engine = Engine(db, workflows=[waits], close_grace=3600)
    with pytest.raises(TimeoutError):  # noqa: PT012
        async with asyncio.timeout(None) as limit, engine:
            await engine.start(waits())
            await begun.wait()
            limit.reschedule(0)  # passes while the engine closes
    await closed(db, engine)


@pytest.mark.parametrize("joined", [False, True])
@awaited
async def test_a_cancellation_while_it_opens_leaves_no_worker_behind(
    db: str, joined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Membership.join

    async def join(self: Membership) -> None:
        task = asyncio.current_task()
        assert task is not None
        if joined:
            await real(self)
        task.cancel()  # at its next await: for the commit that makes it a worker, or after that
        if not joined:
            await real(self)

    engine = Engine(db, workflows=[waits])

    async def user() -> None:
        async with engine:
            await asyncio.sleep(3600)

    with monkeypatch.context() as patch:
        patch.setattr(Membership, "join", join)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(user())
    await closed(db, engine)


@awaited
async def test_an_error_beside_it_in_a_task_group_closes_it(db: str) -> None:
    engine = Engine(db, workflows=[adds])

    async def user() -> None:
        async with engine:
            await asyncio.sleep(3600)

    async def other() -> None:
        while engine._open is None:  # noqa: ASYNC110
            await asyncio.sleep(0.003)
        raise ValueError("beside it")

    with pytest.raises(ExceptionGroup) as group:  # noqa: PT012
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(user())
            tasks.create_task(other())
    assert [type(error) for error in group.value.exceptions] == [ValueError]
    await closed(db, engine)


_INTERRUPTED = """
import asyncio, sys
from perdure import Engine, workflow
@workflow
async def work() -> int:
    raise KeyboardInterrupt
async def main():
    async with Engine(sys.argv[1], workflows=[work]) as engine:
        await engine.run(work())
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("INTERRUPTED")
"""


@pytest.mark.parametrize("memory", [True, False])
def test_ctrl_c_out_of_workflow_code_ends_the_process(db: str, memory: bool) -> None:
    """The writer stayed "scheduled" for ever, and closing waited for it."""
    command = [sys.executable, "-c", _INTERRUPTED, ":memory:" if memory else db]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=120, check=False
    )
    assert "INTERRUPTED" in done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize("limit", [10, 11, 12])
@awaited
async def test_a_history_over_its_limit_says_so_once_and_does_not_end_before_it_is_retried(
    db: str, limit: int, caplog: Any
) -> None:
    gate = asyncio.Event()

    @step
    async def held(n: int) -> int:
        await gate.wait()
        return n

    @workflow
    async def both() -> int:
        parts = [asyncio.create_task(held(n)) for n in range(5)]
        for _ in range(5):
            await one(1)
        gate.set()
        return sum([await part for part in parts])

    async with Engine(db, workflows=[both], limits=Limits(history_rows_max=limit)) as engine:
        run = await engine.start(both(), id="r")
        gate.set()
        with pytest.raises(HistoryTooLong):
            await run.result()
        assert await run.status() == "blocked"
        said = [record for record in caplog.records if "is blocked" in record.getMessage()]
        assert len(said) == 1
        await engine.retry("r")
        with pytest.raises(HistoryTooLong):
            await run.result()
    async with Engine(db, workflows=[both]) as engine:
        await engine.retry("r")
        assert await (await engine.get("r")).result() == 10
        kinds = [event.kind for event in await engine.history("r")]
        assert kinds[-1] == "finish"


gate: asyncio.Event
calls: list[int] = []


@step
async def counted(n: int) -> int:
    calls.append(n)
    await gate.wait()
    return n


@workflow
async def wide(n: int) -> int:
    return sum(await asyncio.gather(*(counted(i) for i in range(n))))


async def closed_while_steps_end(db: str, limits: Limits | None = None) -> list[int]:
    """What had begun of 20 steps when the first engine was closed; the next one brings their run to
    its end.
    """
    global gate
    gate = asyncio.Event()
    calls.clear()
    async with Engine(db, workflows=[wide], close_grace=60, limits=limits) as engine:
        await engine.start(wide(20), id="r")
        while not calls:  # noqa: ASYNC110
            await asyncio.sleep(0)
        runs = engine._scheduler.memory.active.values()

        async def let_go() -> None:
            while not all(active.attempts.closed for active in runs):  # noqa: ASYNC110
                await asyncio.sleep(0)
            gate.set()

        task = asyncio.create_task(let_go())
    await task
    first = list(calls)
    async with Engine(db, workflows=[wide]) as engine:
        assert await (await engine.get("r")).result() == sum(range(20))
    return first


@awaited
async def test_closing_hears_of_all_that_has_ended_within_the_grace(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so that each callback reports one outcome only
    monkeypatch.setattr("perdure.process.slices.SLICE_S", -1.0)
    assert sorted(await closed_while_steps_end(db)) == list(range(20))
    assert sorted(calls) == list(range(20)), "a step whose outcome was there was done again"


@awaited
async def test_a_closing_engine_begins_no_step_that_waits_at_the_gate(db: str) -> None:
    assert await closed_while_steps_end(db, Limits(steps_max=1)) == [0]
    assert sorted(calls) == list(range(20)), (
        "a step was begun while its engine closed, and again after that"
    )


@awaited
async def test_an_engine_whose_opening_is_cancelled_again_and_again_is_taken_back_to_its_end(
    db: str,
) -> None:
    """A second cancellation cut off what the first one had begun to take back, such as the release
    of a replica's lease.
    """
    taken_back = False

    async def take_back() -> None:
        nonlocal taken_back
        for _ in range(5):
            await asyncio.sleep(0)
        taken_back = True

    class Waits(Engine):
        async def _opened(self, stack: contextlib.AsyncExitStack) -> Any:
            await super()._opened(stack)
            stack.push_async_callback(take_back)
            await asyncio.Event().wait()

    async with Engine(db):
        pass
    opening = asyncio.ensure_future(Waits(db).__aenter__())
    while not outside(db, "SELECT 1 FROM worker WHERE ended_ms IS NULL"):  # noqa: ASYNC110
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    while not opening.done():
        opening.cancel()
        await asyncio.sleep(0)
    assert (opening.cancelled(), taken_back) == (True, True)
    assert outside(db, "SELECT 1 FROM worker WHERE ended_ms IS NULL") == []


@workflow
async def listens() -> int:
    return await receive("news", int)


@awaited
@pytest.mark.parametrize("engine_class", [Engine, RemoteEngine])
@pytest.mark.parametrize("turns", range(4))
async def test_a_verb_or_a_wait_that_is_under_way_ends_with_the_engine(
    db: str, engine_class: type[Engine], turns: int
) -> None:
    """Each is done, or says that the engine is closed. None of them waits for ever."""
    async with engine_class(db, workflows=[listens]) as engine:
        run = await engine.start(listens(), id="l")

        async def read() -> None:
            async for _ in run.stream("words"):
                pass

        under_way: list[Any] = [
            asyncio.ensure_future(work)
            for work in (
                run.result(), read(), engine.send("l", "x", channel="other"), engine.retry("l"),
                engine.pause("l"), engine.start(listens()), engine.fork("l", 1), engine.info("l"),
            )
        ]  # fmt: skip
        for _ in range(turns):
            await asyncio.sleep(0)
    outcomes = await asyncio.gather(*under_way, return_exceptions=True)
    waits, verbs = outcomes[:2], outcomes[2:]
    assert [type(error) for error in waits] == [EngineClosed] * 2
    assert {type(error) for error in verbs if isinstance(error, Exception)} <= {EngineClosed}
