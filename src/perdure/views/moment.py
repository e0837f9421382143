"""Time travel: what a workflow knew when a row of its history was recorded.

Rules: made from the rows up to that one, never from the run as it is now; payloads only of the row
itself, and of what the run showed.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from perdure.core import events as ev
from perdure.runtime.info import HistoryEvent, RunSummary

KNOWN_MAX = 50
PENDING_MAX = 200
STOPS_MAX = 10_000
_OPENS = frozenset({ev.STEP, ev.CHILD, ev.TIMER})
_ENDS = frozenset({ev.COMPLETED, ev.FAILED, ev.FIRED, ev.ABANDON})
_NEWS = frozenset({ev.MESSAGE, ev.REQUEST, ev.CANCEL})


class Pending(msgspec.Struct, frozen=True):
    """A step, child or timer that had been asked for and had no answer yet. `attempts` is how many
    had failed by then.
    """

    seq: int
    kind: str
    name: str | None
    since: datetime
    attempts: int


class Known(msgspec.Struct, frozen=True):
    """An answer that the workflow had got, or a message: in row `seq`, to row `ref`."""

    seq: int
    ref: int | None
    kind: str
    name: str | None
    at: datetime


class Moment(msgspec.Struct, frozen=True):
    """A run as it was behind row `seq`, of `rows` in all.

    `row` is that row with its payload, `about` the row that it answers, `next` the row that came
    then. `known` are the newest answers, of `answers` in all; `messages` those that had come,
    cancels among them, the newest first. `emitted` counts items by stream. `stops` are rows at
    which something new was known: where a slider stops. Of many they are a part, evenly over the
    whole history, and `stops_more` is true. `stop_before` and `stop_behind` are the neighbours
    among all of them.
    """

    run: RunSummary
    seq: int
    rows: int
    at: datetime
    after_ms: int
    row: HistoryEvent
    about: HistoryEvent | None
    next: HistoryEvent | None
    args: dict[str, Any] | None
    pending: list[Pending]
    known: list[Known]
    answers: int
    messages: list[Known]
    exposed: dict[str, Any]
    tags: dict[str, Any]
    emitted: dict[str, int]
    stops: list[int]
    stops_more: bool
    stop_before: int | None = None
    stop_behind: int | None = None


def shown_at(outline: Sequence[HistoryEvent], seq: int) -> list[int]:
    """The rows up to `seq` that say what a run showed then: of exposed values the newest, and its
    tags.
    """
    newest: dict[str | None, int] = {}
    tags = []
    for row in outline:
        if row.seq > seq:
            break
        if row.kind == ev.EXPOSE:
            newest[row.name] = row.seq
        elif row.kind == ev.TAG:
            tags.append(row.seq)
    return sorted([*newest.values(), *tags])


def moment(
    run: RunSummary,
    outline: Sequence[HistoryEvent],
    seq: int,
    with_payloads: Sequence[HistoryEvent],
    args: dict[str, Any] | None,
) -> Moment:
    """The moment behind row `seq` of a history. `with_payloads` are rows with what they hold: that
    one, those around it, and those of `shown_at`.
    """
    past = [row for row in outline if row.seq <= seq]
    whole = {row.seq: row for row in with_payloads}
    row = whole[seq]
    stops = [one.seq for one in outline if one.kind in ev.INPUTS or one.kind == ev.FINISH]
    answers = [_known(one) for one in past if one.kind in _ENDS]
    begun = run.started_at or run.created_at
    return Moment(
        run,
        seq,
        run.history_rows,
        row.at,
        max(round((row.at - begun).total_seconds() * 1_000), 0),
        row,
        whole.get(row.ref or 0),
        whole.get(seq + 1),
        args,
        _pending(past)[:PENDING_MAX],
        answers[: -KNOWN_MAX - 1 : -1],
        len(answers),
        [_known(one) for one in reversed(past) if one.kind in _NEWS][:KNOWN_MAX],
        *_shown(past, whole),
        dict(Counter(one.name or "" for one in past if one.kind == ev.EMIT)),
        _thinned(stops, seq),
        len(stops) > STOPS_MAX,
        *_around(stops, seq),
    )


def _thinned(stops: list[int], seq: int) -> list[int]:
    """At most `STOPS_MAX` of them: the first, the last, the one at row `seq` or before it."""
    if len(stops) <= STOPS_MAX:
        return stops
    last, parts = len(stops) - 1, STOPS_MAX - 2
    here = max(bisect.bisect_right(stops, seq) - 1, 0)
    return [
        stops[at] for at in sorted({here, *(part * last // parts for part in range(parts + 1))})
    ]


def _around(stops: list[int], seq: int) -> tuple[int | None, int | None]:
    """The stops before and behind a row."""
    before, behind = bisect.bisect_left(stops, seq), bisect.bisect_right(stops, seq)
    return (
        stops[before - 1] if before else None,
        stops[behind] if behind < len(stops) else None,
    )


def _known(row: HistoryEvent) -> Known:
    return Known(row.seq, row.ref, row.kind, row.of or row.name, row.at)


def _pending(past: Sequence[HistoryEvent]) -> list[Pending]:
    """What was open, the newest first."""
    ended = {row.ref for row in past if row.kind in _ENDS}
    failed = Counter(row.ref for row in past if row.kind == ev.ATTEMPT and row.error is not None)
    return [
        Pending(row.seq, row.kind, row.name, row.at, failed[row.seq])
        for row in reversed(past)
        if row.kind in _OPENS and row.seq not in ended
    ]


def _shown(
    past: Sequence[HistoryEvent], whole: dict[int, HistoryEvent]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Exposed values and tags."""
    exposed: dict[str, Any] = {}
    tags: dict[str, Any] = {}
    for row in past:
        found = whole.get(row.seq)
        if row.kind == ev.EXPOSE and found is not None:
            exposed[row.name or ""] = found.data
        elif row.kind == ev.TAG and found is not None and isinstance(found.data, dict):
            tags |= found.data
    return exposed, tags
