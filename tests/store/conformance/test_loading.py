"""What an owner needs to go on with a run: row, history, inbox and heartbeats, as one value."""

from __future__ import annotations

from perdure.core.events import Event
from perdure.store.base import Store
from perdure.store.writes import Append, Deliver, RecordHeartbeat
from tests.store.conformance.support import finish, join, one, owned, row, step_row


def test_a_run_is_loaded_by_its_owner(store: Store, other: Store) -> None:
    run, worker = owned(store)
    one(store, Append(run, worker, [step_row(2), step_row(3)]))
    one(store, row(run, worker, 4))
    for seq in (2, 3):
        one(store, RecordHeartbeat(run, worker, seq, 1, b"%d" % seq, 0))
    one(store, Append(run, worker, [Event(5, "completed", 0, ref=3, data=b"1")]))
    one(store, Deliver("r", "message", 0, "news", None, None, b"7"))
    loaded = other.load(run, worker, 100)
    assert loaded is not None
    assert loaded.row == store.run_row(run)
    assert [event.seq for event in loaded.history] == [1, 2, 3, 4, 5]
    assert [(found.name, found.data) for found in loaded.inbox] == [("news", b"7")]
    assert loaded.heartbeats == {2: b"2"}, "the step in row 3 has its outcome"
    assert isinstance(other.inline, bool)


def test_a_run_of_another_or_an_ended_one_is_not_loaded(store: Store) -> None:
    run, worker = owned(store)
    assert store.load(run, join(store), 100) is None
    one(store, finish(run, worker, "completed"))
    assert store.load(run, worker, 100) is None


def test_a_history_that_is_too_long_is_not_read(store: Store) -> None:
    run, worker = owned(store)
    one(store, row(run, worker, 2))
    loaded = store.load(run, worker, 1)
    assert loaded is not None
    assert (loaded.row.history_rows, loaded.history, loaded.heartbeats) == (2, [], {})
