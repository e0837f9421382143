"""One bad write costs one run or one call: values that can't be stored, wherever user code gives
them, beside runs that must complete.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import apsw
import pytest

from perdure import (
    BadName,
    Engine,
    Limits,
    PerdureError,
    Retry,
    Run,
    RunBlocked,
    RunFailed,
    RunNotFound,
    WriteRefused,
    current_step,
    emit,
    patched,
    receive,
    send,
    start,
    step,
    tag,
    workflow,
)  # fmt: skip
from perdure.store.writes import ClockMovedBack, Deliver
from tests.runtime.support import PATIENCE_S, awaited, reached

SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(10**9)
ROUNDS = 40
BAD_TEXTS = ["\ud800", "a\udcffb", "nul\0nul", "x" * 5_000, "\udfff" * 300]
BAD_VALUES: list[Any] = [
    *BAD_TEXTS,
    2**64,
    -(2**63) - 1,
    2**4000,
    float("nan"),
    float("inf"),
    {"\ud800": 1},
    {"a": "\ud800"},
    ["\0"],
    b"\xff",
    object(),
    {1: 2},
    [[[]]] * 3,
    "x" * 2_000_000,
    datetime(9999, 12, 31, tzinfo=UTC),
    {"deep": [{"\udc80": "\ud800"}]},
]
BAD: dict[str, Any] = {}  # values that JSON can't carry to a workflow, by the id of its run


class Odd(Exception):
    """An error that can't say what it is."""

    def __str__(self) -> str:
        raise ValueError("no text")


@step
async def one(n: int) -> int:
    return n


@step(retry=None)
async def gives() -> Any:
    return BAD[current_step().run_id]


@step(retry=None)
async def takes(value: Any) -> int:
    return 1


@step(retry=Retry(attempts=2, delay=0))
async def raises() -> int:
    raise ValueError(BAD[current_step().run_id])


@step(retry=None)
def raises_oddly() -> int:
    raise Odd


@step(retry=None)
async def emits() -> int:
    bad = BAD[current_step().run_id]
    emit("fine", bad)
    return 1


@step(retry=None)
async def emits_to() -> int:
    emit(BAD[current_step().run_id], 1)
    return 1


@step(retry=None)
async def beats() -> int:
    await current_step().heartbeat(BAD[current_step().run_id])
    return 1


@step(transactional=True, retry=None)
def booked(db: Any) -> Any:
    db.execute("CREATE TABLE IF NOT EXISTS mine (a)")
    db.execute("INSERT INTO mine VALUES (1)")
    return "\ud800"


@workflow
async def healthy(n: int) -> int:
    return sum([await one(i) for i in range(n)])


@workflow
async def poisoned(place: str, name: str) -> Any:  # noqa: C901
    bad = BAD[name]
    match place:
        case "result of a step":
            return await gives()
        case "argument of a step":
            return await takes(bad)
        case "error of a step":
            return await raises()
        case "odd error":
            return await raises_oddly()
        case "item of a step":
            return await emits()
        case "stream of a step":
            return await emits_to()
        case "heartbeat":
            return await beats()
        case "transactional step":
            return await booked()
        case "result":
            return bad
        case "error":
            raise ValueError(bad)
        case "odd own error":
            raise Odd
        case "channel":
            async with asyncio.timeout(0.01):
                return await receive(bad)
        case "send":
            await send("healthy-0", bad, channel="c")
        case "send key":
            await send("healthy-0", 1, channel="c", key=bad)
        case "send channel":
            await send("healthy-0", 1, channel=bad)
        case "send id":
            await send(bad, 1, channel="c")
        case "tag":
            await tag(x=bad)
        case "tag name":
            await tag(**{str(bad): 1})
        case "item":
            await emit("s", bad)
        case "stream":
            await emit(bad, 1)
        case "patch":
            patched(bad)
        case "spawn id":
            await start(healthy(1), id=bad)
        case "spawn tags":
            await start(healthy(1), tags={"t": bad})
        case "child id":
            return await healthy.options(id=bad)(1)
        case "sleep":
            await asyncio.wait_for(asyncio.sleep(bad), 0.01)
        case "timer callback":
            asyncio.get_running_loop().call_later(0, lambda: 1 / 0)
            await one(1)
        case "cancelled callback":
            task = asyncio.create_task(asyncio.sleep(60))
            task.add_done_callback(lambda done: done.result())
            await asyncio.sleep(0)
            task.cancel()
            await one(1)
        case _:
            raise AssertionError(place)
    return 1


