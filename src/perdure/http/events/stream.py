"""The event stream: server-sent events of topics, as an ASGI response.

Rules: a client that does not read holds nothing but its own connection, and is dropped after 30 s;
reports of a topic that changes faster than the client reads are merged; after a look that failed
comes one behind the next commit, and none before; a stream ends when its store is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from perdure.errors import EngineClosed, PerdureError
from perdure.http.events.hub import Hub, TooManyFollowers, hub_of
from perdure.http.events.topics import BadTopic, State, Topic, parse
from perdure.http.site import site_of

TOPICS_MAX = 64
PING_S = 20.0
"""How often a line without meaning is sent, so that nothing between takes the stream for dead."""
STALLED_S = 30.0
"""How long a client may read nothing of what was sent."""
RETRY_MS = 2_000
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Followed:
    """A topic of one stream: how far its client has got."""

    def __init__(self, topic: Topic, cursor: str, *, silent: bool) -> None:
        self.topic, self.cursor, self.silent = topic, cursor, silent
        self.state: State | None = None
        self.number, self.more = -1, False
        self.resumed = bool(cursor)

    def wait_s(self, hub: Hub) -> float:
        """How long until it has to be looked at although nothing more is committed."""
        return PING_S if hub.number(self.topic) == self.number else 0.0

    async def look(self, hub: Hub) -> dict[str, Any] | None:
        """What changed since the last look; None for nothing."""
        number = hub.number(self.topic)
        if number == self.number:
            return None
        self.number, self.more = number, False  # also where the look is in vain
        now = await hub.state(self.topic, self.cursor)
        if now.more:
            self.number, self.more = -1, True
        first, same = self.number_of_looks_is_zero, now.cursor == self.cursor
        before, self.state, self.cursor = self.state, now, now.cursor
        if same or (first and self.silent):
            return None
        data = {"topic": self.topic.text, **self.topic.report(now, before)}
        return data | {"first": True} if first else data

    async def begin(self, hub: Hub) -> None:
        """Look before the client is answered, where it wants to hear of later changes only: it
        counts on all that come after its answer has begun.
        """
        if not (self.silent and self.number_of_looks_is_zero):
            return
        try:
            await self.look(hub)
        except PerdureError:  # with nothing to compare with, all that comes is reported
            self.number, self.silent = -1, False

    @property
    def number_of_looks_is_zero(self) -> bool:
        """Whether the client knows nothing of the topic."""
        return self.state is None and not self.resumed


class EventStream(Response):
    """The response. `followed` are its topics."""

    def __init__(self, hub: Hub, followed: Sequence[Followed]) -> None:
        super().__init__()
        self._hub, self._followed = hub, followed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._hub.following(*(one.topic for one in self._followed)) as event:
                for one in self._followed:
                    await one.begin(self._hub)
                await self._serve(event, receive, send)
        except TooManyFollowers:
            raise HTTPException(503, "There are too many event streams. Close some.") from None

    async def _serve(self, event: asyncio.Event, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        gone = asyncio.create_task(_disconnected(receive))
        told = asyncio.create_task(self._report(event, send))
        try:
            await asyncio.wait((gone, told), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, told):
                task.cancel()
            await asyncio.wait((gone, told))
        if not told.cancelled() and (error := told.exception()) is not None:
            raise error

    async def _report(self, event: asyncio.Event, send: Send) -> None:
        try:
            await _send(send, f"retry: {RETRY_MS}\n\n")
            while not self._hub.closed:
                event.clear()
                if not await self._look(send):
                    await self._rest(event, send)
            await send({"type": "http.response.body", "body": b""})
        except EngineClosed:
            await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            return  # a client that does not read; the server closes what was begun and not ended

    async def _look(self, send: Send) -> bool:
        """Report what changed. Returns whether there is more at once."""
        for one in self._followed:
            if self._hub.number(one.topic) != one.number:
                await self._hub.cost_of(one.topic).of(self._tell(one, send))
        return any(one.more for one in self._followed)

    async def _tell(self, one: Followed, send: Send) -> None:
        try:
            data = await one.look(self._hub)
        except EngineClosed:
            raise
        except PerdureError as error:
            data = {"topic": one.topic.text, "error": str(error)}
        if data is not None:
            await _send(send, self._event(one.topic.kind, data))

    def _event(self, kind: str, data: dict[str, Any]) -> str:
        text = msgspec.json.encode(data, enc_hook=str).decode()
        cursors = ".".join(one.cursor for one in self._followed)
        return f"event: {kind}\nid: {cursors}\ndata: {text}\n\n"

    async def _rest(self, event: asyncio.Event, send: Send) -> None:
        wait_s = min(one.wait_s(self._hub) for one in self._followed)
        try:
            async with asyncio.timeout(wait_s):
                await event.wait()
        except TimeoutError:
            if wait_s == PING_S:
                await _send(send, ":\n\n")


async def _send(send: Send, text: str) -> None:
    """Raises `TimeoutError` where the client reads nothing."""
    message: Message = {"type": "http.response.body", "body": text.encode(), "more_body": True}
    async with asyncio.timeout(STALLED_S):
        await send(message)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event_stream(request: Request) -> EventStream:
    """The response to a request for events: its query has `topic`, repeated, and `first=no` where
    nothing is reported that has not changed since it connected. Raises `HTTPException`.
    """
    texts = request.query_params.getlist("topic")
    if not 1 <= len(texts) <= TOPICS_MAX:
        raise HTTPException(400, f"Name 1 to {TOPICS_MAX} topics: ?topic=runs&topic=counts")
    try:
        topics = [parse(text) for text in dict.fromkeys(texts)]
    except (BadTopic, PerdureError) as error:
        raise HTTPException(400, str(error)) from None
    cursors = request.headers.get("last-event-id", "").split(".")
    if len(cursors) != len(topics):
        cursors = [""] * len(topics)
    silent = request.query_params.get("first") == "no"
    followed = [
        Followed(topic, cursor[:40], silent=silent)
        for topic, cursor in zip(topics, cursors, strict=True)
    ]
    return EventStream(hub_of(site_of(request)), followed)
