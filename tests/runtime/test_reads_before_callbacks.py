"""Every verb and every kind of workflow on a store that refuses to be read or written on the event
loop's thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from perdure import (
    Retry,
    Run,
    RunCancelled,
    RunExists,
    RunFailed,
    continue_as,
    current_step,
    emit,
    receive,
    send,
    start,
    step,
    tag,
    workflow,
)
from perdure.store.reads import LazyPayload
from tests.runtime.remote_store import RemoteEngine, RemoteStore
from tests.runtime.support import AT_ONCE, PATIENCE_S, awaited, kinds, reached, until


@asynccontextmanager
async def remote(db: str, **options: Any) -> AsyncIterator[RemoteEngine]:
    """An engine on a remote store. Checks at its end that nothing was refused."""
    async with RemoteEngine(db, workflows=WORKFLOWS, **options) as engine:
        yield engine
    assert engine.refused == []
    assert engine.calls > 0


@step
async def double(n: int) -> int:
    return n * 2


@step
def length(texts: list[str]) -> int:
    return sum(map(len, texts))


@workflow
async def doubled(n: int) -> int:
    return await double(n)


@workflow
async def doubles(upto: int) -> int:
    return sum(await asyncio.gather(*[doubled(n) for n in range(upto)]))


@workflow
async def listens(times: int) -> list[Any]:
    return [await receive("news") for _ in range(times)]


@workflow
async def talks(times: int) -> None:
    for n in range(times):
        emit("words", n)
        await double(n)


@workflow
async def rounds(left: int, heard: int) -> int:
    tag(left=left)
    heard += await receive("news", int)
    if left > 1:
        continue_as(rounds(left - 1, heard))
    return heard


@workflow
async def sends(to: str) -> str:
    await send(to, "from a run", channel="news")
    return await start(doubled(21), id="started")


@workflow
async def adopts() -> int:
    return await doubled.options(id="chosen")(4)


BROKEN = {"broken": True}
BEATS: list[tuple[int, Any]] = []


@step(retry=Retry(attempts=1))
async def fragile(n: int) -> int:
    if BROKEN["broken"]:
        raise ValueError("broken")
    return n


@workflow
async def failing_child(n: int) -> int:
    return await fragile(n)


@workflow
async def failing(n: int) -> int:
    return await double(n) + await failing_child(n)


@step(retry=AT_ONCE)
async def beats(upto: int) -> int:
    me = current_step()
    BEATS.append((me.attempt, me.last_heartbeat))
    await me.heartbeat(me.attempt)
    if me.attempt < upto:
        raise ValueError("again")
    return me.attempt


@workflow
async def beating(upto: int) -> int:
    return await beats(upto)


@workflow
async def long_texts(count: int) -> int:
    texts: list[str] = []
    total = 0
    for n in range(count):
        texts.append(f"{n} " * 600)
        total += await length(texts)
    return total + await receive("more", int)


WORKFLOWS: list[Any] = [
    doubles, listens, talks, rounds, sends, adopts, failing, beating, long_texts,
]  # fmt: skip


@awaited
async def test_children_and_their_results(db: str) -> None:
    async with remote(db) as engine:
        assert await engine.run(doubles(8), id="d") == 56
        assert await engine.run(doubles(8), id="d") == 56  # found again
        with pytest.raises(RunExists):
            await engine.start(doubles(9), id="d")
        assert await engine.run(adopts()) == 8
        assert await engine.run(adopts()) == 8  # the child of another run is adopted


@awaited
async def test_messages_sends_and_starts(db: str) -> None:
    async with remote(db) as engine:
        run = await engine.start(listens(3), id="l")
        await run.send("one", channel="news")
        await run.send("two", channel="news", key="k")
        await run.send("two", channel="news", key="k")
        assert await engine.run(sends("l")) == "started"
        assert await run.result() == ["one", "two", "from a run"]
        assert await (await engine.get("started")).result() == 42


@awaited
async def test_streams_and_progress(db: str) -> None:
    async with remote(db) as engine:
        run = await engine.start(talks(4), id="t")
        pairs = [pair async for pair in run.stream_with_positions("words")]
        assert [item for _, item in pairs] == [0, 1, 2, 3]
        assert [item async for item in run.stream("words", after=pairs[1][0])] == [2, 3]
        assert (await engine.progress("t")).steps_done == 4


@awaited
async def test_generations(db: str) -> None:
    async with remote(db) as engine:
        run = await engine.start(rounds(3, 0), id="r")
        for n in (1, 10, 100):
            await engine.send("r", n, channel="news")
        assert await run.result() == 111
        assert [info.id for info in await engine.runs(tags={"left": 1})] == ["r"]
        assert await engine.find("r") == "r"


@awaited
async def test_cancel_pause_and_resume(db: str) -> None:
    async with remote(db) as engine:
        run = await engine.start(listens(1), id="c")
        await engine.pause("c")
        await reached(run, "paused")
        await run.send("late", channel="news")
        await engine.resume("c")
        assert await run.result() == ["late"]
        other = await engine.start(listens(1), id="o")
        await other.cancel()
        with pytest.raises(RunCancelled):
            await other.result()


@awaited
async def test_retry_takes_the_failed_child_along_and_fork_does_a_row_again(db: str) -> None:
    BROKEN["broken"] = True
    async with remote(db) as engine:
        run = await engine.start(failing(2), id="f")
        with pytest.raises(RunFailed):
            await run.result()
        BROKEN["broken"] = False
        await engine.retry("f")
        assert await run.result() == 6
        assert "step" in kinds(await run.history())
        forked: Run[int] = await engine.fork("f", 2, result=40)
        assert await forked.result() == 42


@awaited
async def test_heartbeats_reach_the_next_attempt_also_after_a_restart(db: str) -> None:
    BEATS.clear()
    async with remote(db) as engine:
        assert await engine.run(beating(2), id="b") == 2
    assert BEATS == [(1, None), (2, 1)]


@awaited
async def test_runs_go_on_in_the_next_engine_and_payloads_come_with_their_chunks(db: str) -> None:
    async with remote(db) as engine:
        run = await engine.start(long_texts(5), id="x")
        await reached(run, "waiting")
        waiting = await engine.start(listens(2), id="w")
        await waiting.send(1, channel="news")
        history = await engine._read(engine._store.history, engine_key(engine, "x"))
        lazy = [row.data for row in history if isinstance(row.data, LazyPayload)]
        assert len(lazy) > 0
        assert all(data.read().startswith(b'{"texts":["0 0') for data in lazy)  # reads no store
    async with remote(db) as engine:
        await engine.send("x", 7, channel="more")
        await engine.send("w", 2, channel="news")
        lengths = [len(f"{n} " * 600) for n in range(5)]
        expected = sum(sum(lengths[: n + 1]) for n in range(5)) + 7
        assert await (await engine.get("x")).result() == expected
        assert await (await engine.get("w")).result() == [1, 2]


def engine_key(engine: RemoteEngine, run_id: str) -> int:
    """The key of a run, read past the store's own check."""
    assert isinstance(engine._store, RemoteStore)
    with engine._store.unguarded():
        return engine._store.run_key(run_id)


