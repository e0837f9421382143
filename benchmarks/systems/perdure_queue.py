"""Perdure with a queue, on a file: every process is an engine on it."""

from __future__ import annotations

import asyncio
from typing import Any

from answering import serve
from queueing import QUEUE, Noted, QueueAnswers, QueueSystem, executes, limit

from perdure import Engine, Queue, step, workflow


@step(readonly=True)
async def work(run: str, hold_ms: int) -> None:
    with Noted(run):
        await asyncio.sleep(hold_ms / 1000)


@workflow
async def held(run: str, hold_ms: int) -> None:
    await work(run, hold_ms)


class Perdure(QueueSystem):
    """One engine in this process, on `bench.db`."""

    async def open(self) -> None:
        options: dict[str, Any] = {"queues": [Queue(QUEUE, concurrency=limit())]}
        if not executes():
            options["execute"] = False
        self.engine = await Engine(
            self.folder / "bench.db", workflows=[held], **options
        ).__aenter__()

    async def close(self) -> None:
        await self.engine.__aexit__(None, None, None)

    async def enqueue(self, run: str, priority: int, hold_ms: int) -> None:
        await self.engine.start(held(run, hold_ms), id=run, queue=QUEUE, priority=priority)


if __name__ == "__main__":
    serve(Perdure, QueueAnswers)
