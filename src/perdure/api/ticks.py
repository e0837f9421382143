"""Times of schedules: cron lines and intervals as instants, in time zones.

Rules: a tick is an instant in whole milliseconds UTC, and the next one is computed from the one
before. cronsim reads a line and walks the times of a clock on a wall; what a zone does to these
times is decided here. A line whose minute and hour both begin without `*` goes by the wall: a time
that a gap leaves out gives one tick right after the gap, a time that comes twice gives one, the
first, and a date that a zone leaves out gives none. Any other line goes by the clock: a tick at
each instant whose time matches, and, where its hours are given, one right after a gap that holds a
match. A search ends after 50 years without a tick.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Protocol

from perdure.core.numbers import shown
from perdure.errors import BadSchedule

LINE_CHARS_MAX = 500
SECOND_MS = 1_000
DAY_MS = 86_400_000
LAST_MS = 250_000_000_000_000
"""In the year 9892: no tick is looked for behind it, because dates end with the year 9999."""

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")
VALUES = ("0-59", "0-59", "0-23", "1-31", "1-12 or JAN-DEC", "0-7 or SUN-SAT")
_EPOCH = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)
_EVERY = re.compile(r"@every (\d+)(ms|s|m|h|d)(?:/(\d+)(ms|s|m|h|d))?")
_ONE_OF_A_RANGE = re.compile(r"\b(\w+)-\1/\d+")
_UNITS_MS = {"ms": 1, "s": SECOND_MS, "m": 60_000, "h": 3_600_000, "d": DAY_MS}


class Ticks(Protocol):
    """The ticks of a schedule."""

    def after(self, ms: int) -> Iterator[int]:
        """The ticks after an instant, in order. It ends where no more are found."""


@lru_cache(maxsize=4_096)
def ticks_of(when: str, tz: str) -> Ticks:
    """The ticks of a cron line, or of `@every 15m`, in a zone. Raises `BadSchedule`."""
    zone = zone_of(tz)
    if when.startswith("@every"):
        return Interval(*interval_of(when))
    return Line(when, zone)


def first_after(ticks: Ticks, ms: int) -> int | None:
    """The next tick, or None where there is none."""
    return next(ticks.after(ms), None)


def clock_text(ticks: Ticks, zone: Zone, before_ms: int, ms: int) -> str:
    """What the clock does between two ticks and at the second, as text; empty where nothing."""
    found = []
    moved = timedelta(milliseconds=zone.offset_ms(ms) - zone.offset_ms(before_ms))
    if moved:
        way = "forward" if moved > timedelta(0) else "back"
        found.append(f"the clock goes {way} by {abs(moved)}")
    at = zone.at(ms)
    if isinstance(ticks, Line) and next(
        ticks.walls(zone.wall(ms) - timedelta(seconds=1))
    ) != zone.wall(ms):
        found.append("its time does not exist there, so it is right after the gap")
    elif at.replace(fold=0).utcoffset() != at.replace(fold=1).utcoffset():
        found.append(f"its time comes twice, and this is the {'second' if at.fold else 'first'}")
    return "; ".join(found)


# --- intervals ------------------------------------------------------------------------------------


class Interval:
    """Ticks at whole multiples of an interval since 1970 UTC, moved by an offset."""

    def __init__(self, interval_ms: int, offset_ms: int) -> None:
        self._interval_ms, self._offset_ms = interval_ms, offset_ms

    def after(self, ms: int) -> Iterator[int]:
        """See `Ticks`."""
        done = (ms - self._offset_ms) // self._interval_ms
        at = (done + 1) * self._interval_ms + self._offset_ms
        while at <= LAST_MS:
            yield at
            at += self._interval_ms


def interval_of(when: str) -> tuple[int, int]:
    """Interval and offset of `@every 90m` or `@every 90m/5m`, in ms. Raises `BadSchedule`."""
    found = _EVERY.fullmatch(" ".join(when.split()))
    if found is None:
        raise BadSchedule(
            "when", f"{shown(when)} is no interval. Write @every 15m, or @every 1h/5m for five "
            "past each hour; units are ms, s, m, h, d."
        )  # fmt: skip
    interval_ms = int(found[1]) * _UNITS_MS[found[2]]
    offset_ms = int(found[3]) * _UNITS_MS[found[4]] if found[3] else 0
    return checked_interval(interval_ms, offset_ms)


def checked_interval(interval_ms: int, offset_ms: int) -> tuple[int, int]:
    """The interval and the offset, if they can be used. Raises `BadSchedule`."""
    if not SECOND_MS <= interval_ms <= 3_660 * DAY_MS:
        raise BadSchedule("when", "an interval is at least a second and at most ten years.")
    if not 0 <= offset_ms < interval_ms:
        raise BadSchedule("offset", "it is at least 0 and less than the interval.")
    return interval_ms, offset_ms


def text_of_interval(interval_ms: int, offset_ms: int) -> str:
    """An interval as `interval_of` reads it.

    >>> text_of_interval(900_000, 60_000)
    '@every 15m/1m'
    """
    return f"@every {_duration(interval_ms)}" + (f"/{_duration(offset_ms)}" if offset_ms else "")


def _duration(ms: int) -> str:
    unit = next(name for name in ("d", "h", "m", "s", "ms") if ms % _UNITS_MS[name] == 0)
    return f"{ms // _UNITS_MS[unit]}{unit}"


# --- cron lines -----------------------------------------------------------------------------------


class Line:
    """The ticks of a cron line in a zone; see the module's text."""

    def __init__(self, when: str, zone: Zone) -> None:
        self.fields = _checked(when)
        # cronsim 2.8 reads 5-5/2 as 5/2, which goes on to the end
        self._text = _ONE_OF_A_RANGE.sub(r"\1", " ".join(self.fields))
        self._zone = zone
        minute, hour = self.fields[-5:-3]
        self._fixed_hours = not hour.startswith("*")
        self._by_wall = zone.fixed or (self._fixed_hours and not minute.startswith("*"))

    def walls(self, after: datetime) -> Iterator[datetime]:
        """The naive times that match, after another one."""
        from cronsim import CronSim

        return iter(CronSim(self._text, after))

    def after(self, ms: int) -> Iterator[int]:
        """See `Ticks`."""
        last_ms = ms
        for at_ms in self._ticks_by_wall(ms) if self._by_wall else self._ticks_by_clock(ms):
            if at_ms > LAST_MS:
                return
            if at_ms > last_ms:  # several times of a gap are one tick
                yield at_ms
                last_ms = at_ms

    def _ticks_by_wall(self, ms: int) -> Iterator[int]:
        zone = self._zone
        for wall in self.walls(zone.wall(ms)):
            at_ms = zone.instant(wall)
            if at_ms is not None:
                yield at_ms

    def _ticks_by_clock(self, ms: int) -> Iterator[int]:
        """From one change of the clock to the next, because the time runs evenly in between."""
        zone, from_ms, offset_ms = self._zone, ms, self._zone.offset_ms(ms)
        seen_ms = ms
        while True:
            for wall in self.walls(_EPOCH + timedelta(milliseconds=from_ms + offset_ms)):
                at_ms = _ms_of(wall) - offset_ms
                change_ms = zone.change(seen_ms, at_ms)
                if change_ms is not None:
                    break
                yield at_ms
                seen_ms = at_ms
            else:
                return
            before_ms, offset_ms = offset_ms, zone.offset_ms(change_ms)
            if self._fixed_hours and wall < _EPOCH + timedelta(milliseconds=change_ms + offset_ms):
                gap = (change_ms + before_ms, change_ms + offset_ms)
                if not _leaves_out_date(wall, *gap):
                    yield change_ms
            from_ms, seen_ms = change_ms - SECOND_MS, change_ms


