"""A worker of the kill campaign: `python -m campaigns.kill_worker STORE LOG LEASE_S`.

Rules: the effect of a step is a line in one log, appended in one write. A step's value is made from
its arguments, so the result of every run is known beforehand. Each outcome also names the worker
that computed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from perdure import Call, Engine, Retry, continue_as, current_step, receive, send, step, workflow
from perdure.api import verbs
from perdure.store import sql

Q = sql.load("kill.sql", "campaigns")
AGAIN = Retry(attempts=5, delay=0.01, jitter=False)
log_file: int = -1


def open_log(path: str) -> int:
    """A descriptor whose writes append, also beside other writers."""
    return os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)


@contextlib.contextmanager
def noted(name: str) -> Iterator[int]:
    """Log that this attempt begins, and that it ends (E) or fails (F); gives the number of the
    worker that makes it.
    """
    me: Any = verbs._attempt.get()
    worker = me._host.owner
    facts = f"{os.getpid()} {worker} {me._host.run} {me.seq} {me.attempt} {name}"
    note("B", facts)
    try:
        yield worker
    except BaseException:
        note("F", facts)
        raise
    note("E", facts)


def note(mark: str, facts: str) -> None:
    """One line of the log, with the time behind it."""
    os.write(log_file, f"{mark} {facts} {time.time_ns() // 1_000_000}\n".encode())


@step(retry=AGAIN)
async def square(n: int, ms: int) -> list[int]:
    with noted("square") as worker:
        await asyncio.sleep(ms / 1000)
    return [n * n, worker]


@step(retry=AGAIN)
def in_thread(n: int, ms: int) -> list[int]:
    with noted("in_thread") as worker:
        time.sleep(ms / 1000)
    return [n + 1, worker]


@step(retry=AGAIN)
async def second_try(n: int) -> list[int]:
    with noted("second_try") as worker:
        await asyncio.sleep(0)
        if current_step().attempt == 1:
            raise ValueError("not at the first attempt")
    return [n, worker]


@step(readonly=True)
async def look(n: int) -> int:
    return n


@step(transactional=True, retry=AGAIN)
def book(db: Any, run: str, n: int) -> int:
    db.execute(Q["make_account"])
    db.execute(Q["book"], (run, n))
    return n


@workflow
async def chain(n: int, ms: int) -> int:
    return sum([(await square(i, ms))[0] for i in range(n)])


@workflow
async def fan(n: int, ms: int) -> int:
    found, more = await asyncio.gather(
        asyncio.gather(*((square if i % 2 else in_thread)(i, ms) for i in range(n))), look(n)
    )
    return sum(value for value, _ in found) + more


@workflow
async def naps(n: int) -> int:
    total = 0
    for i in range(n):
        await asyncio.sleep(0.02)
        total += (await second_try(i))[0]
    return total


@workflow
async def books(run: str, n: int) -> int:
    for i in range(n):
        await book(run, i)
        await square(i, 1)
    return n


@workflow
async def listener(n: int) -> int:
    return sum([(await square(await receive("m", int), 1))[0] for _ in range(n)])


@workflow
async def teller(to: str, values: list[int]) -> int:
    for value in values:
        await send(to, value, channel="m")
        await square(value, 1)
    return len(values)


@workflow
async def family(n: int) -> int:
    return sum(await asyncio.gather(*(chain(i + 1, 2) for i in range(n)))) + await fan(2, 1)


@workflow
async def rounds(left: int, total: int) -> int:
    total += (await square(left, 1))[0]
    if left:
        await continue_as(rounds(left - 1, total))
    return total


@workflow
async def endless() -> None:
    try:
        while True:
            await square(1, 5)
            await asyncio.sleep(0.01)
    finally:
        await square(99, 1)


@workflow
async def keeper() -> None:
    await endless()


WORKFLOWS: list[Any] = [chain, fan, naps, books, listener, teller, family, rounds, endless, keeper]


@dataclass
class Job:
    """A run that the campaign asks for, and how it has to end; no `expected` where it is to be
    cancelled.
    """

    id: str
    call: Call[Any]
    expected: int | None
    messages: list[int] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


def jobs(rng: random.Random, number: int) -> list[Job]:
    """One piece of work of a random kind and size; where one run tells another one
    something, both.
    """
    n, ms, run_id = rng.randint(1, 9), rng.choice([0, 1, 5, 30, 100]), f"j{number}"
    match rng.randrange(10):
        case 0:
            return [Job(run_id, chain(n, ms), _squares(n))]
        case 1:
            return [
                Job(
                    run_id,
                    fan(2 * n, ms),
                    sum(i * i if i % 2 else i + 1 for i in range(2 * n)) + 2 * n,
                )
            ]
        case 2:
            return [Job(run_id, naps(n), sum(range(n)))]
        case 3:
            return [Job(run_id, books(run_id, n), n)]
        case 4:
            return [Job(run_id, family(n), sum(_squares(i + 1) for i in range(n)) + 1 + 1 + 2)]
        case 5:
            return [Job(run_id, rounds(n, 0), _squares(n + 1))]
        case 6:
            return [Job(run_id, rng.choice([endless, keeper])(), None)]
        case 7:
            return [Job(run_id, listener(n), _squares(n), list(range(n)))]
        case 8:  # long enough to be hit three times without progress, which blocks the run
            return [Job(run_id, chain(2, 1200), 1)]
        case _:
            told = [100 + i for i in range(n)]
            heard = Job(
                run_id, listener(2 * n), _squares(n) + sum(i * i for i in told), list(range(n))
            )
            return [heard, Job(f"{run_id}-teller", teller(run_id, told), n)]


def _squares(n: int) -> int:
    return sum(i * i for i in range(n))


async def work(store: str, lease_s: float) -> None:
    """Execute whatever is due until standard input ends."""
    async with Engine(store, workflows=WORKFLOWS, lease_ttl=lease_s):
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # what a process hangs on, for who looks into it
    log_file = open_log(sys.argv[2])
    asyncio.run(work(sys.argv[1], float(sys.argv[3])))
