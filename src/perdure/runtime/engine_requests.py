"""Verbs of an engine about requests and exposed values.

Rules: a request is with its run until it has a reply, whatever becomes of the asker; arguments are
checked before anything is written.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar, overload

from perdure.api.definitions import Call
from perdure.core import names, numbers
from perdure.errors import BadName
from perdure.runtime.engine_parts import EngineParts
from perdure.runtime.info import OpenRequest
from perdure.runtime.requests import Requests, new_key
from perdure.store.request_writes import Ask

T = TypeVar("T")


class RequestVerbs(EngineParts):
    """See the module's text."""

    @property
    def _requests(self) -> Requests:
        return self._parts().requests

    @overload
    async def ask(
        self, id: str, value: Any, *, channel: str, type: type[T],
        timeout: float | timedelta | None = None, key: str | None = None,
        start: Call[Any] | None = None, sender: str | None = None,
    ) -> T: ...  # fmt: skip
    @overload
    async def ask(
        self, id: str, value: Any, *, channel: str, type: Any = ...,
        timeout: float | timedelta | None = None, key: str | None = None,
        start: Call[Any] | None = None, sender: str | None = None,
    ) -> Any: ...  # fmt: skip
    async def ask(
        self,
        id: str,
        value: Any,
        *,
        channel: str,
        type: Any = Any,
        timeout: float | timedelta | None = None,
        key: str | None = None,
        start: Call[Any] | None = None,
        sender: str | None = None,
    ) -> Any:
        """Send a request to a run and return its reply, decoded as `type`.

        The workflow takes it with `receive_request` and gives the reply, which is recorded, and on
        disk when it arrives here. Asked again with the same `key`, in any process and also after
        the run has ended, it is the same request and gives the same reply. With `start`, the call
        of a workflow, the run is started with the request in one transaction where no run has the
        id; its options are those of the call: `flow.options(queue=...)(...)`. `sender` is what the
        workflow sees as `Request.sender`; the name of this engine if it is not given.

        Raises `RequestRefused`, with the reason that the workflow gave; `RequestTimeout` after
        `timeout` seconds: the request stays with the run; `RequestUnanswered` where the run ended
        first, `RunBlocked` where it needs a person; `RequestKeyUsed` where the key is of a request
        with another channel or value; `RunNotFound`, `RunFinished`, `InboxFull`; `NotSerializable`,
        also where the reply does not fit `type`; and `RunExists` where `start` is of another
        workflow.

        >>> import asyncio
        >>> from perdure import Engine, receive_request, workflow
        >>> @workflow
        ... async def counter(total: int) -> None:
        ...     while True:
        ...         request = await receive_request("add", int)
        ...         total += request.value
        ...         request.reply(total)
        >>> async def main():
        ...     async with Engine(":memory:", workflows=[counter]) as engine:
        ...         first = await engine.ask("c", 2, channel="add", start=counter(40), key="one")
        ...         again = await engine.ask("c", 2, channel="add", key="one")
        ...         return first, again, await engine.ask("c", 1, channel="add", timeout=60)
        >>> asyncio.run(main())
        (42, 42, 43)
        """
        names.checked("channel", channel)
        given = new_key() if key is None else _checked_key(key)
        self._codec.check_type(type, "the reply")
        ask = Ask(
            names.checked_id(id) if start is not None else names.checked("run id", id),
            channel,
            given,
            self._options.name if sender is None else names.checked("sender", sender),
            self._codec.encode(value, f"the request on channel {channel!r}"),
            self._clock.now_ms(),
        )
        begin = None if start is None else self._control.run_for(start, id)
        return await self._requests.ask(ask, type, begin, _seconds(timeout))

    async def exposed(
        self, id: str, name: str | None = None, *, timeout: float | timedelta | None = None
    ) -> Any:
        """The values that a run has set with `expose`: all of them by name, or the one called
        `name`, waiting until it is set.

        Values are plain JSON. Raises `RunNotFound`; with a `name`, `NotExposed` where the run ended
        without setting it, `RunBlocked` where it needs a person, and `TimeoutError` after `timeout`
        seconds.

        >>> import asyncio
        >>> from perdure import Engine, expose, receive, workflow
        >>> @workflow
        ... async def order(cents: int) -> None:
        ...     expose(stage="waiting for payment", open=cents)
        ...     expose(open=cents - await receive("paid", int))
        >>> async def main():
        ...     async with Engine(":memory:", workflows=[order]) as engine:
        ...         run = await engine.start(order(500), id="order")
        ...         before = await run.exposed("open", timeout=60)
        ...         await run.send(500, channel="paid")
        ...         await run.result()
        ...         return before, await engine.exposed("order")
        >>> asyncio.run(main())
        (500, {'stage': 'waiting for payment', 'open': 0})
        """
        if name is None:
            return await self._requests.exposed(id)
        names.checked("exposed value", name)
        return await self._requests.exposed_value(id, name, _seconds(timeout))

    async def requests(self, id: str) -> list[OpenRequest]:
        """The requests to a run that have no reply, the oldest first, up to 1,000. Raises
        `RunNotFound`.
        """
        return await self._read(self._requests.open, id)


def _checked_key(key: str) -> str:
    """The key of a request. An empty one would make one request of all that forgot theirs."""
    if key == "":
        raise BadName("request key", "it is empty")
    return names.checked("request key", key)


def _seconds(timeout: float | timedelta | None) -> float | None:
    if timeout is None:
        return None
    given = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    return numbers.seconds(given, "timeout")