def _checked(when: str) -> list[str]:
    """The fields of a line, if it can be read and has a tick. Raises `BadSchedule`."""
    if len(when) > LINE_CHARS_MAX:
        raise BadSchedule("when", f"the line has more than {LINE_CHARS_MAX} characters.")
    fields = ALIASES.get(when.strip().lower(), when).split()
    if when.strip().startswith("@") and fields == when.split():
        raise BadSchedule("when", f"there is no {shown(when)}. There are {', '.join(ALIASES)}.")
    if len(fields) not in (5, 6):
        raise BadSchedule(
            "when", f"{shown(when)} has {len(fields)} fields. A line has five (minute hour "
            "day-of-month month day-of-week), or six with seconds in front."
        )  # fmt: skip
    names, values = FIELDS[-len(fields) :], VALUES[-len(fields) :]
    for name, takes, text in zip(names, values, fields, strict=True):
        if not _is_field(name, text):
            raise BadSchedule(
                name, f"{shown(text)} can't be read. It takes {takes}, *, and lists, ranges and "
                f"steps of them."
            )  # fmt: skip
    if not _has_tick(fields):
        raise BadSchedule(
            "day-of-month", f"no date of the next 50 years fits day {fields[-3]} of month "
            f"{fields[-2]} with weekday {fields[-1]}."
        )  # fmt: skip
    return fields


