"""Periodic tasks: one class for every background loop.

Rules: a loop runs in an empty context, not in that of its starter; a tick returns the seconds until
the next one; an error is logged, and the next tick comes after `AFTER_ERROR_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any

log = logging.getLogger("perdure")

AFTER_ERROR_S = 1.0


async def to_its_end(work: Coroutine[Any, Any, None], on_cancel: Callable[[], None]) -> None:
    """Finish `work` even if the caller is cancelled. `on_cancel` is called at each cancellation.

    Raises what `work` raises, or the cancellation once `work` has ended.
    """
    task, cancelled = asyncio.get_running_loop().create_task(work), None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
            on_cancel()
    if cancelled is not None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("what had to be finished failed: %s", failure)
        raise cancelled
    task.result()


class Loop:
    """Calls `tick` again and again until `stop`. After `wake` the next tick comes at once."""

    def __init__(self, name: str, tick: Callable[[], Awaitable[float]]) -> None:
        self.name, self._tick = name, tick
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name=f"perdure-{self.name}", context=Context()
        )

    def wake(self) -> None:
        self._woken.set()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])  # a cancellation of the caller passes
            self._task = None

    async def _run(self) -> None:
        pid = os.getpid()
        while pid == os.getpid():  # not in a child that was forked from inside the event loop
            try:
                wait = await self._tick()
            except Exception as error:
                log.warning("%s: %s", self.name, error)
                wait = AFTER_ERROR_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    wait
                ):  # not wait_for: in Python 3.11 it can swallow a cancellation
                    await self._woken.wait()
            self._woken.clear()
