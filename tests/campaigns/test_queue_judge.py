"""The judge of queues finds what was planted, and nothing where nothing is wrong."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import pytest

from campaigns.queue_judge import (
    ADMITTED,
    ASKED,
    ENDED,
    MOVED,
    RELEASED,
    Bounds,
    Hold,
    Place,
    order,
    over_rate,
    overlapping_pairs,
    overlaps,
)


def hold(begin: int, end: int, *, key: str = "-", worker: int = 1, queue: str = "q") -> Hold:
    return Hold(queue, key, worker, begin, end, f"{begin}-{end}")


# --- overlaps -------------------------------------------------------------------------------------


def test_what_begins_when_another_one_ends_does_not_overlap_it() -> None:
    assert overlaps([hold(0, 10), hold(10, 20), hold(20, 20)], {"q": Bounds(concurrency=1)}) == []


def test_an_overlap_names_both_places_and_the_limit() -> None:
    [found] = overlaps([hold(0, 10), hold(9, 20)], {"q": Bounds(concurrency=1)})
    assert (found.last.what, [one.what for one in found.others]) == ("9-20", ["0-10"])
    assert "queue q, limit 1" in str(found)
    assert "0-10" in str(found)


def test_a_limit_of_two_lets_two_in() -> None:
    three = [hold(0, 10), hold(1, 10), hold(2, 10)]
    assert overlaps(three[:2], {"q": Bounds(concurrency=2)}) == []
    assert len(overlaps(three, {"q": Bounds(concurrency=2)})) == 1


def test_keys_and_workers_have_limits_of_their_own() -> None:
    same = [hold(0, 10, key="a", worker=1), hold(5, 15, key="a", worker=2)]
    other = [hold(0, 10, key="a", worker=1), hold(5, 15, key="b", worker=1)]
    none = [hold(0, 10), hold(5, 15, worker=2)]
    by_key, by_worker = {"q": Bounds(key_concurrency=1)}, {"q": Bounds(per_worker=1)}
    assert [len(overlaps(one, by_key)) for one in (same, other, none)] == [1, 0, 0]
    assert [len(overlaps(one, by_worker)) for one in (same, other, none)] == [0, 1, 0]
    assert overlaps([hold(0, 10), hold(5, 15, queue="r")], {"q": Bounds(1), "r": Bounds(1)}) == []


@pytest.mark.parametrize("seed", range(20))
def test_planted_overlaps_are_counted_as_by_hand(seed: int) -> None:
    rng = random.Random(seed)
    begins = [rng.randrange(200) for _ in range(40)]
    holds = [hold(begin, begin + rng.randint(1, 12)) for begin in begins]
    by_hand = sum(
        one.begin_ns < other.end_ns and other.begin_ns < one.end_ns
        for number, one in enumerate(holds)
        for other in holds[:number]
    )
    assert overlapping_pairs(holds) == by_hand
    limit = rng.randint(1, 3)
    most = max(sum(one.begin_ns <= at < one.end_ns for one in holds) for at in begins)
    assert bool(overlaps(holds, {"q": Bounds(limit)})) == (most > limit)


# --- rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_rate_is_exceeded_where_some_window_has_more_than_it_may(seed: int) -> None:
    rng = random.Random(seed)
    at_ms, admissions = 0, []
    limit, per_ms, burst = rng.randint(1, 5), rng.choice([50, 100]), rng.randint(1, 5)
    for _ in range(12):
        at_ms += rng.randrange(3 * per_ms // limit)
        admissions.append((at_ms, rng.randint(1, burst)))
    windows = [
        sum(weight for _, weight in admissions[first : last + 1])
        - burst
        - Fraction(limit * (admissions[last][0] - admissions[first][0]), per_ms)
        for first in range(len(admissions))
        for last in range(first, len(admissions))
    ]
    assert bool(over_rate(admissions, limit, per_ms, burst)) == (max(windows) > 0)


def test_a_rate_used_to_the_full_is_not_exceeded() -> None:
    steady = [(0, 5), *((100 * n, 1) for n in range(1, 200))]
    assert over_rate(steady, 10, 1000, 5) == []
    assert "at 19800 ms" in over_rate([*steady[:-1], (19_800, 1)], 10, 1000, 5)[0]


# --- the order of admissions ----------------------------------------------------------------------


def judged(*steps: tuple[str, Place], bounds: Bounds | None = None, laws: bool = True) -> list[str]:
    return order(steps, {"q": bounds or Bounds()}, ordered={"q"} if laws else ())


def test_an_admission_beside_a_full_queue_key_or_worker_is_told() -> None:
    one, two = Place(1, "q", "a", taker=7), Place(2, "q", "a", taker=7)
    both = [(ASKED, one), (ASKED, two), (ADMITTED, one), (ADMITTED, two)]
    assert "was admitted beside 1" in judged(*both, bounds=Bounds(concurrency=1))[0]
    assert "key a" in judged(*both, bounds=Bounds(key_concurrency=1))[0]
    assert "worker 7 was full" in judged(*both, bounds=Bounds(per_worker=1))[0]
    freed = [*both[:3], (RELEASED, one), both[3]]
    for bounds in (Bounds(1), Bounds(per_worker=1), Bounds(key_concurrency=1)):
        assert judged(*freed, bounds=bounds) == []


def test_a_higher_priority_that_is_passed_over_is_told() -> None:
    low, high = Place(1, "q"), Place(2, "q", priority=5)
    steps = [(ASKED, low), (ASKED, high), (ADMITTED, low)]
    assert "before place 2, priority 5" in judged(*steps)[0]
    assert judged(*steps, laws=False) == []
    assert judged(*steps[:2], (ADMITTED, high), (ADMITTED, low)) == []
    assert judged((ASKED, low), (ADMITTED, low), (ASKED, high)) == []


def test_a_place_that_can_not_be_admitted_is_passed_over_rightly() -> None:
    running, low = Place(1, "q", "a"), Place(2, "q", "b")
    full = Place(3, "q", "a", priority=5)
    steps = [(ASKED, running), (ADMITTED, running), (ASKED, low), (ASKED, full)]
    assert judged(*steps, (ADMITTED, low), bounds=Bounds(key_concurrency=1)) == []
    assert judged(*steps, (ADMITTED, low))


def test_a_run_that_no_worker_has_may_be_passed_over_by_steps_of_runs_that_have_one() -> None:
    homeless, owned = Place(1, "q", priority=5), Place(2, "q", taker=7)
    assert judged((ASKED, homeless), (ASKED, owned), (ADMITTED, owned)) == []
    assert judged((ASKED, owned), (ASKED, homeless), (ADMITTED, replace(homeless, taker=7))) == []
    orphan = replace(homeless, taker=8)
    passed = [(ASKED, orphan), (ASKED, owned), (ADMITTED, owned)]
    assert "before place 1" in judged(*passed)[0]
    assert judged((ENDED, Place(0, "", taker=8)), *passed) == []
    higher = replace(owned, number=3, priority=6)
    taken = (ADMITTED, replace(homeless, taker=7))
    assert "before place 3" in judged((ASKED, higher), (ASKED, homeless), taken)[0]


def test_a_key_that_gets_more_than_its_turn_is_told() -> None:
    places = [Place(n, "q", key) for n, key in enumerate("aaaabbbb")]
    asks = [(ASKED, one) for one in places]
    turns = [places[n] for n in (0, 4, 1, 5, 2, 6, 3, 7)]
    assert judged(*asks, *((ADMITTED, one) for one in turns)) == []
    greedy = judged(*asks, *((ADMITTED, one) for one in places[:2]))
    assert len(greedy) == 1
    assert "1 turns ahead of key b" in greedy[0]


def test_a_place_that_does_not_wait_goes_before_none_of_its_priority() -> None:
    first, second = Place(1, "q", "a"), Place(2, "q", "b")
    assert "before place 1, which waits" in judged((ASKED, first), (ADMITTED, second))[0]
    assert judged((ASKED, first), (ADMITTED, replace(second, priority=1))) == []


def test_a_place_that_another_worker_takes_over_counts_for_that_one() -> None:
    one, two = Place(1, "q", taker=7), Place(2, "q", taker=8)
    moved = [(ADMITTED, one), (MOVED, replace(one, taker=8)), (ADMITTED, two)]
    assert "worker 8 was full" in judged(*moved, bounds=Bounds(per_worker=1))[0]
    assert judged(moved[0], moved[2], bounds=Bounds(per_worker=1)) == []


def test_a_key_that_comes_late_is_not_owed_what_it_missed() -> None:
    first = [Place(n, "q", "a") for n in range(9)]
    late = [Place(n, "q", "b") for n in range(10, 13)]
    asks = [(ASKED, one) for one in first], [(ASKED, one) for one in late]
    before = [(ADMITTED, one) for one in first[:4]]
    fair = [(ADMITTED, one) for pair in zip(first[4:], late, strict=False) for one in pair]
    assert judged(*asks[0], *before, *asks[1], *fair) == []
    owed = [(ADMITTED, one) for one in late]
    assert "turns ahead of key a" in judged(*asks[0], *before, *asks[1], *owed)[0]
