"""Perdure with a queue, on a file: every process is an engine on it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from answering import serve
from queueing import QUEUE, Noted, QueueAnswers, QueueSystem, executes, limit

from perdure import Engine, Every, Queue, Rate, step, workflow

ROOMY = 1_000_000
"""A limit that no measurement reaches."""
QUEUES = [
    Queue(QUEUE, concurrency=limit()),
    Queue("roomy", concurrency=ROOMY),
    Queue(
        "keys",
        concurrency=ROOMY,
        per_worker=ROOMY,
        rate=Rate(ROOMY, per=1),
        key_concurrency=ROOMY,
        key_rate=Rate(ROOMY, per=1),
    ),
]


@step(readonly=True)
async def work(run: str, hold_ms: int) -> None:
    with Noted(run):
        await asyncio.sleep(hold_ms / 1000)


@workflow
async def held(run: str, hold_ms: int) -> None:
    await work(run, hold_ms)


@workflow
async def empty() -> None:
    Perdure.count()


@step
async def noop(n: int) -> int:
    return n


NOOPS = {
    "": noop,
    "roomy": noop.options(queue="roomy"),
    "keys": noop.options(queue="keys", key="a"),
}


@workflow
async def sequence(steps: int, kind: str) -> int:
    call = NOOPS[kind]
    for n in range(steps):
        await call(n)
    return steps


class Perdure(QueueSystem):
    """One engine in this process, on `bench.db`."""

    @classmethod
    def count(cls) -> None:
        """A run has begun: this engine is never killed, so none is counted twice."""
        cls.begun += 1

    async def open(self) -> None:
        self.path = str(self.folder / "bench.db")
        options: dict[str, Any] = {} if executes() else {"execute": False}
        self.engine = await Engine(
            self.path, workflows=[held, empty, sequence], queues=QUEUES, **options
        ).__aenter__()

    async def close(self) -> None:
        await self.engine.__aexit__(None, None, None)

    async def enqueue(self, run: str, priority: int, hold_ms: int) -> None:
        await self.engine.start(held(run, hold_ms), id=run, queue=QUEUE, priority=priority)

    async def admit(self) -> None:
        await self.engine.queue(QUEUE, paused=False)

    async def steps(self, runs: int, steps: int, kind: str) -> None:
        await asyncio.gather(*(self.engine.run(sequence(steps, kind)) for _ in range(runs)))

    async def schedule(self, schedules: int) -> None:
        for n in range(schedules):
            when = Every(timedelta(days=365)) if n % 2 else "17 4 29 2 *"
            await self.engine.schedule(f"idle-{n}", when, empty())


if __name__ == "__main__":
    serve(Perdure, QueueAnswers)
