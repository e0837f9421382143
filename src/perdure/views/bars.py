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
_WELL = frozenset({"completed", "fired", ""})


class BarLine(msgspec.Struct, frozen=True):
    """A line of a waterfall: `cells` is the drawing, `name` says how many are folded into it;
    `state` is that of `Waterfall.status`, or `retrying`; `took` is how long it took, of several the
    longest.
    """

    seq: int
    name: str
    state: str
    cells: str
    took: str


class Axis:
    """Milliseconds of a run as cells of a line; idle stretches take a few cells each."""

    def __init__(self, end_ms: int, idle: Sequence[tuple[int, int]], cells: int) -> None:
        idle = list(idle)
        while idle and cells - IDLE_CELLS * len(idle) < CELLS_MIN:
            idle.pop(min(range(len(idle)), key=lambda one: idle[one][1] - idle[one][0]))
        self.cells, self.idle = max(cells, CELLS_MIN), idle
        worked_ms = end_ms - sum(end - start for start, end in idle)
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
        return min((ms - skipped) / self._a_cell_ms + cells, float(self.cells))

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
        return format.duration(round(high)) if cell else "0"

    def background(self) -> list[str]:
        """A line without a bar."""
        line = [" "] * self.cells
        for start, _ in self.idle:
            at = round(self.at(start))
            line[at : at + IDLE_CELLS] = IDLE * min(IDLE_CELLS, self.cells - at)
        return line


def lines(found: Waterfall, now_ms: int, cells: int) -> tuple[str, list[BarLine]]:
    """The head and the lines of a waterfall, `cells` wide; open bars reach to `now_ms`, which is
    counted from the beginning of the run.
    """
    spans = zip(found.start_ms, found.took_ms, strict=True)
    ends = [now_ms if took is None else start + took for start, took in spans]
    axis = Axis(max([*ends, 1]), found.idle, cells)
    return axis.header(), [_line(found, group, ends, axis) for group in _groups(found)]


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


def _line(found: Waterfall, group: list[int], ends: Sequence[int], axis: Axis) -> BarLine:
    cells = axis.background()
    for bar in group:
        _draw(cells, found, bar, ends[bar], axis)
    first = group[0]
    name = found.names[found.name[first]]
    state = found.status[first]
    if state == "open" and found.seq[first] in found.tries:
        state = "retrying"
    times = [ms for bar in group if (ms := found.took_ms[bar]) is not None]
    took = format.duration(max(times)) if times and found.status[first] else ""
    if len(group) > 1:
        name, took = f"{name} ×{len(group):,}", f"≤ {took}" if took else ""
    return BarLine(found.seq[first], name, state, "".join(cells).rstrip(), took)


def _draw(cells: list[str], found: Waterfall, bar: int, end_ms: int, axis: Axis) -> None:
    start_ms, status, kind = found.start_ms[bar], found.status[bar], found.kind[bar]
    if not status:
        _fill(cells, axis.at(start_ms), axis.at(start_ms), POINT)
        return
    tries = found.tries.get(found.seq[bar], ())
    waits = kind in ("timer", "child") or bool(tries)
    work = WAITS if waits else OPEN if status == "open" else DONE
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
