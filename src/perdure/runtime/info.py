"""Runs and events as decoded values with aware datetimes: what an engine's reads return.

Rules: nothing here reads a store; payloads are plain JSON values, because the process that reads
may not have the classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from perdure.api.queues import Rate
from perdure.core import events as ev
from perdure.core import lifecycle
from perdure.core.events import Event
from perdure.core.limits import NEVER_MS
from perdure.store.rows import OutcomeRow, ProgressRow, RunHead, RunRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_decode = msgspec.json.Decoder().decode


def moment(ms: int | None) -> datetime | None:
    """Milliseconds UTC as an aware datetime; None for what is never."""
    return None if ms is None or ms >= NEVER_MS else _EPOCH + timedelta(milliseconds=ms)


def instant(ms: int) -> datetime:
    """Milliseconds UTC as an aware datetime, also of what is never."""
    return _EPOCH + timedelta(milliseconds=min(ms, NEVER_MS - 1))


class RunInfo(msgspec.Struct, frozen=True):
    """What there is to know of a run without its history. `reason` says why it is blocked or what
    it waits for.
    """

    id: str
    workflow: str
    status: str
    reason: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    due_at: datetime | None
    queue: str | None
    priority: int
    tags: dict[str, Any]
    parent: str | None
    args: dict[str, Any]
    result: Any
    error: dict[str, Any] | None
    history_rows: int
    owner: str | None
    forked_from: str | None
    waiting_for: list[dict[str, Any]]
    python: str | None = None
    """The version that executed it last, "3.11"; None where none has, or the file is from before
    that was recorded.
    """
    key: str | None = None
    weight: int = 1
    scheduled_at: datetime | None = None
    """The nominal time of the tick that started it; None where no schedule did."""


class OpenRequest(msgspec.Struct, frozen=True):
    """A request that has no reply: its sender, channel, time and key."""

    channel: str
    key: str
    sender: str
    asked_at: datetime | None


class ErrorHead(msgspec.Struct, frozen=True):
    """A recorded error without its frames, causes and arguments; `module` is that of its type.

    `step`, `attempt` and `at` say where in a run it happened, where that is asked for.
    """

    type: str = "Error"
    message: str = ""
    module: str = ""
    step: str | None = None
    attempt: int | None = None
    at: datetime | None = None


class RunSummary(msgspec.Struct, frozen=True):
    """A run as lists show it: `RunInfo` without arguments and result, with the head of its error.

    `last` names its newest row, a step or its answer for instance, and `last_at` says when that was
    recorded: since then the run has been as it is.
    """

    id: str
    workflow: str
    status: str
    reason: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    due_at: datetime | None
    queue: str | None
    priority: int
    tags: dict[str, Any]
    parent: str | None
    error: ErrorHead | None
    history_rows: int
    owner: str | None
    forked_from: str | None
    waiting_for: list[dict[str, Any]]
    python: str | None
    last: str | None
    last_at: datetime
    key: str | None = None
    weight: int = 1
    scheduled_at: datetime | None = None


class HistoryEvent(msgspec.Struct, frozen=True):
    """One row of a history. `ref` is the row that it answers, `of` the name of that row; what a
    kind does not have is None.

    `began_at` is when a failed attempt began; `at` is when the row was recorded.
    """

    seq: int
    kind: str
    name: str | None
    ref: int | None
    at: datetime
    attempt: int | None = None
    args: dict[str, Any] | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    took_ms: int | None = None
    data: Any = None
    began_at: datetime | None = None
    of: str | None = None
    sender: str | None = None
    """The sender of a message or of a decision about a step, where a name was given."""


class Progress(msgspec.Struct, frozen=True):
    """How far a run is: steps that have ended, steps scheduled so far, names of some under way, and
    its status. `steps_failed` of those that have ended failed; `reason` says why it is blocked;
    `last_error` is the newest failure or failed attempt.
    """

    steps_done: int
    steps_total: int
    running: list[str]
    status: str
    waiting_for: list[dict[str, Any]]
    steps_failed: int = 0
    reason: str | None = None
    last_error: ErrorHead | None = None


class QueueInfo(msgspec.Struct, frozen=True):
    """A queue: its limits (see `Queue`), how many wait and are under way, and when the next one can
    be admitted.

    `next_at` is None where nothing waits, or where only the end of something can help. Until
    `held_until` nothing is admitted, because a step has raised `RetryAfter`.
    """

    name: str
    concurrency: int | None
    per_worker: int | None
    rate: Rate | None
    key_concurrency: int | None
    key_rate: Rate | None
    waiting_max: int | None
    paused: bool
    held_until: datetime | None
    waiting: int
    running: int
    next_at: datetime | None


class Blocked(msgspec.Struct, frozen=True):
    """A run that needs a person: `by` is nondeterminism, code, unknown_outcome, crash_loop, history
    or store.
    """

    id: str
    by: str
    reason: str


def run_info(row: RunRow) -> RunInfo:
    """A run's row with its payloads decoded."""
    return RunInfo(
        args=_decode(row.args),
        result=None if row.result is None else _decode(row.result),
        error=None if row.error is None else _decode(row.error),
        **_of_both(row),
    )


def run_summary(row: RunHead) -> RunSummary:
    """A run's row as a line of a list."""
    return RunSummary(
        error=None if row.error is None else _error_head(row.error),
        last=row.last_name or row.last_kind,
        last_at=instant(row.created_ms if row.last_ms is None else row.last_ms),
        **_of_both(row),
    )


