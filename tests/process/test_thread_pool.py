"""Threads that hang: they are replaced within a bound, they are named, and none keeps the process
from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from perdure import Engine, Limits, RunFailed, StepTimeout, step, workflow
from tests.runtime.support import awaited, environment, until

release = threading.Event()
begun: list[int] = []


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    release.clear()
    begun.clear()
    yield
    release.set()


@step(timeout=0.05, retry=None)
def hangs() -> None:
    release.wait()


@step(timeout=60, retry=None)
def quick(n: int) -> int:
    begun.append(n)
    return n


@workflow
async def stuck() -> None:
    await hangs()


@workflow
async def fine(n: int) -> int:
    return await quick(n)


async def hang(engine: Engine, times: int) -> None:
    """Let so many more threads hang: on a slow machine an attempt may time out unbegun."""
    threads = engine._scheduler.steps.threads
    wanted = len(threads.hung) + times
    while missing := wanted - len(threads.hung):
        for ended in await asyncio.gather(
            *(engine.run(stuck()) for _ in range(missing)), return_exceptions=True
        ):
            assert isinstance(ended, RunFailed)
            assert isinstance(ended.__cause__, StepTimeout)
            assert "its thread can't be stopped and goes on" in str(ended.__cause__)


@awaited
async def test_a_thread_that_hangs_is_replaced_and_named(
    db: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(
        db, workflows=[stuck, fine], limits=Limits(threads_max=2, threads_hung_max=2)
    ) as engine:
        with caplog.at_level(logging.WARNING, "perdure"):
            await hang(engine, 2)
        assert "step hangs of run stuck-" in caplog.text
        assert "number 2 of 2 that are replaced" in caplog.text
        assert await asyncio.gather(*(engine.run(fine(n)) for n in range(8))) == list(range(8))
        assert [what.split(" of run")[0] for what in (await engine.doctor())["hung_threads"]] == [
            "step hangs"
        ] * 2
        release.set()
        await until(lambda: not engine._scheduler.steps.threads.hung)


@awaited
async def test_beyond_the_bound_steps_wait_unbegun_until_a_thread_comes_back(
    db: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(
        db, workflows=[stuck, fine], limits=Limits(threads_max=2, threads_hung_max=1)
    ) as engine:
        with caplog.at_level(logging.ERROR, "perdure"):
            await hang(engine, 2)
            assert await engine.run(fine(1)) == 1
            await hang(engine, 1)
        assert "only 0 of 2 are left for plain steps" in caplog.text
        waiting = [asyncio.create_task(engine.run(fine(n))) for n in (2, 3)]
        await asyncio.sleep(0.1)
        assert begun == [1]
        release.set()
        assert await asyncio.gather(*waiting) == [2, 3]
        assert len(engine._scheduler.steps.threads._threads) <= 3


@awaited
async def test_a_cancelled_step_gives_its_thread_up_too(db: str) -> None:
    @step
    def waits() -> None:
        begun.append(0)
        release.wait()

    @workflow
    async def main() -> None:
        await waits()

    async with Engine(db, workflows=[main, fine], limits=Limits(threads_max=1)) as engine:
        run = await engine.start(main(), id="m")
        await until(lambda: begun)
        await run.cancel()
        assert await engine.run(fine(1)) == 1


@awaited
async def test_threads_are_made_when_they_are_needed_and_kept(db: str) -> None:
    async with Engine(db, workflows=[fine], limits=Limits(threads_max=4)) as engine:
        for n in range(20):
            await engine.run(fine(n))
        assert len(engine._scheduler.steps.threads._threads) <= 2
        await asyncio.gather(*(engine.run(fine(n)) for n in range(50)))
        assert len(engine._scheduler.steps.threads._threads) <= 4


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@awaited
async def test_a_thread_keeps_no_variables_of_the_step_before(db: str) -> None:
    @step
    def sets() -> str:
        found = variable.get()
        variable.set("set")
        return found

    @workflow
    async def main() -> list[str]:
        return [await sets() for _ in range(3)]

    async with Engine(db, workflows=[main], limits=Limits(threads_max=1)) as engine:
        assert await engine.run(main()) == ["unset"] * 3


_HANGS = """
import asyncio, threading
from perdure import Engine, Retry, step, workflow

begun = threading.Event()

@step(retry=Retry(attempts=1))
def hangs() -> None:
    begun.set()
    threading.Event().wait()

@workflow
async def main() -> None:
    await hangs()

async def go() -> None:
    async with Engine(":memory:", workflows=[main], close_grace=0.01) as engine:
        await engine.start(main())
        while not begun.is_set():
            await asyncio.sleep(0.01)
    print("closed", flush=True)

asyncio.run(go())
"""


def test_a_process_ends_although_a_thread_hangs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HANGS],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr
