"""A run's loop driven from outside, as CPython's tests of asyncio drive a loop that they have made.

A test makes a loop, runs it, looks at it and runs it again, all in plain code. Here that code
runs in a thread of its own that alternates with the run's thread: exactly one of them is awake.
So what the test does between two calls of `run_until_complete` is a part of the run's turn, and
its commands are recorded as those of a workflow.

Rules: the loop is the run's own; only the verbs that start, stop and close a loop are added,
with asyncio's own code where it has some. A test has one loop, whichever way it makes loops.
Virtual time counts from 0 where a test brings the clock of `TestLoop`.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any, ClassVar

from perdure.core.guard import inside
from perdure.core.loop import Handle, TimerHandle, WorkflowLoop

STUCK_S = 30.0
_here = threading.local()
_run_until_complete = asyncio.BaseEventLoop.run_until_complete


class TestStuck(Exception):
    """A test neither ended nor gave control back to the loop."""

    def __init__(self) -> None:
        super().__init__(
            f"The test has computed for {STUCK_S:.0f} s, or waits in a way that the loop "
            f"does not know of."
        )


class _Dropped(BaseException):
    """Unwinds a test whose run has not come to its end."""


class Driver:
    """One function in a thread that alternates with the loop's."""

    begun: ClassVar[list[Driver]] = []

    def __init__(self, loop: DrivenLoop, function: Callable[[], str]) -> None:
        self._loop, self._function = loop, function
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._done = loop.create_future()
        self.error: BaseException | None = None
        self._outcome: str | None = None
        self._thread = threading.Thread(target=self._in_thread, daemon=True, name="test")
        self.dropped = False
        self.begun.append(self)

    @classmethod
    def drop_all(cls) -> None:
        """Unwind the tests that wait for a loop which nothing will run any more, so that they put
        back what they have changed.
        """
        alive = [driver for driver in cls.begun if driver._thread.is_alive()]
        cls.begun.clear()
        for driver in alive:
            driver.dropped = True
            driver._go.release()
            driver._thread.join(STUCK_S)
        if alive:
            gc.collect()  # now, while nothing is said of coroutines that were never awaited

    async def run(self) -> str:
        """The function's result, when it has ended. Raises `TestStuck`."""
        inside.loop = None  # workflow code may not start threads
        try:
            self._thread.start()
        finally:
            inside.loop = self._loop
        WorkflowLoop.call_soon(self._loop, self.resume)
        outcome: str = await self._done
        return outcome

    def resume(self, error: BaseException | None = None) -> None:
        """In the loop's thread: the function goes on, until it runs the loop again or ends."""
        self.error = error
        self._go.release()
        if not self._back.acquire(timeout=STUCK_S):
            self._done.set_exception(TestStuck())
        self._loop.refused = (
            None  # the test's result has it, or the test goes on because it expects it
        )
        if self._outcome is not None and not self._done.done():
            self._loop.close()
            self._loop.given_back()
            self._done.set_result(self._outcome)

    def pause(self) -> None:
        """In the function's thread: the loop goes on, until it is stopped."""
        inside.loop = None
        self._back.release()
        self._go.acquire()
        if self.dropped:
            raise _Dropped
        inside.loop = self._loop
        if self.error is not None:
            raise self.error

    def _in_thread(self) -> None:
        self._go.acquire()
        inside.loop = _here.loop = self._loop
        outcome = "failed"
        try:
            outcome = self._function()
        finally:
            inside.loop = None
            self._outcome = outcome
            self._back.release()


