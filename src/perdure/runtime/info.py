"""Runs and events as people see them: decoded, with aware datetimes.

Rules: nothing here touches a store; payloads are plain JSON values, because a viewer may not have
the classes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from perdure.core import events as ev
from perdure.core.events import Event
from perdure.core.limits import NEVER_MS
from perdure.store.base import RunRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_decode = msgspec.json.Decoder().decode


def moment(ms: int | None) -> datetime | None:
    """Milliseconds UTC as an aware datetime; None for what is never."""
    return None if ms is None or ms >= NEVER_MS else _EPOCH + timedelta(milliseconds=ms)


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


class HistoryEvent(msgspec.Struct, frozen=True):
    """One row of a history. `ref` is the row that it answers; what a kind does not have is None.

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


class Progress(msgspec.Struct, frozen=True):
    """How far a run is: steps that have ended, steps scheduled so far, names of some under way, and
    its status.
    """

    steps_done: int
    steps_total: int
    running: list[str]
    status: str
    waiting_for: list[dict[str, Any]]


class Blocked(msgspec.Struct, frozen=True):
    """A run that needs a person: `by` is nondeterminism, code, unknown_outcome, crash_loop, history
    or store.
    """

    id: str
    by: str
    reason: str


def run_info(row: RunRow) -> RunInfo:
    """A run's row for people."""
    waiting = _decode(row.waiting) if row.waiting else []
    created = moment(row.created_ms)
    assert created is not None
    return RunInfo(
        row.id,
        row.workflow,
        row.status,
        row.reason or waiting_text(waiting, row),
        created,
        moment(row.started_ms),
        moment(row.ended_ms),
        moment(row.due_ms),
        row.queue,
        row.priority,
        _decode(row.tags) if row.tags else {},
        row.parent_id,
        _decode(row.args),
        None if row.result is None else _decode(row.result),
        None if row.error is None else _decode(row.error),
        row.history_rows,
        None if row.owner is None else f"worker {row.owner}",
        row.forked_from,
        waiting if row.status in ("waiting", "paused") else [],
        row.python,
    )


def waiting_text(waiting: list[dict[str, Any]], row: RunRow) -> str | None:
    """What a waiting run waits for, in words."""
    if row.status != "waiting" or not waiting:
        return None
    return ", ".join(_one_wait(item) for item in waiting)


def _one_wait(item: dict[str, Any]) -> str:
    match item:
        case {"message": channel}:
            return f"a message on {channel!r}"
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


def history_events(rows: list[Event], run: RunRow) -> list[HistoryEvent]:
    """A history for people: arguments with their step, results with what they answer."""
    return [_event(row, run) for row in rows]


def _event(row: Event, run: RunRow) -> HistoryEvent:
    raw = row.data if isinstance(row.data, bytes) or row.data is None else row.data.read()
    data: Any = None if raw is None else _decode(raw)
    fields: dict[str, Any] = {}
    match row.kind:
        case ev.START:
            fields["args"] = _decode(run.args)
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
            done = run.status == "completed" and row.name == "completed"
            fields = {
                "result": _decode(run.result) if done and run.result else None,
                "error": _decode(run.error) if run.error else None,
            }
            fields["data"] = data
        case _:
            fields["data"] = data
    at = moment(row.at_ms)
    assert at is not None
    return HistoryEvent(row.seq, row.kind, row.name, row.ref, at, took_ms=row.took_ms, **fields)
