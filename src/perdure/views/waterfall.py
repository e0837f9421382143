"""Waterfalls of runs: bars over time as columns of numbers, and the idle stretches between them.

Rules: columns instead of rows, because a page draws thousands of bars; times are milliseconds since
the run began; an open bar has no length; a long stretch in which nothing is at work is idle.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import datetime

import msgspec

from perdure.runtime.info import HistoryEvent
from perdure.views.timeline import Entry, entries

IDLE_OVER = 20
"""A stretch is idle from this many times the median length of a bar on."""

IDLE_MS_MIN = 1_000
_POINTS = frozenset({"message", "request", "reply", "refuse", "cancel", "emit", "send", "spawn"})
_BARS = _POINTS | {"step", "child", "timer"}


class Waterfall(msgspec.Struct, frozen=True):
    """Bar `i` is row `seq[i]`; its name is `names[name[i]]`; `took_ms[i]` is None where it is open.

    `status` is completed, failed, fired, abandon or open; empty for what takes no time. `idle` are
    pairs of milliseconds between which nothing was at work.
    """

    names: list[str]
    seq: list[int]
    name: list[int]
    kind: list[str]
    status: list[str]
    start_ms: list[int]
    took_ms: list[int | None]
    attempts: list[int]
    idle: list[tuple[int, int]]


def waterfall(history: Sequence[HistoryEvent], begun: datetime) -> Waterfall:
    """The bars of a history, or of a page of it."""
    found = Waterfall([], [], [], [], [], [], [], [], [])
    numbers: dict[str, int] = {}
    bars = [entry for entry in entries(history) if entry.row.kind in _BARS]
    for entry in bars:
        row, end = entry.row, entry.end
        start = _ms(begun, row.at)
        name = row.name or row.kind
        if name not in numbers:
            numbers[name] = len(found.names)
            found.names.append(name)
        found.seq.append(row.seq)
        found.name.append(numbers[name])
        found.kind.append(row.kind)
        found.status.append("" if row.kind in _POINTS else end.kind if end else "open")
        found.start_ms.append(start)
        found.took_ms.append(_took_ms(entry, start, begun))
        found.attempts.append(1 + sum(_failed_attempt(one) for one in entry.answers))
    found.idle.extend(_idle(found))
    return found


def _failed_attempt(row: HistoryEvent) -> bool:
    return row.kind == "attempt" and row.error is not None


def _took_ms(entry: Entry, start_ms: int, begun: datetime) -> int | None:
    if entry.row.kind in _POINTS:
        return 0
    return None if entry.end is None else _ms(begun, entry.end.at) - start_ms


def _ms(begun: datetime, at: datetime) -> int:
    return round((at - begun).total_seconds() * 1_000)


def _idle(found: Waterfall) -> list[tuple[int, int]]:
    """Stretches between bars in which nothing but timers is open."""
    bars = sorted(
        (start, start if took is None else start + took)
        for start, took, kind in zip(found.start_ms, found.took_ms, found.kind, strict=True)
        if kind != "timer"
    )
    lengths = [end - start for start, end in bars if end > start]
    least = max(IDLE_OVER * statistics.median(lengths) if lengths else 0, IDLE_MS_MIN)
    idle: list[tuple[int, int]] = []
    until = 0
    for start, end in bars:
        if start - until >= least:
            idle.append((until, start))
        until = max(until, end)
    return idle
