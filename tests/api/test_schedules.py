"""Definitions of schedules: what they are, and what is wrong with the others."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import BadSchedule, DefinitionError, Every, Schedule, TickTime, step, workflow
from perdure.api.schedules import NAME_CHARS_MAX, checked_list


@workflow
async def report(day: str = "today") -> None: ...


@step
async def mail(to: str) -> None: ...


def nightly(**given: Any) -> Schedule:
    parts: dict[str, Any] = {"name": "nightly", "when": "0 3 * * *", "call": report("today")}
    return Schedule(**parts | given)


def test_a_schedule_has_what_it_was_given() -> None:
    one = nightly(jitter=30, catch_up=90, tz=zoneinfo.ZoneInfo("Europe/Berlin"))
    assert (one.tz, one.jitter, one.catch_up) == (
        "Europe/Berlin",
        timedelta(seconds=30),
        timedelta(seconds=90),
    )
    assert nightly(tz=UTC).tz == "UTC"
    assert str(Every(90, offset=30)) == "@every 90s/30s"


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("name", {"name": ""}), ("name", {"name": "a~b"}), ("name", {"name": " a"}),
        ("name", {"name": 3}), ("name", {"name": "a\nb"}),
        ("name", {"name": "x" * (NAME_CHARS_MAX + 1)}),
        ("when", {"when": None}), ("when", {"when": 15}), ("hour", {"when": "0 24 * * *"}),
        ("day-of-month", {"when": "0 0 30 2 *"}), ("tz", {"tz": "Europe/Atlantis"}),
        ("tz", {"tz": 3}), ("tz", {"tz": None}), ("call", {"call": report}),
        ("call", {"call": mail("me")}), ("call", {"call": None}),
        ("call", {"call": report.options(id="mine")("today")}),
        ("overlap", {"overlap": "queue"}), ("catch_up", {"catch_up": -1}),
        ("catch_up", {"catch_up": "1h"}), ("catch_up", {"catch_up": timedelta(days=9_999)}),
        ("catch_up_max", {"catch_up_max": 0}), ("catch_up_max", {"catch_up_max": True}),
        ("catch_up_max", {"catch_up_max": 1_001}), ("jitter", {"jitter": float("nan")}),
        ("jitter", {"jitter": -1}), ("queue", {"queue": 7}), ("paused", {"paused": "no"}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(BadSchedule) as caught:
        nightly(**given)
    assert caught.value.field == field
    assert f"{field}: " in str(caught.value)


@pytest.mark.parametrize(
    ("interval", "offset"), [(0.5, 0), (-1, 0), (60, 60), (60, -1), ("1h", 0), (60, None)]
)
def test_an_interval_that_can_not_be_used(interval: Any, offset: Any) -> None:
    with pytest.raises(BadSchedule):
        Every(interval, offset=offset)


def test_a_list_has_each_name_once() -> None:
    assert [one.name for one in checked_list([nightly(), nightly()])] == ["nightly"]
    for other in (
        nightly(when="0 4 * * *"), nightly(call=report("yesterday")), nightly(tz="Europe/Berlin"),
        nightly(paused=True), nightly(call=report.options(timeout=5)("today")),
    ):  # fmt: skip
        with pytest.raises(BadSchedule, match="name: two schedules"):
            checked_list([nightly(), other])
    with pytest.raises(DefinitionError, match="which is no Schedule"):
        checked_list([report("today")])
    for wrong in (nightly(), "nightly", 3):
        with pytest.raises(DefinitionError, match="a list of Schedule"):
            checked_list(wrong)


def test_a_time_of_a_tick_is_a_datetime() -> None:
    at = datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1)
    tick = TickTime.of(at, "the clock goes back")
    assert tick == at and tick.isoformat() == at.isoformat() and tick.clock == "the clock goes back"
    assert (tick + timedelta(1)).clock == ""
