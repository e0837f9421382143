"""The end of a life: what is on disk stays, nothing else does, and no clean-up runs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

import perdure
from perdure import DefinitionError, RunBlocked, random, step, workflow
from perdure.process.slices import SLICE_S
from perdure.testing import Crashed, CrashHarness
from perdure.testing.crash import NotReached, When
from perdure.testing.recording import recordings
from tests.testing.flows import approval, booking, counting, doubles, patient

NOTES: list[str] = []


def statuses(path: str) -> dict[str, str]:
    return {one.id: one.status for one in recordings(path)}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 6))
def test_a_run_goes_on_in_the_next_life(when: When, number: int, db: str) -> None:
    harness = CrashHarness(db)
    with harness.crash_after(number, when):
        harness.run(patient(4), id="one")
    assert statuses(db).get("one") in (
        {None, "running", "waiting"} if number > 1 else {None, "running"}
    )
    assert harness.run(patient(4), id="one") == 11
    assert harness.elapsed_s - 2 * 24 * 3600 in (
        3600,
        2 * 3600,
    )  # a crash in an attempt is not waited for


@pytest.mark.parametrize("slice_s", [SLICE_S, -1.0], ids=["quiet", "loaded"])
def test_before_a_commit_its_rows_are_lost_and_after_it_they_are_there(
    db: str, monkeypatch: pytest.MonkeyPatch, slice_s: float
) -> None:
    """Also on a loaded machine, where each slice of the event loop is over at once."""
    monkeypatch.setattr("perdure.process.slices.SLICE_S", slice_s)

    def rows(when: When, number: int) -> int:
        harness = CrashHarness(f"{db}-{when}-{number}")
        with harness.crash_after(number, when):
            harness.run(doubles(2), id="one")
        return sum(len(one.rows) for one in recordings(harness.path))

    after = [rows("after", number) for number in range(1, 3)]
    assert [rows("before", number + 1) for number in range(1, 3)] == after
    assert after == sorted(set(after))  # each commit adds something


def test_a_crash_that_does_not_come_is_told(db: str) -> None:
    harness = CrashHarness(db)
    with pytest.raises(NotReached, match=r"only \d commits"), harness.crash_after(50):
        harness.run(doubles(2), id="one")
    assert harness.run(doubles(2), id="one") == [0, 2]


def test_a_crash_is_not_an_error_that_somebody_catches() -> None:
    assert not issubclass(Crashed, Exception)


@contextlib.asynccontextmanager
async def noted() -> AsyncIterator[None]:
    try:
        yield
    finally:
        NOTES.append("step cleaned up")


@step
async def long_step() -> None:
    async with noted():
        try:
            await asyncio.sleep(3600)
        finally:
            NOTES.append("step ended")


@step
async def short_step(n: int) -> int:
    return n


@workflow
async def careful() -> int:
    try:
        work = asyncio.create_task(long_step())
        total = 0
        for n in range(3):
            total += await short_step(n)
        await work
        return total
    finally:
        NOTES.append("workflow ended")


def test_no_finally_runs_at_the_end_of_a_life(db: str) -> None:
    NOTES.clear()
    harness = CrashHarness(db)

    async def main() -> None:
        try:
            async with harness.engine() as engine:
                await engine.run(careful(), id="one")
        finally:
            NOTES.append("main ended")

    with harness.crash_after(4):
        harness.run(main())
    assert NOTES == []
    harness.run(careful(), id="one")
    assert NOTES == ["step ended", "step cleaned up", "workflow ended"]


def test_what_a_thread_was_doing_is_not_heard(db: str) -> None:
    """A thread can't be killed; it ends before the next life begins, and its outcome is not
    recorded.
    """
    entered: list[str] = []
    go = threading.Event()

    @step
    def in_a_thread() -> int:
        entered.append(threading.current_thread().name)
        go.wait(0.02 if len(entered) == 1 else 0)
        return len(entered)

    @workflow
    async def both() -> int:
        work = asyncio.create_task(in_a_thread())
        await short_step(1)
        return await work

    harness = CrashHarness(db)
    with harness.crash_after(3, "before"):
        harness.run(both(), id="one")
    assert len(entered) == 1
    assert harness.run(both(), id="one") == 2
    assert len(entered) == 2


def test_a_transactional_step_happens_once_wherever_the_engine_dies(db: str) -> None:
    for number in range(1, 20):
        harness = CrashHarness(f"{db}{number}")
        try:
            with harness.crash_after(number, "before"):
                harness.run(booking(7), id="one")
        except NotReached:
            break
        assert harness.run(booking(7), id="one") == 14
        with contextlib.closing(perdure.connect(harness.path)) as read:
            assert read.execute("SELECT count(*) FROM booking").fetchall() == [(2,)], (
                f"died before commit {number}"
            )
    assert number > 4


def test_three_crashes_of_one_run_block_it_as_in_real_life(db: str) -> None:
    harness = CrashHarness(db)

    @step
    async def deadly() -> None:
        harness.crash = ("before", harness.commits + 1)  # its outcome is never recorded

    @workflow
    async def suicidal() -> None:
        await deadly()

    for _ in range(3):
        with pytest.raises(Crashed):
            harness.run(suicidal(), id="one")
        harness.crash = None
    with pytest.raises(RunBlocked, match="died 3 times"):
        harness.run(suicidal(), id="one")


@workflow
async def draws() -> list[int]:
    return [random().randint(0, 10**9), await short_step(1), random().randint(0, 10**9)]


def test_a_seed_gives_the_same_numbers_and_the_same_order_again(tmp_path: Path) -> None:
    def run(call: Any, seed: int, name: str) -> Any:
        return CrashHarness(tmp_path / f"{name}{seed}", seed=seed).run(call, id="one")

    assert run(draws(), 1, "a") == run(draws(), 1, "b") != run(draws(), 2, "a")
    orders = {seed: run(completed(), seed, "c") for seed in range(6)}
    assert orders[0] == [0, 1, 2, 3]  # nothing takes time, so nothing overtakes
    assert len({tuple(order) for order in orders.values()}) > 1
    assert orders == {seed: run(completed(), seed, "d") for seed in range(6)}


@workflow
async def completed() -> list[int]:
    return [await one for one in asyncio.as_completed([short_step(n) for n in range(4)])]


def test_a_successor_is_a_run_like_others(db: str) -> None:
    harness = CrashHarness(db, seed=3)
    assert harness.run(counting(2), id="one") == 0
    assert sorted(statuses(db)) == ["one", "one~1", "one~2"]


def test_on_a_foreign_loop_no_engine_can_die(db: str) -> None:
    async def main() -> None:
        async with CrashHarness(db).engine():
            pass

    harness = CrashHarness(db)
    with pytest.raises(DefinitionError, match="virtual time only"), harness.crash_after(1):
        asyncio.run(_enter(harness))
    asyncio.run(main())


async def _enter(harness: CrashHarness) -> None:
    async with harness.engine():
        pass


def test_approval_over_a_crash_keeps_its_deadline(db: str) -> None:
    harness = CrashHarness(db)
    with harness.crash_after(3):
        harness.run(approval(), id="a")
    assert harness.run(approval(), id="a") == "too late"
    assert harness.elapsed_s == pytest.approx(3 * 24 * 3600)


@step
async def in_a_thread_of_anyio(n: int) -> int:
    return await anyio.to_thread.run_sync(lambda: n + 1)


@workflow
async def anyio_twice(n: int) -> int:
    return await in_a_thread_of_anyio(await in_a_thread_of_anyio(n))


def test_a_crash_leaves_no_thread_of_anyio_that_keeps_the_interpreter(db: str) -> None:
    before = set(threading.enumerate())
    harness = CrashHarness(db)
    with harness.crash_after(4):
        harness.run(anyio_twice(1), id="one")
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()
    assert harness.run(anyio_twice(1), id="one") == 3


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_in_the_middle_of_closing(when: When, db: str) -> None:
    harness = CrashHarness(db)

    async def closes() -> None:
        async with harness.engine(workflows=[patient]) as engine:
            await engine.start(patient(4), id="one")
            await asyncio.sleep(24 * 3600)
            harness.crash, harness.commits = (when, 1), 0  # the first commit of the end

    with pytest.raises(Crashed):
        harness.run(closes())
    harness.crash = None
    assert len(harness.dead) == 1
    assert harness.run(patient(4), id="one") == 11
