"""A corpus of small workflows that together use every part of the kernel.

Rules: steps compute a value from their arguments, so a schedule decides the order and never the
values. The messages that a workflow needs are listed with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from perdure import (
    Call,
    PollTimeout,
    Retry,
    Saga,
    StepFailed,
    TooManyFailures,
    continue_as,
    current_run,
    emit,
    expose,
    gather_limited,
    now,
    patched,
    poll_until,
    random,
    receive,
    receive_request,
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
    """A workflow's call, and what it needs: messages and requests as (channel, JSON), a cancel, a
    time limit of the whole run.
    """

    name: str
    call: Call[Any]
    messages: list[tuple[str, bytes]] = field(default_factory=list)
    cancelled: bool = False
    timeout_ms: int | None = None
    requests: list[tuple[str, bytes]] = field(default_factory=list)


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
    lock, gate, event, condition = (
        asyncio.Lock(),
        asyncio.Semaphore(2),
        asyncio.Event(),
        asyncio.Condition(),
    )
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


@workflow
async def group_that_fails() -> list[str]:
    """One task of a group fails: the others are cancelled, and their clean-up awaits steps."""
    found: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_cleaning(found))
            group.create_task(_failing())
    except* StepFailed as errors:
        found.append(str(len(errors.exceptions)))
    return found


async def _cleaning(found: list[str]) -> None:
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        found.append(f"cleaned {await double(1)}")
        raise


async def _failing() -> None:
    await fails("in a group")


@workflow
async def errors_as_values() -> list[str]:
    found = await asyncio.gather(
        double(1), fails("one"), child(6), fails("two"), return_exceptions=True
    )
    return [type(one).__name__ if isinstance(one, BaseException) else str(one) for one in found]


@workflow
async def refuses_to_be_cancelled() -> list[str]:
    seen: list[str] = []
    for _ in range(3):
        try:
            await asyncio.sleep(0.05)
            seen.append("slept")
        except asyncio.CancelledError:
            seen.append(f"not now {await double(3)}")
    return seen


@workflow
async def limited() -> int:
    """The run's own time limit goes off in the first or the second sleep, and the clean-up outlives
    it.
    """
    try:
        await asyncio.sleep(0.02)
        await asyncio.sleep(60)
    finally:
        await double(1)
    return 0


@workflow
async def several_listeners() -> list[int]:
    """Two wait on one channel; the one whose time is up must not take a message with it."""

    async def listen(seconds: float) -> int:
        try:
            async with asyncio.timeout(seconds):
                return await receive("a", int)
        except TimeoutError:
            return -1

    found = await asyncio.gather(listen(0.005), listen(0.03), listen(100))
    return [*found, await listen(100)]


@workflow
async def barrier_and_condition() -> list[int]:
    barrier, condition = asyncio.Barrier(3), asyncio.Condition()
    order: list[int] = []

    async def meet(n: int) -> None:
        await double(n)
        await barrier.wait()
        async with condition:
            order.append(n)
            condition.notify_all()

    async def watch() -> None:
        async with condition:
            await condition.wait_for(lambda: len(order) == 3)

    await asyncio.gather(watch(), *(meet(n) for n in range(3)))
    return order


@workflow
async def waits_in_sets() -> list[int]:
    """Sets of tasks, walked and joined as is common; the order is the schedule's, not the
    addresses'.
    """
    waiting = {asyncio.create_task(double(n)) for n in range(7)}
    found: list[int] = []
    while waiting:
        done, waiting = await asyncio.wait(
            waiting, return_when=asyncio.FIRST_COMPLETED, timeout=0.01
        )
        found += [task.result() for task in done]
        if len(found) == 3:
            waiting = waiting | {asyncio.create_task(double(100))}
    return found


@workflow
async def left_in_the_middle() -> list[int]:
    """An async generator that is not walked to its end, and a task that is cancelled before it
    began.
    """
    found = []
    async with contextlib.aclosing(_tidy(5)) as numbers:
        async for number in numbers:
            found.append(number)
            if len(found) == 2:
                break
    never = asyncio.create_task(_plain(50))
    never.cancel()
    await asyncio.wait([never])
    return found


async def _tidy(n: int) -> AsyncGenerator[int, None]:
    try:
        for i in range(n):
            yield await double(i)
    finally:
        await double(n)


@workflow
async def continues_in_a_group(n: int) -> int:
    async with asyncio.TaskGroup() as group:
        group.create_task(_plain(n))
        if n > 0:
            await double(n)
            continue_as(continues_in_a_group(n - 1))
    return n


@workflow(name="changed")
async def before_the_change(n: int) -> list[int]:
    found = list(await asyncio.gather(double(n), double(n + 1)))
    await asyncio.sleep(0.01)
    return [*found, await double(n + 2)]


@workflow(name="changed")
async def after_the_change(n: int) -> list[int]:
    found = list(await asyncio.gather(double(n), double(n + 1)))
    await asyncio.sleep(0.01)
    if patched("ask first"):
        found.append(await double(50))
    found.append(await double(n + 2))
    return found + ([await double(60)] if patched("ask first") else [])


@workflow
async def gathers_limited() -> list[str]:
    """Places that are handed on, failures in place, enough, and too many failures."""
    found: list[str] = []
    mixed = [double(1), fails("no"), child(2), double(3)]
    found += map(repr, await gather_limited(mixed, limit=2, tolerate=1))
    first = await gather_limited((_plain(n) for n in range(4, 99)), limit=3, enough=2)
    found += [repr(one) for one in first if isinstance(one, int)]
    try:
        await gather_limited([child(4), fails("a"), fails("b"), *map(double, range(9))], limit=3)
    except TooManyFailures as error:
        found.append(str(error))
    return found


@workflow
async def polls() -> int:
    drawn = await poll_until(double(1), until=lambda n: random().random() < 0.3, every=0.02)
    try:
        await poll_until(double(2), until=lambda n: n > 4, timeout=0.1, every=Retry(delay=0.03))
    except PollTimeout as error:
        return drawn + int(error.last)
    return 0


@workflow
async def compensates(n: int) -> int:
    """One saga inside another; a compensation fails, and a cancel may come at any time."""
    async with Saga() as outer:
        outer.undo(child(n))
        outer.undo(double(n))
        async with Saga() as inner:
            inner.undo(fails("can't be undone"))
            inner.undo(double(n + 1))
            await gather_limited(map(double, range(3)), limit=2)
            await asyncio.sleep(0.03)
        async with Saga() as failing:
            failing.undo(fails("no"))
            failing.undo(look("undone"))
            await fails("on purpose")
    return n


@workflow
async def answers(limit: int) -> list[Any]:
    """Replies after a step and refuses, in any order, and shows how far it is. What it returns does
    not depend on the order in which it is asked.
    """
    seen: list[Any] = []

    async def serve(channel: str) -> None:
        request = await receive_request(channel, int)
        expose(**{f"asked_{channel}": request.value})
        if request.value > limit:
            request.refuse(f"{request.value} is too much")
            return
        request.reply([await double(request.value), request.sender != ""])
        seen.append([channel, request.key])

    async with asyncio.TaskGroup() as group:
        for channel in "aabb":
            group.create_task(serve(channel))
    expose(seen=len(seen))
    return sorted(seen)


@workflow
async def hands_on(left: int, total: int = 0) -> int:
    """Takes one request in each generation, and replies in the last one only."""
    request = await receive_request("count", int)
    if left:
        expose(left=left)
        continue_as(hands_on(left - 1, total + request.value))
    request.reply(total + request.value)
    return total


@workflow
async def asked_and_cancelled() -> str:
    """Replies while it is unwound."""
    request = await receive_request("a")
    try:
        await asyncio.sleep(3600)
    finally:
        request.reply(await double(request.value))
    return "never"


@workflow
async def adds_up(times: int) -> int:
    return sum([await receive("add", int) for _ in range(times)])


@workflow
async def hands_out(times: int) -> list[int]:
    """Each message starts its receiver, if it is the first."""
    sent = [send("sum", n, channel="add", start=adds_up(times)) for n in range(times)]
    await asyncio.gather(*sent)
    return [await double(n) for n in range(2)]


BEFORE, AFTER = Case("before", before_the_change(1)), Case("after", after_the_change(1))
"""One workflow before and after a change."""

CASES = [
    Case("sequential", sequential(6)),
    Case("gathered", gathered(6)),
    Case("grouped", grouped()),
    Case("raced", raced()),
    Case("first_of", first_of()),
    Case("as_they_come", as_they_come()),
    Case("shielded", shielded()),
    Case("synchronized", synchronized()),
    Case(
        "listening",
        listening(),
        [("a", b"1"), ("b", b'"two"'), ("b", b"2"), ("a", b'"wrong"'), ("a", b"3")],
    ),
    Case("parent", parent()),
    Case("outward", outward()),
    Case("cleaned_up", cleaned_up(), cancelled=True),
    Case("recovering", recovering()),
    Case("going_on", going_on(2)),
    Case("drawing", drawing()),
    Case("nested", nested()),
    Case("leaves_work_behind", leaves_work_behind()),
    Case("patched_code", patched_code()),
    Case("group_that_fails", group_that_fails()),
    Case("errors_as_values", errors_as_values()),
    Case("refuses_to_be_cancelled", refuses_to_be_cancelled(), cancelled=True),
    Case("limited", limited(), timeout_ms=30),
    Case(
        "several_listeners",
        several_listeners(),
        [("a", b"1"), ("a", b"2"), ("a", b"3"), ("a", b"4")],
    ),
    Case("barrier_and_condition", barrier_and_condition()),
    Case("waits_in_sets", waits_in_sets()),
    Case("left_in_the_middle", left_in_the_middle()),
    Case("continues_in_a_group", continues_in_a_group(2)),
    Case("gathers_limited", gathers_limited()),
    Case("polls", polls()),
    Case("compensates", compensates(1)),
    Case(
        "answers",
        answers(5),
        requests=[("a", b"1"), ("b", b"2"), ("b", b"9"), ("a", b"3")],
    ),
    Case("hands_out", hands_out(3)),
    Case("hands_on", hands_on(2), requests=[("count", b"4")]),
    Case("asked_and_cancelled", asked_and_cancelled(), requests=[("a", b"4")], cancelled=True),
    Case("compensates_when_cancelled", compensates(2), cancelled=True),
]
