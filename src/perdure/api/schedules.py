"""Definitions of schedules, checked at the line that gives them.

Rules: a definition that can't work is a `BadSchedule` that names the field; what is stored of it is
text and whole milliseconds; cronsim and zones are loaded when the first definition is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any, Literal, Self

import msgspec

from perdure.api.definitions import Call, workflow_call
from perdure.core import names, numbers
from perdure.errors import BadSchedule, DefinitionError

Overlap = Literal["skip", "wait", "cancel", "allow"]

OVERLAPS = ("skip", "wait", "cancel", "allow")
NAME_CHARS_MAX = 150
"""A run's id has the name and a time in 200 characters."""
TICKS_AT_ONCE_MAX = 1_000
"""How many missed ticks may be caught up, and how many a backfill may start."""
_DAYS_MAX = 3_660


@dataclass(frozen=True, slots=True)
class Every:
    """A time each `interval`, counted from 1970 UTC, so that it is the same whoever starts when.

    `interval` is a timedelta or seconds, at least one second; `offset` moves all times by less than
    an interval. Raises `BadSchedule`.

    >>> Every(timedelta(minutes=15), offset=timedelta(minutes=1))
    Every(interval=datetime.timedelta(seconds=900), offset=datetime.timedelta(seconds=60))
    """

    interval: timedelta | float
    _: KW_ONLY
    offset: timedelta | float = timedelta(0)

    def __post_init__(self) -> None:
        from perdure.api.ticks import checked_interval

        interval_ms, offset_ms = _ms(self.interval, "when"), _ms(self.offset, "offset")
        checked_interval(interval_ms, offset_ms)
        object.__setattr__(self, "interval", timedelta(milliseconds=interval_ms))
        object.__setattr__(self, "offset", timedelta(milliseconds=offset_ms))

    def __str__(self) -> str:
        from perdure.api.ticks import text_of_interval

        return text_of_interval(_ms(self.interval, "when"), _ms(self.offset, "offset"))


@dataclass(frozen=True, slots=True)
class Schedule:
    """A workflow that is started at times of its own. One tick is one run, whatever happens: its id
    is `name@2026-11-29T03:00:00+01:00`.

    `when` is a cron line of five fields, or of six with seconds in front, one of `@yearly`,
    `@monthly`, `@weekly`, `@daily`, `@hourly`, or `Every(timedelta)`. `call` is what is started.
    `tz` is the time zone of the line: a time that does not exist there runs once right after the
    gap, and one that comes twice runs once.
    `overlap` says what happens while a run of the schedule has not ended: "skip" leaves the tick
    out, "wait" starts it afterwards, "cancel" cancels that run and starts the tick when it has
    ended, "allow" starts it beside it.
    Of ticks that were missed while no process was there, the newest `catch_up_max` run that are no
    older than `catch_up`; the others are counted. `jitter` (seconds or a timedelta) delays each
    tick by up to that much and less than the time to the next, by a number that is the same on
    every process. `queue` is the queue of the runs. With `paused` it starts nothing until it is
    resumed.
    Raises `BadSchedule`, whose `field` says what is wrong.

    >>> from perdure import workflow
    >>> @workflow
    ... async def report(day: str) -> None: ...
    >>> nightly = Schedule("nightly", "0 3 * * *", report("yesterday"), tz="Europe/Berlin")
    >>> nightly.catch_up
    datetime.timedelta(seconds=3600)
    """

    name: str
    when: str | Every
    call: Call[Any]
    _: KW_ONLY
    tz: str | tzinfo = "UTC"
    overlap: Overlap = "skip"
    catch_up: timedelta | float = timedelta(hours=1)
    catch_up_max: int = 1
    jitter: timedelta | float = 0
    queue: str | None = None
    paused: bool = False

    def __post_init__(self) -> None:
        checked_name(self.name)
        try:
            self._check()
        except BadSchedule as error:
            raise error.of(self.name) from None

    def _check(self) -> None:
        from perdure.api.ticks import ticks_of

        put, tz = object.__setattr__, _zone_name(self.tz)
        if not isinstance(self.when, str | Every):
            example = 'a cron line such as "0 3 * * *", or Every(timedelta(minutes=15))'
            raise BadSchedule("when", f"it is {example}, not {numbers.shown(self.when)}.")
        ticks_of(str(self.when), tz)
        put(self, "tz", tz)
        put(self, "call", _checked_call(self.call))
        put(self, "overlap", checked_overlap(self.overlap))
        put(self, "catch_up", timedelta(milliseconds=_ms(self.catch_up, "catch_up")))
        put(self, "jitter", timedelta(milliseconds=_ms(self.jitter, "jitter")))
        most = TICKS_AT_ONCE_MAX
        _field("catch_up_max", numbers.count, self.catch_up_max, "it", high=most)
        _field("paused", numbers.flag, self.paused, "it")
        if self.queue is not None:
            _field("queue", names.checked, "queue", self.queue)
            if not self.queue:
                raise BadSchedule("queue", "it is the name of a queue, or None.")


