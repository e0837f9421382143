"""What stands still in a store and why, for `doctor`: queues, schedules, requests.

Rules: nothing here writes; every look has a limit; a reason ends with what helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import Any

from perdure.core import lifecycle
from perdure.runtime.info import RunSummary, moment, run_summary
from perdure.store.base import Store
from perdure.store.rows import QueueRow
from perdure.store.schedule_writes import ScheduleRow

STUCK_MAX = 100
"""Entries of a list, and places that are looked at to say why a queue stands still."""

NAMED_MAX = 3
DEEP_MAX = 4
"""Queues whose places wait for each other that are looked through."""

LATE_MS = 5_000
FIRE_LATE_MS = 60_000
ANSWER_MS = 60_000
PAGE, SCHEDULES_MAX = 1_000, 10_000


def queues(store: Store, now_ms: int) -> list[dict[str, Any]]:
    """Queues in which something waits and nothing is admitted."""
    reasons = (
        (row, _queue_reason(store, row, now_ms)) for row in store.queue_rows() if row.waiting
    )
    return [_stuck_queue(row, why) for row, why in reasons if why][:STUCK_MAX]


def queue(store: Store, row: QueueRow, now_ms: int) -> str | None:
    """Why a queue admits nothing; None where it goes on by itself."""
    return _queue_reason(store, row, now_ms)


def _stuck_queue(row: QueueRow, why: str) -> dict[str, Any]:
    counts = {lifecycle.WAITING: row.waiting, lifecycle.RUNNING: row.running}
    return {"name": row.name, **counts, "reason": f"{row.waiting:,} wait: {why}"}


def _queue_reason(
    store: Store, row: QueueRow, now_ms: int, seen: frozenset[str] = frozenset()
) -> str | None:
    """Why a queue admits nothing; None where it goes on by itself. `seen` are the queues whose
    places wait for this one.
    """
    if row.limits.paused:
        return f"it is paused: perdure queue resume {quote(row.name)}"
    if row.held_ms is not None and row.held_ms > now_ms:
        return f"RetryAfter holds it back until {_time(row.held_ms)}"
    if row.next_ms is None:
        return _held_by_waiting(store, row.name, now_ms, seen | {row.name})
    if row.next_ms < now_ms - LATE_MS:
        waits = store.places(row.name, 1, False)
        workflow = store.run_head(waits[0].run_id).workflow if waits else "that it is for"
        return (
            f"the next one could be admitted since {_time(row.next_ms)}, but no worker takes it: "
            f"is there one that runs, and knows workflow {workflow}?"
        )
    return None


def _goes_on(store: Store, head: RunSummary, now_ms: int, seen: frozenset[str]) -> bool:
    """Whether a run that waits goes on by itself: at a time, or when another queue admits it."""
    for item in head.waiting_for:
        if item.get("timer") is not None or "again_ms" in item:
            return True
        if (other := item.get("queue")) is not None and other not in seen and len(seen) < DEEP_MAX:
            return _queue_reason(store, store.queue_row(other), now_ms, seen) is None
    return False


def _held_by_waiting(store: Store, name: str, now_ms: int, seen: frozenset[str]) -> str | None:
    """The reason of a queue whose places are all held by runs that wait themselves."""
    places = store.places(name, STUCK_MAX + 1, True)
    heads = [run_summary(store.run_head(place.run_id)) for place in places[:STUCK_MAX]]
    if not heads or any(head.status != lifecycle.WAITING for head in heads):
        return None
    if any(_goes_on(store, head, now_ms, seen) for head in heads[:NAMED_MAX]):
        return None
    named = [f"{head.id} waits for {head.reason}" for head in heads[:NAMED_MAX]]
    more = len(places) - len(named)
    text = f"all its places are held by runs that wait themselves: {'; '.join(named)}"
    text += f"; and {more:,} more" if more else ""
    if any("child" in item for head in heads for item in head.waiting_for):
        text += ". Runs that wait for others of their own queue need a higher limit, or two queues"
    return text


def schedules(store: Store, now_ms: int) -> list[dict[str, Any]]:
    """Schedules that start nothing, and those that have missed ticks."""
    found: list[dict[str, Any]] = []
    for row in _schedule_rows(store):
        if reason := _schedule_reason(row, now_ms):
            found.append({"name": row.name, "status": row.status, "reason": reason})
        if len(found) == STUCK_MAX:
            break
    return found


def _schedule_rows(store: Store) -> Iterator[ScheduleRow]:
    """All schedules, up to `SCHEDULES_MAX`."""
    after = ""
    for _ in range(SCHEDULES_MAX // PAGE):
        page = store.schedule_rows(after, PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].name


def _schedule_reason(row: ScheduleRow, now_ms: int) -> str | None:
    """Why a schedule starts nothing, or what it has missed; None where all is well."""
    found = []
    due_ms = row.next_ms if row.fire_ms is None else row.fire_ms
    if row.paused:
        found.append(f"it is paused: perdure schedule resume {quote(row.name)}")
    elif row.status == "orphaned":
        found.append(
            "no worker that runs declares it, so it starts nothing: start one that does, or remove "
            f"it: perdure schedule rm {quote(row.name)}"
        )
    elif due_ms is not None and due_ms < now_ms - FIRE_LATE_MS:
        found.append(f"its tick is due since {_time(due_ms)}, but no worker starts it")
    if row.error is not None:
        found.append(f"its last tick could not be started: {row.error}")
    if row.missed:
        ticks = "tick was" if row.missed == 1 else "ticks were"
        found.append(
            f"{row.missed:,} {ticks} missed: no worker ran in time "
            f"(perdure schedule backfill {quote(row.name)} START END runs them)"
        )
    return "; ".join(found) or None


def requests(store: Store, now_ms: int) -> list[dict[str, Any]]:
    """Requests that have waited for a reply for more than a minute, and what their runs do."""
    found = []
    for row in store.unanswered(now_ms - ANSWER_MS, STUCK_MAX):
        head = run_summary(store.run_head(row.run_id))
        does = "" if head.reason is None else f": {head.reason}"
        found.append(
            {
                "id": row.run_id,
                "channel": row.channel,
                "key": row.key,
                "sender": row.sender,
                "status": head.status,
                "reason": f"asked on {row.channel} by {row.sender} at {_time(row.at_ms)} "
                f"(key {row.key}), no reply yet. The run is {head.status}{does}",
            }
        )
    return found


def _time(ms: int) -> str:
    return f"{moment(ms):%Y-%m-%d %H:%M:%S} UTC"
