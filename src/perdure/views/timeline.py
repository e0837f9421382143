"""Timelines of runs: an entry for each row that answers no other, with the rows that answer it.

Rules: entries are in the order of their rows, answers below the row that they answer; a long
stretch of equal steps is folded unless everything is asked for, and a failure is never folded; a
page knows that answers may be behind it. Texts are lines without colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

from perdure.codec.frames import place
from perdure.core import lifecycle
from perdure.runtime.info import HistoryEvent, moment
from perdure.views import format, traces

FOLD_OVER = 12
FOLD_HEAD = 3
_ENDS = frozenset({"completed", "failed", "fired", "abandon"})
_ANSWERS = _ENDS | {"attempt"}
_OPEN = frozenset({"step", "child", "spawn", "send"})


class Entry(msgspec.Struct):
    """A row that answers no other, with the rows that answer it."""

    row: HistoryEvent
    answers: list[HistoryEvent] = msgspec.field(default_factory=list)

    @property
    def end(self) -> HistoryEvent | None:
        """The answer that ends it; None while it is open."""
        return next((row for row in self.answers if row.kind in _ENDS), None)

    @property
    def foldable(self) -> bool:
        """Whether it ended as expected, or is still open without a failure."""
        plain = all(
            row.kind == "completed" or (row.kind == "attempt" and _no_failure(row))
            for row in self.answers
        )
        return self.row.kind in ("step", "child", "emit") and plain


class Answer(msgspec.Struct, frozen=True):
    """What came of an entry; `place` is the line of the user's code that raised an error."""

    kind: str
    text: str
    place: str = ""
    took_ms: int | None = None


class Line(msgspec.Struct, frozen=True):
    """An entry as text; or, where `folded` is not 0, so many equal ones.

    `state` is the kind of what ended it (completed, failed, fired, abandon), `open`, `later` where
    its answer may be behind the page, or empty where nothing answers it.
    """

    seq: int
    state: str
    text: str
    after_ms: int
    took_ms: int | None = None
    answers: list[Answer] = []
    folded: int = 0


def lines(
    history: Sequence[HistoryEvent],
    begun: datetime,
    *,
    full: bool = False,
    limit: int | None = 90,
    more: bool = False,
) -> list[Line]:
    """The entries of a history, or of a page of it behind which there is `more`; texts are cut to
    `limit` characters.
    """
    found = entries(history)
    groups = ([entry] for entry in found) if full else folded(found)
    return [
        _line(group[0], begun, limit, more=more) if len(group) == 1 else _fold_line(group, begun)
        for group in groups
    ]


def entries(history: Iterable[HistoryEvent]) -> list[Entry]:
    """Rows grouped by what they answer; the end of the run is none of them."""
    found: dict[int, Entry] = {}
    for row in history:
        if row.kind in _ANSWERS and row.ref in found:
            found[row.ref].answers.append(row)
        elif row.kind != "finish":
            found[row.seq] = Entry(row)
    return list(found.values())


# --- folding --------------------------------------------------------------------------------------


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


def _fold_line(group: list[Entry], begun: datetime) -> Line:
    first = group[0].row
    ended = [entry.end for entry in group if entry.end is not None]
    times = [row.took_ms for row in ended if row.took_ms is not None]
    text = f"{len(group):,} more of {first.name}"
    if first.kind != "emit":
        text += f": {len(ended):,} completed"
        text += f", {len(group) - len(ended):,} open" if len(ended) < len(group) else ""
    text += f", {format.duration(sum(times) / len(times))} on average" if times else ""
    text += f" (rows {first.seq} to {group[-1].row.seq}; --full shows them)"
    return Line(first.seq, "", text, _after_ms(begun, first), folded=len(group))


# --- an entry -------------------------------------------------------------------------------------


def _line(entry: Entry, begun: datetime, limit: int | None, *, more: bool) -> Line:
    row, end = entry.row, entry.end
    answers = [one for answer in entry.answers if (one := answer_of(answer, limit)).text]
    state = _state(row, end, more=more)
    took_ms = None if end is None else end.took_ms
    if row.kind in _ANSWERS and row.ref is not None:  # what it answers is on an earlier page
        took_ms, answers = row.took_ms, []
    return Line(row.seq, state, title(row, limit), _after_ms(begun, row), took_ms, answers)


def _state(row: HistoryEvent, end: HistoryEvent | None, *, more: bool) -> str:
    if end is not None:
        return end.kind
    if row.kind in _OPEN:
        return "later" if more and row.kind in ("step", "child") else "open"
    return row.kind if row.kind in _ENDS else ""


def _after_ms(begun: datetime, row: HistoryEvent) -> int:
    return round((row.at - begun).total_seconds() * 1_000)


def title(row: HistoryEvent, limit: int | None = 90) -> str:
    """A row as the title of an entry, on one line."""
    data = row.data if isinstance(row.data, dict) else {}
    match row.kind:
        case "step":
            return f"{row.name}({format.arguments(row.args, limit)})"
        case "child" | "spawn":
            verb = "child" if row.kind == "child" else "started"
            run_id = f" as {data['id']}" if data.get("id") else ""
            args = format.arguments(row.args or data.get("args"), limit)
            return f"{verb} {row.name}({args}){run_id}"
        case "timer":
            return f"timer until {_when(data.get('until_ms'))}"
        case "send" | "message" | "emit" | "request" | "reply" | "refuse" | "reject":
            return _mail_title(row, data, limit)
        case "expose":
            return f"exposed {row.name}: {format.value(_payload(row), limit)}"
        case "tag":
            return f"tagged {format.arguments(_payload(row), limit)}"
        case "patch":
            return f"took the new path of {row.name}"
        case "cancel":
            return "← cancel"
        case _ if row.kind in _ANSWERS and row.ref is not None:
            return _answer_title(row, limit)
        case "attempt":
            return _note(row.name, data)
        case _:
            return " ".join(part for part in (row.kind, row.name) if part)


