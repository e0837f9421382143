"""Sagas: whatever happens, at whatever time, either the block ends well or all of it is undone, and
what can't be undone is reported.
"""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    CompensationFailed,
    DefinitionError,
    Engine,
    Retry,
    RunFailed,
    Saga,
    StepFailed,
    continue_as,
    receive,
    step,
    workflow,
)
from perdure.errors import CallCancelled
from perdure.testing import assert_survives_every_crash
from tests.runtime.support import awaited, executed_again

HERE_ONLY: tuple[int, ...] = ()
WORLD: set[str] = set()
"""What is reserved outside: both steps may be repeated."""
LOG: list[str] = []


@step
async def reserve(what: str) -> None:
    WORLD.add(what)
    await asyncio.sleep(1)


@step(retry=Retry(attempts=3, delay=0.5, jitter=False))
async def release(what: str) -> None:
    await asyncio.sleep(0.25)
    WORLD.discard(what)


@step(retry=None)
async def pay(cents: int) -> str:
    await asyncio.sleep(1)
    if cents > 100:
        raise ValueError("no money")
    return "receipt"


@step(retry=None)
async def log(line: str) -> str:
    LOG.append(line)
    return line


@step(retry=None)
async def broken(line: str) -> None:
    raise OSError(f"can't {line}")


@workflow
async def released(what: str) -> None:
    """A compensation of several steps."""
    await asyncio.sleep(1)
    await release(what)


@workflow
async def trip(cents: int) -> str:
    async with Saga() as saga:
        saga.undo(release("flight"))
        await reserve("flight")
        saga.undo(released("hotel"))
        await reserve("hotel")
        return await pay(cents)


# --- the law --------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_s", [None, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.2, 3.5, 4])
def test_a_trip_that_is_not_paid_is_undone_whenever_it_crashes_or_is_cancelled(
    after_s: float | None,
) -> None:
    assert assert_survives_every_crash(
        trip(900),
        cancel_after=after_s,
        once=lambda: sorted(WORLD),
        before_each=WORLD.clear,
        same=lambda one, other: True,  # a crash may change which comes first, cancel or failure
        hash_seeds=HERE_ONLY,
    ).crashes
    assert set() == WORLD


def test_a_trip_that_is_paid_is_kept() -> None:
    assert_survives_every_crash(
        trip(9), once=lambda: sorted(WORLD), before_each=WORLD.clear, hash_seeds=HERE_ONLY
    )
    assert {"flight", "hotel"} == WORLD


def test_a_time_limit_of_the_run_undoes() -> None:
    for timeout in (0.5, 1.5, 2.5):
        assert_survives_every_crash(
            trip(9),
            timeout=timeout,
            once=lambda: sorted(WORLD),
            before_each=WORLD.clear,
            hash_seeds=HERE_ONLY,
        )
        assert set() == WORLD


# --- one by one -----------------------------------------------------------------------------------


def outcome_of(call: Any, **options: Any) -> Any:
    """The result of a run, or what it failed with; warnings are errors."""

    async def main() -> Any:
        LOG.clear()
        async with Engine(":memory:", **options) as engine:
            try:
                return await engine.run(call)
            except RunFailed as error:
                return error.__cause__

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return asyncio.run(main())


@workflow
async def undoes_three(compensations: list[str]) -> str:
    async with Saga() as saga:
        for one in compensations:
            saga.undo(broken(one) if one.startswith("!") else log(one))
        await pay(900)
    return "done"


def test_compensations_run_in_reverse_and_the_error_goes_on() -> None:
    error = outcome_of(undoes_three(["a", "b", "c"]))
    assert isinstance(error, StepFailed)
    assert "no money" in str(error)
    assert LOG == ["c", "b", "a"]


def test_all_are_carried_out_and_what_failed_is_reported() -> None:
    error = outcome_of(undoes_three(["a", "!b", "c", "!d"]))
    assert LOG == ["c", "a"]
    assert isinstance(error, CompensationFailed)
    assert error.not_undone == ("broken('!d')", "broken('!b')")
    assert error.undone == ("log('c')", "log('a')")
    assert [type(one) for one in error.exceptions] == [StepFailed, StepFailed]
    assert isinstance(error.__cause__, StepFailed)
    assert "2 of 4 compensations failed, after StepFailed: Step pay failed" in str(error)


def test_a_block_that_ends_well_undoes_nothing_and_warns_of_nothing() -> None:
    @workflow
    async def books(how: str) -> str:
        for _ in range(1):
            async with Saga() as saga:
                saga.undo(log("undone"))
                saga.undo(undoes_three(["a"]))
                saga.undo(asyncio.sleep(1))
                match how:
                    case "return":
                        return how
                    case "break":
                        break
                    case "continue_as":
                        continue_as(books("end"))
        return how

    assert [outcome_of(books(how)) for how in ("return", "break", "end", "continue_as")] == [
        "return",
        "break",
        "end",
        "end",
    ]
    assert LOG == []


