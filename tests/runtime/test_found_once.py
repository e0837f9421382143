"""Bugs that these tests have found; each test failed once. One test, one bug: the docstring says
what went wrong.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import (
    Engine,
    Limits,
    PerdureError,
    Retry,
    RunBlocked,
    RunCancelled,
    RunExists,
    RunFailed,
    continue_as,
    emit,
    receive,
    step,
    workflow,
)  # fmt: skip
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import EndWorker
from tests.runtime.support import awaited, environment, reached


@workflow
async def listen() -> int:
    return await receive("x", int)


@awaited
async def test_an_evicted_run_wakes_for_its_timer(db: str) -> None:
    """Nobody told the schedule loop of the deadline of a run that had just left memory."""

    @workflow
    async def sleepy() -> int:
        await asyncio.sleep(0.2)
        return 1

    async with Engine(db, workflows=[sleepy], limits=Limits(runs_parked_max=2)) as engine:
        runs = [await engine.start(sleepy(), id=f"s{n}") for n in range(6)]
        assert [await run.result() for run in runs] == [1] * 6


@awaited
async def test_an_evicted_run_wakes_for_a_message(db: str) -> None:
    async with Engine(db, workflows=[listen], limits=Limits(runs_parked_max=2)) as engine:
        runs = [await engine.start(listen(), id=f"s{n}") for n in range(6)]
        for run in runs:
            await reached(run, "waiting")
        for run in runs:
            await run.send(7, channel="x")
        assert [await run.result() for run in runs] == [7] * 6


@awaited
async def test_a_run_that_is_started_after_the_lease_is_lost_is_executed(db: str) -> None:
    """It was written with the ended worker as its owner, executed without a lease, and orphaned
    after the next beat.
    """
    go = asyncio.Event()

    @step
    async def held() -> int:
        await go.wait()
        return 1

    @workflow
    async def main() -> int:
        return await held()

    async def workers(engine: Engine) -> list[int]:
        return [row["worker"] for row in (await engine.doctor())["workers"]]

    async with Engine(db, workflows=[main], lease_ttl=1) as engine:
        (old,) = await workers(engine)
        other = SqliteStore(db, limits=Limits())
        other.write([EndWorker(old, 0, True)], True)
        run = await engine.start(main(), id="m")
        while (await workers(engine)) in ([], [old]):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        go.set()
        assert await run.result() == 1
        other.close()


@awaited
async def test_a_lost_lease_drops_runs_and_the_work_goes_on(db: str) -> None:
    """What the old owner still computes is not recorded; the next attempt is."""
    values, began = iter([1, 2]), asyncio.Event()
    go = asyncio.Event()

    @step
    async def held() -> int:
        mine = next(values)
        began.set()
        if mine == 1:
            await go.wait()
        return mine

    @workflow
    async def main() -> int:
        return await held()

    async with Engine(db, workflows=[main], lease_ttl=60) as engine:
        run = await engine.start(main(), id="m")
        await began.wait()
        other = SqliteStore(db, limits=Limits())
        other.write([EndWorker(1, 0, True)], True)
        go.set()
        assert await run.result() == 2
        ended = [event.result for event in await run.history() if event.kind == "completed"]
        assert ended == [2]
        other.close()


_EXIT = """
import asyncio, sys
from perdure import Engine, RunFailed, step, workflow
@step(transactional=True, retry=None)
def leave(db) -> int:
    sys.exit(3)
@workflow
async def main() -> int:
    return await leave()
async def run():
    async with Engine(sys.argv[1], workflows=[main]) as engine:
        try:
            await (await engine.start(main(), id="m")).result()
        except RunFailed as error:
            print("FAILED", error)
