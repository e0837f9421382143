"""Queues: who is admitted, in which order, and how places come back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.errors import LeaseLost, QueueFull, QueueNotFound, RunExists, WeightOverBurst
from perdure.store.base import Store
from perdure.store.rows import Claimed, Place, Started, Written
from perdure.store.writes import (
    Append,
    AskPlace,
    ControlRun,
    Deliver,
    EndWorker,
    Finish,
    ForkRun,
    ReleasePlaces,
    StartRun,
    Suspend,
    Turn,
    WakeBlocked,
)
from tests.store.conformance.queue_support import (
    ask,
    asking,
    claimed,
    end,
    enqueue,
    free,
    ids,
    refused,
    waiting,
    written,
)
from tests.store.conformance.support import (
    died,
    join,
    message,
    one,
    owned,
    queue,
    start,
    suspend,
)

# --- runs -----------------------------------------------------------------------------------------


def test_a_queue_with_room_admits_a_run_with_its_start(store: Store) -> None:
    queue(store, concurrency=1)
    worker = join(store)
    first = enqueue(store, "a", owner=worker)
    assert (first.owned, store.status("a")) == (True, "running")
    second = enqueue(store, "b", owner=worker)
    assert (second.created, second.owned, second.queue_due) == (True, False, False)
    row = store.run_row(second.run)
    assert (row.status, row.owner, row.due_ms, row.started_ms) == ("waiting", None, None, None)
    assert json.loads(row.waiting or "") == [{"queue": "q"}]
    assert waiting(store) == (1, 1)
    assert store.next_due_ms(("flow",), worker=worker) is None
    assert claimed(store, worker).runs == []
    assert end(store, first.run, worker, 5).queue_due
    assert store.next_due_ms(("flow",), worker=worker) == 5
    assert claimed(store, worker, 5) == Claimed([second.run], [], queued=True)
    row = store.run_row(second.run)
    assert (row.status, row.owner, row.started_ms, row.waiting) == ("running", worker, 5, None)
    assert waiting(store) == (0, 1)
    end(store, second.run, worker)
    assert waiting(store) == (0, 0)


def test_a_start_without_an_owner_waits_for_a_claim(store: Store, other: Store) -> None:
    queue(store)
    started = enqueue(store, "a", 7)
    assert (started.owned, started.queue_due) == (False, True)
    worker = join(other)
    assert other.next_due_ms(("flow",), worker=worker) == 7
    assert other.next_due_ms(("another",), worker=worker) is None
    assert claimed(other, worker, 7, names=("another",)).runs == []
    assert claimed(other, worker, 7).runs == [started.run]


def test_the_same_start_again_gives_the_run_that_waits(store: Store) -> None:
    queue(store, concurrency=1, waiting_max=1)
    worker = join(store)
    enqueue(store, "a", owner=worker)
    run = enqueue(store, "b", owner=worker).run
    assert enqueue(store, "b", owner=worker) == Started(run, "b", False)
    error = refused(store, StartRun("b", "flow", b"[2]", 1, 0, 0, queue="q"))
    assert isinstance(error, RunExists)
    assert waiting(store) == (1, 1)


def test_a_start_that_no_queue_takes_leaves_nothing(store: Store) -> None:
    queue(store, concurrency=1, waiting_max=1, rate_limit=5, rate_per_ms=1, rate_burst=5)
    worker = join(store)

    def begun(id: str, **more: Any) -> StartRun:
        return StartRun(id, "flow", b"{}", 1, 0, 0, worker, **{"queue": "q", **more})

    enqueue(store, "a", owner=worker)
    enqueue(store, "b", owner=worker)
    for write, kind in (
        (begun("c", queue="none"), QueueNotFound),
        (begun("c"), QueueFull),
        (begun("c", weight=6), WeightOverBurst),
    ):
        assert isinstance(refused(store, write), kind)
        assert not store.has_run("c")
    error = refused(store, begun("c", queue="none"))
    assert "There are: q." in str(error)
    assert waiting(store) == (1, 1)
    child = Turn(1, worker, [], 0, effects=[begun("c")])
    assert isinstance(written(store, child).effects[0], QueueFull)


def test_a_run_with_a_date_asks_when_it_is_due(store: Store) -> None:
    queue(store, concurrency=1)
    worker = join(store)
    first = enqueue(store, "a", owner=worker).run
    later = enqueue(store, "b", owner=worker, due_ms=50, priority=9).run
    assert (store.status("b"), waiting(store)) == ("pending", (0, 1))
    assert store.next_due_ms(("flow",), worker=worker) == 50
    assert claimed(store, worker, 49).runs == []
    assert claimed(store, worker, 50).runs == []
    assert (store.status("b"), waiting(store)) == ("waiting", (1, 1))
    end(store, first, worker, 60)
    assert claimed(store, worker, 60).runs == [later]
    third = enqueue(store, "c", owner=worker, due_ms=70).run
    end(store, later, worker, 65)
    assert claimed(store, worker, 70).runs == [third]
    assert waiting(store) == (0, 1)


def test_what_runs_ask_with_is_kept_by_retry_fork_and_continue_as(store: Store) -> None:
    queue(store, concurrency=1)
    worker = join(store)
    run = enqueue(store, "a", owner=worker, key="k", priority=3, weight=2).run
    successor = StartRun("a", "flow", b"[2]", 0, 1, 1)
    one(store, Turn(run, worker, [], 1, finish=Finish("completed", successor=successor)))
    after = store.run_row(store.run_key("a"))
    assert (after.queue, after.key, after.priority, after.weight) == ("q", "k", 3, 2)
    assert waiting(store) == (0, 1), "its place is handed on"
    other = enqueue(store, "b", 1, owner=worker).run
    assert claimed(store, worker, 1).runs == [after.run]
    one(store, Turn(after.run, worker, [], 2, finish=Finish("failed", error=b"1")))
    again = one(store, ForkRun(after.run, "a", 1, 2, replace=True))
    row = store.run_row(again.run)
    assert (row.queue, row.key, row.priority, row.weight) == ("q", "k", 3, 2)
    assert claimed(store, worker, 2).runs == [again.run], "it asks anew, and is first by priority"
    assert waiting(store) == (1, 1)
    end(store, again.run, worker, 3)
    assert claimed(store, worker, 3).runs == [other]


# --- cancel, pause, block -------------------------------------------------------------------------


def test_a_run_in_line_is_cancelled_at_once(store: Store) -> None:
    queue(store, concurrency=1)
    worker = join(store)
    first = enqueue(store, "a", owner=worker).run
    enqueue(store, "b", owner=worker)
    third = enqueue(store, "c", owner=worker).run
    one(store, Deliver("b", "cancel", 1, verb="cancel"))
    assert store.status("b") == "cancelled"
    assert waiting(store) == (1, 1)
    end(store, first, worker, 2)
    assert claimed(store, worker, 2).runs == [third]


def test_messages_do_not_let_a_run_in_line_overtake(store: Store) -> None:
    queue(store, concurrency=1)
    worker = join(store)
    first = enqueue(store, "a", owner=worker).run
    second = enqueue(store, "b", owner=worker).run
    one(store, message("b"))
    one(store, WakeBlocked(("flow",), 5))
    assert claimed(store, worker, 5).runs == []
    assert store.next_due_ms(("flow",), worker=worker) is None
    end(store, first, worker, 6)
    assert claimed(store, worker, 6).runs == [second]
    assert [one.data for one in store.inbox(second, 0)] == [b"1"]


def test_a_paused_run_in_line_keeps_its_number(store: Store) -> None:
    queue(store, concurrency=1)
    worker = join(store)
    first = enqueue(store, "a", owner=worker).run
    second = enqueue(store, "b", owner=worker).run
    third = enqueue(store, "c", owner=worker).run
    one(store, ControlRun("b", "pause", 1))
    assert (store.status("b"), waiting(store)) == ("paused", (1, 1))
    end(store, first, worker, 2)
    assert claimed(store, worker, 2).runs == [third]
    fourth = enqueue(store, "d", owner=worker).run
    one(store, ControlRun("b", "resume", 3))
    assert store.status("b") == "pending"
    assert claimed(store, worker, 3).runs == []
    assert (store.status("b"), waiting(store)) == ("waiting", (2, 1))
    end(store, third, worker, 4)
    assert claimed(store, worker, 4).runs == [second], "it is older than the one that waited"
    end(store, second, worker, 5)
    assert claimed(store, worker, 5).runs == [fourth]


@pytest.mark.parametrize("way", ["paused", "blocked"])
def test_a_run_that_a_person_keeps_gives_its_place_back(store: Store, way: str) -> None:
    queue(store, concurrency=1)
    worker = join(store)
    first = enqueue(store, "a", owner=worker).run
    second = enqueue(store, "b", owner=worker).run
    if way == "paused":
        one(store, ControlRun("a", "pause", 1))
        assert waiting(store) == (1, 1), "its steps may be at work until its owner lets go of it"
        stops: Any = Turn(first, worker, [], 2, suspend=Suspend(None, release=True))
    else:
        stops = suspend(first, worker, "blocked", 2, blocked_by="code", release=True)
    assert written(store, stops).queue_due
    assert waiting(store) == (1, 0)
    assert claimed(store, worker, 2).runs == [second]
    one(store, ControlRun("a", "retry", 3))
    assert claimed(store, worker, 3).runs == []
    assert (store.status("a"), waiting(store)) == ("waiting", (1, 1))
    assert store.run_row(first).started_ms == 0
    one(store, Deliver("a", "cancel", 4, verb="cancel"))
    assert store.status("a") == "waiting", "it has code to unwind, and waits for its place"
    end(store, second, worker, 5)
    assert claimed(store, worker, 5).runs == [first]


def test_a_run_without_an_owner_gives_its_place_back_when_it_is_paused(store: Store) -> None:
    queue(store, concurrency=1)
    worker = join(store)
    first = enqueue(store, "a", owner=worker).run
    second = enqueue(store, "b", owner=worker).run
    one(store, suspend(first, worker, "waiting", 1, release=True))
    assert waiting(store) == (1, 1), "a parked run holds its place"
    assert claimed(store, worker, 1).runs == []
    one(store, ControlRun("a", "pause", 2))
    assert claimed(store, worker, 2).runs == [second]


def test_a_parked_run_goes_on_with_its_place(store: Store) -> None:
    queue(store, concurrency=1)
    worker = join(store)
    first = enqueue(store, "a", owner=worker).run
    enqueue(store, "b", owner=worker)
    one(store, suspend(first, worker, "waiting", 1, release=True))
    one(store, message("a", at_ms=2))
    assert claimed(store, worker, 2).runs == [first]
    assert waiting(store) == (1, 1)


# --- order ----------------------------------------------------------------------------------------


def drained(store: Store, worker: int, at_ms: int = 0) -> list[str]:
    """Ids of runs of a queue with concurrency 1, in the order of admission."""
    order: list[str] = []
    while runs := claimed(store, worker, at_ms).runs:
        order += ids(store, runs)
        for run in runs:
            end(store, run, worker, at_ms)
    return order


def test_higher_priority_first_then_keys_take_turns_then_the_oldest(store: Store) -> None:
    queue(store, concurrency=1)
    worker = join(store)
    first = enqueue(store, "first", owner=worker).run
    for id, key, priority in [
        ("a1", "a", 0), ("a2", "a", 0), ("a3", "a", 0), ("b1", "b", 0), ("n1", None, 0),
        ("b2", "b", 0), ("u1", "a", 5), ("u2", "a", 5), ("u3", "c", 5), ("l1", "z", -1),
        ("n2", None, 0),
    ]:  # fmt: skip
        enqueue(store, id, key=key, priority=priority)
    end(store, first, worker)
    wanted = ["u1", "u3", "u2", "a1", "b1", "n1", "a2", "b2", "n2", "a3", "l1"]
    assert drained(store, worker) == wanted


def test_a_key_that_joins_has_saved_no_turns_and_does_not_wait_for_all_others(
    store: Store,
) -> None:
    queue(store, concurrency=1)
    worker = join(store)
    running = enqueue(store, "first", owner=worker).run
    for n in range(20):
        enqueue(store, f"a{n}", key="a")
    order = []
    for n in range(6):
        end(store, running, worker)
        (running,) = claimed(store, worker).runs
        order += ids(store, [running])
        if n == 2:
            for m in range(3):
                enqueue(store, f"b{m}", key="b")
    assert order == ["a0", "a1", "a2", "a3", "b0", "a4"]


def test_a_full_key_is_passed_over_and_comes_back_without_saved_turns(store: Store) -> None:
    queue(store, concurrency=3, key_concurrency=1)
    worker = join(store)
    first = enqueue(store, "a0", owner=worker, key="a").run
    for n in range(1, 4):
        enqueue(store, f"a{n}", key="a")
    assert claimed(store, worker).runs == []
    assert store.next_due_ms(("flow",), worker=worker) is None, "only a release helps"
    for n in range(8):
        enqueue(store, f"n{n}")
    order = ids(store, claimed(store, worker).runs)
    assert order == ["n0", "n1"]
    for id in order:
        end(store, store.run_key(id), worker)
    assert ids(store, claimed(store, worker).runs) == ["n2", "n3"]
    end(store, first, worker)
    assert ids(store, claimed(store, worker).runs) == ["a1"]


# --- steps ----------------------------------------------------------------------------------------


def test_a_step_is_admitted_with_its_turn_where_there_is_room(store: Store) -> None:
    queue(store, concurrency=1)
    run, worker = owned(store)
    result = written(store, Append(run, worker, [], 0, [asking(run, worker, 2)]))
    (first,) = result.places
    assert first == Place(first.place, True)
    second = ask(store, run, worker, 3)
    assert second == Place(second.place, False)
    assert store.admitted(worker) == [(run, 2, first.place)]
    assert waiting(store) == (1, 1)
    turn = Turn(run, worker, [], 1, places=[asking(run, worker, 4)], released=[first.place])
    result = written(store, turn)
    assert result.admitted == [(run, 3, second.place)], "released first, in line before new ones"
    (third,) = result.places
    assert not third.admitted
    assert free(store, worker, second).admitted == [(run, 4, third.place)]
    assert free(store, worker, third) == Written([], [], [], [], False)
    assert waiting(store) == (0, 0)


def test_a_place_is_asked_for_once_and_released_by_its_worker_only(store: Store) -> None:
    queue(store, concurrency=1)
    run, worker = owned(store)
    other_run, other_worker = owned(store, "other")
    place = ask(store, run, worker)
    assert ask(store, run, worker) == place
    behind = ask(store, other_run, other_worker)
    assert ask(store, other_run, other_worker) == behind
    assert not free(store, other_worker, place).admitted
    assert not free(store, worker, behind).admitted
    assert waiting(store) == (1, 1)
    assert isinstance(refused(store, asking(run, other_worker, 9)), LeaseLost)
    freed = free(store, worker, place)
    assert freed.admitted == [], "it is admitted for another worker"
    assert store.admitted(other_worker) == [(other_run, 2, behind.place)]
    assert ask(store, other_run, other_worker) == Place(behind.place, True)
    new = ask(store, run, worker)
    assert new.place not in (place.place, behind.place)
    assert free(store, worker, place) == Written([], [], [], [], False), "a late release"
    assert waiting(store) == (1, 1)


def test_a_step_takes_over_the_place_of_the_step_before(store: Store, other: Store) -> None:
    """Unless another waits for it, or it is another kind of place."""
    queue(store, concurrency=1)
    run, worker = owned(store)
    place = ask(store, run, worker, 2)

    def next_step(seq: int, released: Place, at_ms: int = 5, **more: Any) -> Place:
        ask = asking(run, worker, seq, at_ms, **more)
        turn = Turn(run, worker, [], at_ms, places=[ask], released=[released.place])
        (found,) = written(store, turn).places
        assert isinstance(found, Place)
        return found

    handed_on = next_step(3, place, weight=4)
    assert handed_on.admitted
    assert store.admitted(worker) == [(run, 3, handed_on.place)]
    (shown,) = store.places("q", 9, True)
    assert (shown.seq, shown.weight, shown.asked_ms, shown.admitted_ms) == (3, 4, 5, 5)
    with_key = next_step(4, handed_on, key="k")
    assert (with_key.admitted, waiting(store)) == (True, (0, 1))
    assert store.places("q", 9, True)[0].key == "k"
    other_run, other_worker = owned(other, "other")
    waits = ask(other, other_run, other_worker)
    last = next_step(5, with_key, key="k")
    assert not last.admitted
    assert store.admitted(other_worker) == [(other_run, 2, waits.place)]
    free(store, worker, last)
    assert next_step(6, waits).admitted is False, "it is not this worker's to hand on"
    assert waiting(store) == (1, 1)


def test_a_step_in_line_gives_up(store: Store) -> None:
    queue(store, concurrency=1)
    run, worker = owned(store)
    places = [ask(store, run, worker, seq) for seq in (2, 3, 4)]
    free(store, worker, places[1])
    assert waiting(store) == (1, 1)
    assert free(store, worker, places[0]).admitted == [(run, 4, places[2].place)]


def test_asks_of_steps_are_refused_as_starts_are(store: Store) -> None:
    queue(store, concurrency=1, waiting_max=1, rate_limit=5, rate_per_ms=1, rate_burst=5)
    run, worker = owned(store)
    assert isinstance(refused(store, asking(run, worker, queue="none")), QueueNotFound)
    assert isinstance(refused(store, asking(run, worker, weight=6)), WeightOverBurst)
    places = [ask(store, run, worker, 2), ask(store, run, worker, 3)]
    asks = [asking(run, worker, 4), asking(run, worker, 5, queue="none")]
    result = written(store, Append(run, worker, [], 0, asks))
    assert [type(one) for one in result.places] == [QueueFull, QueueNotFound]
    assert ask(store, run, worker, 3) == places[1]
    assert waiting(store) == (1, 1)


def test_the_steps_of_a_first_turn_ask_with_the_start(store: Store) -> None:
    queue(store, concurrency=1)
    queue(store, "other")
    worker = join(store)
    asks = [
        AskPlace(0, worker, 2, "q", None, 1, 0, 0),
        AskPlace(0, worker, 3, "other", "k", 1, 0, 0),
    ]
    started = enqueue(store, "a", owner=worker, places=asks)
    assert [one.admitted for one in started.places] == [False, True]
    assert waiting(store) == (1, 1)
    assert store.admitted(worker) == [(started.run, 3, started.places[1].place)]


def test_steps_of_a_run_that_has_ended_hold_their_places(store: Store) -> None:
    """A thread can't be cancelled: what it does may not overlap."""
    queue(store, concurrency=1)
    run, worker = owned(store)
    busy, behind = ask(store, run, worker, 2), ask(store, run, worker, 3)
    turn = Turn(
        run, worker, [], 1, released=[behind.place], finish=Finish("cancelled"),
    )  # fmt: skip
    one(store, turn)
    assert waiting(store) == (0, 1)
    free(store, worker, busy)
    assert waiting(store) == (0, 0)


