"""Batches: one transaction each, undone as a whole, and what a store tells about itself."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from perdure.errors import LeaseLost, RunNotFound, StoreLocked
from perdure.store.base import Store
from perdure.store.rows import Woken
from perdure.store.writes import BatchRolledBack, ControlRun, StartRun, Transact
from tests.store.conformance.support import OpenStore, join, message, one, owned, row, start


def test_a_refused_write_leaves_the_rest_of_its_batch(store: Store, other: Store) -> None:
    run, worker = owned(store)
    got = store.write(
        [message(), message("nobody"), row(run, worker + 9, 2), row(run, worker, 2)], True
    )
    assert [type(result) for result in got] == [Woken, RunNotFound, LeaseLost, type(None)]
    assert len(other.history(run)) == 2
    assert len(other.inbox(run, 0)) == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_write_that_can_not_be_applied_undoes_its_batch(store: Store, place: int) -> None:
    run, worker = owned(store)
    batch: list[Any] = [message(), message()]
    batch.insert(place, StartRun("bad", "flow", None, 1, 0, 0))  # type: ignore[arg-type]
    with pytest.raises(BatchRolledBack) as rolled_back:
        store.write(batch, True)
    assert rolled_back.value.index == place
    assert rolled_back.value.__cause__ is not None
    assert store.inbox(run, 0) == []
    assert one(store, row(run, worker, 2)) is None


def test_a_row_with_a_number_that_is_taken_undoes_the_batch(store: Store) -> None:
    run, worker = owned(store)
    with pytest.raises(BatchRolledBack):
        store.write([message(), row(run, worker, 1)], True)
    assert store.inbox(run, 0) == []
    assert [event.seq for event in store.history(run)] == [1]


def test_a_batch_sees_what_it_has_written(store: Store) -> None:
    worker = join(store)
    begin = StartRun("r", "flow", b"{}", 1, 0, None, owner=worker)
    got: list[Any] = store.write([begin, message(), ControlRun("r", "pause", 0), begin], True)
    assert got[0].created
    assert not got[3].created
    assert store.status("r") == "paused"
    assert len(store.inbox(got[0].run, 0)) == 1


def test_nothing_is_seen_before_the_commit(store: Store, other: Store) -> None:
    run, worker = owned(store)
    seen: list[int] = []

    def work(db: Any) -> None:
        seen.append(len(other.inbox(run, 0)))

    store.write([message(), Transact(run, worker, work, lambda value, error: None)], True)
    assert seen == [0]
    assert len(other.inbox(run, 0)) == 1


def test_what_another_writer_has_locked_is_waited_for_or_refused_at_once(
    store: Store, other: Store
) -> None:
    run, worker = owned(store)
    inside, leave = threading.Event(), threading.Event()

    def hold(db: Any) -> None:
        inside.set()
        assert leave.wait(60)

    holder = Transact(run, worker, hold, lambda value, error: None)
    thread = threading.Thread(target=store.write, args=([holder], True))
    thread.start()
    try:
        assert inside.wait(60)
        with pytest.raises(StoreLocked):
            other.write([row(run, worker, 2)], False)
        waited: list[Any] = []
        second = threading.Thread(
            target=lambda: waited.extend(other.write([row(run, worker, 2)], True))
        )
        second.start()
    finally:
        leave.set()
        thread.join()
    second.join()
    assert waited == [None]
    assert other.write([row(run, worker, 3)], False) == [None]
    assert len(other.history(run)) == 3


def test_a_store_notices_commits_of_others(store: Store, other: Store) -> None:
    start(store)
    store.changed_by_others()
    assert not store.changed_by_others()
    one(store, message())
    assert not store.changed_by_others(), "its own do not count"
    one(other, message())
    assert store.changed_by_others()
    assert not store.changed_by_others()


def test_a_commit_of_another_is_seen_in_the_watched_files(store: Store, other: Store) -> None:
    def states() -> list[tuple[int, int]]:
        return [(os.stat(path).st_mtime_ns, os.stat(path).st_size) for path in store.watched]

    start(store)
    before = states()
    store.changed_by_others()
    one(other, message())
    assert store.changed_by_others()
    assert states() != before or not store.watched


def test_a_store_without_damage_reports_none(store: Store) -> None:
    called: list[None] = []
    assert store.when_damaged is None
    store.when_damaged = lambda: called.append(None)
    start(store)
    one(store, message("nobody"))
    store.when_damaged = None
    assert store.damaged is None
    assert called == []


def test_a_store_tells_about_itself(store: Store) -> None:
    assert store.path
    assert store.damaged is None
    store.check_identity()
    run, worker = owned(store)
    one(store, row(run, worker, 2))
    assert store.commit_ms >= 0
    facts = store.facts(10_000)
    assert facts["runs"] == {"running": 1}
    assert isinstance(facts["schema_version"], int)
    assert list(facts["stuck"]) == []


def test_runs_are_counted_by_status(store: Store) -> None:
    assert store.status_counts() == {}
    for id in ("a", "b", "c"):
        start(store, id)
    one(store, ControlRun("b", "pause", 0))
    assert store.status_counts() == {"pending": 2, "paused": 1}


def test_runs_that_are_stuck_are_listed(store: Store) -> None:
    start(store, "pending")
    start(store, "paused")
    one(store, ControlRun("paused", "pause", 0))
    start(store, "fresh", due_ms=9_000)
    found = {stuck["id"]: stuck["status"] for stuck in store.facts(10_000)["stuck"]}
    assert found == {"pending": "pending", "paused": "paused"}


def test_a_store_that_is_opened_later_has_everything(
    store: Store, other: Store, open_store: OpenStore
) -> None:
    run, worker = owned(store)
    one(store, row(run, worker, 2))
    again = open_store()
    assert again.history(run) == other.history(run) == store.history(run)
    assert again.run_row(run) == store.run_row(run)
