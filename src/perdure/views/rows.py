"""Lines of lists: runs with what there is to say of each, and the facts that head a run.

Rules: values and texts without colours, one line each; the time is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from perdure.core import lifecycle
from perdure.process.interpreter import PYTHON, is_other
from perdure.runtime.info import OpenRequest, RunInfo, RunSummary
from perdure.runtime.standing import ExposedValue
from perdure.views import format, traces
from perdure.views.standing import standing
from perdure.views.waiting import NO_PLACES, Places, attempt_awaited, needs

REQUESTS_SHOWN_MAX = 5
STANDINGS_SHOWN_MAX = 3


class RunLine(msgspec.Struct, frozen=True):
    """A run in a list. `label` is its status, or `retrying 3` while it waits for attempt 3 of a
    step; `note` is its error, why it does not go on, or its newest row while it runs; `since` is
    when it last got on, `took_ms` how long it took or has taken so far.
    """

    id: str
    workflow: str
    status: str
    label: str
    note: str
    since: datetime
    took_ms: int
    history_rows: int


def run_line(run: RunSummary, now: datetime, why: str | None = None) -> RunLine:
    """A run as a line of a list. `why` is the reason that `waiting.why` gives."""
    attempt = attempt_awaited(run.waiting_for) if run.status == lifecycle.WAITING else None
    took = (run.ended_at or now) - (run.started_at or run.created_at)
    return RunLine(
        run.id,
        run.workflow,
        run.status,
        run.status if attempt is None else f"retrying {attempt}",
        note(run, why),
        run.last_at,
        max(round(took.total_seconds() * 1_000), 0),
        run.history_rows,
    )


def note(run: RunSummary, why: str | None = None) -> str:
    """What there is to say of a run on one line; empty where its status says it all."""
    if run.error is not None:
        return format.error_line(run.error)
    if (text := why or needs(run)) is not None:
        return text.partition("\n")[0]
    return f"last: {run.last}" if run.status == lifecycle.RUNNING and run.last else ""


def facts(run: RunInfo, now: datetime, limit: int | None) -> list[str]:
    """Call, times, tags and origin of a run; the arguments are cut to `limit` characters."""
    begun = run.started_at or run.created_at
    took = f"{'took' if run.ended_at else 'for'} {format.between(begun, run.ended_at or now)}"
    found = [
        f"{run.workflow}({format.arguments(run.args, limit)})",
        f"{'created' if run.started_at is None else 'started'} {format.clock(begun)}, {took}",
    ]
    if run.tags:
        tags = (f"{key}={format.value(item)}" for key, item in run.tags.items())
        found.append(f"tags: {', '.join(tags)}")
    if run.queue is not None:
        found.append(_in_queue(run))
    if run.scheduled_at is not None:
        found.append(f"started by a schedule, for {format.clock(run.scheduled_at)}")
    if run.parent:
        found.append(f"child of {run.parent}")
    if is_other(run.python) and run.ended_at is None:
        found.append(f"executed by Python {run.python}, this is {PYTHON}")
    if run.forked_from:
        found.append(f"forked from {run.forked_from}")
    return found


def _in_queue(run: RunInfo) -> str:
    """Queue, key and priority of a run."""
    key = "" if run.key is None else f", key {run.key}"
    return f"queue {run.queue}{key}" + (f", priority {run.priority}" if run.priority else "")


def exposed(values: Sequence[ExposedValue], limit: int | None) -> list[str]:
    """What a run shows of its state, on one line; cut to `limit` characters."""
    if not values:
        return []
    return [f"shows {format.arguments({one.name: one.value for one in values}, limit)}"]


def requests(open_requests: Sequence[OpenRequest], now: datetime) -> list[str]:
    """Requests without a reply: the oldest ones, and how many more."""
    lines = [_request(one, now) for one in open_requests[:REQUESTS_SHOWN_MAX]]
    if more := len(open_requests) - len(lines):
        lines.append(f"{format.count(more, 'more request')} without a reply")
    return lines


def standings(places: Places) -> list[str]:
    """Steps of a run that wait in queues while it goes on: the first ones, and how many more."""
    shown = [one for one in places.standings if one.seq is not None]
    lines = [
        f"step {one.step} (row {one.seq}): {standing(one, places.now)}"
        for one in shown[:STANDINGS_SHOWN_MAX]
    ]
    more = len(shown) - len(lines)
    return [*lines, *(["more steps wait in queues"] if more else [])]


def _request(one: OpenRequest, now: datetime) -> str:
    since = "" if one.asked_at is None else f", {format.between(one.asked_at, now)} ago"
    return f"asked on {one.channel} by {one.sender}{since}, no reply yet (key {one.key})"


def ending(run: RunInfo, limit: int | None = 200, places: Places = NO_PLACES) -> list[str]:
    """What follows a run's status: its result, its error with the frames, or what it waits for."""
    match run.status:
        case lifecycle.COMPLETED:
            return [f" → {format.value(run.result, limit)}"]
        case lifecycle.FAILED:
            return [f": {format.error_line(run.error)}", *traces.trace(run.error)]
        case _:
            text = needs(run, places)
            return f": {text}".split("\n") if text else [""]
