"""The event stream as an operation."""

from __future__ import annotations

import msgspec

from perdure.http.api.operation import Call, Operation
from perdure.http.events.stream import EventStream, event_stream


class Topics(msgspec.Struct, frozen=True):
    """`topic` is repeated, up to 64 times: `runs` (with the filter of a list of runs behind `?`,
    percent-encoded), `run:ID` (with `?rows=no`, percent-encoded, without the rows of its history),
    `stream:ID:NAME`, `logs:ID`, `inbox`, `queues`, `schedules`, `workers`, `system`, `counts`. With
    `first=no` only what changes from now on is reported.
    """

    topic: list[str]
    first: str = "yes"


async def events(call: Call[Topics, None]) -> EventStream:
    """Follow topics as server-sent events.

    Each event has the kind of its topic, JSON with `topic` and what changed, and an id; a client
    that connects again with `Last-Event-ID` gets what came meanwhile, and items of streams are
    never left out. Without it every topic is reported once at the beginning, with `first`.
    """
    return event_stream(call.request)


OPERATIONS: list[Operation] = [
    Operation(
        "GET", "/events", events, str, Topics, group="Live", errors=(503,),
        media="text/event-stream",
    )
]  # fmt: skip
