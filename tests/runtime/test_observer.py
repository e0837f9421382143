"""Observers hear of runs, attempts, commits and leases, and can harm none of them."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any

import pytest

from perdure import (
    DefinitionError,
    Engine,
    Observer,
    Retry,
    RunFailed,
    receive,
    step,
    workflow,
)
from tests.runtime.support import awaited, reached


class Noted(Observer):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.commits: list[int] = []

    def run_started(self, run_id: str, workflow: str, resumed: bool) -> None:
        self.heard.append(("run", run_id, workflow, resumed))

    def run_ended(self, run_id: str, workflow: str, status: str) -> None:
        self.heard.append((status, run_id, workflow))

    def attempt_started(self, run_id: str, seq: int, step: str, attempt: int) -> None:
        self.heard.append(("attempt", run_id, seq, step, attempt))

    def attempt_ended(
        self,
        run_id: str,
        seq: int,
        step: str,
        attempt: int,
        took_ms: int,
        error: BaseException | None,
        again_ms: int | None,
    ) -> None:
        assert took_ms >= 0
        cause = "ok" if error is None else type(error).__name__
        self.heard.append((cause, run_id, seq, step, attempt, again_ms is not None))

    def committed(self, writes: int, took_ms: float) -> None:
        assert took_ms >= 0
        self.commits.append(writes)

    def lease_changed(self, holder: str, change: str) -> None:
        self.heard.append((holder, change))


tries: list[int] = []


@step(retry=Retry(attempts=2, delay=0))
async def second_time() -> str:
    tries.append(1)
    if len(tries) % 2:
        raise ValueError("the first time")
    return "done"


@step
def in_thread() -> str:
    return "done"


@step(transactional=True)
def inside(db: Any) -> str:
    return "done"


@workflow
async def all_kinds() -> None:
    await second_time()
    await in_thread()
    await inside()


@step(retry=Retry(attempts=1))
async def fails() -> None:
    raise ValueError("always")


@workflow
async def failing() -> None:
    await fails()


@workflow
async def hears() -> int:
    return await receive("in", int)


@awaited
async def test_what_happens_to_runs_and_attempts_is_heard_in_order(db: str) -> None:
    noted = Noted()
    async with Engine(db, observer=noted) as engine:
        await engine.run(all_kinds(), id="r")
        with pytest.raises(RunFailed):
            await engine.run(failing(), id="f")
    assert noted.heard == [
        ("worker", "taken"),
        ("run", "r", "all_kinds", False),
        ("attempt", "r", 2, "second_time", 1),
        ("ValueError", "r", 2, "second_time", 1, True),
        ("attempt", "r", 2, "second_time", 2),
        ("ok", "r", 2, "second_time", 2, False),
        ("attempt", "r", 5, "in_thread", 1),
        ("ok", "r", 5, "in_thread", 1, False),
        ("attempt", "r", 7, "inside", 1),
        ("ok", "r", 7, "inside", 1, False),
        ("completed", "r", "all_kinds"),
        ("run", "f", "failing", False),
        ("attempt", "f", 2, "fails", 1),
        ("ValueError", "f", 2, "fails", 1, False),
        ("failed", "f", "failing"),
        ("worker", "released"),
    ]
    assert sum(noted.commits) > len(noted.commits) > 5


@awaited
async def test_a_run_whose_history_can_not_be_written_is_heard_to_be_blocked_once(db: str) -> None:
    noted = Noted()
    async with Engine(db, observer=noted, workflows=[all_kinds]) as engine:
        engine._store._db.execute(
            "CREATE TEMP TRIGGER refused BEFORE INSERT ON event WHEN new.name LIKE '%in_thread%' "
            "BEGIN SELECT RAISE(ABORT, 'no such row'); END"
        )
        run = await engine.start(all_kinds(), id="r")
        await reached(run, "blocked")
    assert [one for one in noted.heard if one[0] in ("blocked", "completed", "released")] == [
        ("blocked", "r", "all_kinds")
    ]


@awaited
async def test_a_run_that_goes_on_elsewhere_is_resumed_there(db: str) -> None:
    async with Engine(db, workflows=[hears]) as engine:
        await reached(await engine.start(hears(), id="h"), "waiting")
    noted = Noted()
    async with Engine(db, workflows=[hears], observer=[noted]) as engine:
        await engine.send("h", 1, channel="in")
        await (await engine.get("h")).result()
    assert ("run", "h", "hears", True) in noted.heard


@awaited
async def test_an_observer_that_raises_harms_nothing_and_is_logged_once(
    db: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Observer):
        def attempt_started(self, *args: Any) -> None:
            raise RuntimeError("a fault of the observer")

        def committed(self, *args: Any) -> None:
            raise RuntimeError("a fault of the observer")

    noted = Noted()
    with caplog.at_level(logging.ERROR):
        async with Engine(db, observer=[Broken(), noted]) as engine:
            for number in range(3):
                await engine.run(all_kinds(), id=f"r{number}")
    assert ("completed", "r2", "all_kinds") in noted.heard
    assert sorted(record.getMessage().split(" ")[0] for record in caplog.records) == [
        "Broken.attempt_started",
        "Broken.committed",
    ]


@awaited
async def test_a_cancelled_attempt_ends_for_observers_too(db: str) -> None:
    began = asyncio.Event()

    @step
    async def endless() -> None:
        began.set()
        await asyncio.sleep(3_600)

    @workflow
    async def waits() -> None:
        await endless()

    noted = Noted()
    async with Engine(db, observer=noted) as engine:
        run = await engine.start(waits(), id="w")
        await began.wait()
        await run.cancel()
        await reached(run, "cancelled")
    assert ("CancelledError", "w", 2, "endless", 1, False) in noted.heard
    assert ("cancelled", "w", "waits") in noted.heard


TRACE: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="")


@awaited
async def test_a_step_sees_a_context_variable_that_an_observer_sets(db: str) -> None:
    class Traces(Observer):
        def attempt_started(self, run_id: str, seq: int, step: str, attempt: int) -> None:
            TRACE.set(f"{run_id}/{seq}")

    @step
    def plain() -> str:
        return TRACE.get()

    @step
    async def on_the_loop() -> str:
        return TRACE.get()

    @workflow
    async def both() -> list[str]:
        return [await plain(), await on_the_loop()]

    async with Engine(db, observer=Traces()) as engine:
        assert await engine.run(both(), id="t") == ["t/2", "t/4"]


@pytest.mark.parametrize("given", [print, "observer", [Observer(), 3], 7])
def test_what_is_no_observer_is_refused(given: Any) -> None:
    with pytest.raises(DefinitionError, match=r"below perdure\.Observer"):
        Engine("never-made.db", observer=given)


def test_an_observer_that_would_have_to_be_awaited_is_refused() -> None:
    class Awaits(Observer):
        async def run_ended(self, run_id: str, workflow: str, status: str) -> None:  # type: ignore[override]
            pass

    with pytest.raises(DefinitionError, match=r"Awaits\.run_ended of the observer is async"):
        Engine("never-made.db", observer=[Observer(), Awaits()])
