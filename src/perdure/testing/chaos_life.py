"""One life of the chaos campaign: a process that executes runs with a replica, and tells the world outside what it was told.

Rules: a line goes to the log only after the engine has given its word, in one write; the log lies outside of the disk that is going
to be destroyed, as a customer would; every third run is started and awaited by a client, which executes nothing. Lines: `open`,
`started ID`, `begin ID SEQ`, `result ID VALUE MS`, `lost`, `end`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from itertools import cycle
from typing import Any

from perdure import Engine, current_step, step, workflow
from perdure.errors import ReplicaUnavailable, RunBlocked
from perdure.runtime.engine import Run

OPEN_RUNS = 24
STEPS = 6
TEXT_BYTES = 20_000
LEASE_S = 2.0

_log = -1


def mark(*words: object) -> None:
    """A line for the world outside."""
    os.write(_log, (" ".join(map(str, words)) + "\n").encode())


@step
async def effect(run_id: str, n: int) -> str:
    """Something that the world sees; its result makes the file grow by more than a page."""
    mark("begin", run_id, current_step().seq)
    return f"{n}" * TEXT_BYTES


@step(readonly=True)
async def looked_up(n: int) -> int:
    """Runs ahead of the replica."""
    return n * n


@workflow
async def job(run_id: str) -> int:
    """A few effects and lookups; what comes out follows from the id."""
    total = 0
    for n in range(STEPS):
        total += await looked_up(n)
        total += len(await effect(run_id, n % 10))
    return total + len(run_id)


def value_of(run_id: str) -> int:
    """What `job` must give."""
    return sum(n * n + TEXT_BYTES for n in range(STEPS)) + len(run_id)


async def told(engine: Engine, run: Run[int]) -> None:
    """Wait for a result, and tell it."""
    while True:
        try:
            value = await run.result()
            break
        except RunBlocked:
            await engine.retry(run.id)  # its processes were killed three times: a person would look, and go on
    mark("result", run.id, value, time.monotonic_ns() // 1_000_000)


async def live(engine: Engine, client: Engine, name: str, asked_to_end: asyncio.Event) -> None:
    """Take up what there is, and keep so many runs open until asked to end; then see all of them to their end."""
    sides = cycle((engine, engine, client))
    unfinished = [
        info for status in ("pending", "running", "waiting", "blocked") for info in await engine.runs(status=status, limit=10_000)
    ]
    tasks = {asyncio.create_task(told(engine, await next(sides).get(info.id))) for info in unfinished}
    number = 0
    try:
        while tasks or not asked_to_end.is_set():
            while len(tasks) < OPEN_RUNS and not asked_to_end.is_set():
                number += 1
                tasks.add(asyncio.create_task(_start(next(sides), f"{name}-{number}")))
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _start(engine: Engine, run_id: str) -> None:
    while True:
        try:
            run = await engine.start(job(run_id), id=run_id)
            break
        except ReplicaUnavailable:
            continue  # the same start finds it
    mark("started", run_id)
    await told(engine, run)


async def main(store: str, replica: str, name: str, durability: str) -> int:
    """0: ended as asked, 3: the lease was lost."""
    asked_to_end, loop = asyncio.Event(), asyncio.get_running_loop()

    def heard() -> None:
        loop.remove_reader(0)
        asked_to_end.set()

    loop.add_reader(0, heard)  # the end of our input is the word to end
    options: dict[str, Any] = {"replica": replica, "durability": durability, "lease_ttl": LEASE_S}
    async with Engine(store, workflows=[job], **options) as engine, Engine(store, execute=False) as client:
        replica_now: Any = engine.replica
        mark("open", name, os.getpid(), replica_now.lease.row.epoch, replica_now._litestream.pid)
        work = asyncio.create_task(live(engine, client, name, asked_to_end))
        lost = asyncio.create_task(engine.store_lost())
        await asyncio.wait([work, lost], return_when=asyncio.FIRST_COMPLETED)
        if lost.done():
            mark("lost", name, type(lost.result()).__name__)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return 3
        lost.cancel()
        await work
    mark("end", name)
    return 0


if __name__ == "__main__":
    _log = os.open(sys.argv[5], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    sys.exit(asyncio.run(main(*sys.argv[1:5])))