@awaited
async def test_a_client_gets_results_and_controls_runs_of_another_engine(db: str) -> None:
    async with remote(db) as worker, remote(db, execute=False) as client:
        run = await client.start(listens(1), id="l")
        result = asyncio.ensure_future(run.result())
        await client.pause("l")
        await reached(run, "paused")
        await client.resume("l")
        await client.send("l", "hello", channel="news")
        assert await result == ["hello"]
        assert await worker.left_to_workers() == 0
        assert (await client.doctor())["path"] == db


@awaited
async def test_only_what_is_asked_for_is_executed(db: str) -> None:
    async with remote(db, execute=False) as client:
        await client.start(doubles(1), id="left")
    async with remote(db, execute="asked") as engine:
        assert await engine.run(doubles(3)) == 6
        assert await (await engine.get("left")).status() == "pending"


@awaited
async def test_what_comes_while_a_run_is_being_read_is_not_lost(db: str) -> None:
    """Messages, a pause and a resume arrive while rows and histories are on their way."""
    async with remote(db) as engine:
        runs = [await engine.start(listens(5), id=f"l{n}") for n in range(6)]
        await asyncio.gather(
            *[engine.send(run.id, number, channel="news") for run in runs for number in range(3)]
        )
    async with remote(db) as engine:
        await asyncio.gather(*[engine.pause(f"l{n}") for n in range(0, 6, 2)])
        await asyncio.gather(*[engine.send(f"l{n}", 3, channel="news") for n in range(6)])
        await asyncio.gather(*[engine.resume(f"l{n}") for n in range(0, 6, 2)])
        await asyncio.gather(*[engine.send(f"l{n}", 4, channel="news") for n in range(6)])
        results = [await (await engine.get(f"l{n}")).result() for n in range(6)]
    assert [sorted(result) for result in results] == [[0, 1, 2, 3, 4]] * 6


class SlowStore(RemoteStore):
    """`hold` keeps the history of a run on its way."""

    def __init__(self, path: str, **options: Any) -> None:
        self.on_its_way, self.hold = threading.Event(), threading.Event()
        super().__init__(path, **options)

    def load(self, *args: Any) -> Any:
        found = super().load(*args)
        self.on_its_way.set()
        self.hold.wait(PATIENCE_S)
        return found


class SlowEngine(RemoteEngine):
    store_class = SlowStore


@awaited
async def test_a_pause_that_comes_while_a_run_is_being_read_counts(db: str) -> None:
    async with remote(db, execute=False) as client:
        run = await client.start(listens(1), id="l")
        await run.send("early", channel="news")
    async with SlowEngine(db, workflows=WORKFLOWS) as engine:
        store = engine._remote
        assert isinstance(store, SlowStore)
        await asyncio.to_thread(store.on_its_way.wait, PATIENCE_S)
        await engine.pause("l")
        store.hold.set()
        await until(lambda: not engine._scheduler.memory.loading)
        await until(lambda: not engine._scheduler.memory.active)  # it leaves, as it is paused
        assert await (await engine.get("l")).status() == "paused"
        await engine.resume("l")
        assert await (await engine.get("l")).result() == ["early"]


@awaited
async def test_a_store_that_is_inline_is_refused_here(db: str) -> None:
    """The check itself works: an engine that takes the store for a local one is caught."""
    async with RemoteEngine(db, workflows=WORKFLOWS) as engine:
        with pytest.raises(AssertionError, match="on the event loop's thread"):
            engine._store.has_run("x")
        assert engine.refused == ["run_of_id"]
        await until(lambda: engine.calls > 0)