def test_a_saga_in_a_saga_undoes_the_inner_one_first() -> None:
    @workflow
    async def nested() -> None:
        async with Saga() as outer:
            outer.undo(log("outer"))
            async with Saga() as inner:
                inner.undo(log("inner"))
                await pay(900)

    assert isinstance(outcome_of(nested()), StepFailed)
    assert LOG == ["inner", "outer"]


def test_a_group_of_errors_undoes() -> None:
    @workflow
    async def grouped() -> None:
        async with Saga() as saga, asyncio.TaskGroup() as group:
            saga.undo(log("undone"))
            group.create_task(pay(900))
            group.create_task(pay(901))

    assert isinstance(outcome_of(grouped()), ExceptionGroup)
    assert LOG == ["undone"]


def test_leaving_the_workflow_by_exit_undoes() -> None:
    @workflow
    async def exits() -> None:
        async with Saga() as saga:
            saga.undo(log("undone"))
            raise SystemExit(3)

    outcome_of(exits())
    assert LOG == ["undone"]


@awaited
async def test_a_second_cancel_waits_for_the_compensations() -> None:
    LOG.clear()

    @workflow
    async def waits() -> None:
        async with Saga() as saga:
            saga.undo(log("first"))
            saga.undo(asks())
            await receive("never", str)

    async def asks() -> None:
        assert await receive("go on", bool)
        await log("asked")

    async with Engine(":memory:", workflows=[waits]) as engine:
        run = await engine.start(waits(), id="waits")
        for _ in range(3):
            await engine.cancel("waits")
        await run.send(True, channel="go on")
        with pytest.raises(Exception, match="cancelled"):
            await run.result()
        assert await run.status() == "cancelled"
    assert LOG == ["asked", "first"]


@awaited
async def test_a_cancel_while_an_error_is_undone_ends_the_block_as_cancelled() -> None:
    undoing, go_on = asyncio.Event(), asyncio.Event()

    async def undo() -> None:
        undoing.set()
        await go_on.wait()

    async def block() -> None:
        async with Saga() as saga:
            saga.undo(undo())
            raise KeyError("first")

    task = asyncio.create_task(block())
    await undoing.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await task
    assert isinstance(cancelled.value.__cause__, KeyError)


@awaited
async def test_a_compensation_that_is_cancelled_by_itself_has_failed() -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError

    async def block() -> None:
        async with Saga() as saga:
            saga.undo(gives_up())
            raise KeyError("first")

    with pytest.raises(CompensationFailed) as failed:
        await block()
    assert isinstance(failed.value.exceptions[0], CallCancelled)
    assert failed.value.not_undone[0].endswith("gives_up")


@awaited
async def test_outside_a_workflow_it_is_the_same() -> None:
    LOG.clear()
    saga = Saga()

    async def block() -> None:
        async with saga:
            saga.undo(log("one"))
            saga.undo(log("two"))
            await pay(900)

    with pytest.raises(ValueError, match="no money"):
        await block()
    assert LOG == ["two", "one"]
    assert saga.undone == ["log('two')", "log('one')"]


@pytest.mark.parametrize("knows_the_code", [True, False])
@awaited
async def test_a_retry_does_the_failed_compensations_again_and_takes_back_nothing_else(
    tmp_path: Path, knows_the_code: bool
) -> None:
    LOG.clear()
    db = str(tmp_path / "orders.db")
    there: set[str] = set()

    @step(retry=None)
    async def refund(order: str) -> None:
        if not there:
            raise ConnectionError(f"the bank is away, {order}")
        LOG.append(f"refund {order}")

    @workflow
    async def order(number: str) -> None:
        async with Saga() as saga:
            saga.undo(log("shop"))
            saga.undo(refund(number))
            async with Saga() as inner:
                inner.undo(refund(f"{number}/2"))
                inner.undo(log("inner"))
                await pay(900)

    async with Engine(db, workflows=[order]) as engine:
        run = await engine.start(order("A-17"), id="A-17")
        with pytest.raises(RunFailed, match=r"Not undone: refund\('A-17'\)"):
            await run.result()
        assert LOG == ["inner", "shop"]
        there.add("bank")
        if knows_the_code:
            await engine.retry("A-17")
    if not knows_the_code:
        async with Engine(db, execute=False) as client:
            await client.retry("A-17")
    with pytest.raises(RunFailed, match="no money"):
        await executed_again(db, [order], "A-17")
    assert LOG == ["inner", "shop", "refund A-17/2", "refund A-17", "shop"]


# --- bad input ------------------------------------------------------------------------------------


@awaited
async def test_what_is_no_call_and_what_is_outside_the_block_is_refused() -> None:
    saga = Saga()
    with pytest.raises(DefinitionError, match="has not begun"):
        saga.undo(log("early"))
    async with saga:
        for wrong in (log, len, None, "refund"):
            with pytest.raises(DefinitionError, match=r"as in saga\.undo\(refund\(order\)\)"):
                saga.undo(wrong)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="has ended"):
        saga.undo(log("late"))
    with pytest.raises(DefinitionError, match="one block"):
        await saga.__aenter__()
