"""What many engines of one process share: threads and descriptors are counted, no time is."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import Engine, receive, step, workflow
from tests.runtime.support import awaited, reached, until

ENGINES = 20
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc here")


@step
async def double(n: int) -> int:
    return 2 * n


@workflow
async def doubles(n: int) -> int:
    return await double(n)


@workflow
async def hears() -> int:
    return await receive("in", int)


def threads() -> list[str]:
    """Threads of engines. Those of buckets stay for the time of the process, so are not counted."""
    return sorted(
        thread.name.rstrip("_0123456789")
        for thread in threading.enumerate()
        if thread.name.startswith("perdure") and not thread.name.startswith("perdure-bucket")
    )


def worker_rows(db: str) -> list[tuple[int, int]]:
    """Of each worker that has not ended: the length of its lease, and its beats."""
    with contextlib.closing(apsw.Connection(db, flags=apsw.SQLITE_OPEN_READONLY)) as look:
        look.set_busy_timeout(10_000)
        return list(look.execute("SELECT ttl_ms, beats FROM worker WHERE ended_ms IS NULL"))


@awaited
async def test_idle_engines_have_one_thread_between_them(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number in range(ENGINES):
            engine = Engine(tmp_path / f"{number}.db", workflows=[doubles])
            await stack.enter_async_context(engine)
        # those of an engine of another test may still be about to end
        await until(
            lambda: [name for name in threads() if "writer" not in name] == ["perdure-watcher"]
        )


@awaited
async def test_engines_that_own_runs_renew_their_leases_in_one_thread(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{number}.db") for number in range(ENGINES)]
    async with contextlib.AsyncExitStack() as stack:
        for file in files:
            engine = await stack.enter_async_context(Engine(file, workflows=[hears], lease_ttl=1))
            await reached(await engine.start(hears(), id="h"), "waiting")
        begun = [worker_rows(file)[0] for file in files]
        assert {ttl_ms for ttl_ms, _ in begun} == {1_000}
        assert threads().count("perdure-leases") == 1
        for file, (_, beats) in zip(files, begun, strict=True):
            await until(lambda file=file, beats=beats: worker_rows(file)[0][1] > beats + 1)  # type: ignore[misc]
    await until(lambda: "perdure-leases" not in threads())


@awaited
async def test_a_worker_rests_when_its_runs_have_ended_and_has_the_short_lease_for_the_next(
    tmp_path: Path,
) -> None:
    db = str(tmp_path / "a.db")
    async with Engine(db, workflows=[doubles, hears], lease_ttl=1) as engine:
        (rests,) = worker_rows(db)
        for _ in range(2):
            assert await engine.run(doubles(2)) == 4
            assert worker_rows(db)[0][0] == 1_000
            await until(lambda: worker_rows(db)[0][0] == rests[0])
        await reached(await engine.start(hears(), id="h"), "waiting")
        for _ in range(4):  # it owns a run, so it does not rest
            beats = worker_rows(db)[0][1]
            await until(lambda beats=beats: worker_rows(db)[0][1] > beats)  # type: ignore[misc]
        assert worker_rows(db)[0][0] == 1_000
        await engine.send("h", 1, channel="in")


@awaited
async def test_a_resting_engine_hears_at_once_of_what_a_client_starts(tmp_path: Path) -> None:
    db = str(tmp_path / "a.db")
    async with (
        Engine(db, workflows=[doubles], lease_ttl=3_600),
        Engine(db, execute=False) as client,
    ):
        assert await client.run(doubles(21)) == 42


@awaited
async def test_two_engines_of_one_process_on_one_file_are_both_told(tmp_path: Path) -> None:
    db = str(tmp_path / "a.db")
    async with (
        Engine(db, workflows=[doubles]) as one,
        Engine(db, workflows=[doubles]) as two,
        Engine(db, execute=False) as client,
    ):
        results: list[Any] = [
            await engine.run(doubles(n)) for n in range(5) for engine in (one, two, client)
        ]
        assert results == [2 * n for n in range(5) for _ in range(3)]
