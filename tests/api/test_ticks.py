"""Times of schedules: against a naive model, and against what others found out."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.api import ticks
from perdure.api.ticks import Line, first_after, interval_of, text_of_interval, ticks_of, zone_of
from perdure.errors import BadSchedule

MINUTE_MS = 60_000


def times(when: str, tz: str, after: str, count: int) -> list[str]:
    """The next ticks after a local time, as text."""
    zone = zone_of(tz)
    start = datetime.fromisoformat(after)
    aware = start if start.tzinfo else start.replace(tzinfo=zone.zone)
    found = ticks_of(when, tz).after(round(aware.timestamp() * 1000))
    return [zone.at(ms).isoformat() for ms in itertools.islice(found, count)]


# --- the naive model ------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def walls(zone: zoneinfo.ZoneInfo, begin_ms: int, end_ms: int) -> list[datetime]:
    """What the clock shows, minute by minute."""
    return [
        datetime.fromtimestamp(ms / 1000, zone).replace(tzinfo=None)
        for ms in range(begin_ms, end_ms + 1, MINUTE_MS)
    ]


class Model:
    """Cron with parsing of its own: no date is computed, each minute is looked at."""

    LOW_HIGH = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))

    def __init__(self, line: str) -> None:
        self.texts = line.split()
        self.sets = [
            self.numbers(text, *bounds)
            for text, bounds in zip(self.texts, self.LOW_HIGH, strict=True)
        ]
        self.fixed_hours = not self.texts[1].startswith("*")
        self.by_wall = self.fixed_hours and not self.texts[0].startswith("*")

    @staticmethod
    def numbers(text: str, low: int, high: int) -> set[int]:
        found: set[int] = set()
        for part in text.split(","):
            span, _, step = part.partition("/")
            if span == "*":
                begin, end = low, high
            elif "-" in span:
                begin, end = map(int, span.split("-"))
            else:
                begin, end = int(span), high if step else int(span)
            found |= set(range(begin, end + 1, int(step or 1)))
        return found

    def matches(self, wall: datetime) -> bool:
        minutes, hours, days, months, weekdays = self.sets
        if wall.minute not in minutes or wall.hour not in hours or wall.month not in months:
            return False
        by_day = wall.day in days
        by_weekday = wall.isoweekday() in weekdays or wall.isoweekday() % 7 in weekdays
        both = self.texts[2].startswith("*") or self.texts[4].startswith("*")
        return (by_day and by_weekday) if both else (by_day or by_weekday)

    def ticks(self, zone: zoneinfo.ZoneInfo, begin_ms: int, end_ms: int) -> Iterator[int]:
        """Ticks in (begin, end], where each minute is looked at."""
        seen = set(walls(zone, begin_ms - 4 * 60 * MINUTE_MS, begin_ms - MINUTE_MS))
        before: datetime | None = None
        for ms, wall in zip(
            range(begin_ms, end_ms + 1, MINUTE_MS), walls(zone, begin_ms, end_ms), strict=True
        ):
            due = self.matches(wall) and not (self.by_wall and wall in seen)
            if before is not None and self.fixed_hours and wall - before > timedelta(minutes=1):
                due = due or self.in_gap(before, wall)
            if due and ms > begin_ms:
                yield ms
            if self.by_wall:
                seen.add(wall)
            before = wall

    def in_gap(self, before: datetime, after: datetime) -> bool:
        """Whether a time that the clock left out matches, on a date that it did not leave out."""
        left_out = []
        one = before + timedelta(minutes=1)
        while one < after:
            left_out.append(one)
            one += timedelta(minutes=1)
        whole = {
            day for day in {one.date() for one in left_out}
            if sum(one.date() == day for one in left_out) == 24 * 60
        }  # fmt: skip
        return any(self.matches(one) for one in left_out if one.date() not in whole)


def checked(line: str, tz: str, begin_ms: int, end_ms: int) -> int:
    """Both say the same; returns how many ticks there were."""
    wanted = list(Model(line).ticks(zoneinfo.ZoneInfo(tz), begin_ms, end_ms))
    found = list(itertools.takewhile(lambda ms: ms <= end_ms, ticks_of(line, tz).after(begin_ms)))
    zone = zone_of(tz)
    assert [zone.at(ms).isoformat() for ms in found] == [
        zone.at(ms).isoformat() for ms in wanted
    ], (line, tz, begin_ms)
    for ms in (
        begin_ms,
        *wanted[: -1 : len(wanted) // 40 + 1],
    ):  # from any tick, and from between two, it is the same next
        after = first_after(ticks_of(line, tz), ms)
        assert after == next((one for one in wanted if one > ms), after), (line, tz, ms)
    return len(wanted)


ZONES = [
    "Europe/Berlin", "Europe/Riga", "Europe/London", "America/New_York", "America/Santiago",
    "America/Havana", "America/Sao_Paulo", "Asia/Beirut", "Asia/Tehran", "Africa/Casablanca",
    "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Chatham", "Asia/Kathmandu", "America/St_Johns",
    "Africa/Cairo", "Asia/Gaza", "America/Asuncion", "Antarctica/Troll",
]  # fmt: skip
LINES = [
    "* * * * *", "*/15 * * * *", "0 * * * *", "30 * * * *", "0 */2 * * *", "30 2 * * *",
    "0 0 * * *", "0 2,3 * * *", "30 0-4 * * *", "*/20 2 * * *", "* 1-3 * * *", "45 1 * * *",
    "0 1 * * SUN".replace("SUN", "0"), "15 3 1-7 * 1", "0 0 1 * *", "59 23 * * *", "0 3 */2 * 5",
]  # fmt: skip


def changes(tz: str, first_year: int, last_year: int) -> list[int]:
    """Instants, to the day, at which a zone changes its offset."""
    zone = zone_of(tz)
    begin = round(datetime(first_year, 1, 1, tzinfo=UTC).timestamp()) * 1000
    end = round(datetime(last_year + 1, 1, 1, tzinfo=UTC).timestamp()) * 1000
    days = range(begin, end, ticks.DAY_MS)
    return [day for day in days if zone.offset_ms(day) != zone.offset_ms(day + ticks.DAY_MS)]


@pytest.mark.parametrize("tz", ZONES)
def test_ticks_around_each_change_of_the_clock_are_those_of_the_model(tz: str) -> None:
    around = changes(tz, 2006, 2030)
    picked = random.Random(tz).sample(around, min(2, len(around)))
    if tz == "Pacific/Apia":  # 2011-12-30 is a date that it does not have
        picked.append(round(datetime(2011, 12, 30, tzinfo=UTC).timestamp()) * 1000)
    found = sum(checked(line, tz, day, day + 2 * ticks.DAY_MS) for day in picked for line in LINES)
    assert found > 0 or not picked


@pytest.mark.parametrize(
    ("line", "tz"),
    [
        ("30 2 * * *", "Europe/Berlin"),
        ("0 */3 * * 1-5", "America/New_York"),
        ("0 0 1,15 * *", "America/Santiago"),
    ],
)
def test_months_with_both_changes_of_the_clock_are_those_of_the_model(line: str, tz: str) -> None:
    begin = round(datetime(2025, 9, 1, tzinfo=UTC).timestamp()) * 1000
    assert checked(line, tz, begin, begin + 225 * ticks.DAY_MS) > 14


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda two: f"{min(two)}-{max(two)}")
    step = st.integers(1, high - low + 1)
    one = st.one_of(
        st.just("*"), number.map(str), span,
        st.builds("*/{}".format, step), st.builds("{}/{}".format, span, step),
    )  # fmt: skip
    return st.one_of(one, st.lists(one, min_size=2, max_size=3).map(",".join))


lines = st.tuples(
    field(0, 59), st.one_of(st.just("*"), field(0, 23)), st.one_of(st.just("*"), field(1, 28)),
    st.just("*"), st.one_of(st.just("*"), field(0, 6)),
).map(" ".join)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(lines, st.sampled_from(ZONES), st.integers(0, 10_000), st.integers(0, 1_439))
def test_ticks_of_any_line_are_those_of_the_model(
    line: str, tz: str, number: int, minute: int
) -> None:
    around = changes(tz, 2010, 2029) or [1_600_000_000_000 // ticks.DAY_MS * ticks.DAY_MS]
    day = around[number % len(around)]
    checked(line, tz, day - minute * MINUTE_MS, day + ticks.DAY_MS + 400 * MINUTE_MS)


def test_the_model_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticks.Zone, "instant", lambda zone, wall: ticks._ms_of(wall))
    ticks_of.cache_clear()
    with pytest.raises(AssertionError, match="Europe/Berlin"):
        checked("30 2 * * *", "Europe/Berlin", 1_774_000_020_000, 1_775_000_000_000)
    ticks_of.cache_clear()


# --- what others found out ------------------------------------------------------------------------

OF_CRONSIM = [
    # From cuu508/cronsim, tests/test_cronsim.py (TestDstTransitions): Europe/Riga, where on
    # 2021-03-28 the clock goes from 3:00 to 4:00, and on 2021-10-31 from 4:00 to 3:00.
    ("0 * * * *", "2021-03-28T01:30", ["02:00+02", "04:00+03"]),
    ("0 * * * *", "2021-10-31T01:30", ["02:00+03", "03:00+03", "03:00+02", "04:00+02"]),
    ("*/30 * * * *", "2021-03-28T02:10", ["02:30+02", "04:00+03", "04:30+03"]),
    ("0 */2 * * *", "2021-10-31T01:30", ["02:00+03", "04:00+02", "06:00+02"]),
    ("0 */3 * * *", "2021-10-31T01:30", ["03:00+03", "03:00+02", "06:00+02"]),
    ("0 1,2,3,4,5 * * *", "2021-03-28T01:30", ["02:00+02", "04:00+03", "05:00+03"]),
    ("0 1,2,3,4,5 * * *", "2021-10-31T01:30", ["02:00+03", "03:00+03", "04:00+02"]),
    ("30 1,2,3,4,5 * * *", "2021-03-28T01:30", ["02:30+02", "04:00+03", "04:30+03"]),
    ("15 3 * * *", "2021-03-28T00:00", ["04:00+03"]),
    ("15 3 * * *", "2021-10-31T00:00", ["03:15+03"]),
    ("0 1-5 * * *", "2021-03-28T01:30", ["02:00+02", "04:00+03", "05:00+03"]),
    ("* 1-6 * * *", "2021-03-28T02:58", ["02:59+02", "04:00+03"]),
    ("* 1-6 * * *", "2021-10-31T03:58", ["03:59+03", "03:00+02", "03:01+02"]),
]


@pytest.mark.parametrize(("line", "after", "wanted"), OF_CRONSIM)
def test_transitions_are_those_of_debian(line: str, after: str, wanted: list[str]) -> None:
    found = times(line, "Europe/Riga", after, len(wanted))
    assert [one[11:16] + one[19:22] for one in found] == wanted


def test_an_hour_that_comes_twice_by_half() -> None:
    """Lord Howe goes back by 30 minutes; cronsim 2.8 leaves the hour 2 out there."""
    wanted = ["2026-04-05T00:00:00+11:00", "2026-04-05T02:00:00+10:30", "2026-04-05T04:00:00+10:30"]
    assert times("0 */2 * * *", "Australia/Lord_Howe", "2026-04-04T22:00", 3) == wanted


def test_a_date_that_a_zone_leaves_out_has_no_tick() -> None:
    """Apia had no 2011-12-30; cronsim 2.8 has a tick at the first minute of the 31st for it."""
    wanted = ["2011-12-29T03:00:00-10:00", "2011-12-31T03:00:00+14:00"]
    assert times("0 3 * * *", "Pacific/Apia", "2011-12-29T00:00", 2) == wanted
    assert times("0 0 30 12 *", "Pacific/Apia", "2011-01-01T00:00", 1)[0][:4] == "2012"


def test_midnight_that_does_not_exist() -> None:
    """From PrefectHQ/prefect, pull request 5957: croniter gave one time for ever there."""
    found = times("0 0 * * 0", "America/Santiago", "2022-08-21T12:00", 3)
    wanted = ["2022-08-28T00:00:00-04:00", "2022-09-04T00:00:00-04:00", "2022-09-11T01:00:00-03:00"]
    assert found == wanted


def test_a_line_with_seconds_goes_by_the_same_rules() -> None:
    """cronsim has them for lines of five fields only; the times are those of Temporal's
    service/worker/scheduler/calendar_test.go (TestCalendarNextDST), which leaves the gap out.
    """
    wanted = [
        "2022-03-12T02:33:33-08:00",
        "2022-03-13T03:00:00-07:00",
        "2022-03-14T02:33:33-07:00",
    ]
    assert times("33 33 2 * * *", "US/Pacific", "2022-03-11T20:00", 3) == wanted
    twice = times("33 33,44 1 * * *", "US/Pacific", "2021-11-07T00:15:15", 3)
    assert [one[8:] for one in twice] == [
        "07T01:33:33-07:00", "07T01:44:33-07:00", "08T01:33:33-08:00"
    ]  # fmt: skip


def test_every_instant_before_a_tick_gives_that_tick() -> None:
    """The law of Temporal's FuzzCalendar, over an hour that comes twice."""
    line, begin = ticks_of("*/7 * * * *", "Europe/Berlin"), 1_792_886_400_000
    after = line.after(begin)
    last, following = begin, next(after)
    for ms in range(begin, begin + 4 * 3_600_000, 20_000):
        while ms >= following:
            last, following = following, next(after)
        assert first_after(line, ms) == following, (last, ms)