class DrivenLoop(WorkflowLoop):
    """A run's loop that a test makes, runs, stops and closes; `drive` turns a run's
    loop into one.
    """

    _driver: Driver
    _default_executor = None
    _running = _stopping = _closed = _marked = False
    _zero_ms = 0
    _main: Any = None

    @classmethod
    async def drive(cls, function: Callable[[], str]) -> str:
        """Within a workflow: the result of a function that drives the run's loop."""
        loop: Any = asyncio.get_running_loop()
        loop.__class__ = cls
        loop._main = asyncio.current_task()
        asyncio.tasks._unregister_task(loop._main)
        loop._driver = Driver(loop, function)
        outcome: str = await loop._driver.run()
        return outcome

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """The loop of the run, as one that the test has just made."""
        _here.loop.__class__ = cls
        return _here.loop

    def __init__(self, *_: Any, **__: Any) -> None:
        self._closed = False
        self._task_factory = self._exception_handler = None
        self._zero_ms = 0

    def given_back(self) -> None:
        """The test is over: what it has put in the place of a method goes."""
        for name in [name for name in vars(self) if callable(getattr(DrivenLoop, name, None))]:
            delattr(self, name)
        self.__class__ = DrivenLoop  # type: ignore[type-abstract]
        self._closed = False

    # --- as asyncio's loops have them -----------------------------------------------------------

    _check_closed = asyncio.BaseEventLoop._check_closed  # type: ignore[attr-defined]
    _check_running = asyncio.BaseEventLoop._check_running  # type: ignore[attr-defined]

    def run_until_complete(self, future: Any) -> Any:
        if not self._driver.dropped:
            return _run_until_complete(self, future)  # type: ignore[arg-type]
        return (
            future.close() if asyncio.iscoroutine(future) else None
        )  # what is unwound finds a loop that does nothing

    def run_forever(self) -> None:
        self._check_closed()
        self._check_running()
        if self._driver.dropped:
            return
        self._running = True
        self._mark()
        try:
            self._driver.pause()
        finally:
            self._running = self._stopping = False

    def _run_once(self) -> None:
        self.stop()
        self.run_forever()

    def stop(self) -> None:
        self._stopping = True

    def close(self) -> None:
        if self._driver.dropped:
            return
        if self._running:
            raise RuntimeError("Cannot close a running event loop")
        self._closed = True
        self._ready.clear()
        self._marked = False
        for task in super().live_tasks():
            task._log_destroy_pending = False
        self._tasks = [self._main]
        for timer in list(self.owner.timers.values()):
            timer.cancel()

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def time(self) -> float:
        return (self.now_ms - self._zero_ms) / 1000

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        self._check_closed()
        return super().call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> Any:
        self._check_closed()
        return super().call_later(delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> Any:
        self._check_closed()
        return super().call_at(when + self._zero_ms / 1000, callback, *args, context=context)

    # --- iterations -------------------------------------------------------------------------------

    def _mark(self) -> None:
        """Note where an iteration ends: asyncio's loop stops there and nowhere else."""
        if not self._marked:
            self._marked = True
            WorkflowLoop.call_soon(self, self._end_of_iteration)

    def _end_of_iteration(self) -> None:
        self._marked = False
        if self._stopping:
            self._driver.resume()
        elif self._ready:
            self._mark()

    def fire(self, timer: TimerHandle) -> None:
        super().fire(timer)
        self._mark()

    def _failed(self, handle: Handle, error: BaseException) -> None:
        """As in asyncio, what ends a process goes through to the code that runs the loop."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._driver.resume(error)
        else:
            super()._failed(handle, error)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Logged on replay, too: the test looks for it."""
        muted, inside.muted = inside.muted, False
        super().default_exception_handler(context)
        inside.muted = muted

    def live_tasks(self) -> list[Any]:
        """Those of the test; the task that waits for its end is not among them."""
        return [task for task in super().live_tasks() if task is not self._main]


class TimedLoop(DrivenLoop):
    """In the place of `TestLoop` of CPython's tests, whose clock begins at 0 and is
    moved by hand.
    """

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self._zero_ms = self.now_ms

    def advance_time(self, seconds: float) -> None:
        """Time passes by itself here when nothing else is left to do."""


def in_test() -> bool:
    """Whether this thread carries out a test."""
    return hasattr(_here, "loop")
