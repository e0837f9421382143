"""Starting runs: what is stored, who owns it, and what a second start of the same id gives."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.core.events import START, Event
from perdure.core.limits import INLINE_BYTES_MAX
from perdure.errors import RunExists, RunNotFound
from perdure.store.base import Store
from perdure.store.rows import RunFilter, Started
from perdure.store.writes import ControlRun, EndWorker, Finish, StartRun, Turn
from tests.store.conformance.support import finish, join, one, owned, queue, row, start

LARGE = b'["' + b"x" * INLINE_BYTES_MAX + b'"]'


def test_everything_that_a_start_says_is_stored(store: Store) -> None:
    queue(store)
    worker = join(store)
    parent = start(store, "parent").run
    asked = StartRun(
        "r", "flow", b"[1]", 7, 5, None, owner=worker, parent=parent, parent_seq=3,
        tags={"team": "a", "n": 1}, queue="q", priority=-2, timeout_ms=60, durability="replica",
        python="3.12", root=parent, first=[Event(1, START, 5), Event(2, "timer", 5, name="t")],
    )  # fmt: skip
    started = one(store, asked)
    assert started == Started(started.run, "r", True, True)
    got = store.run_row(started.run)
    assert (got.id, got.workflow, got.args, got.seed) == ("r", "flow", b"[1]", 7)
    assert (got.status, got.owner, got.due_ms) == ("running", worker, None)
    assert (got.parent, got.parent_seq, got.parent_id, got.root) == (parent, 3, "parent", parent)
    assert (got.queue, got.priority, got.timeout_ms, got.python) == ("q", -2, 60, "3.12")
    assert (got.created_ms, got.started_ms, got.ended_ms, got.history_rows) == (5, 5, None, 2)
    assert (got.result, got.error, got.successor, got.origin, got.crashes) == (None,) * 4 + (0,)
    assert [event.seq for event in store.history(started.run)] == [1, 2]
    assert store.durability("r") == got.durability == "replica"
    assert store.run_key("r") == started.run
    assert store.arguments(started.run) == b"[1]"
    assert store.status("r") == "running"
    assert store.statuses([started.run, parent, 10**6]) == {
        started.run: ("running", None, worker),
        parent: ("pending", None, None),
    }


def test_a_run_without_an_owner_waits_for_one(store: Store) -> None:
    started = start(store, due_ms=9)
    assert (started.created, started.owned) == (True, False)
    got = store.run_row(started.run)
    assert (got.status, got.owner, got.due_ms, got.started_ms) == ("pending", None, 9, None)
    assert store.history(started.run) == []
    assert store.durability("r") is None


def test_the_same_start_again_gives_the_same_run(store: Store, other: Store) -> None:
    started = start(store, args=LARGE)
    for again in (store, other):
        assert start(again, args=LARGE, seed=2, at_ms=50) == Started(started.run, "r", False)
    assert store.run_row(started.run).seed == 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"args": b"[2]"}, "arguments"),
        ({"args": LARGE}, "arguments"),
        ({"workflow": "another"}, "another"),
    ],
)
def test_another_start_under_the_id_is_refused(
    store: Store, more: dict[str, Any], says: str
) -> None:
    started = start(store)
    given: dict[str, Any] = {"workflow": "flow", "args": b"{}", "seed": 1, "at_ms": 0}
    refused = one(store, StartRun("r", due_ms=0, **given | more))
    assert isinstance(refused, RunExists)
    assert says in str(refused)
    assert refused.run == started.run
    assert refused.compare == ((started.run,) if "workflow" not in more else ())


def test_large_arguments_are_compared_as_a_whole(store: Store) -> None:
    start(store, args=LARGE)
    longer = LARGE.replace(b"x", b"y", 1)
    assert isinstance(one(store, StartRun("r", "flow", longer, 1, 0, 0)), RunExists)


def test_a_run_that_went_on_as_another_call_is_found_by_its_first_call(store: Store) -> None:
    run, worker = owned(store, args=b"[1]")
    successor = StartRun("r", "later", b"[2]", 1, 0, None, owner=worker)
    written = one(store, Turn(run, worker, [], 0, finish=Finish("completed", successor=successor)))
    later = written.woken[-1]
    again = start(store, args=b"[1]")
    assert (again.run, again.created) == (later, False)
    assert isinstance(one(store, StartRun("r", "flow", b"[3]", 1, 0, 0)), RunExists)


def test_a_run_that_an_ended_worker_starts_is_free(store: Store, other: Store) -> None:
    _, worker = owned(store)
    assert one(other, EndWorker(worker, 1, crashed=False)) is not None
    started = start(store, "r-2", owner=worker, due_ms=None, at_ms=5, first=[Event(1, START, 5)])
    assert started.created
    assert not started.owned
    got = store.run_row(started.run)
    assert (got.owner, got.status, got.due_ms, got.history_rows) == (None, "pending", 5, 0)


def test_a_start_among_the_effects_of_a_turn(store: Store) -> None:
    run, worker = owned(store)
    child = StartRun("r/1", "flow", b"{}", 1, 0, 0, parent=run, parent_seq=2)
    written = one(store, Turn(run, worker, [], 0, effects=[child, child]))
    assert [(got.id, got.created) for got in written.effects] == [("r/1", True), ("r/1", False)]
    assert store.family(written.effects[0].run).root == written.effects[0].run


def test_ids(store: Store) -> None:
    parent = start(store, "job-1").run
    start(store, "job-2")
    start(store, "job-1/step", parent=parent)
    assert store.has_run("job-1")
    assert not store.has_run("job")
    assert store.find_ids("job", 10) == ["job-1", "job-2"]
    assert store.find_ids("job", 1) == ["job-1"]
    assert store.find_ids("job-1/", 10) == ["job-1/step"]
    assert store.find_ids("none", 10) == []
    for above in ("a", "z"):
        start(store, f"m-{above}", parent=start(store, above).run)
    assert store.find_ids("m", 10) == ["m-a", "m-z"], "children of runs with other names"
    for ask in (store.run_key, store.status, store.run_head):
        with pytest.raises(RunNotFound):
            ask("job")
    with pytest.raises(RunNotFound):
        store.progress("job", 1)


def test_earlier_generations_are_found_by_their_own_ids(store: Store) -> None:
    run, worker = owned(store)
    successor = StartRun("r", "flow", b"[2]", 1, 0, None, owner=worker)
    one(store, Turn(run, worker, [], 0, finish=Finish("completed", successor=successor)))
    start(store, "s~1")
    assert store.find_ids("r", 10) == ["r"]
    assert store.find_ids("r~", 10) == ["r~1"]


@pytest.mark.parametrize("id", ["ü — 😀", "a'b\"c", "%_", "x" * 1000, "a\nb"])
def test_an_id_is_any_text(store: Store, id: str) -> None:
    started = start(store, id)
    assert store.run_key(id) == started.run
    assert store.run_row(started.run).id == id
    assert store.find_ids(id[:2], 5) == [id]


def test_lists_of_runs(store: Store) -> None:
    worker = join(store)
    keys = [
        start(store, f"r-{n}", workflow="ab"[n % 2], tags={"n": n % 3, "all": True}).run
        for n in range(6)
    ]
    run, _ = owned(store, "ends", workflow="a")
    del worker
    one(store, finish(run, store.run_row(run).owner or 0, "completed", result=b"1"))

    def listed(**asked: Any) -> list[int]:
        given = RunFilter(**{"limit": 100, **asked})
        rows, heads = store.run_rows(given), store.run_heads(given)
        assert [one.run for one in rows] == [one.run for one in heads]
        return [one.run for one in rows]

    assert listed() == [run, *reversed(keys)]
    assert listed(limit=2) == [run, keys[5]]
    assert listed(before=keys[3]) == keys[2::-1]
    assert listed(status="pending") == keys[::-1]
    assert listed(status="completed") == [run]
    one(store, ControlRun("r-4", "pause", 0))
    assert listed(status="paused") == [keys[4]]
    assert listed(status="pending", workflow="a") == [keys[2], keys[0]]
    assert listed(status="pending", before=keys[4], limit=2) == [keys[3], keys[2]]
    assert listed(status="paused", tags={"n": 1}) == [keys[4]]
    assert listed(status="failed") == listed(status="paused", tags={"n": 2}) == []
    assert listed(workflow="a") == [run, *keys[4::-2]]
    assert listed(tags={"n": 1}) == [keys[4], keys[1]]
    assert listed(tags={"n": 1, "all": True}, workflow="b") == [keys[1]]
    assert listed(tags={"n": 1, "all": False}) == []
    assert store.unfinished((), None) == keys[::-1]
    assert store.unfinished((), 2) == [keys[5], keys[4]]
    assert store.unfinished(("b",), None) == keys[5::-2]


def test_a_head_is_the_run_without_its_payloads(store: Store) -> None:
    parent = start(store, "parent").run
    queue(store)
    run, worker = owned(store, args=LARGE, parent=parent, tags={"a": 1}, priority=2, queue="q")
    one(store, row(run, worker, 2))
    full, head = store.run_row(run), store.run_head("r")
    for field in ("run", "id", "workflow", "status", "owner", "due_ms", "priority", "queue"):
        assert getattr(head, field) == getattr(full, field)
    assert (head.tags, head.parent_id, head.history_rows) == (full.tags, "parent", 2)
    assert (head.last_kind, head.last_name, head.last_ms) == ("completed", None, 0)
    assert not hasattr(head, "args")
