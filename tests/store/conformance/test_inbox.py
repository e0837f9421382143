"""Inboxes: messages arrive in order and, with a key, once, over all generations of a run."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.core.events import MESSAGE, Event
from perdure.core.limits import Limits
from perdure.errors import InboxFull, RunFinished, RunNotFound
from perdure.store.base import Store
from perdure.store.rows import Woken
from perdure.store.writes import Deliver, Finish, ForkRun, StartRun, Turn
from tests.store.conformance.support import OpenStore, finish, message, one, owned, start, suspend


def channels(store: Store, run: int) -> list[bytes | None]:
    return [row.data for row in store.inbox(run, 0)]


def continue_as(store: Store, run: int, worker: int, at_ms: int = 10) -> int:
    """End a run in a successor under its id; gives the successor."""
    successor = StartRun("r", "flow", b"{}", 1, at_ms, None, owner=worker)
    end = Turn(run, worker, [], at_ms, finish=Finish("completed", successor=successor))
    return int(one(store, end).woken[-1])


def test_messages_arrive_in_their_order(store: Store, other: Store) -> None:
    run = start(store).run
    for n in range(6):
        sender = other if n % 2 else store
        sent = Deliver("r", "message", n, f"c{n}", None, None, b"%d" % n)
        assert one(sender, sent) == Woken(run)
    rows = store.inbox(run, 0)
    assert [(row.kind, row.name, row.data, row.at_ms) for row in rows] == [
        ("message", f"c{n}", b"%d" % n, n) for n in range(6)
    ]
    assert {row.run for row in rows} == {run}
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    assert store.inbox(run, rows[3].id) == rows[4:]
    assert store.inbox(run, rows[-1].id) == []


def test_an_inbox_is_read_a_thousand_rows_at_a_time(store: Store) -> None:
    run = start(store).run
    store.write([message(data=b"%d" % n) for n in range(1_100)], True)
    first = store.inbox(run, 0)
    assert len(first) == 1_000
    assert len(store.inbox(run, first[-1].id)) == 100


def test_what_a_turn_takes_leaves_the_inbox(store: Store) -> None:
    run, worker = owned(store)
    store.write([message(data=b"1"), message(data=b"2")], True)
    (first, second) = store.inbox(run, 0)
    one(store, Turn(run, worker, [Event(2, MESSAGE, 0)], 0, taken=[(first.id, 2)]))
    assert store.inbox(run, 0) == [second]


def test_a_message_wakes_a_run_that_waits(store: Store) -> None:
    run, worker = owned(store)
    one(store, suspend(run, worker, "waiting", due_ms=500, release=True))
    one(store, message(at_ms=20))
    assert store.run_row(run).due_ms == 20
    one(store, message(at_ms=30))
    assert store.run_row(run).due_ms == 20


def test_a_message_does_not_start_a_run_before_its_time(store: Store) -> None:
    run = start(store, due_ms=500).run
    one(store, message(at_ms=20))
    assert store.run_row(run).due_ms == 500


def test_a_message_leaves_a_run_to_its_owner(store: Store) -> None:
    run, worker = owned(store)
    one(store, suspend(run, worker, "waiting"))
    one(store, message(at_ms=20))
    got = store.run_row(run)
    assert (got.due_ms, got.owner, got.status) == (None, worker, "waiting")


@pytest.mark.parametrize("kind", ["message", "cancel", "resolve"])
def test_what_is_sent_to_no_run_is_refused(store: Store, kind: str) -> None:
    refused = one(store, Deliver("none", kind, 0, "c", data=b"1", verb="send to"))
    assert isinstance(refused, RunNotFound)


def test_what_is_sent_to_a_run_that_has_ended_is_refused(store: Store) -> None:
    run, worker = owned(store)
    one(store, finish(run, worker, "completed"))
    refused = one(store, message())
    assert isinstance(refused, RunFinished)
    assert "completed" in str(refused)
    assert store.inbox(run, 0) == []


def test_a_full_inbox_refuses_messages_and_takes_a_cancel(open_store: OpenStore) -> None:
    store = open_store(Limits(inbox_rows_max=2))
    run, worker = owned(store)
    got = store.write([message(), message(), message()], True)
    assert [type(one) for one in got] == [Woken, Woken, InboxFull]
    assert isinstance(one(store, Deliver("r", "cancel", 0)), Woken)
    taken = store.inbox(run, 0)[0].id
    one(store, Turn(run, worker, [Event(2, MESSAGE, 0)], 0, taken=[(taken, 2)], unread=1))
    assert isinstance(one(store, message()), InboxFull), "a message that was not received counts"
    one(store, Turn(run, worker, [], 0, unread=0))
    assert one(store, message()) == Woken(run)


def test_a_key_arrives_once(store: Store, other: Store) -> None:
    run, worker = owned(store)
    for sender in (store, other, store):
        assert one(sender, message(key="k")) == Woken(run)
    one(store, message(key="l", data=b"2"))
    assert channels(store, run) == [b"1", b"2"]
    taken = store.inbox(run, 0)[0].id
    one(store, Turn(run, worker, [Event(2, MESSAGE, 0)], 0, taken=[(taken, 2)]))
    assert one(store, message(key="k")) == Woken(run)
    assert channels(store, run) == [b"2"]
    one(store, finish(run, worker, "completed"))
    assert one(store, message(key="k")) == Woken(run), "a sender can't know of the end"
    assert isinstance(one(store, message(key="m")), RunFinished)


def test_a_key_twice_in_a_batch_arrives_once(store: Store) -> None:
    run = start(store).run
    assert store.write([message(key="k"), message(key="k")], True) == [Woken(run)] * 2
    assert channels(store, run) == [b"1"]


def test_keys_are_of_one_run(store: Store) -> None:
    runs = [start(store, id).run for id in ("a", "b")]
    for id in ("a", "b"):
        one(store, message(id, key="k"))
    assert [channels(store, run) for run in runs] == [[b"1"], [b"1"]]


def test_a_key_stays_used_over_generations(store: Store) -> None:
    run, worker = owned(store)
    one(store, message(key="first"))
    latest = continue_as(store, run, worker)
    assert channels(store, latest) == [b"1"]
    for key in ("first", "second", "second"):
        one(store, message(key=key, data=b'"%s"' % key.encode()))
    assert channels(store, latest) == [b"1", b'"second"']
    latest = continue_as(store, latest, worker, 20)
    for key in ("first", "second"):
        one(store, message(key=key))
    assert channels(store, latest) == [b"1", b'"second"']
    assert [store.has_run(id) for id in ("r~1", "r~2", "r~3")] == [True, True, False]


def test_a_key_stays_used_after_a_retry(store: Store) -> None:
    run, worker = owned(store)
    one(store, message(key="k", data=b'"unread"'))
    one(store, finish(run, worker, "failed"))
    later = one(store, ForkRun(run, "r", 2, 5, replace=True)).run
    assert channels(store, later) == [b'"unread"'], "what was not read is not lost"
    one(store, message(key="k"))
    assert channels(store, later) == [b'"unread"']


def test_a_retry_gives_back_what_was_received_behind_its_cut(store: Store) -> None:
    run, worker = owned(store)
    store.write([message(data=b'"read"'), message(data=b'"unread"')], True)
    taken = store.inbox(run, 0)[0].id
    received = Event(2, MESSAGE, 3, name="channel", data=b'"read"')
    one(store, Turn(run, worker, [received], 0, taken=[(taken, 2)]))
    one(store, finish(run, worker, "failed"))
    again = ForkRun(run, "r", 2, 5, replace=True, returned=[received])
    later = one(store, again).run
    assert channels(store, later) == [b'"read"', b'"unread"']


def test_a_fork_gets_no_messages_of_its_source(store: Store) -> None:
    run = owned(store)[0]
    one(store, message())
    fork = one(store, ForkRun(run, "fork", 2, 5)).run
    assert store.inbox(fork, 0) == []


@pytest.mark.parametrize("data", [b'"\xc3\xbc"', b'"' + b"x" * 50_000 + b'"', b"null", None])
def test_data_comes_back_as_it_was_sent(store: Store, data: Any) -> None:
    run = start(store).run
    one(store, Deliver("r", "message", 0, "c", 4, None, data))
    (row,) = store.inbox(run, 0)
    assert (row.data, row.ref) == (data, 4)
