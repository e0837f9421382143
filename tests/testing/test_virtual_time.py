"""Virtual time: the loop alone, and the engine on it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from perdure import DefinitionError, Engine, now, step, workflow
from perdure.testing import CrashHarness, NothingLeftToWaitFor, VirtualLoop
from perdure.testing.virtual_time import BEGIN_MS
from tests.testing.flows import approval, never_hears, patient

DAY_S = 24 * 3600


def virtually(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def test_timers_fire_in_order_and_at_their_time() -> None:
    async def main() -> list[tuple[int, float]]:
        found = []

        async def one(days: int) -> None:
            await asyncio.sleep(days * DAY_S)
            found.append((days, asyncio.get_running_loop().time()))

        await asyncio.gather(one(30), one(1), one(3))
        return found

    assert virtually(main()) == [(days, pytest.approx(days * DAY_S)) for days in (1, 3, 30)]


def test_time_stands_still_while_a_thread_works() -> None:
    async def main() -> tuple[str, float]:
        loop, gate = asyncio.get_running_loop(), threading.Event()
        later = loop.call_later(60, gate.set)  # would let the thread go, had time passed
        work = loop.run_in_executor(None, gate.wait, 0.05)
        found = await work
        later.cancel()
        return str(found), loop.time()

    assert virtually(main()) == ("False", 0.0)


async def with_anyio(function: Callable[..., Any], *args: Any) -> Any:
    return await anyio.to_thread.run_sync(function, *args)


@pytest.mark.parametrize("in_thread", [asyncio.to_thread, with_anyio])
def test_time_stands_still_while_a_thread_of_anyio_works_too(in_thread: Callable[..., Any]) -> None:
    async def main() -> tuple[bool, float]:
        loop, gate = asyncio.get_running_loop(), threading.Event()
        for _ in range(3):  # an idle thread keeps no time
            await in_thread(len, "abc")
            await asyncio.sleep(DAY_S)
        later = loop.call_later(60, gate.set)
        found = await in_thread(gate.wait, 0.05)
        later.cancel()
        return found, loop.time()

    assert virtually(main()) == (False, 3 * DAY_S)


@pytest.mark.parametrize("in_thread", [asyncio.to_thread, with_anyio])
def test_time_goes_on_while_a_thread_waits_for_the_loop(in_thread: Callable[..., Any]) -> None:
    async def later(word: str) -> str:
        await asyncio.sleep(DAY_S)
        return word

    async def main() -> tuple[list[str], float]:
        loop = asyncio.get_running_loop()

        def asks(word: str) -> str:
            return asyncio.run_coroutine_threadsafe(later(word), loop).result()

        return [
            await in_thread(asks, "one"),
            *await asyncio.gather(in_thread(asks, "two"), in_thread(asks, "three")),
        ], loop.time()

    assert virtually(main()) == (["one", "two", "three"], 2 * DAY_S)


def test_an_open_socket_is_waited_for_in_real_time() -> None:
    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        thread = threading.Thread(target=theirs.sendall, args=(b"hello",))
        asyncio.get_running_loop().call_soon(thread.start)
        try:
            async with asyncio.timeout(3600):  # virtual time would be over this at once
                return await reader.readexactly(5)
        finally:
            thread.join()
            writer.close()
            theirs.close()

    assert virtually(main()) == b"hello"


def test_who_waits_for_nothing_is_told() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    loop = VirtualLoop()
    task = loop.create_task(main())
    with pytest.raises(NothingLeftToWaitFor, match="10 years"):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


# --- the engine -----------------------------------------------------------------------------------


def test_days_of_waiting_take_no_time_and_are_in_the_history(db: str) -> None:
    harness = CrashHarness(db)

    async def main() -> list[tuple[str, datetime]]:
        async with harness.engine() as engine:
            run = await engine.start(patient(4), id="patient")
            assert await run.result() == 8 + 3
            return [(row.kind, row.at) for row in await run.history()]

    began = time.monotonic()
    rows = harness.run(main())
    assert time.monotonic() - began < 60  # no timing, but it did not wait for days
    assert harness.elapsed_s == pytest.approx(2 * DAY_S + 2 * 3600)
    begin = datetime.fromtimestamp(BEGIN_MS / 1000, UTC)
    assert [at - begin for kind, at in rows if kind == "fired"] == [timedelta(days=2)]
    assert rows[-1][1] - begin == timedelta(days=2, hours=2)


def test_a_message_in_time_and_one_too_late(db: str) -> None:
    def asked(after_s: float) -> str:
        harness = CrashHarness(f"{db}{after_s}")

        async def main() -> str:
            async with harness.engine() as engine:
                run = await engine.start(approval(), id="a")
                await asyncio.sleep(after_s)
                if await run.status() == "waiting":
                    await run.send(True, channel="approval")
                return await run.result()

        return str(harness.run(main()))

    assert [asked(DAY_S), asked(3 * DAY_S - 1), asked(3 * DAY_S + 1)] == ["yes", "yes", "too late"]


@step(timeout=60)
async def hangs() -> None:
    await asyncio.sleep(3600)


@workflow
async def hangs_three_times() -> str:
    began = now()
    try:
        await hangs.options(retry=3)()
    except TimeoutError:
        return str((now() - began).seconds >= 180)
    return "not reached"


def test_the_timeout_of_a_step_is_virtual_too(db: str) -> None:
    harness = CrashHarness(db)
    assert harness.run(hangs_three_times()) == "True"
    assert harness.elapsed_s < 3600


def test_a_run_that_waits_for_nothing_is_told_and_its_file_is_fine(db: str) -> None:
    harness = CrashHarness(db)
    with pytest.raises(NothingLeftToWaitFor):
        harness.run(never_hears(), id="deaf")

    async def main() -> int:
        async with harness.engine(workflows=[never_hears]) as engine:
            await engine.send("deaf", 7, channel="unused")
            return int(await (await engine.get("deaf")).result())

    harness._now_s = 0.0  # begin again, or there is nothing due before the end of virtual time
    assert harness.run(main()) == 7


def test_two_engines_on_one_file_hear_of_each_other(db: str) -> None:
    harness = CrashHarness(db)

    async def main() -> tuple[str, str]:
        async with (
            harness.engine(workflows=[approval]) as worker,
            harness.engine(execute=False) as client,
        ):
            run = await client.start(approval(), id="a")
            await asyncio.sleep(DAY_S)
            status = await (await worker.get("a")).status()
            await client.send("a", True, channel="approval")
            return status, await run.result()

    assert harness.run(main()) == ("waiting", "yes")
    assert harness.elapsed_s < 2 * DAY_S


def test_the_same_engine_has_the_clock_of_the_machine_on_another_loop(db: str) -> None:
    async def main() -> datetime:
        async with CrashHarness(db).engine() as engine:
            assert isinstance(engine, Engine)
            run = await engine.start(approval(), id="a")
            await run.send(True, channel="approval")
            assert await run.result() == "yes"
            return (await run.info()).created_at

    before = datetime.now(UTC)
    assert before - timedelta(seconds=1) < asyncio.run(main()) < before + timedelta(minutes=5)


def test_inside_a_running_loop_it_says_what_to_do(tmp_path: Path) -> None:
    async def main() -> str:
        harness = CrashHarness(tmp_path / "a.db")
        with pytest.raises(DefinitionError, match=r"await asyncio.to_thread"):
            harness.run(approval())
        return str(await asyncio.to_thread(harness.run, approval()))

    assert asyncio.run(main()) == "too late"


def test_a_timer_that_is_due_now_goes_off_also_after_years() -> None:
    async def main() -> str:
        await asyncio.sleep(9 * 365 * 86_400)
        for _ in range(200):
            await asyncio.sleep(0.001)
        return "over"

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(main()) == "over"
