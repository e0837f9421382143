"""Random workflows: a tree of asyncio's verbs made from a seed, and the workflow that walks it.

Rules: the same seed gives the same tree on every interpreter. Every wait in a tree has an end, so
each program ends under any schedule. What a program returns says what it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as rng
from typing import Any

from campaigns.corpus import Case, child, double, fails
from perdure import (
    Saga,
    emit,
    expose,
    gather_limited,
    now,
    poll_until,
    random,
    receive,
    receive_request,
    send,
    uuid4,
    workflow,
)

DEPTH_MAX = 4
_SECONDS = (0.001, 0.02, 0.2, 5.0)
_LEAVES = (
    "step",
    "step",
    "step",
    "step",
    "fail",
    "sleep",
    "yield",
    "emit",
    "receive",
    "child",
    "send",
    "draw",
    "request",
    "expose",
    "poll",
)
_BRANCHES = (
    "seq",
    "gather",
    "collect",
    "group",
    "timeout",
    "wait_for",
    "first",
    "come",
    "shield",
    "finally",
    "catch",
    "behind",
    "queue",
    "gate",
    "meet",
    "notify",
    "cancel",
    "stubborn",
    "work",
    "again",
    "both",
    "limited",
    "saga",
)


def program(seed: int) -> Case:
    """A workflow of its own for each seed; some are cancelled on the way, some have a
    time limit.
    """
    dice = rng.Random(seed)
    tree = ["catch", _branch(dice, 0)] if dice.random() < 0.7 else _branch(dice, 0)
    messages = [
        (dice.choice("ab"), dice.choice([b"1", b"2", b'"word"'])) for _ in range(dice.randint(0, 4))
    ]
    limit_ms = dice.choice([None, None, None, 50, 500])
    cancelled = dice.random() < 0.25
    requests = [(dice.choice("ab"), b"%d" % dice.randint(1, 9)) for _ in range(dice.randint(0, 3))]
    return Case(
        f"program {seed}", walk(tree), messages, cancelled, timeout_ms=limit_ms, requests=requests
    )


def _node(dice: rng.Random, depth: int) -> list[Any]:
    return _leaf(dice) if depth >= DEPTH_MAX or dice.random() < 0.3 else _branch(dice, depth)


def _leaf(dice: rng.Random) -> list[Any]:
    kind = dice.choice(_LEAVES)
    match kind:
        case "sleep":
            return [kind, dice.choice(_SECONDS)]
        case "receive" | "request":
            return [kind, dice.choice("ab"), dice.choice(_SECONDS)]
        case _:
            return [kind, dice.randint(0, 99)]


def _branch(dice: rng.Random, depth: int) -> list[Any]:
    kind = dice.choice(_BRANCHES)
    match kind:
        case "timeout" | "wait_for" | "shield":
            return [kind, dice.choice(_SECONDS), _node(dice, depth + 1)]
        case "finally" | "cancel" | "both":
            return [kind, _node(dice, depth + 1), _node(dice, depth + 1)]
        case "catch" | "behind" | "stubborn":
            return [kind, _node(dice, depth + 1)]
        case _:
            return [kind, *(_node(dice, depth + 1) for _ in range(dice.randint(1, 4)))]


@workflow
async def walk(tree: list[Any]) -> Any:
    return await _walk(tree)


async def _walk(tree: list[Any]) -> Any:
    kind, *rest = tree
    return await (_LEAF if kind in _LEAF else _BRANCH)[kind](*rest)


async def _yield(n: int) -> str:
    for _ in range(n % 4):
        await asyncio.sleep(0)
    return "yielded"


async def _emit(n: int) -> str:
    emit("items", n)
    return "emitted"


async def _receive(channel: str, seconds: float) -> int:
    async with asyncio.timeout(seconds):
        return await receive(channel, int)


async def _request(channel: str, seconds: float) -> int:
    """Refuses every third value; a reply may come after a step."""
    async with asyncio.timeout(seconds):
        request = await receive_request(channel, int)
    if request.value % 3 == 0:
        request.refuse("a third")
    else:
        request.reply(await double(request.value) if request.value % 2 else request.value)
    return request.value


async def _expose(n: int) -> str:
    expose(**{f"shown_{n % 3}": n})
    return "exposed"


async def _draw(n: int) -> list[str]:
    return [str(uuid4()), str(random().randint(0, n)), now().isoformat()]


async def _seq(*nodes: list[Any]) -> list[Any]:
    return [await _walk(node) for node in nodes]


async def _gather(*nodes: list[Any]) -> list[Any]:
    return list(await asyncio.gather(*map(_walk, nodes)))


async def _collect(*nodes: list[Any]) -> list[Any]:
    """Errors as values; a cancellation of one of them counts as an answer, too."""
    found = await asyncio.gather(*map(_walk, nodes), return_exceptions=True)
    return [type(one).__name__ if isinstance(one, BaseException) else one for one in found]


async def _group(*nodes: list[Any]) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_walk(node)) for node in nodes]
    return [task.result() for task in tasks]


async def _limited(*nodes: list[Any]) -> list[Any]:
    calls = (_walk(node) for node in nodes)
    found = await gather_limited(calls, limit=2, tolerate=1, enough=max(1, len(nodes) - 1))
    return [type(one).__name__ if isinstance(one, BaseException) else one for one in found]


async def _saga(*nodes: list[Any]) -> Any:
    """The last one is the work, those before it undo it."""
    async with Saga() as saga:
        for node in nodes[:-1]:
            saga.undo(_walk(node))
        return await _walk(nodes[-1])


async def _poll(n: int) -> int:
    def until(_: int) -> bool:
        return random().random() < 0.4

    return await poll_until(double(n), until=until, every=0.02, polls_max=4)


async def _timeout(seconds: float, node: list[Any]) -> Any:
    async with asyncio.timeout(seconds):
        return await _walk(node)


async def _wait_for(seconds: float, node: list[Any]) -> Any:
    return await asyncio.wait_for(_walk(node), seconds)


async def _first(*nodes: list[Any]) -> list[Any]:
    tasks = {asyncio.create_task(_walk(node)): place for place, node in enumerate(nodes)}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return [(tasks[task], type(task.exception()).__name__) for task in done if not task.cancelled()]


async def _come(*nodes: list[Any]) -> list[Any]:
    return [await one for one in asyncio.as_completed([_walk(node) for node in nodes])]


async def _shield(seconds: float, node: list[Any]) -> Any:
    inner = asyncio.ensure_future(_walk(node))
    with contextlib.suppress(TimeoutError):
        return await asyncio.wait_for(asyncio.shield(inner), seconds)
    return ["late", await inner]


async def _finally(node: list[Any], last: list[Any]) -> Any:
    try:
        return await _walk(node)
    finally:
        await _walk(last)


async def _catch(node: list[Any]) -> Any:
    try:
        return await _walk(node)
    except Exception as error:
        return [type(error).__name__, now().isoformat()]


async def _behind(node: list[Any]) -> str:
    asyncio.create_task(_walk(node))  # the run keeps its tasks  # noqa: RUF006
    await asyncio.sleep(0)
    return "left"


async def _queue(*nodes: list[Any]) -> list[Any]:
    """Producers meet a consumer through a small queue and a lock."""
    queue: asyncio.Queue[Any] = asyncio.Queue(1)
    lock = asyncio.Lock()

    async def produce(node: list[Any]) -> None:
        try:
            item = await _walk(node)
        except Exception as error:
            item = type(error).__name__
        async with lock, asyncio.timeout(5):  # it may be stubborn, and the consumer cancelled
            await queue.put(item)

    async with asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(produce(node))
        return [await queue.get() for _ in nodes]


async def _gate(*nodes: list[Any]) -> list[Any]:
    """Two at a time through a semaphore; the first that fails ends the others."""
    gate = asyncio.Semaphore(2)

    async def enter(node: list[Any]) -> Any:
        async with gate:
            return await _walk(node)

    return list(await asyncio.gather(*map(enter, nodes)))


async def _meet(*nodes: list[Any]) -> list[Any]:
    """All wait at a barrier for the last."""
    barrier = asyncio.Barrier(len(nodes))

    async def come(node: list[Any]) -> list[Any]:
        try:
            return [await _walk(node), await barrier.wait()]
        except BaseException:
            await barrier.abort()
            raise

    found = await asyncio.gather(*map(come, nodes), return_exceptions=True)
    return [type(one).__name__ if isinstance(one, BaseException) else one for one in found]


async def _notify(*nodes: list[Any]) -> list[Any]:
    """One waits on a condition until all the others have said that they are done."""
    changed, done = asyncio.Condition(), list[str]()

    async def tell(node: list[Any]) -> None:
        with contextlib.suppress(Exception):
            await _walk(node)
        async with changed:
            done.append(node[0])
            changed.notify()

    async with asyncio.TaskGroup() as group, changed:
        for node in nodes:
            group.create_task(tell(node))
        await asyncio.wait_for(changed.wait_for(lambda: len(done) == len(nodes)), 60)
    return done


async def _cancel(node: list[Any], other: list[Any]) -> list[Any]:
    """A task that is cancelled when another node is done."""
    task = asyncio.create_task(_walk(node))
    try:
        first = await _walk(other)
    finally:
        task.cancel()
        done, _ = await asyncio.wait([task])
    return [first, [one.cancelled() for one in done]]


async def _stubborn(node: list[Any]) -> Any:
    """Code that takes a cancellation for an answer, once."""
    try:
        return await _walk(node)
    except asyncio.CancelledError:
        return ["stays", now().isoformat()]


async def _work(*nodes: list[Any]) -> list[Any]:
    """Two workers on a queue that is joined."""
    queue: asyncio.Queue[list[Any]] = asyncio.Queue()
    done: list[str] = []

    async def worker() -> None:
        while not queue.empty():
            node = queue.get_nowait()
            try:
                await _walk(node)
            except Exception as error:
                done.append(type(error).__name__)
            finally:
                queue.task_done()

    for node in nodes:
        queue.put_nowait(node)
    workers = [asyncio.create_task(worker()) for _ in range(2)]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(queue.join(), 60)
    for one in workers:
        one.cancel()
    await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    return done


async def _again(*nodes: list[Any]) -> list[Any]:
    """Tasks of which some are done when they are gathered."""
    tasks = [asyncio.create_task(_walk(node)) for node in nodes]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    beside = asyncio.create_task(_yield(2))
    found = await asyncio.gather(*tasks, return_exceptions=True)
    return [
        type(one).__name__ if isinstance(one, BaseException) else one
        for one in [*found, await beside]
    ]


async def _both(node: list[Any], other: list[Any]) -> list[Any]:
    """A group that fails, or not, and is cancelled in the same turn."""

    async def group() -> Any:
        seen = []
        try:
            async with asyncio.TaskGroup() as inside:
                inside.create_task(_walk(node))
                seen.append(await _walk(other))
        except* ValueError as error:
            seen += [type(one).__name__ for one in error.exceptions]
        task = asyncio.current_task()
        assert task is not None
        seen += [task.cancelling(), await double(1)]
        return seen

    tasks = [asyncio.create_task(group()), asyncio.create_task(_walk(other))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return [
        type(task.exception()).__name__ if task.cancelled() is False else "cancelled"
        for task in tasks
    ]


_LEAF: dict[str, Any] = {
    "step": double,
    "fail": lambda n: fails(f"on purpose {n}"),
    "sleep": asyncio.sleep,
    "yield": _yield,
    "emit": _emit,
    "receive": _receive,
    "child": child,
    "send": lambda n: send("other", n, channel="x"),
    "draw": _draw,
    "request": _request,
    "expose": _expose,
    "poll": _poll,
}
_BRANCH: dict[str, Any] = {
    "seq": _seq,
    "gather": _gather,
    "collect": _collect,
    "group": _group,
    "timeout": _timeout,
    "wait_for": _wait_for,
    "first": _first,
    "come": _come,
    "shield": _shield,
    "finally": _finally,
    "catch": _catch,
    "behind": _behind,
    "queue": _queue,
    "gate": _gate,
    "meet": _meet,
    "notify": _notify,
    "cancel": _cancel,
    "stubborn": _stubborn,
    "work": _work,
    "again": _again,
    "both": _both,
    "limited": _limited,
    "saga": _saga,
}
