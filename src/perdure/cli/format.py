"""Statuses, tables and timelines as lines for a terminal, with colours.

Rules: pure functions; a width is what a terminal needs, not a number of characters; ids are never
cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.cli.output import style, width
from perdure.core import lifecycle
from perdure.runtime.info import RunInfo
from perdure.views import format as text
from perdure.views import rows
from perdure.views.timeline import Answer, Line
from perdure.views.waiting import NO_PLACES, Places

COLOURS = {
    "completed": "green",
    lifecycle.RUNNING: "cyan",
    lifecycle.PENDING: "cyan",
    lifecycle.WAITING: "yellow",
    lifecycle.PAUSED: "yellow",
    lifecycle.BLOCKED: "red",
    "failed": "red",
    lifecycle.CANCELLED: "magenta",
}


MARKS = {
    "completed": style("✓", "green"),
    "fired": style("✓", "green"),
    "failed": style("✗", "red"),
    "abandon": style("-", "magenta"),
    "open": style("…", "yellow"),
    "later": style("⋮", "dim"),
    "attempt": "↻",
}
"""What became of an entry; a timer that has not fired may as well have been dropped, so it gets
none.
"""


def status(word: str) -> str:
    """A status in its colour."""
    return style(word, COLOURS.get(word))


def fitting(most: int, room: int | None, used: int) -> int:
    """How many characters of a line of `room` columns are left for a text, `most` at most; a few in
    any case.
    """
    return most if room is None else min(most, max(room - used, 20))


def cut(text: str, limit: int) -> str:
    """Text that needs `limit` columns at most."""
    if width(text) <= limit:
        return text
    text = text[: 2 * limit]
    while width(text) >= limit:
        text = text[:-1]
    return text + "…"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table with aligned columns."""
    table = [[style(cell, "bold") if cell else "" for cell in head], *rows]
    widths = [max(width(line[i]) for line in table) for i in range(len(head))]
    return [
        "  ".join(pad(cell, room) for cell, room in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]


def pad(cell: str, room: int) -> str:
    """A cell with spaces up to `room` columns."""
    return cell + " " * (room - width(cell))


# --- timelines ------------------------------------------------------------------------------------


def timeline(lines: Sequence[Line], *, narrow: bool = False) -> list[str]:
    """Entries and what came of them; narrow lines have no room for times since the start."""
    return [out for line in lines for out in _entry(line, narrow)]


def _entry(line: Line, narrow: bool) -> list[str]:
    if line.folded:
        return [style(f"{'⋮':>6}  {'' if narrow else ' ' * 12}{line.text}", "dim")]
    offset = "" if narrow else style(f"+{text.duration(line.after_ms)}".rjust(10) + "  ", "dim")
    first = f"{line.seq:>6}  {offset}{MARKS.get(line.state, ' ')} {line.text}{_took(line.took_ms)}"
    indent = " " * (10 if narrow else 22)
    last = len(line.answers)
    return [
        first,
        *(
            f"{indent}{'└' if number == last else '├'} {_answer(one)}"
            for number, one in enumerate(line.answers, 1)
        ),
    ]


def _answer(answer: Answer) -> str:
    shown = style(answer.text, "red") if answer.kind == "failed" else answer.text
    place = style(f"  ({answer.place})", "dim") if answer.place else ""
    return f"{shown}{place}{_took(answer.took_ms)}"


def _took(ms: int | None) -> str:
    return "" if ms is None else style(f"  {text.duration(ms)}", "dim")


def log_line(line: Line, time: str) -> str:
    """A row as it comes in."""
    if line.state == "finish":
        return f"{style(time, 'dim')} {line.seq:>5}  {status(line.text)}"
    mark = MARKS.get(line.state, " ")
    return f"{style(time, 'dim')} {line.seq:>5}  {mark} {line.text}{_took(line.took_ms)}"


def ending(run: RunInfo, limit: int | None = 200, places: Places = NO_PLACES) -> list[str]:
    """The last lines of a run: its status, and its result, its error or what it waits for."""
    first, *rest = rows.ending(run, limit, places)
    return [status(run.status) + first, *rest]