PLACES = [
    "result of a step",
    "argument of a step",
    "error of a step",
    "odd error",
    "item of a step",
    "stream of a step",
    "heartbeat",
    "transactional step",
    "result",
    "error",
    "odd own error",
    "channel",
    "send",
    "send key",
    "send channel",
    "send id",
    "tag",
    "tag name",
    "item",
    "stream",
    "patch",
    "spawn id",
    "spawn tags",
    "child id",
    "sleep",
    "timer callback",
    "cancelled callback",
]


def verbs(engine: Engine, bad: Any) -> list[Callable[[], Any]]:
    """Every verb that takes something of the caller's, with a bad value at one place of it."""
    return [
        lambda: engine.send("healthy-0", bad, channel="c"),
        lambda: engine.send("healthy-0", 1, channel=bad),
        lambda: engine.send("healthy-0", 1, channel="c", key=bad),
        lambda: engine.send(bad, 1, channel="c"),
        lambda: engine.start(healthy(bad)),
        lambda: engine.start(healthy(1), id=bad),
        lambda: engine.start(healthy(1), queue=bad),
        lambda: engine.start(healthy(1), priority=bad),
        lambda: engine.start(healthy(1), tags={"t": bad}),
        lambda: engine.start(healthy(1), tags={str(bad): 1}),
        lambda: engine.start(healthy(1), timeout=bad),
        lambda: engine.get(bad),
        lambda: engine.cancel(bad),
        lambda: engine.pause(bad),
        lambda: engine.resume(bad),
        lambda: engine.retry(bad),
        lambda: engine.info(bad),
        lambda: engine.history(bad),
        lambda: engine.runs(status=bad),
        lambda: engine.runs(workflow=bad),
        lambda: engine.runs(tags={"t": bad}),
        lambda: engine.fork("healthy-0", 2, new_id=bad),
        lambda: engine.runs(after=bad),
        lambda: engine.resolve("healthy-0", error=bad),
    ]


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_values_that_cant_be_stored_cost_nobody_else_anything(db: str, kind: str) -> None:
    print("PERDURE_SEED =", SEED)
    dice = random.Random(SEED)
    cases = [(place, dice.choice(BAD_TEXTS if "name" in place else BAD_VALUES)) for place in PLACES]
    cases += [(dice.choice(PLACES), dice.choice(BAD_VALUES)) for _ in range(ROUNDS)]
    dice.shuffle(cases)

    @awaited
    async def test() -> None:
        limits = Limits(payload_bytes_max=1_000_000)
        async with Engine(
            db if kind == "file" else ":memory:",
            workflows=[healthy, poisoned],
            limits=limits,
            close_grace=0,
        ) as engine:
            beside = [await engine.start(healthy(8), id=f"healthy-{i}") for i in range(3)]
            odd = []
            for number, (place, bad) in enumerate(cases):
                BAD[f"bad-{number}"] = bad
                odd.append(
                    (
                        place,
                        bad,
                        await engine.start(poisoned(place, f"bad-{number}"), id=f"bad-{number}"),
                    )
                )
                calls = [
                    dice.choice(verbs(engine, bad))(),
                    engine.start(healthy(3), id=f"beside-{number}"),
                ]
                error, run = await asyncio.gather(*calls, return_exceptions=True)
                assert not isinstance(error, BaseException) or isinstance(
                    error, PerdureError | TypeError | ValueError
                ), repr(error)
                assert isinstance(run, Run)
                beside.append(run)
            for run in beside:
                assert await run.result() >= 3
            for place, bad, run in odd:
                try:
                    await run.result(timeout=PATIENCE_S)
                except (RunFailed, RunBlocked):
                    pass
                except TimeoutError:
                    raise AssertionError(
                        f"{place} with {bad!r:.60} hangs: {await run.status()}"
                    ) from None
            assert await engine.run(healthy(2)) == 1

    test()


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD_TEXTS)
@awaited
async def test_a_bad_name_is_refused_where_it_is_given(bad: str) -> None:
    async with Engine(":memory:", workflows=[healthy]) as engine:
        await engine.run(healthy(1), id="r")
        for call in (
            engine.send("r", 1, channel=bad),
            engine.send("r", 1, channel="c", key=bad),
            engine.start(healthy(1), queue=bad),
            engine.start(healthy(1), id=bad),
            engine.start(healthy(1), tags={bad: 1}),
        ):
            with pytest.raises(BadName):
                await call
        with pytest.raises(RunNotFound):
            await engine.cancel(bad)
    with pytest.raises(BadName):
        step(name=bad)(one.fn)
    with pytest.raises(BadName):
        workflow(queue=bad)(healthy.fn)
    with pytest.raises(BadName):
        Engine(":memory:", name=bad)


