"""A process to be killed that executes runs in queues: `queue_victim.py STORE FOLDER NAME`.

Rules: every attempt writes its beginning and its end to a file that all processes share, each in
one call, so that what overlapped can be read after kill -9.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from perdure import Engine, Queue, Retry, step, workflow
from tests.runtime.victim import hear, note, say

LEASE_S = 1.0
AT_ONCE = Retry(attempts=3, delay=0)
QUEUE = Queue("q", concurrency=1)


async def _work(folder: str, name: str) -> str:
    """Hang where a file says so, until it is gone."""
    note(folder, f"B {name}")
    await asyncio.sleep(0.002)
    while (Path(folder) / f"hang-{name}").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    note(folder, f"E {name}")
    return name


@step(queue="q", retry=AT_ONCE)
async def work(folder: str, name: str) -> str:
    return await _work(folder, name)


@step(queue="q", on_crash="ask")
async def careful(folder: str, name: str) -> str:
    return await _work(folder, name)


@step(retry=AT_ONCE)
async def free(folder: str, name: str) -> str:
    return await _work(folder, name)


@step(queue="q", retry=Retry(attempts=99, delay=0))
async def dies(folder: str) -> None:
    note(folder, "B deadly")
    os.kill(os.getpid(), signal.SIGKILL)


@workflow
async def deadly(folder: str) -> None:
    await dies(folder)


@workflow
async def works(folder: str, name: str) -> str:
    return await work(folder, name)


@workflow
async def carefully(folder: str, name: str) -> str:
    return await careful(folder, name)


@workflow
async def freely(folder: str, name: str) -> str:
    return await free(folder, name)


WORKFLOWS: list[Any] = [works, carefully, freely, deadly]


async def main(store: str) -> None:
    async with Engine(
        store, workflows=WORKFLOWS, queues=[QUEUE], lease_ttl=LEASE_S, close_grace=0.2
    ):
        say("OPEN")
        await hear()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
