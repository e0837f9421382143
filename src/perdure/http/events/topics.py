"""Topics: what a client of the event stream follows, and what is reported of it.

Rules: a topic's text is `kind[:part]*[?query]`, its parts and its query percent-encoded; a cursor
is short text without spaces that says how far a client has got; a report is bounded; nothing here
waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode
from zlib import crc32

import msgspec

from perdure.http.run_query import run_query
from perdure.process.clock import SystemClock
from perdure.runtime.info import instant

if TYPE_CHECKING:
    from perdure.reader import StoreReader
    from perdure.reader.values import RunQuery

ROWS_MAX = 100
"""Rows of a history, or items of a stream, in one report."""
RUNS_MAX = 200
"""Runs of a list that are compared."""
GONE = "gone"
"""The cursor of a run that there is not."""
SOON_S, LATER_S = 0.1, 0.5
"""The shortest times between two looks at a topic. The longer one grows with what looks cost: see
`hub.Beat`.
"""


class BadTopic(ValueError):
    """A topic that there is not; the message says which there are."""


class State(msgspec.Struct):
    """What a topic is at one moment. `more`: there is more to be read behind the cursor."""

    cursor: str
    data: dict[str, Any]
    items: dict[str, str] = {}
    more: bool = False


class Topic:
    """A topic: `text` as the client wrote it. Subclasses say how it is read."""

    kind = ""
    parts_count = 0
    every_s = LATER_S

    def __init__(self, text: str, parts: Sequence[str], query: list[tuple[str, str]]) -> None:
        self.text, self.parts, self.query = text, parts, query

    def behind(self, cursor: str) -> str:
        """The part of a cursor that decides what is read: equal ones share a read."""
        return ""

    async def state(self, reader: StoreReader, behind: str) -> State:
        """What it is now. Raises what the reader does."""
        raise NotImplementedError

    def report(self, now: State, before: State | None) -> dict[str, Any]:
        """The data of an event. `before` is None for a client that has not seen this connection's
        last state.
        """
        return now.data


def topic(kind: str, *parts: str, **query: Any) -> str:
    """The text of a topic; a query value of None is left out, a list is repeated.

    >>> topic("run", "a/b"), topic("runs", status=["failed", "blocked"])
    ('run:a%2Fb', 'runs?status=failed&status=blocked')
    """
    given = {name: value for name, value in query.items() if value is not None}
    path = ":".join([kind, *(quote(part, safe="") for part in parts)])
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def parse(text: str) -> Topic:
    """The topic of a text. Raises `BadTopic`."""
    path, _, query = text.partition("?")
    kind, *parts = path.split(":")
    made = _KINDS.get(kind)
    if made is None:
        raise BadTopic(f"There is no topic {kind[:50]!r}; there are {', '.join(_KINDS)}.")
    if len(parts) != made.parts_count or not all(parts):
        raise BadTopic(f"A topic {kind!r} is written {_SHAPES[kind]}, unlike {text[:200]!r}.")
    try:
        return made(text, [unquote(part, errors="strict") for part in parts], parse_qsl(query))
    except UnicodeDecodeError:
        raise BadTopic(f"The topic {text[:200]!r} is no UTF-8 text.") from None


def digest(value: Any) -> str:
    """A short text that differs where values do."""
    return format(crc32(msgspec.json.encode(value, enc_hook=str)), "08x")


def asked(query: list[tuple[str, str]]) -> RunQuery:
    """The filter of a topic at this moment. Raises `DefinitionError`."""
    found = run_query(query, instant(SystemClock().now_ms()))
    return msgspec.structs.replace(found, limit=min(found.limit, RUNS_MAX))


class Runs(Topic):
    """A list of runs, filtered as the page of runs is: which are new, changed or gone."""

    kind = "runs"

    def __init__(self, text: str, parts: Sequence[str], query: list[tuple[str, str]]) -> None:
        super().__init__(text, parts, query)
        asked(query)

    async def state(self, reader: StoreReader, behind: str) -> State:
        page = await reader.runs(asked(self.query))
        whys = await reader.whys([run.id for run in page.runs if run.ended_at is None])
        items = {run.id: digest((run, whys.get(run.id))) for run in page.runs}
        return State(digest(items), {}, items)

    def report(self, now: State, before: State | None) -> dict[str, Any]:
        known = {} if before is None else before.items
        return {
            "digest": now.cursor,
            "new": [id for id in now.items if id not in known],
            "changed": [id for id, seen in now.items.items() if known.get(id, seen) != seen],
            "gone": [id for id in known if id not in now.items],
        }


class Run(Topic):
    """One run: its state, why it does not go on, and the rows of its history as they come, without
    their payloads; with `rows=no` only how many there are, which is what pages need. `anew`: it
    went on under its id with a new history, whose rows begin at 1.
    """

    kind = "run"
    parts_count = 1

    def __init__(self, text: str, parts: Sequence[str], query: list[tuple[str, str]]) -> None:
        super().__init__(text, parts, query)
        self._with_rows = dict(query).get("rows") != "no"
        self.every_s = SOON_S if self._with_rows else LATER_S

    def behind(self, cursor: str) -> str:
        if not self._with_rows:
            return ""
        if cursor == GONE:
            return "0-"
        rows, _, rest = cursor.partition("-")
        known = rows.isdecimal() and len(rows) < 12
        return f"{rows}-{rest.partition('-')[0]}" if known else ""

    async def state(self, reader: StoreReader, behind: str) -> State:
        run = await reader.summary(self.parts[0])
        rows_text, _, before = behind.partition("-")
        born, rows = digest(run.created_at), []
        anew = before not in ("", born)
        after = 0 if anew else int(rows_text or run.history_rows)
        if self._with_rows and after < run.history_rows:
            rows = await reader.outline(run.id, after, ROWS_MAX)
        seen = rows[-1].seq if rows else run.history_rows
        why = None if run.ended_at else await reader.why(run.id)
        data = {
            "status": run.status,
            "rows": run.history_rows,
            "waiting_for": run.waiting_for,
            "reason": run.reason,
            "why": why,
            "ended_at": run.ended_at,
            "new": [{name: getattr(row, name) for name in _ROW} for row in rows],
        }
        if anew:
            data["anew"] = True
        state = digest((run.status, run.waiting_for, run.reason, run.owner, run.error, why))
        return State(f"{seen}-{born}-{state}", data, more=seen < run.history_rows)


_ROW = ("seq", "kind", "name", "ref", "at", "took_ms")


class Stream(Topic):
    """Items of a stream of a run, from the first one on, or behind the position `after`; those of
    all runs that went on under the id.
    """

    kind = "stream"
    parts_count = 2
    every_s = SOON_S

    def behind(self, cursor: str) -> str:
        after = cursor.partition("-")[0] or dict(self.query).get("after", "0")
        return after if after.isdecimal() and len(after) < 19 else "0"

    async def state(self, reader: StoreReader, behind: str) -> State:
        run_id, name = self.parts
        found, ended = await reader.stream_on(run_id, name, int(behind))
        items = [{"position": one.position, "item": one.item} for one in found[:ROWS_MAX]]
        last = items[-1]["position"] if items else behind
        data = {"items": items, "ended": ended}
        return State(f"{last}-{int(ended)}", data, more=bool(items))


class Logs(Topic):
    """Lines that steps of a run log: the position of the newest one. They are read from there."""

    kind = "logs"
    parts_count = 1

    async def state(self, reader: StoreReader, behind: str) -> State:
        last = await reader.last_log_line(self.parts[0])
        return State(str(last), {"last": last})


class Watched(Topic):
    """What is read again as a whole when it changes."""

    async def state(self, reader: StoreReader, behind: str) -> State:
        seen = digest(await self.read(reader))
        return State(seen, {"digest": seen})

    async def read(self, reader: StoreReader) -> Any:
        """What is compared."""
        raise NotImplementedError


class Inbox(Watched):
    """What waits for a person."""

    kind = "inbox"

    async def read(self, reader: StoreReader) -> Any:
        return await reader.inbox(None, RUNS_MAX)


class Queues(Watched):
    """All queues."""

    kind = "queues"

    async def read(self, reader: StoreReader) -> Any:
        return await reader.queues()


class Schedules(Watched):
    """All schedules."""

    kind = "schedules"

    async def read(self, reader: StoreReader) -> Any:
        return await reader.schedules()


class Workers(Watched):
    """Workers that are there, without the times of their leases."""

    kind = "workers"

    async def read(self, reader: StoreReader) -> Any:
        return [(one.worker, one.alive) for one in await reader.workers()]


class System(Watched):
    """Any commit, and what the time alone changes: what the page of the system shows."""

    kind = "system"

    async def read(self, reader: StoreReader) -> Any:
        return await reader.version(), await reader.pulse()


class Counts(Topic):
    """How many runs have each status."""

    kind = "counts"

    def __init__(self, text: str, parts: Sequence[str], query: list[tuple[str, str]]) -> None:
        super().__init__(text, parts, query)
        asked(query)

    async def state(self, reader: StoreReader, behind: str) -> State:
        counts = await reader.counts(asked(self.query))
        return State(digest(counts), {"counts": counts})


_KINDS: dict[str, type[Topic]] = {
    made.kind: made
    for made in (Runs, Run, Stream, Logs, Inbox, Queues, Schedules, Workers, System, Counts)
}
_SHAPES = {kind: kind for kind in _KINDS} | {
    "run": "run:ID", "stream": "stream:ID:NAME", "logs": "logs:ID",
}  # fmt: skip
