"""Row types: what a store gives back, as values.

Rules: payloads are whole JSON; keys of runs are integers that mean nothing outside the store.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.core.events import Event
from perdure.core.lifecycle import RUNNING
from perdure.store.writes import QueueLimits, StartRun

# --- results of writes ----------------------------------------------------------------------------


class Started(msgspec.Struct, gc=False):
    """A run that was started or forked.

    `created` is False where a run with this id, workflow and arguments existed. `owned` is True
    where the run is new and the worker that started it executes it.
    """

    run: int
    id: str
    created: bool
    owned: bool = False
    places: list[Any] = []
    """Results of `StartRun.places`: `Place` or a `PerdureError` each."""
    queue_due: bool = False
    """Whether a claim admits something from a queue, now or at a time that may be news."""


class Place(msgspec.Struct, gc=False):
    """A place in a queue: its number, and whether it is admitted or waits."""

    place: int
    admitted: bool


class Written(msgspec.Struct, gc=False):
    """A turn was written: the results of its effects, and the runs with new inbox rows.

    `places` are the results of its `places`: `Place` or a `PerdureError` each. `admitted` are steps
    that wait no longer, as (run, row, place): those of the worker that wrote.
    """

    effects: list[Any] = []
    woken: list[int] = []
    places: list[Any] = []
    admitted: list[tuple[int, int, int]] = []
    queue_due: bool = False
    """Whether a claim admits something from a queue, now or at a time that may be news."""


class Claimed(msgspec.Struct, gc=False):
    """The runs that a claim got, in the order to begin them, and the steps of others of the
    worker's runs that wait no longer, as (run, row, place).
    """

    runs: list[int] = []
    admitted: list[tuple[int, int, int]] = []
    queued: bool = False
    """Whether some of the runs have waited in a queue."""


class Woken(msgspec.Struct, gc=False):
    """The run with this key has something to read, and so have `others`."""

    run: int
    others: list[int] = msgspec.field(default_factory=list)


class Asked(msgspec.Struct, gc=False):
    """A request stands in a store under its own key, `request`; `run` is the run that has it.

    `new` is False where it was asked before.
    """

    run: int
    request: int
    new: bool


class Replied(msgspec.Struct, gc=False):
    """A request has its reply."""

    request: int


class WorkerEnded(msgspec.Struct, gc=False):
    """A worker was ended: how many of its runs are free, and the blocked ones.

    A blocked run is (id, workflow, reason); it crashed the process too often.
    """

    freed: int
    blocked: list[tuple[str, str, str]]


# --- queues ---------------------------------------------------------------------------------------


class QueueRow(msgspec.Struct, gc=False):
    """A queue: its limits, how many places wait and are admitted, up to a bound.

    `next_ms` is when one may be admitted; None where none waits or only a release helps.
    """

    name: str
    limits: QueueLimits
    declared: str | None
    held_ms: int | None
    next_ms: int | None
    waiting: int
    running: int


class QueueKeyRow(msgspec.Struct, gc=False):
    """A key of a queue: its places, and when it has tokens again (None: it has)."""

    key: str | None
    running: int
    waiting: int
    next_ms: int | None


class PlaceRow(msgspec.Struct, gc=False):
    """A place with its run; `seq` and `step` are None where it is the run's own."""

    run_id: str
    status: str
    seq: int | None
    step: str | None
    key: str | None
    priority: int
    weight: int
    asked_ms: int
    admitted_ms: int | None
    worker: int | None


class StandingRow(msgspec.Struct, gc=False):
    """Where a place stands that waits, and why: the first reason that holds.

    `why` is paused, held, key_limit, key_rate, concurrency, rate, per_worker, no_worker or line;
    `limit` is the limit that is reached. `position` is None behind the first thousand.
    """

    queue: str
    seq: int | None
    step: str | None
    key: str | None
    position: int | None
    waiting: int
    why: str
    limit: int | None
    next_ms: int | None


# --- results of reads -----------------------------------------------------------------------------


class RunRow(msgspec.Struct, gc=False):
    """A run with its payloads."""

    run: int
    id: str
    workflow: str
    status: str
    args: bytes
    result: bytes | None
    error: bytes | None
    waiting: str | None
    blocked_by: str | None
    reason: str | None
    owner: int | None
    due_ms: int | None
    crashes: int
    priority: int
    queue: str | None
    tags: str | None
    parent: int | None
    parent_seq: int | None
    forked_from: str | None
    successor: int | None
    origin: int | None
    seed: int
    timeout_ms: int | None
    created_ms: int
    started_ms: int | None
    ended_ms: int | None
    durability: str | None
    parent_id: str | None
    history_rows: int
    python: str | None
    root: int | None
    key: str | None
    weight: int
    scheduled_ms: int | None


def new_run_row(start: StartRun, run: int) -> RunRow:
    """The row of a run that its owner has just started, without reading it."""
    return RunRow(
        run, start.id, start.workflow, RUNNING, start.args, None, None, None, None, None,
        start.owner, None, 0, start.priority, start.queue, None, start.parent, start.parent_seq,
        None, None, None, start.seed, start.timeout_ms, start.at_ms, start.at_ms, None,
        start.durability, None, 0, start.python, start.root, start.key, start.weight,
        start.scheduled_ms,
    )  # fmt: skip


