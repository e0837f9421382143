"""Schedules as text: cron lines in words.

Rules: only what is common has words; everything else is shown as it is written, never guessed.
"""

from __future__ import annotations

import re

_DAYS = {
    "0": "Sunday", "1": "Monday", "2": "Tuesday", "3": "Wednesday", "4": "Thursday", "5": "Friday",
    "6": "Saturday", "7": "Sunday", "sun": "Sunday", "mon": "Monday", "tue": "Tuesday",
    "wed": "Wednesday", "thu": "Thursday", "fri": "Friday", "sat": "Saturday",
}  # fmt: skip
_WORDS = {
    "@yearly": "every year on January 1 at 00:00",
    "@annually": "every year on January 1 at 00:00",
    "@monthly": "on day 1 of every month at 00:00",
    "@weekly": "every Sunday at 00:00",
    "@daily": "every day at 00:00",
    "@midnight": "every day at 00:00",
    "@hourly": "every hour",
}
_UNITS = {"d": "day", "h": "hour", "m": "minute", "s": "second", "ms": "millisecond"}
_EVERY = re.compile(r"@every (\d+)(d|h|ms|m|s)(?:/(\d+(?:d|h|ms|m|s)))?")
_STEP = re.compile(r"\*/(\d+)")


def when_text(when: str) -> str | None:
    """The times of a schedule in words; None where a cron line has none.

    >>> when_text("30 2 * * *"), when_text("0 7 * * mon-fri"), when_text("*/5 * * * *")
    ('every day at 02:30', 'Monday to Friday at 07:00', 'every 5 minutes')
    >>> when_text("@every 15m/1m"), when_text("15 10 1-7 * 0") is None
    ('every 15 minutes, 1m after', True)
    """
    if when in _WORDS:
        return _WORDS[when]
    if every := _EVERY.fullmatch(when):
        offset = f", {every[3]} after" if every[3] else ""
        return f"every {_count(int(every[1]), _UNITS[every[2]])}{offset}"
    fields = when.lower().split()
    return _line(*fields) if len(fields) == 5 else None


def _line(minute: str, hour: str, day: str, month: str, weekday: str) -> str | None:
    if month != "*":
        return None
    if hour == "*" and day == weekday == "*":
        return _within_hour(minute)
    if not (minute.isdecimal() and hour.isdecimal()):
        return None
    at = f"at {int(hour):02}:{int(minute):02}"
    if day == weekday == "*":
        return f"every day {at}"
    if day == "*":
        days = _weekdays(weekday)
        return None if days is None else f"{days} {at}"
    return f"on day {day} of every month {at}" if day.isdecimal() and weekday == "*" else None


def _within_hour(minute: str) -> str | None:
    if minute == "*":
        return "every minute"
    if (step := _STEP.fullmatch(minute)) and int(step[1]) and 60 % int(step[1]) == 0:
        return f"every {_count(int(step[1]), 'minute')}"
    return f"every hour at :{int(minute):02}" if minute.isdecimal() else None


def _weekdays(text: str) -> str | None:
    first, dash, last = text.partition("-")
    if dash:
        both = first in _DAYS and last in _DAYS
        return f"{_DAYS[first]} to {_DAYS[last]}" if both else None
    days = text.split(",")
    if not all(day in _DAYS for day in days):
        return None
    return f"every {', '.join(_DAYS[day] for day in days)}"


def _count(number: int, unit: str) -> str:
    return unit if number == 1 else f"{number} {unit}s"