def _is_field(name: str, text: str) -> bool:
    fields = ["*" if one != name else text for one in FIELDS]
    return _started(fields) is not None


def _has_tick(fields: list[str]) -> bool:
    line = _started(fields)
    return line is not None and next(line, None) is not None


def _started(fields: list[str]) -> Iterator[datetime] | None:
    """The times of a line from a leap year on; None where cronsim does not read it."""
    from cronsim import CronSim

    try:
        return iter(CronSim(" ".join(fields), _EPOCH.replace(year=2024)))
    except Exception:  # CronSimError, and what its parser runs into
        return None


# --- zones ----------------------------------------------------------------------------------------


class Zone:
    """What a time zone does to the times on its clocks. `fixed`: nothing."""

    def __init__(self, zone: tzinfo, *, fixed: bool = False) -> None:
        self.zone, self.fixed = zone, fixed

    def at(self, ms: int) -> datetime:
        """An instant as an aware datetime."""
        at = datetime.fromtimestamp(ms // 1_000, self.zone)
        return at.replace(microsecond=ms % 1_000 * 1_000)  # a sum would forget the fold

    def wall(self, ms: int) -> datetime:
        """What the clock shows at an instant."""
        return self.at(ms).replace(tzinfo=None)

    def offset_ms(self, ms: int) -> int:
        """How far the clock is ahead of UTC."""
        offset = datetime.fromtimestamp(ms // 1_000, self.zone).utcoffset()
        return 0 if offset is None else round(offset.total_seconds()) * 1_000

    def instant(self, wall: datetime) -> int | None:
        """The first instant at which the clock shows `wall`; where it never does, the end of the
        gap; None where the zone leaves out the date.
        """
        at_ms = _ms_of(wall)
        if self.fixed:
            return at_ms
        late_ms, early_ms = (
            at_ms - round(offset.total_seconds()) * 1_000
            for fold in (0, 1)
            if (offset := wall.replace(tzinfo=self.zone, fold=fold).utcoffset()) is not None
        )
        if late_ms <= early_ms or self.wall(late_ms) == wall:
            return late_ms
        end_ms = self.change(early_ms, late_ms)
        if end_ms is None:
            return late_ms
        gap = (end_ms + self.offset_ms(early_ms), end_ms + self.offset_ms(late_ms))
        return None if _leaves_out_date(wall, *gap) else end_ms

    def change(self, after_ms: int, until_ms: int) -> int | None:
        """The first instant of `until_ms` or before at which the offset is another one."""
        offset_ms, low_ms = self.offset_ms(after_ms), after_ms
        while low_ms < until_ms:
            high_ms = min(low_ms + DAY_MS, until_ms)
            if self.offset_ms(high_ms) != offset_ms:
                break
            low_ms = high_ms
        else:
            return None
        low_s, high_s = low_ms // 1_000, high_ms // 1_000
        while high_s - low_s > 1:
            middle_s = (low_s + high_s) // 2
            if self.offset_ms(middle_s * 1_000) == offset_ms:
                low_s = middle_s
            else:
                high_s = middle_s
        return high_s * 1_000


@lru_cache(maxsize=1_024)
def zone_of(tz: str) -> Zone:
    """The zone of a name such as "Europe/Berlin". Raises `BadSchedule`."""
    if tz == "UTC":
        return Zone(UTC, fixed=True)
    import zoneinfo

    try:
        return Zone(zoneinfo.ZoneInfo(tz))
    except (OSError, ValueError, LookupError):
        import difflib

        near = difflib.get_close_matches(tz, zoneinfo.available_timezones(), n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "Names are like Europe/Berlin."
        raise BadSchedule("tz", f"there is no time zone {shown(tz)}. {hint}") from None


def _leaves_out_date(wall: datetime, gap_from_ms: int, gap_to_ms: int) -> bool:
    """Whether a gap holds the whole date of a time."""
    day_ms = _ms_of(wall) // DAY_MS * DAY_MS
    return gap_from_ms <= day_ms and day_ms + DAY_MS <= gap_to_ms


def _ms_of(wall: datetime) -> int:
    """Milliseconds that a naive time is behind 1970."""
    passed = wall - _EPOCH
    return passed.days * DAY_MS + passed.seconds * 1_000 + passed.microseconds // 1_000
