"""Forks and retries: which rows a new run has, and what happens to the one that it comes from."""

from __future__ import annotations

import json
from typing import Any

from perdure.core.events import COMPLETED, START, Event
from perdure.core.limits import INLINE_BYTES_MAX
from perdure.errors import RunExists
from perdure.store.base import Store
from perdure.store.writes import AdoptChild, Emit, ForkRun, RecordHeartbeat, Turn
from tests.store.conformance.support import (
    claim,
    finish,
    join,
    one,
    owned,
    queue,
    row,
    start,
    step_row,
)

LARGE = b'{"text":"' + b"x" * INLINE_BYTES_MAX * 3 + b'"}'


def grown(store: Store, **more: Any) -> tuple[int, int]:
    """A run with four rows, one of them large, items of a stream, a heartbeat and tags."""
    queue(store)
    run, worker = owned(store, args=LARGE, tags={"a": 1}, priority=3, queue="q", **more)
    for seq in (2, 3, 4):
        one(store, row(run, worker, seq, LARGE if seq == 2 else b"%d" % seq))
    for seq in (2, 4):
        one(store, Emit(run, worker, seq, 1, [("s", b"%d" % seq)], 0))
        one(store, RecordHeartbeat(run, worker, seq, 1, b"%d" % seq, 0))
    return run, worker


def items(store: Store, run: int) -> list[bytes]:
    return [item.data for item in store.stream(run, "s", 0, 10)]


def test_a_fork_has_the_rows_before_its_place(store: Store, other: Store) -> None:
    run, _ = grown(store)
    before = store.run_row(run)
    started = one(store, ForkRun(run, "fork", 4, 9))
    assert (started.id, started.created) == ("fork", True)
    fork = started.run
    assert store.history_page(fork, 0, None) == store.history_page(run, 0, 3)
    got = other.run_row(fork)
    assert (got.args, got.workflow, got.seed, got.priority, got.queue) == (LARGE, "flow", 1, 3, "q")
    assert (got.status, got.due_ms, got.owner, got.created_ms) == ("pending", 9, None, 9)
    assert (got.forked_from, got.origin, got.root, got.parent) == ("r", None, None, None)
    assert json.loads(got.tags or "") == {"a": 1}
    assert items(store, fork) == [b"2"]
    assert store.heartbeat(fork, 2) is None, "its attempts are others"
    assert store.run_row(run) == before
    assert items(store, run) == [b"2", b"4"]
    assert claim(store, join(store), 9) == [fork]


def test_a_fork_with_other_rows_and_arguments(store: Store) -> None:
    run, _ = grown(store)
    edited = LARGE.replace(b"x", b"y")
    fork = ForkRun(
        run, "fork", 4, 9, extra=[Event(4, "note", 9, name="fork")], args=edited, left_out=[3],
        edits=[(2, edited)],
    )  # fmt: skip
    made = one(store, fork).run
    got = store.history_page(made, 0, None)
    assert [event.seq for event in got] == [1, 2, 4]
    assert (got[1].data, got[1].edited, got[2].name) == (edited, True, "fork")
    assert store.arguments(made) == edited
    assert store.history_page(run, 1, 1)[0].data == LARGE


def test_a_fork_goes_on_with_large_payloads(store: Store) -> None:
    """What it writes shares the pieces that it was copied with."""
    run, _ = grown(store)
    made = one(store, ForkRun(run, "fork", 3, 9)).run
    worker = join(store)
    assert claim(store, worker, 9) == [made]
    grown_list = b'{"texts":[' + LARGE + b"," + LARGE + b"]}"
    for seq in (3, 4):
        one(store, row(made, worker, seq, grown_list))
    assert [event.data for event in store.history_page(made, 2, None)] == [grown_list] * 2
    assert store.history_page(run, 1, 1)[0].data == LARGE


