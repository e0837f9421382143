"""Times, durations, values and errors as human-readable text.

Rules: pure functions; one line each; no colours, and no terminal: lengths are characters.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from perdure.runtime.info import ErrorHead

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def sentence(text: str) -> str:
    """A remark as a line of its own.

    >>> sentence("the replica has everything")
    'The replica has everything.'
    """
    return text[0].upper() + text[1:] + "."


def clock(at: datetime | None) -> str:
    """A time in the reader's own zone."""
    return "" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def clock_near(at: datetime, now: datetime) -> str:
    """A time in the reader's own zone, without the date where that is today's."""
    here = at.astimezone()
    return here.strftime("%H:%M:%S") if here.date() == now.astimezone().date() else clock(at)


def ordinal(number: int) -> str:
    """A place in an order: `4th`.

    >>> ordinal(1), ordinal(22), ordinal(113), ordinal(1004)
    ('1st', '22nd', '113th', '1,004th')
    """
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{'th' if number % 100 in (11, 12, 13) else ending}"


def duration(ms: float) -> str:
    """Two units at most: 12 ms, 1.2 s, 3 min 5 s, 2 d 4 h."""
    if ms < 1_000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1_000:.1f} s"
    rest, parts = round(ms / 1_000), []
    for unit, seconds in _UNITS:
        count, rest = divmod(rest, seconds)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def ago(at: datetime, now: datetime) -> str:
    """A time as seen from another: `2 h ago`, `in 3 min`, `now`; whole units, rounded down.

    >>> from datetime import UTC, timedelta
    >>> noon = datetime(2026, 11, 29, 12, tzinfo=UTC)
    >>> ago(noon, noon), ago(noon - timedelta(hours=2.9), noon), ago(noon + timedelta(days=3), noon)
    ('now', '2 h ago', 'in 3 d')
    """
    seconds = int((now - at).total_seconds())
    unit, size = next((pair for pair in _UNITS if abs(seconds) >= pair[1]), ("s", 1))
    if abs(seconds) < 2:
        return "now"
    text = f"{abs(seconds) // size:,} {unit}"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def between(first: datetime, last: datetime) -> str:
    return duration((last - first).total_seconds() * 1_000)


def value(thing: Any, limit: int | None = 60) -> str:
    """A value as JSON on one line, cut to `limit` characters; None is no limit."""
    text = msgspec.json.encode(thing, enc_hook=str).decode()
    if limit is None or len(text) <= limit:
        return text
    size = f"… ({len(text):,} characters)" if limit >= 40 else "…"
    return text[: max(limit - len(size), 20)] + size


def arguments(args: Any, limit: int | None = 80) -> str:
    """The inside of a call's parentheses; where it is too long, the arguments share the room."""
    if not args:
        return ""
    if not isinstance(args, dict):
        return value(args, limit)
    whole = ", ".join(f"{name}={value(item, None)}" for name, item in args.items())
    if limit is None or len(whole) <= limit:
        return whole
    room = limit // len(args) - 3
    text = ", ".join(
        f"{name}={value(item, max(room - len(name), 24))}" for name, item in args.items()
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"


def error_line(error: Any) -> str:
    """A recorded error, or the head of one, as `Type: message`: the first line of its message."""
    if isinstance(error, ErrorHead):
        error = {"type": error.type, "message": error.message, "module": error.module}
    if not isinstance(error, dict):
        return str(error)
    message = str(error.get("message") or "").partition("\n")[0]
    if message and str(error.get("module")).partition(".")[0] == "perdure":
        return message  # our own errors are sentences
    return (
        f"{error.get('type', 'Error')}: {message}" if message else str(error.get("type", "Error"))
    )


def count(number: int, noun: str) -> str:
    """A number of things: `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def bounded(number: int, limit: int) -> str:
    """A count that stops at `limit`: `100,000+` where there are more.

    >>> bounded(100_001, 100_000), bounded(7, 100_000)
    ('100,000+', '7')
    """
    return f"{number:,}" if number <= limit else f"{limit:,}+"