INBOX_ROWS_MAX = 1_000
"""How many rows of an inbox are read at once."""


class InboxRow(msgspec.Struct, gc=False):
    """A row of a run's inbox that is not in its history yet."""

    id: int
    run: int
    kind: str
    name: str | None
    ref: int | None
    data: bytes | None
    at_ms: int


class LoadedRun(msgspec.Struct, gc=False):
    """What is needed to go on with a run: its row, its history, its untaken inbox rows, up to
    `INBOX_ROWS_MAX`, the last heartbeats of its open steps, and the places of steps that have not
    begun, both by row number.
    """

    row: RunRow
    history: list[Event]
    inbox: list[InboxRow]
    heartbeats: dict[int, bytes]
    places: dict[int, int] = {}


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs a list has: those that match all that is given, with tags that a run has at
    least, and with keys below `before`; up to `limit`.
    """

    status: str | None = None
    workflow: str | None = None
    tags: dict[str, Any] | None = None
    limit: int
    before: int | None = None


class RunHead(msgspec.Struct, gc=False):
    """A run without its arguments and its result, as lists show it. `error` is whole JSON, the
    `last_` fields are of its newest row: for an answer the name is that of the row it answers.
    """

    run: int
    id: str
    workflow: str
    status: str
    error: bytes | None
    waiting: str | None
    blocked_by: str | None
    reason: str | None
    owner: int | None
    due_ms: int | None
    priority: int
    queue: str | None
    tags: str | None
    parent_id: str | None
    forked_from: str | None
    created_ms: int
    started_ms: int | None
    ended_ms: int | None
    python: str | None
    history_rows: int
    last_kind: str | None
    last_name: str | None
    last_ms: int | None
    key: str | None
    weight: int
    scheduled_ms: int | None


class ProgressRow(msgspec.Struct, gc=False):
    """How far a run is: its status, its steps counted by state, and its newest recorded error.

    `open` names some of the steps and children that have not ended; `error` is the row of the
    newest failure or failed attempt, and `error_of` the name of the step that it is of.
    """

    status: str
    waiting: str | None
    reason: str | None
    scheduled: int
    completed: int
    failed: int
    abandoned: int
    open: list[str]
    error: Event | None
    error_of: str | None


class BarRow(msgspec.Struct, gc=False):
    """A row of a history as a waterfall needs it: `label` is the beginning of what it holds;
    `fault` is "f" where an attempt failed, "c" where its process died; `began_ms` is when it began.
    """

    seq: int
    kind: str
    at_ms: int
    ref: int | None
    name: str | None
    took_ms: int | None
    label: str | None
    fault: str | None
    began_ms: int | None


class OutcomeRow(msgspec.Struct, gc=False):
    """The state of a run, or its end with result or error."""

    status: str
    successor: int | None
    id: str
    workflow: str
    result: bytes | None
    error: bytes | None
    blocked_by: str | None
    reason: str | None
    durability: str | None


class StreamItem(msgspec.Struct, gc=False):
    """An item of a stream, as JSON, with its position for reading on."""

    position: int
    data: bytes
    recorded: bool
    """True where a workflow emitted it: then it is part of the history. A step's items are not."""


class WorkerRow(msgspec.Struct, gc=False):
    """A worker that has not ended."""

    worker: int
    name: str
    host: str
    pid: int
    born: str
    lease_ms: int
    ttl_ms: int
    beats: int
    asked: int
    """1 where it executes only what it is asked for."""


class ExposedRow(msgspec.Struct, gc=False):
    """An exposed value as JSON, with the row that set it."""

    name: str
    data: bytes
    seq: int
    at_ms: int


class ReplyRow(msgspec.Struct, gc=False):
    """The reply to a request: its result as JSON, or the reason of a refusal as a JSON text."""

    refused: bool
    data: bytes


class RequestRow(msgspec.Struct, gc=False):
    """A request that waits for a reply."""

    request: int
    channel: str
    key: str
    sender: str
    at_ms: int


class UnansweredRow(msgspec.Struct, gc=False):
    """A request without a reply to a run that has not ended."""

    run_id: str
    channel: str
    key: str
    sender: str
    at_ms: int


class LinkRow(msgspec.Struct, gc=False):
    """A link that lets a person answer once, and of its run the status and what it waits for."""

    link: int
    run: int
    run_id: str
    workflow: str
    channel: str
    wait: int
    recipient: str | None
    made_ms: int
    expires_ms: int
    used_ms: int | None
    status: str
    waiting: str | None


class AnswerRow(msgspec.Struct, gc=False):
    """A message, or a decision about a step, of a sender with a name. `seq` is its row in the
    history of its run, 0 where it has none.
    """

    inbox: int
    run_id: str
    workflow: str
    kind: str
    channel: str | None
    sender: str
    at_ms: int
    seq: int
    data: bytes = b"null"
