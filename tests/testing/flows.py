"""Workflows for the tests of the testing tools: right ones, and ones that are wrong on purpose."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from perdure import Retry, continue_as, current_step, receive, step, workflow

DONE: list[Any] = []
"""What steps did outside."""


@step
async def double(n: int) -> int:
    return 2 * n


@step
def double_in_a_thread(n: int) -> int:
    return 2 * n


@step
async def say(word: str) -> str:
    return word


@step(readonly=True)
async def charge(cents: int) -> int:
    DONE.append(cents)
    return cents


@step
async def charge_later(cents: int) -> int:
    DONE.append(cents)
    return cents


@step
async def charge_with_key(cents: int) -> int:
    if (key := current_step().idempotency_key) not in DONE:
        DONE.append(key)
    return cents


@step(transactional=True)
def book(db: Any, cents: int) -> int:
    db.execute("CREATE TABLE IF NOT EXISTS booking (cents INTEGER)")
    db.execute("INSERT INTO booking VALUES (?)", (cents,))
    return cents


@step(transactional=True)
def book_next(db: Any) -> int:
    db.execute("CREATE TABLE IF NOT EXISTS place (number INTEGER PRIMARY KEY)")
    return int(db.execute("INSERT INTO place DEFAULT VALUES RETURNING number").fetchone()[0])


@step
async def write_page(n: int) -> str:
    return " ".join(f"{n}.{word}" for word in range(2_000))


@step(retry=Retry(attempts=3, delay=3600, factor=1, jitter=False, max_delay=3600))
async def fails_twice() -> int:
    """A crash counts as an attempt here, though not for the retry policy."""
    if current_step().attempt < 3:
        raise OSError("not yet")
    return 3


# --- right ----------------------------------------------------------------------------------------


@workflow
async def doubles(n: int) -> list[int]:
    return list(await asyncio.gather(*map(double, range(n))))


@workflow
async def patient(n: int) -> int:
    """Two days, a thread, and a retry that waits for hours."""
    await asyncio.sleep(2 * 24 * 3600)
    return await double_in_a_thread(n) + await fails_twice()


@workflow
async def approval() -> str:
    try:
        async with asyncio.timeout(3 * 24 * 3600):
            return "yes" if await receive("approval", bool) else "no"
    except TimeoutError:
        return "too late"


@workflow
async def booking(cents: int) -> int:
    return await book(cents) + await book(cents)


@workflow
async def booking_places(n: int) -> list[int]:
    """A place that is booked twice moves those after it."""
    return [await book_next() for _ in range(n)]


@workflow
async def writing(pages: list[str]) -> int:
    """Payloads in chunks, also of what goes from step to step."""
    for n in range(3):
        pages = [*pages, await write_page(n)]
    return len("".join(pages))


@workflow
async def paying_with_key(cents: int) -> int:
    return await charge_with_key(cents)


@workflow
async def counting(n: int) -> int:
    await double(n)
    if n:
        continue_as(counting(n - 1))
    return n


@workflow
async def failing(why: str) -> None:
    await say(why)
    raise ValueError(why)


# --- wrong ----------------------------------------------------------------------------------------


@workflow
async def reads_the_clock() -> int:
    return await double(time.time_ns())


@workflow
async def returns_the_clock() -> int:
    await double(1)
    return time.time_ns()


@workflow
async def throws_dice() -> list[int]:
    return [await double(n) for n in random.sample(range(1000), 3)]


_started = 0


@workflow
async def counts_in_a_global() -> int:
    global _started
    _started += 1
    return await double(_started)


@workflow
async def walks_a_set(text: str) -> list[str]:
    return [await say(word) for word in set(text.split())]


@workflow
async def walks_a_set_of_objects() -> list[int]:
    things = [object() for _ in range(20)]
    return [await double(things.index(thing)) for thing in set(things)]


@workflow
async def pays(cents: int) -> int:
    return await charge(cents)


@workflow
async def pays_later(cents: int) -> int:
    return await charge_later(cents)


@workflow
async def never_hears() -> int:
    return await receive("unused", int)


@workflow
async def dies_of_a_cancel() -> str:
    """Its clean-up is shorter than it should be: what it gives depends on where the cancel finds
    it, which is fine.
    """
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        return f"cleaned {await double(1)}"
    return "slept"


@step
async def takes(seconds: float) -> None:
    await asyncio.sleep(seconds)


@workflow
async def cleans_up() -> None:
    try:
        await takes(1)
    finally:
        await takes(0.5)


@workflow
async def leaves_a_child() -> None:
    child = asyncio.create_task(cleans_up())
    await takes(0.2)
    await child


@workflow
async def asks_a_child() -> str:
    await receive("go")
    await asyncio.sleep(3600)
    return f"child says {await approval.options(id='child')()}"


@step
async def notes_its_run() -> None:
    if (run_id := current_step().run_id) not in DONE:
        DONE.append(run_id)


@workflow
async def pays_in_a_child(cents: int) -> int:
    await double(1)
    await notes_its_run()
    return await charge_with_key(cents)


@workflow
async def doubles_and_pays_with_key(cents: int) -> int:
    await double(1)
    return await charge_with_key(cents) + await pays_in_a_child(cents)
