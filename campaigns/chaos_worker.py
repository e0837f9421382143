"""A process of the chaos campaign: an engine with a replica, or a client of the same file.

Rules: a line is logged only after the engine has acknowledged, in one write. The log is outside
of the disk that is destroyed, as a customer would be. Every third run of an engine is started
and awaited by a client in its own process. Lines: `waits NAME`, `open NAME …`, `child PID`,
`started ID`, `begin ID SEQ`, `cancel ID` (asked for), `cancelled ID`, `result ID VALUE MS`,
`lost NAME`, `end NAME`.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count, cycle
from typing import Any

from perdure import Engine, Replica, current_step, step, workflow
from perdure.errors import (
    ReplicaUnavailable,
    RunBlocked,
    RunCancelled,
    RunFinished,
    StoreLocked,
    StoreReplaced,
)
from perdure.runtime.run_handle import Run

OPEN_RUNS, CLIENT_RUNS = 24, 4
LOOK_S = 0.2
STEPS = 6
TEXT_BYTES = 20_000
LEASE_S = 3.0
CHILD_S_MAX = 120  # seconds that a forked child may live

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


async def report(engine: Engine, run: Run[int]) -> None:
    """Wait for a result, and log it."""
    while True:
        try:
            value = await _until_confirmed(run.result)
            break
        except RunBlocked:
            await engine.retry(
                run.id
            )  # its processes were killed three times: a person would look, and go on
        except RunCancelled:
            mark("cancelled", run.id)
            return
    mark("result", run.id, value, time.monotonic_ns() // 1_000_000)


async def live(engine: Engine, client: Engine, name: str, asked_to_end: asyncio.Event) -> None:
    """Take up what there is, and keep so many runs open until asked to end; then see all of them to
    their end.
    """
    sides = cycle((engine, engine, client))
    unfinished = [
        info
        for status in ("pending", "running", "waiting", "blocked")
        for info in await engine.runs(status=status, limit=10_000)
    ]
    tasks = {
        asyncio.create_task(_seen_to_its_end(engine, next(sides), info.id)) for info in unfinished
    }
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


async def _seen_to_its_end(engine: Engine, side: Engine, run_id: str) -> None:
    if _is_to_be_cancelled(run_id):  # its client is gone
        await _cancel(await engine.get(run_id))
    await report(side, await side.get(run_id))


def _is_to_be_cancelled(run_id: str) -> bool:
    return "-client-" in run_id and int(run_id.rpartition("-")[2]) % 4 == 0


async def _cancel(run: Run[int]) -> None:
    mark("cancel", run.id)
    with suppress(
        RunFinished
    ):  # an earlier try was carried out, and only its confirmation was missing
        await _until_confirmed(run.cancel)


async def _start(engine: Engine, run_id: str) -> None:
    mark(
        "started", (run := await _until_confirmed(lambda: engine.start(job(run_id), id=run_id))).id
    )
    await report(engine, run)


async def _until_confirmed(act: Callable[[], Any]) -> Any:
    """Ask until it is confirmed: the same start finds its run, the same cancel its request. A
    frozen engine may hold the file's lock.
    """
    while True:
        with suppress(ReplicaUnavailable, StoreLocked):
            return await act()


async def overheard(engine: Engine) -> None:
    """Log the ends of runs that another process has started or cancelled, as this engine tells
    them.
    """
    known: set[str] = set()
    async with asyncio.TaskGroup() as group:
        while True:
            for info in await engine.runs(limit=20):
                if "-client-" in info.id and info.id not in known:
                    known.add(info.id)
                    group.create_task(report(engine, await engine.get(info.id)))
            await asyncio.sleep(LOOK_S)


def fork_child() -> None:
    """A child that outlives us and holds what it has inherited, as a worker of some pool may."""
    if (pid := os.fork()) == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHILD_S_MAX)  # the campaign may be killed before it ends this child
        while True:
            signal.pause()
    mark("child", pid)


def pause_clocks(file: str) -> None:
    """Replace our monotonic clocks by those of a virtual machine, which don't count a pause;
    the file has the nanoseconds to leave out.
    """
    with open(file, "rb") as opened:
        paused = mmap.mmap(opened.fileno(), 8, prot=mmap.PROT_READ)
    monotonic_ns, clock_ns = time.monotonic_ns, time.clock_gettime_ns

    def paused_ns() -> int:
        return int.from_bytes(paused[:8], "little")

    time.monotonic_ns = lambda: monotonic_ns() - paused_ns()
    time.monotonic = lambda: time.monotonic_ns() / 1e9
    time.clock_gettime_ns = lambda clock: (
        clock_ns(clock) - (0 if clock == time.CLOCK_REALTIME else paused_ns())
    )
    time.clock_gettime = lambda clock: time.clock_gettime_ns(clock) / 1e9


async def client(store: str, name: str) -> int:
    """Start, await and cancel runs in a process that executes nothing, for as long as the machine
    lives; 3: another file is there now.
    """
    numbers = count(1)

    async def work(engine: Engine) -> None:
        while True:
            run_id = f"{name}-client-{next(numbers)}"
            await (_cancelled if _is_to_be_cancelled(run_id) else _start)(engine, run_id)

    try:
        async with Engine(store, execute=False) as engine, asyncio.TaskGroup() as group:
            for _ in range(CLIENT_RUNS):
                group.create_task(work(engine))
    except* StoreReplaced:
        pass
    return 3


async def _cancelled(engine: Engine, run_id: str) -> None:
    """A run that ends in our own transaction: it has not begun when it is cancelled."""
    later = datetime.now(UTC) + timedelta(days=1)
    run = await _until_confirmed(lambda: engine.start(job(run_id), id=run_id, at=later))
    mark("started", run_id)
    await _cancel(run)
    await report(engine, run)


async def main(store: str, replica: str, name: str, durability: str) -> int:
    """0: ended as asked, 3: the lease was lost."""
    asked_to_end, loop = asyncio.Event(), asyncio.get_running_loop()
    waited: list[object] = []

    def heard() -> None:
        loop.remove_reader(0)
        asked_to_end.set()

    def waits(*_: object) -> None:
        if not waited:
            waited.append(name)
            mark("waits", name)

    loop.add_reader(0, heard)  # the end of our input is the word to end
    options: dict[str, Any] = {
        "replica": Replica(replica, on_wait=waits),
        "durability": durability,
        "lease_ttl": LEASE_S,
    }
    async with (
        Engine(store, workflows=[job], **options) as engine,
        Engine(store, execute=False) as client,
    ):
        replica_now: Any = engine.replica
        mark("open", name, os.getpid(), replica_now.lease.row.epoch, replica_now.copier.process.pid)
        if os.environ.get("CHAOS_FORKS"):
            fork_child()
        overhears = asyncio.create_task(overheard(engine))
        work = asyncio.create_task(live(engine, client, name, asked_to_end))
        lost = asyncio.create_task(engine.store_lost())
        await asyncio.wait([work, lost], return_when=asyncio.FIRST_COMPLETED)
        overhears.cancel()
        await asyncio.gather(overhears, return_exceptions=True)
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
    _log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    if os.environ.get("CHAOS_PAUSED"):
        pause_clocks(os.environ["CHAOS_PAUSED"])
    words = sys.argv[3:]
    sys.exit(asyncio.run(client(*words) if sys.argv[2] == "client" else main(*words)))
