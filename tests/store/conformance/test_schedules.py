"""Schedules: definitions, declarations, and ticks that become one run each."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.core.limits import NEVER_MS
from perdure.errors import QueueFull, QueueNotFound, ScheduleNotFound, WeightOverBurst
from perdure.store.base import Store
from perdure.store.rows import RunFilter, Started
from perdure.store.schedule_writes import (
    ControlSchedule,
    DeclareSchedules,
    Fired,
    FireSchedule,
    RemoveSchedule,
    ScheduleDefinition,
    ScheduleRow,
    SetSchedule,
    StartTicks,
    TickRun,
)
from perdure.store.writes import Deliver, ForkRun, SetQueue
from tests.store.conformance.queue_support import enqueue
from tests.store.conformance.support import claim, died, finish, join, one, suspend


def definition(name: str = "nightly", **given: Any) -> ScheduleDefinition:
    parts: dict[str, Any] = {
        "name": name, "expression": "* * * * *", "tz": "UTC", "workflow": "flow", "args": b"{}",
        "overlap": "skip", "catch_up_ms": 3_600_000, "catch_up_max": 1, "jitter_ms": 0,
        "queue": None, "key": None, "weight": 1, "timeout_ms": None, "durability": None,
        "paused": False, "next_ms": 60_000,
    }  # fmt: skip
    return ScheduleDefinition(**parts | given)


def put(store: Store, **given: Any) -> ScheduleRow:
    """A schedule that a caller has set."""
    assert one(store, SetSchedule(definition(**given), 0))
    return store.schedule_row("nightly")


def tick(ms: int, name: str = "nightly") -> TickRun:
    return TickRun(ms, f"{name}@{ms}", 1)


def fired(store: Store, row: ScheduleRow, *ticks: int, missed: int = 0, **more: Any) -> Any:
    """The result of ticks that are due; the next one is a minute after the last."""
    at_ms = max(ticks, default=0)
    given: dict[str, Any] = {
        "next_ms": at_ms + 60_000, "fire_ms": at_ms + 60_000, "last_ms": at_ms, "at_ms": at_ms,
        "retry_ms": at_ms + 30_000,
    }  # fmt: skip
    runs = [tick(ms) for ms in (*row.held, *ticks)]
    return one(store, FireSchedule(row.schedule, row.version, runs, missed, **given | more))


def ended(store: Store, run_id: str, status: str = "completed", at_ms: int = 1) -> None:
    """Execute a run to its end."""
    worker = join(store)
    runs = claim(store, worker, now_ms=NEVER_MS)
    run = store.run_key(run_id)
    assert run in runs
    one(store, finish(run, worker, status, at_ms, result=b"null"))


# --- ticks ----------------------------------------------------------------------------------------


def test_a_tick_starts_a_run_and_stores_the_next_one(store: Store) -> None:
    row = put(store, timeout_ms=5_000, durability="disk", args=b'{"n":1}')
    assert store.next_fire_ms() == 60_000
    assert [due.name for due in store.due_schedules(60_000, 10)] == ["nightly"]
    assert store.due_schedules(59_999, 10) == []
    assert fired(store, row, 60_000, missed=3) == Fired(["nightly@60000"], [])
    after = store.schedule_row("nightly")
    assert (after.next_ms, after.fire_ms, after.last_ms) == (120_000, 120_000, 60_000)
    assert (after.missed, after.last_run, store.next_fire_ms()) == (3, "nightly@60000", 120_000)
    run = store.run_row(store.run_key("nightly@60000"))
    assert (run.workflow, run.args, run.status) == ("flow", b'{"n":1}', "pending")
    assert (run.scheduled_ms, run.due_ms, run.timeout_ms) == (60_000, 60_000, 5_000)
    assert run.durability == "disk"


def test_a_plan_of_another_version_starts_nothing(store: Store) -> None:
    row = put(store)
    assert fired(store, row, 60_000) is not None
    assert fired(store, row, 60_000) is None
    assert fired(store, row, 120_000) is None
    assert not store.has_run("nightly@120000")


def test_two_processes_start_one_run_for_a_tick(store: Store, other: Store) -> None:
    row = put(store)
    results = [fired(one_store, row, 60_000) for one_store in (store, other, store)]
    assert [result is None for result in results] == [False, True, True]
    assert len(store.run_rows(RunFilter(limit=9))) == 1


def test_a_tick_whose_run_exists_is_that_run(store: Store) -> None:
    put(store, overlap="cancel")
    (started,) = one(store, StartTicks("nightly", [tick(60_000)], 5))
    assert isinstance(started, Started) and started.created
    assert fired(store, store.schedule_row("nightly"), 60_000) == Fired([], [])
    row = store.schedule_row("nightly")
    assert (row.skipped, row.missed, row.held, row.last_ms) == (0, 0, [], 60_000)
    assert store.status("nightly@60000") == "pending"  # it is not what is to be cancelled


def test_skip_leaves_ticks_out_while_a_run_has_not_ended(store: Store) -> None:
    assert fired(store, put(store), 60_000).started == ["nightly@60000"]
    assert fired(store, store.schedule_row("nightly"), 120_000) == Fired([], [])
    assert store.schedule_row("nightly").skipped == 1
    ended(store, "nightly@60000")
    assert fired(store, store.schedule_row("nightly"), 180_000).started == ["nightly@180000"]


def test_of_several_ticks_skip_starts_the_newest(store: Store) -> None:
    row = put(store, catch_up_max=3)
    assert fired(store, row, 60_000, 120_000, 180_000).started == ["nightly@180000"]
    assert store.schedule_row("nightly").skipped == 2


def test_allow_starts_them_all(store: Store) -> None:
    row = put(store, overlap="allow")
    started = fired(store, row, 60_000, 120_000).started
    assert started == ["nightly@60000", "nightly@120000"]
    assert fired(store, store.schedule_row("nightly"), 180_000).started == ["nightly@180000"]


def test_wait_starts_a_tick_when_the_run_before_has_ended(store: Store) -> None:
    assert fired(store, put(store, overlap="wait"), 60_000).started
    assert not store.any_held()
    assert fired(store, store.schedule_row("nightly"), 120_000) == Fired([], [])
    row = store.schedule_row("nightly")
    assert (row.held, row.fire_ms, store.any_held()) == ([120_000], 180_000, True)
    ended(store, "nightly@60000", at_ms=130_000)
    row = store.schedule_row("nightly")
    assert row.fire_ms == 130_000
    done = fired(store, row, at_ms=130_000, next_ms=180_000, fire_ms=180_000, last_ms=120_000)
    assert done.started == ["nightly@120000"]
    row = store.schedule_row("nightly")
    assert (row.held, row.missed, row.skipped, row.fire_ms) == ([], 0, 0, 180_000)


def test_no_more_ticks_wait_than_may_be_caught_up(store: Store) -> None:
    assert fired(store, put(store, overlap="wait", catch_up_max=2), 60_000).started
    for at_ms in (120_000, 180_000, 240_000, 300_000):
        fired(store, store.schedule_row("nightly"), at_ms)
    row = store.schedule_row("nightly")
    assert (row.held, row.missed, row.skipped) == ([240_000, 300_000], 2, 0)


def test_a_tick_that_waits_is_looked_at_also_where_no_other_one_comes(store: Store) -> None:
    assert fired(store, put(store, overlap="wait"), 60_000).started
    fired(store, store.schedule_row("nightly"), 120_000, next_ms=None, fire_ms=None)
    assert store.schedule_row("nightly").fire_ms == NEVER_MS
    ended(store, "nightly@60000", at_ms=130_000)
    assert store.next_fire_ms() == 130_000


def test_cancel_waits_for_the_run_that_it_cancels(store: Store) -> None:
    assert fired(store, put(store, overlap="cancel"), 60_000).started
    worker, run = join(store), store.run_key("nightly@60000")
    assert claim(store, worker, now_ms=70_000) == [run]
    assert fired(store, store.schedule_row("nightly"), 120_000) == Fired([], [run])
    assert [row.kind for row in store.inbox(run, 0)] == ["cancel"]
    fired(store, store.schedule_row("nightly"), 180_000)
    row = store.schedule_row("nightly")
    assert (row.held, row.skipped) == ([180_000], 1)
    assert [row.kind for row in store.inbox(run, 0)] == ["cancel"]  # it may clean up in peace
    one(store, finish(run, worker, "cancelled", 190_000))
    assert store.next_fire_ms() == 190_000


def test_cancel_of_a_run_that_has_not_begun_starts_the_tick_at_once(store: Store) -> None:
    assert fired(store, put(store, overlap="cancel"), 60_000).started
    assert fired(store, store.schedule_row("nightly"), 120_000).started == ["nightly@120000"]
    assert store.status("nightly@60000") == "cancelled"


def test_a_blocked_run_that_is_cancelled_lets_a_tick_go(store: Store) -> None:
    assert fired(store, put(store, overlap="wait"), 60_000).started
    worker, run = join(store), store.run_key("nightly@60000")
    assert claim(store, worker, now_ms=70_000) == [run]
    one(store, suspend(run, worker, "blocked", release=True, blocked_by="code", reason="why"))
    fired(store, store.schedule_row("nightly"), 120_000)
    one(store, Deliver("nightly@60000", "cancel", 150_000, verb="cancel"))
    assert store.next_fire_ms() == 150_000


def test_a_tick_that_can_not_start_stays_due(store: Store) -> None:
    one(store, SetQueue("q", {"waiting_max": 1, "paused": True}, 0))
    enqueue(store, "first")
    row = put(store, queue="q")
    done = fired(store, row, 60_000)
    assert isinstance(done.refused, QueueFull)
    after = store.schedule_row("nightly")
    assert (after.next_ms, after.fire_ms, after.last_ms) == (60_000, 90_000, None)
    assert after.error is not None and "'q' is full" in after.error


def test_a_queue_that_takes_no_run_refuses_the_definition(store: Store) -> None:
    lost = definition("lost", queue="nowhere")
    worker = join(store)
    for write in (SetSchedule(lost, 0), DeclareSchedules(worker, [definition(), lost], 0)):
        assert isinstance(one(store, write), QueueNotFound)
    rate = {"rate_limit": 1.0, "rate_per_ms": 1_000, "rate_burst": 1}
    one(store, SetQueue("q", rate, 0))
    heavy = definition(queue="q", weight=2)
    assert isinstance(one(store, SetSchedule(heavy, 0)), WeightOverBurst)
    assert store.schedule_rows("", 9) == []


def test_schedules_ahead_of_the_clock_are_found(store: Store) -> None:
    assert fired(store, put(store), 60_000).started
    assert store.schedules_ahead(60_000, 10) == []
    assert [row.name for row in store.schedules_ahead(59_999, 10)] == ["nightly"]


# --- runs that are started by hand ----------------------------------------------------------------


def test_runs_by_hand_start_whatever_runs_and_count_as_running(store: Store) -> None:
    assert fired(store, put(store), 60_000).started
    results = one(store, StartTicks("nightly", [tick(1), tick(2), tick(60_000)], 70_000, True))
    assert [(result.id, result.created) for result in results] == [
        ("nightly@1", True), ("nightly@2", True), ("nightly@60000", False),
    ]  # fmt: skip
    assert store.schedule_row("nightly").last_run == "nightly@60000"
    assert fired(store, store.schedule_row("nightly"), 120_000) == Fired([], [])
    assert isinstance(one(store, StartTicks("weekly", [tick(1)], 0)), ScheduleNotFound)


def test_a_backfill_of_a_changed_definition_finds_the_old_runs(store: Store) -> None:
    put(store)
    one(store, StartTicks("nightly", [tick(1)], 0))
    put(store, args=b'{"n":2}')
    (again,) = one(store, StartTicks("nightly", [tick(1)], 0))
    assert isinstance(again, Started) and not again.created


def test_a_retry_of_a_tick_is_a_run_of_its_schedule(store: Store) -> None:
    assert fired(store, put(store), 60_000).started
    ended(store, "nightly@60000", "failed")
    source = store.run_key("nightly@60000")
    retried = one(store, ForkRun(source, "nightly@60000", 2, 70_000, replace=True))
    assert isinstance(retried, Started)
    assert store.run_row(retried.run).scheduled_ms == 60_000
    assert fired(store, store.schedule_row("nightly"), 120_000) == Fired([], [])
    assert store.schedule_row("nightly").skipped == 1


# --- definitions ----------------------------------------------------------------------------------


def test_a_schedule_is_set_once(store: Store) -> None:
    assert put(store).status == "no worker"
    join(store)
    first = store.schedule_row("nightly")
    assert (first.status, first.manual, first.is_declared) == ("active", True, False)
    assert one(store, SetSchedule(definition(next_ms=999_999), 5)) is False
    assert store.schedule_row("nightly") == first


def test_other_times_count_from_now_on(store: Store) -> None:
    put(store)
    row = put(store, next_ms=70_000, args=b'{"n":2}')
    assert (row.next_ms, row.args) == (60_000, '{"n":2}')
    assert put(store, next_ms=70_000, tz="Europe/Berlin").next_ms == 70_000
    assert put(store, next_ms=80_000, expression="@daily").next_ms == 80_000


def test_pause_and_resume(store: Store) -> None:
    join(store)
    row = put(store)

    def control(verb: str, version: int) -> Any:
        return one(store, ControlSchedule("nightly", verb, version, 600_000, 500_000))

    assert control("pause", row.version + 1) is False  # a tick came in between
    assert control("pause", row.version) is True
    row = store.schedule_row("nightly")
    assert (row.status, row.fire_ms, store.next_fire_ms()) == ("paused", None, None)
    assert control("pause", row.version) is False
    assert fired(store, row, 60_000) is None
    assert one(store, SetSchedule(definition(args=b'{"n":3}'), 0))  # stays paused
    row = store.schedule_row("nightly")
    assert (row.status, row.args) == ("paused", '{"n":3}')
    assert control("resume", row.version) is True
    row = store.schedule_row("nightly")
    assert (row.status, row.next_ms, row.fire_ms) == ("active", 600_000, 600_000)
    assert isinstance(one(store, ControlSchedule("x", "pause", 1, None, 0)), ScheduleNotFound)


def test_a_removed_schedule_is_gone_and_its_runs_stay(store: Store) -> None:
    assert fired(store, put(store), 60_000).started
    assert one(store, RemoveSchedule("nightly")) is None
    assert isinstance(one(store, RemoveSchedule("nightly")), ScheduleNotFound)
    assert store.has_run("nightly@60000")
    assert store.next_fire_ms() is None
    ended(store, "nightly@60000")
    with pytest.raises(ScheduleNotFound, match="There are none"):
        store.schedule_row("nightly")


def test_schedules_come_by_name_in_pages(store: Store) -> None:
    for name in ("b", "a", "c"):
        one(store, SetSchedule(definition(name), 0))
    assert [row.name for row in store.schedule_rows("", 2)] == ["a", "b"]
    assert [row.name for row in store.schedule_rows("b", 2)] == ["c"]
    with pytest.raises(ScheduleNotFound, match="There are: a, b, c"):
        store.schedule_row("d")


# --- declarations by code -------------------------------------------------------------------------


def declare(store: Store, worker: int, *given: ScheduleDefinition, again: bool = False) -> Any:
    return one(store, DeclareSchedules(worker, list(given), 0, again))


def test_code_declares_and_changes_a_schedule(store: Store) -> None:
    worker = join(store)
    assert declare(store, worker, definition()) == ["nightly"]
    row = store.schedule_row("nightly")
    assert (row.status, row.manual, row.is_declared) == ("active", False, True)
    assert declare(store, worker, definition()) == []
    later = join(store)
    assert declare(store, later, definition(args=b'{"n":2}')) == ["nightly"]
    assert store.schedule_row("nightly").args == '{"n":2}'
    # a worker of the old code comes back: it does not take the change back
    assert declare(store, worker, definition(), again=True) == []
    assert store.schedule_row("nightly").args == '{"n":2}'


def test_what_an_operator_has_changed_stays_until_the_code_changes(store: Store) -> None:
    declare(store, join(store), definition())
    row = store.schedule_row("nightly")
    assert one(store, ControlSchedule("nightly", "pause", row.version, None, 0))
    assert one(store, SetSchedule(definition(overlap="allow"), 0))
    declare(store, join(store), definition())
    row = store.schedule_row("nightly")
    assert (row.status, row.overlap, row.manual) == ("paused", "allow", True)
    declare(store, join(store), definition(overlap="wait"))
    row = store.schedule_row("nightly")
    assert (row.status, row.overlap, row.manual) == ("paused", "wait", False)
    declare(store, join(store), definition(overlap="wait", paused=True))
    declare(store, join(store), definition(overlap="wait", paused=False))
    assert store.schedule_row("nightly").status == "active"


def test_what_no_live_worker_declares_is_orphaned(store: Store) -> None:
    first, second = join(store), join(store)
    declare(store, first, definition())
    declare(store, second, definition())
    one(store, died(first))
    assert store.schedule_row("nightly").status == "active"
    one(store, died(second))
    assert store.schedule_row("nightly").status == "no worker"
    join(store, asked=True)
    assert store.schedule_row("nightly").status == "no worker"
    join(store)
    row = store.schedule_row("nightly")
    assert (row.status, row.fire_ms, store.next_fire_ms()) == ("orphaned", None, None)
    assert fired(store, row, 60_000) is None
    declare(store, join(store), definition(next_ms=999_000))
    row = store.schedule_row("nightly")
    assert (row.status, row.next_ms, row.fire_ms) == ("active", 60_000, 60_000)  # nothing is lost


def test_what_a_caller_has_set_is_never_orphaned(store: Store) -> None:
    worker, _ = join(store), join(store)
    declare(store, worker, definition())
    assert one(store, SetSchedule(definition(), 0))
    one(store, died(worker))
    row = store.schedule_row("nightly")
    assert (row.status, row.manual, row.fire_ms) == ("active", True, 60_000)


def test_an_orphan_that_is_set_by_a_caller_starts_again(store: Store) -> None:
    worker = join(store)
    declare(store, worker, definition())
    one(store, died(worker))
    assert one(store, SetSchedule(definition(), 0))
    assert store.next_fire_ms() == 60_000


def test_resume_of_an_orphan_starts_nothing(store: Store) -> None:
    worker, _ = join(store), join(store)
    declare(store, worker, definition(paused=True))
    one(store, died(worker))
    row = store.schedule_row("nightly")
    assert one(store, ControlSchedule("nightly", "resume", row.version, 60_000, 0))
    row = store.schedule_row("nightly")
    assert (row.status, row.fire_ms) == ("orphaned", None)


def test_a_worker_that_has_ended_declares_nothing(store: Store) -> None:
    worker = join(store)
    one(store, died(worker))
    assert declare(store, worker, definition()) == []
    assert store.schedule_rows("", 9) == []
