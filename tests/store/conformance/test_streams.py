"""Streams and heartbeats: what steps and workflows show while they run."""

from __future__ import annotations

from perdure.core.events import EMIT, Event
from perdure.store.base import Store
from perdure.store.writes import Append, Emit, RecordHeartbeat
from tests.store.conformance.support import one, owned, start


def test_items_are_read_from_a_position_on(store: Store, other: Store) -> None:
    run, worker = owned(store)
    for n in range(3):
        items = [("tokens", b"%d" % n), ("log", b'"line %d"' % n)]
        assert one(store, Emit(run, worker, 2, 1, items, n)) is None
    tokens = other.stream(run, "tokens", 0, 10)
    assert [item.data for item in tokens] == [b"0", b"1", b"2"]
    assert [item.recorded for item in tokens] == [False] * 3
    assert other.stream(run, "tokens", tokens[0].position, 10) == tokens[1:]
    assert other.stream(run, "tokens", 0, 2) == tokens[:2]
    assert len(other.stream(run, "log", 0, 10)) == 3
    assert other.stream(run, "none", 0, 10) == []
    assert other.stream_place(tokens[1].position) == (run, "r", "tokens")
    assert other.stream_place(10**9) is None


def test_an_item_of_a_workflow_is_part_of_its_history(store: Store) -> None:
    run, worker = owned(store)
    large = b'"' + b"x" * 5_000 + b'"'
    rows = [Event(2, EMIT, 0, name="s", data=b"1"), Event(3, EMIT, 0, name="s", data=large)]
    one(store, Append(run, worker, list(rows)))
    for event in rows:
        one(store, Emit(run, worker, event.seq, 0, [("s", b"ignored")], 0))
    got = store.stream(run, "s", 0, 10)
    assert [(item.data, item.recorded) for item in got] == [(b"1", True), (large, True)]


def test_positions_grow_over_all_runs(store: Store) -> None:
    (a, of_a), (b, of_b) = owned(store, "a"), owned(store, "b")
    for run, worker in ((a, of_a), (b, of_b), (a, of_a)):
        one(store, Emit(run, worker, 1, 1, [("s", b"1")], 0))
    places = [store.stream(run, "s", 0, 10) for run in (a, b)]
    assert places[0][0].position < places[1][0].position < places[0][1].position


def test_the_last_heartbeat_of_a_step_counts(store: Store, other: Store) -> None:
    run, worker = owned(store)
    assert store.heartbeat(run, 2) is None
    for attempt, data in ((1, b"1"), (2, b'{"page":7}')):
        assert one(store, RecordHeartbeat(run, worker, 2, attempt, data, 0)) is None
    one(store, RecordHeartbeat(run, worker, 3, 1, b"3", 0))
    assert other.heartbeat(run, 2) == b'{"page":7}'
    assert other.heartbeat(run, 3) == b"3"
    assert other.heartbeat(start(store, "b").run, 2) is None
