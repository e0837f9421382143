"""Row types: what a store gives back, as values.

Rules: payloads are whole JSON; keys of runs are integers that mean nothing outside the store.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.core.events import Event
from perdure.core.lifecycle import RUNNING
from perdure.store.writes import StartRun

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


class Written(msgspec.Struct, gc=False):
    """A turn was written: the results of its effects, and the runs with new inbox rows."""

    effects: list[Any]
    woken: list[int]


class Woken(msgspec.Struct, gc=False):
    """The run with this key has something to read, and so have `others`."""

    run: int
    others: list[int] = msgspec.field(default_factory=list)


class WorkerEnded(msgspec.Struct, gc=False):
    """A worker was ended: how many of its runs are free, and the blocked ones.

    A blocked run is (id, workflow, reason); it crashed the process too often.
    """

    freed: int
    blocked: list[tuple[str, str, str]]


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


def new_run_row(start: StartRun, run: int) -> RunRow:
    """The row of a run that its owner has just started, without reading it."""
    return RunRow(
        run, start.id, start.workflow, RUNNING, start.args, None, None, None, None, None,
        start.owner, None, 0, start.priority, start.queue, None, start.parent, start.parent_seq,
        None, None, None, start.seed, start.timeout_ms, start.at_ms, start.at_ms, None,
        start.durability, None, 0, start.python, start.root,
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
    `INBOX_ROWS_MAX`, and the last heartbeats of its open steps, by row number.
    """

    row: RunRow
    history: list[Event]
    inbox: list[InboxRow]
    heartbeats: dict[int, bytes]


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