asyncio.run(run())
"""


def test_a_transactional_step_that_calls_sys_exit_fails_and_the_engine_lives(db: str) -> None:
    """SystemExit left the writer's thread through a callback of the event loop, and the engine
    hung.
    """
    done = subprocess.run(
        [sys.executable, "-c", _EXIT, db],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert "FAILED" in done.stdout, done.stderr[-2000:]


@awaited
async def test_a_step_that_raises_a_base_exception_fails(db: str) -> None:
    """Its task died without a word, and the run waited for ever."""

    class OddError(BaseException):
        pass

    @step(retry=None)
    async def bad() -> int:
        raise OddError("odd")

    @workflow
    async def main() -> int:
        return await bad()

    async with Engine(db, workflows=[main], close_grace=0) as engine:
        with pytest.raises(RunFailed, match="odd"):
            await (await engine.start(main())).result()


@awaited
async def test_cancel_of_a_paused_run_stops_its_step(db: str) -> None:
    """The run in memory stayed paused, so it never looked at the cancel."""
    began = asyncio.Event()

    @step
    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    @workflow
    async def main() -> None:
        await hang()

    async with Engine(db, workflows=[main], close_grace=0) as engine:
        run = await engine.start(main(), id="m")
        await began.wait()
        await engine.pause("m")
        await engine.cancel("m")
        with pytest.raises(RunCancelled):
            await run.result()


@awaited
async def test_messages_keep_their_order_over_continue_as(db: str) -> None:
    """What was in the history but not received came behind what was still in the inbox."""

    @workflow
    async def second() -> list[int]:
        return [await receive("x", int), await receive("x", int)]

    @workflow
    async def first() -> list[int]:
        await receive("go", bool)
        continue_as(second())
        return []

    async with Engine(db, workflows=[first, second]) as engine:
        run = await engine.start(first(), id="m")
        await run.send(1, channel="x")
        await reached(run, "waiting")
        await run.send(True, channel="go")
        await run.send(2, channel="x")
        assert await run.result() == [1, 2]


@awaited
async def test_cancel_of_a_blocked_parent_cancels_its_children(db: str) -> None:
    """A blocked run was ended as it stood, and its children went on."""

    @step
    async def one() -> int:
        return 1

    async def many() -> None:
        for _ in range(30):
            await one()

    @workflow
    async def parent() -> None:
        await asyncio.gather(listen.options(id="child")(), many())

    async with Engine(db, workflows=[parent, listen], limits=Limits(history_rows_max=20)) as engine:
        run = await engine.start(parent(), id="m")
        await reached(run, "blocked")
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result()
        with pytest.raises(RunCancelled):
            await (await engine.get("child")).result()


@awaited
async def test_who_waits_for_a_result_is_told_when_the_engine_closes(db: str) -> None:
    async with Engine(db, workflows=[listen]) as engine:
        run = await engine.start(listen(), id="m")
        waiting = asyncio.create_task(run.result())
        await reached(run, "waiting")
    with pytest.raises(PerdureError):
        await asyncio.wait_for(waiting, 60)


@awaited
async def test_pause_and_resume_keep_the_time_at_which_a_run_is_to_start(db: str) -> None:
    """It started at once."""
    at = datetime.now(UTC) + timedelta(hours=1)
    async with Engine(db, workflows=[listen]) as engine:
        run = await engine.start(listen(), id="m", at=at)
        before = (await run.info()).due_at
        await engine.pause("m")
        await engine.resume("m")
        assert (await run.info()).due_at == before


@awaited
async def test_a_resolution_of_the_wrong_type_is_refused_and_not_recorded(db: str) -> None:
    """It was recorded, the run blocked for good, and a second word was refused."""
    began = asyncio.Event()

    @step(on_crash="ask")
    async def asked() -> int:
        began.set()
        await asyncio.Event().wait()
        return 1

    @workflow
    async def main() -> int:
        return await asked()

    async with Engine(db, workflows=[main], close_grace=0) as engine:
        await engine.start(main(), id="m")
        await began.wait()
    async with Engine(db, workflows=[main]) as engine:
        run = await engine.get("m")
        await reached(run, "blocked")
        with pytest.raises(PerdureError, match="does not fit"):
            await engine.resolve("m", result="no number")
        await engine.resolve("m", result=5)
        assert await run.result() == 5


@awaited
async def test_a_paused_run_makes_no_further_attempts(db: str) -> None:
    """Retries of a step went on while its run was paused."""
    began, tries = asyncio.Event(), []

    @step(retry=Retry(attempts=200, delay=0.005, factor=1, jitter=False))
    async def flaky() -> int:
        tries.append(1)
        began.set()
        raise ValueError("again")

    @workflow
    async def main() -> int:
        return await flaky()

    async with Engine(db, workflows=[main]) as engine:
        run = await engine.start(main(), id="m")
        await began.wait()
        await engine.pause("m")
        while (await run.info()).owner is not None and len(tries) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert len(tries) <= 3
        await run.cancel()


@awaited
async def test_a_retried_run_keeps_the_stream_items_of_the_history_that_it_keeps(db: str) -> None:
    """Items were left with the failed run."""
    healthy = False

    @step(retry=None)
    async def work() -> None:
        if not healthy:
            raise ValueError("not yet")

    @workflow
    async def main() -> None:
        emit("log", "before")
        await work()
        emit("log", "after")

    async with Engine(db, workflows=[main]) as engine:
        run = await engine.start(main(), id="m")
        with pytest.raises(RunFailed):
            await run.result()
        healthy = True
        await engine.retry("m")
        await run.result()
        assert [item async for item in run.stream("log")] == ["before", "after"]


@awaited
async def test_a_stream_goes_on_over_continue_as(db: str) -> None:
    """`result()` follows the successor; a reader of the stream stopped at the end of
    the first run."""

    @workflow
    async def second() -> None:
        emit("log", 2)

    @workflow
    async def first() -> None:
        await receive("go", bool)
        emit("log", 1)
        continue_as(second())

    async with Engine(db, workflows=[first, second]) as engine:
        run = await engine.start(first(), id="m")

        async def read() -> list[int]:
            return [item async for item in run.stream("log")]

        reading = asyncio.create_task(read())
        await reached(run, "waiting")
        await run.send(True, channel="go")
        await run.result()
        assert await asyncio.wait_for(reading, 60) == [1, 2]


@awaited
async def test_an_engine_closes_while_its_loops_are_being_woken(db: str) -> None:
    """Python 3.11's `wait_for` swallows a cancellation that comes together with what it waits for;
    closing hung.
    """
    for _ in range(5):
        async with Engine(db, workflows=[listen]) as engine:
            engine._scheduler.claims.wake()


@awaited
async def test_a_note_that_is_made_while_a_transaction_is_under_way_keeps_the_order_of_rows(
    db: str,
) -> None:
    """The transactional step's outcome had its row number already, the note took the next one, and
    on replay the
    commands behind the outcome were numbered as if the note were not there: their answers were
    never found.
    """
    failed = threading.Event()
    tries: list[int] = []

    @step(transactional=True)
    def transaction(connection: Any) -> int:
        assert failed.wait(60)
        return 1

    @step(retry=Retry(attempts=2, delay=0))
    async def flaky() -> int:
        tries.append(1)
        if len(tries) == 1:
            failed.set()
            raise ValueError("once")
        return 2

    @step
    async def after() -> int:
        return 3

    @workflow
    async def main() -> list[int]:
        async def branch() -> int:
            return await transaction() + await after()

        found = await asyncio.gather(branch(), flaky())
        return [*found, await receive("x", int)]

    async with Engine(db, workflows=[main]) as engine:
        await reached(await engine.start(main(), id="m"), "waiting")
    async with Engine(db, workflows=[main]) as engine:
        run = await engine.get("m")
        await run.send(9, channel="x")
        assert await run.result() == [4, 2, 9]


@awaited
async def test_an_engine_that_closes_while_a_transaction_is_under_way_leaves_a_history_that_replays(
    db: str,
) -> None:
    """Letting go wrote a note behind the outcome that was still on its way; the next engine's rows
    met it.
    """
    began, go = threading.Event(), threading.Event()

    @step(transactional=True)
    def transaction(connection: Any) -> int:
        began.set()
        assert go.wait(60)
        return 1

    @step
    async def after() -> int:
        return 3

    @workflow
    async def main() -> int:
        return await transaction() + await after()

    async with Engine(db, workflows=[main], close_grace=0) as engine:
        await engine.start(main(), id="m")
        assert await asyncio.to_thread(began.wait, 60)
        asyncio.get_running_loop().call_later(0.05, go.set)
    async with Engine(db, workflows=[main]) as engine:
        assert await (await engine.get("m")).result() == 4


@awaited
async def test_a_known_key_is_taken_without_a_word_also_after_the_end(db: str) -> None:
    """A webhook that was sent again got RunFinished, though its message had arrived."""
    async with Engine(db, workflows=[listen]) as engine:
        run = await engine.start(listen(), id="m")
        await run.send(7, channel="x", key="k")
        assert await run.result() == 7
        await run.send(7, channel="x", key="k")


@awaited
async def test_resume_of_a_blocked_run_says_that_it_is_blocked(db: str) -> None:
    """It said that it had resumed the run, and did nothing."""

    @workflow
    async def endless() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async with Engine(db, workflows=[endless]) as engine:
        run = await engine.start(endless(), id="m")
        await reached(run, "blocked")
        with pytest.raises(RunBlocked, match="without waiting"):
            await engine.resume("m")
        with pytest.raises(RunBlocked) as error:
            await run.result()
        assert type(error.value) is RunBlocked


@awaited
async def test_a_step_that_a_message_leads_to_during_recovery_is_executed_once_and_after_its_commit(
    db: str,
) -> None:
    """It was taken for one that had begun before the crash: begun at once, begun again after the
    commit, noted as a crash.
    """
    executed: list[int] = []

    @step
    async def effect(n: int) -> int:
        executed.append(n)
        await asyncio.sleep(0)
        return n

    @workflow
    async def patient() -> int:
        return await effect(await receive("x", int))

    async with Engine(db, workflows=[patient]) as engine:
        await reached(await engine.start(patient(), id="p"), "waiting")
    async with Engine(
        db
    ) as engine:  # does not know the workflow, so the message waits in the inbox
        await engine.send("p", 7, channel="x")
    async with Engine(db, workflows=[patient]) as engine:
        assert await (await engine.get("p")).result() == 7
        history = [event.kind for event in await engine.history("p")]
    assert (executed, history.count("attempt")) == ([7], 0)


@awaited
async def test_starting_again_what_has_gone_on_as_another_call_gives_the_run(db: str) -> None:
    """A client that died and started its run again got RunExists, because the id belonged to the
    successor by then.
    """

    @workflow
    async def count(n: int) -> int:
        return n if n == 3 else await continue_as(count(n + 1))

    async with Engine(db, workflows=[count]) as engine:
        assert await engine.run(count(0), id="c") == 3
        for same in (0, 3):
            assert await (await engine.start(count(same), id="c")).result() == 3
        with pytest.raises(RunExists):
            await engine.start(count(2), id="c")