@pytest.mark.parametrize(
    ("text", "numbers"),
    # From oban-bg/oban, test/oban/cron/expression_test.exs: a step counts from the low end.
    [("0/12", {0, 12}), ("1/7", {1, 8, 15, 22}), ("1-14/7", {1, 8})],
)
def test_a_step_counts_from_its_beginning(text: str, numbers: set[int]) -> None:
    found = times(f"0 {text} * * *", "UTC", "2026-01-01T23:59", len(numbers))
    assert {int(one[11:13]) for one in found} == numbers


def test_sub_second_starts_lose_no_tick() -> None:
    assert times("* * * * * *", "UTC", "2026-01-01T00:00:00.999+00:00", 1)[0][11:19] == "00:00:01"
    assert times("* * * * *", "Asia/Kolkata", "2026-01-01T00:00:59.001", 1)[0][11:19] == "00:01:00"


# --- words, intervals, errors ---------------------------------------------------------------------


@pytest.mark.parametrize("alias", ticks.ALIASES)
def test_words_are_lines(alias: str) -> None:
    wanted = times(ticks.ALIASES[alias], "Europe/Berlin", "2026-03-01T00:30", 5)
    assert times(alias, "Europe/Berlin", "2026-03-01T00:30", 5) == wanted
    assert times(alias.upper(), "Europe/Berlin", "2026-03-01T00:30", 5) == wanted


