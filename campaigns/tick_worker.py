"""A worker of the campaign of schedules: `python -m campaigns.tick_worker STORE LOG LEASE_S`.

Rules: a tick's run notes in the log that it works; the id of a run says which tick it is of.
SIGUSR2 moves this process's clock.
"""

from __future__ import annotations

import asyncio
import faulthandler
import random
import signal
import sys
from typing import Any

from campaigns import queue_log
from campaigns.queue_judge import NO_KEY
from campaigns.queue_worker import skew
from perdure import Call, Engine, Every, Schedule, current_step, step, workflow
from perdure.store import sql

OVERLAPS = ("allow", "wait", "skip", "cancel")
EACH_MS = 1000
Q = sql.load("ticks.sql", "campaigns")
log_file: int = -1


@step
async def note(ms: int) -> int:
    facts = (0, "ticks", NO_KEY, current_step().run_id, "tick")
    queue_log.note(log_file, queue_log.BEGUN, *facts)
    await asyncio.sleep(ms / 1000)
    queue_log.note(log_file, queue_log.ENDED, *facts)
    return ms


@workflow
async def tick(ms: int) -> int:
    return await note(ms)


WORKFLOWS: list[Any] = [tick]


def schedules() -> list[Schedule]:
    """One of each kind of overlap, twice: by an interval and by a cron line with seconds."""
    found: list[Schedule] = []
    for number, overlap in enumerate(OVERLAPS):
        ms = 10 if overlap == "allow" else 300
        every = Every(EACH_MS / 1000, offset=number / 10)
        for name, when in ((f"every-{overlap}", every), (f"line-{overlap}", "* * * * * *")):
            call: Call[int] = tick(ms)
            found.append(
                Schedule(name, when, call, overlap=overlap, catch_up=3600, catch_up_max=1000)  # type: ignore[arg-type]
            )
    return found


async def work(store: str, lease_s: float) -> None:
    """Execute whatever is due until standard input ends."""
    async with Engine(store, workflows=WORKFLOWS, schedules=schedules(), lease_ttl=lease_s):
        await asyncio.to_thread(sys.stdin.read)


def main(store: str, log: str, lease_s: str) -> None:
    global log_file
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    rng = random.Random()
    signal.signal(signal.SIGUSR2, lambda *_: skew(rng))
    log_file = queue_log.open_log(log)
    asyncio.run(work(store, float(lease_s)))


if __name__ == "__main__":
    main(*sys.argv[1:])
