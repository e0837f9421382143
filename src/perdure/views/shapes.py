"""Shapes of what commands print with --json, where no value of the runtime or a view is printed as
it is.

Rules: a field that may be missing has no default but UNSET; a field that is always there and may be
empty is null. The API answers with the same shapes where it shows the same thing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from perdure.check.replay import Verdict
from perdure.check.rules import Level
from perdure.runtime.info import HistoryEvent, OpenRequest, QueueInfo, RunInfo
from perdure.runtime.standing import QueueKey, QueuePlace, Standing


class Shown(msgspec.Struct, frozen=True):
    """A run with its history, where it stands in queues, what it shows, and what it is asked."""

    run: RunInfo
    history: list[HistoryEvent]
    places: list[Standing]
    exposed: dict[str, Any]
    requests: list[OpenRequest]


class TailedRow(HistoryEvent, frozen=True, kw_only=True):
    """A row of a history that is followed; `run` is whose it is, where several are."""

    run: str | UnsetType = UNSET


class Ended(msgspec.Struct, frozen=True):
    """How a run ended. `recorded`: it had ended before, and this is its recorded outcome."""

    id: str
    status: str
    result: Any
    error: dict[str, Any] | None
    recorded: bool


class Reply(msgspec.Struct, frozen=True):
    """The reply of a run to a request; the same `key` gives it again."""

    run: str
    channel: str
    key: str
    reply: Any


class QueueShown(msgspec.Struct, frozen=True):
    """A queue, its keys, what was admitted and what waits, the next one first."""

    queue: QueueInfo
    keys: list[QueueKey]
    running: list[QueuePlace]
    waiting: list[QueuePlace]


# --- schedules ------------------------------------------------------------------------------------


class Removed(msgspec.Struct, frozen=True):
    """What was removed."""

    name: str
    removed: bool = True


class Triggered(msgspec.Struct, frozen=True):
    """The run that was started, and the schedule."""

    run: str
    schedule: str


class Tick(msgspec.Struct, frozen=True):
    """A tick, and what the clock does there; empty where it does nothing."""

    at: datetime
    clock: str


# --- doctor ---------------------------------------------------------------------------------------


class StuckRun(msgspec.Struct, frozen=True):
    """A run that does not go on by itself, and why."""

    id: str
    workflow: str
    status: str
    reason: str
    due_ms: int | None


class StuckQueue(msgspec.Struct, frozen=True):
    """A queue that admits nothing, and why."""

    name: str
    waiting: int
    running: int
    reason: str


class StuckSchedule(msgspec.Struct, frozen=True):
    """A schedule that starts nothing or has missed ticks, and why."""

    name: str
    status: str
    reason: str


class Unanswered(msgspec.Struct, frozen=True):
    """A request that has waited for a reply for more than a minute."""

    id: str
    channel: str
    key: str
    sender: str
    status: str
    reason: str


class WorkerSeen(msgspec.Struct, frozen=True):
    """A worker that has not ended; `lease_left_ms` is negative where it fell silent."""

    worker: int
    name: str
    pid: int
    lease_left_ms: int


class ReplicaSeen(msgspec.Struct, frozen=True):
    """What the file and, from the command line, the lease in the bucket say of the replica."""

    address: str
    epoch: int
    history_rows: int
    held_by: str | UnsetType | None = UNSET
    state: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    lag_s: float | UnsetType = UNSET
    lag_transactions: int | UnsetType = UNSET
    local_bytes: int | UnsetType = UNSET
    drill: dict[str, Any] | UnsetType = UNSET


class RetentionSeen(msgspec.Struct, frozen=True):
    """What retention has done. Times are milliseconds UTC; what there is not is left out."""

    pruned_runs: int | UnsetType = UNSET
    pruned_last_ms: int | UnsetType = UNSET
    being_deleted: int | UnsetType = UNSET
    archive: str | UnsetType = UNSET
    archived_last_ms: int | UnsetType = UNSET
    archive_error: str | UnsetType = UNSET
    failing_since_ms: int | UnsetType = UNSET


class Doctor(msgspec.Struct, frozen=True):
    """Facts about a store and what stands still in it. `integrity` is "ok", or what is wrong.

    `gives_space_back`: free space can be given back without writing the file anew. `hung_threads`
    are steps that ended and left their thread hanging; it is there where an engine is asked.
    `no_worker` is what is said where no worker is alive that takes what is due.
    """

    path: str
    sqlite: str
    apsw: str
    schema_version: int
    journal_mode: str
    page_bytes: int
    pages: int
    free_pages: int
    gives_space_back: bool
    integrity: str | list[str]
    file_bytes: int
    wal_bytes: int
    runs: dict[str, int]
    workers: list[WorkerSeen]
    no_worker: str | None
    stuck: list[StuckRun]
    stuck_queues: list[StuckQueue]
    stuck_schedules: list[StuckSchedule]
    unanswered: list[Unanswered]
    replica: ReplicaSeen | UnsetType = UNSET
    retention: RetentionSeen | UnsetType = UNSET
    hung_threads: list[str] | UnsetType = UNSET


# --- check ----------------------------------------------------------------------------------------


class CheckFinding(msgspec.Struct, frozen=True, tag_field="kind", tag="finding"):
    """Code that replay can't repeat; line and column count from 1."""

    file: str
    line: int
    column: int
    rule: str
    level: Level
    message: str