def test_runs_and_steps_share_a_queue_in_its_order(store: Store) -> None:
    queue(store, concurrency=1)
    run, worker = owned(store)
    first = ask(store, run, worker, 2)
    waits = enqueue(store, "waits").run
    last = ask(store, run, worker, 3)
    freed = free(store, worker, first)
    assert freed.admitted == [], "a run is next: a claim takes it"
    assert freed.queue_due
    got = claimed(store, worker)
    assert (got.runs, got.admitted) == ([waits], [])
    assert end(store, waits, worker).admitted == [(run, 3, last.place)]


# --- workers --------------------------------------------------------------------------------------


def test_the_places_of_a_dead_worker_come_back_with_its_end(store: Store, other: Store) -> None:
    queue(store, concurrency=2)
    run, worker = owned(store)
    ask(store, run, worker, 2)
    held = enqueue(store, "held", owner=worker).run
    behind = ask(store, run, worker, 3)
    survivor = join(other)
    own = start(other, "own", owner=survivor).run
    last = ask(other, own, survivor, 2)
    assert waiting(other) == (2, 2)
    assert claimed(other, survivor).admitted == []
    one(other, died(worker, 5))
    assert waiting(other) == (2, 1), "the step's place is free, the run's is not"
    got = claimed(other, survivor, 5)
    assert sorted(got.runs) == sorted([run, held]), "both are due"
    assert not last.admitted
    assert ask(other, run, survivor, 3) == Place(behind.place, True)
    assert got.admitted == [(run, 3, behind.place)]
    assert ask(other, run, survivor, 2).admitted is False
    assert waiting(other) == (2, 2)


