"""A history as people read it: one entry for each thing that was asked for, with what came of it
beneath.

Rules: rows are shown in their order, answers under the command that they answer; long stretches of
the same step are folded unless everything is asked for; nothing that failed is ever folded away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from perdure.cli import traces
from perdure.cli.output import as_lines, style
from perdure.codec.frames import place
from perdure.process.interpreter import PYTHON, is_other
from perdure.runtime.info import HistoryEvent, RunInfo, moment
from perdure.views import format
from perdure.views.waiting import needs

FOLD_OVER = 12
FOLD_HEAD = 3
NARROW = 72
"""Columns; with fewer a line has no room to say how long after the start of the run it was."""
_ANSWERS = frozenset({"completed", "failed", "fired", "abandon", "attempt"})


@dataclass
class Entry:
    """A row that stands for itself, with the rows that answer it."""

    row: HistoryEvent
    answers: list[HistoryEvent] = field(default_factory=list)

    @property
    def end(self) -> HistoryEvent | None:
        return next(
            (
                row
                for row in self.answers
                if row.kind in ("completed", "failed", "fired", "abandon")
            ),
            None,
        )

    @property
    def foldable(self) -> bool:
        plain = all(
            row.kind == "completed" or (row.kind == "attempt" and _no_failure(row))
            for row in self.answers
        )
        return self.row.kind in ("step", "child", "emit") and plain

    @property
    def mark(self) -> str:
        end = self.end
        if end is not None:
            return _MARKS[end.kind]
        return _MARKS.get(self.row.kind, " ")


_MARKS = {
    "completed": style("✓", "green"),
    "failed": style("✗", "red"),
    "fired": style("✓", "green"),
    "abandon": style("-", "magenta"),
} | dict.fromkeys(("step", "child", "spawn", "send"), style("…", "yellow"))
"""How it ended, or what is still open; a timer that has not fired may as well have been dropped, so
it gets none.
"""


# --- a run ----------------------------------------------------------------------------------------


def header(info: RunInfo, limit: int | None) -> list[str]:
    """Who the run is: id, call, status, times, tags, where it comes from."""
    begun = info.started_at or info.created_at
    until = info.ended_at or datetime.now(UTC)
    found = [
        style(info.id, "bold") + "  " + format.status(info.status),
        f"  {info.workflow}({format.arguments(info.args, limit)})",
        (
            f"  started {format.clock(begun)}, {'took' if info.ended_at else 'for'} "
            f"{format.between(begun, until)}"
        ),
    ]
    if info.tags:
        found.append(
            "  tags: " + ", ".join(f"{key}={format.value(item)}" for key, item in info.tags.items())
        )
    if info.parent:
        found.append(f"  child of {info.parent}")
    if is_other(info.python) and info.ended_at is None:
        found.append(f"  executed by Python {info.python}, this is {PYTHON}")
    if info.forked_from:
        found.append(f"  forked from {info.forked_from}")
    return found


def body(
    info: RunInfo, history: list[HistoryEvent], full: bool, room: int | None = None
) -> list[str]:
    """The entries in order, and how it stands or ended, on lines of so many columns."""
    begun = history[0].at if history else info.created_at
    groups = [[entry] for entry in entries(history)] if full else folded(entries(history))
    narrow = room is not None and room < NARROW
    limit = None if full else format.fitting(90, room, 20 if narrow else 36)
    found: list[str] = []
    for group in groups:
        if len(group) == 1:
            found += entry_lines(group[0], begun, limit, narrow=narrow)
        else:
            found.append(
                style(f"{'⋮':>6}  {'' if narrow else '            '}{_folded_text(group)}", "dim")
            )
    return [*found, *ending(info, None if full else 200)]


def ending(info: RunInfo, limit: int | None = 200) -> list[str]:
    """The last lines: the result, the error, or what it waits for."""
    label = format.status(info.status)
    match info.status:
        case "completed":
            return [f"{label} → {format.value(info.result, limit)}"]
        case "failed":
            return [f"{label}: {format.error_line(info.error)}", *traces.trace(info.error)]
        case _:
            note = needs(info)
            return as_lines(f"{label}: {note}") if note else [label]


def entries(history: Iterable[HistoryEvent]) -> list[Entry]:
    """Rows grouped by what they answer; the end of the run is told by `ending`."""
    found: dict[int, Entry] = {}
    for row in history:
        if row.kind in _ANSWERS and row.ref in found:
            found[row.ref].answers.append(row)
        elif row.kind != "finish":
            found[row.seq] = Entry(row)
    return list(found.values())


def folded(all_entries: list[Entry]) -> Iterator[list[Entry]]:
    """Entries one by one, and the middle of a long stretch of the same step as one group."""
    stretch: list[Entry] = []
    for entry in [*all_entries, None]:
        if entry is not None and entry.foldable and (not stretch or _alike(entry, stretch[0])):
            stretch.append(entry)
            continue
        yield from _fold(stretch)
        stretch = [entry] if entry is not None and entry.foldable else []
        if entry is not None and not entry.foldable:
            yield [entry]


def _alike(one: Entry, other: Entry) -> bool:
    return (one.row.kind, one.row.name) == (other.row.kind, other.row.name)


def _fold(stretch: list[Entry]) -> Iterator[list[Entry]]:
    if len(stretch) <= FOLD_OVER:
        yield from ([entry] for entry in stretch)
        return
    yield from ([entry] for entry in stretch[:FOLD_HEAD])
    yield stretch[FOLD_HEAD:-1]
    yield [stretch[-1]]


def _folded_text(group: list[Entry]) -> str:
    ended = [entry.end for entry in group if entry.end is not None]
    times = [row.took_ms for row in ended if row.took_ms is not None]
    text = f"{len(group):,} more of {group[0].row.name}"
    if group[0].row.kind != "emit":
        text += f": {len(ended):,} completed"
        text += f", {len(group) - len(ended):,} open" if len(ended) < len(group) else ""
    text += f", {format.duration(sum(times) / len(times))} on average" if times else ""
    return f"{text} (rows {group[0].row.seq} to {group[-1].row.seq}; --full shows them)"


# --- an entry -------------------------------------------------------------------------------------


def entry_lines(
    entry: Entry, begun: datetime, limit: int | None, *, narrow: bool = False
) -> list[str]:
    row, end = entry.row, entry.end
    offset = "" if narrow else style(f"+{format.between(begun, row.at)}".rjust(10) + "  ", "dim")
    first = f"{row.seq:>6}  {offset}{entry.mark} {title(row, limit)}"
    if end is not None and end.took_ms is not None:
        first += style(f"  {format.duration(end.took_ms)}", "dim")
    beneath = [text for answer in entry.answers if (text := _answer(answer, limit))]
    indent = " " * (10 if narrow else 22)
    return [
        first,
        *(
            f"{indent}{'└' if i == len(beneath) else '├'} {text}"
            for i, text in enumerate(beneath, 1)
        ),
    ]


def title(row: HistoryEvent, limit: int | None = 90) -> str:
    """A row that stands for itself, on one line."""
    data = row.data if isinstance(row.data, dict) else {}
    match row.kind:
        case "step":
            return f"{row.name}({format.arguments(row.args, limit)})"
        case "child" | "spawn":
            verb = "child" if row.kind == "child" else "started"
            run_id = f" as {data['id']}" if data.get("id") else ""
            return (
                f"{verb} "
                f"{row.name}({format.arguments(row.args or data.get('args'), limit)}){run_id}"
            )
        case "timer":
            return f"timer until {_when(data.get('until_ms'))}"
        case "send":
            return (
                f"sent to {row.name}, channel {data.get('channel')}: "
                f"{format.value(data.get('value'), limit)}"
            )
        case "message":
            return f"← message on {row.name}: {format.value(_payload(row), limit)}"
        case "emit":
            return f"emitted to {row.name}: {format.value(_payload(row), limit)}"
        case "tag":
            return f"tagged {format.arguments(_payload(row), limit)}"
        case "patch":
            return f"took the new path of {row.name}"
        case "reject":
            return f"refused the message on {row.name}: {_payload(row)}"
        case "cancel":
            return "← cancel"
        case "attempt":
            return _note(row.name, data)
        case _:
            return " ".join(part for part in (row.kind, row.name) if part)


def _note(name: str | None, data: dict[str, Any]) -> str:
    """What a note about the whole run says."""
    if data.get("taken_back"):
        return "what ended the run stood here; a retry has taken it back"
    if data.get("retry"):
        return f"retry {data['retry']}: what stands above was kept"
    if name:
        return f"forked: what stands above is of {name}"
    return (
        "the process died"
        if data.get("crash")
        else "let go before a step began"
        if data.get("released")
        else "note"
    )


def _answer(row: HistoryEvent, limit: int | None) -> str:
    match row.kind:
        case "completed":
            return "" if row.result is None else format.value(row.result, limit)
        case "failed":
            return style(format.error_line(row.error), "red") + _place(row)
        case "attempt":
            if (word := _resolution(row)) is not None:
                return word
            if isinstance(row.data, dict) and row.data.get("began") is True:
                return f"attempt {row.attempt} began"
            at = f" at {format.clock(row.began_at)}" if row.began_at is not None else ""
            which = f"attempt {row.attempt}{at}: " if row.attempt else "attempt: "
            took = f"  {format.duration(row.took_ms)}" if row.took_ms is not None else ""
            error = format.error_line(row.error or _payload(row))
            return f"{which}{error}{_place(row)}{style(took, 'dim')}"
        case "abandon":
            return "cancelled"
        case _:
            return ""


def _place(row: HistoryEvent) -> str:
    """The line of the user's code that an error came from."""
    return style(f"  ({found})", "dim") if (found := place(row.error)) else ""


