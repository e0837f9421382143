"""Limits of queues: rates, holds, what was spent, and what changes while places wait."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from perdure.errors import DefinitionError, QueueNotFound, TooManyQueues, WeightOverBurst
from perdure.store import lines, queue_settings
from perdure.store.base import Store
from perdure.store.rows import PlaceRow, QueueKeyRow, QueueRow, StandingRow
from perdure.store.writes import ClockMovedBack, HoldQueue, QueueLimits, SetQueue, Spend
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
)
from tests.store.conformance.support import join, one, owned, queue, start, suspend

SECOND: dict[str, Any] = {"rate_limit": 2, "rate_per_ms": 1_000, "rate_burst": 2}
"""Two in a second, both at once if need be."""


def admissions(store: Store, worker: int, until_ms: int) -> Iterator[tuple[int, str]]:
    """When which runs are admitted, by claims when the store says that they are worth making."""
    now_ms = 0
    while (due_ms := store.next_due_ms(("flow",), worker=worker)) is not None:
        now_ms = max(now_ms, due_ms)
        if now_ms > until_ms:
            return
        runs = claimed(store, worker, now_ms).runs
        for id in ids(store, runs):
            yield now_ms, id


# --- rates ----------------------------------------------------------------------------------------


def test_a_rate_admits_a_burst_and_then_one_after_the_other(store: Store) -> None:
    queue(store, **SECOND)
    worker = join(store)
    for n in range(5):
        enqueue(store, f"r{n}")
    wanted = [(0, "r0"), (0, "r1"), (500, "r2"), (1_000, "r3"), (1_500, "r4")]
    assert list(admissions(store, worker, 9_000)) == wanted
    enqueue(store, "late", 10_000)
    assert claimed(store, worker, 10_000).runs != []
    assert store.next_due_ms(("flow",), worker=worker) is None


def test_a_run_or_step_that_finds_no_tokens_waits_for_them(store: Store) -> None:
    queue(store, **SECOND)
    run, worker = owned(store)
    assert [ask(store, run, worker, seq).admitted for seq in (2, 3, 4)] == [True, True, False]
    assert store.next_due_ms(("flow",), worker=worker) == 500
    assert claimed(store, worker, 499).admitted == []
    ((_, seq, _),) = claimed(store, worker, 500).admitted
    assert seq == 4


def test_weights_are_tokens_and_the_first_is_not_overtaken(store: Store) -> None:
    queue(store, rate_limit=10, rate_per_ms=1_000, rate_burst=10)
    worker = join(store)
    for id, weight in [("a", 8), ("b", 6), ("c", 1)]:
        enqueue(store, id, weight=weight)
    assert list(admissions(store, worker, 9_000)) == [(0, "a"), (400, "b"), (500, "c")]


def test_a_rate_of_a_key_holds_back_that_key_only(store: Store) -> None:
    limits = {f"key_{name}": value for name, value in SECOND.items()}
    queue(store, **limits)
    worker = join(store)
    for id, key in [("a0", "a"), ("a1", "a"), ("a2", "a"), ("b0", "b"), ("n0", None), ("a3", "a")]:
        enqueue(store, id, key=key)
    got = list(admissions(store, worker, 9_000))
    assert sorted(got[:5]) == [(0, "a0"), (0, "a1"), (0, "b0"), (0, "n0"), (500, "a2")]
    assert got[5:] == [(1_000, "a3")]


@pytest.mark.parametrize("limit", [3, 7, 1_000, 150_000])
def test_no_span_of_time_has_more_than_its_rate(store: Store, limit: int) -> None:
    """Seeded: weights, times of arrival, and ends of runs at random."""
    seed = limit
    rng = random.Random(seed)
    burst, per_ms = max(5, limit // 50), 60_000
    queue(store, rate_limit=limit, rate_per_ms=per_ms, rate_burst=burst)
    run, worker = owned(store)
    times: list[tuple[int, int]] = []
    weights: dict[int, int] = {}
    now_ms = 0
    for seq in range(2, 60):
        now_ms += rng.choice([0, 0, 1, 50, per_ms // limit])
        weights[seq] = rng.randint(1, burst)
        got = ask(store, run, worker, seq, now_ms, weight=weights[seq])
        times += [(now_ms, weights[seq])] if got.admitted else []
        for _, step, _ in claimed(store, worker, now_ms).admitted:
            times.append((now_ms, weights[step]))
    while (due_ms := store.next_due_ms(("flow",), worker=worker)) is not None:
        now_ms = max(now_ms, due_ms)
        for _, step, _ in claimed(store, worker, now_ms).admitted:
            times.append((now_ms, weights[step]))
    assert len(times) == len(weights), f"seed {seed}"
    for first, (begin_ms, _) in enumerate(times):
        drawn = 0
        for at_ms, weight in times[first:]:
            drawn += weight
            assert drawn <= burst + (at_ms - begin_ms) * limit / per_ms + 1e-6, f"seed {seed}"


def test_a_clock_that_is_set_back_neither_fills_a_bucket_nor_stalls_it(store: Store) -> None:
    queue(store, **SECOND)
    hour_ms = 3_600_000
    run, worker = owned(store)
    for seq in (2, 3, 4):
        ask(store, run, worker, seq, hour_ms)
    assert store.next_due_ms(("flow",), worker=worker) == hour_ms + 500
    one(store, ClockMovedBack(1_000))
    assert claimed(store, worker, 1_000).admitted == []
    assert store.next_due_ms(("flow",), worker=worker) == 1_500
    assert len(claimed(store, worker, 1_500).admitted) == 1
    assert not ask(store, run, worker, 5, 1_500).admitted


def test_a_clock_that_is_set_back_opens_keys_again(store: Store) -> None:
    queue(store, **{f"key_{name}": value for name, value in SECOND.items()})
    run, worker = owned(store)
    for seq in (2, 3, 4):
        ask(store, run, worker, seq, 3_600_000, key="k")
    one(store, ClockMovedBack(1_000))
    assert claimed(store, worker, 1_000).admitted == []
    assert store.next_due_ms(("flow",), worker=worker) == 1_500
    assert len(claimed(store, worker, 1_500).admitted) == 1


# --- spend and hold -------------------------------------------------------------------------------


def test_what_was_spent_delays_the_next(store: Store) -> None:
    queue(store, rate_limit=10, rate_per_ms=1_000, rate_burst=10)
    run, worker = owned(store)
    place = ask(store, run, worker, 2, weight=4)
    one(store, Spend("q", None, 24, 0, place.place))  # 4 of these are paid: 14 tokens too many
    ask(store, run, worker, 3)
    assert store.next_due_ms(("flow",), worker=worker) == 1_500
    one(store, Spend("q", None, 5, 0, place.place))
    assert claimed(store, worker, 1_500).admitted == []
    assert store.next_due_ms(("flow",), worker=worker) == 2_000
    assert len(claimed(store, worker, 2_000).admitted) == 1


def test_what_was_not_spent_is_given_back(store: Store) -> None:
    queue(store, rate_limit=10, rate_per_ms=1_000, rate_burst=10)
    run, worker = owned(store)
    place = ask(store, run, worker, 2, weight=10)
    ask(store, run, worker, 3, weight=7)
    assert store.next_due_ms(("flow",), worker=worker) == 700
    one(store, Spend("q", None, 2, 0, place.place))
    assert len(claimed(store, worker, 0).admitted) == 1
    assert isinstance(refused(store, Spend("none", None, 1, 0)), QueueNotFound)
    one(store, Spend("q", None, -100, 0))
    assert ask(store, run, worker, 4, weight=1).admitted is not False
    assert ask(store, run, worker, 5, weight=9).admitted, "never more than the burst"
    assert not ask(store, run, worker, 6).admitted


def test_spending_counts_for_the_rate_of_a_key(store: Store) -> None:
    queue(store, **{f"key_{name}": value for name, value in SECOND.items()})
    run, worker = owned(store)
    one(store, Spend("q", "k", 3, 0))
    one(store, Spend("q", "z", 1, 0))
    assert not ask(store, run, worker, 2, key="k").admitted
    assert ask(store, run, worker, 3, key="z").admitted
    assert ask(store, run, worker, 4).admitted
    assert store.next_due_ms(("flow",), worker=worker) == 1_000
    one(store, Spend("q", "k", -3, 0))
    assert len(claimed(store, worker).admitted) == 1


def test_a_queue_that_is_held_admits_nothing_before(store: Store) -> None:
    queue(store, concurrency=2)
    run, worker = owned(store)
    one(store, HoldQueue("q", 5_000, 1_000))
    one(store, HoldQueue("q", 3_000, 1_000))  # the longer one stays
    assert not ask(store, run, worker, 2, 1_000).admitted
    assert store.next_due_ms(("flow",), worker=worker) == 5_000
    assert store.queue_row("q").held_ms == 5_000
    assert claimed(store, worker, 4_999).admitted == []
    assert len(claimed(store, worker, 5_000).admitted) == 1
    assert store.queue_row("q").held_ms is None
    one(store, HoldQueue("q", 91_000, 90_000))
    assert not ask(store, run, worker, 3, 90_000).admitted
    one(store, ClockMovedBack(100))
    assert claimed(store, worker, 100).admitted == []
    assert store.next_due_ms(("flow",), worker=worker) == 1_100, "a second, by the new clock"
    assert isinstance(refused(store, HoldQueue("none", 1, 0)), QueueNotFound)


# --- changes --------------------------------------------------------------------------------------


def test_limits_change_for_what_waits(store: Store, other: Store) -> None:
    queue(store, concurrency=1)
    run, worker = owned(store)
    for seq in range(2, 7):
        ask(store, run, worker, seq, key="k")
    assert queue(other, concurrency=3).limits == QueueLimits(concurrency=3)
    assert len(claimed(store, worker).admitted) == 2
    queue(other, concurrency=None, key_concurrency=4)
    assert len(claimed(store, worker).admitted) == 1
    queue(other, key_concurrency=None, paused=True)
    assert claimed(store, worker).admitted == []
    assert store.next_due_ms(("flow",), worker=worker) is None
    assert other.queue_row("q").limits.paused
    queue(other, paused=False)
    assert len(claimed(store, worker).admitted) == 1
    assert waiting(store) == (0, 5)


def test_a_limit_that_is_lowered_takes_no_place_away(store: Store) -> None:
    queue(store, concurrency=3, rate_limit=9, rate_per_ms=1_000, rate_burst=9)
    run, worker = owned(store)
    places = [ask(store, run, worker, seq) for seq in (2, 3, 4)]
    late = ask(store, run, worker, 5, weight=5)
    queue(store, concurrency=2, rate_limit=2, rate_burst=2)
    for place in places[:2]:
        assert free(store, worker, place, at_ms=60_000).admitted in ([], [(run, 5, late.place)])
    assert waiting(store) == (0, 2), "a weight over the new burst waits for a full bucket"
    assert isinstance(refused(store, asking(run, worker, 6, weight=5)), WeightOverBurst)


def test_tokens_that_are_missing_are_missing_at_another_rate(store: Store) -> None:
    queue(store, rate_limit=1, rate_per_ms=3_600_000, rate_burst=1)
    run, worker = owned(store)
    ask(store, run, worker, 2)
    ask(store, run, worker, 3)
    assert store.next_due_ms(("flow",), worker=worker) == 3_600_000
    queue(store, rate_limit=10, rate_per_ms=1_000, rate_burst=1)
    assert claimed(store, worker).admitted == []
    assert store.next_due_ms(("flow",), worker=worker) == 100
    queue(store, rate_limit=None, rate_per_ms=None, rate_burst=None)
    assert len(claimed(store, worker).admitted) == 1


def test_a_declaration_changes_what_differs_from_the_last_one(store: Store, other: Store) -> None:
    def declare(store: Store, json: str, **given: Any) -> QueueLimits:
        row = one(store, SetQueue("q", given, 0, json))
        assert isinstance(row, QueueRow)
        return row.limits

    first = '{"concurrency":2,"paused":false}'
    assert declare(store, first, concurrency=2, paused=False).concurrency == 2
    queue(other, concurrency=9, paused=True)
    assert declare(store, first, concurrency=2, paused=False).concurrency == 9
    second = '{"concurrency":2,"paused":false,"waiting_max":5}'
    got = declare(other, second, concurrency=2, paused=False, waiting_max=5)
    assert got == QueueLimits(concurrency=9, waiting_max=5, paused=True)
    third = '{"concurrency":4,"paused":false,"waiting_max":5}'
    assert declare(store, third, concurrency=4, paused=False, waiting_max=5).concurrency == 4
    assert store.queue_row("q").declared == third


def test_limits_that_contradict_each_other_change_nothing(store: Store) -> None:
    def check(limits: QueueLimits) -> None:
        if limits.concurrency == 0:
            raise DefinitionError("no")

    wrong = SetQueue("q", {"concurrency": 0}, 0, check=check)
    assert isinstance(refused(store, wrong), DefinitionError)
    assert store.queue_rows() == []
    queue(store, concurrency=1)
    assert isinstance(refused(store, wrong), DefinitionError)
    assert store.queue_row("q").limits == QueueLimits(concurrency=1)


def test_a_store_has_a_limit_of_queues(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_settings, "QUEUES_MAX", 2)
    queue(store, "a")
    queue(store, "b")
    assert isinstance(refused(store, SetQueue("c", {}, 0)), TooManyQueues)
    assert queue(store, "a", concurrency=1).limits.concurrency == 1


# --- reads ----------------------------------------------------------------------------------------


def test_queues_are_shown_with_what_waits_in_them(store: Store, other: Store) -> None:
    queue(store, "b", waiting_max=7)
    queue(store, "q", concurrency=2)
    run, worker = owned(store)
    places = [
        ask(store, run, worker, seq, 5, key=key, weight=seq, priority=-seq)
        for seq, key in [(2, "k"), (3, "k"), (4, "k"), (5, None), (6, "z")]
    ]
    for reader in (store, other):
        assert [row.name for row in reader.queue_rows()] == ["b", "q"]
        row = reader.queue_row("q")
        assert (row.waiting, row.running, row.next_ms, row.held_ms) == (3, 2, None, None)
        assert row.limits == QueueLimits(concurrency=2)
        assert reader.queue_keys("q", 2) == [
            QueueKeyRow("k", 2, 1, None),
            QueueKeyRow(None, 0, 1, None),
        ]
        shown = reader.places("q", 1, True)
        assert shown == [PlaceRow("r", "running", 2, None, "k", -2, 2, 5, 5, worker)]
        assert [row.seq for row in reader.places("q", 10, False)] == [4, 5, 6]
        assert [row.key for row in reader.places("q", 2, False)] == ["k", None]
        with pytest.raises(QueueNotFound, match="There are: b, q"):
            reader.queue_row("none")
        with pytest.raises(QueueNotFound):
            reader.queue_keys("x", 1)
        with pytest.raises(QueueNotFound):
            reader.places("x", 1, True)
    assert len(places) == 5


def test_where_a_run_stands(store: Store) -> None:
    queue(store, concurrency=1)
    run, worker = owned(store)
    first = ask(store, run, worker, 2)
    for id, key in [("a", "k"), ("b", "k"), ("c", "z")]:
        enqueue(store, id, key=key)
    ask(store, run, worker, 3, key="k")

    def of(id: str) -> StandingRow:
        (found,) = store.place_of(store.run_key(id))
        return found

    assert of("a") == StandingRow("q", None, None, "k", 1, 4, "concurrency", 1, None)
    assert [of(id).position for id in ("b", "c")] == [4, 2]
    assert of("r") == StandingRow("q", 3, None, "k", 3, 4, "concurrency", 1, None)
    assert [store.line_of(run, seq) for seq in (2, 3, 4)] == [None, "q", None]
    free(store, worker, first)
    assert of("c").why == "line"
    queue(store, paused=True)
    assert of("c").why == "paused"
    queue(store, paused=False, concurrency=None, key_concurrency=1)
    one(store, HoldQueue("q", 50, 0))
    assert (of("c").why, of("c").next_ms) == ("held", 50)
    claimed(store, worker, 50)
    assert [of(id).why for id in ("b", "r")] == ["key_limit", "key_limit"]
    assert store.place_of(start(store, "none").run) == []
    assert store.place_of(10**6) == []
    runs = [store.run_key(id) for id in ("b", "c")]
    assert store.places_of(runs) == {run: store.place_of(run) for run in runs}


def test_why_a_run_waits_for_tokens_or_a_worker(store: Store) -> None:
    queue(store, **SECOND)
    for id in "abc":
        enqueue(store, id)
    (standing,) = store.place_of(store.run_key("a"))
    assert standing.why == "no_worker"
    worker = join(store)
    claimed(store, worker)
    (standing,) = store.place_of(store.run_key("c"))
    assert (standing.why, standing.limit, standing.next_ms) == ("rate", 2, 500)
    queue(store, "w", per_worker=1)
    run = start(store, "steps", owner=worker).run
    ask(store, run, worker, 2, queue="w")
    ask(store, run, worker, 3, queue="w")
    (standing,) = store.place_of(run)
    assert (standing.why, standing.limit, standing.seq) == ("per_worker", 1, 3)
    queue(store, "k", key_rate_limit=1, key_rate_per_ms=1_000, key_rate_burst=1)
    for seq in (4, 5):
        ask(store, run, worker, seq, queue="k", key="k")
    standing = store.place_of(run)[1]
    assert (standing.why, standing.next_ms) == ("key_rate", 1_000)
    end(store, run, worker)


def test_a_step_that_gets_another_taker_is_admitted_no_sooner(store: Store) -> None:
    queue(store, rate_limit=1, rate_per_ms=1_000, rate_burst=1)
    run, worker = owned(store, "r")
    assert ask(store, run, worker).admitted
    assert not ask(store, run, worker, 3).admitted
    one(store, suspend(run, worker, "waiting", 5, release=True, places=True))
    assert store.queue_row("q").next_ms == 1_000


def test_keys_that_have_tokens_again_are_opened_some_in_each_pass(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "OPENED_MAX", 2)
    queue(store, key_rate_limit=1, key_rate_per_ms=1_000, key_rate_burst=1)
    worker = join(store)
    for number in range(10):
        enqueue(store, f"r{number}", key=f"k{number % 5}")
    assert len(claimed(store, worker).runs) == 5
    found = []
    for _ in range(3):
        assert store.next_due_ms(("flow",), worker=worker) == 1_000
        found.append(len(claimed(store, worker, 1_000).runs))
    assert found == [2, 2, 1]
    assert waiting(store) == (0, 10)


def test_the_queue_that_may_admit_first_decides_when_to_look(store: Store) -> None:
    """Whichever of them has been looked at first."""
    worker = join(store)
    for name, per_ms in (("a", 3_000), ("b", 1_000), ("c", 2_000)):
        queue(store, name, rate_limit=1, rate_per_ms=per_ms, rate_burst=1)
        for number in range(2):
            enqueue(store, f"{name}{number}", queue=name)
    assert len(claimed(store, worker).runs) == 3
    assert store.next_due_ms(("flow",), worker=worker) == 1_000
