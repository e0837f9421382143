"""The engine for code without an event loop: the same verbs, carried out on a loop in a thread of its own.

Rules: no second implementation; every verb is the engine's own coroutine, waited for; loop and thread are made in the process that
enters it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, Generic, Self, TypeVar

from perdure.api import Call
from perdure.errors import EngineClosed, UsedAfterFork
from perdure.runtime.engine import Engine, Run

T = TypeVar("T")


def run(call: Call[T], store: str | os.PathLike[str] = "perdure.db", id: str | None = None) -> T:
    """Execute one run to its end, as `asyncio.run` does for a coroutine; with an `id` it goes on where it stopped.

    >>> from perdure import workflow
    >>> @workflow
    ... async def double(n: int) -> int:
    ...     return n * 2
    >>> run(double(4), store=":memory:")
    8
    """

    async def main() -> T:
        async with Engine(store) as engine:
            return await engine.run(call, id=id)

    return asyncio.run(main())


class SyncRun(Generic[T]):
    """A `Run` whose verbs wait."""

    def __init__(self, engine: SyncEngine, inner: Run[T]) -> None:
        self._engine, self._inner, self.id = engine, inner, inner.id

    def result(self, timeout: float | None = None) -> T:
        """See `Run.result`."""
        return self._engine.wait(self._inner.result(timeout))

    def stream(self, name: str) -> Iterator[Any]:
        """See `Run.stream`."""
        items = self._inner.stream(name)
        while True:
            try:
                yield self._engine.wait(_next(items))
            except StopAsyncIteration:
                return

    def __getattr__(self, verb: str) -> Any:
        return self._engine.verb(getattr(self._inner, verb))


async def _and_tell(work: Coroutine[Any, Any, T], ended: threading.Event) -> T:
    try:
        return await work
    finally:
        ended.set()


async def _next(items: Any) -> Any:
    return await items.__anext__()


class SyncEngine:
    """`Engine` for code without an event loop: takes what it takes, and has its verbs, each of which waits.

    >>> from perdure import workflow
    >>> @workflow
    ... async def double(n: int) -> int:
    ...     return n * 2
    >>> with SyncEngine(":memory:", workflows=[double]) as engine:
    ...     engine.start(double(4), id="four").result()
    8
    """

    def __init__(self, store: str | os.PathLike[str], **options: Any) -> None:
        self._inner = Engine(store, **options)
        self._loop: asyncio.AbstractEventLoop | None = None  # made where it is entered: a thread does not survive a fork
        self._thread: threading.Thread | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        self._pid, self._loop = os.getpid(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(self._loop,), name="perdure-engine", daemon=True)
        self._thread.start()
        try:
            self.wait(self._inner.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._pid != os.getpid():
            return  # of a child that was forked inside the block: it is the parent's to close
        try:
            self.wait(self._inner.__aexit__(), to_its_end=True)
        finally:
            self._stop()

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        """The thread's work: the event loop, then the end of all that is left on it."""
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()

    def _stop(self) -> None:
        assert self._loop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop = None

    def wait(self, work: Coroutine[Any, Any, T], *, to_its_end: bool = False) -> T:
        """Carry out a coroutine on the engine's loop; Ctrl-C cancels it. With `to_its_end` it is waited for all the same.

        Raises `EngineClosed` outside the `with` block, and `UsedAfterFork` in a child that was forked inside it.
        """
        if self._loop is None or self._pid != os.getpid():
            work.close()
            raise EngineClosed if self._loop is None else UsedAfterFork(self._pid)
        ended = threading.Event()
        future = asyncio.run_coroutine_threadsafe(_and_tell(work, ended), self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                if to_its_end:
                    ended.wait()
            raise

    def verb(self, method: Any) -> Any:
        """A method of the engine or of a run as a plain function."""

        def call(*args: Any, **kwargs: Any) -> Any:
            result = self.wait(method(*args, **kwargs))
            return SyncRun(self, result) if isinstance(result, Run) else result

        return call

    def __getattr__(self, verb: str) -> Any:
        if verb.startswith("_"):
            raise AttributeError(verb)
        return self.verb(getattr(self._inner, verb))
