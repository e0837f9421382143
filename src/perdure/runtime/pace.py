"""Pace of writes in the background: how long each may hold the store, by what was measured.

Rules: other writes come first, though not for ever; a pause after each write is some times as long
as the write; the time for which a write works is bounded by the clock, and gets shorter while the
commits of such writes take clearly longer than the shortest ones, which the disk alone decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from perdure.runtime.writer import Writer
from perdure.store.base import Store
from perdure.store.writes import Write

WORK_MS_MIN, WORK_MS_MAX = 0.75, 1.5
"""How long a write works, apart from its commit: together they are to hold the store for 5 ms at
most, where the disk allows it."""
COMMIT_MS_MORE = 2.0
"""How much longer commits may take, on average, than the shortest ones."""
SMOOTH = 0.1
SHORTEST_GROWS = 1.02
"""The shortest commit is forgotten slowly: a disk may become slower for good."""
WAIT_S_MAX, WAIT_S = 1.0, 0.01
"""How long other writes may keep one waiting, and how often that is looked at."""


class Pace:
    """See the module's text. With `gentle` it leaves three quarters of the time to others; without,
    for a command that is waited for, half of it.
    """

    def __init__(self, store: Store, writer: Writer, *, gentle: bool) -> None:
        self._store, self._writer = store, writer
        self._pause_times = 3.0 if gentle else 1.0
        self._work_ms = WORK_MS_MIN
        self._held_ms, self._longer_ms, self._shortest_ms = 0.0, 0.0, 5.0
        self.longest_ms = self.longest_work_ms = 0.0

    async def write(self, made: Callable[[Callable[[], bool]], Write]) -> Any:
        """Write what `made` gives for an `enough`, and pause. Raises what the store raises."""
        await self._others()
        result = await self._writer.ask(made(self._budget()), self._measure)
        await asyncio.sleep(self._pause_times * self._held_ms / 1000)
        return result

    async def _others(self) -> None:
        """Let the writes go first that wait already."""
        for _ in range(round(WAIT_S_MAX / WAIT_S)):
            if not self._writer.waiting:
                return
            await asyncio.sleep(WAIT_S)

    def _budget(self) -> Callable[[], bool]:
        """An `enough` that counts from its first call, in the transaction."""
        until_s: float | None = None

        def enough() -> bool:
            nonlocal until_s
            if until_s is None:
                until_s = perf_counter() + self._work_ms / 1000
            return perf_counter() >= until_s

        return enough

    def _measure(self, _: object) -> None:
        held_ms, commit_ms = self._store.held_ms, self._store.commit_ms
        self._held_ms = held_ms
        self.longest_ms = max(self.longest_ms, held_ms)
        self.longest_work_ms = max(self.longest_work_ms, held_ms - commit_ms)
        self._shortest_ms = min(commit_ms, self._shortest_ms * SHORTEST_GROWS)
        self._longer_ms += SMOOTH * (commit_ms - self._shortest_ms - self._longer_ms)
        factor = 0.8 if self._longer_ms > COMMIT_MS_MORE else 1.1
        self._work_ms = min(WORK_MS_MAX, max(WORK_MS_MIN, self._work_ms * factor))
