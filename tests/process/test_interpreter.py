"""Which Python executed a run is recorded, told where it may be why code and history part, and
changed when the run goes on.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import apsw
import pytest

import perdure
from perdure import Engine, Nondeterminism, receive, step, workflow
from perdure.check.replay import Checker
from perdure.process.interpreter import PYTHON, is_other, with_python
from tests.runtime.support import awaited, kinds, reached
from tests.store.support import make_older


@step
async def charge(n: int) -> int:
    return n


@workflow
async def order() -> int:
    paid = await charge(1)
    await receive("go", bool)
    return paid


@workflow(name="order")
async def changed() -> int:
    return await charge(2)


def tell(db: str, sql: str) -> Any:
    """Change the file as another Python, or an earlier version, would have left it."""
    connection = apsw.Connection(db)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def parked(db: str, *workflows: Any) -> None:
    async with Engine(db, workflows=[order]) as engine:
        await reached(await engine.start(order(), id="o"), "waiting")


def python_of(db: str) -> Any:
    return tell(db, "SELECT python FROM perdure_runs WHERE id = 'o'")[0][0]


@awaited
async def test_a_run_has_the_python_that_executed_it_last(db: str) -> None:
    await parked(db)
    assert python_of(db) == PYTHON == f"{sys.version_info[0]}.{sys.version_info[1]}"
    tell(db, "UPDATE run SET python = '3.99'")
    async with Engine(db, workflows=[order]) as engine:
        run = await engine.get("o")
        assert (await run.info()).python == "3.99"  # nothing has executed it here yet
        await run.send(True, channel="go")
        assert await run.result() == 1
        assert (await run.info()).python == PYTHON


@pytest.mark.parametrize("by", ["start", "claim", "child", "fork"])
@awaited
async def test_however_a_run_comes_to_be_executed_its_python_is_recorded(db: str, by: str) -> None:
    @workflow
    async def parent() -> int:
        return await leaf() if by == "child" else await charge(1)

    @workflow
    async def leaf() -> int:
        return await charge(1)

    if by == "claim":
        async with Engine(db, execute=False) as client:
            await client.start(parent(), id="r")
        assert tell(db, "SELECT python FROM run") == [(None,)]
    async with Engine(db, workflows=[parent, leaf]) as engine:
        run = await engine.start(parent(), id="r")
        await run.result()
        if by == "fork":
            await (await engine.fork("r", at=3)).result()
    assert tell(db, "SELECT DISTINCT python FROM run") == [(PYTHON,)]


@awaited
async def test_where_code_and_history_part_the_other_python_is_told(db: str) -> None:
    await parked(db)
    for python, told in (("3.99", True), (PYTHON, False)):
        tell(db, f"UPDATE run SET python = '{python}'")
        async with Engine(db, workflows=[changed]) as engine:
            await engine.send("o", True, channel="go")
            with pytest.raises(Nondeterminism) as caught:
                await (await engine.get("o")).result()
        assert (f"executed by Python 3.99, this is {PYTHON}" in str(caught.value)) is told
        assert python_of(db) == python
        checker = Checker(db, {"order": changed})
        (found,) = [checker.check(run) for run in checker.unfinished()]
        checker.close()
        assert found is not None
        assert found.python == (python if told else None)
        assert ("executed by Python 3.99" in (found.reason or "")) is told


@awaited
async def test_a_file_from_before_is_read_as_it_is_and_its_runs_keep_their_order(db: str) -> None:
    await parked(db)
    make_older(db, 3)
    checker = Checker(db, {"order": order})
    assert [checker.check(run).verdict for run in checker.unfinished()] == ["ok"]  # type: ignore[union-attr]
    checker.close()
    async with Engine(db, workflows=[order]) as engine:
        run = await engine.get("o")
        await reached(run, "waiting")
        active = engine._scheduler.new_active(engine._store.run_row(engine._store.run_key("o")))
        assert active.kernel.facts.old
        await run.send(True, channel="go")
        assert await run.result() == 1
        assert kinds(await run.history()) == ["start", "step", "completed", "message", "finish"]
    assert python_of(db) is None  # so that it stays known as one whose order is the old one


def test_the_reason_says_what_may_differ_where_something_does() -> None:
    assert with_python("why", None) == with_python("why", PYTHON) == "why"
    assert with_python("why", "PyPy 3.11").startswith(
        "why\nThe run was executed by Python PyPy 3.11"
    )
    assert not is_other(None)


def test_the_view_has_it(db: str) -> None:
    asyncio.run(_make(db))
    assert perdure.connect(db).execute("SELECT python FROM perdure_runs").fetchall() == [(PYTHON,)]


async def _make(db: str) -> None:
    async with Engine(db, workflows=[order]) as engine:
        await engine.start(order(), id="o")
