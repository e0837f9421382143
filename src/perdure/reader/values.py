"""Values that a `StoreReader` takes and returns, besides those of the runtime and the views.

Rules: every list and every count has a bound, and says whether there is more; times are aware
datetimes; payloads are plain JSON values.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from perdure.runtime.info import OpenRequest, QueueInfo, RunSummary
from perdure.runtime.standing import QueueKey, QueuePlace

RETRYING = "retrying"
"""In place of a status: waits for another attempt of a step."""

WHYS_MAX = 200
"""Runs whose reasons are read at once."""

Place = Literal["id", "tags", "error", "payload"]
PLACES: tuple[Place, ...] = ("id", "tags", "error", "payload")
"""Where a text is looked for; payloads are arguments, results, and all rows of histories."""


class RunQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs a list has: those that match all that is given.

    `status` has any number of statuses, or `retrying`; `tags` are those that a run has at least;
    `since` and `until` are about the time of the start; `text` is found anywhere in one of the
    places `in_`, whatever the case of its ASCII letters; `parent` is the id of a run; `queue` a
    queue of runs. `after` is `RunPage.next` of the page before.
    """

    status: tuple[str, ...] = ()
    workflow: str | None = None
    tags: dict[str, Any] = {}
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    in_: tuple[Place, ...] = PLACES
    parent: str | None = None
    queue: str | None = None
    after: str | None = None
    limit: int = 50


class RunPage(msgspec.Struct, frozen=True):
    """Runs, the newest first. `next` goes on behind this page; None where nothing is left.

    Where the search ended at its bound before the page was full, `searched` is how many runs it
    looked at; `next` goes on from there. Else it is None.
    """

    runs: list[RunSummary]
    next: str | None
    searched: int | None = None


class Bounded(msgspec.Struct, frozen=True):
    """A count that stops at a bound: `more` says that there may be more."""

    number: int
    more: bool = False


class InboxItem(msgspec.Struct, frozen=True):
    """Something that waits for a person. `seq` is the row of the step whose outcome is unknown.

    `type` is the name of the type that the code waits for, `schema` its JSON Schema, where it is
    recorded, and `prompt` what the code asks. For an unknown outcome, `channel` is None, and
    `step` the name of the step.
    """

    run: str
    workflow: str
    kind: Literal["message", "request", "unknown outcome"]
    channel: str | None
    type: str | None
    schema: dict[str, Any] | None
    prompt: str | None
    since: datetime
    tags: dict[str, Any]
    seq: int | None = None
    step: str | None = None
    reason: str | None = None
    requests: list[OpenRequest] = []
    """For kind request: those that are in the inbox already."""


class InboxPage(msgspec.Struct, frozen=True):
    """Items, those of the newest runs first. `next` goes on behind this page."""

    items: list[InboxItem]
    next: str | None


class LinkView(msgspec.Struct, frozen=True, kw_only=True):
    """What a link to answer opens. `awaited`: the run waits for that answer still; `over` says why
    the link can't be used any more.
    """

    run: str
    workflow: str
    channel: str
    seq: int
    recipient: str | None
    expires_at: datetime
    awaited: bool
    schema: dict[str, Any] | None
    prompt: str | None
    over: str | None
    status: str


class Answered(msgspec.Struct, frozen=True):
    """A message, or a decision about a step, whose sender gave a name. `seq` is its row in the
    history, 0 where it has none.
    """

    run: str
    workflow: str
    kind: str
    channel: str | None
    sender: str
    at: datetime
    value: Any
    seq: int


class Declared(msgspec.Struct, frozen=True):
    """A workflow as a process with its code has declared it: the first line of its documentation,
    and the JSON Schema of its arguments.
    """

    name: str
    about: str
    schema: dict[str, Any]


class StreamInfo(msgspec.Struct, frozen=True):
    """A stream of a run: its name, and when its newest item came. `last` is its position."""

    name: str
    items: Bounded
    last: int
    last_at: datetime


class StreamEntry(msgspec.Struct, frozen=True):
    """An item of a stream. `position` is what reading goes on from; `recorded` is True where the
    workflow emitted it, and False for an item of a step.
    """

    position: int
    item: Any
    recorded: bool


class LogLine(msgspec.Struct, frozen=True):
    """A line that an attempt of the step in row `seq` has logged.

    `left_out` is how many characters message and traceback lack. With `dropped` it is in the place
    of as many lines that were not kept.
    """

    position: int
    seq: int
    attempt: int
    at: datetime
    level: str
    logger: str
    message: str
    traceback: str | None
    left_out: int
    dropped: int


class QueuePage(msgspec.Struct, frozen=True):
    """A queue with its keys, the busiest first, the places that were admitted, and the next ones
    that wait. `stuck` says why it does not go on, where it does not.
    """

    queue: QueueInfo
    keys: list[QueueKey]
    admitted: list[QueuePlace]
    waiting: list[QueuePlace]
    stuck: str | None = None


class WorkerInfo(msgspec.Struct, frozen=True):
    """A worker that has not ended. `lease_until` is by its own clock; `runs` are those that it
    executes or keeps; `asked_only`: it takes no run that it was not asked for.
    """

    worker: int
    name: str
    pid: int
    host: str
    lease_until: datetime
    alive: bool
    """Whether its lease had not run out at the time of the read."""
    runs: Bounded
    asked_only: bool


class Bucket(msgspec.Struct, frozen=True):
    """How many runs were started and how they ended from `at` on, up to the next bucket."""

    at: datetime
    started: int
    completed: int
    failed: int
    cancelled: int


class Activity(msgspec.Struct, frozen=True):
    """Buckets of equal length, the oldest first. `partial` where so much is new that the oldest
    buckets are empty: they were not counted. Runs that another one awaits as children are not
    counted.
    """

    buckets: list[Bucket]
    bucket_ms: int
    partial: bool = False


class ReplicaFacts(msgspec.Struct, frozen=True):
    """What the file itself says of its replica; the lag is known only to the engine that copies."""

    address: str
    epoch: int
    history_rows: int
    commits: int


class SystemFacts(msgspec.Struct, frozen=True):
    """A store at a moment. `commits` counts transactions as far as the file counts them: it does
    where it is replicated. `oldest_due_at` is the oldest time that a run without an owner is due
    since; it is in the past where no worker takes it.
    """

    path: str
    file_bytes: int
    wal_bytes: int
    page_bytes: int
    pages: int
    free_pages: int
    schema_version: int
    schema_current: int
    versions: dict[str, str]
    """Of perdure, sqlite, apsw and python, of the process that reads."""
    commits: int | None
    oldest_due_at: datetime | None
    due_now: Bounded
    workers: int
    """Workers that are alive."""
    no_worker: str | None
    """What is said where none of them takes what is due."""
    runs: dict[str, Bounded]
    replica: ReplicaFacts | None
    retention: dict[str, Any]


class Pulse(msgspec.Struct, frozen=True):
    """What changes with the time alone, without a commit: the workers that are alive, and how many
    runs are due.
    """

    alive: list[int]
    due: int


class Table(msgspec.Struct, frozen=True):
    """The result of an SQL query. `truncated` where there are more rows."""

    columns: list[str]
    rows: list[list[Any]]
    truncated: bool
    took_ms: float