def test_a_step_that_was_admitted_for_a_worker_that_dies_is_not_lost(store: Store) -> None:
    """The worker has not seen it: the run waits, as its row says."""
    queue(store, concurrency=1)
    run, worker = owned(store)
    busy_run, busy = owned(store, "busy")
    place = ask(store, busy_run, busy)
    ask(store, run, worker)
    one(store, suspend(run, worker, "waiting", places=True))
    free(store, busy, place)
    assert len(store.admitted(worker)) == 1
    one(store, EndWorker(worker, 5, crashed=True))
    assert waiting(store) == (0, 0)
    assert claimed(store, busy, 5).runs == [run]


def test_a_run_that_leaves_memory_waits_on_for_its_steps(store: Store) -> None:
    queue(store, concurrency=1)
    run, worker = owned(store)
    busy_run, busy = owned(store, "busy")
    place = ask(store, busy_run, busy)
    step = ask(store, run, worker)
    one(store, suspend(run, worker, "waiting", 1, release=True, places=True))
    assert claimed(store, busy, 1).runs == []
    freed = free(store, busy, place, at_ms=2)
    assert (freed.admitted, freed.queue_due) == ([], True)
    got = claimed(store, busy, 2)
    assert got.runs == [run]
    assert store.admitted(busy) == [(run, 2, step.place)]
    loaded = store.load(run, busy, 100)
    assert loaded is not None
    assert loaded.places == {2: step.place}


