"""Plans of due ticks: each tick runs or is counted, once, whatever an engine sleeps through."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from perdure.api.ticks import ticks_of
from perdure.runtime import ticks
from perdure.runtime.ticks import COUNTED_MAX, ON_TIME_MS, Plan, fire, jitter_ms, plan, tick_run
from perdure.store.schedule_writes import DueSchedule

HOUR_MS = 3_600_000
BEGIN_MS = 1_800_000_000_000


def due(when: str = "* * * * *", tz: str = "UTC", **given: Any) -> DueSchedule:
    first = next(ticks_of(when, tz).after(BEGIN_MS))
    parts: dict[str, Any] = {
        "schedule": 1, "name": "s", "expression": when, "tz": tz, "version": 1,
        "catch_up_ms": HOUR_MS, "catch_up_max": 1, "jitter_ms": 0, "next_ms": first,
        "last_ms": None, "held": [],
    }  # fmt: skip
    return DueSchedule(**parts | given)


def taken(row: DueSchedule, found: Plan) -> None:
    row.next_ms, row.last_ms, row.version = found.next_ms, found.last_ms, row.version + 1


LINES = {
    "* * * * *": 18, "*/50 * * * * *": 9, "@every 47s": 14, "0 */3 * * *": 40, "30 2 * * *": 40,
}  # fmt: skip
"""Lines, with the hours of a long sleep: in it a frequent one has more ticks than a plan counts."""


@pytest.mark.parametrize("seed", range(15))
def test_each_tick_runs_or_is_counted_once(seed: int) -> None:
    rng = random.Random(seed)
    when, long_h = rng.choice([*LINES.items()])
    tz = rng.choice(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago"])
    row = due(
        when, tz, catch_up_ms=rng.choice([0, 60_000, HOUR_MS, 30 * HOUR_MS]),
        catch_up_max=rng.choice([1, 2, 50]), jitter_ms=rng.choice([0, 0, 1_500, HOUR_MS]),
    )  # fmt: skip
    window_ms = max(row.catch_up_ms, ON_TIME_MS)
    now_ms, awake_ms, missed = BEGIN_MS, BEGIN_MS, 0
    ran: list[int] = []
    for _ in range(30):
        found = plan(row, now_ms, awake_ms)
        late = [ms for ms in found.ticks if now_ms - ms > window_ms + row.jitter_ms]
        assert late == [], seed
        ran, missed = ran + found.ticks, missed + found.missed
        taken(row, found)
        if found.fire_ms is not None and found.fire_ms <= now_ms:
            continue  # it is looked at again at once
        awake_ms = now_ms
        sleeps = [(found.fire_ms or now_ms) - now_ms, 1, 60_000, HOUR_MS, long_h * HOUR_MS]
        now_ms += rng.choice(sleeps) + rng.choice([0, 3, 1_200])
        if rng.random() < 0.2:
            awake_ms = now_ms  # another engine, which has just been opened
    every = itertools.takewhile(
        lambda ms: ms <= (row.last_ms or 0), ticks_of(when, tz).after(BEGIN_MS)
    )
    known = list(every)
    assert ran == sorted(set(ran)), seed
    assert set(ran) <= set(known), seed
    assert len(ran) + missed == len(known), seed


def test_an_engine_that_is_awake_misses_nothing_where_it_is_slow() -> None:
    row = due("* * * * * *")
    found = plan(row, BEGIN_MS + 4_900, BEGIN_MS)
    assert (len(found.ticks), found.missed) == (4, 0)
    found = plan(row, BEGIN_MS + 4_900, BEGIN_MS + 4_900)  # it has just been opened
    assert (len(found.ticks), found.missed) == (1, 3)


def test_the_next_tick_comes_from_the_last_one_and_not_from_the_clock() -> None:
    found = plan(due(), BEGIN_MS + 90_000, BEGIN_MS)
    assert (found.ticks, found.next_ms) == ([BEGIN_MS + 60_000], BEGIN_MS + 120_000)


def test_a_plan_counts_a_bounded_number() -> None:
    row, now_ms = due("* * * * * *", catch_up_max=3), BEGIN_MS + 5_000_000
    first = plan(row, now_ms, now_ms)
    assert (first.ticks, first.missed, first.fire_ms) == ([], COUNTED_MAX, now_ms)
    counted = 0
    while True:
        found = plan(row, now_ms, now_ms)
        counted += found.missed
        taken(row, found)
        if found.ticks:
            break
    assert counted == 5_000 - 3
    assert found.ticks == [now_ms - 2_000, now_ms - 1_000, now_ms]


def test_a_clock_that_was_set_back_goes_on_from_where_it_is() -> None:
    row = due(last_ms=BEGIN_MS + 10 * HOUR_MS, next_ms=BEGIN_MS + 11 * HOUR_MS, held=[7])
    found = plan(row, BEGIN_MS + 30_000, BEGIN_MS)
    assert found == Plan([7], 0, BEGIN_MS + 60_000, BEGIN_MS + 60_000, BEGIN_MS + 30_000)


def test_a_schedule_without_another_tick_ends() -> None:
    found = plan(due(next_ms=None), BEGIN_MS, BEGIN_MS)
    assert found == Plan([], 0, None, None, None)


def test_jitter_is_drawn_from_name_and_time_only() -> None:
    drawn = [jitter_ms("s", n * 60_000, 30_000, (n + 1) * 60_000) for n in range(200)]
    assert drawn == [jitter_ms("s", n * 60_000, 30_000, (n + 1) * 60_000) for n in range(200)]
    assert 0 <= min(drawn) < 2_000 and 28_000 < max(drawn) < 30_000
    assert jitter_ms("t", 0, 30_000, 60_000) != jitter_ms("s", 0, 30_000, 60_000)
    assert jitter_ms("s", 0, HOUR_MS, 10) < 10
    assert jitter_ms("s", 0, 5_000, None) < 5_000


def test_the_id_of_a_tick_has_its_time_in_the_zone() -> None:
    assert tick_run("n", BEGIN_MS, "Europe/Berlin").id == "n@2027-01-15T09:00:00+01:00"
    assert tick_run("n", BEGIN_MS + 5, "UTC").id == "n@2027-01-15T08:00:00.005+00:00"
    twice = [tick_run("n", ms, "Europe/Berlin").id for ms in (1_792_888_200_000, 1_792_891_800_000)]
    assert twice == ["n@2026-10-25T02:30:00+02:00", "n@2026-10-25T02:30:00+01:00"]


def test_a_write_has_what_the_plan_says() -> None:
    write = fire(due(held=[BEGIN_MS]), BEGIN_MS + 61_000, BEGIN_MS)
    assert [tick.ms for tick in write.ticks] == [BEGIN_MS, BEGIN_MS + 60_000]
    assert (write.version, write.retry_ms) == (1, BEGIN_MS + 61_000 + ticks.RETRY_MS)
    assert len({tick.seed for tick in write.ticks}) == 2
