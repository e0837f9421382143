"""Small workflows that between them use every part of the kernel; the laws hold for each of them.

Rules: steps give a value made from their arguments, so a schedule decides the order and never the values; what a
workflow has to be sent stands beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from perdure import (
    Call,
    Retry,
    StepFailed,
    continue_as,
    current_run,
    emit,
    now,
    patched,
    random,
    receive,
    send,
    start,
    step,
    tag,
    uuid4,
    workflow,
)  # fmt: skip


@step
async def double(n: int) -> int:
    return 2 * n


@step(readonly=True)
async def look(word: str) -> list[str]:
    return list(word)


@step(retry=Retry(attempts=2, delay=0.1))
async def fails(why: str) -> int:
    raise ValueError(why)


@dataclass
class Case:
    """A workflow's call, and the messages that it needs: (channel, JSON)."""

    name: str
    call: Call[Any]
    messages: list[tuple[str, bytes]] = field(default_factory=list)
    cancelled: bool = False


@workflow
async def sequential(n: int) -> int:
    total = 0
    for i in range(n):
        total += await double(i)
    return total


@workflow
async def gathered(n: int) -> list[int]:
    return list(await asyncio.gather(*(double(i) for i in range(n))))


@workflow
async def grouped() -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(double(i)) for i in range(3)]
    return [task.result() for task in tasks]


@workflow
async def raced() -> list[str]:
    """Steps against timers: who wins is the schedule's choice, and replay keeps it."""
    won = []
    for seconds in (0.001, 0.05, 5.0):
        try:
            async with asyncio.timeout(seconds):
                won.append(f"step {await double(1)}")
        except TimeoutError:
            won.append("timer")
    with contextlib.suppress(TimeoutError):
        won.append(str(await asyncio.wait_for(double(2), 0.01)))
    return won


@workflow
async def first_of() -> list[int]:
    tasks = [asyncio.create_task(double(i), name=f"t{i}") for i in range(4)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    found = [task.result() for task in done]
    for task in pending:
        task.cancel()
    return found


async def _plain(n: int) -> int:
    return await double(n)


@workflow
async def as_they_come() -> list[int]:
    found = [await one for one in asyncio.as_completed([_plain(i) for i in range(5)])]
    return found + [await one for one in asyncio.as_completed([double(i) for i in range(5, 8)])]


@workflow
async def shielded() -> int:
    inner = asyncio.ensure_future(double(4))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(inner), 0.01)
    return await inner


@workflow
async def synchronized() -> list[int]:
    queue: asyncio.Queue[int] = asyncio.Queue(2)
    lock, gate, event, condition = asyncio.Lock(), asyncio.Semaphore(2), asyncio.Event(), asyncio.Condition()
    seen: list[int] = []

    async def produce(n: int) -> None:
        async with gate:
            await queue.put(await double(n))

    async def consume() -> None:
        while len(seen) < 4:
            item = await queue.get()
            async with lock:
                seen.append(item)
        event.set()
        async with condition:
            condition.notify_all()

    async with asyncio.TaskGroup() as group:
        for n in range(4):
            group.create_task(produce(n))
        group.create_task(consume())
        await event.wait()
    return seen


@workflow
async def listening() -> list[Any]:
    got: list[Any] = [await receive("a", int)]
    first, second = await asyncio.gather(receive("b", str), receive("a", int))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            got.append(await receive("never"))
    return [*got, first, second]


@workflow
async def child(n: int) -> int:
    return await double(n)


@workflow
async def parent() -> list[int]:
    return list(await asyncio.gather(child(1), child.options(id="named")(2), double(3)))


@workflow
async def outward() -> str:
    other = await start(child(5), id="other")
    await send(other, {"n": 1}, channel="x")
    emit("log", "sent")
    tag(color="red")
    return other


@workflow
async def cleaned_up() -> str:
    try:
        await asyncio.gather(double(1), asyncio.sleep(1000))
    finally:
        await double(99)
    return "not reached"


@workflow
async def recovering() -> str:
    try:
        await fails("on purpose")
    except StepFailed as error:
        return f"{type(error.__cause__).__name__} {await double(error.attempts)}"
    return "not reached"


@workflow
async def going_on(n: int) -> int:
    await double(n)
    if n > 0:
        continue_as(going_on(n - 1))
    return n


@workflow
async def drawing() -> list[str]:
    before = now()
    await asyncio.sleep(2)
    drawn = [str(random().random()), str(uuid4()), str(now() - before), current_run().id]
    return [*drawn, str(await double(random().randint(1, 6)))]


@contextlib.contextmanager
def _noted(notes: list[str]) -> Iterator[None]:
    notes.append("in")
    yield
    notes.append("out")


async def _counted(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield await double(i)


@workflow
async def nested() -> list[Any]:
    notes: list[Any] = []
    with _noted(notes):
        notes += [number async for number in _counted(3)]
        letters = await look("abc")
    return [*notes, *letters]


@workflow
async def leaves_work_behind() -> int:
    background = asyncio.create_task(_forever())
    result = await double(5)
    assert not background.done()
    return result


async def _forever() -> None:
    try:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    finally:
        await double(7)


@workflow
async def patched_code() -> list[int]:
    found = [await double(1)]
    if patched("more"):
        found.append(await double(2))
    return found


CASES = [
    Case("sequential", sequential(6)),
    Case("gathered", gathered(6)),
    Case("grouped", grouped()),
    Case("raced", raced()),
    Case("first_of", first_of()),
    Case("as_they_come", as_they_come()),
    Case("shielded", shielded()),
    Case("synchronized", synchronized()),
    Case("listening", listening(), [("a", b"1"), ("b", b'"two"'), ("b", b"2"), ("a", b'"wrong"'), ("a", b"3")]),
    Case("parent", parent()),
    Case("outward", outward()),
    Case("cleaned_up", cleaned_up(), cancelled=True),
    Case("recovering", recovering()),
    Case("going_on", going_on(2)),
    Case("drawing", drawing()),
    Case("nested", nested()),
    Case("leaves_work_behind", leaves_work_behind()),
    Case("patched_code", patched_code()),
]
