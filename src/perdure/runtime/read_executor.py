"""Executor of the store's reads: inline where a read takes microseconds, in a thread where it
crosses a network.

Rules: a callback of the event loop never waits for a read; results are handled in the order of the
reads, in plain callbacks with an empty context; time may pass between a read and its callback, so
the callback checks whether its run is still there; a read that the store fails is tried again,
because no run is to blame for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from typing import Any, NamedTuple, ParamSpec, TypeVar

from perdure.errors import EngineClosed, StoreError
from perdure.process.slices import Slices
from perdure.store.base import Store

log = logging.getLogger("perdure")

P = ParamSpec("P")
T = TypeVar("T")
AGAIN_S = 1.0


class _Read(NamedTuple):
    act: Callable[[Any], None]
    read: Callable[..., Any]
    args: tuple[Any, ...]


class ReadExecutor:
    """The reads of one engine. `inline` says, as the store does, that they need no thread."""

    def __init__(self, store: Store) -> None:
        self._store, self._loop = store, asyncio.get_running_loop()
        self.inline = store.inline
        # One thread: the results of two reads of a run come in the order of the reads.
        self._thread = None if store.inline else ThreadPoolExecutor(1, "perdure-reader")
        self._results = Slices(self._loop)
        self._under_way = 0
        self._idle: asyncio.Event | None = None
        self._stopped = self._closed = False

    async def get(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a read, for a task. Raises what the read raises, and `EngineClosed`."""
        if self._closed:
            raise EngineClosed
        if self._thread is None:
            return read(*args, **kwargs)
        return await self._loop.run_in_executor(self._thread, partial(read, *args, **kwargs))

    def then(self, act: Callable[[T], None], read: Callable[..., T], *args: Any) -> None:
        """Call `act` with the result of a read, for a callback: at once where reads are inline,
        else in a later callback.

        Where the store can't be read, the read is tried again every second, until the engine closes
        or the store is found to be damaged.
        """
        if self._closed:
            return
        if self._thread is None:
            try:
                result = read(*args)
            except StoreError as error:
                self._failed(_Read(act, read, args), error)
            else:
                act(result)
        else:
            self._under_way += 1
            future = self._loop.run_in_executor(self._thread, partial(read, *args))
            handle = partial(self._results.add, self._handle, _Read(act, read, args))
            future.add_done_callback(handle, context=Context())

    def _handle(self, asked: _Read, done: asyncio.Future[Any]) -> None:
        self._under_way -= 1
        try:
            result = done.result()
        except StoreError as error:
            self._failed(asked, error)
        else:
            asked.act(result)
        finally:
            if not self._under_way and self._idle is not None:
                self._idle.set()

    def _failed(self, asked: _Read, error: StoreError) -> None:
        if self._store.damaged is None and not self._stopped:
            log.warning("can't read the store, trying again: %s", error)
            self._loop.call_later(AGAIN_S, self._again, asked, context=Context())

    def _again(self, asked: _Read) -> None:
        if not self._stopped:
            self.then(asked.act, asked.read, *asked.args)

    async def idle(self) -> None:
        """Return when the results of all reads that are under way were handled."""
        while self._under_way:
            self._idle = asyncio.Event()
            await self._idle.wait()

    def stop_trying(self) -> None:
        """Try no failed read again, because the engine closes."""
        self._stopped = True

    def close(self) -> None:
        """End the thread."""
        self._stopped = self._closed = True
        if self._thread is not None:
            self._thread.shutdown(wait=True)
