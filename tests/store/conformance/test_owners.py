"""Ownership: a write of another than the owner is refused, whenever the owner changed."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.core.events import FAILED, START, Event
from perdure.errors import LeaseLost
from perdure.store.base import Store
from perdure.store.writes import (
    BatchRolledBack,
    Emit,
    EndWorker,
    RecordHeartbeat,
    StartRun,
    Transact,
    Turn,
)
from tests.store.conformance.support import claim, finish, join, one, owned, row, suspend


def test_an_owner_writes_however_often_others_commit(store: Store, other: Store) -> None:
    run, worker = owned(store)
    for seq in range(2, 6):
        join(other)
        assert one(store, row(run, worker, seq)) is None
    assert [event.seq for event in other.history(run)] == [1, 2, 3, 4, 5]


def test_a_worker_that_another_process_has_ended_writes_nothing(store: Store, other: Store) -> None:
    run, worker = owned(store)
    assert one(store, row(run, worker, 2)) is None
    assert one(other, EndWorker(worker, 1, crashed=False))
    assert isinstance(one(store, row(run, worker, 3)), LeaseLost)
    assert [event.seq for event in other.history(run)] == [1, 2]


def test_a_run_that_another_worker_has_claimed_since_is_that_ones(
    store: Store, other: Store
) -> None:
    run, worker = owned(store)
    one(other, EndWorker(worker, 1, crashed=True))
    second = join(other)
    assert claim(other, second, 1) == [run]
    assert isinstance(one(store, row(run, worker, 2)), LeaseLost)
    assert one(other, row(run, second, 2)) is None


@pytest.mark.parametrize(
    "leave",
    [
        lambda run, worker: EndWorker(worker, 1, crashed=False),
        lambda run, worker: suspend(run, worker, "waiting", release=True),
        lambda run, worker: finish(run, worker, "completed", result=b"1"),
    ],
    ids=["the worker ends", "the run is released", "the run ends"],
)
@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "later"])
def test_a_former_owner_writes_nothing(store: Store, leave: Any, together: bool) -> None:
    run, worker = owned(store)
    assert one(store, row(run, worker, 2)) is None
    writes = [leave(run, worker), row(run, worker, 3)]
    batches = [writes] if together else [[write] for write in writes]
    results = [result for batch in batches for result in store.write(batch, True)]
    assert isinstance(results[-1], LeaseLost)
    assert [event.seq for event in store.history(run)] == [1, 2]


@pytest.mark.parametrize(
    "write",
    [
        lambda run, worker: Turn(run, worker, [Event(2, FAILED, 0)], 0, tags={"a": 1}),
        lambda run, worker: Emit(run, worker, 1, 1, [("s", b"1")], 0),
        lambda run, worker: RecordHeartbeat(run, worker, 1, 1, b"1", 0),
        lambda run, worker: Transact(run, worker, pytest.fail, lambda value, error: None),
    ],
    ids=["turn", "emit", "heartbeat", "transact"],
)
def test_every_write_of_an_owner_is_refused_to_others(store: Store, write: Any) -> None:
    run, _ = owned(store)
    before = store.run_row(run)
    assert isinstance(one(store, write(run, join(store))), LeaseLost)
    assert isinstance(one(store, write(10**6, join(store))), LeaseLost)
    assert store.run_row(run) == before
    assert store.stream(run, "s", 0, 9) == []
    assert store.heartbeat(run, 1) is None


def test_what_a_rolled_back_batch_has_made_known_is_forgotten(store: Store) -> None:
    worker = join(store)
    start = StartRun("r", "flow", b"{}", 1, 0, None, owner=worker, first=[Event(1, START, 0)])
    with pytest.raises(BatchRolledBack):
        store.write([start, row(1, worker, 1)], True)
    assert not store.has_run("r")
    assert isinstance(one(store, row(1, worker, 2)), LeaseLost)


def test_another_worker_of_the_same_process_is_another_owner(store: Store) -> None:
    run, worker = owned(store)
    assert isinstance(one(store, row(run, join(store), 2)), LeaseLost)
    assert one(store, row(run, worker, 2)) is None


def test_an_ended_worker_claims_nothing(store: Store, other: Store) -> None:
    run, worker = owned(store)
    assert one(other, EndWorker(worker, 1, crashed=False))
    assert store.next_due_ms(("flow",)) == 1
    assert claim(store, worker, 5) == []
    assert claim(other, worker, 5) == []
    assert claim(other, join(other), 5) == [run]