def test_a_step_admitted_before_its_run_leaves_memory_makes_it_due(store: Store) -> None:
    queue(store, concurrency=1)
    run, worker = owned(store)
    busy_run, busy = owned(store, "busy")
    place = ask(store, busy_run, busy)
    step = ask(store, run, worker)
    free(store, busy, place)
    one(store, suspend(run, worker, "waiting", 1, release=True, places=True))
    assert claimed(store, busy, 1).runs == [run]
    assert ask(store, run, busy) == Place(step.place, True)
    assert (store.admitted(worker), store.admitted(busy)) == ([], [(run, 2, step.place)])


def test_a_woken_run_takes_its_steps_along(store: Store) -> None:
    """A message comes while a step waits: who executes the run takes its places."""
    queue(store, concurrency=1)
    run, worker = owned(store)
    busy_run, busy = owned(store, "busy")
    place = ask(store, busy_run, busy)
    step = ask(store, run, worker)
    one(store, suspend(run, worker, "waiting", 1, release=True, places=True))
    one(store, message(at_ms=2))
    assert claimed(store, worker, 2).runs == [run]
    assert ask(store, run, worker) == Place(step.place, False)
    free(store, busy, place)
    assert store.admitted(worker) == [(run, 2, step.place)]


def test_a_place_that_a_claim_moves_to_its_worker_keeps_its_turn(store: Store) -> None:
    """A worker dies whose run waits for a step of higher priority: who claims that run, and has a
    place of another key in line itself, admits the higher priority first.
    """
    queue(store, concurrency=1)
    dies = join(store, "dies")
    run = start(store, owner=dies).run
    busy_run, busy = owned(store, "busy")
    place = ask(store, busy_run, busy)
    low = ask(store, busy_run, busy, 4, key="a")
    high = ask(store, run, dies, key="b", priority=1)
    one(store, died(dies))
    free(store, busy, place)
    got = claimed(store, busy)
    assert (got.runs, got.admitted) == ([run], [(run, 2, high.place)])
    assert free(store, busy, high).admitted == [(busy_run, 4, low.place)]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_paused_run_without_an_owner_gives_up_the_places_of_its_steps(
    store: Store, steps: int
) -> None:
    queue(store, concurrency=1)
    run, worker = owned(store)
    busy_run, busy = owned(store, "busy")
    ask(store, busy_run, busy)
    for seq in range(2, 2 + steps):
        ask(store, run, worker, seq)
    one(store, suspend(run, worker, "waiting", 1, release=True, places=True))
    one(store, ControlRun("r", "pause", 2))
    assert waiting(store) == (0, 1)
    one(store, ControlRun("r", "resume", 3))
    assert claimed(store, worker, 3).runs == [run]