def _mail_title(row: HistoryEvent, data: dict[str, Any], limit: int | None) -> str:
    """What was sent, or has arrived, or was said to what has arrived."""
    match row.kind:
        case "send":
            value = format.value(data.get("value"), limit)
            return f"sent to {row.name}, channel {data.get('channel')}: {value}"
        case "message" | "emit":
            verb = "← message on" if row.kind == "message" else "emitted to"
            by = f" from {row.sender}" if row.sender else ""
            return f"{verb} {row.name}{by}: {format.value(_payload(row), limit)}"
        case "request":
            value = format.value(data.get("value"), limit)
            return f"← request on {row.name} from {data.get('sender')}: {value}"
        case "reply":
            return f"replied to row {row.ref}: {format.value(_payload(row), limit)}"
        case "refuse":
            return f"refused row {row.ref}: {_payload(row)}"
        case _:
            what = "message" if row.ref is None else f"request in row {row.ref}"
            return f"refused the {what} on {row.name}: {_payload(row)}"


def _answer_title(row: HistoryEvent, limit: int | None) -> str:
    """An answer with the name of what it answers."""
    what = f"row {row.ref}" if row.of is None else f"{row.of} (row {row.ref})"
    text = answer_of(row, limit).text
    return f"{what}{': ' if text else ''}{text}"


def _note(name: str | None, data: dict[str, Any]) -> str:
    """What a note about the whole run says."""
    if data.get("taken_back"):
        return "what ended the run was here; a retry has taken it back"
    if data.get("retry"):
        return f"retry {data['retry']}: the rows above were kept"
    if name:
        return f"forked: the rows above are of {name}"
    if data.get("crash"):
        return "the process died"
    return "released before a step began" if data.get("released") else "note"


# --- an answer ------------------------------------------------------------------------------------


def answer_of(row: HistoryEvent, limit: int | None) -> Answer:
    """What a row says about the one that it answers; the text may be empty."""
    match row.kind:
        case "completed":
            return Answer(row.kind, "" if row.result is None else format.value(row.result, limit))
        case "failed":
            return Answer(row.kind, format.error_line(row.error), place(row.error))
        case "attempt":
            return _attempt(row)
        case "abandon":
            return Answer(row.kind, lifecycle.CANCELLED)
        case _:
            return Answer(row.kind, "")


def _attempt(row: HistoryEvent) -> Answer:
    if (text := _resolution(row)) is not None:
        return Answer(row.kind, text)
    if isinstance(row.data, dict) and row.data.get("began") is True:
        early = " early, as asked for" if row.data.get("now") else ""
        by = f" by {row.sender}" if early and row.sender else ""
        return Answer(row.kind, f"attempt {row.attempt} began{early}{by}")
    at = f" at {format.clock(row.began_at)}" if row.began_at is not None else ""
    which = f"attempt {row.attempt}{at}: " if row.attempt else "attempt: "
    error = format.error_line(row.error or _payload(row))
    return Answer(row.kind, f"{which}{error}", place(row.error), row.took_ms)


def _resolution(row: HistoryEvent) -> str | None:
    """What a note says that is about no attempt."""
    if isinstance(row.data, dict) and "declined" in row.data:
        return f"a result that was given was not taken: {row.data['declined']}"
    how = row.data.get("resolved") if isinstance(row.data, dict) else None
    return {
        "held": "",
        "retry": "resolved: try again",
        "too late": "a resolution came too late",
    }.get(str(how))


def _no_failure(row: HistoryEvent) -> bool:
    """Whether an attempt was cut off from outside, or never was one."""
    return isinstance(row.data, dict) and ("resolved" in row.data or bool(row.data.get("crash")))


def _payload(row: HistoryEvent) -> Any:
    """What a row holds, wherever its kind stores it."""
    return next((thing for thing in (row.data, row.result, row.args) if thing is not None), None)


def _when(ms: Any) -> str:
    if not isinstance(ms, int | float):
        return "?"
    return "never" if (at := moment(int(ms))) is None else format.clock(at)


# --- rows -----------------------------------------------------------------------------------------


def log_line(row: HistoryEvent, limit: int | None = 70) -> Line:
    """One row by itself, as a log shows it when it comes in: an answer names what it answers."""
    if row.kind == "finish":
        return Line(row.seq, "finish", row.name or "finished", 0)
    if row.kind not in _ANSWERS or row.ref is None:
        return Line(row.seq, "", title(row), 0)
    found = answer_of(row, limit)
    took_ms = row.took_ms if row.kind != "attempt" else found.took_ms
    text = _answer_title(row, limit) + (f"  ({found.place})" if found.place else "")
    return Line(row.seq, row.kind, text, 0, took_ms)


def row_in_full(row: HistoryEvent) -> list[str]:
    """One row with everything that it holds; the first line says which it is."""
    answers = f", answers row {row.ref}" if row.ref is not None else ""
    found = [
        f"row {row.seq}: {row.kind} {row.name or ''}".rstrip() + answers,
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
    raw = msgspec.json.format(msgspec.json.encode(thing, enc_hook=str), indent=2)
    return raw.decode().split("\n")
