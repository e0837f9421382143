"""Waterfalls of runs: bars over time as columns of numbers, and the idle stretches between them.

Rules: columns instead of rows, because a page draws thousands of bars; times are milliseconds since
the run began; an open bar has no length; a long stretch in which nothing is at work is idle. What
came behind a row is a waterfall by itself, which the page adds to what it has.
"""

from __future__ import annotations

import re
import statistics
from typing import NamedTuple

import msgspec

from perdure.store.rows import BarRow

IDLE_OVER = 20
"""A stretch is idle from this many times the median length of a bar on."""

IDLE_MS_MIN = 1_000
WORK_MS_MIN = 5
"""Shorter differences between a bar and its last attempt are not drawn."""

_POINTS = frozenset(
    {"message", "request", "reply", "refuse", "reject", "cancel", "emit", "send", "spawn", "expose"}
)
_BARS = _POINTS | {"step", "child", "timer"}
_ENDS = frozenset({"completed", "failed", "fired", "abandon"})


class Bars(NamedTuple):
    """Rows for a waterfall: when the run began, the rows, the children by the row that started
    each, and how many rows the run has.
    """

    begun_ms: int
    rows: list[BarRow]
    children: dict[int, str]
    history_rows: int


class Try(NamedTuple):
    """An attempt that failed, or whose process died: when it began, how long it took, which."""

    start_ms: int
    took_ms: int
    fault: str


class End(NamedTuple):
    """What ended a bar of an earlier page."""

    seq: int
    status: str
    at_ms: int
    work_ms: int | None


class Waterfall(msgspec.Struct):
    """Bar `i` is row `seq[i]`; its name is `names[name[i]]`; `took_ms[i]` is None where it is open.

    `status` is completed, failed, fired, abandon or open; empty for what takes no time. `label` has
    the beginning of what a row holds as JSON, `run` the id of a child, by bar. `tries` has the
    attempts without success by row, `work_ms` the length of the last attempt by bar where that is
    shorter than the bar; `marks` are times at which the process died or a retry went on. `ends` are
    those of bars of earlier pages. `idle` are pairs of milliseconds between which nothing was at
    work. `last` is the newest row.
    """

    names: list[str] = []
    seq: list[int] = []
    name: list[int] = []
    kind: list[str] = []
    status: list[str] = []
    start_ms: list[int] = []
    took_ms: list[int | None] = []
    attempts: list[int] = []
    label: dict[int, str] = {}
    run: dict[int, str] = {}
    tries: dict[int, list[Try]] = {}
    work_ms: dict[int, int] = {}
    marks: list[tuple[int, int, str]] = []
    ends: list[End] = []
    idle: list[tuple[int, int]] = []
    last: int = 0


_ARGUMENTS = re.compile(r'^\{"args":(\{.*?\}?)\}?$')
_NAME = re.compile(r'(^|[,{])\s*"([A-Za-z_]\w*)":')


def readable(label: str) -> str:
    """The beginning of what a row holds, as a text.

    >>> readable('{"order":"17","cents":4200}'), readable('{"args":{"item":"ham"}}')
    ('order="17", cents=4200', 'item="ham"')
    """
    text = _ARGUMENTS.sub(r"\1", label)
    inside = text.removeprefix("{").removesuffix("}") if text.startswith('{"') else text
    return _NAME.sub(r"\1 \2=", inside).strip()


def waterfall(bars: Bars) -> Waterfall:
    """The bars of a run's rows, or of a page of them."""
    found = Waterfall()
    numbers: dict[str, int] = {}
    place: dict[int, int] = {}
    open_steps: set[int] = set()
    begun = bars.begun_ms
    for row in bars.rows:
        found.last = row.seq
        if row.kind in _BARS:
            place[row.seq] = len(found.seq)
            _add(found, row, begun, numbers)
            if row.kind == "step":
                open_steps.add(place[row.seq])
            if (child := bars.children.get(row.seq)) is not None:
                found.run[place[row.seq]] = child
        elif row.kind in _ENDS and row.ref is not None:
            bar = place.get(row.ref)
            _end(found, row, begun, bar)
            open_steps.discard(-1 if bar is None else bar)
        elif row.kind == "attempt":
            _attempt(found, row, begun, place, open_steps)
    found.idle = _idle(found)
    return found


def _add(found: Waterfall, row: BarRow, begun: int, numbers: dict[str, int]) -> None:
    name = row.name or row.kind
    if name not in numbers:
        numbers[name] = len(found.names)
        found.names.append(name)
    if row.label:
        found.label[len(found.seq)] = row.label
    point = row.kind in _POINTS
    found.seq.append(row.seq)
    found.name.append(numbers[name])
    found.kind.append(row.kind)
    found.status.append("" if point else "open")
    found.start_ms.append(row.at_ms - begun)
    found.took_ms.append(0 if point else None)
    found.attempts.append(1)


def _end(found: Waterfall, row: BarRow, begun: int, bar: int | None) -> None:
    at_ms = row.at_ms - begun
    if bar is None:
        found.ends.append(End(row.ref or 0, row.kind, at_ms, row.took_ms))
        return
    took_ms = at_ms - found.start_ms[bar]
    found.status[bar], found.took_ms[bar] = row.kind, took_ms
    if row.took_ms is not None and took_ms - row.took_ms >= WORK_MS_MIN:
        found.work_ms[bar] = row.took_ms


def _attempt(
    found: Waterfall, row: BarRow, begun: int, place: dict[int, int], open_steps: set[int]
) -> None:
    """A note: about an attempt, or about the whole run. Where its process died, every open step is
    tried again, and the engine counts that as an attempt of each.
    """
    at_ms = row.at_ms - begun
    if row.ref is None:
        found.marks.append((row.seq, at_ms, "crash" if row.fault == "c" else "note"))
        for bar in open_steps if row.fault == "c" else ():
            found.attempts[bar] += 1
    elif row.fault is not None:
        took_ms = row.took_ms or 0
        start_ms = at_ms - took_ms if row.began_ms is None else row.began_ms - begun
        which = "crash" if row.fault == "c" else "failed"
        found.tries.setdefault(row.ref, []).append(Try(start_ms, took_ms, which))
        if row.ref in place:
            found.attempts[place[row.ref]] += 1


def _idle(found: Waterfall) -> list[tuple[int, int]]:
    """Stretches between bars in which nothing but timers is open, and those between two attempts
    of the only step at work.
    """
    spans = sorted(_spans(found))
    lengths = [end - start for start, end in spans if end > start]
    least = max(IDLE_OVER * statistics.median(lengths) if lengths else 0, IDLE_MS_MIN)
    idle: list[tuple[int, int]] = []
    until = 0
    for start, end in spans:
        if start - until >= least:
            idle.append((until, start))
        until = max(until, end)
    return idle


def _spans(found: Waterfall) -> list[tuple[int, int]]:
    """When something was at work: bars without timers, and the attempts of those that waited."""
    spans: list[tuple[int, int]] = []
    for bar, (start, took, kind, seq) in enumerate(
        zip(found.start_ms, found.took_ms, found.kind, found.seq, strict=True)
    ):
        if kind == "timer":
            continue
        end = start if took is None else start + took
        tries = found.tries.get(seq)
        if tries is None:
            spans.append((start, end))
            continue
        spans += [(start, start), *((one.start_ms, one.start_ms + one.took_ms) for one in tries)]
        work = found.work_ms.get(bar, took)
        if took is not None and work is not None:
            spans.append((end - work, end))
    return spans