@pytest.mark.parametrize("way", ["pause", "cancel", "death"])
def test_steps_are_admitted_by_writes_that_tell_their_worker(store: Store, way: str) -> None:
    """A worker looks for its admitted steps in what its own writes give, and after foreign ones."""
    queue(store, concurrency=1)
    run, worker = owned(store)
    other_run, other = owned(store, "other")
    if way == "death":
        ask(store, other_run, other)
    else:
        held = enqueue(store, "held", owner=other).run
        one(store, suspend(held, other, "waiting", 1, release=True))
    step = ask(store, run, worker, 2, 1)
    match way:
        case "pause":
            one(store, ControlRun("held", "pause", 2))
        case "cancel":
            one(store, ControlRun("held", "pause", 2))
            one(store, Deliver("held", "cancel", 2, verb="cancel"))
        case _:
            one(store, EndWorker(other, 2, crashed=True))
    assert store.admitted(worker) == []
    assert store.next_due_ms(("none",), worker=worker) == 2
    assert claimed(store, worker, 2, names=("none",)).admitted == [(run, 2, step.place)]


def test_a_crash_loop_gives_all_places_back(store: Store) -> None:
    queue(store, concurrency=2)
    worker = join(store)
    run = enqueue(store, "a", owner=worker).run
    ask(store, run, worker, 2)
    ask(store, run, worker, 3)
    assert waiting(store) == (1, 2)
    one(store, died(worker, 1, crashes_max=1))
    assert (store.status("a"), waiting(store)) == ("blocked", (0, 0))


