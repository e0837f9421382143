"""Turns: rows of history, what a turn changes beside them, and how a run ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.core.events import (
    CHILD,
    COMPLETED,
    FAILED,
    FINISH,
    MESSAGE,
    START,
    STEP,
    Command,
    Event,
)
from perdure.core.limits import Limits
from perdure.errors import PayloadTooLarge
from perdure.store.base import Store
from perdure.store.rows import RunFilter, Written
from perdure.store.writes import AdoptChild, Append, Finish, StartRun, Suspend, Turn
from tests.store.conformance.support import (
    OpenStore,
    claim,
    died,
    finish,
    join,
    message,
    one,
    owned,
    row,
    start,
    step_row,
    suspend,
)


def test_rows_come_back_as_they_were_written(store: Store, other: Store) -> None:
    run, worker = owned(store)
    rows = [
        Event(2, STEP, 10, name="work ü", data=b'{"a":"\xc3\xbc"}'),
        Event(3, COMPLETED, 20, ref=2, data=b"1.50", took_ms=7),
        Event(4, "note", 30, edited=True),
    ]
    assert one(store, Append(run, worker, list(rows))) is None
    for reader in (store, other):
        assert reader.history(run) == [Event(1, START, 0), *rows]
        assert reader.history(run, 2) == rows[1:]
        assert reader.history_page(run, 1, 2) == rows[:2]
        assert reader.history_page(run, 0, None) == [Event(1, START, 0), *rows]
        assert reader.history_page(run, 4, 5) == []
        assert reader.rows_about(run, 2) == rows[:2]
        assert reader.rows_about(run, 9) == []
        assert reader.row_names(run, [2, 4, 9]) == {2: "work ü", 4: "note"}
        assert reader.row_names(run, []) == {}
    assert store.run_row(run).history_rows == 4


def test_commands_are_rows_too(store: Store) -> None:
    run, worker = owned(store)
    one(store, Append(run, worker, [Command(2, STEP, 5, name="work", data=b"{}", call=object())]))
    assert store.history(run, 1) == [Event(2, STEP, 5, name="work", data=b"{}")]


def test_rows_of_many_runs_in_one_batch(store: Store) -> None:
    (a, of_a), (b, of_b) = owned(store, "a"), owned(store, "b")
    assert store.write([row(a, of_a, 2), row(b, of_b, 2), row(a, of_a, 3)], True) == [None] * 3
    assert [event.seq for event in store.history(a)] == [1, 2, 3]
    assert [event.seq for event in store.history(b)] == [1, 2]


def test_a_turn_suspends_its_run(store: Store) -> None:
    run, worker = owned(store)
    waiting = suspend(run, worker, "waiting", waiting=b'["timer"]', due_ms=50)
    assert one(store, waiting) == Written([], [])
    got = store.run_row(run)
    assert (got.status, got.waiting, got.due_ms, got.owner) == ("waiting", '["timer"]', 50, worker)
    one(store, suspend(run, worker, None, release=True))
    got = store.run_row(run)
    assert (got.status, got.waiting, got.due_ms, got.owner) == ("waiting", '["timer"]', 50, None)


def test_a_run_that_is_released_with_a_full_inbox_is_due_at_once(store: Store) -> None:
    run, worker = owned(store)
    one(store, message(at_ms=5))
    one(store, suspend(run, worker, "waiting", at_ms=7, due_ms=1000, release=True))
    assert store.run_row(run).due_ms == 7


def test_a_blocked_run_says_why(store: Store) -> None:
    run, worker = owned(store)
    why: dict[str, Any] = {"blocked_by": "nondeterminism", "reason": "line 3", "release": True}
    one(store, suspend(run, worker, "blocked", **why))
    got = store.outcome(run)
    assert (got.status, got.blocked_by, got.reason) == ("blocked", "nondeterminism", "line 3")
    assert store.blocked_in(store.family(run), 5) == [("r", "nondeterminism", "line 3")]


def test_tags_are_merged_and_removed(store: Store) -> None:
    run, worker = owned(store, tags={"a": 1, "b": "x"})
    for tags in ({"a": None, "c": [1, {"d": 2}]}, {"c": 3}):
        one(store, Turn(run, worker, [], 0, tags=tags))
    assert json.loads(store.run_row(run).tags or "") == {"b": "x", "c": 3}

    def found(tags: dict[str, Any]) -> list[int]:
        rows = store.run_rows(RunFilter(tags=tags, limit=5))
        return [one.run for one in rows]

    assert found({"c": 3}) == found({"b": "x", "c": 3}) == [run]
    assert found({"a": 1}) == found({"c": [1, {"d": 2}]}) == []


def test_tags_that_are_too_large_refuse_the_turn(open_store: OpenStore) -> None:
    store = open_store(Limits(payload_bytes_max=50))
    run, worker = owned(store)
    one(store, Turn(run, worker, [], 0, tags={"a": "x" * 30}))
    refused = one(store, Turn(run, worker, [Event(2, STEP, 0)], 0, tags={"b": "x" * 30}))
    assert isinstance(refused, PayloadTooLarge)
    assert [event.seq for event in store.history(run)] == [1]


def test_a_turn_notes_the_python_and_that_its_run_made_progress(store: Store) -> None:
    run, worker = owned(store)
    one(store, died(worker))
    assert store.run_row(run).crashes == 1
    again = join(store)
    assert claim(store, again) == [run]
    one(store, Turn(run, again, [], 0, settled=True, python="3.13"))
    got = store.run_row(run)
    assert (got.crashes, got.python) == (0, "3.13")


def test_a_run_that_ends_gives_its_result(store: Store) -> None:
    run, worker = owned(store)
    rows = [Event(2, FINISH, 9, name="completed", data=b"[1]")]
    end = Turn(run, worker, list(rows), 9, finish=Finish("completed", b"[1]"))
    assert one(store, end) == Written([], [])
    got = store.run_row(run)
    assert (got.status, got.result, got.error, got.ended_ms) == ("completed", b"[1]", None, 9)
    assert (got.owner, got.due_ms, got.waiting, got.history_rows) == (None, None, None, 2)
    ended = store.outcome(run)
    assert (ended.status, ended.result, ended.id, ended.successor) == (
        "completed", b"[1]", "r", None,
    )  # fmt: skip
    assert store.history(run, 1)[0].data is None, "the result is stored once, with the run"


def test_a_run_that_fails_gives_its_error(store: Store) -> None:
    run, worker = owned(store)
    one(store, finish(run, worker, "failed", error=b'{"message":"no"}'))
    assert store.outcome(run).error == b'{"message":"no"}'
    assert store.run_head("r").error == b'{"message":"no"}'


def test_an_end_closes_the_inbox(store: Store) -> None:
    run, worker = owned(store)
    one(store, message())
    one(store, finish(run, worker, "completed"))
    assert store.inbox(run, 0) == []


@pytest.mark.parametrize(
    ("status", "given", "kind", "data"),
    [
        ("completed", {"result": b"[1]"}, COMPLETED, [1]),
        ("completed", {}, COMPLETED, None),
        ("failed", {"error": b'"no"'}, FAILED, {"error": "no", "run": "c", "status": "failed"}),
        ("cancelled", {}, FAILED, {"error": None, "run": "c", "status": "cancelled"}),
    ],
)
def test_a_parent_learns_of_the_end_of_its_child(
    store: Store, status: str, given: dict[str, Any], kind: str, data: Any
) -> None:
    parent, worker = owned(store)
    child = start(store, "c", owner=worker, parent=parent, parent_seq=4).run
    one(store, suspend(parent, worker, "waiting", release=True))
    assert one(store, finish(child, worker, status, at_ms=8, **given)).woken == [parent]
    (arrived,) = store.inbox(parent, 0)
    assert (arrived.kind, arrived.ref, arrived.run, arrived.at_ms) == (kind, 4, parent, 8)
    assert json.loads(arrived.data or b"") == data
    assert store.run_row(parent).due_ms == 8


def test_a_parent_of_a_later_generation_is_woken_without_an_answer(store: Store) -> None:
    first, worker = owned(store)
    child = start(store, "c", owner=worker, parent=first, parent_seq=4).run
    later = start(store, "later", owner=worker).run
    one(store, suspend(later, worker, "waiting", release=True))
    assert one(store, AdoptChild(child, later)) is True
    assert one(store, finish(child, worker, "completed", at_ms=6)).woken == [later]
    assert store.inbox(later, 0) == store.inbox(first, 0) == []
    assert store.run_row(later).due_ms == 6
    assert one(store, AdoptChild(child, later)) is False, "it has ended"


def test_a_successor_takes_over_the_id_and_what_is_unread(store: Store) -> None:
    run, worker = owned(store)
    one(store, message(data=b'"waits"'))
    taken = store.inbox(run, 0)[0].id
    one(store, message(data=b'"later"'))
    successor = StartRun("r", "flow", b"[2]", 1, 5, None, owner=worker)
    end = Turn(run, worker, [Event(2, MESSAGE, 0)], 5, taken=[(taken, 2)])
    end.finish = Finish("completed", successor=successor, leftovers=[("channel", b'"left"')])
    later = one(store, end).woken[-1]
    assert store.run_key("r") == later
    assert store.run_row(run).id == "r~1"
    assert store.run_row(run).successor == later == store.generation_after(run)
    assert store.generation_after(later) is None
    assert [arrived.data for arrived in store.inbox(later, 0)] == [b'"left"', b'"later"']
    got = store.run_row(later)
    assert (got.status, got.owner, got.args) == ("running", worker, b"[2]")
    third = StartRun("r", "flow", b"[3]", 1, 6, 6)
    newest = one(
        store, Turn(later, worker, [], 6, finish=Finish("completed", successor=third))
    ).woken[-1]
    assert [store.generation_after(one) for one in (run, later, newest)] == [later, newest, None]
    assert store.run_row(newest).status == "pending"


def test_the_parent_of_a_run_that_continues_waits_for_its_successor(store: Store) -> None:
    parent, worker = owned(store)
    child = start(store, "c", owner=worker, parent=parent, parent_seq=4).run
    successor = StartRun("c", "flow", b"[2]", 1, 5, None, owner=worker, parent=parent)
    successor.parent_seq = 4
    end = Turn(child, worker, [], 5, finish=Finish("completed", successor=successor))
    later = one(store, end).woken[-1]
    assert store.inbox(parent, 0) == []
    one(store, finish(later, worker, "completed", result=b"3"))
    (arrived,) = store.inbox(parent, 0)
    assert (arrived.ref, arrived.data) == (4, b"3")


def test_effects_are_applied_in_the_same_transaction(store: Store) -> None:
    (run, worker), (to, of_it) = owned(store, "a"), owned(store, "b")
    one(store, suspend(to, of_it, "waiting", release=True))
    effects = [message("b"), message("nobody")]
    written = one(store, Turn(run, worker, [Event(2, STEP, 0)], 4, effects=list(effects)))
    assert written.woken == [to]
    assert [type(got).__name__ for got in written.effects] == ["Woken", "RunNotFound"]
    assert len(store.inbox(to, 0)) == 1


def test_progress_counts_steps_and_names_open_ones(store: Store) -> None:
    run, worker = owned(store)
    rows = [
        step_row(2, "first"),
        Event(3, COMPLETED, 0, ref=2, data=b"1"),
        step_row(4, "second"),
        Event(5, FAILED, 0, ref=4, data=b'{"message":"no"}'),
        step_row(6, "third"),
        step_row(7, "fourth"),
        Event(8, CHILD, 0, name="flow", data=b"{}"),
        Event(9, COMPLETED, 0, ref=8, data=b"1"),
    ]
    turn = Turn(run, worker, list(rows), 0, suspend=Suspend("waiting", b'["x"]', None))
    one(store, turn)
    got = store.progress("r", 5)
    assert (got.status, got.waiting, got.scheduled) == ("waiting", '["x"]', 4)
    assert (got.completed, got.failed, got.abandoned) == (1, 1, 0)
    assert got.open == ["third", "fourth"]
    assert got.error == rows[3]
    assert got.error_of == "second"
    assert store.progress("r", 1).open == ["third"]


def test_a_run_is_loaded_by_its_owner_as_a_whole(store: Store, other: Store) -> None:
    run, worker = owned(store)
    store.write([row(run, worker, 2), message(), row(run, worker, 3)], True)
    assert isinstance(store.inline, bool)
    for reader in (store, other):
        loaded = reader.load(run, worker, 3)
        assert loaded is not None
        assert loaded.row == store.run_row(run)
        assert loaded.history == store.history(run)
        assert loaded.inbox == store.inbox(run, 0)
    assert store.load(run, join(store), 3) is None
    one(store, finish(run, worker, "completed"))
    assert store.load(run, worker, 3) is None


def test_a_history_that_is_too_long_is_not_loaded(store: Store) -> None:
    run, worker = owned(store)
    store.write([row(run, worker, 2), row(run, worker, 3)], True)
    loaded = store.load(run, worker, 2)
    assert loaded is not None
    assert loaded.row.history_rows == 3
    assert loaded.history == []


def test_a_parent_that_has_ended_gets_no_answer(store: Store) -> None:
    """Nothing would ever take it: it would stay in the inbox with its data."""
    parent, worker = owned(store)
    child = start(store, "c", owner=worker, parent=parent, parent_seq=2).run
    one(store, finish(parent, worker, "cancelled"))
    one(store, finish(child, worker, "completed", result=b"1"))
    assert store.inbox(parent, 0) == []
    assert store.outcome(child).result == b"1"
