"""Reads of runs: lists, counts, one run with its history, streams, values and relatives."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from starlette.exceptions import HTTPException

from perdure.http.api.operation import (
    Call,
    Nothing,
    Operation,
    Position,
    UpTo500,
    UpTo1000,
    now,
)  # fmt: skip
from perdure.http.run_query import run_query
from perdure.reader.values import Activity, Bounded, LogLine, RunPage, StreamEntry, StreamInfo
from perdure.runtime.info import HistoryEvent, OpenRequest, RunInfo
from perdure.runtime.standing import ExposedValue, Standing
from perdure.views.compare import Comparison
from perdure.views.moment import Moment
from perdure.views.tree import Family
from perdure.views.waterfall import Waterfall


class Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which runs: those that match all that is given. `tag` is `NAME=VALUE`; `since` and `until`
    are a time, or an age such as `24h`; `q` is a text to look for in the places of `in`
    (id, tags, error, payload).
    """

    status: list[str] = []
    workflow: str | None = None
    tag: list[str] = []
    since: str | None = None
    until: str | None = None
    q: str | None = None
    places: list[str] = msgspec.field(name="in", default_factory=list)
    parent: str | None = None
    queue: str | None = None


class WhichPage(Which, frozen=True):
    """Which runs: those that match all that is given. `tag` is `NAME=VALUE`; `since` and `until`
    are a time, or an age such as `24h`; `q` is a text to look for in the places of `in` (id, tags,
    error, payload). `after` is `next` of the page before.
    """

    after: str | None = None
    limit: UpTo500 = 50


class Behind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows behind row `after`, up to 1,000. Without `payloads` arguments, results and errors are
    left out.
    """

    after: Position = 0
    limit: UpTo1000 = 100
    payloads: bool = True


class BarsBehind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows behind row `after`, up to 100,000."""

    after: Position = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 10_000


class ItemsBehind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to so many items behind that with the position `after`, from the first one for 0."""

    after: Position = 0
    limit: UpTo1000 = 100


class LinesBehind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to so many lines behind that with the position `after`, from the first one for 0; those
    of the step in row `step`, and of one attempt, where that is given. `newest`: the last ones
    instead of the first.
    """

    after: Position = 0
    limit: UpTo1000 = 100
    step: Position | None = None
    attempt: Position | None = None
    newest: bool = False


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many at most."""

    limit: UpTo1000 = 200


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`at` is the number of a row of the history."""

    at: Position