def test_each_worker_takes_what_it_may(store: Store, other: Store) -> None:
    queue(store, per_worker=1)
    first, second = join(store), join(other)
    runs = [enqueue(store, id).run for id in "abc"]
    assert claimed(store, first, limit=1).runs == runs[:1]
    assert claimed(store, first).runs == []
    assert store.next_due_ms(("flow",), worker=first) is None
    assert store.next_due_ms(("flow",), worker=second) == 0
    assert claimed(other, second).runs == runs[1:2]
    step_run = start(store, "steps", owner=first).run
    assert not ask(store, step_run, first).admitted
    one(store, suspend(runs[0], first, "waiting", 1, release=True))
    assert [seq for _, seq, _ in store.admitted(first)] == []
    assert claimed(store, first, 1).runs == runs[2:], "a parked run is no worker's"
    one(store, message("a", at_ms=2))
    assert claimed(store, first, 2).runs == []
    assert (store.status("a"), waiting(store)) == ("waiting", (2, 2)), "it waits for a worker"
    end(store, runs[2], first, 3)
    assert claimed(store, first, 3).runs == runs[:1], "with its old number it is first"


def test_a_step_in_the_queue_of_its_run_needs_a_place_of_its_own(store: Store) -> None:
    """With one for each worker it can't get that, and nobody tries for ever."""
    queue(store, per_worker=1)
    worker = join(store)
    run = enqueue(store, "a", owner=worker).run
    assert not ask(store, run, worker, 2).admitted
    one(store, suspend(run, worker, "waiting", 1, release=True, places=True))
    assert claimed(store, worker, 1).runs == []
    assert store.next_due_ms(("flow",), worker=worker) is None
    queue(store, at_ms=2, per_worker=2)
    assert claimed(store, worker, 2).runs == [run]
    assert len(store.admitted(worker)) == 1


