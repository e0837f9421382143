"""Virtual time: an asyncio loop on which waits take no time.

Rules: time stands still while anything can run, in the loop, in a thread of an executor or in
one of anyio's. When nothing can, it jumps to the next timer. While a socket or a pipe is open,
it passes as it does outside, because input may come.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import Any

from perdure.errors import PerdureError
from perdure.process.clock import SystemClock

BEGIN_MS = 1_800_000_000_000
YEARS_MAX = 10
_YEAR_S = 366 * 86_400
THREADS_LOOK_S = 0.005


class NothingLeftToWaitFor(PerdureError, RuntimeError):
    """Virtual time has run through ten years without an end in sight."""

    def __init__(self) -> None:
        super().__init__(
            f"Nothing more is due within {YEARS_MAX} years of virtual time, and nothing is "
            f"under way. Does a workflow wait for a "
            "message that is never sent, or is it blocked? `await run.info()` before this wait "
            "shows it."
        )


class _Jumping(selectors.DefaultSelector):
    """Asks the loop what to do where others would sleep."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        while self._loop.threads_work():
            if ready := super().select(
                THREADS_LOOK_S
            ):  # they wake us when they are done, and not when they begin to wait for us
                return ready
        if len(self.get_map()) > 1:  # more than the loop's own pipe to itself
            began = time.monotonic()
            ready = super().select(timeout)
            self._loop.pass_by(time.monotonic() - began)
            return ready
        found = [look() for look in self._loop.before_jump]  # each of them has to look
        if not any(found):
            self._loop.pass_by(math.inf if timeout is None else timeout)
        return []


def anyio_threads(loop: asyncio.AbstractEventLoop) -> list[Any]:
    """The threads in which anyio carries out functions for a loop: they belong to no executor.

    What anyio keeps of them (`loop`, `idle_workers`, `stopping`, `stop`) is not public; tests hold
    that it is still there.
    """
    kind: Any = getattr(sys.modules.get("anyio._backends._asyncio"), "WorkerThread", ())
    return [
        thread
        for thread in threading.enumerate()
        if isinstance(thread, kind) and thread.loop is loop and not thread.stopping
    ]


def _waits_for_a_future(frame: FrameType) -> bool:
    """Whether a thread is blocked there by `Future.result()`, as `anyio.from_thread.run` and
    `run_coroutine_threadsafe` do it.
    """
    if (
        frame.f_code is not threading.Condition.wait.__code__
        or frame.f_back is None
        or frame.f_back.f_code is not Future.result.__code__
    ):
        return False
    return (
        frame.f_locals.get("waiter") in frame.f_locals["self"]._waiters
    )  # it is taken out when the thread is woken


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own; a loop factory for `asyncio.Runner`, for anyio and for
    pytest-asyncio.

    >>> with asyncio.Runner(loop_factory=VirtualLoop) as runner:
    ...     runner.run(asyncio.sleep(3 * 24 * 3600, "three days later"))
    'three days later'
    """

    slice_s = math.inf  # see `process.slices`

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s, self.threads_busy, self.exact = now_s, 0, False
        self.before_jump: list[Callable[[], bool]] = []
        self._asked_by: set[int] = set()  # threads that have given us something to do
        super().__init__(_Jumping(self))
        # asyncio's own is smaller than a step of a float after three months, and a timer would
        # never be due
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Seconds since virtual time began."""
        return self._now_s

    def now_ms(self) -> int:
        """The virtual date, in ms UTC."""
        return BEGIN_MS + round(self._now_s * 1000)

    def pass_by(self, seconds: float) -> None:
        """Let time pass; by a little at least, so that no rounding can make it stand still."""
        if self._now_s + seconds > YEARS_MAX * _YEAR_S:
            raise NothingLeftToWaitFor
        self._now_s = max(self._now_s + seconds, math.nextafter(self._now_s, math.inf))

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Timers go off at whole milliseconds, whatever part of one has passed when they are set;
        not so while `exact`.
        """
        whole = when if self.exact or math.isinf(when) else round(when * 1000) / 1000
        return super().call_at(
            whole if whole > self._now_s else when, callback, *args, context=context
        )

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """As usual; time stands still until the thread is done."""
        future = super().run_in_executor(executor, func, *args)
        self.threads_busy += 1
        future.add_done_callback(self._thread_done)
        return future

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """As usual; the thread may wait for it now."""
        self._asked_by.add(threading.get_ident())
        return super().call_soon_threadsafe(callback, *args, context=context)

    def threads_work(self) -> bool:
        """Whether a thread works for this loop: it has a function to carry out, and does not wait
        for the loop meanwhile.
        """
        busy = self.threads_busy + sum(
            thread not in thread.idle_workers for thread in anyio_threads(self)
        )
        return busy > 0 and busy > sum(
            _waits_for_a_future(frame)
            for ident, frame in sys._current_frames().items()
            if ident in self._asked_by
        )

    async def shutdown_default_executor(self, *timeout: Any) -> None:
        """As usual; it waits for a thread that is not one of an executor."""
        self.threads_busy += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self.threads_busy -= 1

    def _thread_done(self, _: Any) -> None:
        self.threads_busy -= 1


class VirtualClock(SystemClock):
    """What an engine on a `VirtualLoop` takes for the time."""

    idle_s_max = math.inf
    passes = False

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        return self._loop.now_ms()
