"""The verbs of section 3 on a real file: start, messages, streams, children, pause, retry, fork,
listing, and the sync twin.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import perdure
from perdure import (
    Engine,
    EngineClosed,
    InboxFull,
    Limits,
    NotSerializable,
    PayloadTooLarge,
    RunCancelled,
    RunExists,
    RunFailed,
    RunFinished,
    RunNotFound,
    StepFailed,
    SyncEngine,
    continue_as,
    current_run,
    emit,
    receive,
    send,
    start,
    step,
    tag,
    workflow,
)  # fmt: skip
from perdure.errors import DefinitionError
from tests.runtime.support import awaited, kinds, reached


@step
async def add(a: int, b: int) -> int:
    return a + b


@workflow
async def plain(n: int) -> int:
    return await add(n, 1)


@workflow
async def listen(times: int) -> list[int]:
    return [await receive("x", int) for _ in range(times)]


@workflow
async def broken(text: str) -> None:
    raise ValueError(text)


@workflow
async def family() -> None:
    """Has children that work and one that fails."""
    await asyncio.gather(broken("x"), plain(1))


WORKFLOWS: list[Any] = [plain, listen, broken]


# --- start ----------------------------------------------------------------------------------------


@awaited
async def test_start_is_idempotent_and_differences_are_named(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        assert await (await engine.start(plain(1), id="one")).result() == 2
        assert await (await engine.start(plain(1), id="one")).result() == 2
        with pytest.raises(RunExists, match="'one' exists already, and it has other arguments"):
            await engine.start(plain(2), id="one")
        with pytest.raises(RunExists, match="it is a run of workflow 'plain', not 'listen'"):
            await engine.start(listen(1), id="one")
        assert len(await engine.runs()) == 1
        large = "x" * 50_000
        for _ in range(2):
            with pytest.raises(RunFailed):
                await engine.run(broken(large), id="large")
        with pytest.raises(RunExists):
            await engine.start(broken(large + "y"), id="large")


@pytest.mark.parametrize("run_id", ["a~1", "x" * 201, "new\nline"])
@awaited
async def test_ids_are_checked(db: str, run_id: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        with pytest.raises(DefinitionError, match="has 1 to 200 printable characters"):
            await engine.start(plain(1), id=run_id)
        assert await engine.runs() == []


@awaited
async def test_start_at_a_time_and_with_a_timeout(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        with pytest.raises(DefinitionError, match="has no time zone"):
            await engine.start(plain(1), at=datetime(2030, 1, 1))
        later = await engine.start(plain(1), at=datetime.now(UTC) + timedelta(days=1), id="later")
        soon = await engine.start(plain(2), at=datetime.now(UTC) + timedelta(milliseconds=30))
        assert await soon.result() == 3
        assert await later.status() == "pending"
        with pytest.raises(TimeoutError, match=r"'later' has not ended within 0\.01 s"):
            await later.result(timeout=0.01)
        with pytest.raises(
            RunFailed, match=r"TimeoutError: the run's time limit of 0\.05 s has"
        ) as raised:
            await engine.run(listen(1), timeout=0.05)
        assert isinstance(raised.value.__cause__, TimeoutError)
        await later.cancel()
        with pytest.raises(RunCancelled):
            await later.result()


@awaited
async def test_bad_arguments_are_named_and_start_nothing(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS, limits=Limits(payload_bytes_max=1000)) as engine:
        with pytest.raises(NotSerializable, match="n"):
            await engine.start(plain(object()))  # type: ignore[arg-type]
        with pytest.raises(PayloadTooLarge, match="bytes as JSON; the limit is 1,000"):
            await engine.start(broken("x" * 2000))
        with pytest.raises(DefinitionError, match="takes the call of a workflow"):
            await engine.start(add(1, 2))
        with pytest.raises(NotSerializable):
            await engine.start(plain(1), tags={"bad": object()})
        assert await engine.runs() == []


@awaited
async def test_get_find_runs_and_tags(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        for n in range(7):
            await engine.run(plain(n), id=f"run-{n}", tags={"odd": bool(n % 2), "n": n})
        with pytest.raises(RunFailed):
            await engine.run(broken("x"), id="other")
        assert await engine.find("oth") == "other"
        with pytest.raises(RunNotFound) as raised:
            await engine.find("run-")
        assert len(raised.value.candidates) == 7
        with pytest.raises(RunNotFound, match="There is no run 'none'"):
            await engine.get("none")
        assert [info.id for info in await engine.runs(status="completed", limit=2)] == [
            "run-6",
            "run-5",
        ]
        assert [
            info.id for info in await engine.runs(status="completed", limit=2, after="run-5")
        ] == ["run-4", "run-3"]
        assert [info.id for info in await engine.runs(workflow="broken")] == ["other"]
        assert [info.id for info in await engine.runs(tags={"odd": True})] == [
            "run-5",
            "run-3",
            "run-1",
        ]
        assert [info.id for info in await engine.runs(tags={"odd": True, "n": 3})] == ["run-3"]
        assert [info.id for info in await engine.runs(status="failed")] == ["other"]


@awaited
async def test_a_run_stands_for_its_children_and_earlier_generations(db: str) -> None:
    async with Engine(db, workflows=[*WORKFLOWS, family]) as engine:
        await engine.run(plain(1), id="report%")
        for run_id in ("report", "rest"):
            with pytest.raises(RunFailed):
                await engine.run(family(), id=run_id)
            for _ in range(2):
                await engine.retry(run_id)
                with pytest.raises(RunFailed):
                    await (await engine.get(run_id)).result()
        broke, *again, went_well = sorted(
            info.id for info in await engine.runs() if info.id.startswith("rest.")
        )
        assert again == [f"{broke}~1", f"{broke}~2"]
        for run_id in (broke, went_well, again[1], "rest", "rest~1", "report", "report%"):
            assert await engine.find(run_id) == run_id
        assert await engine.find("res") == "rest"
        several = {
            "rep": ("report", "report%"),
            "rest.": (broke, went_well),
            "rest~": ("rest~1", "rest~2"),
            f"{broke}~": tuple(again),
        }
        for prefix, candidates in several.items():
            with pytest.raises(RunNotFound) as raised:
                await engine.find(prefix)
            assert raised.value.candidates == candidates
        for nothing in ("", "RES", "r_st", "re%", "rest!"):
            with pytest.raises(RunNotFound, match="There is no run"):
                await engine.find(nothing)


@awaited
async def test_many_candidates_are_not_all_named(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        for number in range(RunNotFound.CANDIDATES_MAX + 2):
            await engine.start(plain(number), id=f"run-{number:02}")
        with pytest.raises(RunNotFound, match="run-08, run-09 and others"):
            await engine.find("run")


@awaited
async def test_tags_set_by_the_workflow(db: str) -> None:
    @workflow
    async def tagging() -> str:
        tag(stage="one", extra=1)
        await add(1, 1)
        tag(stage="two", extra=None)
        return current_run().id

    async with Engine(db, workflows=[tagging]) as engine:
        assert await engine.run(tagging(), id="t", tags={"who": "me"}) == "t"
        assert (await engine.info("t")).tags == {"who": "me", "stage": "two"}
        assert [info.id for info in await engine.runs(tags={"stage": "two"})] == ["t"]
        assert await engine.runs(tags={"stage": "one"}) == []


@awaited
async def test_an_unknown_workflow_waits_and_doctor_says_why(db: str) -> None:
    async with Engine(db, execute=False) as client:
        await client.start(plain(1), id="p")
    async with Engine(db, workflows=[listen]) as engine:
        assert (await engine.info("p")).status == "pending"
        assert "stuck" in await engine.doctor()
    async with Engine(db, workflows=[plain]) as engine:
        assert await (await engine.get("p")).result() == 2


# --- messages -------------------------------------------------------------------------------------


@awaited
async def test_messages_before_the_receive_wrong_types_and_keys(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        run = await engine.start(listen(3), id="l")
        await run.send("no number", channel="x")
        await run.send(1, channel="x", key="a")
        await run.send(1, channel="x", key="a")
        await run.send(7, channel="elsewhere")
        await run.send(2, channel="x", key="b")
        await run.send(3, channel="x")
        assert await run.result() == [1, 2, 3]
        rejected = [event for event in await run.history() if event.kind == "reject"]
        assert len(rejected) == 1
        assert "Expected `int`, got `str`" in str(rejected[0].data)


@awaited
async def test_messages_to_finished_unknown_and_full_runs(db: str) -> None:
    async with (
        Engine(db, workflows=WORKFLOWS, limits=Limits(inbox_rows_max=3)) as engine,
        Engine(db, execute=False) as client,
    ):
        await engine.run(plain(1), id="done")
        with pytest.raises(
            RunFinished, match=r"Can't send to run 'done': it has ended .completed."
        ):
            await engine.send("done", 1, channel="x")
        with pytest.raises(RunFinished, match="Can't cancel"):
            await engine.cancel("done")
        with pytest.raises(RunFinished, match="Can't pause"):
            await engine.pause("done")
        with pytest.raises(RunNotFound):
            await engine.send("nobody", 1, channel="x")
        run = await engine.start(listen(4), id="l")
        await reached(run, "waiting")
        with pytest.raises(NotSerializable, match="the message on channel 'x'"):
            await run.send(object(), channel="x")
        await engine.pause("l")
        await reached(run, "paused")
        for n in range(3):
            await engine.send("l", n, channel="x")
        with pytest.raises(InboxFull, match="is full: 3 messages wait"):
            await engine.send("l", 9, channel="x")
        await engine.resume("l")
        while (await engine.info("l")).history_rows < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        await client.info("l")
        await engine.send("l", 3, channel="x")
        assert await run.result() == [0, 1, 2, 3]


@awaited
async def test_send_and_start_in_a_workflow(db: str) -> None:
    @workflow
    async def boss() -> list[str]:
        found = [await start(listen(1), id="worker"), await start(listen(1), id="worker")]
        try:
            await start(listen(2), id="worker")
        except RunExists as error:
            found.append(type(error).__name__)
        await send("worker", 5, channel="x")
        try:
            await send("nobody", 5, channel="x")
        except RunNotFound as error:
            found.append(type(error).__name__)
        return found

    async with Engine(db, workflows=[boss, *WORKFLOWS]) as engine:
        assert await engine.run(boss()) == ["worker", "worker", "RunExists", "RunNotFound"]
        assert await (await engine.get("worker")).result() == [5]


# --- streams --------------------------------------------------------------------------------------


@awaited
async def test_streams_are_live_and_complete(db: str) -> None:
    @step
    async def tokens(n: int) -> None:
        emit("tokens", f"step {n}")

    @workflow
    async def talking() -> None:
        for n in range(3):
            emit("tokens", f"workflow {n}")
            await tokens(n)
            await receive("next", bool)

    async with Engine(db, workflows=[talking]) as engine, Engine(db, execute=False) as client:
        run = await engine.start(talking(), id="t")
        seen: list[str] = []
        async for item in (await client.get("t")).stream("tokens"):
            seen.append(item)
            if len(seen) % 2 == 0:
                await run.send(True, channel="next")
        assert seen == ["workflow 0", "step 0", "workflow 1", "step 1", "workflow 2", "step 2"]
        assert [item async for item in run.stream("tokens")] == seen
        assert [item async for item in run.stream("silence")] == []


# --- children -------------------------------------------------------------------------------------


@awaited
async def test_children_their_ids_failures_and_cancellation(db: str) -> None:
    @workflow
    async def parent() -> list[str]:
        found = [str(await plain.options(id="child")(4))]
        try:
            await broken("oh no")
        except RunFailed as error:
            found.append(f"{type(error.__cause__).__name__}: {error.__cause__}")
        try:
            await listen.options(id="victim")(1)
        except RunCancelled as error:
            found.append(error.run_id)
        return found

    async with Engine(db, workflows=[parent]) as engine:
        run = await engine.start(parent(), id="p")
        while not [info for info in await engine.runs() if info.id == "victim"]:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        await engine.cancel("victim")
        assert await run.result() == ["5", "ValueError: oh no", "victim"]
        assert (await engine.info("child")).parent == "p"


@awaited
async def test_a_cancelled_parent_cancels_children_and_steps_and_finally_may_await(db: str) -> None:
    hanging, stopped = asyncio.Event(), asyncio.Event()

    @step
    async def hang() -> None:
        hanging.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    @workflow
    async def parent() -> None:
        try:
            await asyncio.gather(hang(), listen.options(id="child")(1))
        finally:
            emit("log", await add(20, 22))

    async with Engine(db, workflows=[parent, listen]) as engine:
        run = await engine.start(parent(), id="p")
        await hanging.wait()
        await reached(await engine.get("child"), "waiting")
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result()
        await stopped.wait()
        with pytest.raises(RunCancelled):
            await (await engine.get("child")).result()
        assert [item async for item in run.stream("log")] == [42]


@awaited
async def test_cancel_of_waiting_paused_and_blocked_runs(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS, limits=Limits(history_rows_max=3)) as engine:
        for status in ("waiting", "paused", "blocked"):
            run = await engine.start(listen(9), id=status)
            await reached(run, "waiting")
            if status == "paused":
                await engine.pause(status)
                await reached(run, "paused")
            if status == "blocked":
                for _ in range(4):
                    await run.send(1, channel="x")
                await reached(run, "blocked")
            await run.cancel()
            with pytest.raises(RunCancelled, match="was cancelled, so it has no result"):
                await run.result()


# --- continue_as ----------------------------------------------------------------------------------


@workflow
async def counting(total: int, left: int) -> int:
    total += await receive("n", int)
    return total if left == 1 else continue_as(counting(total, left - 1))


@awaited
async def test_continue_as_keeps_id_messages_and_keys(db: str) -> None:
    async with Engine(db, workflows=[counting]) as engine:
        run = await engine.start(counting(0, 3), id="c")
        for n in (1, 10, 10, 100):
            await run.send(n, channel="n", key=f"key-{n}")
        assert await run.result() == 111
        assert await (await engine.get("c")).result() == 111
        assert (await engine.info("c")).args == {"total": 11, "left": 1}
        assert kinds(await engine.history("c"))[0] == "start"


# --- pause, retry, fork ---------------------------------------------------------------------------


@awaited
async def test_retry_of_a_failed_run_goes_on_from_the_failure(db: str) -> None:
    done: list[str] = []
    healthy = False

    @step(retry=None)
    async def work(name: str) -> str:
        done.append(name)
        if name == "second" and not healthy:
            raise ValueError("not yet")
        return name

    @workflow
    async def two() -> list[str]:
        return [await work("first"), await work("second")]

    async with Engine(db, workflows=[two]) as engine:
        with pytest.raises(
            RunFailed, match="Step work failed after 1 attempt: ValueError: not yet"
        ) as raised:
            await engine.run(two(), id="t")
        assert isinstance(raised.value.__cause__, StepFailed)
        healthy = True
        await engine.retry("t")
        assert await (await engine.get("t")).result() == ["first", "second"]
        assert done == ["first", "second", "second"]
        assert (await engine.info("t~1")).status == "failed"


@awaited
async def test_retry_of_a_cancelled_run(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        run = await engine.start(listen(2), id="l")
        await run.send(1, channel="x")
        await reached(run, "waiting")
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result()
        await engine.retry("l")
        await engine.send("l", 2, channel="x")
        assert await (await engine.get("l")).result() == [1, 2]


@awaited
async def test_forks_of_finished_and_running_runs(db: str) -> None:
    done: list[int] = []

    @step
    async def square(n: int) -> int:
        done.append(n)
        return n * n

    @workflow
    async def sums(first: int) -> list[int]:
        one = await square(first)
        two = await square(one)
        return [one, two, await receive("x", int)]

    async with Engine(db, workflows=[sums]) as engine:
        run = await engine.start(sums(2), id="s")
        await reached(run, "waiting")
        first, second = [event.seq for event in await run.history() if event.kind == "step"]
        running = await engine.fork("s", second, new_id="running", result=7)
        await running.send(1, channel="x")
        assert await running.result() == [4, 7, 1]
        await run.send(5, channel="x")
        assert await run.result() == [4, 16, 5]
        assert done == [2, 4]
        forks = [
            await engine.fork("s", first, new_id="again"),
            await engine.fork("s", second, new_id="args", args={"n": 10}),
            await engine.fork("s", 1, new_id="start", args={"first": 3}),
        ]
        for fork in forks:
            await fork.send(0, channel="x")
        assert [await fork.result() for fork in forks] == [[4, 16, 0], [4, 100, 0], [9, 81, 0]]
        assert (await engine.info("args")).forked_from == "s"
        assert await run.result() == [4, 16, 5]
        with pytest.raises(RunExists, match="a fork needs an id of its own"):
            await engine.fork("s", 1, new_id="args")
        with pytest.raises(DefinitionError, match="has no row 99"):
            await engine.fork("s", 99)
        with pytest.raises(RunNotFound):
            await engine.fork("nobody", 1)
    async with Engine(db, workflows=[sums]) as engine:
        (message,) = [
            event.seq for event in await engine.history("args") if event.kind == "message"
        ]
        again = await engine.fork("args", message, new_id="args-2")
        await again.send(3, channel="x")
        assert await again.result() == [4, 100, 3]


# --- limits ---------------------------------------------------------------------------------------


@awaited
async def test_a_history_that_is_too_long_blocks_and_goes_on_with_a_higher_limit(db: str) -> None:
    done: list[int] = []

    @step
    async def count(n: int) -> int:
        done.append(n)
        return n

    @workflow
    async def long() -> int:
        return sum([await count(n) for n in range(20)])

    async with Engine(db, workflows=[long], limits=Limits(history_rows_max=15)) as engine:
        with pytest.raises(
            perdure.HistoryTooLong,
            match=r"the limit is 15\. Let the workflow go on with continue_as",
        ):
            await engine.run(long(), id="l")
        assert await (await engine.get("l")).status() == "blocked"
    async with Engine(db, workflows=[long]) as engine:
        await engine.retry("l")
        assert await (await engine.get("l")).result() == sum(range(20))
    assert done == list(range(20))


@awaited
async def test_a_result_that_is_too_large_fails_its_step_or_run_by_name(db: str) -> None:
    @step
    async def big(n: int) -> str:
        return "x" * n

    @workflow
    async def handle(n: int, times: int) -> str:
        return (await big(n)) * times

    async with Engine(db, workflows=[handle], limits=Limits(payload_bytes_max=1000)) as engine:
        with pytest.raises(
            RunFailed, match=r"result of step big is [0-9,]+ bytes as JSON; the limit is 1,000"
        ):
            await engine.run(handle(2000, 1))
        with pytest.raises(RunFailed, match="result of workflow handle"):
            await engine.run(handle(600, 2))
        assert await engine.run(handle(600, 1)) == "x" * 600


@awaited
async def test_many_parked_runs_are_not_loaded_until_they_have_something_to_do(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS, limits=Limits(runs_parked_max=10)) as engine:
        await asyncio.gather(*(engine.start(listen(1), id=f"l{n}") for n in range(2_000)))
        await reached(await engine.get("l1999"), "waiting")
    async with Engine(db, workflows=WORKFLOWS) as engine:
        assert len(engine._scheduler.memory.active) == 0
        await engine.send("l700", 7, channel="x")
        assert await (await engine.get("l700")).result() == [7]
        assert len(engine._scheduler.memory.active) == 0


# --- engines --------------------------------------------------------------------------------------


@awaited
async def test_an_engine_closes_in_the_middle_of_steps_and_the_next_goes_on(db: str) -> None:
    began, tries = asyncio.Event(), []

    @step
    async def slow() -> int:
        tries.append(1)
        began.set()
        if len(tries) == 1:
            await asyncio.Event().wait()
        return 3

    @workflow
    async def main() -> int:
        return await slow()

    async with Engine(db, workflows=[main], close_grace=0) as engine:
        await engine.start(main(), id="m")
        await began.wait()
    with pytest.raises(EngineClosed, match="This engine is not open"):
        await engine.runs()
    async with Engine(db, workflows=[main]) as engine:
        assert await (await engine.get("m")).result() == 3
    assert len(tries) == 2


def test_the_sync_engine_run_and_memory(db: str) -> None:
    assert perdure.run(plain(1), store=db, id="r") == 2
    assert perdure.run(plain(1), store=db, id="r") == 2
    with SyncEngine(db, workflows=WORKFLOWS) as engine:
        run = engine.start(listen(1), id="l")
        engine.send("l", 4, channel="x")
        assert run.result(timeout=60) == [4]
        assert run.status() == "completed"
        assert [info.id for info in engine.runs()] == ["l", "r"]
        assert list(run.stream("none")) == []
        with pytest.raises(RunNotFound):
            engine.get("nobody")
    with SyncEngine(":memory:", workflows=WORKFLOWS) as engine:
        assert engine.run(plain(5)) == 6


@awaited
async def test_one_store_many_engines_in_a_process(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as one, Engine(db, workflows=WORKFLOWS) as two:
        runs = [await engine.start(plain(n), id=f"{n}") for n, engine in enumerate([one, two] * 5)]
        assert [await run.result() for run in runs] == list(range(1, 11))
        assert await (await one.get("1")).result() == 2