def _of_both(row: RunRow | RunHead) -> dict[str, Any]:
    """The fields that `RunInfo` and `RunSummary` have both."""
    waiting = _decode(row.waiting) if row.waiting else []
    return {
        "id": row.id,
        "workflow": row.workflow,
        "status": row.status,
        "reason": row.reason or waiting_text(waiting, row.status),
        "created_at": instant(row.created_ms),
        "started_at": moment(row.started_ms),
        "ended_at": moment(row.ended_ms),
        "due_at": moment(row.due_ms),
        "queue": row.queue,
        "priority": row.priority,
        "tags": _decode(row.tags) if row.tags else {},
        "parent": row.parent_id,
        "history_rows": row.history_rows,
        "owner": None if row.owner is None else f"worker {row.owner}",
        "forked_from": row.forked_from,
        "waiting_for": waiting if row.status in (lifecycle.WAITING, lifecycle.PAUSED) else [],
        "python": row.python,
        "key": row.key,
        "weight": row.weight,
        "scheduled_at": moment(row.scheduled_ms),
    }


def progress(row: ProgressRow) -> Progress:
    """A run's counts as a value."""
    waiting = _decode(row.waiting) if row.waiting and row.status == lifecycle.WAITING else []
    error = None if row.error is None else _step_error(row.error, row.error_of)
    done = row.completed + row.failed
    return Progress(
        done, row.scheduled, row.open, row.status, waiting, row.failed, row.reason, error
    )


_error_head = msgspec.json.Decoder(ErrorHead).decode


class _Failure(msgspec.Struct):
    """The data of a row with an error: the error itself, or an object that holds it."""

    error: msgspec.Raw = msgspec.Raw(b"null")
    attempt: int | None = None
    attempts: int | None = None


_failure = msgspec.json.Decoder(_Failure).decode


def _step_error(row: Event, step: str | None) -> ErrorHead:
    raw = row.data if isinstance(row.data, bytes) else b"{}"
    found = _failure(raw)
    head = _error_head(raw if bytes(found.error) == b"null" else found.error)
    attempt = found.attempts if found.attempt is None else found.attempt
    return replace(head, step=step, attempt=attempt, at=moment(row.at_ms))


def waiting_text(waiting: list[dict[str, Any]], status: str) -> str | None:
    """What a waiting run waits for, as a text."""
    if status != lifecycle.WAITING or not waiting:
        return None
    return ", ".join(_one_wait(item) for item in waiting)


def _one_wait(item: dict[str, Any]) -> str:
    match item:
        case {"message": channel}:
            return f"a message on {channel!r}"
        case {"request": channel}:
            return f"a request on {channel!r}"
        case {"queue": name, "step": step}:
            return f"a place in queue {name!r} for step {step}"
        case {"queue": name}:
            return f"a place in queue {name!r}"
        case {"timer": None}:
            return "a timer that is never due"
        case {"timer": ms}:
            return f"a timer until {moment(ms):%Y-%m-%d %H:%M:%S} UTC"
        case {"child": name}:
            return f"child {name}"
        case {"step": name, "again_ms": ms}:
            return (
                f"attempt {item['attempt']} of {item['attempts']} of step {name} at "
                f"{moment(ms):%Y-%m-%d %H:%M:%S} UTC"
            )
        case _:
            return f"step {item.get('step', '?')}"


class Ends(msgspec.Struct, frozen=True):
    """What the first and the last row of a history tell, and the run's own row stores: arguments,
    and how it ended; None where that row is not asked for.
    """

    args: bytes | None = None
    outcome: OutcomeRow | None = None


def history_events(
    rows: Sequence[Event], ends: Ends, names: Mapping[int, str], senders: Mapping[int, str] = {}
) -> list[HistoryEvent]:
    """Rows with decoded arguments and results; `names` are those of rows that others answer,
    `senders` are those of messages and decisions, by row.
    """
    found = [_event(row, ends, names.get(row.ref or 0)) for row in rows]
    if not senders:
        return found
    return [replace(one, sender=senders.get(one.seq)) for one in found]


def _event(row: Event, ends: Ends, of: str | None) -> HistoryEvent:
    raw = row.data if isinstance(row.data, bytes) or row.data is None else row.data.read()
    data: Any = None if raw is None else _decode(raw)
    fields: dict[str, Any] = {}
    match row.kind:
        case ev.START:
            fields["args"] = None if ends.args is None else _decode(ends.args)
        case _ if raw is None and row.kind != ev.FINISH:
            pass
        case ev.STEP:
            fields["args"] = data
        case ev.CHILD | ev.SPAWN:
            fields = {
                "args": data.get("args"),
                "data": {k: v for k, v in data.items() if k != "args"} or None,
            }
        case ev.COMPLETED:
            fields["result"] = data
        case ev.FAILED:
            fields = {
                "error": data.get("error") or data,
                "attempt": data.get("attempts"),
                "data": data,
            }
        case ev.ATTEMPT:
            fields = {
                "attempt": data.get("attempt"),
                "error": data.get("error"),
                "data": data,
                "began_at": moment(data.get("began_ms")),
            }
        case ev.FINISH:
            fields = {"data": data, **_ending(row, ends.outcome)}
        case _:
            fields["data"] = data
    at = instant(row.at_ms)
    return HistoryEvent(
        row.seq, row.kind, row.name, row.ref, at, took_ms=row.took_ms, of=of, **fields
    )


def _ending(row: Event, outcome: OutcomeRow | None) -> dict[str, Any]:
    """Result and error of a run, with the row that ends it."""
    if outcome is None:
        return {}
    done = outcome.status == lifecycle.COMPLETED and row.name == "completed"
    return {
        "result": _decode(outcome.result) if done and outcome.result else None,
        "error": _decode(outcome.error) if outcome.error else None,
    }
