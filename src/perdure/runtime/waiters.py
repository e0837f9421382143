"""Waiters: callers that wait for news of a run or a reply, readers that wait for any commit.

Rules: outcomes are reported after the commit; a caller that gives up leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Waiters:
    """The waiters of one engine, by the key of their run."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}
        self._readers: set[asyncio.Event] = set()
        self._askers: dict[int, list[asyncio.Future[None]]] = {}  # by request

    def waited(self) -> list[int]:
        """The runs that a caller waits for."""
        return list(self._waiting)

    def wait_for(self, run: int) -> bool:
        """Whether a caller waits for a run."""
        return run in self._waiting

    def notify(self, run: int) -> None:
        """Wake the callers that wait for a run, and all readers."""
        for future in self._waiting.pop(run, ()):
            if not future.done():
                future.set_result(None)
        self.emitted()

    def emitted(self) -> None:
        """Something was committed that a reader may wait for."""
        for event in self._readers:
            event.set()

    def fail(self, error: Exception) -> None:
        """Give an error to all callers, because there will be no more news."""
        waiting, self._waiting, askers, self._askers = self._waiting, {}, self._askers, {}
        for futures in [*waiting.values(), *askers.values()]:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        self.emitted()

    def when(self, run: int, act: Callable[[], None]) -> None:
        """Call back, once, when there is news of a run."""
        future: asyncio.Future[None] = self._loop.create_future()
        future.add_done_callback(
            lambda done: None if done.cancelled() or done.exception() else act()
        )
        self._waiting.setdefault(run, []).append(future)

    def expect(self, run: int) -> asyncio.Future[None]:
        """A future for the next news of a run: made before the run is read, so that news which
        comes during the read is not missed. Give it to `wait` or to `leave`.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.setdefault(run, []).append(future)
        return future

    def leave(self, run: int, future: asyncio.Future[None]) -> None:
        """Expect no news any more."""
        waiting = self._waiting.get(run, [])
        if future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._waiting[run]
        elif future.done() and not future.cancelled():
            future.exception()  # what the store was lost for, if so, is raised by the next read

    async def wait(self, run: int, future: asyncio.Future[None]) -> None:
        """Return when an expected future has news. Raises what the store was lost for."""
        try:
            await future
        except asyncio.CancelledError:  # the caller may give up and come back any number of times
            self.leave(run, future)
            raise

    # --- askers -----------------------------------------------------------------------------------

    def asked(self) -> list[int]:
        """The requests whose reply a caller waits for."""
        return list(self._askers)

    def expect_reply(self, request: int) -> asyncio.Future[None]:
        """A future for the reply to a request. Give it to `leave_reply`."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._askers.setdefault(request, []).append(future)
        return future

    def leave_reply(self, request: int, future: asyncio.Future[None]) -> None:
        """Expect no reply any more."""
        waiting = self._askers.get(request, [])
        if future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._askers[request]

    def replied(self, request: int) -> None:
        """Have those who wait for the reply to a request look at it."""
        for future in self._askers.pop(request, ()):
            if not future.done():
                future.set_result(None)

    # --- readers ----------------------------------------------------------------------------------

    def subscribe(self) -> tuple[asyncio.Event, Callable[[], None]]:
        """An event that is set after commits here or elsewhere, and the way to end that."""
        event = asyncio.Event()
        self._readers.add(event)
        return event, lambda: self._readers.discard(event)
