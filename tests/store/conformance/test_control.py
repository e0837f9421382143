"""Control: pause, resume, retry, cancel and resolve, beyond what the table of statuses says."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.errors import RunBlocked, RunFinished, RunNotFound, StepNotWaiting
from perdure.store.base import Store
from perdure.store.rows import Woken
from perdure.store.writes import ClockMovedBack, ControlRun, Deliver, Family, Turn, WakeBlocked
from tests.store.conformance.support import (
    claim,
    finish,
    join,
    message,
    one,
    owned,
    start,
    suspend,
)

CANCEL = Deliver("r", "cancel", 7, verb="cancel")


def block(store: Store, run: int, worker: int, by: str = "nondeterminism") -> None:
    one(store, suspend(run, worker, "blocked", blocked_by=by, reason="why", release=True))


@pytest.mark.parametrize("verb", ["pause", "resume", "retry"])
def test_a_verb_for_no_run_or_one_that_has_ended_is_refused(store: Store, verb: str) -> None:
    assert isinstance(one(store, ControlRun("r", verb, 0)), RunNotFound)
    run, worker = owned(store)
    one(store, finish(run, worker, "failed"))
    refused = one(store, ControlRun("r", verb, 0))
    assert isinstance(refused, RunFinished)
    assert "failed" in str(refused)


def test_a_paused_run_that_has_not_started_keeps_its_time(store: Store) -> None:
    run = start(store, due_ms=500).run
    assert one(store, ControlRun("r", "pause", 1)) == Woken(run)
    assert claim(store, join(store), 1000) == []
    assert one(store, ControlRun("r", "resume", 2)) == Woken(run)
    got = store.run_row(run)
    assert (got.status, got.due_ms) == ("pending", 500)


def test_a_paused_run_that_has_started_is_due_at_once_when_it_is_resumed(store: Store) -> None:
    run, worker = owned(store)
    one(store, suspend(run, worker, "waiting", waiting=b"1", due_ms=900, release=True))
    one(store, ControlRun("r", "pause", 1))
    one(store, message())
    one(store, ControlRun("r", "resume", 5))
    got = store.run_row(run)
    assert (got.status, got.due_ms, got.waiting) == ("pending", 5, None)


def test_a_suspended_turn_does_not_end_a_pause(store: Store) -> None:
    run, worker = owned(store)
    one(store, ControlRun("r", "pause", 1))
    for status in ("running", "waiting", "pending"):
        one(store, suspend(run, worker, status))
        assert store.status("r") == "paused"
    one(store, suspend(run, worker, None, release=True))
    assert store.run_row(run).owner is None


def test_a_blocked_run_is_not_resumed_and_says_why(store: Store) -> None:
    run, worker = owned(store)
    block(store, run, worker)
    refused = one(store, ControlRun("r", "resume", 1))
    assert isinstance(refused, RunBlocked)
    assert "why" in str(refused)
    assert store.run_row(run).reason == "why"


def test_a_retry_lets_a_blocked_run_go_on(store: Store) -> None:
    run, worker = owned(store)
    block(store, run, worker)
    assert one(store, ControlRun("r", "retry", 5)) == Woken(run)
    got = store.run_row(run)
    assert (got.status, got.due_ms, got.blocked_by, got.reason) == ("pending", 5, None, None)


def test_a_run_that_is_blocked_and_paused_keeps_its_reason(store: Store) -> None:
    run, worker = owned(store)
    block(store, run, worker)
    one(store, ControlRun("r", "pause", 1))
    got = store.run_row(run)
    assert (got.status, got.blocked_by, got.reason) == ("paused", "nondeterminism", "why")
    one(store, WakeBlocked(("flow",), 2))
    assert store.status("r") == "paused"


def test_other_code_wakes_what_its_code_has_blocked(store: Store) -> None:
    runs = {}
    for by in ("nondeterminism", "code", "store", "unknown_outcome", "crash_loop", "history"):
        runs[by], worker = owned(store, by)
        block(store, runs[by], worker, by)
    one(store, WakeBlocked(("other",), 5))
    assert {store.run_row(run).status for run in runs.values()} == {"blocked"}
    one(store, WakeBlocked(("flow",), 6))
    woken = {by for by, run in runs.items() if store.run_row(run).status == "pending"}
    assert woken == {"nondeterminism", "code", "store"}
    got = store.run_row(runs["code"])
    assert (got.due_ms, got.reason, got.blocked_by) == (6, None, None)


def test_other_code_wakes_runs_with_messages_that_their_code_did_not_receive(store: Store) -> None:
    runs = []
    for n in range(2):
        run, worker = owned(store, f"r{n}")
        one(store, Turn(run, worker, [], 0, unread=n))
        one(store, suspend(run, worker, "waiting", release=True))
        runs.append(run)
    one(store, WakeBlocked(("other",), 5))
    one(store, WakeBlocked(("flow",), 5, store.family(runs[0])))
    assert [store.run_row(run).due_ms for run in runs] == [None, None]
    one(store, WakeBlocked(("flow",), 6))
    assert [store.run_row(run).due_ms for run in runs] == [None, 6]


def test_only_a_family_is_woken_where_one_is_given(store: Store) -> None:
    (top, worker), (other, of_other) = owned(store, "top"), owned(store, "other")
    below = start(store, "below", owner=worker, root=top).run
    for run, owner in ((top, worker), (below, worker), (other, of_other)):
        block(store, run, owner)
    assert [id for id, *_ in store.blocked_in(Family(top, top), 5)] == ["top", "below"]
    assert len(store.blocked_in(Family(top, top), 1)) == 1
    one(store, WakeBlocked(("flow",), 6, Family(top, top)))
    assert [store.status(id) for id in ("top", "below", "other")] == [
        "pending", "pending", "blocked",
    ]  # fmt: skip


def test_one_cancel_waits_at_most(store: Store) -> None:
    run, worker = owned(store)
    one(store, suspend(run, worker, "waiting", release=True))
    for _ in range(3):
        assert one(store, CANCEL) == Woken(run)
    assert [row.kind for row in store.inbox(run, 0)] == ["cancel"]
    assert store.run_row(run).due_ms == 7


def test_a_run_that_has_not_started_is_cancelled_at_once_and_its_parent_learns_of_it(
    store: Store,
) -> None:
    parent, worker = owned(store, "parent")
    run = start(store, parent=parent, parent_seq=2, due_ms=900).run
    one(store, suspend(parent, worker, "waiting", release=True))
    assert one(store, CANCEL) == Woken(run, [parent])
    got = store.run_row(run)
    assert (got.status, got.ended_ms, got.due_ms) == ("cancelled", 7, None)
    assert [(row.kind, row.ref) for row in store.inbox(parent, 0)] == [("failed", 2)]


def test_a_blocked_run_is_cancelled_with_its_children(store: Store) -> None:
    run, worker = owned(store)
    new = start(store, "new", parent=run, parent_seq=2).run
    busy = start(store, "busy", parent=run, parent_seq=3, owner=worker).run
    below = start(store, "below", parent=new, parent_seq=1).run
    done = start(store, "done", parent=run, parent_seq=4, owner=worker).run
    one(store, finish(done, worker, "completed"))
    block(store, run, worker)
    woken = one(store, CANCEL)
    assert woken.run == run
    assert {new, busy} <= {*woken.others}
    assert [store.run_row(one).status for one in (run, new, busy, done)] == [
        "cancelled", "cancelled", "running", "completed",
    ]  # fmt: skip
    assert store.run_row(below).status == "cancelled"
    assert [row.kind for row in store.inbox(busy, 0)] == ["cancel"]


def test_a_run_that_is_blocked_while_a_cancel_waits_is_cancelled(store: Store) -> None:
    parent, of_parent = owned(store, "parent")
    run, worker = owned(store, parent=parent, parent_seq=2)
    one(store, suspend(parent, of_parent, "waiting", release=True))
    one(store, CANCEL)
    why: dict[str, Any] = {"blocked_by": "code", "reason": "why", "release": True}
    written = one(store, suspend(run, worker, "blocked", at_ms=9, **why))
    assert written.woken == [parent]
    assert store.run_row(run).status == "cancelled"
    assert store.run_row(run).ended_ms == 9


def test_a_cancel_and_a_resolution_end_a_pause(store: Store) -> None:
    for id, kind in (("a", "cancel"), ("b", "resolve")):
        run, worker = owned(store, id)
        one(store, suspend(run, worker, "waiting", release=True))
        one(store, ControlRun(id, "pause", 1))
        assert one(store, Deliver(id, kind, 8, ref=3, data=b"{}", verb=kind)) == Woken(run)
        got = store.run_row(run)
        assert (got.status, got.due_ms) == ("pending", 8)
        (row,) = store.inbox(run, 0)
        assert (row.kind, row.ref) == (kind, 3)


def test_the_same_decision_about_a_step_waits_once(store: Store) -> None:
    run, worker = owned(store)
    again, later = b'{"wait":9,"retry":true}', b'{"wait":99,"result":1}'

    def decide(ref: int, data: bytes, at_ms: int = 1) -> None:
        assert one(store, Deliver("r", "resolve", at_ms, ref=ref, data=data)) == Woken(run)

    for ref, data in ((2, again), (2, again), (3, again), (2, later), (2, later)):
        decide(ref, data)
    refused = one(store, Deliver("r", "resolve", 1, ref=2, data=b'{"wait":9,"result":1}'))
    assert isinstance(refused, StepNotWaiting), "the first one ends the wait"
    rows = store.inbox(run, 0)
    assert [(row.ref, row.data) for row in rows] == [(2, again), (3, again), (2, later)]
    one(store, Turn(run, worker, [], 0, taken=[(rows[0].id, 0)]))
    assert store.inbox(run, 0) == rows[1:], "it is taken without a row of history"
    decide(2, again)
    assert [row.ref for row in store.inbox(run, 0)] == [3, 2, 2]
    one(store, suspend(run, worker, "waiting", release=True))
    one(store, ControlRun("r", "pause", 1))
    decide(3, again, at_ms=8)
    got = store.run_row(run)
    assert (got.status, got.due_ms) == ("pending", 8), "the second ends a pause, too"


def test_what_was_due_at_once_is_due_when_the_clock_is_set_back(store: Store) -> None:
    at_once = start(store, "at once", at_ms=1000, due_ms=1000).run
    later = start(store, "later", at_ms=1000, due_ms=5000).run
    timer, worker = owned(store, "timer")
    one(store, suspend(timer, worker, "waiting", due_ms=3000, release=True))
    mail, worker = owned(store, "mail")
    one(store, suspend(mail, worker, "waiting", release=True))
    one(store, message("mail", at_ms=1000))
    back, worker = owned(store, "back")
    one(store, suspend(back, worker, "pending", due_ms=1000, release=True))
    one(store, ClockMovedBack(10))
    runs = (at_once, later, timer, mail, back)
    assert [store.run_row(run).due_ms for run in runs] == [10, 5000, 3000, 10, 10]
