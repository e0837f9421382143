"""The handle of a run: what `Engine.start` and `Engine.get` return.

Rules: it holds an id and no state of the run; every verb is the engine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from perdure.core import numbers
from perdure.runtime.info import HistoryEvent, RunInfo, RunSummary

R = TypeVar("R")
T = TypeVar("T")


class RunVerbs(Protocol):
    """The verbs of an engine that the handle of a run calls."""

    async def info(self, id: str) -> RunInfo: ...

    async def summary(self, id: str) -> RunSummary: ...

    async def send(
        self,
        id: str,
        value: Any,
        *,
        channel: str,
        key: str | None = None,
        sender: str | None = None,
    ) -> None: ...

    async def ask(
        self,
        id: str,
        value: Any,
        *,
        channel: str,
        type: Any = Any,
        timeout: float | timedelta | None = None,
        key: str | None = None,
        sender: str | None = None,
    ) -> Any: ...

    async def exposed(
        self, id: str, name: str | None = None, *, timeout: float | timedelta | None = None
    ) -> Any: ...

    async def cancel(self, id: str) -> None: ...

    async def history(
        self,
        id: str,
        *,
        after: int | None = None,
        limit: int | None = None,
        payloads: bool = True,
    ) -> list[HistoryEvent]: ...

    async def _status(self, id: str) -> str: ...

    async def _result(self, run_id: str, key: int | None) -> Any: ...

    def _stream(
        self, run_id: str, name: str, after: int, *, positions: bool = False
    ) -> AsyncIterator[Any]: ...


class Run(Generic[T]):
    """A run, by its id: `result()` waits for its end, the other verbs are the engine's.

    >>> from perdure import Engine, emit, receive, workflow
    >>> @workflow
    ... async def greets(times: int) -> str:
    ...     names = [await receive("name", str) for _ in range(times)]
    ...     for name in names:
    ...         emit("greetings", f"hello {name}")
    ...     return " and ".join(names)
    >>> async def main():
    ...     async with Engine(":memory:", workflows=[greets]) as engine:
    ...         run = await engine.start(greets(2), id="party")
    ...         await run.send("Ada", channel="name")
    ...         await run.send("Alan", channel="name")
    ...         return await run.result(), [item async for item in run.stream("greetings")]
    >>> asyncio.run(main())
    ('Ada and Alan', ['hello Ada', 'hello Alan'])
    """

    def __init__(self, engine: RunVerbs, run_id: str, key: int | None = None) -> None:
        self._engine, self.id, self._key = engine, run_id, key

    def __repr__(self) -> str:
        return f"<run {self.id}>"

    async def result(self, timeout: float | None = None) -> T:
        """What the workflow returned, waiting for it if need be.

        Raises `RunFailed` (with the workflow's error as cause), `RunCancelled`, `RunBlocked` when
        the run needs a person, and `TimeoutError` after `timeout` seconds; the run itself goes on.
        """
        wait_s = None if timeout is None else numbers.seconds(timeout, "timeout")
        scope = asyncio.timeout(wait_s)
        try:
            async with scope:
                return cast("T", await self._engine._result(self.id, self._key))
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise TimeoutError(
                f"Run {self.id!r} has not ended within {wait_s:g} s. It goes on: call result() "
                "again, or cancel it. `perdure show` says what it waits for."
            ) from error

    async def status(self) -> str:
        """One of the statuses: pending, running, waiting, paused, blocked, completed, failed,
        cancelled.
        """
        return await self._engine._status(self.id)

    async def info(self) -> RunInfo:
        """Everything about the run but its history: see `Engine.info`."""
        return await self._engine.info(self.id)

    async def send(
        self, value: Any, *, channel: str, key: str | None = None, sender: str | None = None
    ) -> None:
        """Send a message to the run: see `Engine.send`."""
        await self._engine.send(self.id, value, channel=channel, key=key, sender=sender)

    @overload
    async def ask(
        self, value: Any, *, channel: str, type: type[R], timeout: float | timedelta | None = None,
        key: str | None = None, sender: str | None = None,
    ) -> R: ...  # fmt: skip
    @overload
    async def ask(
        self, value: Any, *, channel: str, type: Any = ...,
        timeout: float | timedelta | None = None, key: str | None = None, sender: str | None = None,
    ) -> Any: ...  # fmt: skip
    async def ask(
        self,
        value: Any,
        *,
        channel: str,
        type: Any = Any,
        timeout: float | timedelta | None = None,
        key: str | None = None,
        sender: str | None = None,
    ) -> Any:
        """Send a request to the run and return its reply: see `Engine.ask`."""
        return await self._engine.ask(
            self.id, value, channel=channel, type=type, timeout=timeout, key=key, sender=sender
        )

    async def exposed(
        self, name: str | None = None, *, timeout: float | timedelta | None = None
    ) -> Any:
        """The values that the run has set with `expose`, or one of them: see `Engine.exposed`."""
        return await self._engine.exposed(self.id, name, timeout=timeout)

    async def cancel(self) -> None:
        """Ask the run to end: see `Engine.cancel`."""
        await self._engine.cancel(self.id)

    async def summary(self) -> RunSummary:
        """The run without its arguments and its result: see `Engine.summary`."""
        return await self._engine.summary(self.id)

    async def history(
        self, *, after: int | None = None, limit: int | None = None, payloads: bool = True
    ) -> list[HistoryEvent]:
        """The rows of the run in order, or a page of them: see `Engine.history`."""
        return await self._engine.history(self.id, after=after, limit=limit, payloads=payloads)

    def stream(self, name: str, *, after: int = 0) -> AsyncIterator[Any]:
        """The items of a stream behind position `after`, by default from the first, and on until
        the run has ended.

        A run that goes on by `continue_as` has one stream of a name over all its successors, also
        for a reader that comes later.
        Raises `RunNotFound` and `BadPosition`.
        """
        return self._engine._stream(self.id, name, after)

    def stream_with_positions(self, name: str, *, after: int = 0) -> AsyncIterator[tuple[int, Any]]:
        """The items of a stream, each behind its position: a reader that comes back passes the last
        one as `after`.

        A position is a whole number above 0, the same for every reader in every process, and stays
        what it is when the run goes on by `continue_as`, is retried, or is restored from a replica;
        a fork has positions of its own. They grow along a stream, with gaps.
        Raises `RunNotFound`, and `BadPosition` for a number at which no item of this stream stands.
        """
        return self._engine._stream(self.id, name, after, positions=True)
