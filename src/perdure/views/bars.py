"""Waterfalls as lines of text: one line a bar, on an axis without the idle stretches.

Rules: no colours and no terminal: the width is given in characters; equal neighbours that ended
well share a line; what is too short to be seen is a thin mark.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import msgspec

from perdure.core import events as ev
from perdure.views import format
from perdure.views.waterfall import Waterfall

FOLD_OVER = 5
"""So many equal neighbours, and more, are one line."""

IDLE_CELLS = 3
CELLS_MIN = 10
DONE, OPEN, WAITS, TRY, FAILED, THIN, POINT, IDLE = "█", "░", "╌", "▒", "✕", "▏", "·", "⋯"
LATER = "⋮"
_WELL = frozenset({"completed", "fired", ""})


class BarLine(msgspec.Struct, frozen=True):
    """A line of a waterfall: `cells` is the drawing, `name` says how many are folded into it;
    `state` is that of `Waterfall.status`, or `retrying`, or `later` where what became of it is in a
    row behind those that are shown; `took` is how long it took, of several the longest.
    """

    seq: int
    name: str
    state: str
    cells: str
    took: str


class Axis:
    """Milliseconds of a run, from `begin_ms` on, as cells of a line; idle stretches take a few
    cells each.
    """

    def __init__(
        self, end_ms: int, idle: Sequence[tuple[int, int]], cells: int, begin_ms: int = 0
    ) -> None:
        idle = [(max(start, begin_ms), end) for start, end in idle if end > begin_ms]
        while idle and cells - IDLE_CELLS * len(idle) < CELLS_MIN:
            idle.pop(min(range(len(idle)), key=lambda one: idle[one][1] - idle[one][0]))
        self.cells, self.idle = max(cells, CELLS_MIN), idle
        self._begin_ms = begin_ms
        worked_ms = end_ms - begin_ms - sum(end - start for start, end in idle)
        left = self.cells - IDLE_CELLS * len(idle)
        self._a_cell_ms = max(worked_ms, 1) / left
        self._begins = [start for start, _ in idle]

    def at(self, ms: float) -> float:
        """The place of a time, in cells."""
        before = bisect_right(self._begins, ms)
        skipped, cells = 0.0, 0.0
        for start, end in self.idle[:before]:
            inside = min(ms, end) - start
            skipped += inside
            cells += IDLE_CELLS * (inside / (end - start))
        return min((ms - self._begin_ms - skipped) / self._a_cell_ms + cells, float(self.cells))

    def header(self) -> str:
        """Times over the axis, and how long each idle stretch is."""
        line = [" "] * self.cells
        for start, end in self.idle:
            at = round(self.at(start))
            _put(line, at, f"⟨{format.duration(end - start)} idle⟩")
        for part in range(0, self.cells, max(self.cells // 5, 12)):
            _put(line, part, f"│{self._time_at(part)}")
        return "".join(line).rstrip()

    def _time_at(self, cell: int) -> str:
        low, high = 0.0, 1e15
        for _ in range(64):
            middle = (low + high) / 2
            low, high = (middle, high) if self.at(middle) < cell else (low, middle)
        ms = round(high) if cell else self._begin_ms
        return format.duration(ms) if ms else "0"

    def background(self) -> list[str]:
        """A line without a bar."""
        line = [" "] * self.cells
        for start, _ in self.idle:
            at = round(self.at(start))
            line[at : at + IDLE_CELLS] = IDLE * min(IDLE_CELLS, self.cells - at)
        return line


def lines(
    found: Waterfall, now_ms: int, cells: int, *, after: bool = False, more: bool = False
) -> tuple[str, list[BarLine]]:
    """The head and the lines of a waterfall, `cells` wide; open bars reach to `now_ms`, which is
    counted from the beginning of the run.

    Of a page of rows it is the time of these: `after` says that there are rows before it, `more`
    that there are some behind it. What is open may be answered in those, so no bar is drawn.
    """
    spans = list(zip(found.start_ms, found.took_ms, strict=True))
    open_ms = _last_ms(found) if more else now_ms
    ends = [open_ms if took is None else start + took for start, took in spans]
    begin_ms = min(found.start_ms, default=0) if after else 0
    axis = Axis(max([*ends, begin_ms + 1]), found.idle, cells, begin_ms)
    return axis.header(), [_line(found, group, ends, axis, more) for group in _groups(found)]


def _last_ms(found: Waterfall) -> int:
    """The newest time that the rows say."""
    tries = (one.start_ms + one.took_ms for each in found.tries.values() for one in each)
    spans = zip(found.start_ms, found.took_ms, strict=True)
    return max([*tries, *(start + (took or 0) for start, took in spans)], default=0)


def _groups(found: Waterfall) -> Iterator[list[int]]:
    """Bars one by one, and many equal neighbours together."""
    group: list[int] = []
    for bar in range(len(found.seq)):
        plain = found.status[bar] in _WELL and found.seq[bar] not in found.tries
        if group and plain and _alike(found, group[0], bar):
            group.append(bar)
            continue
        yield from _folded(group)
        group = [bar]
        if not plain:
            yield group
            group = []
    yield from _folded(group)


def _alike(found: Waterfall, one: int, other: int) -> bool:
    return found.name[one] == found.name[other] and found.kind[one] == found.kind[other]


def _folded(group: list[int]) -> Iterator[list[int]]:
    if len(group) > FOLD_OVER:
        yield group
    else:
        yield from ([bar] for bar in group)


def _line(
    found: Waterfall, group: list[int], ends: Sequence[int], axis: Axis, more: bool
) -> BarLine:
    cells = axis.background()
    for bar in group:
        _draw(cells, found, bar, ends[bar], axis, more)
    first = group[0]
    name = found.names[found.name[first]]
    state = found.status[first]
    if state == "open" and more:
        state = "later"
    elif state == "open" and found.seq[first] in found.tries:
        state = "retrying"
    times = [ms for bar in group if (ms := found.took_ms[bar]) is not None]
    took = format.duration(max(times)) if times and found.status[first] else ""
    if len(group) > 1:
        name, took = f"{name} ×{len(group):,}", f"≤ {took}" if took else ""
    return BarLine(found.seq[first], name, state, "".join(cells).rstrip(), took)


def _draw(
    cells: list[str], found: Waterfall, bar: int, end_ms: int, axis: Axis, more: bool
) -> None:
    start_ms, status, kind = found.start_ms[bar], found.status[bar], found.kind[bar]
    if not status:
        _fill(cells, axis.at(start_ms), axis.at(start_ms), POINT)
        return
    tries = found.tries.get(found.seq[bar], ())
    waits = kind in ("timer", "child") or bool(tries)
    work = WAITS if waits else OPEN if status == "open" else DONE
    if status == "open" and more:
        _fill(cells, axis.at(start_ms), axis.at(start_ms), LATER)
    else:
        _fill(cells, axis.at(start_ms), axis.at(end_ms), work)
    for one in tries:
        _fill(cells, axis.at(one.start_ms), axis.at(one.start_ms + one.took_ms), TRY, FAILED)
    if tries and status != "open":
        worked_ms = found.work_ms.get(bar, end_ms - start_ms)
        _fill(cells, axis.at(end_ms - worked_ms), axis.at(end_ms), DONE)
    if status == ev.FAILED:
        _fill(cells, axis.at(end_ms), axis.at(end_ms), FAILED)


def _fill(cells: list[str], start: float, end: float, mark: str, last: str = "") -> None:
    first = min(int(start), len(cells) - 1)
    until = min(round(end), len(cells))
    if until - first < 1:
        cells[first] = last or (THIN if mark == DONE else mark)
        return
    cells[first:until] = mark * (until - first)
    if last:
        cells[until - 1] = last


def _put(line: list[str], at: int, text: str) -> None:
    """Write a text where there is room for it."""
    end = at + len(text)
    if end < len(line) and all(cell == " " for cell in line[at : end + 1]):
        line[at:end] = text
