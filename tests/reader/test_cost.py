"""What some work costs: its own stretches, its reads, and nothing that runs in between."""

from __future__ import annotations

import asyncio
import time

import pytest

from perdure import Engine
from perdure.reader import StoreReader
from perdure.reader.cost import Cost, kept
from tests.runtime.support import awaited


def work(seconds: float) -> None:
    """Use a processor for so long."""
    until_s = time.thread_time() + seconds
    while time.thread_time() < until_s:
        pass


@awaited
async def test_stretches_of_the_work_count_and_others_do_not():
    cost, others = Cost(), Cost()
    turn = asyncio.Event()

    async def pages() -> str:
        work(0.01)
        await turn.wait()
        work(0.01)
        return "done"

    async def engine() -> None:
        work(0.2)
        turn.set()

    found, _ = await asyncio.gather(cost.of(pages()), others.of(engine()))
    assert found == "done"
    assert cost.spent_s >= 0.02
    assert others.spent_s >= 0.2
    assert cost.spent_s < others.spent_s, "the time of the processor: no load of the machine counts"


@awaited
async def test_errors_and_cancellation_are_the_works_own():
    cost, began = Cost(), asyncio.Event()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await cost.of(fails())
    seen = []

    async def waits() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.create_task(cost.of(waits()))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]
    assert kept.get() is None


@awaited
async def test_reads_of_the_work_are_added_and_those_of_others_are_not(tmp_path):
    path = str(tmp_path / "a.db")
    async with Engine(path), StoreReader(path) as reader:
        cost = Cost()
        await reader.read(lambda _: work(0.02))
        assert cost.spent_s == 0
        await cost.of(reader.read(lambda _: work(0.02)))
        assert cost.spent_s >= 0.02