class TickTime(datetime):
    """The time of a tick: an aware datetime in the zone of its schedule.

    `clock` says what the clock does there, such as "the clock goes forward by 1:00:00"; it is empty
    where it does nothing.
    """

    clock: str = ""

    @classmethod
    def of(cls, at: datetime, clock: str) -> Self:
        """A datetime with what the clock does there."""
        made = cls(
            at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond, at.tzinfo,
            fold=at.fold,
        )  # fmt: skip
        made.clock = clock
        return made


class ScheduleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it is stored. Times are aware, `next_at` and `last_at` in its own zone.

    `status` is "active", "paused", "orphaned" where there are workers and the code of none of them
    declares it, or "no worker". `next_at` is None where it is paused, orphaned, or has no tick any
    more; without a worker it may be one that was missed. `missed` and `skipped`
    count ticks without a run: because no process was there, and because a run had not ended.
    `waiting` ticks start when that run has ended. `error` is why the last tick could not start.
    """

    name: str
    when: str
    tz: str
    workflow: str
    args: Any
    overlap: Overlap
    catch_up: timedelta
    catch_up_max: int
    jitter: timedelta
    queue: str | None
    status: Literal["active", "paused", "orphaned", "no worker"]
    next_at: datetime | None
    last_at: datetime | None
    last_run: str | None
    missed: int
    skipped: int
    waiting: int
    error: str | None


# --- checks ---------------------------------------------------------------------------------------


def checked_name(name: Any) -> str:
    """The name, if a schedule can have it. Raises `BadSchedule`."""
    usable = isinstance(name, str) and 1 <= len(name) <= NAME_CHARS_MAX
    if not usable or not name.isprintable() or "~" in name or name != name.strip():
        raise BadSchedule(
            "name", f"it has 1 to {NAME_CHARS_MAX} printable characters, no '~' and no space at "
            f"its ends, unlike {ascii(name)[:200]}."
        )  # fmt: skip
    return str(name)


def checked_overlap(overlap: Any) -> Overlap:
    """The word, if there is one. Raises `BadSchedule`."""
    if overlap not in OVERLAPS:
        words = '"skip", "wait", "cancel" or "allow"'
        raise BadSchedule("overlap", f"it is {words}, not {numbers.shown(overlap)}.")
    return overlap  # type: ignore[no-any-return]


def checked_list(schedules: Any) -> tuple[Schedule, ...]:
    """Schedules of an engine, each name once. Raises `BadSchedule`; `DefinitionError` where one is
    something else.
    """
    found: dict[str, Schedule] = {}
    if not isinstance(schedules, Iterable) or isinstance(schedules, str):
        raise DefinitionError(f"schedules is a list of Schedule, not {numbers.shown(schedules)}.")
    for one in schedules:
        if not isinstance(one, Schedule):
            raise DefinitionError(f"schedules has {numbers.shown(one)}, which is no Schedule.")
        other = found.setdefault(one.name, one)
        if _parts(other) != _parts(one):
            raise BadSchedule(
                "name", "two schedules of this list have it, with other definitions. Give one of "
                "them another name.", one.name
            )  # fmt: skip
    return tuple(found.values())


def _parts(schedule: Schedule) -> tuple[Any, ...]:
    call = schedule.call
    return (
        str(schedule.when), schedule.tz, call.definition.name, call.args, call.kwargs, call.options,
        schedule.overlap, schedule.catch_up, schedule.catch_up_max, schedule.jitter,
        schedule.queue, schedule.paused,
    )  # fmt: skip


def _checked_call(call: Any) -> Call[Any]:
    try:
        checked = workflow_call(call, "Schedule()")
    except DefinitionError:
        raise BadSchedule(
            "call", f'it is the call of a workflow, such as report("daily"), not '
            f"{numbers.shown(call)}."
        ) from None  # fmt: skip
    if checked.options.id is not None:
        raise BadSchedule("call", "it can't have an id: each tick has its own.")
    return checked


def _field(field: str, check: Callable[..., Any], *args: Any, **more: Any) -> None:
    """Call a check; what it raises is about a field."""
    try:
        check(*args, **more)
    except DefinitionError as error:
        raise BadSchedule(field, str(error)) from None


def _zone_name(tz: Any) -> str:
    """The name of a zone, given as text or as a `ZoneInfo`."""
    name = tz if isinstance(tz, str) else getattr(tz, "key", None)
    if name is None and isinstance(tz, tzinfo) and str(tz) == "UTC":
        return "UTC"
    if not isinstance(name, str):
        raise BadSchedule(
            "tz", f'it is the name of a zone, such as "Europe/Berlin", not {numbers.shown(tz)}.'
        )
    return name


def _ms(value: Any, field: str) -> int:
    """A timedelta or seconds as whole milliseconds, from 0 to ten years."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not numbers.is_number(seconds) or not 0 <= seconds <= _DAYS_MAX * 86_400:
        raise BadSchedule(
            field, "it is a timedelta or a number of seconds, from 0 to ten years, not "
            f"{numbers.shown(value)}."
        )  # fmt: skip
    return round(seconds * 1_000)