def test_a_fork_needs_an_id_of_its_own(store: Store) -> None:
    run, _ = grown(store)
    start(store, "taken")
    for id in ("r", "taken"):
        assert isinstance(one(store, ForkRun(run, id, 2, 9)), RunExists)


def test_a_fork_of_a_fork_names_the_run_it_comes_from(store: Store) -> None:
    run, _ = grown(store)
    first = one(store, ForkRun(run, "first", 4, 9)).run
    second = one(store, ForkRun(first, "second", 3, 9)).run
    assert store.run_row(second).forked_from == "first"
    assert len(store.history(second)) == 2


def test_a_retry_takes_over_the_id(store: Store) -> None:
    top = start(store, "top").run
    run, worker = grown(store, parent=top, parent_seq=5, root=top, durability="replica")
    one(store, finish(run, worker, "failed", error=b'"no"'))
    ended = store.run_row(run)
    started = one(store, ForkRun(run, "r", 4, 9, replace=True, parent=(top, 5)))
    got = store.run_row(started.run)
    assert (started.id, store.run_key("r"), got.status) == ("r", started.run, "pending")
    assert (got.origin, got.root, got.parent, got.parent_seq) == (run, top, top, 5)
    assert (got.durability, got.forked_from) == ("replica", None)
    old = store.run_row(run)
    assert (old.id, old.status, old.error) == ("r~1", "failed", b'"no"')
    assert old.history_rows == ended.history_rows
    assert store.generation_after(run) == started.run
    assert items(store, started.run) == [b"2"]
    assert items(store, run) == [b"4"]
    assert store.heartbeat(started.run, 2) == b"2", "the attempt goes on from it"
    assert store.heartbeat(started.run, 4) is None


def test_a_retry_of_a_retry_has_the_first_runs_origin(store: Store) -> None:
    run, worker = grown(store)
    one(store, finish(run, worker, "failed"))
    second = one(store, ForkRun(run, "r", 2, 9, replace=True)).run
    worker = join(store)
    assert claim(store, worker, 9) == [second]
    one(store, finish(second, worker, "cancelled"))
    third = one(store, ForkRun(second, "r", 2, 9, replace=True)).run
    assert [store.run_row(one).id for one in (run, second, third)] == ["r~1", "r~2", "r"]
    assert store.run_row(third).origin == run
    assert [store.generation_after(one) for one in (run, second, third)] == [second, third, None]


def test_a_run_is_retried_once(store: Store, other: Store) -> None:
    run, worker = owned(store)
    one(store, finish(run, worker, "failed"))
    again = ForkRun(run, "r", 2, 9, replace=True)
    assert one(store, again).created
    assert isinstance(one(other, again), RunExists)
    assert isinstance(one(other, ForkRun(run, "none", 2, 9, replace=True)), RunExists)


def test_a_retried_child_answers_its_parent_only_where_that_waits(store: Store) -> None:
    parent, worker = owned(store, "parent")
    run, of_run = owned(store, parent=parent, parent_seq=2)
    one(store, finish(run, of_run, "failed"))
    assert len(store.inbox(parent, 0)) == 1
    again = one(store, ForkRun(run, "r", 2, 9, replace=True)).run
    owner = join(store)
    assert claim(store, owner, 9) == [again]
    assert one(store, AdoptChild(again, parent)) is True
    one(store, finish(again, owner, "completed"))
    assert len(store.inbox(parent, 0)) == 1
    assert worker


def test_rows_behind_a_retry_follow_those_that_were_kept(store: Store) -> None:
    run, worker = grown(store)
    one(store, finish(run, worker, "failed"))
    again = one(store, ForkRun(run, "r", 3, 9, replace=True)).run
    owner = join(store)
    assert claim(store, owner, 9) == [again]
    one(store, Turn(again, owner, [step_row(3), Event(4, COMPLETED, 9, ref=3)], 9))
    assert [event.seq for event in store.history(again)] == [1, 2, 3, 4]
    assert store.history(again)[0] == Event(1, START, 0)