def test_intervals_count_from_1970() -> None:
    """From Temporal's spec_test.go (TestSpecIntervalBasic, TestSpecIntervalPhase)."""
    found = times("@every 90m", "UTC", "2022-03-23T12:53:02", 3)
    assert [one[11:19] for one in found] == ["13:30:00", "15:00:00", "16:30:00"]
    found = times("@every 90m/344s", "UTC", "2022-03-23T12:53:02", 3)
    assert [one[11:19] for one in found] == ["13:35:44", "15:05:44", "16:35:44"]
    assert times("@every 1h", "Europe/Berlin", "2026-10-25T02:30", 2) == [
        "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00",
    ]  # fmt: skip


@given(st.integers(1_000, 10**9), st.integers(0, 10**9))
def test_an_interval_is_the_same_as_text(interval_ms: int, offset_ms: int) -> None:
    offset_ms %= interval_ms
    assert interval_of(text_of_interval(interval_ms, offset_ms)) == (interval_ms, offset_ms)


BAD_LINES = [
    ("* * * *", "when"), ("* * * * * * *", "when"), ("", "when"), ("@reboot", "when"),
    ("@every", "when"), ("@every 10", "when"), ("@every 0s", "when"), ("@every 1s/1s", "offset"),
    ("60 * * * *", "minute"), ("* 24 * * *", "hour"), ("* * 32 * *", "day-of-month"),
    ("* * * 13 *", "month"), ("* * * * 8", "day-of-week"), ("60 * * * * *", "second"),
    ("*/0 * * * *", "minute"), ("ONE * * * *", "minute"), ("5-1 * * * *", "minute"),
    ("* * * * 1#6", "day-of-week"), ("* * * * 5L/3", "day-of-week"), ("\u00b9 * * * *", "minute"),
    ("0 0 30 2 *", "day-of-month"), ("0 0 31 4,6,9,11 *", "day-of-month"),
    ("1 1 */100 * MON#4", "day-of-month"), ("* " * 300, "when"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "wrong"), BAD_LINES)