class CheckedRun(msgspec.Struct, frozen=True, tag_field="kind", tag="run"):
    """The verdict on one run: `reason` is null if it would go on. `python` is the one that executed
    it, where that is another one than this.
    """

    id: str
    workflow: str
    status: str
    rows: int
    verdict: Verdict
    reason: str | None
    unblocked: bool
    python: str | None


class CheckSummary(msgspec.Struct, frozen=True, tag_field="kind", tag="summary"):
    """How many files, errors and notes; and where runs were replayed, how many of which verdict."""

    files: int
    errors: int
    notes: int
    runs: int | UnsetType = UNSET
    ok: int | UnsetType = UNSET
    would_block: int | UnsetType = UNSET
    stays_blocked: int | UnsetType = UNSET
    would_fail: int | UnsetType = UNSET
    does_not_fit: int | UnsetType = UNSET
    unknown_workflow: int | UnsetType = UNSET
    python: str | UnsetType = UNSET
    other_python: int | UnsetType = UNSET


# --- replica --------------------------------------------------------------------------------------


class ReplicaStatus(msgspec.Struct, frozen=True):
    """A replica as its lease shows it, with what the engine that holds it has said last; null what
    it has not said. `held`: an engine holds it now. `epochs` are those that are there.
    """

    address: str
    held_by: str | None
    held: bool
    renewed_s_ago: float
    epoch: int
    restores_from: int
    epochs: list[int]
    history_rows: int
    txid: int
    state: Literal["starting", "replicating", "behind", "failing", "stopped"] | None
    reason: str | None
    lag_s: float | None
    lag_transactions: int | None
    lag_bytes: int | None
    local_bytes: int | None
    restarts: int | None
    drill: dict[str, Any] | None


class ReplicaVerified(msgspec.Struct, frozen=True):
    """A test restore that went well. `compared_with` is the store whose history it has."""

    ok: bool
    rows: int
    epoch: int
    bytes: int
    compared_with: str | None
    took_s: float


class ReplicaRestored(msgspec.Struct, frozen=True):
    """A store that was made from a replica; `last_event` is the time of its newest row."""

    file: str
    runs: int
    rows: int
    epoch: int
    last_event: datetime | None


class AnswerSent(msgspec.Struct, frozen=True):
    """An answer that was sent: to which run, and by whom."""

    run: str
    sender: str | None


class LinkMade(msgspec.Struct, frozen=True):
    """A link that answers once; without the address of the pages `url` is a path."""

    url: str
    run: str
    channel: str
    recipient: str | None
    expires_at: datetime
