"""A store with runs of every kind, read without its engine; and a large one, made of rows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from perdure import (
    Engine,
    Queue,
    Retry,
    RunFailed,
    emit,
    expose,
    receive,
    receive_request,
    step,
    tag,
    workflow,
)
from perdure.reader import StoreReader
from perdure.store.sqlite import connection

Read = Callable[..., Any]

NOW_MS = 1_800_000_000_000


@step
async def double(n: int) -> int:
    return 2 * n


@step(retry=Retry(attempts=3, delay=3_600, max_delay=3_600))
async def charge(amount: int) -> int:
    raise ValueError(f"no money for {amount}")


@workflow
async def plain(n: int, note: str = "") -> int:
    expose(stage="first")
    tag(parity="odd" if n % 2 else "even")
    emit("log", {"n": n})
    result = await double(n)
    expose(stage="second", result=result)
    return result


@workflow
async def asks(question: str) -> bool:
    return await receive("approval", bool, prompt=question)


@workflow
async def answers() -> None:
    request = await receive_request("quote", int)
    await receive("never", str)
    request.reply(1)


@workflow
async def pays(amount: int) -> int:
    return await charge(amount)


@workflow
async def breaks(why: str) -> None:
    raise RuntimeError(why)


@workflow
async def family(size: int) -> int:
    return sum(await asyncio.gather(*(plain(n) for n in range(size))))


async def fill(path: str) -> None:
    """Runs of every kind, the oldest first."""
    given: list[Any] = [plain, asks, answers, pays, breaks, family]
    async with Engine(path, workflows=given, queues=[Queue("slow", concurrency=1)]) as engine:
        for n in range(4):
            await engine.run(plain(n, note="x" * 2_000 + ' needle "a" 50%'), id=f"plain-{n}")
        await engine.start(asks("Go?"), id="asks", tags={"team": "red"})
        await engine.start(answers(), id="answers")
        with contextlib.suppress(TimeoutError):
            await engine.ask("answers", 7, channel="quote", key="k", timeout=0.01)
        await engine.start(pays(5), id="pays")
        with contextlib.suppress(RunFailed):
            await engine.run(breaks("out of paper"), id="breaks")
        await engine.run(family(3), id="family")
        await engine.fork("plain-1", at=6, new_id="fork")
        for name in ("in-1", "in-2"):
            await engine.start(asks("?"), id=name, queue="slow")
        await engine.start(plain(9), id="stopped", at=_later())
        await engine.pause("stopped")
        await (await engine.get("fork")).result()


def _later() -> Any:
    from datetime import UTC, datetime, timedelta

    return datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a store whose engine has closed."""
    found = str(tmp_path_factory.mktemp("reader") / "s.db")
    asyncio.run(fill(found))
    return found


@pytest.fixture(scope="session")
def read(path: str) -> Read:
    """Read from it: `read("runs", RunQuery())`."""
    return reader_of(path)


def reader_of(path: str, now_ms: Callable[[], int] | None = None) -> Read:
    """A function that reads from a file: the name of a read, and what it takes."""

    def read(name: str, *given: Any, **named: Any) -> Any:
        async def main() -> Any:
            async with StoreReader(path, now_ms=now_ms) as reader:
                return await getattr(reader, name)(*given, **named)

        return asyncio.run(main())

    return read


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of 60,000 runs, all rows of which were written at once."""
    path = str(tmp_path_factory.mktemp("large") / "l.db")
    db = connection.open_writer(path)
    db.execute("PRAGMA synchronous = off; BEGIN")
    db.execute(
        """
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
        INSERT INTO run (run, id, workflow, status, args, seed, waiting, created_ms, ended_ms)
        SELECT i, 'r-' || i, CASE WHEN i = 30 THEN 'rare' ELSE 'often' END,
               CASE WHEN i % 4 = 0 THEN 'waiting' WHEN i = 5 THEN 'failed' ELSE 'completed' END,
               '{"order":' || i || '}', i, CASE WHEN i % 4 = 0 THEN '[{"timer":1,"seq":2}]' END,
               ?1 + i * 1000, CASE WHEN i % 4 = 0 THEN NULL ELSE ?1 + i * 1000 END
        FROM n
        """,
        (NOW_MS,),
    )
    db.execute("COMMIT")
    db.close()
    return path
