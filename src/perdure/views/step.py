"""One row of a run in full: what was asked, what came of it, and every attempt.

Rules: values as recorded; the attempts are those that the history tells, and the one that ended it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from perdure.core import lifecycle
from perdure.runtime.info import HistoryEvent
from perdure.views import format, timeline
from perdure.views.conversation import Said, find_conversation, reply


class AttemptLine(msgspec.Struct, frozen=True):
    """An attempt: its number, when it began, how long it took, what came of it."""

    number: int | None
    began_at: datetime | None
    took_ms: int | None
    outcome: str
    text: str
    error: dict[str, Any] | None = None


class StepView(msgspec.Struct, frozen=True):
    """A row with what answers it. `state` is open, retrying, completed, failed, cancelled, fired,
    or empty for what takes no time; `took_ms` is None while it is open, `work_ms` the
    length of its last attempt.

    `error` is that of its end or, while it is open, of the last attempt. `asked` and `answered` are
    the messages in its arguments and its result, where they hold a conversation.
    """

    seq: int
    kind: str
    name: str
    title: str
    state: str
    at: datetime
    ended_at: datetime | None
    took_ms: int | None
    work_ms: int | None
    args: Any
    result: Any
    has_result: bool
    error: dict[str, Any] | None
    attempts: list[AttemptLine]
    again_at_ms: int | None = None
    asked: list[Said] | None = None
    answered: list[Said] | None = None


def step_view(rows: Sequence[HistoryEvent]) -> StepView | None:
    """A row and those that answer it as one; None where there is no row."""
    if not rows:
        return None
    entry = timeline.Entry(rows[0], list(rows[1:]))
    row, end = entry.row, entry.end
    attempts: list[AttemptLine] = []
    for answer in entry.answers:
        if (line := _attempt(answer, 1 + _last_number(attempts))) is not None:
            attempts.append(line)
    faults = [one for one in attempts if one.error is not None or one.outcome == "process died"]
    error = faults[-1].error if end is None and faults else None
    return StepView(
        row.seq,
        row.kind,
        row.name or row.kind,
        timeline.title(row, 120),
        _state(row, end, retrying=bool(faults)),
        row.at,
        None if end is None else end.at,
        None if end is None else round((end.at - row.at) / timedelta(milliseconds=1)),
        None if end is None else end.took_ms,
        _asked(row),
        None if end is None else end.result,
        end is not None and end.kind == "completed",
        end.error if end is not None else error,
        attempts,
        _again(entry.answers) if end is None else None,
        find_conversation(row.args) if row.kind == "step" else None,
        None if end is None or row.kind != "step" else reply(end.result),
    )


def _asked(row: HistoryEvent) -> Any:
    """What the row itself holds."""
    if row.kind in ("child", "spawn", "step", "start"):
        return row.args
    return next((one for one in (row.data, row.result, row.error) if one is not None), None)


def _state(row: HistoryEvent, end: HistoryEvent | None, *, retrying: bool) -> str:
    if end is not None:
        return lifecycle.CANCELLED if end.kind == "abandon" else end.kind
    if row.kind in ("step", "child", "timer"):
        return "retrying" if retrying else "open"
    return ""


_ENDED = frozenset({"failed", "process died"})


def _last_number(attempts: Sequence[AttemptLine]) -> int:
    """The number of the last attempt that ended; 0 where none has. Rows of whole runs that died are
    not among them, but count, so the numbers that rows have go before their own count.
    """
    ended = [one for one in attempts if one.outcome in _ENDED]
    return max([len(ended), *(one.number or 0 for one in ended)])


def _attempt(row: HistoryEvent, number: int) -> AttemptLine | None:
    """The attempt that a row tells of, which has this number where the row says none; None where it
    tells of none.
    """
    data = row.data if isinstance(row.data, dict) else {}
    match row.kind:
        case "completed" | "failed":
            began = None if row.took_ms is None else row.at - timedelta(milliseconds=row.took_ms)
            text = format.error_line(row.error) if row.error else ""
            return AttemptLine(row.attempt or number, began, row.took_ms, row.kind, text, row.error)
        case "attempt" if row.error is not None:
            text = format.error_line(row.error)
            began = row.began_at
            return AttemptLine(row.attempt, began, row.took_ms, "failed", text, row.error)
        case "attempt" if data.get("crash"):
            return AttemptLine(row.attempt or number, row.began_at, None, "process died", "")
        case "attempt":
            found = timeline.answer_of(row, 200).text
            return AttemptLine(row.attempt, row.at, row.took_ms, "note", found) if found else None
        case _:
            return None


def _again(answers: Sequence[HistoryEvent]) -> int | None:
    """When the next attempt begins, in milliseconds UTC."""
    for row in reversed(answers):
        if row.kind == "attempt" and isinstance(row.data, dict):
            found = row.data.get("again_ms")
            return found if isinstance(found, int) else None
    return None