def test_a_line_that_can_not_be_read_names_its_field(line: str, wrong: str) -> None:
    with pytest.raises(BadSchedule) as caught:
        ticks_of(line, "UTC")
    assert caught.value.field == wrong
    assert str(caught.value).startswith(wrong)


@given(st.text(alphabet="0123456789*/,-#LW@ MONJAN", max_size=30))
def test_any_text_is_a_line_or_an_error(text: str) -> None:
    try:
        found = first_after(ticks_of(text, "UTC"), 0) is not None
    except BadSchedule as error:
        found = error.field in ("when", "offset", *ticks.FIELDS)
    assert found


@pytest.mark.parametrize("tz", ["Mars/Phobos", "Europe", "../../etc/passwd", "", "\0", "x" * 999])
def test_a_zone_that_there_is_not(tz: str) -> None:
    with pytest.raises(BadSchedule, match="tz: there is no time zone"):
        zone_of(tz)


def test_a_zone_that_is_nearly_right_is_named() -> None:
    with pytest.raises(BadSchedule, match="Did you mean Europe/Berlin"):
        zone_of("Europe/Berln")


def test_the_search_ends_before_dates_do() -> None:
    assert first_after(ticks_of("0 0 * * *", "Europe/Berlin"), ticks.LAST_MS) is None
    assert first_after(ticks_of("@every 1d", "UTC"), ticks.LAST_MS) is None


def test_a_leap_day_is_found() -> None:
    assert times("0 0 29 2 *", "UTC", "2097-01-01T00:00", 1) == ["2104-02-29T00:00:00+00:00"]
    assert isinstance(ticks_of("0 0 29 2 *", "UTC"), Line)


def test_neither_cronsim_nor_zones_are_loaded_with_perdure() -> None:
    code = "import perdure, sys; print({'cronsim', 'zoneinfo'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.strip() == "set()"
