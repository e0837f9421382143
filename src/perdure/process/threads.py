"""Threads beside the event loop, for work that must not wait for the loop or its default executor.

Rules: the loop's default executor is the user's (`asyncio.to_thread` in steps, look-ups of names)
and is never used here; a thread that acts for a loop stops when the loop has hung for too
long, so that an endless loop in user code does not hold its runs for ever.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from time import monotonic
from typing import Any, TypeVar

STALL_S_MIN, STALL_LEASES = 60.0, 10
T = TypeVar("T")


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """The result of a blocking call, as `asyncio.to_thread` gives it, from a thread of its own."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="perdure")
    future = asyncio.get_running_loop().run_in_executor(thread, work, *args)
    thread.shutdown(wait=False)
    return await future


class Liveness:
    """Whether the running event loop still makes its callbacks; may be asked from any thread."""

    def __init__(self, lease_s: float) -> None:
        self._loop, self._every_s = asyncio.get_running_loop(), lease_s / 4
        self.stall_s_max = max(STALL_S_MIN, STALL_LEASES * lease_s)
        self._moved_s = monotonic()
        self._timer = self._loop.call_later(self._every_s, self._move, context=Context())

    def _move(self) -> None:
        self._moved_s = monotonic()
        self._timer = self._loop.call_later(self._every_s, self._move, context=Context())

    @property
    def stalled(self) -> bool:
        """Whether the loop has hung for so long that nothing should be kept for
        it any more.
        """
        return monotonic() - self._moved_s > self.stall_s_max

    def stop(self) -> None:
        self._timer.cancel()


class LoopThread:
    """A second event loop, in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def soon(self, work: Callable[[], object]) -> None:
        """Call something on the second loop."""
        self._loop.call_soon_threadsafe(work)

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs on the second loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def close(self) -> None:
        """End the loop; what is under way there is cancelled."""
        self.soon(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self._loop.run_until_complete(asyncio.wait(tasks))
        finally:
            self._loop.close()
