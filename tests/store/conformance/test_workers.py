"""Workers: joining, leases, and what becomes of the runs of one that leaves or dies."""

from __future__ import annotations

import os

import pytest

from perdure.core.events import START, Event
from perdure.store.base import Store
from perdure.store.rows import Started, WorkerEnded, Written
from perdure.store.writes import (
    ControlRun,
    Deliver,
    EndWorker,
    JoinWorker,
    RenewLease,
    StartRun,
)
from tests.store.conformance.support import (
    TTL_MS,
    claim,
    died,
    finish,
    join,
    message,
    one,
    owned,
    start,
    suspend,
)


def test_a_worker_is_listed_until_it_ends(store: Store, other: Store) -> None:
    worker = one(store, JoinWorker("name", "host", 7, "born", 100, 50, asked=True))
    (got,) = other.workers()
    assert (got.worker, got.name, got.host, got.pid, got.born) == (
        worker, "name", "host", 7, "born",
    )  # fmt: skip
    assert (got.lease_ms, got.ttl_ms, got.beats, got.asked) == (150, 50, 0, 1)
    assert one(other, EndWorker(worker, 120, crashed=False)) == WorkerEnded(0, [])
    assert store.workers() == other.workers() == []


def test_a_number_is_never_used_again(store: Store) -> None:
    first = join(store)
    one(store, EndWorker(first, 1, crashed=False))
    assert join(store) != first


def test_a_lease_is_renewed_by_a_write_or_beside_the_store(store: Store, other: Store) -> None:
    worker = join(store)
    assert one(store, RenewLease(worker, 500)) is True
    connection = store.lease_connection(1000)
    if connection is not None:
        assert connection.renew(worker, 600) is True
    (got,) = other.workers()
    assert (got.lease_ms, got.beats) == ((600, 2) if connection is not None else (500, 1))
    one(other, EndWorker(worker, 700, crashed=True))
    assert one(store, RenewLease(worker, 900)) is False
    if connection is not None:
        assert connection.renew(worker, 900) is False
        connection.close()
    assert store.workers() == []


def test_a_worker_that_has_renewed_its_lease_since_is_not_ended(store: Store, other: Store) -> None:
    run, worker = owned(store)
    (seen,) = other.workers()
    one(store, RenewLease(worker, TTL_MS * 2))
    assert one(other, EndWorker(worker, 1, crashed=True, beats=seen.beats)) is None
    assert store.run_row(run).owner == worker
    (seen,) = other.workers()
    assert one(other, EndWorker(worker, 1, crashed=True, beats=seen.beats)) == WorkerEnded(1, [])


def test_a_worker_ends_once(store: Store, other: Store) -> None:
    _, worker = owned(store)
    assert one(store, EndWorker(worker, 1, crashed=True)) == WorkerEnded(1, [])
    assert one(other, EndWorker(worker, 2, crashed=True)) is None
    assert one(other, EndWorker(10**6, 2, crashed=True)) is None


def test_runs_of_a_worker_that_leaves_are_due_as_they_should_be(store: Store) -> None:
    worker = join(store)
    runs = {name: start(store, name, owner=worker).run for name in ("busy", "timer", "mail")}
    one(store, suspend(runs["timer"], worker, "waiting", due_ms=900))
    one(store, suspend(runs["mail"], worker, "waiting"))
    one(store, message("mail", at_ms=20))
    assert one(store, EndWorker(worker, 50, crashed=False)) == WorkerEnded(3, [])
    got = {name: store.run_row(run) for name, run in runs.items()}
    assert {
        name: (row.status, row.due_ms, row.owner, row.crashes) for name, row in got.items()
    } == {
        "busy": ("pending", 50, None, 0),
        "timer": ("waiting", 900, None, 0),
        "mail": ("waiting", 50, None, 0),
    }
    assert not store.is_executed("flow")


def test_only_a_run_that_was_executed_counts_a_crash(store: Store) -> None:
    worker = join(store)
    busy = start(store, "busy", owner=worker).run
    idle = start(store, "idle", owner=worker).run
    one(store, suspend(idle, worker, "waiting"))
    one(store, died(worker, 5))
    assert [store.run_row(run).crashes for run in (busy, idle)] == [1, 0]