@awaited
async def test_workflow_code_can_catch_a_bad_name_and_go_on(db: str) -> None:
    @workflow
    async def careful() -> str:
        try:
            return await receive("\udcff", str)
        except BadName as error:
            return str(error)

    async with Engine(db, workflows=[careful]) as engine:
        said = await engine.run(careful(), id="r")
    assert "position 0 is no valid text" in said
    async with Engine(db, workflows=[careful]) as engine:
        assert await (await engine.get("r")).result() == said


@awaited
async def test_tags_together_have_a_limit_and_block_their_run_alone() -> None:
    @workflow
    async def tags_more() -> int:
        for i in range(10):
            await tag(**{f"tag{i}": "x" * 400})
            await one(i)
        return 1

    async with Engine(
        ":memory:", workflows=[tags_more, healthy], limits=Limits(payload_bytes_max=1_000)
    ) as engine:
        run = await engine.start(tags_more(), id="r")
        with pytest.raises(RunBlocked, match="tags together"):
            await run.result()
        assert await engine.run(healthy(2)) == 1


# --- the writer -----------------------------------------------------------------------------------


def bad_write(run_id: str = "r") -> Deliver:
    """A message whose channel no check has seen."""
    return Deliver(run_id, "message", 0, "\ud800", None, None, b"1")


@awaited
async def test_a_write_that_spoils_its_batch_is_refused_alone(db: str) -> None:
    async with Engine(db, workflows=[healthy]) as engine:
        run = await engine.start(healthy(1), id="r")
        await run.result()
        waits = await engine.start(healthy(1), id="later", at=datetime(2100, 1, 1, tzinfo=UTC))
        writer = engine._parts().writer
        writes = [
            writer.ask(
                bad_write("later")
                if i in (3, 17)
                else Deliver("later", "message", 0, f"c{i}", None, None, b"1")
            )
            for i in range(20)
        ]
        told = await asyncio.gather(*writes, return_exceptions=True)
        assert [i for i, result in enumerate(told) if isinstance(result, WriteRefused)] == [3, 17]
        assert [row.name for row in engine._store.inbox(engine._store.run_key("later"), 0)] == [
            f"c{i}" for i in range(20) if i not in (3, 17)
        ]
        await waits.cancel()


@awaited
async def test_the_rest_of_a_spoiled_batch_waits_for_a_lock_like_any_other(db: str) -> None:
    """The writes were applied one by one without patience, and "locked" was taken for the result of
    one of them.
    """
    async with Engine(db, workflows=[healthy]) as engine:
        other = apsw.Connection(db)
        await engine.start(healthy(1), id="later", at=datetime(2100, 1, 1, tzinfo=UTC))
        writer = engine._parts().writer
        other.execute("BEGIN IMMEDIATE")
        runs = [asyncio.create_task(engine.run(healthy(3))) for _ in range(5)]
        refused = asyncio.create_task(writer.ask(bad_write("later")))
        await asyncio.sleep(0.05)
        other.execute("ROLLBACK")
        with pytest.raises(WriteRefused):
            await refused
        assert await asyncio.gather(*runs) == [3] * 5


class Clumsy:
    """Something dirty whose changes can't be collected."""

    def __init__(self, error: BaseException) -> None:
        self._error, self.heard = error, asyncio.Event()

    def collect(self) -> None:
        raise self._error

    def failed(self, error: BaseException) -> None:
        self.heard.set()


@pytest.mark.parametrize("error", [ValueError("x"), asyncio.CancelledError(), Odd()])
@awaited
async def test_what_cant_be_collected_stops_nobody_else(error: BaseException) -> None:
    async with Engine(":memory:", workflows=[healthy]) as engine:
        writer, clumsy = engine._parts().writer, Clumsy(error)
        writer.touch(clumsy)
        assert await engine.run(healthy(2)) == 1
        assert clumsy.heard.is_set()


@awaited
async def test_an_error_in_what_follows_from_a_write_stops_nobody_else() -> None:
    async with Engine(":memory:", workflows=[healthy]) as engine:
        writer = engine._parts().writer
        writer.put(ClockMovedBack(0), lambda _: [].pop(), keep=True)
        assert await engine.run(healthy(2)) == 1


@awaited
async def test_a_run_that_fails_in_the_middle_of_a_turn_is_blocked_and_goes_on_when_retried(
    db: str,
) -> None:
    async with Engine(db, workflows=[healthy]) as engine:
        run = await engine.start(healthy(3), id="r")
        active = next(iter(engine._scheduler.memory.active.values()))
        active.__class__ = type(
            "Failing", (type(active),), {"__slots__": (), "_steady": lambda _: 1 / 0}
        )
        with pytest.raises(RunBlocked, match="ZeroDivisionError"):
            await run.result()
        assert await engine.run(healthy(2)) == 1
        await engine.retry("r")
        await reached(run, "completed")
        assert await run.result() == 3
