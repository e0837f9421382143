"""What retry and fork keep, cut and ask, kind by kind: the table in docs/explain/retry-and-fork.md.

Rules: the invariants over random programs are in tests/invariants/test_forks.py; here each kind
has a case that can be read.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import (
    DefinitionError,
    Engine,
    Retry,
    RunFailed,
    StepFailed,
    current_run,
    current_step,
    emit,
    receive,
    send,
    start,
    step,
    workflow,
)
from perdure.testing import CrashHarness
from tests.runtime.support import awaited, kinds, reached

down: set[str] = set()
keys: dict[str, list[str]] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    down.clear()
    keys.clear()


@step(retry=None)
async def work(name: str) -> str:
    keys.setdefault(name, []).append(current_step().idempotency_key)
    if name in down:
        raise ConnectionError(f"{name} is down")
    return name


async def failed(engine: Engine, call: Any, run_id: str = "r") -> BaseException:
    with pytest.raises(RunFailed) as raised:
        await engine.run(call, id=run_id)
    assert raised.value.__cause__ is not None
    return raised.value.__cause__


async def result(engine: Engine, run_id: str = "r") -> Any:
    return await (await engine.get(run_id)).result(timeout=60)


@workflow
async def order(n: int) -> str:
    await work(f"charge {n}")
    return await work(f"ship {n}")


@workflow
async def basket() -> list[str]:
    return list(await asyncio.gather(order(1), order.options(id="second")(2)))


@awaited
async def test_a_failed_child_is_retried_under_its_own_id_and_keeps_its_steps(db: str) -> None:
    down.update({"ship 1", "ship 2"})
    async with Engine(db, workflows=[basket]) as engine:
        await failed(engine, basket())
        down.clear()
        await engine.retry("r")
        assert await result(engine) == ["ship 1", "ship 2"]
        assert all(len(set(found)) == 1 for found in keys.values())
        assert len(keys["charge 1"]) == len(keys["charge 2"]) == 1
        assert (await engine.info("second~1")).status in ("failed", "cancelled")


@awaited
async def test_a_child_that_a_person_retries_answers_its_parent_once_and_is_found_by_its_retry(
    db: str,
) -> None:
    down.add("ship 2")
    async with Engine(db, workflows=[basket]) as engine:
        await failed(engine, basket())
        down.clear()
        await engine.retry("second")
        assert await result(engine, "second") == "ship 2"
        await engine.retry("r")
        assert await result(engine) == ["ship 1", "ship 2"]
        assert len(keys["charge 2"]) == 1
        assert len(keys["ship 2"]) == 2
        assert len(set(keys["ship 2"])) == 1


@workflow
async def tidying() -> str:
    try:
        return await work("main")
    finally:
        await work("tidy")


@awaited
async def test_a_failure_is_taken_back_from_behind_clean_up_that_failed_too(db: str) -> None:
    down.update({"main", "tidy"})
    async with Engine(db, workflows=[tidying]) as engine:
        error = await failed(engine, tidying())
        assert "tidy is down" in str(error)
        down.clear()
        await engine.retry("r")
        assert await result(engine) == "main"
        assert len(set(keys["main"])) == len(set(keys["tidy"])) == 1


@awaited
async def test_a_client_without_the_code_goes_by_the_recorded_error(db: str) -> None:
    down.add("main")
    async with Engine(db, workflows=[tidying]) as engine:
        await failed(engine, tidying())
    down.clear()
    async with Engine(db, execute=False) as client:
        await client.retry("r")
    async with Engine(db, workflows=[tidying]) as engine:
        assert await result(engine) == "main"
        assert len(set(keys["main"])) == 1


@workflow
async def reusing(rows: int) -> str:
    try:
        await work("first")
    except StepFailed:
        await asyncio.gather(*(work(f"repair {n}") for n in range(rows)))
        raise
    return ", ".join(await asyncio.gather(*(work(f"later {n}") for n in range(rows))))


@awaited
async def test_a_row_number_that_comes_again_is_another_idempotency_key(db: str) -> None:
    down.add("first")
    async with Engine(db, workflows=[reusing]) as engine:
        await failed(engine, reusing(6))
        down.clear()
        await engine.retry("r")
        assert await result(engine) == ", ".join(f"later {n}" for n in range(6))
        used = [key for found in keys.values() for key in set(found)]
        assert len(used) == len(set(used)) == 13


@workflow
async def patient(how: str = "timeout") -> str:
    await asyncio.sleep(0.01)
    await work("before")
    if how == "wait_for":
        return await asyncio.wait_for(slow(), 0.2)
    if how == "library":
        return await _library_timeout(0.2)
    async with asyncio.timeout(0.2):
        return await slow()


async def _library_timeout(seconds: float) -> str:
    """A timeout as a library makes one, out of the loop's timers."""
    task = asyncio.ensure_future(slow())
    handle = asyncio.get_running_loop().call_later(seconds, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise TimeoutError("too slow") from None
    finally:
        handle.cancel()


@step
async def slow() -> str:
    await asyncio.sleep(5 if "slow" in down else 0)
    return "slow"


def test_a_timeout_that_ended_the_run_gets_its_whole_length_again(
    perdure_time: CrashHarness,
) -> None:
    """In virtual time: a slow disk would use up the time limit of the second try as well."""

    async def main() -> None:
        async with perdure_time.engine(workflows=[patient]) as engine:
            for how in ("timeout", "wait_for", "library"):
                down.add("slow")
                assert isinstance(await failed(engine, patient(how), how), TimeoutError)
                down.clear()
                await engine.retry(how)
                assert await result(engine, how) == "slow"
            down.add("slow")
            with pytest.raises(RunFailed):
                await engine.run(patient(), id="limited", timeout=0.1)
            down.clear()
            await engine.retry("limited")
            assert await result(engine, "limited") == "slow"
            assert len(keys["before"]) == 4

    perdure_time.run(main())


bug = True


@workflow
async def buggy() -> str:
    async with asyncio.TaskGroup() as group:
        sent = group.create_task(_notify())
        other = group.create_task(work("other"))
        if await work("quick") and bug:
            raise KeyError("a bug")
    return f"{sent.result()} {other.result()}"


async def _notify() -> str:
    try:
        await receive("never")
    except asyncio.CancelledError:
        await work("clean")
        raise
    return "notified"


@awaited
async def test_a_run_whose_own_code_raised_goes_on_with_code_that_was_put_right(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the error stand an abandoned task and a step of the clean-up, which the new code does
    not ask for.
    """
    down.add("other")
    async with Engine(db, workflows=[buggy]) as engine:
        await failed(engine, buggy())
        down.clear()
        await engine.retry("r")
        assert await (await engine.get("r")).status() != "blocked"
        with pytest.raises(
            RunFailed
        ):  # with unchanged code it raises again, without doing more than it has to
            await result(engine)
        monkeypatch.setitem(globals(), "bug", False)
        await engine.retry("r")
        await engine.send("r", 1, channel="never")
        assert await result(engine) == "notified other"
        assert len(set(keys["quick"])) == 1


@awaited
async def test_messages_behind_the_cut_come_back_in_their_order_and_their_keys_stay_used(
    db: str,
) -> None:
    down.add("open")
    async with Engine(db, workflows=[mailbox]) as engine:
        run = await engine.start(mailbox(3), id="r")
        await reached(run, "waiting")
        for n in (1, 2):
            await run.send(n, channel="in", key=f"key {n}")
        with pytest.raises(RunFailed):
            await run.result()
        down.clear()
        await engine.retry("r")
        for n in (1, 2, 3):
            await engine.send("r", n, channel="in", key=f"key {n}")
        assert await result(engine) == [1, 2, 3]


@workflow
async def mailbox(n: int) -> list[int]:
    try:
        await work("open")
    except StepFailed:
        await receive("in", int)
        await receive("in", int)
        raise
    return [await receive("in", int) for _ in range(n)]


beats: list[Any] = []


@step(on_crash="ask", retry=Retry(attempts=2, delay=0.01))
async def careful() -> int:
    beats.append(current_step().last_heartbeat)
    current_step().heartbeat(len(beats))
    if "careful" in down and len(beats) < 4:
        raise ConnectionError("not yet")
    return len(beats)


@workflow
async def one_careful_step() -> int:
    return await careful()


@awaited
async def test_a_retried_step_has_its_whole_policy_and_its_heartbeat_and_is_not_asked_about(
    db: str,
) -> None:
    beats.clear()
    down.add("careful")
    async with Engine(db, workflows=[one_careful_step]) as engine:
        await failed(engine, one_careful_step())
        assert len(beats) == 2
        await engine.retry("r")
        assert await result(engine) == 4  # two attempts more
        assert beats == [None, 1, 2, 3]


@workflow
async def outward() -> str:
    await work("before")
    other = await start(order(7))
    await send("sink", "hello", channel="x")
    emit("log", "sent")
    await send(current_run().id, "me", channel="own")
    await work(f"told {current_run().id}")
    return other


@workflow
async def sink() -> list[str]:
    found: list[str] = []
    while len(found) < 3:
        found.append(await receive("x", str))
    return found


@awaited
async def test_a_fork_of_a_run_that_knows_its_own_id_replays_and_repeats_nothing_before_the_cut(
    db: str,
) -> None:
    async with Engine(db, workflows=[outward, sink]) as engine:
        await engine.start(sink(), id="sink")
        run = await engine.start(outward(), id="r")
        other = await run.result()
        last = next(
            event.seq for event in await run.history() if event.name == "work" and event.seq > 2
        )
        fork = await engine.fork("r", last, new_id="f")
        assert await fork.result() == other
        of_fork = await engine.fork("f", last, new_id="g")
        assert await of_fork.result() == other
        assert [name for name in keys if name.startswith("told")] == ["told r"]
        anew = await engine.fork("r", 1, new_id="h")
        assert await anew.result() != other
        assert "told h" in keys
        received = [event.data for event in await engine.history("sink") if event.kind == "message"]
        assert received == ["hello", "hello"]  # of the run, and of the fork that has begun anew


@awaited
async def test_an_earlier_generation_can_be_forked_and_not_retried(db: str) -> None:
    down.add("told r")
    async with Engine(db, workflows=[outward, sink]) as engine:
        await engine.start(sink(), id="sink")
        await failed(engine, outward())
        down.clear()
        await engine.retry("r")
        await result(engine)
        with pytest.raises(
            DefinitionError, match="'r~1' is an earlier generation of a run that goes on as 'r'"
        ):
            await engine.retry("r~1")
        seq = next(event.seq for event in await engine.history("r~1") if event.kind == "failed")
        fork = await engine.fork("r~1", seq, new_id="f")
        assert await fork.result()
        assert sum(event.kind == "message" for event in await engine.history("sink")) == 1


@awaited
async def test_a_cancelled_run_goes_on_where_it_was_also_after_two_cancels(db: str) -> None:
    async with Engine(db, workflows=[waiting_with_clean_up]) as engine:
        run = await engine.start(waiting_with_clean_up(), id="r")
        await reached(run, "waiting")
        await asyncio.gather(run.cancel(), run.cancel())
        await asyncio.gather(run.result(), return_exceptions=True)
        assert await run.status() == "cancelled"
        await engine.retry("r")
        await reached(await engine.get("r"), "waiting")
        await engine.send("r", 5, channel="go")
        assert await result(engine) == 5
        assert kinds(await engine.history("r")).count("cancel") == 0


@workflow
async def waiting_with_clean_up() -> int:
    try:
        return await receive("go", int)
    finally:
        await work("clean")