def test_a_run_that_crashes_too_often_is_blocked(store: Store) -> None:
    run, worker = owned(store)
    assert one(store, died(worker, 1, 2)) == WorkerEnded(1, [])
    second = join(store)
    assert claim(store, second, 1) == [run]
    ended = one(store, died(second, 2, 2))
    assert ended.freed == 0
    ((id, workflow, reason),) = ended.blocked
    assert (id, workflow) == ("r", "flow")
    assert "2 times" in reason
    got = store.run_row(run)
    assert (got.status, got.blocked_by, got.reason) == ("blocked", "crash_loop", reason)
    assert (got.due_ms, got.owner, got.crashes) == (None, None, 2)
    one(store, ControlRun("r", "retry", 3))
    got = store.run_row(run)
    assert (got.status, got.due_ms, got.crashes, got.reason) == ("pending", 3, 0, None)


def test_a_run_that_waits_is_not_blocked_for_earlier_crashes(store: Store) -> None:
    """Another engine may allow fewer crashes; it does not judge runs that were not executed."""
    run, worker = owned(store)
    one(store, died(worker, 1, 5))
    second = join(store)
    assert claim(store, second, 1) == [run]
    one(store, suspend(run, second, "waiting"))
    assert one(store, died(second, 2, 1)) == WorkerEnded(1, [])
    assert store.run_row(run).status == "waiting"


def test_a_cancel_that_waits_ends_a_run_that_crashes_too_often(store: Store) -> None:
    parent, parents = owned(store, "parent")
    worker = join(store)
    child = start(store, "c", owner=worker, parent=parent, parent_seq=2).run
    one(store, suspend(parent, parents, "waiting", release=True))
    one(store, Deliver("c", "cancel", 0, verb="cancel"))
    one(store, died(worker, 4, 1))
    assert store.run_row(child).status == "cancelled"
    assert [arrived.kind for arrived in store.inbox(parent, 0)] == ["failed"]
    assert store.run_row(parent).due_ms == 4


def test_what_a_worker_owns(store: Store, other: Store) -> None:
    worker = join(store)
    runs = {name: start(store, name, owner=worker).run for name in ("a", "b", "c")}
    assert other.is_executed("flow")
    assert not other.is_executed("none")
    one(other, ControlRun("a", "pause", 1))
    one(other, message("b"))
    one(other, message("b"))
    assert store.paused_of(worker) == [runs["a"]]
    assert store.inboxes_of(worker) == [runs["b"]]
    one(store, finish(runs["c"], worker, "completed"))
    assert store.paused_of(worker + 1) == store.inboxes_of(worker + 1) == []


@pytest.mark.parametrize("crashed", [True, False])
def test_a_paused_run_stays_paused(store: Store, crashed: bool) -> None:
    run, worker = owned(store)
    one(store, ControlRun("r", "pause", 1))
    one(store, EndWorker(worker, 2, crashed=crashed, crashes_max=1))
    got = store.run_row(run)
    assert (got.status, got.owner, got.crashes) == ("paused", None, 0)
    assert claim(store, join(store), 10) == []


def test_a_worker_takes_a_longer_lease_only_while_it_owns_no_run(
    store: Store, other: Store
) -> None:
    worker, long_ms = join(store), 30 * TTL_MS

    def length_ms() -> int:
        return other.workers()[0].ttl_ms

    assert one(store, RenewLease(worker, long_ms, long_ms)) is True
    assert length_ms() == long_ms
    short, started = store.write(
        [
            RenewLease(worker, TTL_MS, TTL_MS),
            StartRun("r", "flow", b"{}", 1, 0, None, owner=worker, first=[Event(1, START, 0)]),
        ],
        True,
    )
    assert short is True
    assert isinstance(started, Started)
    assert length_ms() == TTL_MS
    assert one(store, RenewLease(worker, long_ms, long_ms)) is False
    assert one(store, RenewLease(worker, 2 * TTL_MS)) is True
    assert length_ms() == TTL_MS
    assert isinstance(one(store, finish(started.run, worker, "completed")), Written)
    assert one(store, RenewLease(worker, long_ms, long_ms)) is True
    assert length_ms() == long_ms


def test_files_that_are_watched_are_written_to_by_a_commit(store: Store, other: Store) -> None:
    def written() -> list[tuple[int, int]]:
        found = [os.stat(path) for path in store.watched]
        return [(one.st_mtime_ns, one.st_size) for one in found]

    before = written()
    join(other)
    assert store.when_damaged is None
    assert (written() != before) is bool(store.watched)


def test_a_store_that_has_rested_reads_and_writes_as_before(store: Store, other: Store) -> None:
    worker = join(store)
    for _ in range(3):
        store.rest()
        run = start(other, f"r{_}").run
        assert store.changed_by_others()
        assert claim(store, worker) == [run]
        assert [row.worker for row in store.workers()] == [worker]
    store.rest()
    assert not store.changed_by_others()
