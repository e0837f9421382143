"""The side of a measured process that has a queue: asked to enqueue runs, which note in a log when
they begin and end.

Rules: nothing but the standard library and the campaigns' log, because it also runs in the virtual
environments of the peers. A process that only enqueues executes nothing. Times are taken next to
the work, on the clock that all processes share.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

from answering import Answers, System

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from campaigns import queue_log
from campaigns.queue_judge import NO_KEY

QUEUE = "bench"
LOG, LIMIT, EXECUTES, POLL_S, URL = (
    "BENCH_QUEUE_LOG",
    "BENCH_QUEUE_LIMIT",
    "BENCH_QUEUE_EXECUTES",
    "BENCH_QUEUE_POLL_S",
    "BENCH_QUEUE_URL",
)
PRIORITIES = 5


def limit() -> int | None:
    """The queue's limit, which all processes of a measurement agree on."""
    return int(os.environ[LIMIT]) if os.environ.get(LIMIT) else None


def executes() -> bool:
    """Whether this process takes runs from the queue."""
    return EXECUTES in os.environ


class Noted:
    """Notes that a run's work begins and ends: `with Noted("run-7"): …`."""

    log = -1

    def __init__(self, holder: str) -> None:
        self._facts = (0, QUEUE, NO_KEY, holder, "work")
        if Noted.log < 0:
            Noted.log = queue_log.open_log(os.environ[LOG])

    def __enter__(self) -> None:
        queue_log.note(Noted.log, queue_log.BEGUN, *self._facts)

    def __exit__(self, *_: object) -> None:
        queue_log.note(Noted.log, queue_log.ENDED, *self._facts)


class QueueSystem(System):
    """A system with one queue, on the store of its folder or at an address."""

    async def crowd(self, runs: int, steps: int) -> None:
        raise NotImplementedError

    begun = 0
    """Runs whose workflow has begun in this process."""

    @abstractmethod
    async def enqueue(self, run: str, priority: int, hold_ms: int) -> None:
        """One run that holds its place for so long; back when it is on record."""

    async def fill(self, runs: int) -> None:
        """So many runs that do nothing wait in the queue, which admits none of them yet."""
        raise NotImplementedError

    @abstractmethod
    async def admit(self) -> None:
        """The queue admits from now on."""

    async def steps(self, runs: int, steps: int, kind: str) -> None:
        """So many runs at once, each of so many no-op steps with a place in a queue of this
        kind.
        """
        raise NotImplementedError

    async def schedule(self, schedules: int) -> None:
        """So many schedules whose next tick is far away."""
        raise NotImplementedError


class QueueAnswers(Answers):
    """The verbs of measurements of queues."""

    system: QueueSystem

    async def fill(self, runs: int) -> dict[str, Any]:
        return await self._timed(self.system.fill, runs)

    async def admissions(self, runs: int) -> dict[str, Any]:
        """From when the queue admits until so many runs have begun."""
        return await self._timed(self._admitted, self.system.begun + runs)

    async def _admitted(self, runs: int) -> None:
        await self.system.admit()
        while self.system.begun < runs:
            await asyncio.sleep(0.002)

    async def steps(self, runs: int, steps: int, kind: str) -> dict[str, Any]:
        return await self._timed(self.system.steps, runs, steps, kind)

    async def schedule(self, schedules: int) -> dict[str, Any]:
        return await self._timed(self.system.schedule, schedules)

    async def idle(self, seconds: float) -> dict[str, Any]:
        """CPU of this process while nothing happens."""
        return await self._timed(asyncio.sleep, seconds)

    async def offer(
        self, prefix: str, runs: int, seed: int, gap_ms: int, hold_ms: int
    ) -> dict[str, Any]:
        """Enqueue runs of random priorities with random gaps; when each of them was asked for."""
        rng, asked = random.Random(seed), {}
        for n in range(runs):
            run = f"{prefix}-{n}"
            asked[run] = time.monotonic_ns()
            await self.system.enqueue(run, rng.randint(1, PRIORITIES), hold_ms)
            await asyncio.sleep(rng.random() * 2 * gap_ms / 1000)
        return {"asked_ns": asked}
