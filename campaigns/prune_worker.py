"""Processes of the campaign of prunes: one that starts runs while it prunes, one that only prunes.

Rules: an id is written to the log once its start was acknowledged; ages are a second, so that runs
are pruned while others begin; the mark of the process that prunes ends early, because the next one
would wait a minute for a killed one.
"""

from __future__ import annotations

import asyncio
import os
import random as chances
import sys
import time
from pathlib import Path
from typing import Any

from perdure import (
    Engine,
    PrunedElsewhere,
    Retention,
    Workflow,
    continue_as,
    emit,
    receive,
    step,
    workflow,
)
from perdure.runtime import pruning

HOLD_MS = 500
PAUSE_S = 0.01


@step
async def same(n: int) -> int:
    return n


@workflow
async def child(n: int) -> int:
    return await same(n)


@workflow
async def family(n: int) -> int:
    return sum(await asyncio.gather(*(child(one) for one in range(n))))


@workflow
async def loop(n: int) -> int:
    await emit("rounds", n)
    await same(n)
    if n < 4:
        continue_as(loop(n + 1))
    return n


@workflow
async def waits() -> int:
    return await receive("go", int)


@workflow
async def long(text: str) -> int:
    for n in range(30):
        await same(n)
    return len(text)


FLOWS: list[Workflow[..., Any]] = [child, family, loop, waits, long]


def all_of(archive: str, age_s: float) -> Retention:
    """A retention that takes every run that ended so long ago."""
    return Retention(age_s, age_s, age_s, archive=archive)


async def starts(store: str, log: str, archive: str) -> None:
    """Start runs until the process is killed."""
    mark, number = f"{os.getpid()}-{time.monotonic_ns()}", 0
    kept = all_of(archive, 1)
    async with Engine(store, workflows=FLOWS, lease_ttl=1, retention=kept) as engine:
        with Path(log).open("a") as file:  # noqa: ASYNC230 (a line per start)
            while True:
                number += 1
                call: Any = chances.choice([family(3), loop(0), long("x" * 6_000), waits()])
                run = await engine.start(call, id=f"{mark}-{number}")
                file.write(run.id + "\n")
                file.flush()
                if call.definition is waits:
                    await run.send(1, channel="go")
                await asyncio.sleep(PAUSE_S)


async def prunes(store: str, _: str, archive: str) -> None:
    """Prune again and again, until the process is killed."""
    async with Engine(store, execute=False) as engine:
        while True:
            try:
                await engine.prune(all_of(archive, 0))
            except PrunedElsewhere:
                await asyncio.sleep(HOLD_MS / 1000)


if __name__ == "__main__":
    pruning.HOLD_MS = HOLD_MS
    what, *where = sys.argv[1:]
    asyncio.run({"starts": starts, "prunes": prunes}[what](*where))