class Two(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ids of two runs."""

    a: str
    b: str
    limit: UpTo1000 = 200


class Buckets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many buckets, of how many milliseconds each."""

    buckets: UpTo500 = 60
    bucket_ms: Annotated[int, msgspec.Meta(ge=1_000, le=86_400_000)] = 60_000


class HistoryPage(msgspec.Struct, frozen=True):
    """Rows of a history. `next` is the row to go on behind; None at the end of what there is."""

    events: list[HistoryEvent]
    next: int | None


class StreamPage(msgspec.Struct, frozen=True):
    """Items of a stream, also of those that went on under the id. `next` is the position to go on
    behind; with `ended` there are none, and no more will come.
    """

    items: list[StreamEntry]
    next: int
    ended: bool


class LogPage(msgspec.Struct, frozen=True):
    """Lines that steps have logged. `next` is the position to go on behind."""

    lines: list[LogLine]
    next: int


class Why(msgspec.Struct, frozen=True):
    """Why a run does not go on; None where it has ended or is at work."""

    id: str
    status: str
    why: str | None


async def list_runs(call: Call[WhichPage, None]) -> RunPage:
    """List runs, the newest first, without arguments and results.

    A search that has looked at many runs without filling the page ends with `searched`, how many
    those were; `next` goes on from there.
    """
    return await call.reader.runs(run_query(call.request.query_params.multi_items(), now()))


async def count_runs(call: Call[Which, None]) -> dict[str, Bounded]:
    """Count the runs that match, by status; each count stops at a bound."""
    return await call.reader.counts(run_query(call.request.query_params.multi_items(), now()))


async def activity(call: Call[Buckets, None]) -> Activity:
    """How many runs were started and ended, by time."""
    return await call.reader.activity(call.query.buckets, call.query.bucket_ms)


async def get_run(call: Call[Nothing, None]) -> RunInfo:
    """Get a run with its arguments and its result or error."""
    return await call.reader.run(call.part("id"))


async def get_why(call: Call[Nothing, None]) -> Why:
    """Say in a sentence why a run does not go on."""
    run = await call.reader.summary(call.part("id"))
    return Why(run.id, run.status, await call.reader.why(run.id))


async def get_history(call: Call[Behind, None]) -> HistoryPage:
    """Get rows of a run's history in order."""
    asked, reader = call.query, call.reader
    read = reader.history if asked.payloads else reader.outline
    events = await read(call.part("id"), asked.after, asked.limit)
    full = len(events) == asked.limit
    return HistoryPage(events, events[-1].seq if full else None)


async def get_entry(call: Call[Nothing, None]) -> list[HistoryEvent]:
    """Get one row of a history with the rows that answer it: a step with its attempts, say."""
    text = call.part("seq")
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise HTTPException(404, f"A row of a history has a number, unlike {text[:50]!r}.")
    run = await call.reader.summary(call.part("id"))
    found = await call.reader.entry(run.id, int(text))
    if not found:
        rows = f"{run.history_rows:,}"
        raise HTTPException(404, f"Run {run.id!r} has rows 1 to {rows}; there is no row {text}.")
    return found


async def get_waterfall(call: Call[BarsBehind, None]) -> Waterfall:
    """Get the bars of a run: steps, waits, children and attempts by time."""
    return await call.reader.waterfall(call.part("id"), call.query.after, call.query.limit)


async def get_family(call: Call[Limit, None]) -> Family:
    """Get parents, children, forks and generations of a run as a tree."""
    return await call.reader.family(call.part("id"), call.query.limit)


async def get_moment(call: Call[Row, None]) -> Moment:
    """Get what the workflow knew behind a row of its history."""
    return await call.reader.at(call.part("id"), call.query.at)


async def compare_runs(call: Call[Two, None]) -> Comparison:
    """Compare two runs, from their first difference on."""
    return await call.reader.compare(call.query.a, call.query.b, call.query.limit)


async def list_streams(call: Call[Nothing, None]) -> list[StreamInfo]:
    """List the streams of a run."""
    return await call.reader.streams(call.part("id"))


async def read_stream(call: Call[ItemsBehind, None]) -> StreamPage:
    """Read items of a stream behind a position.

    To follow one, use the topic `stream:ID:NAME` of the event stream, or ask again from `next`.
    """
    after = call.query.after
    found, ended = await call.reader.stream_on(call.part("id"), call.part("name"), after)
    items = found[: call.query.limit]
    return StreamPage(items, items[-1].position if items else after, ended)


async def read_logs(call: Call[LinesBehind, None]) -> LogPage:
    """Read lines that steps of a run have logged.

    To follow them, use the topic `logs:ID` of the event stream, or ask again from `next`.
    """
    asked = call.query
    lines = await call.reader.logs(
        call.part("id"), asked.after, asked.limit, seq=asked.step, attempt=asked.attempt,
        newest=asked.newest,
    )  # fmt: skip
    return LogPage(lines, lines[-1].position if lines else asked.after)


async def list_exposed(call: Call[Nothing, None]) -> list[ExposedValue]:
    """List the values that a run exposes, those set last at the end."""
    return await call.reader.exposed(call.part("id"))


async def list_requests(call: Call[Nothing, None]) -> list[OpenRequest]:
    """List the requests to a run that have no reply, the oldest first."""
    return await call.reader.requests(call.part("id"))


async def list_places(call: Call[Nothing, None]) -> list[Standing]:
    """List where a run and its steps stand in queues, and what keeps them there."""
    id = call.part("id")
    return (await call.reader.standings([id]))[id]


def _get(path: str, handler: Any, answer: Any, query: Any = Nothing, *errors: int) -> Operation:
    return Operation("GET", path, handler, answer, query, errors=errors)


OPERATIONS = [
    _get("/runs", list_runs, RunPage, WhichPage),
    _get("/counts", count_runs, dict[str, Bounded], Which),
    _get("/activity", activity, Activity, Buckets),
    _get("/compare", compare_runs, Comparison, Two, 404),
    _get("/runs/{id:name}", get_run, RunInfo, Nothing, 404),
    _get("/runs/{id:name}/why", get_why, Why, Nothing, 404),
    _get("/runs/{id:name}/history", get_history, HistoryPage, Behind, 404),
    _get("/runs/{id:name}/history/{seq:name}", get_entry, list[HistoryEvent], Nothing, 404),
    _get("/runs/{id:name}/waterfall", get_waterfall, Waterfall, BarsBehind, 404),
    _get("/runs/{id:name}/family", get_family, Family, Limit, 404),
    _get("/runs/{id:name}/moment", get_moment, Moment, Row, 404),
    _get("/runs/{id:name}/streams", list_streams, list[StreamInfo], Nothing, 404),
    _get("/runs/{id:name}/streams/{name:name}", read_stream, StreamPage, ItemsBehind, 404),
    _get("/runs/{id:name}/logs", read_logs, LogPage, LinesBehind, 404),
    _get("/runs/{id:name}/exposed", list_exposed, list[ExposedValue], Nothing, 404),
    _get("/runs/{id:name}/requests", list_requests, list[OpenRequest], Nothing, 404),
    _get("/runs/{id:name}/places", list_places, list[Standing], Nothing, 404),
]