def test_an_engine_that_is_asked_admits_its_family_only(store: Store) -> None:
    queue(store, concurrency=1)
    asked = join(store, asked=True)
    enqueue(store, "before")
    run = enqueue(store, "mine").run
    child = enqueue(store, "child", root=run).run
    family = store.family(run)
    assert store.next_due_ms(("flow",), [family], asked) == 0
    assert store.next_due_ms(("another",), [family], asked) is None
    assert claimed(store, asked, families=(family,)).runs == [run]
    assert store.next_due_ms(("flow",), [family], asked) is None
    end(store, run, asked)
    assert claimed(store, asked, families=(family,)).runs == [child]
    end(store, child, asked)
    assert claimed(store, asked, families=(family,)).runs == []
    assert waiting(store) == (1, 0)


def test_a_claim_without_room_admits_steps_of_owned_runs_only(store: Store) -> None:
    queue(store, concurrency=1)
    run, worker = owned(store)
    first = ask(store, run, worker, 2)
    waits = enqueue(store, "waits").run
    step = ask(store, run, worker, 3)
    free(store, worker, first)
    got = claimed(store, worker, limit=0)
    assert (got.runs, got.admitted) == ([], [(run, 3, step.place)])
    free(store, worker, step)
    assert claimed(store, worker, limit=0).runs == []
    assert claimed(store, worker, limit=1).runs == [waits]


