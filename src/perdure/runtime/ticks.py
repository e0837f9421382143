"""Plans of due ticks: which of them run, how many are missed, when the next one is due.

Rules: time is an argument, and nothing is read or written here; the next tick is computed from the
last nominal one, except where the clock was set back behind that; a plan looks at a bounded number
of ticks, and what is left comes with the next plan.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from perdure.api.ticks import Ticks, first_after, ticks_of, zone_of
from perdure.runtime.naming import new_seed
from perdure.store.schedule_writes import DueSchedule, FireSchedule, TickRun

ON_TIME_MS = 10_000
"""A tick that is no later than this is not a missed one, if an engine was awake when it was due."""
COUNTED_MAX = 1_000
"""Missed ticks that one plan counts: some milliseconds."""
RETRY_MS = 30_000
"""After this a tick is tried again whose run could not be started."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done about a schedule: ticks that run, the number of those that do not, the
    next tick, when to look at it, and the last tick that this deals with.
    """

    ticks: list[int]
    missed: int
    next_ms: int | None
    fire_ms: int | None
    last_ms: int | None


def fire(due: DueSchedule, now_ms: int, awake_ms: int) -> FireSchedule:
    """The write that deals with a schedule at `now_ms`, by an engine awake since `awake_ms`."""
    todo = plan(due, now_ms, awake_ms)
    ticks = [tick_run(due.name, ms, due.tz) for ms in todo.ticks]
    return FireSchedule(
        due.schedule, due.version, ticks, todo.missed, todo.next_ms, todo.fire_ms, todo.last_ms,
        now_ms, now_ms + RETRY_MS,
    )  # fmt: skip


def plan(due: DueSchedule, now_ms: int, awake_ms: int) -> Plan:
    """What is to be done about a schedule. Ticks that are held come first."""
    ticks = ticks_of(due.expression, due.tz)
    if due.last_ms is not None and due.last_ms > now_ms:  # the clock was set back
        next_ms = first_after(ticks, now_ms)
        return Plan(due.held, 0, next_ms, next_ms, now_ms)
    spare = due.catch_up_max + ON_TIME_MS // 1_000 + 1
    found, next_ms, fire_ms = _found(due, ticks, now_ms, COUNTED_MAX + spare)
    if len(found) == COUNTED_MAX + spare:
        left_ms = found[COUNTED_MAX][0]
        return Plan(due.held, COUNTED_MAX, left_ms, now_ms, found[COUNTED_MAX - 1][0])
    on_time_ms, window_ms = max(awake_ms, now_ms - ON_TIME_MS), max(due.catch_up_ms, ON_TIME_MS)
    newest = len(found) - due.catch_up_max
    run = [
        ms
        for number, (ms, due_ms) in enumerate(found)
        if due_ms >= on_time_ms or (number >= newest and now_ms - due_ms <= window_ms)
    ]
    last_ms = found[-1][0] if found else due.last_ms
    return Plan([*due.held, *run], len(found) - len(run), next_ms, fire_ms, last_ms)


def _found(
    due: DueSchedule, ticks: Ticks, now_ms: int, limit: int
) -> tuple[list[tuple[int, int]], int | None, int | None]:
    """Due ticks, each with the time from which it is due, up to `limit`; then the next one."""
    found: list[tuple[int, int]] = []
    if due.next_ms is None:
        return found, None, None
    ms, following = due.next_ms, ticks.after(due.next_ms)
    while len(found) < limit:
        after_ms = next(following, None)
        due_ms = ms + jitter_ms(due.name, ms, due.jitter_ms, after_ms)
        if due_ms > now_ms:
            return found, ms, due_ms
        found.append((ms, due_ms))
        if after_ms is None:
            return found, None, None
        ms = after_ms
    return found, ms, now_ms


def jitter_ms(name: str, ms: int, most_ms: int, after_ms: int | None) -> int:
    """How much later a tick is due: the same on every process, and before the tick after it.

    >>> jitter_ms("nightly", 0, 0, None)
    0
    """
    if after_ms is not None:
        most_ms = min(most_ms, after_ms - ms)
    if most_ms <= 0:
        return 0
    drawn = hashlib.blake2b(f"{name}\n{ms}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn) % most_ms


def tick_run(name: str, ms: int, tz: str, suffix: str = "") -> TickRun:
    """The run of a tick: its id has the nominal time in the zone of its schedule."""
    at = zone_of(tz).at(ms)
    text = at.isoformat(timespec="milliseconds" if ms % 1_000 else "seconds")
    return TickRun(ms, f"{name}@{text}{suffix}", new_seed())
