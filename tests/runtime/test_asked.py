"""An engine that executes what it is asked for: that run, what it has started, and nothing else
that is due in the file.
"""

from __future__ import annotations

import asyncio
from typing import Any

import apsw
import pytest

import perdure
from perdure import Engine, RunFailed, StepFailed, continue_as, receive, send, start, step, workflow
from perdure.errors import DefinitionError
from tests.runtime.support import awaited, outside, reached


@step
async def same(n: int) -> int:
    return n


@step
async def break_unless(path: str) -> str:
    with open(path) as file:  # noqa: ASYNC230
        return file.read()


@workflow
async def other(n: int) -> int:
    return await same(n)


@workflow
async def helper(to: str) -> None:
    await asyncio.sleep(0.001)
    await send(to, "done", channel="news")


@workflow
async def child(n: int, to: str) -> int:
    await start(helper(to), id=f"helper-{n}")  # its grandchild, so to say, and the run waits for it
    await asyncio.sleep(0.001)
    return n


@workflow
async def whole(n: int) -> str:
    await child(n, "x")
    told = await receive("news", str)
    if n:
        continue_as(whole(n - 1))
    return told


@workflow
async def mended(path: str) -> str:
    return await reading(path)


@workflow
async def reading(path: str) -> str:
    return await break_unless(path)


@workflow
async def receives() -> str:
    return await receive("news", str)


ALL: list[Any] = [other, whole, helper, child, mended, reading, receives]


async def leave(db: str, *calls: tuple[Any, str]) -> None:
    """Runs that are due and that no engine executes."""
    async with Engine(db, execute=False) as client:
        for call, run_id in calls:
            await client.start(call, id=run_id)


def statuses(db: str) -> dict[str, str]:
    return {row["id"]: row["status"] for row in outside(db, "SELECT id, status FROM perdure_runs")}


@awaited
async def test_a_run_is_executed_with_children_runs_that_it_starts_and_successors(db: str) -> None:
    await leave(db, *((other(n), f"other-{n}") for n in range(3)), (whole(2), "x"))
    async with Engine(db, workflows=ALL, execute="asked") as engine:
        assert await engine.run(whole(2), id="x") == "done"
        assert await engine.left_to_workers() == 3
    found = statuses(db)
    assert {
        run_id: found.pop(run_id) for run_id in list(found) if run_id.startswith("other")
    } == dict.fromkeys(("other-0", "other-1", "other-2"), "pending")
    assert {run_id for run_id, status in found.items() if status == "completed"} >= {
        "x~1",
        "x~2",
        "x",
        "helper-2",
        "helper-1",
    }
    async with Engine(db, workflows=ALL) as worker:
        assert [await (await worker.get(f"other-{n}")).result() for n in range(3)] == [0, 1, 2]


@awaited
async def test_a_run_that_was_left_in_the_middle_goes_on_with_all_that_belongs_to_it(
    db: str,
) -> None:
    """Children, and the runs that these have started, are known in the next process, too."""
    async with Engine(db, workflows=ALL) as first:
        await first.start(
            whole(0), id="x"
        )  # it may wait or have ended by now: closing leaves it where it is
    await leave(db, (other(1), "other"))
    async with Engine(db, workflows=ALL, execute="asked") as engine:
        assert await (await engine.get("x")).result() == "done"
    assert statuses(db)["other"] == "pending"


def test_perdure_run_leaves_other_runs_alone(db: str) -> None:
    asyncio.run(leave(db, (other(1), "left")))
    assert perdure.run(other(2), store=db, id="asked") == 2
    assert statuses(db) == {"left": "pending", "asked": "completed"}
    assert perdure.run(other(1), store=db, id="left") == 1


@awaited
async def test_a_retry_keeps_the_family(db: str, tmp_path: Any) -> None:
    path = tmp_path / "there"
    async with Engine(db, workflows=ALL) as engine:
        with pytest.raises((RunFailed, StepFailed)):
            await engine.run(mended(str(path)), id="m")
    path.write_text("there")
    async with Engine(db, execute=False) as client:
        await client.retry("m")
        await client.start(other(1), id="other")
    async with Engine(db, workflows=ALL, execute="asked") as engine:
        assert await (await engine.get("m")).result() == "there"
    assert statuses(db)["other"] == "pending"


@awaited
async def test_blocked_runs_of_others_get_no_other_try(db: str) -> None:
    """New code may let them go on, and nobody here would execute them."""
    await leave(db, (other(1), "one"), (other(1), "two"))
    with apsw.Connection(db) as by_hand:
        by_hand.execute(
            "UPDATE run SET status = 'blocked', blocked_by = 'code', reason = 'old code', "
            "due_ms = NULL"
        )
    async with Engine(db, workflows=ALL, execute="asked") as engine:
        assert [(one.id, one.by) for one in await engine.blocked("two")] == [("two", "code")]
        assert await engine.run(other(1), id="one") == 1
    assert statuses(db) == {"one": "completed", "two": "blocked"}


@awaited
async def test_what_is_waited_for_is_asked_for_and_what_was_told_is_not_any_more(db: str) -> None:
    await leave(db, (receives(), "r"), (other(1), "one"))
    async with Engine(db, workflows=ALL, execute="asked") as engine:
        run = await engine.get("r")
        waiting = asyncio.ensure_future(run.result())
        await reached(run, "waiting")
        assert statuses(db)["one"] == "pending"
        await run.send("hello", channel="news")
        assert await waiting == "hello"
        assert engine._scheduler.claims.families == {}
        assert await (await engine.get("one")).result() == 1


@awaited
async def test_a_worker_takes_what_an_engine_leaves_and_nothing_is_reported_as_left_then(
    db: str,
) -> None:
    async with (
        Engine(db, workflows=ALL, execute="asked") as asked,
        Engine(db, workflows=ALL) as worker,
    ):
        run = await asked.start(receives(), id="r")
        assert await worker.run(other(1), id="o") == 1
        await leave(db, *((other(n), f"o-{n}") for n in range(4)))
        assert [await (await worker.get(f"o-{n}")).result() for n in range(4)] == [0, 1, 2, 3]
        assert await asked.left_to_workers() == 0
        await run.send("done", channel="news")
        assert await run.result() == "done"


def test_execute_is_one_of_three(db: str) -> None:
    with pytest.raises(DefinitionError, match='"asked"'):
        Engine(db, execute="mine")  # type: ignore[arg-type]