def test_workers_share_what_a_queue_admits(store: Store) -> None:
    queue(store, concurrency=4)
    workers = [join(store), join(store)]
    for n in range(8):
        enqueue(store, f"r{n}")
    assert [len(claimed(store, one, insists=False).runs) for one in workers] == [2, 2]


def test_a_run_ends_while_its_worker_releases_in_another_write(store: Store) -> None:
    queue(store, concurrency=1)
    run, worker = owned(store)
    place = ask(store, run, worker)
    end(store, run, worker)
    assert waiting(store) == (0, 1)
    one(store, ReleasePlaces([place.place, 10**6], worker, 1))
    assert waiting(store) == (0, 0)


def test_the_next_attempt_of_a_step_whose_thread_goes_on_needs_a_place_of_its_own(
    store: Store,
) -> None:
    queue(store, concurrency=1)
    worker = join(store)
    run = start(store, "a", owner=worker).run
    first = ask(store, run, worker)
    note = written(store, Append(run, worker, [], 0, [asking(run, worker)], kept=[first.place]))
    (second,) = note.places
    assert isinstance(second, Place) and not second.admitted and second.place != first.place
    assert waiting(store) == (1, 1)
    assert free(store, worker, first).admitted == [(run, 2, second.place)]
    assert waiting(store) == (0, 1)


def test_a_step_does_not_get_its_run_past_the_queue_of_the_run(store: Store) -> None:
    """The run waits for its own place again while one of its steps waits in another queue."""
    queue(store, concurrency=2, per_worker=1)
    queue(store, "s", concurrency=1)
    busy_run, busy = owned(store, "busy")
    place = ask(store, busy_run, busy, queue="s")
    first, second, third = join(store), join(store), join(store)
    run = enqueue(store, "r", owner=first).run
    ask(store, run, first, queue="s")
    one(store, suspend(run, first, "waiting", 1, due_ms=2, release=True, places=True))
    assert enqueue(store, "other", owner=first).owned
    assert claimed(store, first, 2).runs == []
    urgent = enqueue(store, "urgent", 2, priority=1)
    assert claimed(store, second, 2, 1).runs == [urgent.run]
    free(store, busy, place, at_ms=3)
    assert claimed(store, third, 3).runs == []
    assert (store.status("r"), waiting(store)) == ("waiting", (1, 2))
    end(store, store.run_key("other"), first, 4)
    assert claimed(store, third, 4).runs == [run]
    assert ask(store, run, third, queue="s").admitted


def test_a_start_says_when_its_first_steps_may_be_admitted_later(store: Store) -> None:
    queue(store, rate_limit=1, rate_per_ms=1_000, rate_burst=1)
    worker = join(store)
    for id, admitted in (("a", True), ("b", False)):
        started = start(store, id, owner=worker, due_ms=None, places=[asking(0, worker)])
        assert [place.admitted for place in started.places] == [admitted]
        assert started.queue_due is not admitted
    assert store.next_due_ms(("flow",), worker=worker) == 1_000