def _resolution(row: HistoryEvent) -> str | None:
    """What a note says that is about no attempt."""
    word = row.data.get("resolved") if isinstance(row.data, dict) else None
    return {
        "held": "",
        "retry": "a person said: try again",
        "too late": "a person's answer came too late",
    }.get(str(word))


def _no_failure(row: HistoryEvent) -> bool:
    """Whether an attempt was cut off from outside, or never was one."""
    return isinstance(row.data, dict) and ("resolved" in row.data or bool(row.data.get("crash")))


def _payload(row: HistoryEvent) -> Any:
    """What a row carries, wherever its kind keeps it."""
    return next((thing for thing in (row.data, row.result, row.args) if thing is not None), None)


def _when(ms: Any) -> str:
    if not isinstance(ms, int | float):
        return "?"
    return "never" if (at := moment(int(ms))) is None else format.clock(at)


# --- rows -----------------------------------------------------------------------------------------


def live_line(row: HistoryEvent, names: dict[int, HistoryEvent]) -> str:
    """One row of a history as it comes in."""
    time = row.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    return f"{style(time, 'dim')} {row.seq:>5}  {_live_text(row, names)}"


def _live_text(row: HistoryEvent, names: dict[int, HistoryEvent]) -> str:
    if row.kind == "finish":
        return format.status(row.name or "finished")
    if row.kind not in _ANSWERS:
        return f"  {title(row)}"
    asked = names.get(row.ref or 0)
    what = f"{asked.name or asked.kind} (row {row.ref})" if asked is not None else f"row {row.ref}"
    took = (
        f"  {format.duration(row.took_ms)}"
        if row.took_ms is not None and row.kind != "attempt"
        else ""
    )
    answer = _answer(row, 70)
    return f"{_MARKS.get(row.kind, '↻')} {what}{': ' if answer else ''}{answer}{style(took, 'dim')}"


def row_in_full(row: HistoryEvent) -> list[str]:
    """One row with everything that it holds."""
    answers = f", answers row {row.ref}" if row.ref is not None else ""
    found = [
        style(f"row {row.seq}: {row.kind} {row.name or ''}".rstrip(), "bold") + answers,
        f"at {format.clock(row.at)}",
    ]
    if row.attempt is not None:
        found.append(f"attempt {row.attempt}")
    if row.took_ms is not None:
        found.append(f"took {format.duration(row.took_ms)}")
    things = ((label, getattr(row, label)) for label in ("args", "result", "error", "data"))
    for label, thing in things:
        if thing is not None:
            found += [f"{label}:", *(_error_in_full if label == "error" else _pretty)(thing)]
    return found


def _error_in_full(error: Any) -> list[str]:
    text = traces.trace(error)
    return [*_pretty(traces.without_frames(error)), *text] if text else _pretty(error)


def _pretty(thing: Any) -> list[str]:
    return as_lines(
        msgspec.json.format(msgspec.json.encode(thing, enc_hook=str), indent=2).decode()
    )
